// @ts-check
// The fixed parts of the page and what the user does to them: header, cards, transport, keys, zoom and pan.
import { h, s, fmt, big, cut, italic } from './dom.js';
import { glyph, LEGEND } from './glyphs.js';
import { blocks } from './geometry.js';
import { control, setStep, stop, icon, ICONS } from './transport.js';
import * as dialogs from './dialogs.js';

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
const segment = (/** @type {string} */ label, /** @type {any} */ attrs, /** @type {any[]} */ ...children) =>
  h('div', { class: 'seg', role: 'group', 'aria-label': label, ...attrs }, children);
const LIFE = { kernel: ['live', 'JAX kernel'], server: ['live', 'local server'], snapshot: ['snapshot', 'no kernel'] };

/** @param {App} app */
export function skeleton(app) {
  const ui = /** @type {any} */ ({});
  ui.svg = s('svg', { id: 'canvas', viewBox: '0 0 960 442', role: 'group', 'aria-label': 'Computational graph' });
  ui.map = s('svg', {
    class: 'minimap',
    'aria-hidden': 'true',
    hidden: true,
    onpointerdown: (/** @type {PointerEvent} */ e) => {
      const r = ui.map.getBoundingClientRect(),
        b = app.S.box;
      app.pan(
        b.x + b.w / 2 - ((e.clientX - r.left) / r.width) * app.extent.w,
        b.y + b.h / 2 - ((e.clientY - r.top) / r.height) * app.extent.h,
      );
    },
  });
  ui.cap = h('div', { class: 'cap', 'aria-live': 'polite' });
  ui.ticks = h('div', { class: 'ticks', role: 'group', 'aria-label': 'Steps' });
  ui.pane = h('div', { class: 'pad', id: 'pane', role: 'tabpanel', 'aria-labelledby': 'tab-e' });
  ui.cost = h('div', { class: 'pad' });
  ui.geo = h('div', null);
  ui.said = h('div', { class: 'vh', role: 'status', 'aria-live': 'polite' });
  ui.dialogs = h('div', null);
  ui.warning = h('div', { class: 'warning', role: 'alert', hidden: true });
  ui.warn = (/** @type {string} */ text) => {
    ui.warning.hidden = false;
    ui.warning.textContent = text;
  };
  ui.root = h(
    'main',
    { class: 'app' },
    header(app, ui),
    lesson(app),
    ui.warning,
    h(
      'div',
      { class: 'grid' },
      h('div', { class: 'left-side' }, graphCard(app, ui), costCard(app, ui)),
      h('div', { class: 'right-side' }, inspector(app, ui), geometryCard(app, ui), legendCard()),
    ),
    ui.said,
    ui.dialogs,
  );
  ui.shell = h('div', { class: 'root', 'data-theme': 'light' }, ui.root);
  app.root.append(ui.shell);
  ui.sync = () => sync(app, ui);
  theme(app, ui, matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light');
  pointer(app, ui);
  return ui;
}

/** @param {App} app @param {any} ui @param {string} t */
export function theme(app, ui, t) {
  ui.shell.dataset.theme = t;
  /** @type {HTMLElement} */ (app.root.host).dataset.theme = t;
  ui.theme.replaceChildren(t === 'dark' ? 'Light' : 'Dark', h('kbd', null, 'T'));
}

/** @param {App} app @param {any} ui */
function header(app, ui) {
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
    h('span', { class: 'sp' }),
    ui.levels,
    tool('Search', '/', () => dialogs.search(app)),
    tool('Export', 'E', () => dialogs.exporting(app)),
    ui.theme,
    h(
      'button',
      { class: 'tool', 'data-f': 'help', 'aria-label': 'Keyboard help', onclick: () => dialogs.help(app) },
      '?',
    ),
  );
}

