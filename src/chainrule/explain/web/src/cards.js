// @ts-check
// The card of a local Jacobian: glyph, name, numbers or a picture of their sizes.
import { tone } from './boxes.js';
import { GAP } from './canvas.js';
import { cut, fmt, press, s, split, tmath } from './dom.js';
import { along, port, route } from './edges.js';
import { glyph } from './glyphs.js';

/** @typedef {import('./app.js').App} App */
/** @typedef {import('./graph.js').Edge} Edge */

/** Which edges get a card above their gap, and where: none where they would not fit. @param {App} app */
export function cardPlan(app) {
  const { view, geo } = app.C;
  if (app.S.level === 'm' || view.edges.length > 16 || !view.edges.length) return { list: [], height: 16 };
  const gaps = new Map();
  for (const e of view.edges) {
    const b = geo.at.get(e.to.id);
    gaps.set(b.layer, [...(gaps.get(b.layer) ?? []), e]);
  }
  if ([...gaps.values()].some((l) => l.length > 3)) return { list: [], height: 16 };
  const list = [],
    crowded = [...gaps.values()].some((l) => l.length > 1);
  let height = 0;
  for (const edges of gaps.values()) {
    const sized = edges.map((/** @type {Edge} */ e) => ({ e, ...cardSize(e, crowded) }));
    height = Math.max(
      height,
      sized.reduce((/** @type {number} */ t, /** @type {any} */ c) => t + c.h + 8, 0),
    );
    list.push(
      ...sized.map((/** @type {any} */ c, /** @type {number} */ q) => ({
        ...c,
        above: sized.slice(q + 1).reduce((/** @type {number} */ t, /** @type {any} */ d) => t + d.h + 8, 0),
        last: q === sized.length - 1,
        alone: sized.length === 1,
        targets: new Set(edges.map((/** @type {Edge} */ x) => x.to.id)).size,
      })),
    );
  }
  return { list, height: height + 62 };
}

/** @param {Edge} e @param {boolean} crowded several cards above one gap are no taller than they must be */
function cardSize(e, crowded) {
  const small = e.map.known && e.map.rows <= 6 && e.map.cols <= 6 && e.map.rows * e.map.cols > 0;
  const cw = e.map.cols > 4 ? 33 : 40,
    tall = small ? Math.max(crowded ? 24 : 60, e.map.rows * 20) : 60;
  return { small, cw, w: Math.max(small ? e.map.cols * cw + 34 : 100, 150), h: tall + 61, tall };
}

