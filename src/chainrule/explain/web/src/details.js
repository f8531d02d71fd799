// @ts-check
// The picked pair, one Jacobian in full, the components of a long value.
import { heat } from './cards.js';
import { open } from './dialogs.js';
import { big, cut, fmt, formula, h, name, s } from './dom.js';
import { glyph } from './glyphs.js';
import { index } from './graph.js';
import { determinant, rankOf, singular } from './linear.js';

/** @typedef {import('./app.js').App} App */
/** @typedef {import('./graph.js').Value} Value */
/** @typedef {import('./graph.js').Edge} Edge */

/** Which output and which input: buttons for a few, a number for many. @param {App} app */
export function pair(app) {
  const { graph, S } = app;
  const pick = (
    /** @type {string} */ word,
    /** @type {number} */ size,
    /** @type {number} */ now,
    /** @type {(k: number) => [Value | undefined, number]} */ of,
    /** @type {(k: number) => void} */ put,
  ) => {
    const label = (/** @type {number} */ k) => {
      const [n, q] = of(k);
      return n ? name(n.symbol, index(n.shape, q)) : String(k + 1);
    };
    if (size === 0) return h('span', { class: 'sub' }, `no ${word}`);
    if (size === 1) return h('span', { class: 'sub' }, `${word} `, label(0));
    if (size <= 4)
      return [
        h('span', { class: 'sub' }, `${word} `),
        h(
          'div',
          { class: 'seg', role: 'group', 'aria-label': word },
          Array.from({ length: size }, (_, k) =>
            h(
              'button',
              {
                [`data-${word[0]}`]: k,
                'data-f': `${word}:${k}`,
                'aria-pressed': k === now ? 'true' : 'false',
                onclick: () => put(k),
              },
              label(k),
            ),
          ),
        ),
      ];
    return h(
      'label',
      { class: 'sub' },
      `${word} `,
      h('input', {
        class: 'nth',
        type: 'number',
        min: 1,
        max: size,
        value: now + 1,
        'data-f': `${word}:n`,
        'aria-label': `${word}, 1 to ${size}`,
        onchange: (/** @type {any} */ e) =>
          put(Math.max(0, Math.min(size - 1, Math.round(Number(e.target.value) || 1) - 1))),
      }),
      ` of ${size}`,
    );
  };
  return [
    pick(
      'output',
      graph.m,
      S.i,
      (k) => graph.output(k),
      (k) => app.pick(k, -1),
    ),
    pick(
      'input',
      graph.n,
      S.j,
      (k) => graph.input(k),
      (k) => app.pick(-1, k),
    ),
  ].flat();
}

/** One Jacobian in full: values, rank, norm, as stored and as dense. @param {App} app @param {Edge | null} e */
export function jacobian(app, e) {
  const m = e ? e.map : app.graph.J,
    title = e ? `∂${cut(e.to.name, 24)} / ∂${cut(e.from.name, 24)}` : 'The whole Jacobian';
  const small = m.known && m.rows <= 24 && m.cols <= 24 && m.rows * m.cols > 0,
    table = m.known && m.rows * m.cols <= 4096 ? m.table() : null;
  const finite = table && table.flat().every((v) => v == null || Number.isFinite(v)),
    plain = finite ? /** @type {any} */ (table).map((/** @type {any[]} */ r) => r.map((v) => v ?? 0)) : null;
  const sv = plain && Math.min(m.rows, m.cols) <= 24 && m.rows * m.cols ? singular(plain) : null;
  const rows = [
    ['shape', m.shape],
    ['structure', cut(String(m.words), 60)],
    ['stored numbers', `${big(m.stored)} of ${big(m.rows * m.cols)}`],
    ['entries that are not zero by structure', big(m.nnz)],
    ['norm', m.norm == null ? '·' : fmt(m.norm, 4)],
    ['one product', `${big(m.about.multiply_adds ?? m.multiplications)} multiply-adds, ${big(m.rows * m.cols)} dense`],
    sv && ['rank', String(rankOf(sv, m.rows, m.cols))],
    sv && [
      'singular values',
      cut(
        sv
          .slice(0, 6)
          .map((v) => fmt(v, 3))
          .join(', ') + (sv.length > 6 ? ', …' : ''),
        80,
      ),
    ],
    plain && m.rows === m.cols && m.rows <= 24 && ['determinant', fmt(determinant(plain), 4)],
  ].filter(Boolean);
  const pick = (/** @type {number} */ i, /** @type {number} */ j) => {
    d.close();
    if (e) app.pickEdge(e, i, j);
    else app.pick(i, j);
  };
  const cells = small
    ? h(
        'div',
        { class: 'bigmat', tabindex: 0, role: 'group', 'aria-label': 'Entries' },
        h(
          'span',
          { class: 'mat', style: { 'grid-template-columns': `repeat(${m.cols},auto)` } },
          /** @type {any} */ (table).map((/** @type {any[]} */ r, /** @type {number} */ i) =>
            r.map((v, j) =>
              h(
                'button',
                {
                  class: `cell num${v == null ? ' z' : ''}`,
                  style: {
                    '--s': `var(${v != null && v < 0 ? '--neg' : '--pos'})`,
                    '--v': Math.min(1, Math.abs(v ?? 0) / (m.norm || 1)),
                  },
                  'aria-label': `entry ${i + 1},${j + 1}: ${v == null ? '·' : fmt(v)}`,
                  'data-at': `${i}:${j}`,
                  onclick: () => pick(i, j),
                },
                v == null ? '·' : fmt(v),
              ),
            ),
          ),
        ),
      )
    : m.known || m.image
      ? h(
          'div',
          null,
          s(
            'svg',
            { width: 256, height: 160, viewBox: '0 0 256 160', role: 'img', 'aria-label': 'size of the entries' },
            heat(m, 0, 0, 256, 160),
          ),
          m.known && entryPicker(m, pick),
        )
      : h('p', { class: 'sub' }, 'Too large to be stored in this page: only its structure is known here.');
  const d = open(
    app,
    title,
    h(
      'div',
      { class: 'jtitle' },
      glyph(m.about.glyph, 24),
      h('span', { class: 'm' }, formula(cut(String(m.about.label ?? ''), 60))),
      m.about.note && h('span', { class: 'sub' }, cut(String(m.about.note), 80)),
    ),
    cells,
    h(
      'dl',
      { class: 'kv' },
      rows.map((/** @type {any} */ [k, v]) => [h('dt', null, k), h('dd', { 'data-read': k }, v)]),
    ),
    e &&
      e.to.text &&
      h(
        'p',
        { class: 'sub' },
        h('code', null, cut(e.to.text, 200)),
        e.to.place?.line != null && ` line ${e.to.place.line}`,
      ),
  );
}