/** What a worked example is about, and what comes before and after it. @param {App} app */
function lesson(app) {
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

/** @param {App} app @param {any} ui */
function graphCard(app, ui) {
  const button = (/** @type {string} */ key, /** @type {string} */ label) =>
    h(
      'button',
      { 'data-k': key, 'data-f': `k:${key}`, 'aria-label': label, onclick: () => control(app, key) },
      icon(/** @type {any} */ (ICONS)[key]),
    );
  ui.modes = [
    h(
      'button',
      {
        'data-c': 'f',
        'data-mode': 'f',
        'data-f': 'mode:f',
        onclick: () => {
          app.S.mode = 'f';
          app.draw();
        },
      },
      'Forward ',
      h('span', { class: 'm' }, '𝐽Δ𝑥'),
    ),
    h(
      'button',
      {
        'data-c': 'r',
        'data-mode': 'r',
        'data-f': 'mode:r',
        onclick: () => {
          app.S.mode = 'r';
          app.draw();
        },
      },
      'Reverse ',
      h('span', { class: 'm' }, '𝐽', h('sup', null, '⊤'), '𝑔'),
    ),
  ];
  ui.play = h('button', {
    class: 'play',
    'data-k': 'play',
    'data-f': 'k:play',
    'aria-label': 'Play',
    onclick: () => control(app, 'play'),
  });
  ui.speeds = [
    [0.25, '¼×'],
    [0.5, '½×'],
    [1, '1×'],
    [2, '2×'],
  ].map(([v, t]) =>
    h(
      'button',
      {
        'data-s': v,
        'data-f': `speed:${v}`,
        'aria-pressed': v === 1 ? 'true' : 'false',
        onclick: () => {
          app.S.speed = v;
          ui.speeds.forEach((/** @type {any} */ b) =>
            b.setAttribute('aria-pressed', String(Number(b.dataset.s) === v)),
          );
        },
      },
      t,
    ),
  );
  ui.only = h(
    'button',
    {
      class: 'small',
      'data-f': 'only',
      'aria-pressed': 'false',
      onclick: () => {
        app.S.only = !app.S.only;
        app.draw();
      },
    },
    'only between',
  );
  ui.outline = h('div', { class: 'outline', hidden: true });
  const zoom = segment(
    'Zoom',
    { class: 'seg zoom' },
    h('button', { 'data-f': 'zoom-', 'aria-label': 'Zoom out', onclick: () => app.zoom(1 / 1.25) }, '−'),
    h('button', { 'data-f': 'zoom0', 'aria-label': 'Fit', onclick: () => app.fit() }, '⤢'),
    h('button', { 'data-f': 'zoom+', 'aria-label': 'Zoom in', onclick: () => app.zoom(1.25) }, '+'),
  );
  return h(
    'section',
    { class: 'card', 'aria-labelledby': 'h-graph' },
    h(
      'div',
      { class: 'hd' },
      h('h2', { id: 'h-graph' }, 'Computational graph'),
      h('span', { class: 'sub hint' }, 'click an edge, a matrix cell or a component'),
      h('span', { class: 'sp' }),
      h(
        'span',
        { class: 'sub dirs' },
        h('span', { class: 'fwd' }, '━▶ Δ pushed forward'),
        ' ',
        h('span', { class: 'rev' }, '◀╍ ∇ pulled back'),
      ),
      ui.only,
      zoom,
    ),
    ui.outline,
    h('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'The graph, drawn' }, ui.svg, ui.map),
    ui.cap,
    h(
      'div',
      { class: 'transport' },
      segment('Sweep', {}, ui.modes),
      h(
        'div',
        { class: 'keys', role: 'group', 'aria-label': 'Play controls' },
        button('first', 'To the start'),
        button('prev', 'Step back'),
        ui.play,
        button('next', 'Step on'),
        button('last', 'To the end'),
      ),
      ui.ticks,
      segment('Speed', {}, ui.speeds),
    ),
  );
}

/** @param {App} app @param {any} ui */
function costCard(app, ui) {
  ui.sizes = [
    [false, 'this function'],
    [true, '10⁶ → 10 × 10³ → 1'],
  ].map(([v, t]) =>
    h(
      'button',
      {
        'data-f': `size:${v}`,
        'aria-pressed': v ? 'false' : 'true',
        onclick: () => {
          app.S.large = v;
          app.draw();
        },
      },
      t,
    ),
  );
  return h(
    'section',
    { class: 'card bottom', 'aria-labelledby': 'h-cost' },
    h(
      'div',
      { class: 'hd' },
      h('h2', { id: 'h-cost' }, 'Cost of each order'),
      h('span', { class: 'sp' }),
      segment('Sizes', {}, ui.sizes),
    ),
    ui.cost,
  );
}

/** @param {App} app @param {any} ui */
function inspector(app, ui) {
  const tab = (/** @type {string} */ id, /** @type {string} */ text) =>
    h(
      'button',
      {
        role: 'tab',
        id: `tab-${id}`,
        'data-f': `tab-${id}`,
        'aria-controls': 'pane',
        'aria-selected': id === 'e' ? 'true' : 'false',
        tabindex: id === 'e' ? 0 : -1,
        onclick: () => setTab(app, id),
        onkeydown: (/** @type {KeyboardEvent} */ e) => {
          if (/Arrow(Left|Right)/.test(e.key)) {
            e.preventDefault();
            e.stopPropagation();
            setTab(app, app.S.tab === 'e' ? 'p' : 'e');
            ui.tabs[app.S.tab === 'e' ? 0 : 1].focus();
          }
        },
      },
      text,
    );
  ui.tabs = [tab('e', 'Explore'), tab('p', 'Practice')];
  ui.pair = h('div', { class: 'pair' });
  return h(
    'section',
    { class: 'card', 'aria-label': 'Inspector' },
    h(
      'div',
      { class: 'hd' },
      h('div', { class: 'seg', role: 'tablist', 'aria-label': 'Inspector' }, ui.tabs),
      h('span', { class: 'sp' }),
      ui.pair,
    ),
    ui.pane,
  );
}
/** @param {App} app @param {string} t */
export function setTab(app, t) {
  app.S.tab = t;
  app.draw();
}

/** @param {App} app @param {any} ui */
function geometryCard(app, ui) {
  ui.blocks = segment('Block', {});
  return h(
    'section',
    { class: 'card bottom', 'aria-labelledby': 'h-geo' },
    h(
      'div',
      { class: 'hd' },
      h('h2', { id: 'h-geo' }, 'The map near the point'),
      h('span', { class: 'sp' }),
      ui.blocks,
    ),
    ui.geo,
  );
}
const legendCard = () =>
  h(
    'section',
    { class: 'card bottom', 'aria-labelledby': 'h-gl' },
    h(
      'div',
      { class: 'hd' },
      h('h2', { id: 'h-gl' }, 'Structure glyphs'),
      h('span', { class: 'sub' }, 'stored, multiplied and drawn as what they are'),
    ),
    h(
      'div',
      { class: 'glyphs' },
      LEGEND.map(([k, n]) => h('span', { class: 'g' }, glyph(k, 20), h('span', null, n))),
    ),
  );

/** What the header and the switches show of the state. @param {App} app @param {any} ui */
function sync(app, ui) {
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
  ui.pair.replaceChildren(...dialogs.pair(app));
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
function outline(app, ui) {
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

/** Dragging the ground pans, the wheel with Ctrl zooms, the keys do what the help says. @param {App} app @param {any} ui */
function pointer(app, ui) {
  const scale = () => app.S.box.w / (ui.svg.getBoundingClientRect().width || 1);
  /** @type {[number, number] | null} */ let from = null;
  ui.svg.addEventListener('pointerdown', (/** @type {PointerEvent} */ e) => {
    if (e.button === 0 && !(/** @type {Element} */ (e.target).closest('[role=button],.jcell,.row'))) {
      from = [e.clientX, e.clientY];
      ui.svg.setPointerCapture(e.pointerId);
    }
  });
  ui.svg.addEventListener('pointermove', (/** @type {PointerEvent} */ e) => {
    if (from) {
      const k = scale();
      app.pan((e.clientX - from[0]) * k, (e.clientY - from[1]) * k);
      from = [e.clientX, e.clientY];
    }
  });
  for (const end of ['pointerup', 'pointercancel'])
    ui.svg.addEventListener(end, () => {
      from = null;
    });
  ui.svg.addEventListener(
    'wheel',
    (/** @type {WheelEvent} */ e) => {
      if (!e.ctrlKey && !e.metaKey) return;
      e.preventDefault();
      const r = ui.svg.getBoundingClientRect();
      app.zoom(Math.exp(-e.deltaY / 300), (e.clientX - r.left) / r.width, (e.clientY - r.top) / r.height);
    },
    { passive: false },
  );
  const keys = (/** @type {KeyboardEvent} */ e) => key(app, ui, e);
  const where = app.options.html ? window : app.root;
  where.addEventListener('keydown', /** @type {any} */ (keys));
}

/** @param {App} app @param {any} ui @param {KeyboardEvent} e */
function key(app, ui, e) {
  const target = /** @type {HTMLElement} */ (e.composedPath()[0]);
  if (
    /INPUT|SELECT|TEXTAREA/.test(target.tagName ?? '') ||
    e.metaKey ||
    e.ctrlKey ||
    e.altKey ||
    ui.dialogs.querySelector('dialog[open]')
  )
    return;
  const digit = /^Digit([1-9])$/.exec(e.code)?.[1];
  if (digit) {
    if (e.shiftKey) app.pick(Number(digit) - 1, -1);
    else app.pick(-1, Number(digit) - 1);
    return;
  }
  const S = app.S,
    run = /** @type {Record<string, () => void>} */ ({
      ArrowRight: () => control(app, 'next'),
      ArrowLeft: () => control(app, 'prev'),
      Home: () => control(app, 'first'),
      End: () => control(app, 'last'),
      f: () => {
        S.mode = 'f';
        app.draw();
      },
      r: () => {
        S.mode = 'r';
        app.draw();
      },
      p: () => setTab(app, S.tab === 'e' ? 'p' : 'e'),
      t: () => ui.theme.click(),
      '/': () => dialogs.search(app),
      e: () => dialogs.exporting(app),
      '?': () => dialogs.help(app),
      '+': () => app.zoom(1.25),
      '-': () => app.zoom(0.8),
      0: () => app.fit(),
      o: () => {
        S.only = !S.only;
        app.draw();
      },
    })[e.key.length === 1 ? e.key.toLowerCase() : e.key];
  if (run) {
    e.preventDefault();
    run();
    return;
  }
  if (e.key === ' ' && !target.closest?.('button,[role=button]')) {
    e.preventDefault();
    control(app, 'play');
  }
}
