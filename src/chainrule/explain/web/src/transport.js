// @ts-check
// Start, back, play, step, speed: forward and reverse keep their own position.
import { big, cut, h, mathText, name, s, turned } from './dom.js';

/** @typedef {import('./app.js').App} App */

export const icon = (/** @type {string} */ d) =>
  s(
    'svg',
    { width: 14, height: 14, viewBox: '0 0 14 14', 'aria-hidden': 'true' },
    s('path', { fill: 'currentColor', d }),
  );

export const ICONS = {
  first: 'M2 2h2v10H2zM12 2v10L5 7z',
  prev: 'M10 2v10L3 7z',
  play: 'M3 1.5v11L12.5 7z',
  pause: 'M3 2h3v10H3zM8 2h3v10H8z',
  next: 'M4 2v10l7-5z',
  last: 'M10 2h2v10h-2zM2 2v10l7-5z',
};

const list = (/** @type {App} */ app) => (app.S.mode === 'f' ? app.C.stepsF : app.C.stepsR);

const at = (/** @type {App} */ app) => (app.S.mode === 'f' ? app.S.fstep : app.S.rstep);

/** @param {App} app @param {number} n */
export function setStep(app, n) {
  const k = Math.max(0, Math.min(list(app).length - 1, n));
  if (app.S.mode === 'f') app.S.fstep = k;
  else app.S.rstep = k;
  app.draw();
  const now = app.graph.byId.get(app.C.stepNode);
  if (now) app.show(now);
}

/** @param {App} app */
export function stop(app) {
  clearTimeout(app.S.play);
  app.S.play = 0;
}

/** @param {App} app @param {string} key */
export function control(app, key) {
  const S = app.S,
    last = list(app).length - 1;
  if (key !== 'play') {
    stop(app);
    setStep(app, key === 'first' ? 0 : key === 'last' ? last : at(app) + (key === 'next' ? 1 : -1));
    return;
  }
  if (S.play) {
    stop(app);
    app.draw();
    return;
  }
  if (at(app) === last) setStep(app, 0);
  const tick = () => {
    if (!S.play) return;
    if (at(app) >= list(app).length - 1) {
      stop(app);
      app.draw();
      return;
    }
    S.play = setTimeout(tick, 1100 / S.speed);
    setStep(app, at(app) + 1);
  };
  S.play = setTimeout(tick, 500 / S.speed);
  app.draw();
}

/** What one step says. @param {App} app @param {any} q */
function sentence(app, q) {
  const f = app.S.mode === 'f',
    end = f ? app.C.source : app.C.target;
  if (!q.node)
    return [
      h(
        'b',
        null,
        f
          ? ['Place Δ', end && name(end.symbol), ' at the input.']
          : ['Seed ∇', end && name(end.symbol), ' = 𝑔 at the output.'],
      ),
    ];
  const terms =
    q.edges
      .slice(0, 4)
      .map(
        (/** @type {any} */ e) =>
          `${f ? e.map.about.label : turned(String(e.map.about.label), e.map.about.glyph)} ${f ? 'Δ' : '∇'}${(f ? e.from : e.to).symbol}`,
      )
      .join(' + ') + (q.edges.length > 4 ? ' + ⋯' : '');
  const text = q.data?.text || `${f ? 'Δ' : '∇'}${q.node.symbol} = ${terms}`;
  const work =
    q.mult === 0
      ? 'nothing to multiply'
      : `${big(q.mult)} multiply-add${q.mult === 1 ? '' : 's'}${q.dense > q.mult ? `, not ${big(q.dense)}` : ''}`;
  return [
    h('b', null, mathText(cut(text, 90))),
    h(
      'span',
      null,
      `· ${work} · holds ${big(q.held)}${q.edges.length > 1 && !f ? ` · used ${q.edges.length}×, so ∇ adds` : ''}`,
    ),
  ];
}

/** @param {App} app */
export function transport(app) {
  const { S, ui } = app,
    steps = list(app),
    k = at(app),
    color = S.mode === 'f' ? '--fwd' : '--rev';
  for (const n of ui.modes) n.setAttribute('aria-pressed', String(n.dataset.mode === S.mode));
  ui.ticks.style.setProperty('--c', `var(${color})`);
  ui.cap.style.setProperty('--c', `var(${color})`);
  ui.cap.style.background = `var(${color}-bg)`;
  const sum = (/** @type {any[]} */ a) => a.reduce((t, q) => t + (q.mult ?? 0), 0),
    last = steps.length - 1;
  ui.cap.replaceChildren(
    h('span', { class: 'count' }, `${S.mode === 'f' ? '▶' : '◀'} step ${k} of ${last}`),
    ...(steps[k] ? sentence(app, steps[k]) : []),
    h('span', { class: 'sp' }),
    h('span', { class: 'num' }, `${big(sum(steps.slice(0, k + 1)))} of ${big(sum(steps))} multiply-adds done`),
  );
  const label = (/** @type {any} */ q) => {
    const n = q.node ?? (S.mode === 'f' ? app.C.source : app.C.target);
    return n ? name(cut(n.symbol, 5)) : '';
  };
  if (steps.length <= 8)
    ui.ticks.replaceChildren(
      ...steps.flatMap((/** @type {any} */ q, /** @type {number} */ n) =>
        [
          n > 0 && h('span', { class: n <= k ? 'bar done' : 'bar' }),
          h(
            'button',
            {
              class: `tick${n <= k ? ' done' : ''}${n === k ? ' now' : ''}`,
              'data-f': `tick:${n}`,
              'aria-current': n === k ? 'step' : null,
              onclick: () => setStep(app, n),
            },
            h('i', null),
            h('span', { class: 'm' }, S.mode === 'f' ? 'Δ' : '∇', label(q)),
          ),
        ].filter(Boolean),
      ),
    );
  else
    ui.ticks.replaceChildren(
      h('input', {
        type: 'range',
        min: 0,
        max: last,
        value: k,
        'data-f': 'tick',
        'aria-label': 'step of the sweep',
        oninput: (/** @type {any} */ e) => setStep(app, Number(e.target.value)),
      }),
    );
  ui.play.replaceChildren(icon(S.play ? ICONS.pause : ICONS.play));
  ui.play.setAttribute('aria-label', S.play ? 'Pause' : 'Play');
}
