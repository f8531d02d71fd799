// @ts-check
// The map near the point: level sets and the gradient across them, areas, orientation, kernel; Δx and g to drag.
import { level as levelGrid } from './live.js';
import { fmt, h, s, signed, tname } from './dom.js';
import { index } from './graph.js';
import { kernel, rankOf, singular } from './linear.js';
import { R, REACH, T, arrow, contours, dragging, dxHandle, name, plane, ray, tangent } from './plane.js';
import { calculus, kv, mm, predicted } from './readings.js';

/** @typedef {import('./app.js').App} App */
/** @typedef {import('./graph.js').Value} Value */

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

/** One output over two inputs. @param {App} app */
export function level(app) {
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
    const grid = levelGrid(app);
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

/** The unit square and where the map takes it. @param {App} app */
function area(app) {
  const { S, graph } = app,
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
