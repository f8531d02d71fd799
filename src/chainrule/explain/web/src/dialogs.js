// @ts-check
// What opens above the page: search, export, help, the point, one Jacobian, the components of a long value.
import { h, s, fmt, big, name, cut, formula } from './dom.js';
import { glyph } from './glyphs.js';
import { index, component } from './graph.js';
import { singular, rankOf, determinant } from './linear.js';
import { heat, said } from './canvas.js';
import * as out from './export.js';

/** @typedef {import('./app.js').App} App @typedef {import('./graph.js').Value} Value @typedef {import('./graph.js').Edge} Edge */

/** @param {App} app @param {string} title @param {any[]} body */
function open(app, title, ...body) {
  const d = h(
    'dialog',
    {
      'aria-label': title,
      onclose: () => d.remove(),
      onclick: (/** @type {any} */ e) => {
        if (e.target === d) d.close();
      },
    },
    h(
      'div',
      { class: 'dialog' },
      h(
        'div',
        { class: 'hd' },
        h('h2', null, title),
        h('span', { class: 'sp' }),
        h('button', { class: 'tool', 'aria-label': 'Close', onclick: () => d.close() }, '✕'),
      ),
      body,
    ),
  );
  app.ui.dialogs.replaceChildren(d);
  d.showModal();
  return d;
}

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

/** @param {App} app */
export function search(app) {
  const list = h('ul', { class: 'found', 'aria-label': 'Results' }),
    say = h('p', { class: 'sub', role: 'status' });
  const hay = app.graph.nodes.map((n) => [
    n,
    [
      n.name,
      n.symbol,
      n.operation,
      n.text,
      ...(n.primitives ?? []),
      ...app.graph.chain(n).map((g) => app.graph.groups.get(g)?.name ?? ''),
    ]
      .join(' ')
      .slice(0, 2000)
      .toLowerCase(),
  ]);
  const find = (/** @type {string} */ q) => {
    const hits = hay
      .filter(([, t]) => /** @type {string} */ (t).includes(q.trim().toLowerCase()))
      .map(([n]) => /** @type {Value} */ (n));
    say.textContent = `${hits.length} value${hits.length === 1 ? '' : 's'}${hits.length > 30 ? ', the first 30' : ''}`;
    list.replaceChildren(
      ...hits.slice(0, 30).map((n) =>
        h(
          'li',
          null,
          h(
            'button',
            {
              class: 'hit-row',
              onclick: () => {
                d.close();
                app.reveal(n);
                const f = app.graph.hider(n);
                app.say(`${cut(n.name, 40)} in sight${f ? ', folded' : ''}`);
              },
            },
            name(n.symbol),
            h('span', { class: 'dim' }, `(${n.shape.join('×')}) ${cut(n.operation, 20)}`),
            h('code', null, cut(n.text, 60)),
            app.graph.hider(n) && h('span', { class: 'chosen' }, 'folded'),
          ),
        ),
      ),
    );
  };
  const input = h('input', {
    class: 'query',
    'aria-label': 'Search values, operations, source lines',
    placeholder: 'name, operation or source line',
    oninput: (/** @type {any} */ e) => find(e.target.value),
    onkeydown: (/** @type {any} */ e) => {
      if (e.key === 'Enter') list.querySelector('button')?.click();
    },
  });
  const d = open(app, 'Search', input, say, list);
  find('');
  input.focus();
}

/** @param {App} app */
export function exporting(app) {
  const fn = cut(String(app.graph.data.function?.name ?? 'f'), 40).replace(/[^\w-]/g, '_') || 'f';
  const extent = /** @type {any} */ (app.extent),
    svg = () => out.svgText(app.ui.svg, app.ui.shell, app.options.css, app.options.font, extent);
  const say = h('p', { class: 'sub', role: 'status' }),
    tex = out.latex(app);
  const button = (/** @type {string} */ id, /** @type {string} */ text, /** @type {() => any} */ act) =>
    h(
      'button',
      {
        class: 'tool',
        'data-x': id,
        onclick: async () => {
          try {
            await act();
            say.textContent = `${id} saved`;
          } catch (e) {
            say.textContent = String(/** @type {any} */ (e).message ?? e);
          }
        },
      },
      text,
    );
  open(
    app,
    'Export',
    h(
      'div',
      { class: 'row-of' },
      button('SVG', 'SVG picture', () => out.save(`${fn}.svg`, svg(), 'image/svg+xml')),
      button('PNG', 'PNG, twice the size', async () => out.save(`${fn}.png`, await out.png(svg(), extent))),
      app.options.html &&
        button('HTML', 'this page', () =>
          out.save(`${fn}.html`, out.page(/** @type {string} */ (app.options.html), app.graph.data), 'text/html'),
        ),
      button('LaTeX', 'LaTeX formula', () => out.save(`${fn}.tex`, `${tex}\n`)),
      button('JSON', 'JSON data', () => out.save(`${fn}.json`, JSON.stringify(app.graph.data), 'application/json')),
    ),
    h('pre', { class: 'tex', tabindex: 0, 'aria-label': 'LaTeX of the formula' }, cut(tex, 2000)),
    say,
  );
}

