// @ts-check
// The graph as a picture: boxes, edges component by component, Jacobian cards above their gaps, lanes of the two sweeps.
import { s, fmt, signed, tname, press, cut, split, tmath, turned } from './dom.js';
import { glyph } from './glyphs.js';
import { index, component } from './graph.js';
import { layout } from './layout.js';

/** @typedef {import('./graph.js').Value} Value @typedef {import('./graph.js').Edge} Edge @typedef {import('./app.js').App} App */

const HEAD = 30,
  ROW = 45,
  WIDTH = 138,
  GAP = 118;
export const ROWS = 8;

/** Whether a value is drawn component by component. @param {App} app @param {Value} n */
export const inRows = (app, n) => app.S.level === 'c' && n.size >= 1 && n.size <= ROWS;
/** @param {App} app @param {Value} n */
const height = (app, n) => HEAD + (inRows(app, n) ? n.size * ROW : app.S.level === 'c' && n.size > ROWS ? 66 : 42);
/** @param {App} app @param {Value} n @param {any} badge */
const width = (app, n, badge) =>
  Math.max(WIDTH, Math.min(190, 92 + 7 * Math.min(14, [...(badge ? groupTitle(badge) : n.symbol)].length)));

/** @param {any} group */
export const groupTitle = (group) =>
  cut(String(group.symbol ?? group.name ?? 'group'), 12) + (group.times > 1 ? ` × ${group.times}` : '');

