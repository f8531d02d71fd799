// @ts-check
// The fixed parts of the page and what the user does to them: header, cards, transport, keys, zoom and pan.
import { h, s } from './dom.js';
import { LEGEND, glyph } from './glyphs.js';
import { header, lesson, segment, sync, theme } from './header.js';
import { pointer } from './input.js';
import { ICONS, control, icon } from './transport.js';

/** @typedef {import('./app.js').App} App */

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
