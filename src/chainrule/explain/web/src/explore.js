// @ts-check
// The inspector: the entry that was picked as a formula, as a sum over paths, as an entry of the product of the chain.
import { said } from './boxes.js';
import { indexLetter } from './derive.js';
import { cut, fmt, h, m, mathText, mname, name } from './dom.js';
import { glyph } from './glyphs.js';
import { index } from './graph.js';
import { pathRows, toldPaths } from './sums.js';

/** @typedef {import('./app.js').App} App */
/** @typedef {import('./graph.js').Value} Value */
/** @typedef {import('./graph.js').Edge} Edge */

const frac = (/** @type {any} */ a, /** @type {any} */ b) =>
  m('mfrac', null, m('mrow', null, m('mo', null, '∂'), a), m('mrow', null, m('mo', null, '∂'), b));

const at = (/** @type {Value} */ n, /** @type {number} */ k) =>
  mname(n.symbol, index(n.shape, k) && m('mn', null, index(n.shape, k)));

/** ∂y/∂x as a sum over the indices between, for each way through the values. @param {App} app */
function entryFormula(app) {
  const { source, j, target, i, ways } = app.C;
  if (!source || !target) return null;
  const math = m('math', { display: 'block' }, frac(at(target, i), at(source, j)), m('mo', null, '='));
  if (!ways.length) return h('div', { class: 'formula' }, append0(math, m('mn', null, '0')));
  const long = ways.length > 1 && ways.find((/** @type {Edge[]} */ w) => w.length > 5);
  (long ? [long] : ways.slice(0, 3)).forEach((/** @type {Edge[]} */ way, /** @type {number} */ q) => {
    if (q) math.append(m('mo', null, '+'));
    if (way.length > 5) {
      const [a, b] = [way[0], way[way.length - 1]],
        end = (/** @type {Value} */ n, /** @type {Value} */ k) =>
          k === target ? at(k, i) : n === k && k === source ? at(k, j) : mname(k.symbol);
      math.append(
        m('munder', null, m('mo', null, '∑'), m('mtext', null, 'paths')),
        frac(at(target, i), mname(b.from.symbol)),
        m('mo', null, '⋯'),
        frac(end(a.to, a.to), at(source, j)),
      );
      return;
    }
    let free = 0;
    /** @type {Map<string, any>} */ const letters = new Map();
    const sums = [];
    for (const e of way.slice(0, -1)) {
      if (e.to.size <= 1) continue;
      const same = ['diagonal', 'identity', 'scalar'].includes(e.map.about.glyph) && letters.get(e.from.id);
      const letter = same || indexLetter(app, free++);
      letters.set(e.to.id, letter);
      if (!same) sums.push([letter, e.to.size]);
    }
    // a diagonal map further on shares the letter of what enters it
    for (const [letter, size] of sums.slice(0, 3))
      math.append(
        m(
          'munderover',
          null,
          m('mo', null, '∑'),
          m('mrow', null, m('mi', null, letter), m('mo', null, '='), m('mn', null, '1')),
          m('mn', null, String(size)),
        ),
      );
    const val = (/** @type {Value} */ n) =>
      n === source
        ? at(n, j)
        : n === target
          ? at(n, i)
          : mname(n.symbol, letters.has(n.id) ? m('mi', null, letters.get(n.id)) : null);
    [...way].reverse().forEach((e, k) => {
      if (k) math.append(m('mspace', { width: '.12em' }));
      math.append(frac(val(e.to), val(e.from)));
    });
  });
  if (ways.length > 3 && !long) math.append(m('mo', null, '+'), m('mo', null, '⋯'));
  return h(
    'div',
    {
      class: 'formula',
      tabindex: 0,
      role: 'group',
      'aria-label': `partial of ${said(target, i)} by ${said(source, j)}`,
    },
    math,
  );
}

const append0 = (/** @type {Element} */ el, /** @type {Node} */ child) => {
  el.append(child);
  return el;
};

/** @param {App} app */
export function explore(app) {
  const { source, target, sums } = app.C;
  const parts = [entryFormula(app)];
  if (!source || !target)
    return [h('p', { class: 'msg' }, 'There is no entry to choose: an input or an output is empty or constant.')];
  parts.push(...(sums ? pathRows(app) : toldPaths(app)));
  const whole = app.graph.data.formulas?.chain?.text;
  parts.push(
    chainRow(app),
    whole && h('p', { class: 'm whole', 'data-read': 'chain' }, mathText(cut(String(whole), 120))),
    reading(app),
  );
  return parts.filter(Boolean);
}

