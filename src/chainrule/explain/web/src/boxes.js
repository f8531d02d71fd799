// @ts-check
// One box for each value: its components in rows, or a strip where they are many.
import { cut, fmt, press, s, signed, split, tname } from './dom.js';
import { index } from './graph.js';

/** @typedef {import('./app.js').App} App */
/** @typedef {import('./graph.js').Value} Value */

export const HEAD = 30;

export const ROW = 45;

export const ROWS = 8;

/** Whether a value is drawn component by component. @param {App} app @param {Value} n */
export const inRows = (app, n) => app.S.level === 'c' && n.size >= 1 && n.size <= ROWS;

/** @param {App} app @param {Value} n */
export const height = (app, n) => HEAD + (inRows(app, n) ? n.size * ROW : app.S.level === 'c' && n.size > ROWS ? 66 : 42);

/** @param {any} group */
export const groupTitle = (group) =>
  cut(String(group.symbol ?? group.name ?? 'group'), 12) + (group.times > 1 ? ` × ${group.times}` : '');

export const tone = (/** @type {number | null} */ v, scale = 1) =>
  v == null || Number.isNaN(v)
    ? 'none'
    : `color-mix(in oklab,var(${v < 0 ? '--neg' : '--pos'}) ${Math.min(46, 8 + (Math.min(Math.abs(v), 1e9) / scale) * 20).toFixed(1)}%,var(--card))`;

/** The name of a component for a reader of the screen. @param {Value} n @param {number} k */
export const said = (n, k) => `${cut(n.name, 24)}${index(n.shape, k) && ' ' + index(n.shape, k)}`;

/** @param {App} app @param {Value} n */
export function boxOf(app, n) {
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
          ...(n.loop?.values && {
            class: 'row dim',
            tabindex: 0,
            role: 'button',
            'data-f': `loop:${n.id}`,
            'aria-label': `${role}: iterations of ${cut(n.name, 24)}`,
            ...press(() => app.openValue(n)),
          }),
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
