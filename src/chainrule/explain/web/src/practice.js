// @ts-check
// Questions made from the function itself: shape first, then an entry, then the cheaper order.
import { h } from './dom.js';
import { questions } from './questions.js';

/** @typedef {import('./app.js').App} App */

/** @typedef {{ok: boolean, text: string}} Verdict */

export const LEVELS = ['easy', 'medium', 'hard'];

/** Progress outlives the page where the browser allows it. */
export const memory = {
  /** @param {string} key */
  read(key) {
    try {
      return JSON.parse(localStorage.getItem(`chainrule:${key}`) ?? 'null');
    } catch {
      return null;
    }
  },
  /** @param {string} key @param {any} value */
  write(key, value) {
    try {
      localStorage.setItem(`chainrule:${key}`, JSON.stringify(value));
    } catch {
      /* a sandbox keeps nothing */
    }
  },
};

/** @param {App} app */
export function practice(app) {
  const P = app.P,
    list = questions(app, P.set, P.level);
  const done = P.row[P.level] ?? 0;
  const head = h(
    'div',
    { class: 'levels' },
    h(
      'div',
      { class: 'seg', role: 'group', 'aria-label': 'Difficulty' },
      LEVELS.map((l, q) =>
        h(
          'button',
          {
            'data-f': `level:${l}`,
            'aria-pressed': P.level === l ? 'true' : 'false',
            disabled: q > P.open,
            title: q > P.open ? 'two right in a row unlock it' : null,
            onclick: () => {
              P.level = l;
              app.draw();
            },
          },
          l,
        ),
      ),
    ),
    h('span', { class: 'sub' }, `${done} right in a row · ${P.right} in all`),
    h('span', { class: 'sp' }),
    h(
      'button',
      {
        class: 'small',
        'data-f': 'nextset',
        onclick: () => {
          P.set++;
          P.ans = {};
          app.draw();
        },
      },
      'Next questions',
    ),
  );
  if (!list.length) return [head, h('p', { class: 'msg' }, 'This function has no step to ask about.')];
  return [
    head,
    ...list.map((q, k) => one(app, q, k)),
    h(
      'p',
      { class: 'note' },
      'Answers are checked against the Jacobian at this point; a wrong answer is told what went wrong.',
    ),
  ];
}

/** @param {App} app @param {any} q @param {number} k */
export function one(app, q, k) {
  const P = app.P,
    A = (P.ans[q.id] ??= { values: q.fields.map(() => ''), hint: 0, verdict: null, shown: false });
  const check = () => {
    A.verdict = q.judge(A.values);
    if (A.verdict.ok && !A.counted) {
      A.counted = true;
      P.right++;
      if (!A.shown) P.row[P.level] = (P.row[P.level] ?? 0) + 1;
      if (P.row[P.level] >= 2) P.open = Math.max(P.open, Math.min(2, LEVELS.indexOf(P.level) + 1));
    } else if (!A.verdict.ok) P.row[P.level] = 0;
    app.remember();
    app.draw();
  };
  const field = (/** @type {string} */ label, /** @type {number} */ f) =>
    h('input', {
      inputmode: 'decimal',
      autocomplete: 'off',
      value: A.values[f],
      class: A.verdict ? (A.verdict.ok ? 'ok' : 'no') : '',
      'aria-label': `${label}, question ${k + 1}`,
      'data-f': `ans:${k}:${f}`,
      oninput: (/** @type {any} */ e) => {
        A.values[f] = e.target.value;
      },
      onkeydown: (/** @type {any} */ e) => {
        if (e.key === 'Enter') check();
      },
    });
  const inputs = q.options
    ? q.options.map((/** @type {any} */ [id, label]) =>
        h(
          'button',
          {
            class: `small m${A.values[0] === id && A.verdict ? (A.verdict.ok ? ' ok' : ' no') : ''}`,
            'data-f': `opt:${k}:${id}`,
            'aria-pressed': A.values[0] === id ? 'true' : 'false',
            onclick: () => {
              A.values[0] = id;
              check();
            },
          },
          label,
        ),
      )
    : [
        ...q.fields.flatMap((/** @type {string} */ f, /** @type {number} */ n) =>
          n ? [' × ', field(f, n)] : [field(f, n)],
        ),
        h('button', { class: 'small', 'data-f': `check:${k}`, onclick: check }, 'Check'),
      ];
  return h(
    'div',
    { class: 'q', 'data-q': q.kind, 'data-id': q.id },
    h('h3', null, `${k + 1} · `, q.ask),
    h(
      'div',
      { class: 'answer' },
      inputs,
      h(
        'button',
        {
          class: 'small',
          'data-f': `hint:${k}`,
          disabled: A.hint >= q.hints.length,
          onclick: () => {
            A.hint++;
            app.draw();
          },
        },
        `Hint ${A.hint ? `${A.hint}/${q.hints.length}` : ''}`,
      ),
      h(
        'button',
        {
          class: 'small',
          'data-f': `sol:${k}`,
          disabled: A.hint < q.hints.length,
          title: A.hint < q.hints.length ? 'after the hints' : null,
          onclick: () => {
            A.shown = true;
            P.row[P.level] = 0;
            app.draw();
          },
        },
        'Show solution',
      ),
    ),
    h('p', { class: 'msg', role: 'status' }, A.verdict?.text || q.note),
    A.hint > 0 &&
      h(
        'ol',
        { class: 'hints' },
        q.hints.slice(0, A.hint).map((/** @type {string} */ t) => h('li', null, t)),
      ),
    A.shown && h('p', { class: 'msg num solution' }, q.solution),
  );
}
