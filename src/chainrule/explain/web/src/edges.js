// @ts-check
// Edges from component to component, ribbons of whole values, and what the sweeps have passed.
import { HEAD, ROW, inRows, said } from './boxes.js';
import { cut, fmt, press, s, tmath, tname, turned } from './dom.js';
import { glyph } from './glyphs.js';

/** @typedef {import('./app.js').App} App */
/** @typedef {import('./graph.js').Value} Value */
/** @typedef {import('./graph.js').Edge} Edge */

const bend = (/** @type {number[]} */ a, /** @type {number[]} */ b) =>
  `C${a[0] + (b[0] - a[0]) * 0.45} ${a[1]} ${b[0] - (b[0] - a[0]) * 0.45} ${b[1]} ${b[0]} ${b[1]}`;

const curve = (/** @type {number[][]} */ pts) =>
  `M${pts[0][0]} ${pts[0][1]}` +
  pts
    .slice(1)
    .map((p, k) => bend(pts[k], p))
    .join('');

/** The point at t on the last bend. */
export function along(/** @type {number[][]} */ pts, /** @type {number} */ t) {
  const [a, b] = pts.slice(-2),
    u = 1 - t,
    w = (b[0] - a[0]) * 0.45;
  return [
    u ** 3 * a[0] + 3 * u * u * t * (a[0] + w) + 3 * u * t * t * (b[0] - w) + t ** 3 * b[0],
    (u ** 3 + 3 * u * u * t) * a[1] + (3 * u * t * t + t ** 3) * b[1],
  ];
}

/** The points of one edge, from a port of its source to a port of its target. @param {any} geo @param {Edge} e @param {number} y0 @param {number} y1 */
export function route(geo, e, y0, y1) {
  const a = geo.at.get(e.from.id),
    b = geo.at.get(e.to.id),
    way = geo.way.get(`${e.from.id}\n${e.to.id}`) ?? [];
  return [[a.x + a.w, y0], ...way.slice(1, -1), [b.x, y1]];
}

/** The height of a component's port. @param {App} app @param {any} box @param {Value} n @param {number} k */
export const port = (app, box, n, k) =>
  inRows(app, n) ? box.y + HEAD + k * ROW + ROW / 2 : box.y + HEAD + (box.h - HEAD) / 2;

export const line = (/** @type {number} */ v) => (Number.isFinite(v) ? 1.2 + Math.min(4, Math.abs(v) * 1.9) : 5);

/** Edges between values drawn row by row: one line for each entry that is not zero. @param {App} app @param {Edge[]} edges */
export function componentEdges(app, edges) {
  const { geo, on, focus } = app.C,
    out = /** @type {any[][]} */ ([[], [], [], []]);
  for (const e of edges) {
    const a = geo.at.get(e.from.id),
      b = geo.at.get(e.to.id),
      { rows, cols, values } = /** @type {any} */ (e.map.entries),
      asked = app.C.asked.has(e.id);
    for (let q = 0; q < values.length; q++) {
      const i = rows[q],
        j = cols[q],
        v = values[q];
      const pts = route(geo, e, port(app, a, e.from, j), port(app, b, e.to, i)),
        d = curve(pts);
      const live = v !== 0 && on?.get(e.from.id)?.has(j) && on?.get(e.to.id)?.has(i),
        hot = focus.has(`${e.id}:${i}:${j}`);
      if (hot) out[0].push(s('path', { class: 'ce halo on', d }));
      out[1].push(
        s('path', {
          class: live ? 'ce on' : 'ce',
          d,
          'stroke-width': line(v).toFixed(2),
          opacity: live ? null : 0.75,
          'stroke-dasharray': v === 0 ? '2 4' : null,
        }),
      );
      const key = `edge:${e.id}:${i}:${j}`;
      out[2].push(
        s('path', {
          class: 'hit',
          d,
          tabindex: 0,
          role: 'button',
          'data-f': key,
          'aria-pressed': hot ? 'true' : 'false',
          'aria-label': `partial of ${said(e.to, i)} by ${said(e.from, j)} ${asked ? 'is asked in the practice' : `equals ${fmt(v)}`}`,
          ...press(() => app.pickEdge(e, i, j)),
        }),
      );
      if (live && edges.length <= 40 && !asked) {
        const p = along(
          pts,
          e.map.rows > 1 && e.map.cols > 1 && e.map.nnz > e.map.rows
            ? 0.62
            : e.map.rows === 1 && e.map.cols > 1
              ? 0.4
              : 0.5,
        );
        out[3].push(
          s(
            'g',
            { 'pointer-events': 'none' },
            s('rect', {
              class: 'pill',
              x: p[0] - 22,
              y: p[1] - 9.5,
              width: 44,
              height: 19,
              rx: 9.5,
              'stroke-opacity': hot ? null : 0.35,
            }),
            s(
              'text',
              {
                x: p[0],
                y: p[1] + 4,
                'text-anchor': 'middle',
                'font-size': 11,
                'font-weight': hot ? 640 : 440,
                class: 'num',
              },
              fmt(v, 2),
            ),
          ),
        );
      }
    }
  }
  return out.flat();
}