/** What the layout needs, with the axes exchanged: its layers run downwards, ours from left to right. @param {App} app @param {any} view */
export function plan(app, view) {
  const nodes = view.nodes.map((/** @type {Value} */ n) => ({
    id: n.id,
    w: height(app, n),
    h: width(app, n, view.badge.get(n.id)),
  }));
  const pairs = new Map(view.edges.map((/** @type {Edge} */ e) => [`${e.from.id}\n${e.to.id}`, [e.from.id, e.to.id]]));
  return { graph: { nodes, edges: [...pairs.values()] }, keys: [...pairs.keys()], options: { hgap: 26, vgap: GAP } };
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

/** @param {App} app @param {any} view */
export function layoutNow(app, view) {
  const p = plan(app, view);
  return place(app, view, layout(p.graph, p.options), p.keys);
}

const bend = (/** @type {number[]} */ a, /** @type {number[]} */ b) =>
  `C${a[0] + (b[0] - a[0]) * 0.45} ${a[1]} ${b[0] - (b[0] - a[0]) * 0.45} ${b[1]} ${b[0]} ${b[1]}`;
const curve = (/** @type {number[][]} */ pts) =>
  `M${pts[0][0]} ${pts[0][1]}` +
  pts
    .slice(1)
    .map((p, k) => bend(pts[k], p))
    .join('');
/** The point at t on the last bend. */
function along(/** @type {number[][]} */ pts, /** @type {number} */ t) {
  const [a, b] = pts.slice(-2),
    u = 1 - t,
    w = (b[0] - a[0]) * 0.45;
  return [
    u ** 3 * a[0] + 3 * u * u * t * (a[0] + w) + 3 * u * t * t * (b[0] - w) + t ** 3 * b[0],
    (u ** 3 + 3 * u * u * t) * a[1] + (3 * u * t * t + t ** 3) * b[1],
  ];
}

/** The points of one edge, from a port of its source to a port of its target. @param {any} geo @param {Edge} e @param {number} y0 @param {number} y1 */
function route(geo, e, y0, y1) {
  const a = geo.at.get(e.from.id),
    b = geo.at.get(e.to.id),
    way = geo.way.get(`${e.from.id}\n${e.to.id}`) ?? [];
  return [[a.x + a.w, y0], ...way.slice(1, -1), [b.x, y1]];
}
/** The height of a component's port. @param {App} app @param {any} box @param {Value} n @param {number} k */
const port = (app, box, n, k) =>
  inRows(app, n) ? box.y + HEAD + k * ROW + ROW / 2 : box.y + HEAD + (box.h - HEAD) / 2;

const line = (/** @type {number} */ v) => (Number.isFinite(v) ? 1.2 + Math.min(4, Math.abs(v) * 1.9) : 5);
const tone = (/** @type {number | null} */ v, scale = 1) =>
  v == null || Number.isNaN(v)
    ? 'none'
    : `color-mix(in oklab,var(${v < 0 ? '--neg' : '--pos'}) ${Math.min(46, 8 + (Math.min(Math.abs(v), 1e9) / scale) * 20).toFixed(1)}%,var(--card))`;

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

const marker = (/** @type {string} */ id, /** @type {string} */ color) =>
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

/** Edges between values drawn row by row: one line for each entry that is not zero. @param {App} app @param {Edge[]} edges */
function componentEdges(app, edges) {
  const { geo, on, focus } = app.C,
    out = /** @type {any[][]} */ ([[], [], [], []]);
  for (const e of edges) {
    const a = geo.at.get(e.from.id),
      b = geo.at.get(e.to.id),
      { rows, cols, values } = /** @type {any} */ (e.map.entries);
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
          'aria-label': `partial of ${said(e.to, i)} by ${said(e.from, j)} equals ${fmt(v)}`,
          ...press(() => app.pickEdge(e, i, j)),
        }),
      );
      if (live && edges.length <= 40) {
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

/** The name of a component for a reader of the screen. @param {Value} n @param {number} k */
export const said = (n, k) => `${cut(n.name, 24)}${index(n.shape, k) && ' ' + index(n.shape, k)}`;

/** Edges of whole values, with the glyph of what they do. @param {App} app @param {Edge[]} edges @param {any} cards */
function ribbons(app, edges, cards) {
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
function flows(app, edges) {
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

/** @param {App} app @param {Value} n */
function boxOf(app, n) {
  const { geo, view, stepNode, uses } = app.C,
    b = geo.at.get(n.id),
    badge = view.badge.get(n.id);
  const live = stepNode === n.id ? (app.S.mode === 'f' ? ' live-f' : ' live-r') : '';
  const [base] = split(n.symbol),
    long = [...base].length > 2;
  const role = badge
    ? ''
    : n.role === 'input'
      ? 'input'
      : n.loop
        ? `${n.loop.kind} × ${n.loop.times ?? '?'}`
        : n.operation || n.role;
  const shape = `(${n.shape.join('×')})`;
  const room = Math.floor((b.w - 40 - 7 * shape.length - (long ? 8 * Math.min(14, [...n.symbol].length) : 12)) / 6.2);
  const g = s(
    'g',
    { class: 'node', 'data-n': n.id },
    s(
      'title',
      null,
      cut(`${n.name} · ${n.text || n.operation} ${n.place?.line != null ? `· line ${n.place.line}` : ''}`, 300),
    ),
    badge && s('rect', { class: 'box under', x: b.x + 4, y: b.y - 4, width: b.w, height: b.h, rx: 9 }),
    s('rect', { class: `box${live}`, x: b.x, y: b.y, width: b.w, height: b.h, rx: 9 }),
    s('path', {
      class: 'boxhd',
      d: `M${b.x + 1} ${b.y + HEAD}V${b.y + 10}q0 -9 9 -9H${b.x + b.w - 10}q9 0 9 9V${b.y + HEAD}z`,
    }),
    s('line', { x1: b.x, x2: b.x + b.w, y1: b.y + HEAD, y2: b.y + HEAD, class: 'rule' }),
    s(
      'text',
      { x: b.x + 12, y: b.y + 21, class: 'm', 'font-size': badge || long ? 14 : 19 },
      badge ? groupTitle(badge) : tname(n.symbol),
    ),
    !badge &&
      role &&
      room > 3 &&
      s(
        'text',
        {
          x: b.x + (long ? 20 + 8 * Math.min(14, [...n.symbol].length) : 22 + 11 * [...base].length),
          y: b.y + 20,
          'font-size': 11.5,
          class: 'dim',
        },
        cut(role, room),
      ),
    s(
      'text',
      { x: b.x + b.w - 11, y: b.y + 20, 'font-size': 12, 'text-anchor': 'end', class: 'num ink2' },
      cut(shape, 12),
    ),
    (uses.get(n.id) ?? 0) > 1 &&
      s(
        'text',
        { x: b.x + b.w - 4, y: b.y - 6, 'font-size': 10.5, 'text-anchor': 'end', class: 'dim' },
        `used ${uses.get(n.id)}× · ∇ adds`,
      ),
  );
  if (badge || n.group) g.append(foldButton(app, n, b, badge));
  if (inRows(app, n)) for (let k = 0; k < n.size; k++) g.append(rowOf(app, n, k, b));
  else g.append(...stripOf(app, n, b));
  return g;
}

/** @param {App} app @param {Value} n @param {any} b @param {any} badge */
function foldButton(app, n, b, badge) {
  const id = badge ? String(badge.id) : /** @type {string} */ (n.group),
    group = app.graph.groups.get(id);
  const act = badge ? `unfold ${cut(groupTitle(badge), 30)}` : `fold ${cut(String(group?.name ?? 'group'), 30)}`;
  return s(
    'g',
    {
      class: 'fold',
      tabindex: 0,
      role: 'button',
      'data-f': `fold:${n.id}`,
      'aria-label': act,
      ...press(() => app.fold(id, !badge)),
    },
    s('circle', { cx: b.x, cy: b.y, r: 8.5 }),
    s('text', { x: b.x, y: b.y + 4, 'text-anchor': 'middle', 'font-size': 13 }, badge ? '+' : '−'),
  );
}

/** @param {App} app @param {Value} n @param {number} k @param {any} b */
function rowOf(app, n, k, b) {
  const { push, pull, seenF, seenR } = app.C,
    y = b.y + HEAD + k * ROW;
  const picked = app.isPicked(n, k),
    can = app.canPick(n, k);
  const d = seenF.has(n.id) ? push.get(n.id)?.[k] : undefined,
    g = seenR.has(n.id) ? pull.get(n.id)?.[k] : undefined;
  const label = `${said(n, k)} is ${fmt(n.full?.[k])}`;
  return s(
    'g',
    {
      class: 'row',
      ...(can
        ? {
            tabindex: 0,
            role: 'button',
            'data-f': `pick:${n.id}:${k}`,
            'aria-pressed': picked ? 'true' : 'false',
            'aria-label': label,
          }
        : {}),
      ...press(() => app.pickComponent(n, k)),
    },
    picked && s('rect', { x: b.x + 3.5, y: y + 3.5, width: b.w - 7, height: ROW - 7, rx: 6, class: 'picked' }),
    s('rect', { x: b.x, y, width: b.w, height: ROW, fill: 'transparent' }),
    k > 0 && s('line', { x1: b.x + 10, x2: b.x + b.w - 10, y1: y, y2: y, class: 'rule' }),
    s('text', { x: b.x + 12, y: y + 19, 'font-size': 15, class: 'm' }, tname(n.symbol, index(n.shape, k))),
    s(
      'text',
      { x: b.x + b.w - 11, y: y + 18.5, 'font-size': 13, 'font-weight': 560, 'text-anchor': 'end', class: 'num' },
      fmt(n.full?.[k]),
    ),
    s(
      'text',
      { x: b.x + 12, y: y + 36, 'font-size': 10.8, class: 'num fwd' },
      `Δ ${d === undefined ? '·' : signed(d)}`,
    ),
    s(
      'text',
      { x: b.x + b.w - 11, y: y + 36, 'font-size': 10.8, 'text-anchor': 'end', class: 'num rev' },
      `∇ ${g === undefined ? '·' : signed(g)}`,
    ),
  );
}

const length = (/** @type {Float64Array | null | undefined} */ v) => (v ? Math.hypot(...v) : null);

/** A value too long for rows: a bar of heat, its norms, and a way to choose a component. @param {App} app @param {Value} n @param {any} b */
function stripOf(app, n, b) {
  const { push, pull, seenF, seenR } = app.C,
    y = b.y + HEAD,
    parts = [];
  const scalar = n.size === 1;
  if (app.S.level === 'c' && n.size > ROWS) {
    const cells = 32,
      w = (b.w - 24) / cells,
      v = n.full,
      counts = n.summary.histogram?.counts;
    const top = v ? Math.max(...v.map(Math.abs).filter(Number.isFinite), 1e-300) : Math.max(...(counts ?? [1]), 1);
    for (let q = 0; q < cells; q++) {
      if (v) {
        const x = v[Math.floor((q * v.length) / cells)];
        parts.push(s('rect', { x: b.x + 12 + q * w, y: y + 8, width: w + 0.2, height: 12, fill: tone(x, top / 2) }));
      } else {
        const t = (12 * (counts?.[q] ?? 0)) / top;
        parts.push(s('rect', { x: b.x + 12 + q * w, y: y + 20 - t, width: w - 0.5, height: t, class: 'hist' }));
      }
    }
  }
  const low = app.S.level === 'c' && n.size > ROWS ? 24 : 0;
  const value = scalar
    ? fmt(n.full?.[0])
    : n.size === 0
      ? 'empty'
      : `‖·‖ ${fmt(n.full ? Math.hypot(...n.full) : n.summary.norm == null ? null : Number(n.summary.norm))}`;
  const d = seenF.has(n.id) ? push.get(n.id) : undefined,
    g = seenR.has(n.id) ? pull.get(n.id) : undefined;
  const show = (/** @type {any} */ q) =>
    q === undefined || q === null ? '·' : scalar ? signed(q[0]) : `‖${fmt(length(q), 2)}‖`;
  parts.push(
    s('text', { x: b.x + b.w - 11, y: y + low + 16, 'font-size': 12, 'text-anchor': 'end', class: 'num' }, value),
    s('text', { x: b.x + 12, y: y + low + 33, 'font-size': 10.8, class: 'num fwd' }, `Δ ${show(d)}`),
    s(
      'text',
      { x: b.x + b.w - 11, y: y + low + 33, 'font-size': 10.8, 'text-anchor': 'end', class: 'num rev' },
      `∇ ${show(g)}`,
    ),
  );
  const can = n.size > 0 && (app.graph.inputIndex(n, 0) >= 0 || app.graph.outputIndex(n, 0) >= 0);
  return [
    s(
      'g',
      {
        class: 'row',
        ...(can
          ? {
              tabindex: 0,
              role: 'button',
              'data-f': `open:${n.id}`,
              'aria-label': `choose a component of ${cut(n.name, 24)}`,
            }
          : {}),
        ...press(() => app.openValue(n)),
      },
      can &&
        app.isPicked(n, -1) &&
        s('rect', { x: b.x + 3.5, y: y + 3.5, width: b.w - 7, height: b.h - HEAD - 7, rx: 6, class: 'picked' }),
      s('rect', { x: b.x, y, width: b.w, height: b.h - HEAD, fill: 'transparent' }),
      parts,
    ),
  ];
}

/** Which edges get a card above their gap, and where: none where they would not fit. @param {App} app */
function cardPlan(app) {
  const { view, geo } = app.C;
  if (app.S.level === 'm' || view.edges.length > 16 || !view.edges.length) return { list: [], height: 16 };
  const gaps = new Map();
  for (const e of view.edges) {
    const b = geo.at.get(e.to.id);
    gaps.set(b.layer, [...(gaps.get(b.layer) ?? []), e]);
  }
  if ([...gaps.values()].some((l) => l.length > 3)) return { list: [], height: 16 };
  const list = [],
    crowded = [...gaps.values()].some((l) => l.length > 1);
  let height = 0;
  for (const edges of gaps.values()) {
    const sized = edges.map((/** @type {Edge} */ e) => ({ e, ...cardSize(e, crowded) }));
    height = Math.max(
      height,
      sized.reduce((/** @type {number} */ t, /** @type {any} */ c) => t + c.h + 8, 0),
    );
    list.push(
      ...sized.map((/** @type {any} */ c, /** @type {number} */ q) => ({
        ...c,
        above: sized.slice(q + 1).reduce((/** @type {number} */ t, /** @type {any} */ d) => t + d.h + 8, 0),
        last: q === sized.length - 1,
        targets: new Set(edges.map((/** @type {Edge} */ x) => x.to.id)).size,
      })),
    );
  }
  return { list, height: height + 62 };
}

/** @param {Edge} e @param {boolean} crowded several cards above one gap are no taller than they must be */
function cardSize(e, crowded) {
  const small = e.map.known && e.map.rows <= 6 && e.map.cols <= 6 && e.map.rows * e.map.cols > 0;
  const cw = e.map.cols > 4 ? 33 : 40,
    tall = small ? Math.max(crowded ? 24 : 60, e.map.rows * 20) : 60;
  return { small, cw, w: Math.max(small ? e.map.cols * cw + 34 : 100, 150), h: tall + 61, tall };
}

/** @param {App} app @param {any} card @param {number} top */
function cardOf(app, card, top) {
  const { e, w, h } = card,
    { geo } = app.C,
    b = geo.at.get(e.to.id);
  const middle = 30 + b.x - GAP / 2,
    x = middle - w / 2,
    y = top - 54 - card.above - h,
    m = e.map;
  const active = app.C.stepEdges.has(e.id) ? (app.S.mode === 'f' ? ' act-f' : ' act-r') : '';
  const title = String(m.about.label ?? '');
  const prefix = `𝐷${split(e.to.symbol)[0]} = `;
  const room = Math.floor((w - 44) / 8),
    whole = [...prefix].length + [...title].length <= room;
  const g = s('g', {
    class: `jg${active}`,
    tabindex: 0,
    role: 'button',
    'data-f': `card:${e.id}`,
    'data-jac': e.id,
    'aria-label': `Jacobian of ${cut(e.to.name, 24)} by ${cut(e.from.name, 24)}: ${cut(String(m.words), 60)}, ${m.shape}`,
    ...press(() => app.openEdge(e)),
  });
  if (card.last) {
    const pts = route(geo, e, port(app, geo.at.get(e.from.id), e.from, 0), port(app, b, e.to, 0));
    g.append(
      s('path', {
        d: `M${middle} ${top - 54}V${top + along(pts, 0.5)[1] - (e.from.size > 1 ? 4 : 10)}`,
        class: 'leader',
      }),
    );
    if (card.targets === 1 && e.to.operation) {
      const text = cut(e.to.operation, 12),
        half = 16 + 3 * [...text].length;
      g.append(
        s('rect', { x: middle - half, y: top - 38, width: 2 * half, height: 20, rx: 10, class: 'op' }),
        s('text', { x: middle, y: top - 24, 'font-size': 11.5, 'text-anchor': 'middle', class: 'ink2' }, text),
      );
    }
  }
  g.append(
    s('title', null, cut(`${m.about.label ?? ''} · ${m.words} · ${m.shape}`, 300)),
    s('rect', { class: 'jcard', x, y, width: w, height: h, rx: 9 }),
    glyph(m.about.glyph, 18, { x: x + 10, y: y + 9 }),
    s('text', { x: x + 34, y: y + 23, 'font-size': 15, class: 'm' }, whole ? prefix : '', tmath(cut(title, room))),
    s(
      'text',
      { x: x + 11, y: y + h - 9, 'font-size': 11, class: 'dim' },
      cut(String(m.words), Math.floor((w - 60) / 6)),
    ),
    s('text', { x: x + w - 11, y: y + h - 9, 'font-size': 11.5, 'text-anchor': 'end', class: 'num ink2' }, m.shape),
  );
  g.append(...(card.small ? cellsOf(app, card, x, y) : heat(m, middle - 44, y + 34, 88, 56)));
  return g;
}

/** @param {App} app @param {any} card @param {number} x @param {number} y */
function cellsOf(app, card, x, y) {
  const { e, cw, w, tall } = card,
    m = e.map,
    mw = m.cols * cw,
    mh = m.rows * 20,
    x0 = x + w / 2 - mw / 2,
    y0 = y + 33 + (tall - mh) / 2;
  const out = [
    s('path', { d: `M${x0 - 3} ${y0 - 2}h-4v${mh + 4}h4M${x0 + mw + 3} ${y0 - 2}h4v${mh + 4}h-4`, class: 'bracket' }),
  ];
  for (let i = 0; i < m.rows; i++)
    for (let j = 0; j < m.cols; j++) {
      const v = m.get(i, j),
        hot = app.C.focus.has(`${e.id}:${i}:${j}`);
      out.push(
        s(
          'g',
          {
            class: 'jcell',
            'data-cell': `${e.id}:${i}:${j}`,
            onclick: (/** @type {Event} */ ev) => {
              ev.stopPropagation();
              app.pickEdge(e, i, j);
            },
          },
          s('rect', {
            x: x0 + j * cw + 1,
            y: y0 + i * 20 + 1,
            width: cw - 2,
            height: 18,
            rx: 3,
            fill: v == null ? 'transparent' : tone(v),
            class: hot ? 'hot' : '',
          }),
          s(
            'text',
            {
              x: x0 + j * cw + cw / 2,
              y: y0 + i * 20 + 14.2,
              'font-size': cw < 40 ? 10 : 11,
              'text-anchor': 'middle',
              class: v == null ? 'num none' : 'num',
            },
            v == null ? '·' : fmt(v, 2),
          ),
        ),
      );
    }
  return out;
}

/** The size of the entries as a picture of at most 32×32. @param {any} m @param {number} x @param {number} y @param {number} w @param {number} h */
export function heat(m, x, y, w, h) {
  const frame = s('rect', { x, y, width: w, height: h, class: 'heatframe' });
  let H = Math.min(32, m.rows),
    W = Math.min(32, m.cols);
  /** @type {number[]} */ let cells = [];
  if (m.known && H * W) {
    cells = new Array(H * W).fill(0);
    const { rows, cols, values } = m.entries;
    let top = 1e-300;
    for (let q = 0; q < values.length; q++) {
      const at = Math.floor((rows[q] * H) / m.rows) * W + Math.floor((cols[q] * W) / m.cols),
        v = Math.min(1e300, Math.abs(values[q])) || 0;
      cells[at] = Math.max(cells[at], v);
      top = Math.max(top, v);
    }
    cells = cells.map((v) => v / top);
  } else if (m.image) {
    H = m.image.height;
    W = m.image.width;
    cells = m.image.cells.map((/** @type {number} */ v) => v / 255);
  }
  const cw = w / W,
    ch = h / H;
  return [
    frame,
    ...cells
      .map((v, k) =>
        v > 0
          ? s('rect', {
              x: x + (k % W) * cw,
              y: y + Math.floor(k / W) * ch,
              width: cw,
              height: ch,
              fill: 'var(--ink)',
              opacity: (0.08 + 0.82 * v).toFixed(2),
            })
          : null,
      )
      .filter(Boolean),
  ];
}

/** A chain has two lanes below it: what is pushed forward and what is pulled back. @param {App} app @param {number} top */
function laneRows(app, top) {
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
