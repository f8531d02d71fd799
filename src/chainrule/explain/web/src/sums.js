// @ts-check
// The sum over paths as rows with bars from one zero line.
import { said } from './boxes.js';
import { big, cut, fmt, h, signed, split } from './dom.js';
import { component } from './graph.js';
import { zeroPaths } from './paths.js';

/** @typedef {import('./app.js').App} App */
/** @typedef {import('./graph.js').Value} Value */

/** Pixels that the number at the end of a bar takes. */
const NUMBER = 50;

/** Bars from one zero line, so that what cancels is seen to cancel. @param {number[]} values */
function scale(values) {
  const ok = values.filter(Number.isFinite),
    lo = Math.min(0, ...ok),
    hi = Math.max(0, ...ok),
    before = lo < 0 ? NUMBER : 4,
    room = `(100% - ${before + (hi > 0 ? NUMBER : 4)}px)`,
    part = (/** @type {number} */ v) => v / (hi - lo || 1),
    at = (/** @type {number} */ v) => `${before}px + ${part(v - lo)} * ${room}`;
  return (/** @type {number} */ v, total = false) => {
    const w = Number.isFinite(v) ? v : 0,
      color = `var(${v < 0 ? '--neg' : '--pos'})`,
      bar = { left: `calc(${at(Math.min(0, w))})`, width: `calc(${part(Math.abs(w))} * ${room})` },
      label = v < 0 ? { right: `calc(100% + 3px - (${at(w)}))` } : { left: `calc(${at(w)} + 3px)` };
    return h(
      'div',
      { class: 'wf', style: { '--z': `calc(${at(0)})` } },
      h('i', { class: total ? 'total' : '', style: { ...bar, background: color } }),
      h('span', { style: { ...label, color } }, signed(v)),
    );
  };
}

/** @param {App} app */
export function pathRows(app) {
  const { sums, source, target, i, j, J } = app.C;
  const total = J,
    rest = total - sums.top.reduce((/** @type {number} */ t, /** @type {any} */ p) => t + p.product, 0);
  const more = sums.rest.count > BigInt(0),
    bar = scale([...sums.top.map((/** @type {any} */ p) => p.product), ...(more ? [rest] : []), total]);
  const S = app.S,
    rows = [];
  const row = (/** @type {any} */ p, /** @type {number} */ q) =>
    h(
      'div',
      {
        class: q === S.focus ? 'prow on' : 'prow',
        'data-path': q,
        onmouseenter: () => {
          if (S.focus !== q && q >= 0) {
            S.focus = q;
            app.draw();
          }
        },
      },
      h('span', { class: 'badge', 'aria-hidden': 'true' }, q >= 0 ? String(q + 1) : '0'),
      h(
        'button',
        {
          class: 'prod',
          'data-f': `path:${q}`,
          'aria-pressed': q === S.focus ? 'true' : 'false',
          title: hopNames(p),
          onclick: () => {
            if (q >= 0) {
              S.focus = q;
              app.draw();
            }
          },
        },
        factors(p.hops),
      ),
      bar(p.product),
    );
  sums.top.forEach((/** @type {any} */ p, /** @type {number} */ q) => rows.push(row(p, q)));
  if (more)
    rows.push(
      h(
        'div',
        { class: 'prow' },
        h('span', { class: 'badge', 'aria-hidden': 'true' }, '⋯'),
        h(
          'span',
          { class: 'prod rest' },
          `the other ${big(sums.rest.count)} path${sums.rest.count === BigInt(1) ? '' : 's'}`,
        ),
        bar(rest),
      ),
    );
  const zeros = S.zeros && sums.zero > BigInt(0) ? zeroPaths(app.C.view, source, j, target, i) : [];
  zeros.forEach((p) => rows.push(row(p, -1)));
  rows.push(
    h(
      'div',
      { class: 'prow' },
      h('span', null),
      h('span', { class: 'prod sum' }, h('span', { class: 'm' }, `∂${text(target, i)}/∂${text(source, j)}`), ' ='),
      bar(total, true),
    ),
  );
  const told = h(
    'div',
    { class: 'sub lead' },
    'Sum over paths, multiply along edges. ',
    h('b', { 'data-t': 'count' }, `${big(sums.count)} path${sums.count === BigInt(1) ? '' : 's'}`),
    ` count${sums.count === BigInt(1) ? 's' : ''}, `,
    sums.zero > BigInt(0)
      ? h(
          'button',
          {
            class: 'link',
            'data-f': 'zeros',
            'aria-expanded': S.zeros ? 'true' : 'false',
            onclick: () => {
              S.zeros = !S.zeros;
              app.draw();
            },
          },
          `${big(sums.zero)} meet a zero`,
        )
      : 'none meets a zero',
    '.',
  );
  return [told, h('div', { class: 'paths' }, rows)];
}

