// @ts-check
// The plane near the point: arrows, handles to drag, lines of equal value.
import { line as curveOf } from './live.js';
import { cut, fmt, name as full, s } from './dom.js';

/** @typedef {import('./app.js').App} App */

export const R = 108;

export const name = (/** @type {string} */ n, /** @type {string} */ k = '') => full([...n].length > 8 ? cut(n, 8) : n, k);

/** Half the width of the plane, in units of x. */
export const REACH = 0.75;

const PER = R / REACH;

export const T = (/** @type {number[]} */ p, u = PER) => [R + p[0] * u, R - p[1] * u];

export const ray = (/** @type {number[]} */ p, /** @type {number[]} */ q, /** @type {any} */ attrs) =>
  [...p, ...q].every(Number.isFinite) && s('line', { x1: p[0], y1: p[1], x2: q[0], y2: q[1], ...attrs });

/** @param {number[]} tip @param {string} color @param {any} label @param {any} attrs */
export function arrow(tip, color, label, attrs = {}, off = [7, -6]) {
  if (!tip.every(Number.isFinite)) return [];
  const an = Math.atan2(tip[1] - R, tip[0] - R),
    q = (/** @type {number} */ t) => `${tip[0] - 8 * Math.cos(an + t)},${tip[1] - 8 * Math.sin(an + t)}`;
  return [
    ray([R, R], [tip[0] - 5 * Math.cos(an), tip[1] - 5 * Math.sin(an)], {
      stroke: `var(${color})`,
      'stroke-width': 2.6,
      ...attrs,
    }),
    s('path', { d: `M${tip}L${q(0.42)}L${q(-0.42)}z`, fill: `var(${color})` }),
    s(
      'text',
      {
        x: Math.max(4, Math.min(2 * R - 34, tip[0] + off[0])),
        y: Math.max(14, Math.min(2 * R - 5, tip[1] + off[1])),
        'font-size': 15,
        class: 'm',
        style: { fill: `var(${color})` },
      },
      label,
    ),
  ];
}

/** The plane, with a handle that drags and answers the arrow keys. @param {any[]} parts @param {any} handle */
export function plane(parts, handle) {
  const svg = s(
    'svg',
    {
      class: 'plane',
      width: 216,
      height: 216,
      viewBox: '0 0 216 216',
      role: 'group',
      'aria-label': 'the map near the point',
    },
    s('clipPath', { id: 'cp' }, s('rect', { width: 216, height: 216, rx: 8 })),
    s('g', { 'clip-path': 'url(#cp)' }, parts),
  );
  if (handle) {
    const move = (/** @type {PointerEvent} */ e) => {
      const r = svg.getBoundingClientRect(),
        k = 216 / (r.width || 216);
      handle.put(
        [((e.clientX - r.left) * k - R) / handle.per, -((e.clientY - r.top) * k - R) / handle.per].map(
          (v) => Math.round(v * 100) / 100,
        ),
      );
    };
    svg.append(
      s('circle', {
        class: 'handle',
        cx: handle.at[0],
        cy: handle.at[1],
        r: 11,
        tabindex: 0,
        role: 'slider',
        'data-f': handle.key,
        'data-handle': handle.key,
        style: { '--c': `var(${handle.color})` },
        'aria-label': handle.label,
        'aria-valuenow': handle.value[0].toFixed(2),
        'aria-valuetext': handle.value.map((/** @type {number} */ v) => fmt(v, 2)).join(', '),
        onpointerdown: (/** @type {PointerEvent} */ e) => {
          e.preventDefault();
          handle.start(move);
        },
        onkeydown: (/** @type {KeyboardEvent} */ e) => {
          const step = /** @type {any} */ ({
            ArrowLeft: [-1, 0],
            ArrowRight: [1, 0],
            ArrowUp: [0, 1],
            ArrowDown: [0, -1],
          })[e.key];
          if (step) {
            e.preventDefault();
            e.stopPropagation();
            handle.put(
              handle.value.map(
                (/** @type {number} */ v, /** @type {number} */ k) => Math.round((v + step[k] * 0.02) * 100) / 100,
              ),
            );
          }
        },
      }),
    );
  }
  return svg;
}

