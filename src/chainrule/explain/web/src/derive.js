// @ts-check
// What follows from the state: what is in sight, the sum over paths, both sweeps.
import { split } from './dom.js';
import { between, sumOverPaths } from './paths.js';
import { asked } from './questions.js';
import { pull, push, reached, steps } from './sweep.js';
import { reachable, ways } from './ways.js';

/** @typedef {import('./app.js').App} App */
/** @typedef {import('./graph.js').Value} Value */
/** @typedef {import('./graph.js').Edge} Edge */

/** What follows from the state. @param {App} app */
export function compute(app) {
  const { graph, S } = app,
    C = app.C;
  const key = JSON.stringify([S.level, [...graph.folded], S.only && [S.i, S.j]]);
  if (app.stale || key !== C.key) {
    C.key = key;
    C.view = S.only ? within(app, graph.visible()) : graph.visible();
    C.geoKey = null;
    app.stale = false;
    C.stepsF = steps(graph, C.view, 'f');
    C.stepsR = steps(graph, C.view, 'r');
  }
  const [source, j] = graph.input(S.j),
    [target, i] = graph.output(S.i);
  Object.assign(C, { source, j, target, i, J: graph.J.known ? (graph.J.get(S.i, S.j) ?? 0) : null });
  const pair = `${key}|${S.i}|${S.j}`;
  if (pair !== C.pair || C.pairOf !== graph) {
    C.pair = pair;
    C.pairOf = graph;
    C.sums = source && target ? sumOverPaths(C.view, source, j, target, i) : null;
    C.on = C.sums && source ? between(C.sums, C.view, source, j) : null;
    C.onNodes = C.on ? new Set(C.on.keys()) : reachable(C.view, source, target);
    C.row = graph.J.known && graph.m ? Array.from({ length: graph.n }, (_, c) => graph.J.get(S.i, c) ?? 0) : null;
    C.ways = ways(C.view, source, target, C.onNodes);
  }
  if (C.sums) S.focus = Math.max(0, Math.min(S.focus, C.sums.top.length - 1));
  const path = C.sums?.top[S.focus];
  C.focus = new Set((path?.hops ?? []).map((/** @type {any} */ q) => `${q.edge.id}:${q.i}:${q.j}`));
  C.focusEdges = new Set((path?.hops ?? []).map((/** @type {any} */ q) => q.edge.id));
  C.way = path ? path.hops.map((/** @type {any} */ q) => q.edge) : (C.ways[0] ?? []);
  C.asked = asked(app);
  sweepState(app);
}

/** Only what lies between the input and the output that were picked. @param {any} view @param {App} app */
function within(app, view) {
  const [source] = app.graph.input(app.S.j),
    [target] = app.graph.output(app.S.i),
    on = reachable(view, source, target);
  return on.size
    ? {
        ...view,
        nodes: view.nodes.filter((/** @type {Value} */ n) => on.has(n.id)),
        edges: view.edges.filter((/** @type {Edge} */ e) => on.has(e.from.id) && on.has(e.to.id)),
      }
    : view;
}

/** @param {App} app */
function sweepState(app) {
  const { graph, S, C } = app;
  C.push = push(graph, C.view, S.dx);
  C.pull = pull(graph, C.view, app.g());
  C.predicted = C.target
    ? (C.push.get(C.target.id)?.[C.i] ??
      (C.row
        ? C.row.reduce(
            (/** @type {number} */ t, /** @type {number} */ v, /** @type {number} */ q) =>
              t + (S.dx[q] ? v * S.dx[q] : 0),
            0,
          )
        : null))
    : null;
  S.fstep = Math.min(S.fstep, C.stepsF.length - 1);
  S.rstep = Math.min(S.rstep, C.stepsR.length - 1);
  C.seenF = reached(graph, C.view, C.stepsF, S.fstep, 'f');
  C.seenR = reached(graph, C.view, C.stepsR, S.rstep, 'r');
  C.doneF = new Set(
    C.stepsF.slice(0, S.fstep + 1).flatMap((/** @type {any} */ q) => q.edges.map((/** @type {Edge} */ e) => e.id)),
  );
  C.doneR = new Set(
    C.stepsR.slice(0, S.rstep + 1).flatMap((/** @type {any} */ q) => q.edges.map((/** @type {Edge} */ e) => e.id)),
  );
  const now = (S.mode === 'f' ? C.stepsF : C.stepsR)[S.mode === 'f' ? S.fstep : S.rstep];
  C.stepNode = now?.node?.id ?? (S.mode === 'f' ? C.source?.id : C.target?.id);
  C.stepEdges = new Set((now?.edges ?? []).map((/** @type {Edge} */ e) => e.id));
  C.uses = new Map();
  for (const e of C.view.edges) C.uses.set(e.from.id, (C.uses.get(e.from.id) ?? 0) + 1);
  const ins = new Map();
  for (const e of C.view.edges) ins.set(e.to.id, (ins.get(e.to.id) ?? 0) + 1);
  C.chain =
    C.view.nodes.length > 1 &&
    C.view.edges.length === C.view.nodes.length - 1 &&
    [...C.uses.values(), ...ins.values()].every((v) => v === 1);
}

/** A letter for the index of a sum, none that a value has for its name. @param {App} app @param {number} k */
export function indexLetter(app, k) {
  const names = new Set(app.C.view.nodes.map((/** @type {any} */ n) => split(n.symbol)[0])),
    free = [...'klpqrstuvw'].filter((c) => !names.has(c));
  return free[k % free.length] ?? 'k';
}
