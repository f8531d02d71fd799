// @ts-check
// Pushing Δx from the input and pulling g back from the output, over the values that are to be seen.

/** @typedef {import('./graph.js').Value} Value */
/** @typedef {import('./graph.js').Edge} Edge */
/** @typedef {import('./graph.js').Graph} Graph */

/** The edges that enter and leave each value. @param {Edge[]} edges */
export function around(edges) {
  /** @type {Map<string, Edge[]>} */ const into = new Map();
  /** @type {Map<string, Edge[]>} */ const from = new Map();
  for (const e of edges) {
    into.set(e.to.id, [...(into.get(e.to.id) ?? []), e]);
    from.set(e.from.id, [...(from.get(e.from.id) ?? []), e]);
  }
  return { into, from };
}

/**
 * Δ of every value; null where a map on the way is not in the data.
 * @param {Graph} graph @param {{nodes: Value[], edges: Edge[]}} view @param {number[]} dx
 * @returns {Map<string, Float64Array | null>}
 */
export function push(graph, view, dx) {
  const { into } = around(view.edges),
    out = new Map();
  for (const n of view.nodes) {
    const leaf = graph.inputs.find((/** @type {any} */ i) => String(i.node) === n.id);
    /** @type {Float64Array | null} */
    let v = new Float64Array(n.size);
    if (leaf) v.set(dx.slice(leaf.offset, leaf.offset + leaf.size));
    for (const e of into.get(n.id) ?? []) {
      const d = out.get(e.from.id);
      if (!v || d == null || !e.map.known) {
        v = null;
        break;
      }
      e.map.apply(d, v);
    }
    out.set(n.id, v);
  }
  return out;
}

/**
 * ∇ of every value for the covector g on the outputs.
 * @param {Graph} graph @param {{nodes: Value[], edges: Edge[]}} view @param {number[]} g
 * @returns {Map<string, Float64Array | null>}
 */
export function pull(graph, view, g) {
  const { from } = around(view.edges),
    out = new Map();
  for (const n of [...view.nodes].reverse()) {
    /** @type {Float64Array | null} */
    let v = new Float64Array(n.size);
    for (const o of graph.outputs)
      if (String(o.node) === n.id) for (let k = 0; k < o.size; k++) v[k] += g[o.offset + k];
    for (const e of from.get(n.id) ?? []) {
      const d = out.get(e.to.id);
      if (!v || d == null || !e.map.known) {
        v = null;
        break;
      }
      e.map.applyT(d, v);
    }
    out.set(n.id, v);
  }
  return out;
}

/**
 * @typedef {{node: Value | null, edges: Edge[], mult: number, dense: number, held: number, data: any}} Step
 */
/**
 * The steps of a sweep: step 0 places the vector, then one step for each value.
 * @param {Graph} graph @param {{nodes: Value[], edges: Edge[]}} view @param {'f' | 'r'} mode @returns {Step[]}
 */
export function steps(graph, view, mode) {
  const { into, from } = around(view.edges);
  const f = mode === 'f';
  const told = new Map(
    (graph.data.sweeps?.[f ? 'forward' : 'reverse'] ?? []).map((/** @type {any} */ q) => [String(q.node), q]),
  );
  const order = f ? view.nodes : [...view.nodes].reverse();
  /** @type {Step[]} */
  const out = [{ node: null, edges: [], mult: 0, dense: 0, held: f ? graph.n : graph.m, data: null }];
  for (const n of order) {
    const edges = (f ? into : from).get(n.id) ?? [];
    if (!edges.length) continue;
    const data = told.get(n.id);
    const same = data && edges.every((e) => e.group == null) && (data.edges ?? []).length === edges.length;
    out.push({
      node: n,
      edges,
      data: same ? data : null,
      mult: same
        ? data.multiply_adds
        : edges.reduce((t, e) => t + (e.map.about.multiply_adds ?? e.map.multiplications ?? 0), 0),
      dense: same ? data.dense : edges.reduce((t, e) => t + e.map.rows * e.map.cols, 0),
      held: same ? data.held : n.size,
    });
  }
  return out;
}

/** Which values a sweep has reached after so many of its steps. @param {Graph} graph @param {{nodes: Value[], edges: Edge[]}} view @param {Step[]} list @param {number} at @param {'f' | 'r'} mode */
export function reached(graph, view, list, at, mode) {
  const seen = new Set();
  const { into, from } = around(view.edges);
  for (const n of view.nodes) {
    const start = mode === 'f' ? !(into.get(n.id) ?? []).length : !(from.get(n.id) ?? []).length;
    if (start) seen.add(n.id);
  }
  list.slice(0, at + 1).forEach((q) => q.node && seen.add(q.node.id));
  return seen;
}
