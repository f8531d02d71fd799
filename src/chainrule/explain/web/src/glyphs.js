// @ts-check
// Structure glyphs, 20×20, one grammar: the frame is the matrix, the ink is what is stored.
import { s } from './dom.js';


const R = [0, 1, 2, 3];

const box = (/** @type {number} */ x, /** @type {number} */ y, w = 3.4, h = 3.4, o = 1) =>
  s('rect', { x, y, width: w, height: h, rx: 0.6, fill: 'currentColor', opacity: o });

const stroke = (/** @type {string} */ d, w = 2) =>
  s('path', { d, stroke: 'currentColor', 'stroke-width': w, fill: 'none' });

/** @type {Record<string, () => any>} */
const INK = {
  dense: () =>
    R.flatMap((i) =>
      R.map((j) => box(2.6 + j * 3.9, 2.6 + i * 3.9, 3.1, 3.1, 0.35 + 0.6 * (((i * 7 + j * 5) % 5) / 4))),
    ),
  diagonal: () => R.map((i) => box(2.6 + i * 3.9, 2.6 + i * 3.9)),
  identity: () => R.map((i) => stroke(`M${4.4 + i * 3.9} ${2.8 + i * 3.9}v3`, 1.5)),
  scalar: () => stroke('M3 3L17 17', 2.4),
  banded: () =>
    R.flatMap((i) => [
      box(2.6 + i * 3.9, 2.6 + i * 3.9),
      i < 3 && box(6.5 + i * 3.9, 2.6 + i * 3.9, 3.1, 3.1, 0.45),
      i < 3 && box(2.6 + i * 3.9, 6.5 + i * 3.9, 3.1, 3.1, 0.45),
    ]),
  triangular: () => s('path', { d: 'M3 3V17H17Z', fill: 'currentColor', opacity: 0.85 }),
  block: () => [box(2.6, 2.6, 6.8, 6.8, 0.85), box(10.6, 10.6, 6.8, 6.8, 0.85)],
  sparse: () =>
    [
      [3, 3],
      [10.8, 3],
      [6.9, 6.9],
      [14.6, 6.9],
      [3, 10.8],
      [10.8, 14.6],
      [14.6, 14.6],
    ].map(([x, y]) => box(x, y, 2.6, 2.6)),
  lowrank: () => [box(2.6, 2.6, 3.6, 14.8, 0.9), box(7.6, 2.6, 9.8, 3.6, 0.9)],
  diaglow: () => [stroke('M3 3L17 17', 2.2), box(12.2, 2.6, 5.2, 2, 0.9), box(2.6, 12.2, 2, 5.2, 0.9)],
  select: () =>
    [
      [10.8, 2.6],
      [2.9, 6.5],
      [14.6, 10.4],
      [6.8, 14.3],
    ].map(([x, y]) =>
      s('circle', { cx: x + 1.3, cy: y + 1.4, r: 1.7, fill: 'none', stroke: 'currentColor', 'stroke-width': 1.3 }),
    ),
  row: () => R.map((j) => box(2.6 + j * 3.9, 8.2, 3.1, 3.6, 0.4 + 0.18 * j)),
  kron: () =>
    [
      [2.6, 2.6],
      [10.6, 2.6],
      [2.6, 10.6],
      [10.6, 10.6],
    ].flatMap(([x, y]) => [
      s('rect', { x, y, width: 6.8, height: 6.8, rx: 1, fill: 'none', stroke: 'currentColor' }),
      box(x + 1.2, y + 1.2, 2, 2),
      box(x + 3.7, y + 3.7, 2, 2),
    ]),
  toeplitz: () => stroke('M3 8L12 17M3 3L17 17M8 3L17 12', 1.7),
  zero: () =>
    s('text', { x: 10, y: 14, 'text-anchor': 'middle', 'font-size': 11, fill: 'currentColor', opacity: 0.7 }, '0'),
  opaque: () => [
    s('rect', {
      x: 3,
      y: 3,
      width: 14,
      height: 14,
      rx: 2,
      fill: 'none',
      stroke: 'currentColor',
      'stroke-dasharray': '2 2',
    }),
    s(
      'text',
      { x: 10, y: 14, 'text-anchor': 'middle', 'font-size': 11, 'font-style': 'italic', fill: 'currentColor' },
      'f',
    ),
  ],
};

/** @param {string} kind @param {number} [size] @param {Record<string, any>} [at] */
export function glyph(kind, size = 20, at = {}) {
  const frame = s('rect', {
    x: 0.75,
    y: 0.75,
    width: 18.5,
    height: 18.5,
    rx: 2,
    fill: 'none',
    stroke: 'currentColor',
    'stroke-width': 1.1,
    opacity: 0.55,
  });
  return s(
    'svg',
    { width: size, height: size, viewBox: '0 0 20 20', 'aria-hidden': 'true', class: 'glyph', ...at },
    frame,
    Object.hasOwn(INK, kind) ? INK[kind]() : INK.opaque(),
  );
}

export const LEGEND = [
  ['dense', 'dense'],
  ['diagonal', 'diagonal'],
  ['identity', 'identity'],
  ['scalar', 'scalar · I'],
  ['block', 'block diagonal'],
  ['banded', 'banded'],
  ['triangular', 'triangular'],
  ['sparse', 'sparse'],
  ['lowrank', 'low rank UVᵀ'],
  ['diaglow', 'diag(s) − ssᵀ'],
  ['select', 'selection'],
  ['kron', 'Kronecker'],
  ['toeplitz', 'convolution'],
  ['row', 'row (gradientᵀ)'],
  ['zero', 'zero'],
  ['opaque', 'matrix-free'],
];
