// @ts-check
// The map near the point: level sets and the gradient across them, areas, orientation, kernel; Δx and g to drag.
import { h, s, fmt, signed, name as full, tname, cut } from './dom.js';
import { index } from './graph.js';
import { singular, rankOf, determinant, kernel } from './linear.js';

/** @typedef {import('./app.js').App} App @typedef {import('./graph.js').Value} Value */

const R = 108;
const name = (/** @type {string} */ n, /** @type {string} */ k = '') => full([...n].length > 8 ? cut(n, 8) : n, k);
/** Half the width of the plane, in units of x. */
export const REACH = 0.75;
const PER = R / REACH;

/** What can be looked at: one output, an area under the map, the plane of the outputs. @param {App} app */
export function blocks(app) {
  const { graph } = app,
    list = [{ id: 'level', label: [sym(app, 'in'), ' → ', sym(app, 'out')] }];
  const inner = areaTarget(app);
  if (graph.n >= 2 && inner)
    list.push({
      id: 'area',
      label: [
        sym(app, 'in'),
        ' → (',
        name(inner[0].symbol, index(inner[0].shape, inner[1])),
        ', ',
        name(inner[0].symbol === inner[2].symbol ? inner[0].symbol : inner[2].symbol, index(inner[2].shape, inner[3])),
        ')',
      ],
    });
  if (graph.m >= 2) list.push({ id: 'output', label: [h('span', { class: 'm' }, '𝑔'), ' at the output'] });
  return list;
}
/** @param {App} app @param {'in' | 'out'} side */
const sym = (app, side) => {
  const [n, k] = side === 'in' ? app.graph.input(app.S.j) : app.graph.output(app.S.i);
  return n ? name(n.symbol, side === 'out' ? index(n.shape, k) : '') : '?';
};

/** Two components whose area is followed: of the outputs, else of the first value that has two. @param {App} app @returns {[Value, number, Value, number] | null} */
function areaTarget(app) {
  const { graph, S, C } = app;
  if (graph.m >= 2) {
    const [a, b] = S.rows ?? [0, 1],
      [p, k] = graph.output(a),
      [q, l] = graph.output(b);
    return p && q ? [p, k, q, l] : null;
  }
  const inner = C.view.nodes.find((/** @type {Value} */ n) => n.size >= 2 && n.role !== 'input' && C.push.get(n.id));
  return inner ? [inner, 0, inner, 1] : null;
}

const T = (/** @type {number[]} */ p, u = PER) => [R + p[0] * u, R - p[1] * u];
const ray = (/** @type {number[]} */ p, /** @type {number[]} */ q, /** @type {any} */ attrs) =>
  [...p, ...q].every(Number.isFinite) && s('line', { x1: p[0], y1: p[1], x2: q[0], y2: q[1], ...attrs });

