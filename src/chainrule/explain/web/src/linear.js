// @ts-check
// A local Jacobian as the data stores it: entries that are there, products with it, nothing more.


/** Numbers that JSON has no word for come as text. @param {any} x @returns {number} */
export const num = (x) =>
  typeof x === 'number'
    ? x
    : x == null
      ? NaN
      : x === 'Infinity' || x === 'inf'
        ? Infinity
        : x === '-Infinity' || x === '-inf'
          ? -Infinity
          : Number(x);

/** A linear map with the entries of its pattern; `entries` is null where the data holds only a picture of it. */
export class Lin {
  /**
   * @param {number} rows @param {number} cols
   * @param {{rows: ArrayLike<number>, cols: ArrayLike<number>, values: ArrayLike<number>} | null} entries
   * @param {Record<string, any>} [about]
   */
  constructor(rows, cols, entries, about = {}) {
    this.rows = rows;
    this.cols = cols;
    this.entries = entries;
    this.kind = about.kind ?? 'dense';
    this.words = about.words ?? this.kind;
    this.stored = about.stored ?? entries?.values.length ?? null;
    this.nnz = about.nnz ?? entries?.values.length ?? null;
    this.norm = about.norm ?? (entries ? Math.hypot(...Array.from(entries.values)) : null);
    this.image = about.image ?? null;
    this.about = about;
    /** @type {Map<number, number> | null} */
    this._at = null;
    /** @type {[number[][], number[][]] | null} */
    this._lists = null;
  }
  get known() {
    return this.entries != null;
  }
  get shape() {
    return `${this.rows}×${this.cols}`;
  }
  /** The entry, or null where the structure says that there is none. @param {number} i @param {number} j */
  get(i, j) {
    if (!this.entries) return null;
    if (!this._at) {
      this._at = new Map();
      const { rows, cols, values } = this.entries;
      for (let k = 0; k < values.length; k++) this._at.set(rows[k] * this.cols + cols[k], values[k]);
    }
    return this._at.get(i * this.cols + j) ?? null;
  }
  /** Positions in `entries`, by row and by column. */
  lists() {
    if (!this._lists && this.entries) {
      const { rows, cols, values } = this.entries;
      const byRow = Array.from({ length: this.rows }, () => /** @type {number[]} */ ([]));
      const byCol = Array.from({ length: this.cols }, () => /** @type {number[]} */ ([]));
      for (let k = 0; k < values.length; k++) {
        byRow[rows[k]].push(k);
        byCol[cols[k]].push(k);
      }
      this._lists = [byRow, byCol];
    }
    return this._lists;
  }
  /** @param {ArrayLike<number>} v @param {Float64Array} out added into */
  apply(v, out) {
    const { rows, cols, values } = /** @type {any} */ (this.entries);
    for (let k = 0; k < values.length; k++) if (v[cols[k]] !== 0) out[rows[k]] += values[k] * v[cols[k]];
    return out;
  }
  /** @param {ArrayLike<number>} g @param {Float64Array} out added into */
  applyT(g, out) {
    const { rows, cols, values } = /** @type {any} */ (this.entries);
    for (let k = 0; k < values.length; k++) if (g[rows[k]] !== 0) out[cols[k]] += values[k] * g[rows[k]];
    return out;
  }
  /** A table of numbers and nulls, for small ones. @returns {(number | null)[][]} */
  table() {
    return Array.from({ length: this.rows }, (_, i) => Array.from({ length: this.cols }, (_, j) => this.get(i, j)));
  }
  /** What one product with a vector multiplies: entries that only move a number cost nothing. */
  get multiplications() {
    if (['identity', 'selection', 'permutation', 'zero'].includes(this.kind)) return 0;
    return this.stored;
  }
}