/** @param {App} app @param {any} card @param {number} top */
export function cardOf(app, card, top) {
  const { e, w, h } = card,
    { geo } = app.C,
    b = geo.at.get(e.to.id);
  const middle = 30 + b.x - GAP / 2,
    x = middle - w / 2,
    y = top - 54 - card.above - h,
    m = e.map;
  const active = app.C.stepEdges.has(e.id) ? (app.S.mode === 'f' ? ' act-f' : ' act-r') : '';
  const title = String(m.about.label ?? ''),
    hidden = app.C.asked.has(e.id),
    shape = hidden ? '? × ?' : m.shape,
    words = hidden ? 'asked in the practice' : String(m.words);
  // of several maps over one gap each says what it is taken of, and by what; ∂y/∂x says so itself
  const of = card.alone ? `𝐷${split(e.to.symbol)[0]}` : `∂${e.to.symbol}/∂${e.from.symbol}`,
    prefix = title.startsWith('∂') ? '' : `${of} = `;
  const room = Math.floor((w - 44) / 8),
    whole = [...prefix].length + [...title].length <= room;
  const g = s('g', {
    class: `jg${active}`,
    tabindex: 0,
    role: 'button',
    'data-f': `card:${e.id}`,
    'data-jac': e.id,
    'aria-label': `Jacobian of ${cut(e.to.name, 24)} by ${cut(e.from.name, 24)}: ${cut(words, 60)}, ${shape}`,
    ...press(() => app.openEdge(e)),
  });
  if (card.last) {
    const pts = route(geo, e, port(app, geo.at.get(e.from.id), e.from, 0), port(app, b, e.to, 0));
    g.append(
      s('path', {
        d: `M${middle} ${top - 54}V${top + along(pts, 0.5)[1] - (e.from.size > 1 ? 4 : 10)}`,
        class: 'leader',
      }),
    );
    if (card.targets === 1 && e.to.operation) {
      const text = cut(e.to.operation, 12),
        half = 16 + 3 * [...text].length;
      g.append(
        s('rect', { x: middle - half, y: top - 38, width: 2 * half, height: 20, rx: 10, class: 'op' }),
        s('text', { x: middle, y: top - 24, 'font-size': 11.5, 'text-anchor': 'middle', class: 'ink2' }, text),
      );
    }
  }
  g.append(
    s('title', null, cut(`${title} · ${words} · ${shape}`, 300)),
    s('rect', { class: 'jcard', x, y, width: w, height: h, rx: 9 }),
    hidden ? null : glyph(m.about.glyph, 18, { x: x + 10, y: y + 9 }),
    s('text', { x: x + 34, y: y + 23, 'font-size': 15, class: 'm' }, whole ? prefix : '', tmath(cut(title, room))),
    s(
      'text',
      { x: x + 11, y: y + h - 9, 'font-size': 11, class: 'dim' },
      cut(hidden ? '' : words.replace(/ \(.*/, ''), Math.floor((w - 60) / 6)), // the rest is in the title
    ),
    s('text', { x: x + w - 11, y: y + h - 9, 'font-size': 11.5, 'text-anchor': 'end', class: 'num ink2' }, shape),
  );
  if (hidden) g.append(s('text', { x: x + w / 2, y: y + h / 2 + 6, 'font-size': 20, 'text-anchor': 'middle' }, '?'));
  else g.append(...(card.small ? cellsOf(app, card, x, y) : heat(m, middle - 44, y + 34, 88, 56)));
  return g;
}

/** @param {App} app @param {any} card @param {number} x @param {number} y */
function cellsOf(app, card, x, y) {
  const { e, cw, w, tall } = card,
    m = e.map,
    mw = m.cols * cw,
    mh = m.rows * 20,
    x0 = x + w / 2 - mw / 2,
    y0 = y + 33 + (tall - mh) / 2;
  const out = [
    s('path', { d: `M${x0 - 3} ${y0 - 2}h-4v${mh + 4}h4M${x0 + mw + 3} ${y0 - 2}h4v${mh + 4}h-4`, class: 'bracket' }),
  ];
  for (let i = 0; i < m.rows; i++)
    for (let j = 0; j < m.cols; j++) {
      const v = m.get(i, j),
        hot = app.C.focus.has(`${e.id}:${i}:${j}`);
      out.push(
        s(
          'g',
          {
            class: 'jcell',
            'data-cell': `${e.id}:${i}:${j}`,
            onclick: (/** @type {Event} */ ev) => {
              ev.stopPropagation();
              app.pickEdge(e, i, j);
            },
          },
          s('rect', {
            x: x0 + j * cw + 1,
            y: y0 + i * 20 + 1,
            width: cw - 2,
            height: 18,
            rx: 3,
            fill: v == null ? 'transparent' : tone(v),
            class: hot ? 'hot' : '',
          }),
          s(
            'text',
            {
              x: x0 + j * cw + cw / 2,
              y: y0 + i * 20 + 14.2,
              'font-size': cw < 40 ? 10 : 11,
              'text-anchor': 'middle',
              class: v == null ? 'num none' : 'num',
            },
            v == null ? '·' : fmt(v, 2, 0),
          ),
        ),
      );
    }
  return out;
}

/** The size of the entries as a picture of at most 32×32. @param {any} m @param {number} x @param {number} y @param {number} w @param {number} h */
export function heat(m, x, y, w, h) {
  const frame = s('rect', { x, y, width: w, height: h, class: 'heatframe' });
  let H = Math.min(32, m.rows),
    W = Math.min(32, m.cols);
  /** @type {number[]} */ let cells = [];
  if (m.known && H * W) {
    cells = new Array(H * W).fill(0);
    const { rows, cols, values } = m.entries;
    let top = 1e-300;
    for (let q = 0; q < values.length; q++) {
      const at = Math.floor((rows[q] * H) / m.rows) * W + Math.floor((cols[q] * W) / m.cols),
        v = Math.min(1e300, Math.abs(values[q])) || 0;
      cells[at] = Math.max(cells[at], v);
      top = Math.max(top, v);
    }
    cells = cells.map((v) => v / top);
  } else if (m.image) {
    H = m.image.height;
    W = m.image.width;
    cells = m.image.cells.map((/** @type {number} */ v) => v / 255);
  }
  const cw = w / W,
    ch = h / H;
  return [
    frame,
    ...cells
      .map((v, k) =>
        v > 0
          ? s('rect', {
              x: x + (k % W) * cw,
              y: y + Math.floor(k / W) * ch,
              width: cw,
              height: ch,
              fill: 'var(--ink)',
              opacity: (0.08 + 0.82 * v).toFixed(2),
            })
          : null,
      )
      .filter(Boolean),
  ];
}
