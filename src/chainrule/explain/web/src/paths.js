// @ts-check
// The sum over paths: counted by dynamic programming, the largest found best first, never enumerated.
import { around } from './sweep.js';

/** @typedef {import('./graph.js').Value} Value */
/** @typedef {import('./graph.js').Edge} Edge */

/** @typedef {{edge: Edge, i: number, j: number, value: number}} Hop  one entry of a local Jacobian */
/** @typedef {{hops: Hop[], product: number}} Path */

/** How many entries of local Jacobians the search walks through at most. */
const WALK = 400000;

/**
 * Paths from component `j` of `source` to component `i` of `target`.
 * @param {{nodes: Value[], edges: Edge[]}} view @param {Value} source @param {number} j @param {Value} target @param {number} i
 */
export function sumOverPaths(view, source, j, target, i, k = 8) {
  const { from } = around(view.edges);
  if (view.edges.some((e) => !e.map.known) || view.edges.reduce((t, e) => t + (e.map.stored ?? 0), 0) > WALK)
    return null;
  const count = new Map(),
    dense = new Map(),
    bound = new Map(),
    sum = new Map();
  const zero = BigInt(0),
    one = BigInt(1);
  for (const n of [...view.nodes].reverse()) {
    const c = new Array(n.size).fill(zero),
      b = new Float64Array(n.size).fill(-Infinity),
      t = new Float64Array(n.size);
    if (n === target) {
      c[i] = one;
      b[i] = 0;
      t[i] = 1;
    }
    let d = zero;
    for (const e of from.get(n.id) ?? []) {
      const C = count.get(e.to.id),
        B = bound.get(e.to.id),
        T = sum.get(e.to.id);
      const { rows, cols, values } = /** @type {any} */ (e.map.entries);
      for (let q = 0; q < values.length; q++) {
        const v = values[q];
        if (v === 0 || C[rows[q]] === zero) continue;
        c[cols[q]] += C[rows[q]];
        t[cols[q]] += v * T[rows[q]];
        b[cols[q]] = Math.max(b[cols[q]], weight(v) + B[rows[q]]);
      }
      d += (e.to === target ? one : zero) + BigInt(e.to.size) * dense.get(e.to.id);
    }
    count.set(n.id, c);
    bound.set(n.id, b);
    sum.set(n.id, t);
    dense.set(n.id, d);
  }
  const total = sum.get(source.id)?.[j] ?? 0,
    paths = count.get(source.id)?.[j] ?? zero;
  const top = best(from, source, j, target, i, bound, k);
  const shown = top.reduce((t, p) => t + p.product, 0);
  return {
    count: paths,
    zero: (dense.get(source.id) ?? zero) - paths,
    total,
    top,
    rest: { count: paths - BigInt(top.length), sum: total - shown },
    bound,
    counts: count,
  };
}

/** The logarithm of the size; what is no number counts as large, so that it is shown first. @param {number} v */
const weight = (v) => (Number.isNaN(v) ? 700 : Math.min(700, Math.log(Math.abs(v))));

/**
 * @param {Map<string, Edge[]>} from @param {Value} source @param {number} j @param {Value} target @param {number} i
 * @param {Map<string, Float64Array>} bound @param {number} k @returns {Path[]}
 */
