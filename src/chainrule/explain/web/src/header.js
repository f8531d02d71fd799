// @ts-check
// The head of the page, the lesson it belongs to, the outline of its groups, and what the switches show.
import * as dialogs from './dialogs.js';
import * as details from './details.js';
import { big, cut, fmt, h, italic, s } from './dom.js';
import { blocks } from './geometry.js';

/** @typedef {import('./app.js').App} App */

const logo = () =>
  s(
    'svg',
    { width: 22, height: 22, viewBox: '0 0 22 22', 'aria-hidden': 'true' },
    s('path', { d: 'M2 11h4M16 11h4', stroke: 'currentColor', 'stroke-width': 1.6 }),
    s('path', { d: 'M6 11C9 3 13 3 16 11', fill: 'none', stroke: 'var(--fwd)', 'stroke-width': 2 }),
    s('path', {
      d: 'M6 11C9 19 13 19 16 11',
      fill: 'none',
      stroke: 'var(--rev)',
      'stroke-width': 2,
      'stroke-dasharray': '3 2',
    }),
  );

export const segment = (/** @type {string} */ label, /** @type {any} */ attrs, /** @type {any[]} */ ...children) =>
  h('div', { class: 'seg', role: 'group', 'aria-label': label, ...attrs }, children);

const LIFE = { kernel: ['live', 'notebook kernel'], server: ['live', 'local server'], snapshot: ['snapshot', 'no kernel'] };

/** @param {App} app @param {any} ui @param {string} t */
export function theme(app, ui, t) {
  ui.shell.dataset.theme = t;
  /** @type {HTMLElement} */ (app.root.host).dataset.theme = t;
  ui.theme.replaceChildren(t === 'dark' ? 'Light' : 'Dark', h('kbd', null, 'T'));
}

/** @param {App} app @param {any} ui */
export function header(app, ui) {
  const g = app.graph,
    tool = (/** @type {string} */ text, /** @type {string} */ key, /** @type {() => void} */ act) =>
      h('button', { class: 'tool', 'data-f': `tool:${text}`, onclick: act }, text, h('kbd', null, key));
  const [word, where] = /** @type {any} */ (LIFE)[app.life] ?? LIFE.snapshot;
  ui.theme = h('button', {
    class: 'tool',
    'data-f': 'tool:theme',
    onclick: () => theme(app, ui, ui.shell.dataset.theme === 'dark' ? 'light' : 'dark'),
  });
  ui.point = h('button', { class: 'chip', 'data-f': 'point', onclick: () => dialogs.point(app) });
  ui.levels = segment(
    'Level of detail',
    {},
    [
      ['m', 'Modules'],
      ['o', 'Operations'],
      ['c', 'Components'],
    ].map(([id, text]) =>
      h(
        'button',
        { 'data-level': id, 'data-f': `level-${id}`, 'aria-pressed': 'false', onclick: () => detail(app, id) },
        text,
      ),
    ),
  );
  const f = g.data.function ?? {};
  return h(
    'header',
    null,
    h('h1', { class: 'brand' }, logo(), 'chainrule'),
    h(
      'span',
      { class: 'fn', title: cut(`${f.name ?? ''}${f.file ? ` · ${f.file}:${f.line}` : ''}`, 300) },
      h('bdi', null, cut(italic(String(f.name ?? 'f')), 32)),
      ' : ',
      'ℝ',
      h('sup', null, String(g.n)),
      ' → ℝ',
      h('sup', null, String(g.m)),
    ),
    ui.point,
    h(
      'span',
      {
        class: `chip life ${app.life}`,
        title:
          app.life === 'snapshot'
            ? 'Pushing, pulling, paths and costs work here; moving x needs a kernel or the local server.'
            : null,
      },
      h('span', { class: 'dot' }),
      h('b', null, word),
      where,
    ),
    h(
      'div',
      { class: 'tools' },
      ui.levels,
      tool('Search', '/', () => dialogs.search(app)),
      tool('Export', 'E', () => dialogs.exporting(app)),
      ui.theme,
      h(
        'button',
        { class: 'tool', 'data-f': 'help', 'aria-label': 'Keyboard help', onclick: () => dialogs.help(app) },
        '?',
      ),
    ),
  );
}