/** @param {number[]} tip @param {string} color @param {any} label @param {any} attrs */
function arrow(tip, color, label, attrs = {}, off = [7, -6]) {
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

/** @param {App} app */
export function geometry(app) {
  const list = blocks(app);
  if (!list.some((b) => b.id === app.S.block)) app.S.block = 'level';
  if (!app.C.source || !app.C.target)
    return h('p', { class: 'note pad' }, 'Nothing to draw: an input or an output is empty or constant.');
  const made = app.S.block === 'area' ? area(app) : app.S.block === 'output' ? outputs(app) : level(app);
  return h('div', { class: 'geo' }, h('div', null, made.plane, axes(app)), h('div', null, made.told));
}

/** Two axes to look along, where there are more. @param {App} app */
function axes(app) {
  const { graph, S } = app;
  const one = (
    /** @type {number} */ which,
    /** @type {number[]} */ list,
    /** @type {number} */ size,
    /** @type {(k: number) => any} */ put,
    /** @type {string} */ word,
  ) =>
    h('input', {
      type: 'number',
      min: 1,
      max: size,
      value: list[which] + 1,
      'aria-label': `${word} axis ${which + 1}`,
      'data-f': `axis:${word}:${which}`,
      onchange: (/** @type {any} */ e) =>
        put(Math.max(0, Math.min(size - 1, Math.round(Number(e.target.value) || 1) - 1))),
    });
  const rows = [];
  if (graph.n > 2)
    rows.push(
      h(
        'div',
        { class: 'axes sub' },
        'inputs ',
        [0, 1].map((w) =>
          one(
            w,
            S.axes,
            graph.n,
            (k) => {
              S.axes[w] = k;
              app.draw();
            },
            'input',
          ),
        ),
      ),
    );
  if (graph.m > 2 && S.block !== 'level')
    rows.push(
      h(
        'div',
        { class: 'axes sub' },
        'outputs ',
        [0, 1].map((w) =>
          one(
            w,
            S.rows,
            graph.m,
            (k) => {
              S.rows[w] = k;
              app.draw();
            },
            'output',
          ),
        ),
      ),
    );
  return rows;
}

/** The plane, with a handle that drags and answers the arrow keys. @param {any[]} parts @param {any} handle */
function plane(parts, handle) {
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
const dragging = (app) => (/** @type {(e: PointerEvent) => void} */ move) => {
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
function dxHandle(app) {
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

const kv = (/** @type {any[]} */ rows) =>
  h(
    'dl',
    { class: 'kv' },
    rows
      .filter(Boolean)
      .map(([k, v, color, key]) => [
        h('dt', null, k),
        h('dd', { style: color ? { color: `var(${color})` } : {}, 'data-read': key }, v),
      ]),
  );
const mm = (/** @type {string} */ t) => h('span', { class: 'm' }, t);

/** One output over two inputs. @param {App} app */
function level(app) {
  const { graph, S, C } = app,
    [a, b] = S.axes,
    grad = C.row;
  const [n, k] = graph.output(S.i),
    label = [tname(/** @type {Value} */ (n).symbol, index(/** @type {Value} */ (n).shape, k))];
  const parts = [];
  if (grad && b < graph.n && a !== b) {
    const g = [grad[a], grad[b]],
      size = Math.hypot(...g) || 1,
      along = [-g[1] / size, g[0] / size];
    const grid = app.level();
    if (grid) parts.push(...contours(grid));
    else if (Math.hypot(...g) > 0 && Number.isFinite(Math.hypot(...g)))
      for (let q = -6; q <= 6; q++)
        if (q) {
          const o = (q * REACH) / 3.2;
          parts.push(
            ray(
              T([(g[0] / size) * o - along[0] * 3, (g[1] / size) * o - along[1] * 3]),
              T([(g[0] / size) * o + along[0] * 3, (g[1] / size) * o + along[1] * 3]),
              { class: 'level' },
            ),
          );
        }
    parts.push(s('circle', { cx: R, cy: R, r: 70, class: 'circle' }));
    if (Math.hypot(...g) > 0 && Number.isFinite(Math.hypot(...g))) {
      parts.push(ray(T([-along[0] * 3, -along[1] * 3]), T([along[0] * 3, along[1] * 3]), { class: 'kernel' }));
      const d = along[0] > 0 ? along : along.map((v) => -v),
        at = [R - d[0] * 76, R + d[1] * 76];
      parts.push(
        s(
          'text',
          {
            transform: `translate(${at[0]} ${at[1]}) rotate(${(-Math.atan2(d[1], d[0]) * 180) / Math.PI})`,
            'text-anchor': 'middle',
            dy: -6,
            'font-size': 11,
            class: 'ink2',
          },
          'kernel',
        ),
      );
      parts.push(
        ...arrow(
          [R + (g[0] / size) * 76, R - (g[1] / size) * 76],
          '--rev',
          ['∇', label],
          { 'stroke-dasharray': '5 3' },
          [g[0] < 0 ? -30 : 6, 4],
        ),
      );
    }
  } else if (grad) parts.push(...tangent(app, grad[a]));
  parts.push(...arrow(dxHandle(app).at, '--fwd', 'Δ𝑥'));
  return { plane: plane(parts, dxHandle(app)), told: predicted(app) };
}

/** One input: the tangent, and the graph itself where it can be evaluated. @param {App} app @param {number} slope */
function tangent(app, slope) {
  const unit = 70 / Math.max(1e-9, Math.abs(slope) * REACH, 0.2),
    line = app.line();
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
function contours(grid) {
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

/** What was predicted against what is true. @param {App} app */
function predicted(app) {
  const { S, C, graph } = app,
    [n, k] = graph.output(S.i),
    nm = name(/** @type {Value} */ (n).symbol, index(/** @type {Value} */ (n).shape, k));
  const pr = C.predicted,
    actual = app.trueChange(),
    size = Math.hypot(...S.dx) || 1;
  const most = Math.max(0.25, ...[actual ?? 0, pr ?? 0].map(Math.abs).filter(Number.isFinite)) * 1.15,
    px = (/** @type {number} */ v) => Math.max(0, Math.min(100, 50 + (50 * (v || 0)) / most));
  const bar =
    pr != null &&
    h(
      'div',
      {
        class: 'versus',
        role: 'img',
        'aria-label': `predicted ${signed(pr, 4)}${actual == null ? '' : `, true ${signed(actual, 4)}`}`,
      },
      h('b', null),
      h('u', null),
      h('i', { style: { left: `${Math.min(50, px(pr))}%`, width: `${Math.abs(px(pr) - 50)}%` } }),
      actual != null && h('em', { style: { left: `calc(${px(actual)}% - 6px)` } }),
    );
  const dual =
    C.row &&
    C.row.reduce(
      (/** @type {number} */ t, /** @type {number} */ v, /** @type {number} */ q) => t + (S.dx[q] ? v * S.dx[q] : 0),
      0,
    );
  const few = (/** @type {number[]} */ v) =>
    v.length <= 3
      ? v.map((/** @type {number} */ q) => fmt(q, 2)).join(', ')
      : `${v
          .slice(0, 2)
          .map((q) => fmt(q, 2))
          .join(', ')}, …`;
  const about = graph.about,
    ready = actual != null && pr != null;
  return [
    bar,
    h('p', { class: 'note tight' }, 'Δ', nm, `: bar = predicted${actual == null ? '' : ', ring = true'}`),
    kv([
      [[mm('Δ𝑥'), ' (drag it)'], few(S.dx), null, 'dx'],
      [['predicted ', mm('𝐽Δ𝑥')], signed(pr, 4), '--fwd', 'predicted'],
      [['dual ', mm('⟨∇, Δ𝑥⟩')], signed(dual, 4), '--rev', 'dual'],
      [app.evaluate ? 'true change' : 'true change (sampled)', actual == null ? '·' : signed(actual, 4), null, 'true'],
      [['remainder ', mm('/‖Δ𝑥‖')], ready ? fmt(Math.abs(actual - pr) / size, 4) : '·', null, 'remainder'],
      [['seed ', mm('𝑔')], gControl(app), null, 'g'],
      ['rank · kernel dim', about.rank == null ? '·' : `${about.rank} · ${graph.n - about.rank}`, null, 'rank'],
      ...calculus(app),
    ]),
    h(
      'p',
      { class: 'note' },
      ready
        ? ['Shrink ', mm('Δ𝑥'), ': the last ratio goes to 0.']
        : app.evaluate
          ? 'Evaluating…'
          : 'Snapshot: the true change needs a live kernel or server; lines of equal value are those of the linear model.',
    ),
  ];
}

/** @param {App} app */
function gControl(app) {
  if (app.graph.m !== 1) return fmt(app.g()[app.S.i] ?? 0, 2);
  return h('input', {
    type: 'range',
    class: 'g',
    min: -2,
    max: 2,
    step: 0.05,
    value: app.g()[0],
    'data-f': 'g',
    'aria-label': 'covector g at the output',
    oninput: (/** @type {any} */ e) => {
      app.S.g = [Number(e.target.value)];
      app.draw();
    },
  });
}

/** Divergence, curl, Laplacian: what the whole Jacobian says of a field. @param {App} app */
function calculus(app) {
  const a = app.graph.about,
    put = (/** @type {any} */ v) => (Array.isArray(v) ? v.map((q) => fmt(Number(q), 3)).join(', ') : fmt(Number(v), 4));
  return [
    a.divergence != null && ['divergence = trace', put(a.divergence), null, 'divergence'],
    a.divergence == null && a.trace != null && ['trace', put(a.trace), null, 'trace'],
    a.curl != null && ['curl', put(a.curl), null, 'curl'],
    a.laplacian != null && ['Laplacian', put(a.laplacian), null, 'laplacian'],
  ].filter(Boolean);
}

/** The unit square and where the map takes it. @param {App} app */
function area(app) {
  const { S, graph, C } = app,
    [p, k, q, l] = /** @type {any} */ (areaTarget(app)),
    [a, b] = S.axes;
  const col = [a, b].map((c) => app.pushUnit(c)),
    A = [
      [p, k],
      [q, l],
    ].map(([n, at]) => col.map((m) => m.get(n.id)?.[at] ?? NaN));
  const det = A[0][0] * A[1][1] - A[0][1] * A[1][0],
    f = (/** @type {number[]} */ v) => [A[0][0] * v[0] + A[0][1] * v[1], A[1][0] * v[0] + A[1][1] * v[1]];
  if (!A.flat().every(Number.isFinite))
    return {
      plane: plane([], null),
      told: [h('p', { class: 'note' }, 'An entry of this block is no finite number: it has no area.')],
    };
  const square = [
      [0, 0],
      [1, 0],
      [1, 1],
      [0, 1],
    ],
    all = [...square, ...square.map(f)],
    lo = [0, 1].map((d) => Math.min(...all.map((v) => v[d]))),
    hi = [0, 1].map((d) => Math.max(...all.map((v) => v[d])));
  const u = Math.min(54, 176 / Math.max(hi[0] - lo[0], hi[1] - lo[1], 1)),
    shift = (/** @type {number[]} */ v) => [R + (v[0] - (lo[0] + hi[0]) / 2) * u, R - (v[1] - (lo[1] + hi[1]) / 2) * u];
  const parts = [];
  for (let t = -8; t <= 8; t++)
    parts.push(
      ray(shift([t, -99]), shift([t, 99]), { class: 'grid0' }),
      ray(shift([-99, t]), shift([99, t]), { class: 'grid0' }),
    );
  const poly = (/** @type {number[][]} */ pts, /** @type {any} */ attrs) =>
    s('polygon', { points: pts.map((v) => shift(v).join(',')).join(' '), ...attrs });
  const say = (/** @type {number[]} */ v, /** @type {string} */ t, /** @type {string} */ c, dx = 4, dy = -4) => {
    const at = shift(v);
    return s(
      'text',
      {
        x: Math.max(2, Math.min(160, at[0] + dx)),
        y: Math.max(12, Math.min(212, at[1] + dy)),
        'font-size': 14,
        class: 'm',
        style: { fill: `var(${c})` },
      },
      t,
    );
  };
  parts.push(
    poly(square, { class: 'unit' }),
    poly(square.map(f), { class: 'image' }),
    say([1, 0], 'area 1', '--ink2', 5, 13),
    say(f([0.5, 0.5]), `area ${fmt(Math.abs(det), 2)}`, '--fwd', -24, 4),
    say(f([1, 0]), '𝐽𝑒₁', '--fwd'),
    say(f([0, 1]), '𝐽𝑒₂', '--fwd', -22, -4),
  );
  const sv = singular(A.map((r) => r.map((v) => v || 0))),
    rank = rankOf(sv, 2, 2),
    ker = kernel(A.map((r) => r.map((v) => v || 0)));
  if (rank < 2 && ker)
    parts.push(ray(shift([-9 * ker[0], -9 * ker[1]]), shift([9 * ker[0], 9 * ker[1]]), { class: 'kernel' }));
  const whole = graph.m === graph.n && graph.n > 2 && graph.about.det != null;
  return {
    plane: plane(parts, null),
    told: [
      kv([
        ['unit square → area', `1 → ${fmt(Math.abs(det), 2)}`, null, 'area'],
        ['det', signed(det, 4), null, 'det'],
        ['orientation', rank < 2 ? 'collapsed' : det > 0 ? 'kept' : 'flipped', null, 'orientation'],
        ['singular values', sv.map((v) => fmt(v, 3)).join(', '), null, 'singular'],
        ['rank', String(rank), null, 'rank'],
        [
          'kernel',
          rank === 2
            ? '{0}'
            : rank === 0
              ? 'all'
              : `(${/** @type {number[]} */ (ker).map((v) => fmt(v, 2)).join(', ')})`,
          null,
          'kernel',
        ],
        whole && [['whole ', mm('𝐽'), ': volume × '], fmt(Math.abs(Number(graph.about.det)), 4), null, 'volume'],
        ...calculus(app),
      ]),
      h(
        'p',
        { class: 'note' },
        rank < 2
          ? 'The rank drops here: the parallelogram collapses, and the dashed kernel line is sent to 0.'
          : 'Where the rank drops, the parallelogram collapses to a segment and the kernel appears.',
      ),
    ],
  };
}

/** The plane of two outputs: J Δx, and the covector g to drag. @param {App} app */
function outputs(app) {
  const { S, C, graph } = app,
    [a, b] = S.rows,
    g = app.g(),
    [p, k] = graph.output(a),
    [q, l] = graph.output(b);
  const dy = [
      [p, k],
      [q, l],
    ].map(([n, at]) => C.push.get(/** @type {any} */ (n).id)?.[/** @type {number} */ (at)] ?? 0),
    unit = 70 / Math.max(1, Math.hypot(...dy));
  const value = [g[a] ?? 0, g[b] ?? 0],
    per = 70;
  const parts = [
    ray([0, R], [216, R], { class: 'level' }),
    ray([R, 0], [R, 216], { class: 'level' }),
    s('circle', { cx: R, cy: R, r: 70, class: 'circle' }),
    ...arrow([R + dy[0] * unit, R - dy[1] * unit], '--fwd', '𝐽Δ𝑥'),
    ...arrow([R + value[0] * per, R - value[1] * per], '--rev', '𝑔', { 'stroke-dasharray': '5 3' }),
  ];
  const handle = {
    key: 'gdrag',
    color: '--rev',
    at: [R + value[0] * per, R - value[1] * per],
    per,
    value,
    label: 'covector g; arrow keys move it',
    start: dragging(app),
    put: (/** @type {number[]} */ v) => {
      const next = g.slice(),
        lim = (/** @type {number} */ t) => Math.max(-1.5, Math.min(1.5, t));
      next[a] = lim(v[0]);
      next[b] = lim(v[1]);
      S.g = next;
      app.draw(S.dragging);
    },
  };
  const left = g.reduce((/** @type {number} */ t, /** @type {number} */ v, /** @type {number} */ r) => {
    const [n, at] = graph.output(r);
    return t + v * (C.push.get(/** @type {any} */ (n)?.id)?.[at] ?? 0);
  }, 0);
  const pulled = graph.inputs.flatMap((/** @type {any} */ i) =>
    Array.from(C.pull.get(String(i.node)) ?? new Array(i.size).fill(NaN)),
  );
  const right = S.dx.reduce(
      (/** @type {number} */ t, /** @type {number} */ v, /** @type {number} */ r) => t + (v ? v * pulled[r] : 0),
      0,
    ),
    few = (/** @type {number[]} */ v) =>
      v
        .slice(0, 3)
        .map((t) => fmt(t, 3))
        .join(', ') + (v.length > 3 ? ', …' : '');
  return {
    plane: plane(parts, handle),
    told: [
      kv([
        [[mm('𝑔'), ' (drag it)'], few(g), '--rev', 'g'],
        [mm('𝐽⊤𝑔'), few(pulled), '--rev', 'pulled'],
        [mm('𝐽Δ𝑥'), few(dy), '--fwd', 'pushed'],
        [mm('⟨𝑔, 𝐽Δ𝑥⟩'), signed(left, 4), '--fwd', 'left'],
        [mm('⟨𝐽⊤𝑔, Δ𝑥⟩'), signed(right, 4), '--rev', 'right'],
      ]),
      h('p', { class: 'note' }, 'Pushing Δ𝑥 and pulling 𝑔 back give one number: the two lines above are equal.'),
    ],
  };
}
