// @ts-check
// One module for every host: mount(el, {data, evaluate}) for a page, default {render} for anywidget.
import css from './page.css';
import drawing from './canvas.css';
import font from './font.woff2';
import { App } from './app.js';

let fonted = false;
/** The mathematical letters, for the document: a shadow root cannot declare a font. */
function addFont() {
  if (fonted) return;
  fonted = true;
  try {
    const bytes = Uint8Array.from(atob(font), (c) => c.charCodeAt(0));
    document.fonts.add(new FontFace('CR Math', bytes));
  } catch {
    /* the system's mathematics font will do */
  }
}

/**
 * @param {Element} el @param {{data: any, evaluate?: any, life?: string, html?: string}} options
 *   `evaluate(x)` gives the explanation at another point, `evaluate.points(list)` the values of the function at some.
 */
export function mount(el, options) {
  addFont();
  const root = el.shadowRoot ?? el.attachShadow({ mode: 'open' });
  const style = document.createElement('style');
  style.textContent = css + drawing;
  root.replaceChildren(style);
  if (options.data?.schema !== 'chainrule/explanation' || options.data.version !== 1) {
    const p = document.createElement('p');
    p.textContent = options.data
      ? `This page shows version 1 of chainrule/explanation, not ${String(options.data.version).slice(0, 20)}.`
      : 'There is no explanation in this page.';
    root.append(p);
    return null;
  }
  return new App(root, { ...options, css: drawing, font });
}

/** Asks the local server. @param {{url: string, headers?: Record<string, string>}} live */
function ask(live) {
  const post = async (/** @type {any} */ body) => {
    const r = await fetch(live.url, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', ...live.headers },
      body: JSON.stringify(body),
    });
    if (!r.ok) throw new Error(`the server answered ${r.status}`);
    return r.json();
  };
  /** @type {any} */
  const evaluate = (/** @type {number[]} */ x) => post({ x });
  let light = true;
  evaluate.points = async (/** @type {number[][]} */ points) => {
    if (light) {
      try {
        const out = await post({ points });
        if (out.values) return out.values;
      } catch {
        /* a server without it */
      }
      light = false;
      evaluate.points = undefined;
    }
    throw new Error('the server evaluates no lists of points');
  };
  return evaluate;
}

/** anywidget: requests and replies travel as two traits. */
export default {
  /** @param {{model: any, el: Element}} host */
  render({ model, el }) {
    let last = 0;
    const waiting = new Map();
    const post = (/** @type {any} */ body) =>
      new Promise((done) => {
        const id = ++last;
        waiting.set(id, done);
        model.set('request', { id, ...body });
        model.save_changes();
      });
    model.on('change:reply', () => {
      const r = model.get('reply');
      waiting.get(r?.id)?.(r);
      waiting.delete(r?.id);
    });
    /** @type {any} */
    const evaluate = async (/** @type {number[]} */ x) => {
      const r = await post({ x });
      return r.data ?? r;
    };
    evaluate.points = async (/** @type {number[][]} */ points) => (await post({ points })).values;
    const app = mount(el, { data: model.get('data'), evaluate, life: 'kernel' });
    model.on('change:data', () => app?.load(model.get('data')));
    model.on('change:data', () => app?.draw());
  },
};

const slot = typeof document === 'undefined' ? null : document.getElementById('data'),
  place = slot && document.getElementById('app');
if (slot && place && !place.shadowRoot) {
  const html = `<!doctype html>\n${document.documentElement.outerHTML}`;
  /** @type {any} */
  let data = null,
    live = null;
  try {
    data = JSON.parse(slot.textContent || 'null');
    live = JSON.parse(document.getElementById('live')?.textContent || 'null');
  } catch {
    /* said by mount */
  }
  const hosted = /** @type {any} */ (globalThis).chainruleHost;
  const app = mount(place, {
    data,
    html,
    evaluate: hosted?.evaluate ?? (live ? ask(live) : null),
    life: hosted?.life ?? (live ? 'server' : 'snapshot'),
  });
  if (data?.function?.name) document.title = `${String(data.function.name).slice(0, 60)} · chainrule`;
  /** @type {any} */ (place).explorer = app;
}