/** Starts a drag: the element may be drawn anew while it lasts, so the window listens. @param {App} app */
export const dragging = (app) => (/** @type {(e: PointerEvent) => void} */ move) => {
  const soon = (/** @type {PointerEvent} */ e) => {
    app.S.dragging = true;
    move(e);
  };
  const up = () => {
    removeEventListener('pointermove', soon);
    removeEventListener('pointerup', up);
    app.S.dragging = false;
    app.draw();
  };
  addEventListener('pointermove', soon);
  addEventListener('pointerup', up);
};

/** @param {App} app */
export function dxHandle(app) {
  const [a, b] = app.S.axes,
    value = [app.S.dx[a] ?? 0, b < app.graph.n ? app.S.dx[b] : 0];
  return {
    key: 'dx',
    color: '--fwd',
    at: T(value),
    per: PER,
    value,
    label: 'perturbation delta x; arrow keys move it',
    start: dragging(app),
    put: (/** @type {number[]} */ v) => {
      const lim = (/** @type {number} */ q) => Math.max(-0.75, Math.min(0.75, q));
      app.S.dx = app.S.dx.slice();
      app.S.dx[a] = lim(v[0]);
      if (b < app.graph.n && b !== a) app.S.dx[b] = lim(v[1]);
      app.draw(app.S.dragging);
    },
  };
}

/** One input: the tangent, and the graph itself where it can be evaluated. @param {App} app @param {number} slope */
export function tangent(app, slope) {
  const unit = 70 / Math.max(1e-9, Math.abs(slope) * REACH, 0.2),
    line = curveOf(app);
  const parts = [
    ray([0, R], [216, R], { class: 'level' }),
    ray([R, 0], [R, 216], { class: 'level' }),
    ray([0, R + slope * REACH * unit], [216, R - slope * REACH * unit], { stroke: 'var(--fwd)', 'stroke-width': 1.6 }),
  ];
  if (line)
    parts.push(
      s('path', {
        d:
          'M' +
          line
            .map(
              (/** @type {number} */ v, /** @type {number} */ q) => `${(216 * q) / (line.length - 1)} ${R - v * unit}`,
            )
            .join('L'),
        fill: 'none',
        stroke: 'var(--ink)',
        'stroke-width': 1.6,
      }),
    );
  return parts;
}

/** Lines of equal value through a grid, by marching squares. @param {{n: number, values: number[], base: number}} grid */
export function contours(grid) {
  const { n, values, base } = grid,
    ok = values.filter(Number.isFinite);
  const lo = Math.min(...ok),
    hi = Math.max(...ok),
    step = (hi - lo) / 12 || 1,
    cell = 216 / (n - 1);
  const at = (/** @type {number} */ r, /** @type {number} */ c) => values[r * n + c];
  const out = [];
  for (let q = Math.ceil((lo - base) / step); base + q * step < hi; q++) {
    const z = base + q * step;
    let d = '';
    for (let r = 0; r < n - 1; r++)
      for (let c = 0; c < n - 1; c++) {
        const v = [at(r, c), at(r, c + 1), at(r + 1, c + 1), at(r + 1, c)],
          p = [
            [c, r],
            [c + 1, r],
            [c + 1, r + 1],
            [c, r + 1],
          ],
          hits = [];
        for (let e = 0; e < 4; e++) {
          const u = v[e],
            w = v[(e + 1) % 4];
          if (u < z !== w < z) {
            const t = (z - u) / (w - u),
              [x0, y0] = p[e],
              [x1, y1] = p[(e + 1) % 4];
            hits.push(`${((x0 + t * (x1 - x0)) * cell).toFixed(1)} ${(216 - (y0 + t * (y1 - y0)) * cell).toFixed(1)}`);
          }
        }
        for (let e = 0; e + 1 < hits.length; e += 2) d += `M${hits[e]}L${hits[e + 1]}`;
      }
    if (d) out.push(s('path', { d, class: q ? 'level' : 'level through' }));
  }
  return out;
}