/** @param {any} m @param {(i: number, j: number) => void} pick */
function entryPicker(m, pick) {
  const field = (/** @type {string} */ w, /** @type {number} */ most) =>
    h('input', { class: 'nth', type: 'number', min: 1, max: most, value: 1, 'aria-label': w });
  const r = field('row', m.rows),
    c = field('column', m.cols),
    at = () =>
      [r, c].map((q, k) => Math.max(0, Math.min((k ? m.cols : m.rows) - 1, Math.round(Number(q.value) || 1) - 1)));
  const out = h('b', { class: 'num' }),
    show = () => {
      const [i, j] = at(),
        v = m.get(i, j);
      out.textContent = ` ${v == null ? '0 by structure' : fmt(v, 5)} `;
    };
  r.oninput = c.oninput = show;
  show();
  return h(
    'p',
    { class: 'sub' },
    'row ',
    r,
    ' column ',
    c,
    out,
    h(
      'button',
      {
        class: 'small',
        onclick: () => {
          const [i, j] = at();
          pick(i, j);
        },
      },
      'select',
    ),
  );
}

/** The components of a long value. @param {App} app @param {Value} n */
export function value(app, n) {
  const few = Math.min(n.size, 256),
    v = n.full,
    D = app.C.push.get(n.id),
    G = app.C.pull.get(n.id);
  const can = app.canPick(n, 0),
    rows = Array.from({ length: few }, (_, k) =>
      h(
        'button',
        {
          class: 'comp',
          'data-at': k,
          'aria-pressed': app.isPicked(n, k) ? 'true' : 'false',
          disabled: !can,
          onclick: () => {
            d.close();
            app.pickComponent(n, k);
          },
        },
        name(n.symbol, index(n.shape, k)),
        h('b', { class: 'num' }, v ? fmt(v[k]) : '·'),
        h('span', { class: 'num fwd' }, `Δ ${D ? fmt(D[k]) : '·'}`),
        h('span', { class: 'num rev' }, `∇ ${G ? fmt(G[k]) : '·'}`),
      ),
    );
  const q = n.summary,
    turns = n.loop?.values,
    turn = h('b', { class: 'num' });
  const d = open(
    app,
    `${cut(n.name, 40)} (${n.shape.join('×')})`,
    !v &&
      h(
        'p',
        { class: 'sub num' },
        `min ${fmt(Number(q.min))} · mean ${fmt(Number(q.mean))} · max ${fmt(Number(q.max))} · norm ${fmt(Number(q.norm))}`,
      ),
    turns &&
      h(
        'label',
        { class: 'sub' },
        'iteration ',
        h('input', {
          type: 'range',
          min: 1,
          max: turns.length,
          value: turns.length,
          'data-f': 'turn',
          oninput: (/** @type {any} */ e) => {
            turn.textContent = ` ${e.target.value}`;
            rows.forEach((r, k) => {
              r.children[1].textContent = fmt(Number(turns[e.target.value - 1][k]));
            });
          },
        }),
        turn,
        ` of ${turns.length}`,
      ),
    h('div', { class: 'comps' }, rows),
    n.size > few &&
      h(
        'label',
        { class: 'sub' },
        'component ',
        h('input', {
          class: 'nth',
          type: 'number',
          min: 1,
          max: n.size,
          'aria-label': 'component',
          onchange: (/** @type {any} */ e) => {
            d.close();
            app.pickComponent(n, Math.max(0, Math.min(n.size - 1, Math.round(Number(e.target.value) || 1) - 1)));
          },
        }),
        ` of ${n.size}`,
      ),
  );
}
