// @ts-check
// The graph as a picture: boxes, edges component by component, Jacobian cards above their gaps, lanes of the two sweeps.
import { boxOf, groupTitle, height, inRows } from './boxes.js';
import { cardOf, cardPlan } from './cards.js';
import { s } from './dom.js';
import { componentEdges, flows, laneRows, ribbons } from './edges.js';

/** @typedef {import('./app.js').App} App */
/** @typedef {import('./graph.js').Value} Value */
/** @typedef {import('./graph.js').Edge} Edge */

const WIDTH = 138;

export const GAP = 118;

/** @param {App} app @param {Value} n @param {any} badge */
export const width = (app, n, badge) =>
  Math.max(WIDTH, Math.min(190, 92 + 7 * Math.min(14, [...(badge ? groupTitle(badge) : n.symbol)].length)));

/** What the layout needs, with the axes exchanged: its layers run downwards, ours from left to right. @param {App} app @param {any} view */
export function plan(app, view) {
  const nodes = view.nodes.map((/** @type {Value} */ n) => ({
    id: n.id,
    w: height(app, n),
    h: width(app, n, view.badge.get(n.id)),
  }));
  const pairs = new Map(view.edges.map((/** @type {Edge} */ e) => [`${e.from.id}\n${e.to.id}`, [e.from.id, e.to.id]]));
  return { graph: { nodes, edges: [...pairs.values()] }, keys: [...pairs.keys()], options: { hgap: 36, vgap: GAP } };
}

/** @param {App} app @param {any} view @param {any} out */
export function place(app, view, out, keys = plan(app, view).keys) {
  const at = new Map(
    out.nodes.map((/** @type {any} */ n) => [n.id, { x: n.y - n.h / 2, y: n.x - n.w / 2, w: n.h, h: n.w, layer: n.l }]),
  );
  const way = new Map(
    keys.map((/** @type {string} */ k, /** @type {number} */ q) => [
      k,
      out.edges[q].map((/** @type {number[]} */ p) => [p[1], p[0]]),
    ]),
  );
  const boxes = [...at.values()];
  const right = Math.max(...boxes.map((b) => b.x + b.w), 100),
    bottom = Math.max(...boxes.map((b) => b.y + b.h), 60);
  return { at, way, right, bottom };
}

/** Draws what is in sight; the app learns the extent of the whole first. @param {App} app @param {SVGElement} svg */
export function draw(app, svg) {
  const { view, geo } = app.C;
  const cards = cardPlan(app),
    top = cards.height,
    lanes = laneRows(app, top);
  app.frame({ x: 0, y: 0, w: geo.right + 60, h: top + geo.bottom + (lanes.length ? 78 : 24) }, top);
  const body = s('g', { transform: `translate(30 ${top})` });
  const shown = view.edges.filter(
    (/** @type {Edge} */ e) => app.inSight(geo.at.get(e.from.id)) || app.inSight(geo.at.get(e.to.id)),
  );
  const fine = new Set(
    shown.filter((/** @type {Edge} */ e) => inRows(app, e.from) && inRows(app, e.to) && e.map.known),
  );
  const coarse = shown.filter((/** @type {Edge} */ e) => !fine.has(e));
  body.append(...ribbons(app, coarse, cards), ...componentEdges(app, [...fine]), ...flows(app, shown));
  for (const n of view.nodes) if (app.inSight(geo.at.get(n.id))) body.append(boxOf(app, n));
  svg.replaceChildren(defs(), body, ...cards.list.map((c) => cardOf(app, c, top)), ...lanes);
}

/** All boxes at once, with the part that is in sight: for graphs larger than the window. @param {App} app @param {SVGElement} svg */
export function minimap(app, svg) {
  const e = app.extent,
    k = Math.min(180 / e.w, 90 / e.h),
    small = svg.dataset.key === `${app.C.key}${app.C.geoKey}`;
  if (!small) {
    svg.dataset.key = `${app.C.key}${app.C.geoKey}`;
    svg.setAttribute('width', String(Math.max(40, e.w * k)));
    svg.setAttribute('height', String(Math.max(12, e.h * k)));
    svg.setAttribute('viewBox', `0 0 ${e.w} ${e.h}`);
    const d = [...app.C.geo.at.values()].map((b) => `M${b.x + 30} ${b.y + app.top}h${b.w}v${b.h}h${-b.w}z`).join('');
    svg.replaceChildren(s('path', { d, fill: 'var(--ink3)' }), s('rect', { class: 'window' }));
  }
  const b = app.S.box,
    w = /** @type {Element} */ (svg.querySelector('.window'));
  for (const [name, v] of [
    ['x', b.x],
    ['y', b.y],
    ['width', b.w],
    ['height', b.h],
    ['stroke-width', 2 / k],
  ])
    w.setAttribute(String(name), String(v));
}

export const marker = (/** @type {string} */ id, /** @type {string} */ color) =>
  s(
    'marker',
    {
      id,
      viewBox: '0 0 8 8',
      refX: 6,
      refY: 4,
      markerWidth: 7,
      markerHeight: 7,
      orient: 'auto-start-reverse',
      markerUnits: 'userSpaceOnUse',
    },
    s('path', { d: 'M0 0L8 4L0 8z', fill: color }),
  );

const defs = () => s('defs', null, marker('af', 'var(--fwd)'), marker('ar', 'var(--rev)'));
