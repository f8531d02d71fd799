// @ts-check
// Questions made from the function itself, and what went wrong in an answer.
import { said } from './boxes.js';
import { costs } from './cost.js';
import { big, cut, fmt, h, mathText, name } from './dom.js';
import { index } from './graph.js';
import { sumOverPaths } from './paths.js';

/** @typedef {{ok: boolean, text: string}} Verdict */
/** @typedef {import('./app.js').App} App */
/** @typedef {import('./graph.js').Edge} Edge */

/** Two decimals are enough, of a small number two digits. @param {number} a @param {number} v */
const near = (a, v) =>
  Math.abs(a - v) <= (Math.abs(v) >= 0.05 ? 0.006 * Math.max(1, Math.abs(v)) : Math.max(1e-9, 0.06 * Math.abs(v)));

/** A typed number: a comma for a point, any minus, a fraction. @param {string} text */
export function typed(text) {
  const t = text.trim().replace(/[−–]/g, '-').replace(',', '.'),
    f = /^(-?[\d.]+)\/([\d.]+)$/.exec(t);
  return f ? Number(f[1]) / Number(f[2]) : t === '' ? NaN : Number(t);
}

/** What went wrong with a shape. @param {number} r @param {number} c @param {number} rows @param {number} cols @param {[number, number]} whole @returns {Verdict} */
export function judgeShape(r, c, rows, cols, whole) {
  if (r === rows && c === cols)
    return {
      ok: true,
      text: `Right: ${rows} output${rows === 1 ? '' : 's'} by ${cols} input${cols === 1 ? '' : 's'}.`,
    };
  if (r === cols && c === rows)
    return { ok: false, text: 'That is the transpose: rows are outputs here (numerator layout).' };
  if (r === whole[0] && c === whole[1])
    return { ok: false, text: 'That is the shape of the whole Jacobian, not of this factor.' };
  if (r === rows) return { ok: false, text: 'The rows are right. Count the inputs of this step for the columns.' };
  if (c === cols) return { ok: false, text: 'The columns are right. Count the outputs of this step for the rows.' };
  return { ok: false, text: 'Count the outputs for the rows, the inputs for the columns.' };
}

/**
 * What went wrong with an entry of a matrix that is a sum over paths.
 * @param {number} a @param {number} v @param {{get: (i: number, j: number) => number | null, rows: number, cols: number}} J @param {number} i @param {number} j
 * @param {{product: number, hops: {value: number}[]}[]} paths @param {(i: number, j: number) => string} say @returns {Verdict}
 */
export function judgeEntry(a, v, J, i, j, paths, say) {
  if (!Number.isFinite(a)) return { ok: false, text: 'Type a number; two decimals are enough.' };
  if (near(a, v)) return { ok: true, text: 'Right.' };
  if (near(a, -v)) return { ok: false, text: 'Right size, wrong sign.' };
  const t = i !== j && j < J.rows && i < J.cols ? (J.get(j, i) ?? 0) : null;
  if (t != null && near(a, t))
    return { ok: false, text: 'That is the entry of the transpose: rows are outputs, columns are inputs.' };
  for (let c = 0; c < Math.min(J.cols, 64); c++)
    if (c !== j && near(a, J.get(i, c) ?? 0) && (J.get(i, c) ?? 0) !== 0)
      return { ok: false, text: `Wrong column: that is ${say(i, c)}.` };
  for (let r = 0; r < Math.min(J.rows, 64); r++)
    if (r !== i && near(a, J.get(r, j) ?? 0) && (J.get(r, j) ?? 0) !== 0)
      return { ok: false, text: `Wrong row: that is ${say(r, j)}.` };
  const few = paths.slice(0, 8);
  if (few.length > 1)
    for (let mask = 1; mask < (1 << few.length) - 1; mask++) {
      const dropped = few.filter((_, q) => mask & (1 << q));
      if (near(a, v - dropped.reduce((s, p) => s + p.product, 0)))
        return {
          ok: false,
          text:
            dropped.length === few.length - 1
              ? 'That is one path alone. Add up all of them.'
              : `Dropped path: ${dropped.length === 1 ? 'one path is' : `${dropped.length} paths are`} missing from the sum (${dropped.map((p) => fmt(p.product, 3)).join(', ')}).`,
        };
    }
  const stages = Math.max(0, ...few.map((p) => p.hops.length));
  for (let q = 0; q < stages && few.length; q++) {
    const without = few.reduce((s, p) => s + p.hops.reduce((x, hop, k) => (k === q ? x : x * hop.value), 1), 0);
    if (stages > 1 && near(a, without))
      return { ok: false, text: 'Missing factor: one partial was left out along every path.' };
  }
  for (const p of few)
    for (let q = 0; q < p.hops.length && p.hops.length > 1; q++) {
      const without = p.hops.reduce((x, hop, k) => (k === q ? x : x * hop.value), 1);
      if (near(a, v - p.product + without))
        return { ok: false, text: 'Missing factor: one path lacks one of its partials.' };
    }
  return {
    ok: false,
    text:
      few.length > 1
        ? `Not yet. Multiply along each of the ${few.length} paths, then add.`
        : 'Not yet. Multiply along the path.',
  };
}

