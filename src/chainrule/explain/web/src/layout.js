// @ts-nocheck: the algorithm as it was measured, in short names; its callers are typed.
// Own layered layout: longest path with sources pulled in, dummy chains, barycenter sweeps with transpositions,
// coordinates by isotonic regression toward weighted means of the neighbours. It stands alone: a worker gets its text.
export function layout(g, { hgap = 24, vgap = 44, sweeps = 8, passes = 12 } = {}) {
  const N = g.nodes.map((n, i) => ({ ...n, i, in: [], out: [], dummy: false }));
  const byId = new Map(N.map((n) => [n.id, n]));
  const E = g.edges.map(([a, b]) => [byId.get(a), byId.get(b)]);
  for (const [a, b] of E) {
    a.out.push(b);
    b.in.push(a);
  }
  // layers (Kahn order = program order)
  const deg = N.map((n) => n.in.length),
    q = N.filter((n) => !n.in.length),
    topo = [];
  for (const n of N) n.l = 0;
  for (let k = 0; k < q.length; k++) {
    const n = q[k];
    topo.push(n);
    for (const m of n.out) {
      m.l = Math.max(m.l, n.l + 1);
      if (!--deg[m.i]) q.push(m);
    }
  }
  for (let k = topo.length - 1; k >= 0; k--) {
    const n = topo[k];
    if (n.out.length && (n.in.length <= 1 || n.in.length < n.out.length)) {
      let m = Infinity;
      for (const o of n.out) m = Math.min(m, o.l);
      n.l = Math.max(n.l, m - 1);
    }
  }
  // dummies
  const all = [...N],
    chains = [];
  for (const n of all) {
    n.up = [];
    n.dn = [];
  }
  for (const [a, b] of E) {
    let p = a;
    const c = [];
    for (let l = a.l + 1; l < b.l; l++) {
      const d = { dummy: true, w: 2, h: 0, l, up: [p], dn: [], i: all.length };
      p.dn.push(d);
      all.push(d);
      c.push(d);
      p = d;
    }
    p.dn.push(b);
    b.up.push(p);
    chains.push(c);
  }
  const L = [];
  for (const n of all) (L[n.l] ||= []).push(n);
  for (let l = 0; l < L.length; l++) L[l] ||= [];
  // initial order: DFS from sources in program order
  const seen = new Set(),
    ord = [];
  const st = [...L.flat().filter((n) => !n.up.length)].sort((a, b) => a.l - b.l || a.i - b.i).reverse();
  while (st.length) {
    const n = st.pop();
    if (seen.has(n)) continue;
    seen.add(n);
    ord.push(n);
    for (let k = n.dn.length - 1; k >= 0; k--) if (!seen.has(n.dn[k])) st.push(n.dn[k]);
  }
  ord.forEach((n, k) => (n.o = k));
  for (const lay of L) {
    lay.sort((a, b) => a.o - b.o);
    lay.forEach((n, k) => (n.p = k));
  }
  const crossPair = (u, v, key) => {
    let c = 0;
    for (const a of u[key]) for (const b of v[key]) if (a.p > b.p) c++;
    return c;
  };
  const total = () => {
    let c = 0;
    for (let l = 1; l < L.length; l++) {
      const es = [];
      for (const n of L[l]) {
        const ps = n.up.map((m) => m.p).sort((a, b) => a - b);
        es.push(...ps);
      } // count inversions via Fenwick
      const m = L[l - 1].length,
        T = new Int32Array(m + 1);
      for (let k = es.length - 1; k >= 0; k--) {
        for (let i = es[k]; i > 0; i -= i & -i) c += T[i];
        for (let i = es[k] + 1; i <= m; i += i & -i) T[i]++;
      }
    }
    return c;
  };
  const save = () => L.map((l) => l.slice()),
    load = (s) =>
      s.forEach((l, k) => {
        L[k] = l;
        l.forEach((n, j) => (n.p = j));
      });
  let best = total(),
    bestO = save();
  for (let s = 0; s < sweeps && best > 0; s++) {
    const down = s % 2 === 0,
      key = down ? 'up' : 'dn';
    for (let k = 1; k < L.length; k++) {
      const lay = L[down ? k : L.length - 1 - k];
      for (const n of lay) n.b = n[key].length ? n[key].reduce((t, m) => t + m.p, 0) / n[key].length : n.p;
      lay.sort((a, b) => a.b - b.b || a.p - b.p);
      lay.forEach((n, j) => (n.p = j));
      for (let moved = true, it = 0; moved && it < 4; it++) {
        moved = false;
        for (let j = 0; j + 1 < lay.length; j++) {
          const u = lay[j],
            v = lay[j + 1];
          const now = crossPair(u, v, 'up') + crossPair(u, v, 'dn'),
            sw = crossPair(v, u, 'up') + crossPair(v, u, 'dn');
          if (sw < now) {
            lay[j] = v;
            lay[j + 1] = u;
            v.p = j;
            u.p = j + 1;
            moved = true;
          }
        }
      }
    }
    const c = total();
    if (c < best) {
      best = c;
      bestO = save();
    }
  }
  load(bestO);
  // x by PAV
  for (const lay of L) {
    let x = 0;
    for (const n of lay) {
      n.x = x + n.w / 2;
      x += n.w + hgap;
    }
  }
  const pav = (lay, want, wt) => {
    const S = [0];
    for (let i = 1; i < lay.length; i++)
      S[i] = S[i - 1] + (lay[i - 1].w + lay[i].w) / 2 + (lay[i - 1].dummy && lay[i].dummy ? 10 : hgap);
    const bl = [];
    for (let i = 0; i < lay.length; i++) {
      let b = { s: wt[i] * (want[i] - S[i]), w: wt[i], n: 1 };
      while (bl.length && bl[bl.length - 1].s / bl[bl.length - 1].w > b.s / b.w) {
        const t = bl.pop();
        b = { s: b.s + t.s, w: b.w + t.w, n: b.n + t.n };
      }
      bl.push(b);
    }
    let i = 0;
    for (const b of bl) for (let k = 0; k < b.n; k++, i++) lay[i].x = b.s / b.w + S[i];
  };
  for (let s = 0; s < passes; s++) {
    const down = s % 2 === 0;
    for (let k = 0; k < L.length; k++) {
      const lay = L[down ? k : L.length - 1 - k];
      const want = [],
        wt = [];
      for (const n of lay) {
        const ns = s < 2 ? (down ? n.up : n.dn) : n.up.concat(n.dn);
        let a = 0,
          w = 0;
        for (const m of ns) {
          const q = n.dummy && m.dummy ? 8 : n.dummy || m.dummy ? 2 : 1;
          a += q * m.x;
          w += q;
        }
        want.push(w ? a / w : n.x);
        wt.push(n.dummy ? 4 : Math.max(1, w));
      }
      pav(lay, want, wt);
    }
  }
  let minx = Infinity;
  for (const n of all) minx = Math.min(minx, n.x - n.w / 2);
  let y = 0;
  for (const lay of L) {
    const h = Math.max(0, ...lay.map((n) => n.h));
    for (const n of lay) {
      n.x -= minx;
      n.y = y + h / 2;
    }
    y += h + vgap;
  }
  return {
    nodes: N.map((n) => ({ id: n.id, x: n.x, y: n.y, l: n.l, w: n.w, h: n.h })),
    edges: E.map(([a, b], k) => [a, ...chains[k], b].map((p) => [p.x, p.y])),
    crossings: best,
    dummies: all.length - N.length,
  };
}

/** The layout in a worker of its own, for graphs that would stop the page; without workers, here. */
export function layoutApart(g, options) {
  try {
    const text = `const layout=${layout.toString()};onmessage=e=>postMessage(layout(...e.data))`;
    const url = URL.createObjectURL(new Blob([text], { type: 'text/javascript' }));
    const worker = new Worker(url);
    return new Promise((done) => {
      const end = (out) => {
        worker.terminate();
        URL.revokeObjectURL(url);
        done(out);
      };
      worker.onmessage = (e) => end(e.data);
      worker.onerror = (e) => {
        e.preventDefault();
        end(layout(g, options));
      };
      worker.postMessage([g, options]);
    });
  } catch {
    return Promise.resolve(layout(g, options));
  }
}
