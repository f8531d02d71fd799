// @ts-check
// The explanation as the page uses it: values, edges with their maps, and what is to be seen under the present folding.
import { Lin, num } from './linear.js';


/** @param {any} jac @returns {Lin} */
export function readMap(jac) {
  const [rows, cols] = jac?.shape ?? [0, 0];
  const about = {
    ...jac,
    kind: jac?.structure?.kind ?? 'dense',
    words: jac?.structure?.words ?? '',
    glyph: jac?.structure?.glyph ?? 'dense',
    norm: jac?.norm == null ? null : num(jac.norm),
    image: jac?.image ?? null,
    nnz: jac?.nnz,
    stored: jac?.stored,
  };
  return new Lin(rows, cols, entriesOf(jac, rows, cols), about);
}

/** @param {any} jac @param {number} rows @param {number} cols */
function entriesOf(jac, rows, cols) {
  const e = {
    rows: /** @type {number[]} */ ([]),
    cols: /** @type {number[]} */ ([]),
    values: /** @type {number[]} */ ([]),
  };
  const put = (/** @type {number} */ i, /** @type {number} */ j, /** @type {any} */ v) => {
    e.rows.push(i);
    e.cols.push(j);
    e.values.push(num(v));
  };
  const values = jac?.values ?? [];
  switch (jac?.form) {
    case 'dense':
      values.forEach((/** @type {any} */ v, /** @type {number} */ k) => put(Math.floor(k / cols), k % cols, v));
      return e;
    case 'diagonal':
      values.forEach((/** @type {any} */ v, /** @type {number} */ k) => put(k, k, v));
      return e;
    case 'coo':
      values.forEach((/** @type {any} */ v, /** @type {number} */ k) => put(jac.rows[k], jac.columns[k], v));
      return e;
    case 'blocks': {
      const { height: p, width: q } = jac.blocks;
      values.forEach((/** @type {any} */ v, /** @type {number} */ k) => {
        const b = Math.floor(k / (p * q)),
          r = k % (p * q);
        put(b * p + Math.floor(r / q), b * q + (r % q), v);
      });
      return e;
    }
    case 'low-rank': {
      if (rows * cols > 262144) return null;
      const r = jac.rank;
      for (let i = 0; i < rows; i++)
        for (let j = 0; j < cols; j++) {
          let v = jac.diagonal && i === j ? num(jac.diagonal[i]) : 0;
          for (let k = 0; k < r; k++) v += num(jac.left[i * r + k]) * num(jac.right[k * cols + j]);
          put(i, j, v);
        }
      return e;
    }
    default:
      return null;
  }
}

/**
 * @typedef {{id: string, at: number, name: string, symbol: string, latex: string, role: string, text: string, operation: string, place: any, primitives: string[],
 *   shape: number[], size: number, dtype: string, full: number[] | null, summary: any, group: string | null, loop: any, custom: boolean, outputs: number[]}} Value
 * @typedef {{id: string, from: Value, to: Value, map: Lin, group: string | null}} Edge
 */

export class Graph {
  /** @param {any} data */
  constructor(data) {
    this.data = data;
    /** @type {Value[]} */
    this.nodes = (data.nodes ?? []).map((/** @type {any} */ n, /** @type {number} */ at) => ({
      ...n,
      id: String(n.id),
      at,
      symbol: String(n.symbol ?? n.name ?? n.id),
      text: String(n.text ?? ''),
      operation: String(n.operation ?? ''),
      full: n.value?.full ? n.value.full.map(num) : null,
      summary: n.value ?? {},
      outputs: n.output_of ?? [],
      group: n.group ?? null,
      shape: n.shape ?? [],
      size: n.size ?? (n.shape ?? []).reduce((/** @type {number} */ p, /** @type {number} */ q) => p * q, 1),
    }));
    this.byId = new Map(this.nodes.map((n) => [n.id, n]));
    /** @type {Edge[]} */
    this.edges = (data.edges ?? []).flatMap((/** @type {any} */ e) => {
      const from = this.byId.get(String(e.from)),
        to = this.byId.get(String(e.to));
      return from && to ? [{ id: String(e.id), from, to, map: readMap(e.jacobian), group: e.group ?? null }] : [];
    });
    this.groups = new Map((data.groups ?? []).map((/** @type {any} */ g) => [String(g.id), g]));
    this.inputs = data.inputs ?? [];
    this.outputs = data.outputs ?? [];
    this.n = this.inputs.reduce((/** @type {number} */ t, /** @type {any} */ i) => t + i.size, 0);
    this.m = this.outputs.reduce((/** @type {number} */ t, /** @type {any} */ o) => t + o.size, 0);
    this.J = readMap(data.jacobian ?? { shape: [this.m, this.n], form: 'structure' });
    this.about = data.jacobian?.about ?? {};
    /** @type {Set<string>} the folded groups */
    this.folded = new Set([...this.groups.values()].filter((g) => !g.open).map((g) => String(g.id)));
  }