const KEYS = [
  ['← →', 'step back, step on'],
  ['Home End', 'to the start, to the end'],
  ['Space', 'play, pause'],
  ['F R', 'forward, reverse'],
  ['1 … 9', 'input'],
  ['Shift 1 … 9', 'output'],
  ['P', 'practice'],
  ['T', 'dark, light'],
  ['/', 'search'],
  ['E', 'export'],
  ['O', 'only what lies between'],
  ['+ − 0', 'zoom in, out, fit'],
  ['Ctrl wheel', 'zoom'],
  ['arrows on Δx or g', 'move it by 0.02'],
  ['Enter', 'on an edge, a cell, a component: what a click does'],
];
/** @param {App} app */
export function help(app) {
  open(
    app,
    'Keys',
    h(
      'dl',
      { class: 'kv keys-list' },
      KEYS.map(([k, t]) => [h('dt', null, h('kbd', null, k)), h('dd', null, t)]),
    ),
    h(
      'p',
      { class: 'note' },
      'Blue is pushed forward from the input, orange is pulled back from the output; green and purple are signs. Rows are outputs, columns are inputs.',
    ),
  );
}

/** x, Δx: to type; x can only move where something evaluates the function. @param {App} app */
export function point(app) {
  const x = app.graph.point(),
    few = Math.min(x.length, 64),
    live = !!app.evaluate && app.graph.whole,
    next = x.slice();
  /** @type {any} */ let wait = 0;
  const soon = () => {
    clearTimeout(wait);
    wait = setTimeout(() => app.move(next), 60);
  };
  const rows = Array.from({ length: few }, (_, k) => {
    const [n, q] = app.graph.input(k),
      label = n ? component(n, q) : String(k + 1);
    const box = h('input', {
      type: 'number',
      step: 'any',
      value: String(x[k]),
      disabled: !live,
      'aria-label': `value of ${cut(label, 30)}`,
      'data-x': k,
      oninput: (/** @type {any} */ e) => {
        const v = Number(e.target.value);
        if (e.target.value !== '' && Number.isFinite(v)) {
          next[k] = v;
          slide.value = String(v);
          soon();
        }
      },
    });
    const slide = h('input', {
      type: 'range',
      min: x[k] - 2,
      max: x[k] + 2,
      step: 0.01,
      value: x[k],
      disabled: !live,
      'aria-label': `slide ${cut(label, 30)}`,
      oninput: (/** @type {any} */ e) => {
        next[k] = Number(e.target.value);
        box.value = e.target.value;
        soon();
      },
    });
    const d = h('input', {
      type: 'number',
      step: 'any',
      value: String(app.S.dx[k]),
      'aria-label': `delta of ${cut(label, 30)}`,
      'data-dx': k,
      oninput: (/** @type {any} */ e) => {
        const v = Number(e.target.value);
        if (Number.isFinite(v)) {
          app.S.dx = app.S.dx.slice();
          app.S.dx[k] = v;
          app.draw();
        }
      },
    });
    return h(
      'div',
      { class: 'xrow' },
      n ? name(n.symbol, index(n.shape, q)) : label,
      box,
      slide,
      h('span', { class: 'fwd' }, 'Δ'),
      d,
    );
  });
  open(
    app,
    'The point',
    live
      ? h('p', { class: 'sub' }, 'Type or slide: the function is evaluated anew.')
      : app.evaluate
        ? h(
            'p',
            { class: 'sub', 'data-why': '' },
            'x is too large to be in this page in full, so it cannot be moved from here.',
          )
        : h(
            'p',
            { class: 'sub', 'data-why': '' },
            'This is a snapshot: x cannot move, because nothing here can evaluate the function. Open it live in a notebook, or with “chainrule explore”. Δx can be changed: pushing it needs only the Jacobians, which are in the page.',
          ),
    rows,
    x.length > few && h('p', { class: 'sub' }, `${x.length - few} more components are not shown.`),
  );
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
  const q = n.summary;
  const d = open(
    app,
    `${cut(n.name, 40)} (${n.shape.join('×')})`,
    !v &&
      h(
        'p',
        { class: 'sub num' },
        `min ${fmt(Number(q.min))} · mean ${fmt(Number(q.mean))} · max ${fmt(Number(q.max))} · norm ${fmt(Number(q.norm))}`,
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