const text = (/** @type {Value} */ n, /** @type {number} */ k) =>
  component({ ...n, symbol: cut(split(n.symbol).join(''), 6) }, k);

const hopNames = (/** @type {any} */ p) =>
  cut(
    [
      p.hops[0] && said(p.hops[0].edge.from, p.hops[0].j),
      ...p.hops.map((/** @type {any} */ q) => said(q.edge.to, q.i)),
    ].join(' → '),
    300,
  );

/** The factors from the output to the input, as the formula reads. @param {any[]} hops */
function factors(hops) {
  const list = [...hops].reverse().map((q) => fmt(q.value, hops.length > 3 ? 2 : 3));
  const shown = list.length > 4 ? [...list.slice(0, 2), '⋯', ...list.slice(-2)] : list;
  return shown.flatMap((t, k) => (k ? [h('em', null, '·'), t] : [t]));
}

/** Where the page cannot walk through the maps itself: what the data says of this entry. @param {App} app */
export function toldPaths(app) {
  const { J, i, j } = { ...app.C, i: app.S.i, j: app.S.j },
    told = (app.graph.data.paths ?? []).find((/** @type {any} */ p) => p.i === i && p.j === j);
  if (!told)
    return [
      h(
        'p',
        { class: 'msg' },
        `${J == null ? '' : `J[${i + 1}, ${j + 1}] = ${fmt(J, 6)}. `}A Jacobian on the way is too large for this page, or of a step without a linear derivative: the paths are not listed.`,
      ),
    ];
  const value = Number(told.value),
    rest = Number(told.rest?.sum ?? 0),
    bar = scale([...told.top.map((/** @type {any} */ p) => Number(p.product)), rest, value]);
  return [
    h(
      'div',
      { class: 'sub lead' },
      'Sum over paths. ',
      h('b', { 'data-t': 'count' }, `${big(BigInt(told.count))} paths`),
      ` count, ${big(BigInt(told.zero))} meet a zero.`,
    ),
    h(
      'div',
      { class: 'paths' },
      told.top.map((/** @type {any} */ p, /** @type {number} */ q) =>
        h(
          'div',
          { class: 'prow' },
          h('span', { class: 'badge' }, String(q + 1)),
          h(
            'span',
            { class: 'prod' },
            [...p.factors]
              .reverse()
              .slice(0, 5)
              .map((v, k) => (k ? ` · ${fmt(Number(v), 2)}` : fmt(Number(v), 2))),
          ),
          bar(Number(p.product)),
        ),
      ),
      h(
        'div',
        { class: 'prow' },
        h('span', { class: 'badge' }, '⋯'),
        h('span', { class: 'prod rest' }, `the other ${big(BigInt(told.rest?.count ?? 0))} paths`),
        bar(rest),
      ),
      h('div', { class: 'prow' }, h('span', null), h('span', { class: 'prod sum' }, '='), bar(value, true)),
    ),
  ];
}
