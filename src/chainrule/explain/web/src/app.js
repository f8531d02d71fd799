// @ts-check
// State, what follows from it, and the skeleton of the page; every pane is drawn from the state by its own module.
import * as details from './details.js';
import { compute } from './derive.js';
import { said } from './boxes.js';
import { draw as drawCanvas, minimap, place, plan } from './canvas.js';
import { cut, fmt, s } from './dom.js';
import { cost } from './cost.js';
import { explore } from './explore.js';
import { geometry } from './geometry.js';
import { Graph } from './graph.js';
import { layout, layoutApart } from './layout.js';
import { memory, practice } from './practice.js';
import { skeleton } from './skeleton.js';
import { push } from './sweep.js';
import { transport } from './transport.js';

/** @typedef {import('./graph.js').Value} Value */
/** @typedef {import('./graph.js').Edge} Edge */

/** Values and edges above which the layout leaves the page's own thread. */
const APART = 1200;

/** Boxes above which only those in sight are drawn. */
const CULL = 250;

export class App {
  /**
   * @param {ShadowRoot} root @param {{data: any, evaluate?: any, life?: string, html?: string, css: string, font: string}} options
   */
  constructor(root, options) {
    this.root = root;
    this.options = options;
    this.evaluate = options.evaluate ?? null;
    this.life = options.life ?? (this.evaluate ? 'kernel' : 'snapshot');
    /** @type {any} */
    this.S = {
      level: 'c',
      i: 0,
      j: 0,
      focus: 0,
      mode: 'r',
      fstep: 0,
      rstep: 0,
      speed: 1,
      play: 0,
      dx: [],
      g: null,
      tab: 'e',
      block: 'level',
      axes: [0, 1],
      rows: [0, 1],
      large: false,
      flip: false,
      zeros: false,
      edge: null,
      only: false,
      box: null,
      dragging: false,
    };
    /** @type {any} */
    this.C = {};
    this.trueAt = { key: '', value: /** @type {number[] | null} */ (null), asked: '' };
    /** @type {any} */ this.grid = null;
    /** @type {any} */ this.curve = null;
    /** @type {number | undefined} */ this.pending = undefined;
    /** @type {any} */ this.extent = null;
    this.top = 0;
    this.graph = new Graph({});
    this.loaded = false;
    this.load(options.data);
    const kept = memory.read(`practice:${this.graph.data.function?.name ?? ''}`) ?? {};
    this.P = {
      set: 0,
      level: 'easy',
      ans: /** @type {any} */ ({}),
      row: kept.row ?? {},
      right: kept.right ?? 0,
      open: kept.open ?? 0,
    };
    this.ui = skeleton(this);
    this.start();
  }
  /** @param {any} data */
  load(data) {
    const folded = this.loaded ? this.graph.folded : null;
    this.loaded = true;
    this.graph = new Graph(data);
    if (folded) this.graph.folded = folded;
    else {
      const n = this.graph.n,
        dx = new Array(n).fill(0);
      if (n) dx[0] = 0.2;
      if (n > 1) dx[1] = 0.3;
      this.S.dx = dx;
      const told = data.paths?.[0]; // of a large function those of one entry alone
      if (told?.i < this.graph.m && told.j < n) Object.assign(this.S, { i: told.i, j: told.j });
      if (this.graph.nodes.length > 60 || this.graph.groups.size)
        this.S.level = this.graph.nodes.length > 60 ? 'o' : 'c';
    }
    this.trueAt = { key: '', value: null, asked: '' };
    this.grid = null;
    this.curve = null;
    this.stale = true;
  }
  g() {
    return this.S.g ?? Array.from({ length: this.graph.m }, (_, i) => (i === this.S.i ? 1 : 0));
  }

  pushUnit(/** @type {number} */ c) {
    return push(
      this.graph,
      this.C.view,
      Array.from({ length: this.graph.n }, (_, q) => (q === c ? 1 : 0)),
    );
  }