/** What a worked example is about, and what comes before and after it. @param {App} app */
export function lesson(app) {
  const l = app.graph.data.lesson;
  if (!l) return null;
  const ids = (/** @type {any} */ list) =>
    cut((Array.isArray(list) ? list : [list]).filter(Boolean).map(String).join(', '), 60);
  return h(
    'section',
    { class: 'card lesson', 'aria-label': 'Lesson' },
    h('h2', null, `${cut(String(l.id ?? ''), 12)} · ${cut(String(l.title ?? ''), 90)}`),
    h('p', null, cut(String(l.text ?? ''), 900)),
    h('p', { class: 'sub' }, ids(l.needs) && `before: ${ids(l.needs)} `, ids(l.next) && `next: ${ids(l.next)}`),
  );
}

/** Modules are folded groups; operations are values; components show their numbers. @param {App} app @param {string} id */
export function detail(app, id) {
  app.S.level = id;
  if (id === 'm') app.foldAll(true);
  else if (app.graph.nodes.length <= 400) app.foldAll(false);
  app.draw();
}

/** What the header and the switches show of the state. @param {App} app @param {any} ui */
export function sync(app, ui) {
  const { S, graph } = app,
    x = graph.point();
  const numbers = !graph.whole
    ? graph.inputs.map((/** @type {any} */ i) => i.shape.join('×')).join(', ')
    : x.length <= 4
      ? x.map((/** @type {number} */ v) => fmt(v, 2)).join(', ')
      : `${x
          .slice(0, 2)
          .map((/** @type {number} */ v) => fmt(v, 2))
          .join(', ')}, … ${x.length}`;
  ui.point.replaceChildren(
    'point ',
    h(
      'b',
      { class: 'num' },
      h('span', { class: 'm' }, graph.inputs.length === 1 ? italic(cut(String(graph.inputs[0].name ?? 'x'), 8)) : '𝑥'),
      ` = (${numbers})`,
    ),
  );
  ui.levels
    .querySelectorAll('button')
    .forEach((/** @type {any} */ b) => b.setAttribute('aria-pressed', String(b.dataset.level === S.level)));
  ui.tabs.forEach((/** @type {any} */ b, /** @type {number} */ k) => {
    const on = (k === 0) === (S.tab === 'e');
    b.setAttribute('aria-selected', String(on));
    b.tabIndex = on ? 0 : -1;
  });
  ui.pane.setAttribute('aria-labelledby', S.tab === 'e' ? 'tab-e' : 'tab-p');
  ui.pair.hidden = S.tab !== 'e';
  ui.pair.replaceChildren(...details.pair(app));
  ui.sizes.forEach((/** @type {any} */ b, /** @type {number} */ k) =>
    b.setAttribute('aria-pressed', String((k === 1) === S.large)),
  );
  ui.blocks.replaceChildren(
    ...blocks(app).map((b) =>
      h(
        'button',
        {
          'data-b': b.id,
          'data-f': `block:${b.id}`,
          class: 'm',
          'aria-pressed': b.id === S.block ? 'true' : 'false',
          onclick: () => {
            S.block = b.id;
            app.draw();
          },
        },
        b.label,
      ),
    ),
  );
  ui.svg.setAttribute(
    'aria-label',
    `Computational graph: ${big(app.C.view.nodes.length)} values, ${big(app.C.view.edges.length)} Jacobians in sight`,
  );
  ui.only.hidden = app.graph.nodes.length <= 6;
  ui.only.setAttribute('aria-pressed', String(S.only));
  outline(app, ui);
}

/** The groups, to fold and unfold where they are many. @param {App} app @param {any} ui */
export function outline(app, ui) {
  const { graph } = app;
  ui.outline.hidden = !graph.groups.size;
  if (!graph.groups.size) return;
  const visible = [...graph.groups.values()].filter(
    (g) => !graph.parents(String(g.id)).some((p) => graph.folded.has(p)),
  );
  ui.outline.replaceChildren(
    h('span', { class: 'sub' }, 'Outline'),
    ...visible.slice(0, 80).map((g) => {
      const shut = graph.folded.has(String(g.id)),
        title = `${cut(String(g.symbol ?? g.name ?? 'group'), 22)}${g.times > 1 ? ` × ${g.times}` : ''}`;
      return h(
        'button',
        {
          class: 'small',
          'data-f': `out:${g.id}`,
          'aria-expanded': shut ? 'false' : 'true',
          title: cut(String(g.text ?? ''), 300),
          onclick: () => app.fold(String(g.id), !shut),
        },
        '› '.repeat(graph.parents(String(g.id)).length),
        shut ? '+ ' : '− ',
        title,
        h('span', { class: 'dim' }, ` ${g.size ?? ''}`),
      );
    }),
    ...(visible.length > 80 ? [h('span', { class: 'sub' }, `${visible.length - 80} more: search`)] : []),
  );
}