/** Singular values of a small table, by Jacobi rotations on its columns. @param {number[][]} a */
export function singular(a) {
  const rows = a.length,
    cols = a[0]?.length ?? 0;
  const u = rows < cols ? a[0].map((_, j) => a.map((r) => r[j])) : a.map((r) => r.slice());
  const M = u.length,
    N = u[0]?.length ?? 0;
  for (let sweep = 0; sweep < 40; sweep++) {
    let off = 0;
    for (let p = 0; p < N - 1; p++)
      for (let q = p + 1; q < N; q++) {
        let x = 0,
          y = 0,
          z = 0;
        for (let i = 0; i < M; i++) {
          x += u[i][p] ** 2;
          y += u[i][q] ** 2;
          z += u[i][p] * u[i][q];
        }
        if (Math.abs(z) <= 1e-15 * Math.sqrt(x * y) || z === 0) continue;
        off = Math.max(off, Math.abs(z) / Math.sqrt(x * y));
        const t0 = (y - x) / (2 * z),
          t = Math.sign(t0 || 1) / (Math.abs(t0) + Math.hypot(1, t0)),
          c = 1 / Math.hypot(1, t),
          sn = c * t;
        for (let i = 0; i < M; i++) {
          const v = u[i][p];
          u[i][p] = c * v - sn * u[i][q];
          u[i][q] = sn * v + c * u[i][q];
        }
      }
    if (off < 1e-14) break;
  }
  return Array.from({ length: N }, (_, j) => Math.sqrt(u.reduce((t, r) => t + r[j] ** 2, 0))).sort((x, y) => y - x);
}

/** @param {number[]} sv @param {number} rows @param {number} cols */
export const rankOf = (sv, rows, cols) => sv.filter((v) => v > Math.max(rows, cols) * 2.3e-16 * (sv[0] || 0)).length;

/** The determinant by elimination with pivots. @param {number[][]} table */
export function determinant(table) {
  const a = table.map((r) => r.slice());
  let d = 1;
  for (let k = 0; k < a.length; k++) {
    let p = k;
    for (let i = k + 1; i < a.length; i++) if (Math.abs(a[i][k]) > Math.abs(a[p][k])) p = i;
    if (a[p][k] === 0) return 0;
    if (p !== k) {
      [a[p], a[k]] = [a[k], a[p]];
      d = -d;
    }
    d *= a[k][k];
    for (let i = k + 1; i < a.length; i++) {
      const f = a[i][k] / a[k][k];
      for (let j = k; j < a.length; j++) a[i][j] -= f * a[k][j];
    }
  }
  return d;
}

/** A vector of the kernel, or null where there is only zero (elimination with full pivots). @param {number[][]} table */
export function kernel(table) {
  const a = table.map((r) => r.slice()),
    M = a.length,
    N = a[0]?.length ?? 0;
  const order = Array.from({ length: N }, (_, j) => j);
  const top = Math.max(1e-300, ...a.flat().map(Math.abs));
  let r = 0;
  for (; r < Math.min(M, N); r++) {
    let pi = r,
      pj = r;
    for (let i = r; i < M; i++)
      for (let j = r; j < N; j++)
        if (Math.abs(a[i][j]) > Math.abs(a[pi][pj])) {
          pi = i;
          pj = j;
        }
    if (Math.abs(a[pi][pj]) <= 1e-13 * top) break;
    [a[r], a[pi]] = [a[pi], a[r]];
    for (const row of a) [row[r], row[pj]] = [row[pj], row[r]];
    [order[r], order[pj]] = [order[pj], order[r]];
    for (let i = 0; i < M; i++)
      if (i !== r) {
        const f = a[i][r] / a[r][r];
        for (let j = r; j < N; j++) a[i][j] -= f * a[r][j];
      }
  }
  if (r === N) return null;
  const k = new Array(N).fill(0);
  k[order[r]] = 1;
  for (let i = 0; i < r; i++) k[order[i]] = -a[i][r] / a[i][i];
  const n = Math.hypot(...k);
  return k.map((v) => v / n);
}