/** The set of questions with this number. @param {App} app @param {number} k @param {string} level */
export function questions(app, k, level) {
  const { view } = app.C,
    out = [];
  const all = view.edges.filter((/** @type {Edge} */ e) => e.map.rows * e.map.cols > 1),
    edges = all.length ? all : view.edges;
  if (!edges.length) return [];
  const e = edges[k % edges.length];
  out.push(shapeQuestion(app, e));
  out.push(
    level === 'easy'
      ? (localQuestion(app, edges, k) ?? wholeQuestion(app, k))
      : wholeQuestion(app, level === 'hard' ? -1 - k : k),
  );
  out.push(orderQuestion(app));
  (app.graph.data.practice ?? []).forEach((/** @type {any} */ q) => out.push(toldQuestion(q)));
  return out.filter(Boolean);
}

/** The local Jacobians that the practice waits for an answer about: the graph must not give it. @param {App} app */
export function asked(app) {
  const P = app.P,
    all = /** @type {any[]} */ (app.S.tab === 'p' ? questions(app, P.set, P.level) : []);
  return new Set(all.filter((q) => !P.ans[q.id]?.verdict?.ok && !P.ans[q.id]?.shown).map((q) => q.edge ?? q.id));
}

/** @param {App} app @param {Edge} e */
function shapeQuestion(app, e) {
  const { rows, cols } = e.map;
  return {
    id: `shape:${e.id}`,
    edge: e.id,
    kind: 'shape',
    fields: ['rows', 'columns'],
    ask: [
      'Shape first. ',
      formulaOf(e),
      name(e.from.symbol),
      ` has ${size(e.from.size)}, `,
      name(e.to.symbol),
      ` has ${size(e.to.size)}. What shape is the Jacobian of `,
      name(e.to.symbol),
      ' by ',
      name(e.from.symbol),
      '?',
    ],
    note: 'rows = outputs, columns = inputs',
    judge: (/** @type {string[]} */ a) => judgeShape(typed(a[0]), typed(a[1]), rows, cols, [app.graph.m, app.graph.n]),
    hints: [
      'Each row is the gradient of one output of this step.',
      `${said(e.to, 0).replace(/ .*/, '')} has ${size(e.to.size)}: that many rows.`,
      `${said(e.from, 0).replace(/ .*/, '')} has ${size(e.from.size)}: that many columns.`,
    ],
    solution: `${rows} × ${cols}`,
  };
}

const size = (/** @type {number} */ n) => (n === 1 ? '1 entry' : `${n} entries`);

const formulaOf = (/** @type {Edge} */ e) =>
  e.to.text && e.to.text.length < 60 ? [h('code', null, e.to.text), ': '] : '';

/** @param {App} app @param {Edge[]} edges @param {number} k */
function localQuestion(app, edges, k) {
  const known = edges.filter((e) => e.map.known && /** @type {any} */ (e.map.entries).values.length);
  if (!known.length) return null;
  const e = known[(k + 1) % known.length],
    { rows, cols, values } = /** @type {any} */ (e.map.entries),
    q = (3 * k + 1) % values.length,
    i = rows[q],
    j = cols[q],
    v = values[q];
  const say = (/** @type {number} */ r, /** @type {number} */ c) => `∂${said(e.to, r)}/∂${said(e.from, c)}`;
  return {
    id: `local:${e.id}:${i}:${j}`,
    edge: e.id,
    kind: 'entry',
    fields: ['entry'],
    ask: ['One entry of one step. ', formulaOf(e), 'What is ', partial(e.to, i, e.from, j), ' here?'],
    note: 'Two decimals are enough.',
    judge: (/** @type {string[]} */ a) => judgeEntry(typed(a[0]), v, e.map, i, j, [], say),
    hints: [
      `Only this step counts: ${cut(e.to.operation || e.to.text || 'the step', 60)}.`,
      `The local Jacobian is ${cut(String(e.map.about.label ?? ''), 40)}, ${e.map.words}.`,
      `It is the entry in row ${i + 1}, column ${j + 1} of the card.`,
    ],
    solution: `${say(i, j)} = ${fmt(v, 4)}`,
  };
}

