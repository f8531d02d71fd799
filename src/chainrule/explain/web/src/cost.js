// @ts-check
// What each order of the products costs, with the intermediates that travel drawn to scale.
import { big, cut, h, mathText, s } from './dom.js';

/** @typedef {import('./app.js').App} App */

/** The textbook's case: 10⁶ inputs, ten layers of 10³, a scalar loss; dense factors, counted as products of matrices. */
const LARGE = {
  items: [
    {
      name: 'reverse',
      title: 'from the output',
      bracket: '((cᵀ J₁₀) ⋯ J₂) J₁',
      multiply_adds: 1.009e9,
      dense: 1.009e9,
      peak: 1e3,
      travels: [
        [1, 1],
        [1, 1e3],
        [1, 1e3],
        [1, 1e6],
      ].map((shape) => ({ shape })),
    },
    {
      name: 'forward',
      title: 'from the input',
      bracket: 'cᵀ (J₁₀ ⋯ (J₂ J₁))',
      multiply_adds: 9.001e12,
      dense: 9.001e12,
      peak: 1e9,
      travels: [
        [1e6, 1e6],
        [1e3, 1e6],
        [1e3, 1e6],
        [1, 1e6],
      ].map((shape) => ({ shape })),
    },
  ],
  note: 'Logarithmic scale, dense factors. As products of matrices the order from the output needs 8.9·10³ times fewer multiply-adds and holds 10³ numbers between layers, not 10⁹. Counted as 10⁶ separate pushforwards the ratio is 10⁶.',
};

const colour = (/** @type {any} */ item) =>
  /reverse|output/.test(item.name) ? '--rev' : /forward|input/.test(item.name) ? '--fwd' : '--ink2';

const mark = (/** @type {any} */ item) => (colour(item) === '--rev' ? '◀' : colour(item) === '--fwd' ? '▶' : '◆');

const power = (/** @type {number} */ v) => (v >= 1000 ? big(v).replace(/^1·/, '') : String(v));

/** @param {any} item @param {boolean} log */
function travels(item, log) {
  let list = (item.travels ?? []).map((/** @type {any} */ t) =>
    t.shape.length > 2
      ? [t.shape[0], t.shape.slice(1).reduce((/** @type {number} */ p, /** @type {number} */ q) => p * q, 1)]
      : t.shape.length === 1
        ? [1, t.shape[0]]
        : t.shape,
  );
  const skipped = Math.max(0, list.length - 5);
  if (skipped) list = [...list.slice(0, 3), null, ...list.slice(-1)];
  const top = Math.max(1, ...list.flat().filter(Boolean));
  const f = (/** @type {number} */ v) =>
    log || top > 5 ? 4 + (Math.log10(Math.max(1, v)) / Math.max(0.7, Math.log10(top))) * 30 : 5 + v * 6.2;
  let x = 0;
  const parts = list.map((/** @type {number[] | null} */ q, /** @type {number} */ k) => {
    const out = [];
    if (!q) {
      out.push(
        s('text', { x: x + 8, y: 20, 'font-size': 11, 'text-anchor': 'middle', class: 'dim' }, `+${skipped + 1}`),
      );
      x += 30;
      return out;
    }
    const w = f(q[1]),
      hh = f(q[0]),
      wide = Math.max(w, 30);
    out.push(
      s('rect', { x: x + (wide - w) / 2, y: (36 - hh) / 2, width: w, height: hh, rx: 1.5, class: 'travel' }),
      s(
        'text',
        { x: x + wide / 2, y: 48, 'font-size': 10, 'text-anchor': 'middle', class: 'num dim' },
        `${power(q[0])}×${power(q[1])}`,
      ),
    );
    x += wide + 24;
    if (k < list.length - 1) out.push(s('path', { d: `M${x - 17} 18h8m-3-3l3 3l-3 3`, class: 'then' }));
    return out;
  });
  return s(
    'svg',
    {
      width: x + 6,
      height: 52,
      viewBox: `-4 0 ${x + 6} 52`,
      role: 'img',
      'aria-label': `shapes of the intermediates: ${list
        .filter(Boolean)
        .map((/** @type {any} */ q) => q.join(' by '))
        .join(', then ')}`,
    },
    parts,
  );
}

/** Whether any order multiplies at all. @param {any[]} items */
export const costs = (items) => items.some((r) => r.multiply_adds || r.dense);

/** @param {App} app */
export function cost(app) {
  const log = app.S.large,
    data = log ? LARGE : app.graph.data.orders;
  if (!data?.items?.length) return [h('p', { class: 'note' }, 'No orders were counted for this function.')];
  if (!costs(data.items))
    return [h('p', { class: 'note' }, 'Nothing to multiply: every local Jacobian is a block of J itself.')];
  if (app.C.asked.has('order') && !log)
    return [h('p', { class: 'note' }, 'The practice asks which order is cheaper: the counts are shown once it is answered.')];
  const most = Math.max(1, ...data.items.map((/** @type {any} */ r) => Math.max(r.dense ?? 0, r.multiply_adds ?? 0)));
  const wide =
    log || most > 1000 * Math.max(1, Math.min(...data.items.map((/** @type {any} */ r) => r.multiply_adds ?? most)));
  const length = (/** @type {number} */ v) =>
    wide ? (100 * Math.log10(Math.max(1, v))) / Math.log10(Math.max(10, most)) : (100 * v) / most;
  const rows = data.items.map((/** @type {any} */ r) =>
    h(
      'tr',
      { style: { '--c': `var(${colour(r)})` } },
      h(
        'th',
        { scope: 'row' },
        h('span', { class: 'order' }, `${mark(r)} ${String(r.title ?? r.name).replace(/^./, (c) => c.toUpperCase())}`),
        r.chosen && h('span', { class: 'chosen' }, 'chosen'),
        h('span', { class: 'expr' }, r.bracket ? mathText(cut(r.bracket, 120)) : ''),
      ),
      h('td', { class: 'left' }, r.travels?.length > 0 && travels(r, log)),
      h(
        'td',
        { class: 'bars' },
        h(
          'div',
          { class: 'hb' },
          r.dense != null && h('u', { style: { width: `${length(r.dense)}%` } }),
          h('i', { style: { width: `${length(r.multiply_adds)}%` } }),
        ),
      ),
      h(
        'td',
        { class: 'num', 'data-order': r.name },
        big(r.multiply_adds),
        r.dense != null && r.dense !== r.multiply_adds && h('span', { class: 'dim' }, ` / ${big(r.dense)} dense`),
      ),
      h('td', { class: 'num' }, big(r.peak)),
    ),
  );
  const head = h(
    'tr',
    null,
    h('th', { scope: 'col' }, 'order'),
    h('th', { scope: 'col', class: 'left' }, `what travels, to scale${log ? ' (log)' : ''}`),
    h('th', { scope: 'col', class: 'left bars' }, `multiply-adds${wide ? ' (log)' : ''}`),
    h('td', null),
    h('th', { scope: 'col' }, 'peak'),
  );
  const note = log
    ? LARGE.note
    : `Solid: with structure (a diagonal factor only scales rows or columns). Hatched: the same product with every factor stored dense. ${cut(String(data.note ?? ''), 700)} ${data.reason ? `Chosen: ${cut(String(data.reason), 200)}.` : ''}`;
  return [
    h(
      'div',
      { class: 'wide', tabindex: 0, role: 'group', 'aria-label': 'Table of orders' },
      h('table', { class: 'cost' }, h('thead', null, head), h('tbody', null, rows)),
    ),
    h('p', { class: 'note' }, note),
  ];
}
