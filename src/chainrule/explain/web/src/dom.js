// @ts-check
// Elements are made here and nowhere else: every text that comes from data goes in as a text node.


const SVG = 'http://www.w3.org/2000/svg';

const MATH = 'http://www.w3.org/1998/Math/MathML';

/**
 * @param {Element} el
 * @param {Record<string, any> | null} attrs
 * @param {any[]} children
 */
function fill(el, attrs, children) {
  for (const [key, value] of Object.entries(attrs ?? {})) {
    if (value == null || value === false) continue;
    if (key.startsWith('on')) el.addEventListener(key.slice(2), value);
    else if (key === 'style')
      for (const [k, v] of Object.entries(value)) /** @type {any} */ (el).style.setProperty(k, String(v));
    else el.setAttribute(key, value === true ? '' : String(value));
  }
  append(el, children);
  return el;
}

/** @param {Element} el @param {any[]} children */
export function append(el, children) {
  for (const child of children.flat(Infinity)) {
    if (child == null || child === false) continue;
    el.append(child instanceof Node ? child : String(child));
  }
  return el;
}

/** An HTML element. @returns {any} */
export const h = (/** @type {string} */ tag, /** @type {any} */ attrs = null, /** @type {any[]} */ ...children) =>
  fill(document.createElement(tag), attrs, children);

/** An SVG element. @returns {any} */
export const s = (/** @type {string} */ tag, /** @type {any} */ attrs = null, /** @type {any[]} */ ...children) =>
  fill(document.createElementNS(SVG, tag), attrs, children);

/** A MathML element. @returns {any} */
export const m = (/** @type {string} */ tag, /** @type {any} */ attrs = null, /** @type {any[]} */ ...children) =>
  fill(document.createElementNS(MATH, tag), attrs, children);

/** Enter and the space bar do what a click does. @param {(event: Event) => void} act */
export const press = (act) => ({
  onclick: act,
  onkeydown: (/** @type {KeyboardEvent} */ e) => {
    if (e.key === 'Enter' || e.key === ' ') {
      e.preventDefault();
      e.stopPropagation();
      act(e);
    }
  },
});

/** A number to read: a proper minus, d decimals while it is of ordinary size, else e and a power of ten. */
export function fmt(/** @type {number | null | undefined} */ v, d = 3, e = Math.min(2, d)) {
  if (v == null) return '·';
  if (Number.isNaN(v)) return 'NaN';
  if (!Number.isFinite(v)) return v > 0 ? '∞' : '−∞';
  const size = Math.abs(v);
  let text;
  if (size !== 0 && (size >= 1e5 || size < 0.5 * 10 ** -d))
    text = size.toExponential(e).replace('e+', 'e').replace('e-', 'e−');
  else text = size.toFixed(size >= 1000 ? Math.min(1, d) : size >= 100 ? Math.min(2, d) : d);
  return (v < 0 ? '−' : '') + text;
}

export const signed = (/** @type {number | null | undefined} */ v, d = 3) =>
  (v != null && v >= 0 ? '+' : '') + fmt(v, d);

const UP = '⁰¹²³⁴⁵⁶⁷⁸⁹';

/** A count to read: 12, 8.9·10³. */
export function big(/** @type {number | bigint | null | undefined} */ n) {
  if (n == null) return '?';
  const digits =
    typeof n === 'bigint' ? n.toString() : Math.abs(n) < 1e15 && Number.isInteger(n) ? String(n) : n.toExponential(3);
  if (typeof n !== 'bigint' && !Number.isInteger(n)) return fmt(n, 2);
  const value = typeof n === 'bigint' ? null : n;
  if (value != null && value < 1e5) return String(value);
  if (value == null && digits.length <= 5) return digits;
  const power = value == null ? digits.length - 1 : Math.floor(Math.log10(value));
  const lead =
    value == null ? Number(digits.slice(0, 4)) / 10 ** (Math.min(4, digits.length) - 1) : value / 10 ** power;
  return `${lead.toFixed(2).replace(/\.?0+$/, '')}·10${[...String(power)].map((q) => UP[+q]).join('')}`;
}

/** At most n characters, an ellipsis for the rest. */
export const cut = (/** @type {string} */ text, n = 14) =>
  [...text].length > n ? `${[...text].slice(0, n - 1).join('')}…` : text;