/** The factors of one way with the sizes that cancel struck out, and their product. @param {App} app */
function chainRow(app) {
  const { way } = app.C,
    list = [...way].reverse();
  const size = (/** @type {number} */ v, /** @type {boolean} */ struck) =>
    struck ? h('s', null, String(v)) : String(v);
  const blocks = list.slice(0, 6).map((/** @type {Edge} */ e, /** @type {number} */ k) => {
    return h(
      'span',
      { class: 'factor' },
      h(
        'button',
        {
          class: 'block',
          'data-f': `factor:${e.id}`,
          'aria-label': `factor ${cut(String(e.map.about.label ?? ''), 20)}, ${e.map.shape}, ${cut(String(e.map.words), 40)}`,
          onclick: () => app.openEdge(e),
        },
        glyph(e.map.about.glyph, 18),
        h('span', { class: 'm' }, mathText(cut(String(e.map.about.label ?? ''), 16))),
      ),
      h('span', { class: 'shape' }, size(e.map.rows, k > 0), '×', size(e.map.cols, k < list.length - 1)),
    );
  });
  if (list.length > 6) blocks.push(h('span', { class: 'sub' }, `⋯ ${list.length - 6} more`));
  return h(
    'div',
    { class: 'chainrow' },
    blocks,
    blocks.length > 0 && h('span', { class: 'eq' }, app.C.ways.length > 1 ? '+ ⋯ =' : '='),
    matrix(app),
  );
}

/** J, or its transpose, with the entry that was picked. @param {App} app */
function matrix(app) {
  const J = app.graph.J,
    flip = app.S.flip,
    R = flip ? J.cols : J.rows,
    C = flip ? J.rows : J.cols;
  const title = h('span', { class: 'shape' }, h('span', { class: 'm' }, flip ? '𝐽⊤' : '𝐽'), ` ${R}×${C}`);
  if (!J.known || R > 6 || C > 6)
    return h(
      'span',
      { class: 'factor' },
      h(
        'button',
        {
          class: 'block',
          'data-f': 'bigJ',
          'aria-label': `the whole Jacobian, ${J.shape}`,
          onclick: () => app.openEdge(null),
        },
        glyph(J.about.glyph, 18),
        h('span', { class: 'm' }, '𝐽'),
        ' ',
        h('span', { class: 'num' }, fmt(app.C.J)),
      ),
      title,
    );
  const top = Math.max(
    1e-300,
    ...Array.from(/** @type {any} */ (J.entries).values, (v) => (Number.isFinite(v) ? Math.abs(v) : 0)),
  );
  const cells = [];
  for (let r = 0; r < R; r++)
    for (let c = 0; c < C; c++) {
      const [i, j] = flip ? [c, r] : [r, c],
        v = J.get(i, j),
        on = i === app.S.i && j === app.S.j;
      cells.push(
        h(
          'button',
          {
            class: `cell num${on ? ' pick' : ''}${v == null ? ' z' : ''}`,
            style: {
              '--s': `var(${v != null && v < 0 ? '--neg' : '--pos'})`,
              '--v': Math.min(1, Math.abs(v ?? 0) / top),
            },
            'data-f': `J:${i}:${j}`,
            'aria-pressed': on ? 'true' : 'false',
            'aria-label': `J entry ${i + 1},${j + 1}: ${v == null ? '·' : fmt(v)}`,
            onclick: () => app.pick(i, j),
          },
          v == null ? '·' : fmt(v),
        ),
      );
    }
  return h(
    'span',
    { class: 'factor' },
    h('span', { class: 'mat', style: { 'grid-template-columns': `repeat(${C},auto)` } }, cells),
    title,
  );
}

/** How the picked row and column are to be read. @param {App} app */
function reading(app) {
  const { source, target, i, j } = app.C;
  return h(
    'div',
    { class: 'reading' },
    h(
      'p',
      { class: 'note' },
      `Row ${app.S.i + 1} of J is the gradient of `,
      name(target.symbol, index(target.shape, i)),
      `; column ${app.S.j + 1} is the effect of `,
      name(source.symbol, index(source.shape, j)),
      '. Rows are outputs, columns are inputs; a gradient is a row turned up, ',
      h('span', { class: 'm' }, '∇ = 𝐽⊤𝑔'),
      '.',
    ),
    h(
      'button',
      {
        class: 'small',
        'data-f': 'flip',
        'aria-pressed': app.S.flip ? 'true' : 'false',
        onclick: () => {
          app.S.flip = !app.S.flip;
          app.draw();
        },
      },
      'Transpose',
    ),
  );
}