/** @param {App} app @param {number} k */
function wholeQuestion(app, k) {
  const { graph } = app,
    J = graph.J;
  if (!J.known || !graph.n || !graph.m) return null;
  const total = graph.n * graph.m,
    at = (((app.S.i * graph.n + app.S.j + 1 + k) % total) + total) % total,
    i = Math.floor(at / graph.n),
    j = at % graph.n;
  const [source, sj] = graph.input(j),
    [target, ti] = graph.output(i);
  if (!source || !target) return null;
  const v = J.get(i, j) ?? 0,
    sums = sumOverPaths(app.C.view, source, sj, target, ti),
    paths = sums?.top ?? [];
  const say = (/** @type {number} */ r, /** @type {number} */ c) => {
    const [s, a] = graph.input(c),
      [t, b] = graph.output(r);
    return s && t ? `∂${said(t, b)}/∂${said(s, a)}` : '';
  };
  const numbers =
    paths
      .map((p) =>
        [...p.hops]
          .reverse()
          .map((q) => {
            const t = fmt(q.value, 3);
            return q.value < 0 ? `(${t})` : t;
          })
          .join('·'),
      )
      .join(' + ') || '0';
  return {
    id: `entry:${i}:${j}`,
    kind: 'entry',
    fields: ['entry'],
    ask: ['Predict one entry before the sweep reaches it: ', partial(target, ti, source, sj)],
    note: Math.abs(v) < 0.05 && v ? 'Two digits are enough.' : 'Two decimals are enough.',
    judge: (/** @type {string[]} */ a) => judgeEntry(typed(a[0]), v, J, i, j, paths, say),
    hints: [
      sums
        ? `${big(sums.count)} path${sums.count === BigInt(1) ? '' : 's'} that count leave${sums.count === BigInt(1) ? 's' : ''} ${said(source, sj)}. Which edges do they use?`
        : `Start at ${said(source, sj)}.`,
      `Multiply along each: ${
        [...app.C.way]
          .reverse()
          .slice(0, 5)
          .map((/** @type {Edge} */ e) => cut(String(e.map.about.label ?? ''), 12))
          .join(' · ') || 'there is no way'
      }.`,
      numbers.length > 200 ? `${numbers.slice(0, 200)} …` : numbers,
    ],
    solution: `${
      paths
        .map((p) => fmt(p.product, 3))
        .join(' + ')
        .replace(/\+ −/g, '− ') || '0'
    } = ${fmt(v, 4)}`,
  };
}

/** @param {any} t @param {number} i @param {any} s @param {number} j */
const partial = (t, i, s, j) =>
  h('span', { class: 'part' }, '∂', name(t.symbol, index(t.shape, i)), '/∂', name(s.symbol, index(s.shape, j)));

/** @param {App} app */
function orderQuestion(app) {
  // the data has the cheapest first, which would give it away
  const rank = (/** @type {any} */ r) => ['forward', 'reverse'].indexOf(r.name) + 3 * Number(r.dense == null),
    items = [...(app.graph.data.orders?.items ?? [])].sort((a, b) => rank(a) - rank(b));
  if (items.length < 2 || !costs(items)) return null;
  const least = Math.min(...items.map((/** @type {any} */ r) => r.multiply_adds)),
    brief = items.every((/** @type {any} */ r) => r.bracket && r.bracket.length <= 36), // cut, no one could compare them
    label = (/** @type {any} */ r) => (brief ? mathText(r.bracket) : String(r.title ?? r.name));
  return {
    id: 'order',
    kind: 'order',
    options: items.map((/** @type {any} */ r) => [r.name, label(r)]),
    fields: [],
    ask: ['Which order is cheaper here?'],
    note: 'Count multiply-adds.',
    judge: (/** @type {string[]} */ a) => {
      const r = items.find((/** @type {any} */ q) => q.name === a[0]);
      return r.multiply_adds === least
        ? { ok: true, text: `Right: ${big(least)} multiply-adds.` }
        : {
            ok: false,
            text: `That order takes ${big(r.multiply_adds)} multiply-adds, the other ${big(least)}: what travels is larger.`,
          };
    },
    hints: [
      `${app.graph.n} input${app.graph.n === 1 ? '' : 's'}, ${app.graph.m} output${app.graph.m === 1 ? '' : 's'}: which end is narrower?`,
      'From the output, rows of length m travel; from the input, columns of length n.',
      `The largest intermediate: ${items.map((/** @type {any} */ r) => `${r.title ?? r.name} ${big(r.peak)}`).join(', ')}.`,
    ],
    solution: items.map((/** @type {any} */ r) => `${r.title ?? r.name}: ${big(r.multiply_adds)}`).join(', '),
  };
}

/** A question of the lessons. @param {any} q */
function toldQuestion(q) {
  const list = Array.isArray(q.answer) ? q.answer : [q.answer];
  return {
    id: `told:${q.id}`,
    kind: q.kind,
    fields: q.kind === 'shape' ? ['rows', 'columns'] : ['answer'],
    ask: [String(q.question ?? '')],
    note: '',
    judge: (/** @type {string[]} */ a) =>
      q.kind === 'shape'
        ? judgeShape(typed(a[0]), typed(a[1]), list[0], list[1], [-1, -1])
        : q.kind === 'order'
          ? { ok: a[0].trim().toLowerCase() === String(list[0]).toLowerCase(), text: '' }
          : judgeEntry(typed(a[0]), Number(list[0]), { get: () => null, rows: 0, cols: 0 }, 0, 0, [], () => ''),
    hints: (q.hints ?? []).map(String),
    solution: String(q.solution ?? list.join(' × ')),
  };
}