const GREEK = {
  alpha: '𝛼',
  beta: '𝛽',
  gamma: '𝛾',
  delta: '𝛿',
  epsilon: '𝜀',
  eps: '𝜀',
  eta: '𝜂',
  theta: '𝜃',
  lam: '𝜆',
  lambda_: '𝜆',
  mu: '𝜇',
  nu: '𝜈',
  xi: '𝜉',
  rho: '𝜌',
  sigma: '𝜎',
  tau: '𝜏',
  phi: '𝜑',
  psi: '𝜓',
  omega: '𝜔',
  ell: 'ℓ',
  loss: 'ℓ',
};

/** One letter of ASCII as a mathematical italic; anything else as it is. @param {string} c */
export function italic(c) {
  if (c === 'h') return 'ℎ';
  const code = c.charCodeAt(0);
  if (c.length === 1 && code >= 97 && code <= 122) return String.fromCodePoint(0x1d44e + code - 97);
  if (c.length === 1 && code >= 65 && code <= 90) return String.fromCodePoint(0x1d434 + code - 65);
  return /** @type {any} */ (GREEK)[c] ?? c;
}

/** A name as base and subscript: h2 is h with the subscript 2; h₂ is set as it stands. @param {string} name @returns {[string, string]} */
export function split(name) {
  const found = /^([A-Za-z])_?(\d{1,3})$/.exec(name) ?? /^([A-Za-z])_(\w{1,4})$/.exec(name);
  if (found) return [italic(found[1]), found[2]];
  const first = /^([A-Za-z])([₀-₉⁰-⁹¹²³⁽⁾′,‚]{1,8})$/.exec(name);
  return first ? [italic(first[1]) + first[2], ''] : [cut(italic(name)), ''];
}

/** A short formula in plain text: letters that stand alone become italics. @param {string} text */
export const formula = (text) => text.replace(/(?<![A-Za-z\d_])[A-Za-z](?![A-Za-z_])/g, italic);

/** The same as parts of an HTML line, with the sign of transposition raised. @param {string} text @returns {any[]} */
export const mathText = (text) =>
  formula(text)
    .split(/([ᵀ⊤])/)
    .map((t) => (/^[ᵀ⊤]$/.test(t) ? h('sup', null, '⊤') : t));

/** The same as parts of an SVG text. @param {string} text @returns {any[]} */
export const tmath = (text) =>
  formula(text)
    .split(/([ᵀ⊤])/)
    .filter(Boolean)
    .map((t, k, all) =>
      /^[ᵀ⊤]$/.test(t)
        ? s('tspan', { dy: '-0.35em', 'font-size': '0.68em' }, '⊤')
        : s('tspan', { dy: k && /^[ᵀ⊤]$/.test(all[k - 1]) ? '0.24em' : null }, t),
    );

/** The transpose of a factor, as it is written: cᵀ becomes c, a symmetric one stays. @param {string} label @param {string} kind */
export function turned(label, kind) {
  if (['diagonal', 'identity', 'scalar', 'diaglow', 'zero'].includes(kind)) return label;
  if (/^[^\s+−-]*[ᵀ⊤]$/.test(label)) return label.slice(0, -1);
  return /[\s/+−]/.test(label) ? `(${label})ᵀ` : `${label}ᵀ`;
}

/** The name as parts of an HTML line. @param {string} name @param {string} [index] */
export function name(name, index = '') {
  const [base, low] = split(name);
  const below = [low, index].filter(Boolean).join(',');
  return h('span', { class: 'm' }, base, below && h('sub', null, below));
}

/** The name as parts of an SVG text. @param {string} text @param {string} [index] */
export function tname(text, index = '') {
  const [base, low] = split(text);
  const below = [low, index].filter(Boolean).join(',');
  return [s('tspan', null, base), below && s('tspan', { dy: '0.25em', 'font-size': '0.68em' }, below)];
}

/** The name as MathML. @param {string} text @param {any} [index] */
export function mname(text, index) {
  const [base, low] = split(text);
  const letter = m('mi', null, base);
  const parts = [low && m('mn', null, low), index].filter(Boolean);
  if (!parts.length) return letter;
  return m('msub', null, letter, parts.length > 1 ? m('mrow', null, parts[0], m('mo', null, ','), parts[1]) : parts[0]);
}
