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

/** What asks for other points, of a host that answers {x} and {points}. @param {(body: any) => Promise<any>} post */
function asking(post) {
  /** @type {any} */
  const evaluate = (/** @type {number[]} */ x) => post({ x });
  evaluate.points = async (/** @type {number[][]} */ points) => {
    const out = await post({ points }).catch(() => ({}));
    if (out.values) return out.values;
    evaluate.points = undefined;
    throw new Error('no lists of points are evaluated here');
  };
  return evaluate;
}

/** The local server. @param {{url: string, headers?: Record<string, string>}} live */
const server = (live) =>
  asking(async (body) => {
    const r = await fetch(live.url, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', ...live.headers },
      body: JSON.stringify(body),
    });
    if (!r.ok) throw new Error(`the server answered ${r.status}`);
    return r.json();
  });

/** anywidget: requests and answers are messages with a number. */
export default {
  /** @param {{model: any, el: Element}} host */
  render({ model, el }) {
    let last = 0;
    const waiting = new Map();
    model.on('msg:custom', (/** @type {any} */ r) => {
      waiting.get(r?.id)?.(r.answer);
      waiting.delete(r?.id);
    });
    const evaluate = asking(
      (body) =>
        new Promise((done) => {
          waiting.set(++last, done);
          model.send({ id: last, ...body });
        }),
    );
    mount(el, { data: model.get('data'), evaluate, life: 'kernel' });
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
    evaluate: hosted?.evaluate ?? (live ? server(live) : null),
    life: hosted?.life ?? (live ? 'server' : 'snapshot'),
  });
  if (data?.function?.name) document.title = `${String(data.function.name).slice(0, 60)} · chainrule`;
  /** @type {any} */ (place).explorer = app;
}
