// @ts-check
// What can be taken away: a picture as SVG or PNG, the page, the formula, the data.
import { indexLetter } from './derive.js';
import { s } from './dom.js';

/** @typedef {import('./app.js').App} App */

const TOKENS = [
  '--paper',
  '--card',
  '--well',
  '--ink',
  '--ink2',
  '--ink3',
  '--line',
  '--line2',
  '--fwd',
  '--rev',
  '--pos',
  '--neg',
  '--hi',
  '--focus',
  '--sans',
  '--mono',
  '--math',
];

/** The drawing as a file of its own: its tokens, its rules and its font go with it. @param {SVGElement} svg @param {Element} root @param {string} css @param {string} font */
export function svgText(svg, root, css, font, extent = { w: 960, h: 440 }) {
  const copy = /** @type {SVGElement} */ (svg.cloneNode(true)),
    style = getComputedStyle(root);
  copy.setAttribute('xmlns', 'http://www.w3.org/2000/svg');
  copy.setAttribute('viewBox', `0 0 ${extent.w} ${extent.h}`);
  copy.setAttribute('width', String(extent.w));
  copy.setAttribute('height', String(extent.h));
  copy.querySelectorAll('.hit').forEach((n) => n.remove());
  copy.querySelectorAll('[tabindex]').forEach((n) => n.removeAttribute('tabindex'));
  const tokens = TOKENS.map((t) => `${t}:${style.getPropertyValue(t).trim()}`).join(';');
  copy.prepend(
    s(
      'style',
      null,
      `@font-face{font-family:"CR Math";src:url(data:font/woff2;base64,${font})}\nsvg{${tokens};background:var(--card);color:var(--ink)}\n${css}`,
    ),
  );
  return new XMLSerializer().serializeToString(copy);
}

/** Twice the size, drawn from the SVG. @param {string} text @param {{w: number, h: number}} extent @returns {Promise<Blob>} */
export async function png(text, extent, scale = 2) {
  const image = new Image();
  const url = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await new Promise((done, fail) => {
    image.onload = done;
    image.onerror = () => fail(new Error('the picture could not be drawn'));
    image.src = url;
  });
  const k = Math.min(scale, 16000 / Math.max(extent.w, extent.h, 1)),
    canvas = document.createElement('canvas');
  canvas.width = Math.round(extent.w * k);
  canvas.height = Math.round(extent.h * k);
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d'));
  pen.drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done, fail) => canvas.toBlob((b) => (b ? done(b) : fail(new Error('no picture'))), 'image/png'));
}

const tex = (/** @type {string} */ t) =>
  t.replace(/[\\{}$&#^_%~]/g, (c) =>
    c === '\\' ? '\\textbackslash{}' : c === '~' ? '\\textasciitilde{}' : c === '^' ? '\\textasciicircum{}' : `\\${c}`,
  );

/** ∂y/∂x as LaTeX, as a sum over the ways of the picked entry. @param {import('./app.js').App} app */
export function latex(app) {
  const { source, target, i, j, ways, J } = app.C,
    told = (app.graph.data.formulas?.entries ?? []).find(
      (/** @type {any} */ e) => e.i === app.S.i && e.j === app.S.j,
    )?.latex;
  if (told) return String(told);
  if (!source || !target) return '';
  const name = (/** @type {any} */ n) => n.latex || `\\mathrm{${tex(n.symbol)}}`,
    at = (/** @type {any} */ n, /** @type {string} */ k) => (n.size > 1 ? `{${name(n)}}_{${k}}` : name(n));
  const term = (/** @type {any[]} */ way) => {
    const letter = new Map(way.slice(0, -1).map((e, q) => [e.to.id, indexLetter(app, q)])),
      val = (/** @type {any} */ n) =>
        n === source ? at(n, String(j + 1)) : n === target ? at(n, String(i + 1)) : at(n, letter.get(n.id) ?? 'k');
    const sums = way
      .slice(0, -1)
      .filter((e) => e.to.size > 1)
      .map((e) => `\\sum_{${letter.get(e.to.id)}=1}^{${e.to.size}}`)
      .join(' ');
    return `${sums} ${[...way]
      .reverse()
      .map((e) => `\\frac{\\partial ${val(e.to)}}{\\partial ${val(e.from)}}`)
      .join(' ')}`;
  };
  return `\\frac{\\partial ${at(target, String(i + 1))}}{\\partial ${at(source, String(j + 1))}} = ${ways.map(term).join(' + ') || '0'}${J == null ? '' : ` = ${J}`}`;
}

/** @param {string} file @param {Blob | string} what @param {string} [type] */
export function save(file, what, type = 'text/plain') {
  const blob = what instanceof Blob ? what : new Blob([what], { type }),
    a = document.createElement('a');
  a.href = URL.createObjectURL(blob);
  a.download = file;
  a.click();
  setTimeout(() => URL.revokeObjectURL(a.href), 10000);
}

/** The page with other data in it. @param {string} html @param {any} data */
export function page(html, data) {
  const text = JSON.stringify(data)
    .replace(/</g, '\\u003c')
    .replace(/\u2028/g, '\\u2028')
    .replace(/\u2029/g, '\\u2029');
  return html
    .replace(/(<script type="application\/json" id="data">)[\s\S]*?(<\/script>)/, (_, a, b) => a + text + b)
    .replace(/(<script type="application\/json" id="live">)[\s\S]*?(<\/script>)/, (_, a, b) => `${a}null${b}`);
}
