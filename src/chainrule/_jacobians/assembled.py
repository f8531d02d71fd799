"""The Jacobian whose entries are stored, as broadcast-ELLPACK blocks."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._blocks.apply import contracted, taken
from chainrule._blocks.block import Block, merge
from chainrule._errors import MemoryLimitError
from chainrule._jacobians.jacobian import Jacobian
from chainrule._jacobians.layout import Entry, Layout
from chainrule._jacobians.structure import Structure
from chainrule._linalg.stored import StoredEntries
from chainrule._mesh import within_automatic
from chainrule._space import Space, converted, promoted

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Inexact


@within_automatic("coo", "dense")
class Assembled(StoredEntries, Jacobian):
    """A Jacobian of stored entries."""

    _layout: Layout
    _values: tuple[Any, ...]

    def __init__(self, layout: Layout, values: tuple[Any, ...]):
        own = self.__dict__
        own["_layout"], own["_values"] = layout, values

    # a map without unknown values still carries one leaf, so that `vmap` can count a batch of it
    @classmethod
    def of(cls, like: Layout, blocks: Sequence[tuple[int, Block]]) -> Assembled:
        other = like.rows if like.flipped else like.columns
        entries = tuple(
            Entry(o, b.shape, b.cols, b.vals if b.static else None, b.vals.shape, b.rows, _split(b, other))
            for o, b in blocks
        )
        values = tuple(_spread(b.vals, e) for e, (_, b) in zip(entries, blocks, strict=True) if not b.static)
        return cls(replace(like, entries=entries), values or (jnp.zeros((), like.dtype),))

    def __copy__(self) -> Assembled:
        return self

    def __deepcopy__(self, _: Any) -> Assembled:
        return self

    def __reduce__(self) -> Any:
        raise TypeError("a Jacobian holds pytree structures that cannot be pickled; save .coo() or .scipy() instead")

    @property
    def _rows(self) -> Space:
        return self._layout.rows

    @property
    def _columns(self) -> Space:
        return self._layout.columns

    @property
    def dtype(self) -> Any:
        """The dtype of the entries."""
        return self._layout.dtype

    @property
    def order(self) -> str:
        """In which direction the chain rule was accumulated."""
        return self._layout.order

    @property
    def cost(self) -> int:
        """Multiply-adds of the accumulation, counted from shapes."""
        return self._layout.cost

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """The primitives that no rule covered: JAX applied them to dense columns, which may cost structure."""
        return self._layout.fallbacks

    @property
    def nnz(self) -> int:
        """Number of entries that are not known to vanish."""
        return len(self._layout.pattern.rows)

    @property
    def structure(self) -> Structure:
        """What the static pattern is; `str()` of it gives the words that a person would use."""
        try:
            return self._layout.structure
        except MemoryLimitError:
            return Structure("too large to classify")

    @property
    def _batch(self) -> int:
        ranks = [len(e.vals_shape) - 1 + len(e.split) for e in self._layout.entries if e.known is None] or [0]
        return int(np.ndim(self._values[0]) - ranks[0])

    @property
    def T(self) -> Assembled:
        """The transpose; `J.T @ w` is the pullback of w."""
        return Assembled(self._layout.transposed, self._values)

    def with_specs(self, place: Callable[[Any, Sequence[Any]], Any]) -> Assembled:
        """Each value as `place` puts it that is told how the rows, and where axes are left the columns, are split."""
        specs = [self._layout.spec(e) for e in self._layout.entries if e.known is None] or [()]
        return Assembled(self._layout, tuple(place(v, spec) for v, spec in zip(self._values, specs, strict=True)))

    def _blocks(self) -> list[tuple[int, Block]]:
        left = iter(self._values)
        vals = [_rejoined(next(left), e) if e.known is None else e.known for e in self._layout.entries]
        return [(e.offset, Block(e.shape, e.cols, v, e.rows)) for e, v in zip(self._layout.entries, vals, strict=True)]

    def coo(self) -> tuple[np.ndarray, np.ndarray, Inexact[Array, "*batch nnz"]]:
        """Give (rows, cols, values), unique and row-major; rows and cols are NumPy arrays [nnz]."""
        p = self._layout.pattern
        return p.rows, p.cols, _run(_collect, self)

    def dense(self) -> Inexact[Array, "*batch m n"]:
        """Give the (m, n) array. Raises MemoryLimitError before it allocates what would not fit."""
        self._require_memory("dense")
        return _run(_dense, self)

    def _positions(self) -> tuple[np.ndarray, np.ndarray]:
        return self._layout.pattern.rows, self._layout.pattern.cols

    def _apply(self, v: Inexact[Array, " n"]) -> Inexact[Array, " m"]:
        return _run(_product, self, v)

    def _times(self, scalar: Any) -> Assembled:
        dtype = promoted(self.dtype, scalar)
        by = np.asarray(scalar, dtype) if isinstance(scalar, (int, float, complex)) else jnp.asarray(scalar, dtype)
        if self._batch:
            return jax.vmap(Assembled._times, in_axes=(0, 0 if by.ndim else None))(self, by)
        scaled = [(o, b.with_vals(_scaled(b.vals, by, dtype))) for o, b in self._blocks()]
        return Assembled.of(replace(self._layout, dtype=dtype), scaled)

    def _plus(self, other: Jacobian) -> Jacobian:
        if not isinstance(other, Assembled):
            return other._plus(self)
        a, b = self._layout, other._layout
        if a.flipped != b.flipped or a.rows.sizes != b.rows.sizes or a.columns.sizes != b.columns.sizes:
            other = _like(other, a)
        like = replace(a, cost=a.cost + b.cost, dtype=promoted(a.dtype, b.dtype))
        if self._batch or other._batch:
            return Assembled.of(like, [*self._blocks(), *other._blocks()])
        parts: dict[int, list[Block]] = {}
        for offset, block in [*self._blocks(), *other._blocks()]:
            parts.setdefault(offset, []).append(block.with_vals(converted(block.vals, like.dtype)))
        return Assembled.of(like, [(o, b) for o, blocks in parts.items() for b in merge(blocks)])

    def _magnitudes(self) -> Assembled:
        """|J|, entry by entry."""
        if self._layout.pattern.more is not None:  # some entries are sums
            rows, cols, values = self.coo()
            return from_coo(self._layout, rows, cols, jnp.abs(values))
        like = replace(self._layout, dtype=jnp.zeros((), self.dtype).real.dtype)
        return Assembled.of(like, [(o, b.with_vals(abs(b.vals))) for o, b in self._blocks()])

    def _inverted(self, table: np.ndarray, vals: Any) -> Assembled:
        """J⁻¹ of a table of columns [n, slots] and the values in it."""
        old = self._layout
        like = replace(old, rows=old.columns, columns=old.rows, flipped=False, dtype=vals.dtype)
        return Assembled.of(like, _per_leaf(like.rows, table, vals))

    def _after(self, other: Jacobian) -> Jacobian:
        if not isinstance(other, Assembled):
            return other._before(self)
        return _compose(self, other)


# every call of a compiled transform makes one: no method stands between JAX and the class
jax.tree_util.register_pytree_node(Assembled, operator.attrgetter("_values", "_layout"), Assembled)


def _split(b: Block, other: Space) -> tuple[int, ...]:
    """The last axes of the array that the columns of a block belong to, where its slots are these laid flat.

    XLA fuses what makes the values into a loop over the axes of the result; over axes laid flat it would divide each
    number's place by their sizes, and use no vector instructions.
    """
    if b.vals.shape[-1] == 1:  # a last axis of size 1 would keep XLA's reductions from vector instructions, too
        return ()
    leaf = int(np.searchsorted(other.offsets, b.cols.max(initial=0), side="right")) - 1
    shape = other.shapes[leaf]
    tails = (shape[k:] for k in range(len(shape)))
    return next((tail for tail in tails if math.prod(tail) == b.vals.shape[-1]), b.vals.shape[-1:])


def _spread(vals: Any, e: Entry) -> Any:
    """[..., slots] -> [..., *split]"""
    return vals.reshape((*vals.shape[:-1], *e.split))


def _rejoined(vals: Any, e: Entry) -> Any:
    """[..., *split] -> [..., slots]"""
    return vals.reshape((*vals.shape[: vals.ndim - len(e.split)], e.vals_shape[-1]))


def _scaled(vals: Any, by: Any, dtype: Any) -> Any:
    if isinstance(vals, np.ndarray) and isinstance(by, np.ndarray):
        return (vals * by).astype(dtype)
    return jnp.asarray(vals).astype(dtype) * by


def _run(function: Any, J: Assembled, *operands: Any) -> Any:
    return (function.__wrapped__ if J._layout.passing else function)(J, *operands)


@jax.jit
def _collect(J: Assembled) -> Any:
    if J._batch:
        return jax.vmap(_collect)(J)
    if J.nnz == J.shape[0] * J.shape[1]:
        return _run(_dense, J).reshape(J.nnz)
    return J._layout.pattern.collect([b for _, b in J._blocks()], J.dtype)


@jax.jit
def _dense(J: Assembled) -> Any:
    """[m, n]: blocks that fill their rows are added as they are, the others entry by entry."""
    if J._batch:
        return jax.vmap(_dense)(J)
    m, n = J.shape[::-1] if J._layout.flipped else J.shape
    every, out = np.arange(n), None
    rest = []
    for offset, b in J._blocks():
        full = b.rows is None and math.prod(b.shape) == m and b.slots == n
        if full and np.array_equal(np.broadcast_to(b.cols, (*b.cols.shape[:-1], n)).reshape(-1), every):
            whole = jnp.broadcast_to(jnp.asarray(b.vals).astype(J.dtype), (*b.shape, n)).reshape(m, n)
            out = whole if out is None else out + whole
        else:
            rest.append((offset, b))
    out = jnp.zeros((m, n), J.dtype) if out is None else out
    for offset, b in rest:
        lines = offset + b.lines.reshape(-1)
        table = np.broadcast_to(b.cols, (*b.shape, b.slots)).reshape(len(lines), b.slots)
        vals = jnp.broadcast_to(jnp.asarray(b.vals).astype(J.dtype), (*b.shape, b.slots)).reshape(table.shape)
        out = out.at[lines[:, None], np.where(table >= 0, table, n)].add(vals, mode="drop")
    return out.T if J._layout.flipped else out


@jax.jit
def _product(J: Assembled, v: Any) -> Any:
    """[n] -> [m], block by block; nothing of the size of the matrix is formed where a block is dense."""
    dtype = promoted(J.dtype, v.dtype)
    out = jnp.zeros((J.shape[0],), dtype)
    for offset, b in J._blocks():
        lines = slice(offset, offset + math.prod(b.shape)) if b.rows is None else offset + b.rows.reshape(-1)
        vals = jnp.asarray(b.vals).astype(dtype)
        if (b.cols < 0).any():
            vals = jnp.where(b.cols >= 0, vals, jnp.zeros((), dtype))
        if J._layout.flipped:
            w = v[lines].reshape(b.shape).astype(dtype)
            box = _box(b.cols)
            out = _added(out, b.cols[box], contracted(vals, w[..., None], b, b.cols.shape)[box])
        else:
            rows = contracted(vals, _read(v.astype(dtype), b.cols), b, (*b.shape, 1), unrolled=_UNROLLED)
            out = _added(out, np.arange(len(out))[lines], rows.reshape(-1))
    return out


def _box(cols: np.ndarray) -> tuple[slice, ...]:
    """The smallest box around the columns that are there; what a stencil reads beyond an edge is outside of it."""
    there = cols >= 0
    lines = [np.flatnonzero(there.any(axis=tuple(j for j in range(cols.ndim) if j != k))) for k in range(cols.ndim)]
    return tuple(slice(int(x[0]), int(x[-1]) + 1) if len(x) else slice(0, 0) for x in lines)


def _read(v: Any, cols: np.ndarray) -> Any:
    """v at these columns, 0 where they are absent: without a gather where those that are there run evenly."""
    box = _box(cols)
    if (cols[box] < 0).any():
        return v.at[np.where(cols < 0, len(v), cols)].get(mode="fill", fill_value=0)
    edges = [(x.start, n - x.stop) for x, n in zip(box, cols.shape, strict=True)]
    return jnp.pad(taken(v, cols[box]), edges)


def _added(out: Any, places: np.ndarray, values: Any) -> Any:
    """`out` with values added at places that are not absent, as an addition of arrays where these lie side by side."""
    flat = places.reshape(-1)
    if not flat.size or flat[0] < 0 or not np.array_equal(flat, np.arange(flat[0], flat[0] + flat.size)):
        return out.at[np.where(places < 0, len(out), places)].add(values, mode="drop")
    if flat.size == len(out):
        return out + values.reshape(-1)
    return out.at[flat[0] : flat[0] + flat.size].add(values.reshape(-1))


_UNROLLED = 8  # slots whose products are added one by one


def from_coo(like: Layout, rows: np.ndarray, cols: np.ndarray, values: Any) -> Assembled:
    """A Jacobian with one flat space of rows out of distinct row-major places."""
    m = like.rows.size
    counts = np.bincount(rows, minlength=m) if m else np.zeros(0, int)
    width = max(int(counts.max(initial=0)), 1)
    slot = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    table, source = np.full((m, width), -1, np.int32), np.full((m, width), len(rows), np.int32)
    table[rows, slot], source[rows, slot] = cols, np.arange(len(rows))
    if len(rows) in (0, m * width):
        vals = values.reshape(m, width) if len(rows) else jnp.zeros((m, width), values.dtype)
    else:
        vals = values.at[source].get(mode="fill", fill_value=0)
    bare = replace(like, flipped=False, dtype=values.dtype)
    return Assembled.of(bare, _per_leaf(like.rows, table, vals))


def whole(like: Layout, dense: Any) -> Assembled:
    """The Jacobian of a dense [m, n] array."""
    every = np.arange(like.columns.size, dtype=np.int32)[None]
    return Assembled.of(replace(like, flipped=False, dtype=dense.dtype), _per_leaf(like.rows, every, dense))


def _per_leaf(rows: Space, table: np.ndarray, vals: Any) -> list[tuple[int, Block]]:
    """Cut the lines of [m, width] tables at the leaves of `rows`."""
    cuts = [(o, o + s) for o, s in zip(rows.offsets, rows.sizes, strict=True) if s]
    return [(o, Block((end - o,), table[o:end] if len(table) > 1 else table, vals[o:end])) for o, end in cuts]


def _like(J: Assembled, like: Layout) -> Assembled:
    """The same map with its blocks stored as those of `like` are."""
    if like.flipped:
        turned = J.T
        flipped = replace(turned._layout, rows=like.columns, columns=like.rows)
        return from_coo(flipped, *turned.coo()).T
    return from_coo(replace(J._layout, rows=like.rows, columns=like.columns), *J.coo())


_COUNTED = 10_000_000  # products, up to which the places that they meet at are counted


def _stays_sparse(g: Assembled, f: Assembled, products: int) -> bool:
    """Whether g @ f has fewer than half of the entries of a dense matrix, although products are many."""
    if products > _COUNTED:
        return False
    import scipy.sparse

    sizes = (g.shape, f.shape)
    left, right = (
        scipy.sparse.coo_array((np.ones(len(J._layout.pattern.rows), bool), J._positions()), shape=shape).tocsr()
        for J, shape in zip((g, f), sizes, strict=True)
    )
    return bool(2 * (left @ right).nnz < g.shape[0] * f.shape[1])


def _compose(g: Assembled, f: Assembled) -> Assembled:
    """The chain rule J_g @ J_f, over the pairs of entries that meet."""
    (p, m), n = g.shape, f.shape[1]
    fi, gj = f._layout.pattern.rows, g._layout.pattern.cols
    count = np.bincount(fi, minlength=m) if m else np.zeros(0, int)
    copies = count[gj]
    dtype = promoted(g.dtype, f.dtype)
    like = replace(g._layout, columns=f._layout.columns, flipped=False, dtype=dtype)
    like = replace(like, cost=g.cost + f.cost + int(copies.sum()))
    if copies.sum() >= p * n > 0 and not _stays_sparse(g, f, int(copies.sum())):
        product = g.dense().astype(dtype) @ f.dense().astype(dtype)
        return whole(like, product)
    left = np.repeat(np.arange(len(gj)), copies)
    within = np.arange(len(left)) - np.repeat(np.cumsum(copies) - copies, copies)
    right = np.searchsorted(fi, np.arange(m))[gj[left]] + within
    key = g._layout.pattern.rows[left].astype(np.int64) * n + f._layout.pattern.cols[right]
    unique, where = np.unique(key, return_inverse=True)
    pairs = _collect(g)[left].astype(dtype) * _collect(f)[right].astype(dtype)
    values = jnp.zeros((len(unique),), dtype).at[where].add(pairs)
    return from_coo(like, unique // max(n, 1), unique % max(n, 1), values)
