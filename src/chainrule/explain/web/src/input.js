// @ts-check
// Dragging the ground pans, the wheel with Ctrl zooms, the keys do what the help says.
import * as dialogs from './dialogs.js';
import { setTab } from './skeleton.js';
import { control } from './transport.js';

/** @typedef {import('./app.js').App} App */

/** Dragging the ground pans, the wheel with Ctrl zooms, the keys do what the help says. @param {App} app @param {any} ui */
export function pointer(app, ui) {
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
export function key(app, ui, e) {
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