  start() {
    this.draw();
  }
  /** Draws now, or with the next frame while something is dragged. */
  draw(later = false) {
    if (later) {
      this.pending ??= requestAnimationFrame(() => {
        this.pending = undefined;
        this.paint();
      });
      return;
    }
    this.paint();
  }
  paint() {
    compute(this);
    const { ui, S } = this,
      kept = /** @type {HTMLElement | null} */ (this.root.activeElement)?.dataset?.f;
    const caret = kept?.startsWith('ans:') ? /** @type {any} */ (this.root.activeElement).selectionStart : null;
    this.paintCanvas();
    transport(this);
    ui.pane.replaceChildren(...(S.tab === 'e' ? explore(this) : practice(this)));
    ui.cost.replaceChildren(...cost(this));
    ui.geo.replaceChildren(geometry(this));
    ui.sync();
    if (kept) {
      const again = /** @type {HTMLElement | null} */ (this.root.querySelector(`[data-f="${CSS.escape(kept)}"]`));
      again?.focus({ preventScroll: true });
      if (caret != null && again) /** @type {any} */ (again).setSelectionRange(caret, caret);
    }
  }
  paintCanvas() {
    const { C, ui } = this,
      view = C.view;
    if (!view.nodes.length) {
      ui.svg.replaceChildren(
        s('text', { x: 480, y: 60, 'text-anchor': 'middle', class: 'dim' }, 'No value depends on the input.'),
      );
      this.frame({ x: 0, y: 0, w: 960, h: 120 }, 0);
      this.sight();
      return;
    }
    if (C.geoKey !== C.key) {
      const p = plan(this, view);
      if (p.graph.nodes.length + p.graph.edges.length > APART) {
        if (C.asking === C.key) return;
        C.asking = C.key;
        ui.svg.replaceChildren(
          s(
            'text',
            { x: 480, y: 60, 'text-anchor': 'middle', class: 'dim' },
            `laying out ${p.graph.nodes.length} values…`,
          ),
        );
        layoutApart(p.graph, p.options).then((out) => {
          if (C.asking !== C.key) return;
          C.geo = place(this, view, out, p.keys);
          C.geoKey = C.key;
          C.asking = null;
          this.S.box = null;
          this.paint();
        });
        return;
      }
      C.geo = place(this, view, layout(p.graph, p.options), p.keys);
      C.geoKey = C.key;
      this.S.box = null;
    }
    drawCanvas(this, ui.svg);
    this.sight();
  }
  /** The part of the picture that is in sight: all of a small one, the beginning of a large one. @param {any} extent @param {number} top */
  frame(extent, top) {
    const S = this.S,
      e = extent,
      { C } = this;
    this.extent = e;
    this.top = top;
    if (!S.box) {
      const w = Math.min(Math.max(e.w, 960), 1350),
        h = e.h <= w * 0.8 ? Math.max(140, e.h) : w * 0.6,
        first = C.geo?.at.get(C.source?.id ?? '');
      S.box = {
        x: e.w < 960 ? (e.w - 960) / 2 : 0,
        y: first ? Math.max(0, Math.min(e.h - h, top + first.y + first.h / 2 - h / 2)) : 0,
        w,
        h,
      };
    }
    this.drawn = { ...S.box };
  }
  /** @param {any} q a box of the layout */
  inSight(q) {
    if (this.C.view.nodes.length <= CULL) return true;
    const b = this.S.box,
      x = q.x + 30,
      y = q.y + this.top;
    return x + q.w > b.x - b.w * 0.6 && x < b.x + b.w * 1.6 && y + q.h > b.y - b.h * 0.6 && y < b.y + b.h * 1.6;
  }
  sight() {
    const b = this.S.box,
      { svg, map } = this.ui,
      large = this.C.view.nodes.length > 60;
    svg.setAttribute('viewBox', `${b.x} ${b.y} ${b.w} ${b.h}`);
    svg.style.aspectRatio = `${b.w} / ${b.h}`;
    map.toggleAttribute('hidden', !large);
    if (large) minimap(this, map);
  }
  /** @param {number} dx @param {number} dy in units of the picture */
  pan(dx, dy) {
    const b = this.S.box;
    b.x -= dx;
    b.y -= dy;
    this.sight();
    const d = this.drawn;
    if (this.C.view.nodes.length > CULL && (!d || Math.abs(d.x - b.x) > b.w * 0.4 || Math.abs(d.y - b.y) > b.h * 0.4))
      this.paintCanvas();
  }
  /** @param {number} k @param {number} [cx] @param {number} [cy] */
  zoom(k, cx = 0.5, cy = 0.5) {
    const b = this.S.box,
      most = Math.max(960, this.extent.w, (this.extent.h * b.w) / b.h) * 1.3,
      w = Math.max(200, Math.min(most, b.w / k)),
      q = w / b.w;
    b.x += b.w * (1 - q) * cx;
    b.y += b.h * (1 - q) * cy;
    b.w = w;
    b.h *= q;
    if (this.C.view.nodes.length > CULL) this.paintCanvas();
    else this.sight();
  }
  fit() {
    const e = this.extent;
    this.S.box = null;
    this.frame(e, this.top);
    const b = this.S.box,
      k = Math.max(1, e.w / b.w, e.h / b.h);
    if (k > 1) this.S.box = { x: (e.w - b.w * k) / 2, y: (e.h - b.h * k) / 2, w: b.w * k, h: b.h * k };
    this.paintCanvas();
  }
  /** Brings a value into sight. @param {Value} n */
  show(n) {
    const at = this.C.geo?.at.get(n.id);
    if (!at) return;
    const b = this.S.box,
      x = at.x + 30,
      y = at.y + this.top,
      old = [b.x, b.y];
    if (x < b.x || x + at.w > b.x + b.w) b.x = x + at.w / 2 - b.w / 2;
    if (y < b.y || y + at.h > b.y + b.h) b.y = y + at.h / 2 - b.h / 2;
    if (old[0] !== b.x || old[1] !== b.y) this.paintCanvas();
  }

