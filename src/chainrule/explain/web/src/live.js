// @ts-check
// What is true beside what the Jacobian predicts: f itself, where something evaluates it or the data has samples.
import { Graph } from './graph.js';
import { REACH } from './plane.js';

/** @typedef {import('./app.js').App} App */

/** f(x + Δx) − f(x) for the output that was picked, or null until it is known. @param {App} app */
export function trueChange(app) {
  const { S, graph } = app,
    x = graph.point(),
    y = graph.result(),
    key = JSON.stringify([x.slice(0, 64), S.dx.slice(0, 64)]);
  if (app.trueAt.key === key) return app.trueAt.value ? app.trueAt.value[S.i] - y[S.i] : null;
  if (!app.evaluate) return sampled(app, x, y);
  if (!app.graph.whole) return null;
  if (app.trueAt.asked !== key) {
    app.trueAt.asked = key;
    const to = x.map((/** @type {number} */ v, /** @type {number} */ k) => v + S.dx[k]);
    values(app, [to])
      .then(([value]) => {
        if (app.trueAt.asked === key) {
          app.trueAt = { key, value, asked: key };
          app.draw();
        }
      })
      .catch((e) => app.failed(e));
  }
  return null;
}

/** From the samples of a snapshot, where the data has some: cubic between the points of the grid. @param {number[]} x @param {number[]} y @param {App} app */
function sampled(app, x, y) {
  const at = sampleAt(app, x[0] + app.S.dx[0], x[1] + app.S.dx[1]);
  return at == null ? null : at - y[0];
}

/** @param {number} u @param {number} v @returns {number | null} @param {App} app */
function sampleAt(app, u, v) {
  const q = app.graph.data.samples;
  if (!q || app.graph.n !== 2 || app.graph.m !== 1 || q.n < 4) return null;
  const at = [u, v].map((t, d) => ((t - q.low[d]) / (q.high[d] - q.low[d])) * (q.n - 1));
  if (at.some((t) => !(t >= -1e-9 && t <= q.n - 1 + 1e-9))) return null;
  const first = at.map((t) => Math.max(0, Math.min(q.n - 4, Math.floor(t) - 1)));
  const weights = at.map((t, d) =>
    [0, 1, 2, 3].map((k) => [0, 1, 2, 3].reduce((p, l) => (l === k ? p : (p * (t - first[d] - l)) / (k - l)), 1)),
  );
  let sum = 0;
  for (let r = 0; r < 4; r++)
    for (let c = 0; c < 4; c++)
      sum += weights[1][r] * weights[0][c] * Number(q.values[(first[1] + r) * q.n + first[0] + c]);
  return sum;
}

/** f at some points: one light call where the host has it. @param {number[][]} points @returns {Promise<number[][]>} @param {App} app */
export async function values(app, points) {
  if (app.evaluate.points)
    return (await app.evaluate.points(points)).map((/** @type {any[]} */ v) => v.map(Number));
  const out = [];
  for (const p of points) out.push(new Graph(await app.evaluate(p)).result());
  return out;
}

/** Values on a grid around the point for the lines of equal value, or null. @param {App} app */
export function level(app) {
  const { graph, S } = app,
    [a, b] = S.axes,
    x = graph.point();
  if (!app.evaluate) {
    const key = JSON.stringify(x.slice(0, 2));
    if (app.grid?.key !== key) {
      const n = 25,
        at = (/** @type {number} */ d, /** @type {number} */ k) => x[d] + REACH * 0.999 * ((2 * k) / (n - 1) - 1);
      const values = Array.from({ length: n * n }, (_, k) => sampleAt(app, at(0, k % n), at(1, Math.floor(k / n))));
      app.grid = {
        key,
        n,
        base: graph.result()[0],
        values: values.every((v) => v != null && Number.isFinite(v)) ? values : null,
      };
    }
    return app.grid.values && a === 0 && b === 1 ? app.grid : null;
  }
  if (!app.evaluate.points || b >= graph.n || !graph.whole) return null;
  const key = JSON.stringify([x.slice(0, 64), a, b]),
    n = 25;
  if (app.grid?.key === key)
    return app.grid.values
      ? { n, values: app.grid.values.map((/** @type {number[]} */ v) => v[S.i]), base: graph.result()[S.i] }
      : null;
  app.grid = { key, values: /** @type {number[][] | null} */ (null) };
  const points = Array.from({ length: n * n }, (_, k) => {
    const p = x.slice();
    p[a] += REACH * ((2 * (k % n)) / (n - 1) - 1);
    p[b] += REACH * ((2 * Math.floor(k / n)) / (n - 1) - 1);
    return p;
  });
  values(app, points)
    .then((values) => {
      if (app.grid?.key === key) {
        app.grid = { key, values };
        app.draw();
      }
    })
    .catch((e) => app.failed(e));
  return null;
}

/** The change of the output along one input, or null. @param {App} app */
export function line(app) {
  const { graph, S } = app,
    x = graph.point(),
    key = JSON.stringify(x.slice(0, 8));
  if (!app.evaluate?.points || graph.n !== 1) return null;
  if (app.curve?.key === key)
    return app.curve.values?.map((/** @type {number[]} */ v) => v[S.i] - graph.result()[S.i]) ?? null;
  app.curve = { key, values: /** @type {number[][] | null} */ (null) };
  values(app, Array.from({ length: 49 }, (_, k) => [x[0] + REACH * (k / 24 - 1)]))
    .then((values) => {
      app.curve = { key, values };
      app.draw();
    })
    .catch((e) => app.failed(e));
  return null;
}
