// @ts-check
// What stands beside the plane: predicted and true change, divergence, curl, Laplacian.
import { trueChange } from './live.js';
import { fmt, h, signed } from './dom.js';
import { index } from './graph.js';
import { name } from './plane.js';

/** @typedef {import('./app.js').App} App */
/** @typedef {import('./graph.js').Value} Value */

export const kv = (/** @type {any[]} */ rows) =>
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

export const mm = (/** @type {string} */ t) => h('span', { class: 'm' }, t);

/** What was predicted against what is true. @param {App} app */
export function predicted(app) {
  const { S, C, graph } = app,
    [n, k] = graph.output(S.i),
    nm = name(/** @type {Value} */ (n).symbol, index(/** @type {Value} */ (n).shape, k));
  const pr = C.predicted,
    actual = trueChange(app),
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
      [app.evaluate || !graph.data.samples ? 'true change' : 'true change (sampled)', actual == null ? '·' : signed(actual, 4), null, 'true'],
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
export function calculus(app) {
  const a = app.graph.about,
    put = (/** @type {any} */ v) => (Array.isArray(v) ? v.map((q) => fmt(Number(q), 3)).join(', ') : fmt(Number(v), 4));
  return [
    a.divergence != null && ['divergence = trace', put(a.divergence), null, 'divergence'],
    a.divergence == null && a.trace != null && ['trace', put(a.trace), null, 'trace'],
    a.curl != null && ['curl', put(a.curl), null, 'curl'],
    a.laplacian != null && ['Laplacian', put(a.laplacian), null, 'laplacian'],
  ].filter(Boolean);
}