  /** @param {number} i @param {number} j */
  pick(i, j) {
    if (i >= 0 && i < this.graph.m) this.S.i = i;
    if (j >= 0 && j < this.graph.n) this.S.j = j;
    this.S.focus = 0;
    this.draw();
  }
  /** @param {Value} n @param {number} k */
  isPicked(n, k) {
    return (n === this.C.source && (k < 0 || k === this.C.j)) || (n === this.C.target && (k < 0 || k === this.C.i));
  }
  /** @param {Value} n @param {number} k */
  canPick(n, k) {
    return this.graph.inputIndex(n, k) >= 0 || this.graph.outputIndex(n, k) >= 0;
  }
  /** @param {Value} n @param {number} k */
  pickComponent(n, k) {
    const j = this.graph.inputIndex(n, k),
      i = this.graph.outputIndex(n, k);
    if (i >= 0 || j >= 0) {
      this.pick(i, j);
      return;
    }
    const q =
      this.C.sums?.top.findIndex((/** @type {any} */ p) =>
        p.hops.some((/** @type {any} */ hop) => hop.edge.to === n && hop.i === k),
      ) ?? -1;
    if (q >= 0) {
      this.S.focus = q;
      this.draw();
    }
  }
  /** One entry of a local Jacobian: its best path lights up. @param {Edge} e @param {number} i @param {number} j */
  pickEdge(e, i, j) {
    const S = this.S;
    S.edge = e.id;
    const has = (/** @type {any} */ p) => p.hops.some((/** @type {any} */ q) => q.edge === e && q.i === i && q.j === j);
    const into = this.graph.inputIndex(e.from, j),
      out = this.graph.outputIndex(e.to, i);
    if (into >= 0) S.j = into;
    if (out >= 0) S.i = out;
    compute(this);
    const q = this.C.sums?.top.findIndex(has) ?? -1;
    if (q >= 0) S.focus = q;
    const v = e.map.get(i, j);
    this.say(
      `∂${said(e.to, i)}/∂${said(e.from, j)} = ${v == null ? 'zero by structure' : fmt(v, 4)}${q >= 0 ? `, on path ${q + 1}` : ', on none of the paths listed'}`,
    );
    this.draw();
  }
  /** @param {Edge | null} e */
  openEdge(e) {
    if (e) this.S.edge = e.id;
    details.jacobian(this, e);
  }
  /** @param {Value} n */
  openValue(n) {
    details.value(this, n);
  }
  /** @param {string} group @param {boolean} yes */
  fold(group, yes) {
    if (yes) this.graph.folded.add(group);
    else this.graph.folded.delete(group);
    this.stale = true;
    this.draw();
  }
  /** @param {boolean} yes */
  foldAll(yes) {
    this.graph.folded = new Set(yes ? [...this.graph.groups.keys()].map(String) : []);
    this.stale = true;
  }
  /** Unfolds what hides a value. @param {Value} n */
  reveal(n) {
    for (const g of this.graph.chain(n)) this.graph.folded.delete(g);
    this.stale = true;
    this.draw();
    this.show(n);
  }
  /** @param {string} text */
  say(text) {
    this.ui.said.textContent = text;
  }
  remember() {
    const P = this.P;
    memory.write(`practice:${this.graph.data.function?.name ?? ''}`, { row: P.row, right: P.right, open: P.open });
  }

  /** Moves the point: the host explains anew, the page keeps its state. @param {number[]} x */
  async move(x) {
    if (!this.evaluate || !this.graph.whole) return;
    const turn = (this.turn = (this.turn ?? 0) + 1);
    try {
      const data = await this.evaluate(x);
      if (turn !== this.turn) return;
      if (data?.error) throw new Error(String(data.error));
      this.load(data);
      this.draw();
      this.say(
        `point ${x
          .slice(0, 4)
          .map((v) => fmt(v, 2))
          .join(', ')}`,
      );
    } catch (e) {
      this.failed(e);
    }
  }
  failed(/** @type {any} */ e) {
    this.say(`The evaluation failed: ${cut(String(e?.message ?? e), 160)}`);
    this.ui.warn(cut(String(e?.message ?? e), 160));
  }
}
