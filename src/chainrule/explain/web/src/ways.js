// @ts-check
// Which values lie between an input and an output, and a few ways from one to the other.

/** @typedef {import('./graph.js').Value} Value */
/** @typedef {import('./graph.js').Edge} Edge */

/** Values between the two, by reach alone. @param {any} view @param {Value | undefined} source @param {Value | undefined} target */
export function reachable(view, source, target) {
  if (!source || !target) return new Set();
  const down = new Set([source.id]),
    up = new Set([target.id]);
  const byTo = new Map(),
    byFrom = new Map();
  for (const e of view.edges) {
    byTo.set(e.to.id, [...(byTo.get(e.to.id) ?? []), e]);
    byFrom.set(e.from.id, [...(byFrom.get(e.from.id) ?? []), e]);
  }
  for (const n of view.nodes)
    if ((byTo.get(n.id) ?? []).some((/** @type {Edge} */ e) => down.has(e.from.id))) down.add(n.id);
  for (const n of [...view.nodes].reverse())
    if ((byFrom.get(n.id) ?? []).some((/** @type {Edge} */ e) => up.has(e.to.id))) up.add(n.id);
  return new Set([...down].filter((id) => up.has(id)));
}

/** Up to four ways through the values from source to target. @param {any} view @param {Value | undefined} source @param {Value | undefined} target @param {Set<string>} on @returns {Edge[][]} */
export function ways(view, source, target, on) {
  /** @type {Edge[][]} */
  const out = [];
  if (!source || !target || !on.has(source.id)) return out;
  const from = new Map();
  for (const e of view.edges)
    if (on.has(e.from.id) && on.has(e.to.id)) from.set(e.from.id, [...(from.get(e.from.id) ?? []), e]);
  const walk = (/** @type {Value} */ n, /** @type {Edge[]} */ way) => {
    if (out.length > 3) return;
    if (n === target && way.length) {
      out.push(way);
      return;
    }
    for (const e of from.get(n.id) ?? []) walk(e.to, [...way, e]);
  };
  walk(source, []);
  return out;
}