function best(from, source, j, target, i, bound, k) {
  /** @type {{node: Value, at: number, w: number, key: number, prev: any, hop: Hop | null}[]} */
  const heap = [];
  const add = (/** @type {any} */ x) => {
    heap.push(x);
    for (let q = heap.length - 1; q > 0; ) {
      const p = (q - 1) >> 1;
      if (heap[p].key >= heap[q].key) break;
      [heap[p], heap[q]] = [heap[q], heap[p]];
      q = p;
    }
  };
  const take = () => {
    const top = heap[0],
      last = /** @type {any} */ (heap.pop());
    if (heap.length) {
      heap[0] = last;
      for (let q = 0; ; ) {
        let c = 2 * q + 1;
        if (c >= heap.length) break;
        if (c + 1 < heap.length && heap[c + 1].key > heap[c].key) c++;
        if (heap[q].key >= heap[c].key) break;
        [heap[c], heap[q]] = [heap[q], heap[c]];
        q = c;
      }
    }
    return top;
  };
  /** @type {Path[]} */
  const out = [];
  const start = bound.get(source.id)?.[j] ?? -Infinity;
  if (start > -Infinity) add({ node: source, at: j, w: 0, key: start, prev: null, hop: null });
  for (let tries = 0; heap.length && out.length < k && tries < 60000; tries++) {
    const x = take();
    if (x.node === target && x.at === i) {
      const hops = [];
      for (let q = x; q.hop; q = q.prev) hops.unshift(q.hop);
      if (hops.length) out.push({ hops, product: hops.reduce((p, hop) => p * hop.value, 1) });
      if (hops.length) continue;
    }
    for (const e of from.get(x.node.id) ?? []) {
      const B = /** @type {Float64Array} */ (bound.get(e.to.id));
      const { rows, values } = /** @type {any} */ (e.map.entries);
      for (const q of /** @type {any} */ (e.map.lists())[1][x.at]) {
        const v = values[q];
        if (v === 0 || B[rows[q]] === -Infinity) continue;
        const w = x.w + weight(v);
        add({
          node: e.to,
          at: rows[q],
          w,
          key: w + B[rows[q]],
          prev: x,
          hop: { edge: e, i: rows[q], j: x.at, value: v },
        });
      }
    }
  }
  return out;
}

/**
 * A few of the paths that meet a zero: what counts is that they are there and give nothing.
 * @param {{nodes: Value[], edges: Edge[]}} view @param {Value} source @param {number} j @param {Value} target @param {number} i
 * @returns {{hops: Hop[], product: number}[]}
 */
export function zeroPaths(view, source, j, target, i, k = 8) {
  const { from } = around(view.edges);
  const reach = new Set([target.id]);
  for (const n of [...view.nodes].reverse())
    if ((from.get(n.id) ?? []).some((e) => reach.has(e.to.id))) reach.add(n.id);
  /** @type {Path[]} */
  const out = [];
  let tries = 0;
  const walk = (
    /** @type {Value} */ node,
    /** @type {number} */ at,
    /** @type {Hop[]} */ hops,
    /** @type {boolean} */ met,
  ) => {
    if (out.length >= k || tries++ > 20000) return;
    if (node === target && at === i && hops.length) {
      if (met) out.push({ hops, product: 0 });
      return;
    }
    for (const e of from.get(node.id) ?? []) {
      if (!reach.has(e.to.id)) continue;
      for (let r = 0; r < e.to.size; r++) {
        const v = e.map.get(r, at) ?? 0;
        walk(e.to, r, [...hops, { edge: e, i: r, j: at, value: v }], met || v === 0);
      }
    }
  };
  walk(source, j, [], false);
  return out;
}

/** Which components of which values lie on a path that counts. @param {NonNullable<ReturnType<typeof sumOverPaths>>} sums @param {{nodes: Value[], edges: Edge[]}} view @param {Value} source @param {number} j */
export function between(sums, view, source, j) {
  const on = new Map([[source.id, new Set([j])]]);
  const { from } = around(view.edges);
  for (const n of view.nodes) {
    const mine = on.get(n.id);
    if (!mine) continue;
    for (const e of from.get(n.id) ?? []) {
      const B = /** @type {Float64Array} */ (sums.bound.get(e.to.id)),
        { rows, values } = /** @type {any} */ (e.map.entries);
      for (const at of mine)
        for (const q of /** @type {any} */ (e.map.lists())[1][at]) {
          if (values[q] === 0 || B[rows[q]] === -Infinity) continue;
          if (!on.has(e.to.id)) on.set(e.to.id, new Set());
          /** @type {Set<number>} */ (on.get(e.to.id)).add(rows[q]);
        }
    }
  }
  return on;
}