/** Edges of whole values, with the glyph of what they do. @param {App} app @param {Edge[]} edges @param {any} cards */
export function ribbons(app, edges, cards) {
  const { geo, onNodes, focusEdges } = app.C,
    out = /** @type {any[][]} */ ([[], [], []]);
  for (const e of edges) {
    const a = geo.at.get(e.from.id),
      b = geo.at.get(e.to.id);
    const pts = route(geo, e, a.y + HEAD + (a.h - HEAD) / 2, b.y + HEAD + (b.h - HEAD) / 2),
      d = curve(pts);
    const live = onNodes?.has(e.from.id) && onNodes?.has(e.to.id);
    if (focusEdges.has(e.id)) out[0].push(s('path', { class: 'ce halo on', d }));
    out[0].push(
      s('path', {
        class: live ? 'ce on' : 'ce',
        d,
        'stroke-width': Math.min(e.from.size, e.to.size) > 1 ? 5 : 2,
        opacity: live ? 0.8 : 0.75,
      }),
    );
    out[1].push(
      s('path', {
        class: 'hit',
        d,
        tabindex: 0,
        role: 'button',
        'data-f': `edge:${e.id}`,
        'aria-label': `Jacobian of ${cut(e.to.name, 24)} by ${cut(e.from.name, 24)}, ${e.map.shape}, ${e.map.words}`,
        'aria-pressed': app.S.edge === e.id ? 'true' : 'false',
        ...press(() => app.openEdge(e)),
      }),
    );
    if (!cards.list.length) {
      const p = along(pts, 0.5);
      out[2].push(
        s(
          'g',
          { class: 'jg', onclick: () => app.openEdge(e) },
          s('rect', { class: 'jcard', x: p[0] - 12, y: p[1] - 12, width: 24, height: 24, rx: 6 }),
          glyph(e.map.about.glyph, 16, { x: p[0] - 8, y: p[1] - 8 }),
        ),
      );
    }
  }
  return out.flat();
}

/** Where there are no lanes, what the sweeps have passed shows on the edges themselves. @param {App} app @param {Edge[]} edges */
export function flows(app, edges) {
  if (app.C.chain) return [];
  const { geo, doneF, doneR } = app.C;
  return edges.flatMap((e) => {
    const a = geo.at.get(e.from.id),
      b = geo.at.get(e.to.id),
      y0 = a.y + HEAD / 2,
      y1 = b.y + HEAD / 2;
    const f = route(geo, e, y0 - 4, y1 - 4),
      r = route(geo, e, y0 + 4, y1 + 4);
    f[f.length - 1][0] -= 3;
    r[0][0] += 3;
    return [
      doneF.has(e.id) && s('path', { class: 'flow-f', d: curve(f), 'marker-end': 'url(#af)' }),
      doneR.has(e.id) && s('path', { class: 'flow-r', d: curve(r), 'marker-start': 'url(#ar)' }),
    ].filter(Boolean);
  });
}

/** A chain has two lanes below it: what is pushed forward and what is pulled back. @param {App} app @param {number} top */
export function laneRows(app, top) {
  const { view, geo, chain, seenF, seenR } = app.C;
  if (!chain || view.nodes.length > 12 || view.nodes.length < 2) return [];
  const y = [top + geo.bottom + 28, top + geo.bottom + 55],
    out = /** @type {any[]} */ ([]);
  view.edges.forEach((/** @type {Edge} */ e) => {
    const a = geo.at.get(e.from.id),
      b = geo.at.get(e.to.id),
      x0 = 30 + a.x + a.w / 2 + 26,
      x1 = 30 + b.x + b.w / 2 - 26,
      mid = (x0 + x1) / 2;
    [0, 1].forEach((L) => {
      const done = L ? seenR.has(e.from.id) : seenF.has(e.to.id),
        color = L ? '--rev' : '--fwd';
      const label = String(e.map.about.label ?? ''),
        text = L ? turned(label, e.map.about.glyph) : label,
        half = Math.min(46, 16 + 4 * [...text].length);
      out.push(
        s('line', {
          x1: L ? x1 : x0,
          x2: L ? x0 : x1,
          y1: y[L],
          y2: y[L],
          class: 'lane',
          stroke: `var(${done ? color : '--line2'})`,
          'stroke-dasharray': L ? '7 4' : null,
          'marker-end': done ? `url(#${L ? 'ar' : 'af'})` : null,
          opacity: done ? null : 0.6,
        }),
        s('rect', { x: mid - half, y: y[L] - 9, width: 2 * half, height: 18, rx: 9, class: 'lanebg' }),
        s(
          'text',
          {
            x: mid,
            y: y[L] + 4.5,
            'text-anchor': 'middle',
            'font-size': 13,
            class: 'm',
            style: { fill: `var(${done ? color : '--ink3'})` },
          },
          '× ',
          tmath(cut(text, 12)),
        ),
      );
    });
  });
  view.nodes.forEach((/** @type {Value} */ n) =>
    [0, 1].forEach((L) => {
      const b = geo.at.get(n.id),
        done = (L ? seenR : seenF).has(n.id);
      out.push(
        s(
          'text',
          {
            x: 30 + b.x + b.w / 2,
            y: y[L] + 5,
            'text-anchor': 'middle',
            'font-size': 15,
            class: 'm',
            style: { fill: `var(${done ? (L ? '--rev' : '--fwd') : '--ink3'})` },
          },
          L ? '∇' : 'Δ',
          tname(cut(n.symbol, 5)),
        ),
      );
    }),
  );
  return out;
}