  /** The groups that hold a value, from the innermost to the outermost. @param {Value} node @returns {string[]} */
  chain(node) {
    return node.group == null ? [] : [String(node.group), ...this.parents(String(node.group))];
  }
  /** The groups that hold a group. @param {string} group @returns {string[]} */
  parents(group) {
    const up = new Set([group]);
    for (
      let g = this.groups.get(group)?.parent;
      g != null && !up.has(String(g));
      g = this.groups.get(String(g))?.parent
    )
      up.add(String(g));
    return [...up].slice(1);
  }
  /** The outermost folded group that holds the value, or null. @param {Value} node */
  hider(node) {
    const up = this.chain(node).filter((g) => this.folded.has(g));
    return up.length ? up[up.length - 1] : null;
  }

  /**
   * What is to be seen: a folded group shows its outputs, joined to its inputs by its own Jacobians.
   * @returns {{nodes: Value[], edges: Edge[], badge: Map<string, any>}}
   */
  visible() {
    const badge = new Map(),
      seen = new Set(),
      hidden = new Map();
    const nodes = this.nodes.filter((n) => {
      const g = this.hider(n);
      hidden.set(n.id, g);
      if (g == null) {
        seen.add(n.id);
        return true;
      }
      const group = this.groups.get(g);
      if (!(group.outputs ?? []).map(String).includes(n.id)) return false;
      badge.set(n.id, group);
      seen.add(n.id);
      return true;
    });
    const edges = this.edges.filter((e) => {
      if (!seen.has(e.from.id) || !seen.has(e.to.id)) return false;
      const into = hidden.get(e.to.id);
      return e.group == null ? into == null : String(e.group) === into;
    });
    return { nodes, edges, badge };
  }

  /** The flat input index as value and component. @param {number} j @returns {[Value | undefined, number]} */
  input(j) {
    const leaf = this.inputs.find((/** @type {any} */ i) => j >= i.offset && j < i.offset + i.size);
    return [this.byId.get(String(leaf?.node)), j - (leaf?.offset ?? 0)];
  }
  /** @param {number} i @returns {[Value | undefined, number]} */
  output(i) {
    const leaf = this.outputs.find((/** @type {any} */ o) => i >= o.offset && i < o.offset + o.size);
    return [this.byId.get(String(leaf?.node)), i - (leaf?.offset ?? 0)];
  }
  /** The flat index of an input's component, or -1. @param {Value} node @param {number} k */
  inputIndex(node, k) {
    const leaf = this.inputs.find((/** @type {any} */ i) => String(i.node) === node.id);
    return leaf ? leaf.offset + k : -1;
  }
  /** @param {Value} node @param {number} k */
  outputIndex(node, k) {
    const leaf = this.outputs.find((/** @type {any} */ o) => String(o.node) === node.id);
    return leaf ? leaf.offset + k : -1;
  }
  /** x as one vector, NaN where the data holds only a summary. */
  point() {
    return this.inputs.flatMap(
      (/** @type {any} */ i) => this.byId.get(String(i.node))?.full ?? new Array(i.size).fill(NaN),
    );
  }
  /** Whether the data holds the whole of x, so that it can be moved. */
  get whole() {
    return this.inputs.every((/** @type {any} */ i) => this.byId.get(String(i.node))?.full);
  }
  /** f(x) as one vector. */
  result() {
    return this.outputs.flatMap(
      (/** @type {any} */ o) => this.byId.get(String(o.node))?.full ?? new Array(o.size).fill(NaN),
    );
  }
}

const SUB = '₀₁₂₃₄₅₆₇₈₉';

/** The place of component k in an array: '' for a scalar, '3' in a vector, '2,3' in a matrix, counted from one. @param {number[]} shape @param {number} k */
export function index(shape, k) {
  if (!shape.length) return '';
  const at = [];
  for (let d = shape.length - 1; d >= 0; d--) {
    at.unshift((k % shape[d]) + 1);
    k = Math.floor(k / shape[d]);
  }
  return at.join(',');
}

/** x with a subscript, as plain text. @param {Value} node @param {number} k */
export function component(node, k) {
  const at = index(node.shape, k);
  return node.symbol + [...at].map((c) => (c === ',' ? '‚' : SUB[+c])).join('');
}
