// @ts-check
// What opens above the page: search, export, help, the point, one Jacobian, the components of a long value.
import * as out from './export.js';
import { cut, h, name } from './dom.js';
import { component, index } from './graph.js';

/** @typedef {import('./app.js').App} App */
/** @typedef {import('./graph.js').Value} Value */

/** @param {App} app @param {string} title @param {any[]} body */
export function open(app, title, ...body) {
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
