"""The Jacobian whose entries are stored, as broadcast-ELLPACK blocks."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._block import Block, union_of_lines
from chainrule._jacobian import Jacobian
from chainrule._space import Space, promoted
from chainrule._structure import Structure, classify


@dataclass(frozen=True, eq=False)
class Entry:
    """One block of rows from `offset` on: what is known of it while tracing."""

    offset: int
    shape: tuple[int, ...]
    cols: np.ndarray
    known: np.ndarray | None  # its values, where these are known
    vals_shape: tuple[int, ...]
    rows: np.ndarray | None = None  # of a scattered block

    @cached_property
    def lines(self) -> np.ndarray:
        """The rows of the Jacobian (or of its transpose) that this block has entries in, flat."""
        own = np.arange(math.prod(self.shape)) if self.rows is None else self.rows.reshape(-1)
        return own + self.offset

    @cached_property
    def key(self) -> Any:
        known = None if self.known is None else (self.known.shape, self.known.tobytes())
        rows = None if self.rows is None else self.rows.tobytes()
        return (self.offset, self.shape, self.cols.shape, self.cols.tobytes(), known, self.vals_shape, rows)


@dataclass(frozen=True, eq=False)
class Layout:
    """All that is known of a Jacobian while tracing; `flipped`: the blocks are those of the transpose.

    Two layouts are equal when they describe the same places, whatever function they come from.
    """

    rows: Space
    columns: Space
    entries: tuple[Entry, ...]
    dtype: Any
    flipped: bool = False
    order: str = "forward"
    cost: int = 0

    @cached_property
    def key(self) -> Any:
        entries = tuple(e.key for e in self.entries)
        return (self.rows.key, self.columns.key, entries, str(self.dtype), self.flipped)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Layout) and self.key == other.key)

    def __hash__(self) -> int:
        return hash((self.rows.size, self.columns.size, len(self.entries), self.flipped))

    @cached_property
    def pattern(self) -> Pattern:
        return _pattern(self)

    @cached_property
    def structure(self) -> Structure:
        p, known = self.pattern, None
        if self.entries and all(e.known is not None for e in self.entries):
            known = np.asarray(p.collect([Block(e.shape, e.cols, e.known) for e in self.entries], self.dtype))
        return classify(p.rows, p.cols, (self.rows.size, self.columns.size), known)


@dataclass(frozen=True, eq=False)
class Pattern:
    """The distinct places, row-major, and where in the blocks their values stand."""

    rows: np.ndarray
    cols: np.ndarray
    groups: tuple[tuple[int, ...], ...]  # entries that share their rows, laid side by side along the slots
    source: np.ndarray | None  # place of each value in the blocks laid flat; None: in the same order
    target: np.ndarray | None  # where places repeat: for each source, the distinct place that it is added to

    def collect(self, blocks: Sequence[Block], dtype: Any) -> Any:
        """The values [nnz] of blocks of this pattern."""
        pieces = [_side_by_side([blocks[k] for k in group], dtype) for group in self.groups]
        if not pieces:
            return jnp.zeros((0,), dtype)
        module = np if all(isinstance(p, np.ndarray) for p in pieces) else jnp
        values = module.concatenate(pieces)
        values = values if self.source is None else values[self.source]
        if self.target is None:
            return values
        return jnp.zeros((len(self.rows),), dtype).at[self.target].add(values)


def _side_by_side(blocks: list[Block], dtype: Any) -> Any:
    module = np if all(b.static for b in blocks) else jnp
    wide = [module.broadcast_to(b.vals, (*b.shape, b.slots)) for b in blocks]
    wide = wide if len(wide) == 1 else [module.concatenate(wide, axis=-1)]
    return wide[0].reshape(-1).astype(dtype)


def _pattern(layout: Layout) -> Pattern:
    """Sort and count the places; entries of the same rows stand side by side, so that most are sorted already."""
    groups: dict[Any, list[int]] = {}
    for k, e in enumerate(layout.entries):
        groups.setdefault((e.offset, e.shape, None if e.rows is None else e.rows.tobytes()), []).append(k)
    ordered = sorted(groups.values(), key=lambda group: int(layout.entries[group[0]].lines[0]))
    index = np.int32 if max(layout.rows.size, layout.columns.size) < 2**31 else np.int64
    parts, start, found = [(np.empty(0, index),) * 2 + (np.empty(0, np.int64),) * 2], 0, 0
    for group in ordered:
        table = np.concatenate([_table(layout.entries[k]) for k in group], axis=1)
        line, col, source, target = _sorted_lines(layout.entries[group[0]].lines.astype(index), table)
        parts.append((line, col.astype(index, copy=False), source + start, target + found))
        start, found = start + table.size, found + len(col)
    line, col, source, target = (np.concatenate(p) for p in zip(*parts, strict=True))
    mixed = len(groups) > len({e.offset for e in layout.entries}) or any(e.rows is not None for e in layout.entries)
    line, col, target = _sorted(line, col, target, layout, mixed)
    kept_groups = tuple(tuple(group) for group in ordered)
    if len(source) > len(line):
        return Pattern(line, col, kept_groups, source, target)
    by_place = np.empty(len(source), np.int64)  # every place once: a value is taken, not added
    by_place[target] = source
    in_order = len(source) == start and bool((by_place[1:] > by_place[:-1]).all())
    return Pattern(line, col, kept_groups, None if in_order else by_place, None)


def _sorted_lines(lines: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, ...]:
    """The distinct (line, column) of a table [rows, slots]; and its entries: where in it, to which of those."""
    order = np.argsort(table, axis=1, kind="stable")
    ordered = np.take_along_axis(table, order, axis=1)
    if ordered[:, 0].min() >= 0 and not (ordered[:, 1:] == ordered[:, :-1]).any():  # nothing absent or twice
        source = (np.arange(0, table.size, table.shape[1])[:, None] + order).reshape(-1)
        return np.repeat(lines, table.shape[1]), ordered.reshape(-1), source, np.arange(table.size)
    union, position = union_of_lines(table)
    present, kept = position >= 0, union >= 0
    count = kept.sum(axis=1)
    target = ((np.cumsum(count) - count)[:, None] + position)[present]
    return np.repeat(lines, count), union[kept], np.flatnonzero(present), target


def _sorted(
    line: np.ndarray, col: np.ndarray, target: np.ndarray, layout: Layout, mixed: bool
) -> tuple[np.ndarray, ...]:
    """Distinct row-major places, and the new number of each old place; `mixed`: lines may repeat or be out of order."""
    swept, other = (layout.columns, layout.rows) if layout.flipped else (layout.rows, layout.columns)
    if mixed:
        key = line.astype(np.int64) * max(other.size, 1) + col
        unique, number = np.unique(key, return_inverse=True)
        line, col = (a.astype(line.dtype) for a in np.divmod(unique, max(other.size, 1)))
        target = number[target]
    if not layout.flipped:
        return line, col, target
    order = _column_major(line, col, swept.size, other.size)
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    return col[order], line[order], number[target]


def _table(e: Entry) -> np.ndarray:
    """The columns of an entry, [rows, slots]."""
    slots = np.broadcast_shapes(e.cols.shape[-1:], e.vals_shape[-1:])[0]
    return np.broadcast_to(e.cols, (*e.shape, slots)).reshape(math.prod(e.shape), slots)


def _column_major(line: np.ndarray, col: np.ndarray, lines: int, width: int) -> np.ndarray:
    """The order that sorts row-major places by column first, in linear time."""
    import scipy.sparse

    starts = np.searchsorted(line, np.arange(lines + 1))
    csr = scipy.sparse.csr_array((np.arange(len(line)), col, starts), shape=(lines, width))
    return csr.tocsc().data


@jax.tree_util.register_pytree_node_class
class Assembled(Jacobian):
    """A Jacobian of stored entries."""

    def __init__(self, layout: Layout, values: tuple[Any, ...]):
        self._layout = layout
        self._values = values

    # a map without unknown values still carries one leaf, so that `vmap` can count a batch of it
    @classmethod
    def of(cls, like: Layout, blocks: Sequence[tuple[int, Block]]) -> Assembled:
        entries = tuple(
            Entry(o, b.shape, b.cols, b.vals if b.static else None, b.vals.shape, b.rows) for o, b in blocks
        )
        values = tuple(b.vals for _, b in blocks if not b.static)
        return cls(replace(like, entries=entries), values or (jnp.zeros((), like.dtype),))

    def tree_flatten(self) -> tuple[tuple[Any, ...], Layout]:
        return self._values, self._layout

    @classmethod
    def tree_unflatten(cls, layout: Layout, values: Any) -> Assembled:
        return cls(layout, tuple(values))

    def __reduce__(self) -> Any:
        raise TypeError("a Jacobian holds pytree structures that cannot be pickled; save .coo() or .scipy() instead")

    @property
    def _rows(self) -> Space:  # type: ignore[override]
        return self._layout.rows

    @property
    def _columns(self) -> Space:  # type: ignore[override]
        return self._layout.columns

    @property
    def dtype(self) -> Any:
        """The dtype of the entries."""
        return self._layout.dtype

    @property
    def order(self) -> str:  # type: ignore[override]
        """In which direction the chain rule was accumulated."""
        return self._layout.order

    @property
    def cost(self) -> int:  # type: ignore[override]
        """Multiply-adds of the accumulation, counted from shapes."""
        return self._layout.cost

    @property
    def nnz(self) -> int:
        """Number of entries that are not known to vanish."""
        return len(self._layout.pattern.rows)

    @property
    def structure(self) -> Structure:
        """What the static pattern is; `str()` of it gives the words that a person would use."""
        return self._layout.structure

    @property
    def _batch(self) -> int:
        shapes = [len(e.vals_shape) for e in self._layout.entries if e.known is None] or [0]
        return int(np.ndim(self._values[0]) - shapes[0])

    @property
    def T(self) -> Assembled:
        """The transpose: `J.T @ w` is the pullback of w."""
        old = self._layout
        return Assembled(replace(old, rows=old.columns, columns=old.rows, flipped=not old.flipped), self._values)

    def _blocks(self) -> list[tuple[int, Block]]:
        left = iter(self._values)
        entries = self._layout.entries
        return [(e.offset, Block(e.shape, e.cols, next(left) if e.known is None else e.known, e.rows)) for e in entries]

    def coo(self) -> tuple[np.ndarray, np.ndarray, Any]:
        """Give (rows, cols, values), unique and row-major; rows and cols are NumPy arrays [nnz]."""
        p = self._layout.pattern
        return p.rows, p.cols, _collect(self)

    def _positions(self) -> tuple[np.ndarray, np.ndarray]:
        return self._layout.pattern.rows, self._layout.pattern.cols

    def _apply(self, v: Any) -> Any:
        return _product(self, v)

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
        if self._batch or other._batch:
            return jax.vmap(Assembled._plus, in_axes=(0 if self._batch else None, 0 if other._batch else None))(
                self, other
            )
        a, b = self._layout, other._layout
        if a.flipped != b.flipped or a.rows.sizes != b.rows.sizes or a.columns.sizes != b.columns.sizes:
            other = _like(other, a)
        like = replace(a, cost=a.cost + b.cost, dtype=promoted(a.dtype, b.dtype))
        return Assembled.of(like, [*self._blocks(), *other._blocks()])

    def _after(self, other: Jacobian) -> Jacobian:
        if not isinstance(other, Assembled):
            return other._before(self)  # type: ignore[attr-defined]
        return _compose(self, other)


def _scaled(vals: Any, by: Any, dtype: Any) -> Any:
    if isinstance(vals, np.ndarray) and isinstance(by, np.ndarray):
        return (vals * by).astype(dtype)
    return jnp.asarray(vals).astype(dtype) * by


@jax.jit
def _collect(J: Assembled) -> Any:
    if J._batch:
        return jax.vmap(_collect)(J)
    return J._layout.pattern.collect([b for _, b in J._blocks()], J.dtype)


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
        cols = np.maximum(b.cols, 0)
        if J._layout.flipped:
            w = v[lines].reshape(b.shape).astype(dtype)
            out = out.at[cols].add(_contracted(vals, w[..., None], b, cols.shape))
        else:
            rows = _contracted(vals, v.astype(dtype)[cols], b, (*b.shape, 1))
            out = out.at[lines].add(rows.reshape(-1))
    return out


def _contracted(vals: Any, other: Any, b: Block, target: tuple[int, ...]) -> Any:
    """Multiply two arrays [*rows, slots] and sum to `target`; size 1 is 'the same along this axis'."""
    letters = string.ascii_letters[: len(b.shape) + 1]
    full = (*b.shape, b.slots)
    kept = [[x for x, s in zip(letters, a.shape, strict=True) if s != 1] for a in (vals, other)]
    out = [x for x, t in zip(letters, target, strict=True) if t != 1 and (x in kept[0] or x in kept[1])]
    # an axis that both lack, and that the target sums, stands for equal summands
    copies = math.prod(
        f for x, f, t in zip(letters, full, target, strict=True) if t == 1 and x not in kept[0] and x not in kept[1]
    )
    a, c = (x.reshape([s for s in x.shape if s != 1]) for x in (vals, other))
    product = jnp.einsum(f"{''.join(kept[0])},{''.join(kept[1])}->{''.join(out)}", a, c)
    product = product.reshape([t if x in out else 1 for x, t in zip(letters, target, strict=True)])
    return jnp.broadcast_to(product * copies if copies != 1 else product, target)


def from_coo(like: Layout, rows: np.ndarray, cols: np.ndarray, values: Any) -> Assembled:
    """A Jacobian with one flat space of rows out of distinct row-major places."""
    m = like.rows.size
    counts = np.bincount(rows, minlength=m) if m else np.zeros(0, int)
    width = max(int(counts.max(initial=0)), 1)
    slot = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    table = np.full((m, width), -1, np.int32)
    table[rows, slot] = cols
    vals = jnp.zeros((m, width), values.dtype).at[rows, slot].set(values, unique_indices=True)
    bare = replace(like, flipped=False, dtype=values.dtype)
    return Assembled.of(bare, _per_leaf(like.rows, table, vals))


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


def _compose(g: Assembled, f: Assembled) -> Assembled:
    """The chain rule J_g @ J_f, over the pairs of entries that meet."""
    (p, m), n = g.shape, f.shape[1]
    fi, gj = f._layout.pattern.rows, g._layout.pattern.cols
    count = np.bincount(fi, minlength=m) if m else np.zeros(0, int)
    copies = count[gj]
    dtype = promoted(g.dtype, f.dtype)
    like = replace(g._layout, columns=f._layout.columns, flipped=False, dtype=dtype)
    like = replace(like, cost=g.cost + f.cost + int(copies.sum()))
    if copies.sum() >= p * n > 0:  # as many products as a dense result has entries
        product = g.dense().astype(dtype) @ f.dense().astype(dtype)
        return Assembled.of(like, _per_leaf(like.rows, np.arange(n, dtype=np.int32)[None], product))
    left = np.repeat(np.arange(len(gj)), copies)
    within = np.arange(len(left)) - np.repeat(np.cumsum(copies) - copies, copies)
    right = np.searchsorted(fi, np.arange(m))[gj[left]] + within
    key = g._layout.pattern.rows[left].astype(np.int64) * n + f._layout.pattern.cols[right]
    unique, where = np.unique(key, return_inverse=True)
    pairs = _collect(g)[left].astype(dtype) * _collect(f)[right].astype(dtype)
    values = jnp.zeros((len(unique),), dtype).at[where].add(pairs)
    return from_coo(like, unique // max(n, 1), unique % max(n, 1), values)
