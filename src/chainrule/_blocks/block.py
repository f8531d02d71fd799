"""The broadcast-ELLPACK block: one summand of the Jacobian of an intermediate array.

An array `u` of shape S has the Jacobian (a sum over blocks)

    d u[i] / d x[cols[i, q]] += vals[i, q]        for every element i of u and slot q.

`cols` and `vals` have rank len(S) + 1; an axis of size 1 means 'the same along this axis';
a column of -1 is absent, whatever stands in `vals`.

A *scattered* block holds some rows only: its element i stands for row `rows[i]` of the array laid flat.
Padding, concatenation and scattering then move no values at all.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._errors import MemoryLimitError
from chainrule._memory import SORTED, STEP, WAY_OUT, require_columns, require_memory

_MOST_COLUMNS = 2**31 - 1  # numbers of 4 bytes
_COMPARED = 2**20  # columns that are looked through for axes along which they are the same
_UNROLLED = 16  # runs of slots that are placed one by one
_FEW = 2048  # products of runs and width up to which a mask beats a scatter
_KNOWN_MASK = 2**22  # elements of a mask that are kept as a constant


@dataclass(frozen=True, eq=False)
class Block:
    """Columns known while tracing, and the values that stand in them."""

    shape: tuple[int, ...]
    cols: np.ndarray
    vals: Any
    rows: np.ndarray | None = None  # flat numbers of the rows, of this block's own shape

    @property
    def slots(self) -> int:
        return int(self.cols.shape[-1] if self.cols.shape[-1] != 1 else self.vals.shape[-1])

    @property
    def static(self) -> bool:
        return isinstance(self.vals, np.ndarray)

    @property
    def lines(self) -> np.ndarray:
        """The flat numbers of its rows, in its own shape."""
        return flat_numbers(self.shape) if self.rows is None else self.rows

    def with_vals(self, vals: Any) -> Block:
        return Block(self.shape, self.cols, vals, self.rows)

    def full_slots(self, array: Any) -> Any:
        """`cols`, `vals` or what stands beside them with the last axis, that of the slots, written out."""
        return xp(array).broadcast_to(array, (*array.shape[:-1], self.slots))


def identity(shape: tuple[int, ...], offset: int, dtype: Any) -> Block:
    """The Jacobian of an input with respect to itself: one slot, the number 1."""
    size = math.prod(shape)
    require_columns(shape)
    if offset + size > _MOST_COLUMNS:
        raise MemoryLimitError(
            f"{STEP}: more than {_MOST_COLUMNS:,} columns, which is all that are numbered. {WAY_OUT}"
        )
    cols = np.arange(offset, offset + size, dtype=np.int32).reshape((*shape, 1))
    return Block(shape, cols, np.ones((1,) * (len(shape) + 1), dtype))


def flat_numbers(shape: Sequence[int]) -> np.ndarray:
    """The number of each element of an array laid flat, in its shape."""
    require_columns(shape)
    return np.arange(math.prod(shape)).reshape(shape)


def xp(array: Any) -> Any:
    return np if isinstance(array, np.ndarray) else jnp


def expand(block: Block, axes: Sequence[int]) -> Block:
    """Write `cols` and `vals` out along some of the rows' axes."""

    def out(array: Any) -> Any:
        shape = tuple(s if k in axes else a for k, (s, a) in enumerate(zip(block.shape, array.shape, strict=False)))
        if isinstance(array, np.ndarray):
            require_columns((*shape, array.shape[-1]))
        return xp(array).broadcast_to(array, (*shape, array.shape[-1]))

    return Block(block.shape, out(block.cols), out(block.vals), block.rows)


def constant_along(block: Block, axes: Sequence[int]) -> bool:
    """Say whether the columns are the same along all of `axes`."""
    return all(block.cols.shape[k] == 1 for k in axes)


def move_rows(block: Block, shape: tuple[int, ...], move: Callable[[Any, Any], Any]) -> Block:
    """Apply a structural step alike to columns and values: move(array, numpy-or-jax)."""
    return Block(shape, move(block.cols, np), move(block.vals, xp(block.vals)))


def merge(blocks: Sequence[Block]) -> list[Block]:
    """Add the values of blocks whose rows and columns are equal."""
    groups: dict[Any, Block] = {}
    for block in blocks:
        rows = None if block.rows is None else block.rows.tobytes()
        key = (block.cols.shape, block.cols.tobytes(), block.shape, rows)
        found = groups.get(key)
        groups[key] = block if found is None else block.with_vals(plus(found.vals, block.vals))
    return list(groups.values())


def plus(a: Any, b: Any) -> Any:
    """Sum with broadcasting of axes of size 1, in NumPy where both are known."""
    return _elementwise("add", jax.lax.add, a, b)


def multiply(a: Any, b: Any) -> Any:
    """Product with broadcasting of axes of size 1, in NumPy where both are known."""
    return _elementwise("multiply", jax.lax.mul, a, b)


def _elementwise(name: str, direct: Callable[[Any, Any], Any], a: Any, b: Any) -> Any:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        with np.errstate(over="ignore", invalid="ignore"):  # as JAX: what is not finite shows in the result
            return getattr(np, name)(a, b)
    a, b = jnp.asarray(a), jnp.asarray(b)
    # the same equation as that of `jax.numpy`, written in half the time
    return (direct if a.ndim == b.ndim and a.dtype == b.dtype else getattr(jnp, name))(a, b)


def taken_once(value: Any) -> Any:
    """The same real numbers, in a kernel of their own: XLA on a CPU repeats no quotient, here by hidden ones.

    A barrier alone is gone by the time that kernels are fused.
    """
    return value / jax.lax.optimization_barrier(jnp.ones_like(value))


def slots_first(combine: Callable[[Any, Any], Any], a: Any, b: Any) -> Any:
    """A product with the slots before the last axis of rows: a sum over them is one step with what made the values."""
    if a.ndim < 2:
        return combine(a, b)
    first = combine(xp(a).swapaxes(a, -1, -2), xp(b).swapaxes(b, -1, -2))
    return xp(first).swapaxes(first, -1, -2)


def masked(values: Any, there: np.ndarray) -> Any:
    """Zeros in place of what is absent: a select, not a product, for that may hold anything."""
    if there.all():
        return values
    if isinstance(values, np.ndarray):
        return np.where(there, values, np.zeros((), values.dtype))
    shape = np.broadcast_shapes(values.shape, there.shape)  # the same equations as those of `jax.numpy`, but no call
    zeros = jax.lax.full(shape, 0, values.dtype)
    return jax.lax.select(jnp.broadcast_to(there, shape), jnp.broadcast_to(values, shape), zeros)


def only(cols: np.ndarray, there: np.ndarray) -> np.ndarray:
    """The columns where they are `there`, absent elsewhere; the shapes broadcast."""
    require_columns(np.broadcast_shapes(cols.shape, there.shape))
    return np.where(there, cols, np.int32(-1))


def present(b: Block) -> Any:
    """The values, 0 where the column is absent."""
    return masked(b.vals, compressed(b.cols >= 0))


def join(blocks: Sequence[Block]) -> Block:
    """Lay blocks of one array side by side along the slots."""
    if len(blocks) == 1:
        return blocks[0]
    rows = np.broadcast_shapes(*[b.cols.shape[:-1] for b in blocks])
    require_columns((*rows, sum(b.slots for b in blocks)))
    cols = _join_arrays([b.full_slots(b.cols) for b in blocks], np)
    static = all(b.static for b in blocks)
    vals = [b.full_slots(b.vals) for b in blocks]
    return Block(blocks[0].shape, cols, _join_arrays(vals, np if static else jnp), blocks[0].rows)


def _join_arrays(arrays: list[Any], module: Any) -> Any:
    rows = np.broadcast_shapes(*[a.shape[:-1] for a in arrays])
    return module.concatenate([module.broadcast_to(a, (*rows, a.shape[-1])) for a in arrays], axis=-1)


def to_slots(block: Block, axes: Sequence[int]) -> Block:
    """Move row axes into the slot axis; the rows lose these axes."""
    keep = [k for k in range(len(block.shape)) if k not in axes]
    full = expand(block, axes)
    size = math.prod(block.shape[k] for k in axes)
    require_columns((*(full.cols.shape[k] for k in keep), size * block.slots))

    def move(array: Any) -> Any:
        # [*rows, q] -> [*kept rows, *axes, q] -> [*kept rows, axes * q]
        array = block.full_slots(xp(array).transpose(array, (*keep, *axes, len(block.shape))))
        return array.reshape((*array.shape[: len(keep)], size * block.slots))

    if block.vals.size == 1:  # one number stays one number
        return Block(tuple(block.shape[k] for k in keep), move(full.cols), block.vals.reshape((1,) * (len(keep) + 1)))
    return Block(tuple(block.shape[k] for k in keep), move(full.cols), move(full.vals))


def densify(blocks: Sequence[Block], axes: Sequence[int]) -> Block:
    """Make a sum of blocks one block whose columns are the same along `axes`.

    The slots become the union of the columns over these axes; the other axes stay as they are.
    """
    if len(blocks) == 1 and len(axes):
        same = blocks[0] if constant_along(blocks[0], axes) else same_but_absent(blocks[0], axes)
        if same is not None:
            return same
    shape, rank = blocks[0].shape, len(blocks[0].shape)
    full = expand(join([expand(b, axes) for b in blocks]), axes)
    keep = [k for k in range(rank) if k not in axes]
    varying = [k for k in keep if full.cols.shape[k] != 1]
    cols = np.transpose(full.cols, (*keep, *axes, rank)).reshape(math.prod(shape[k] for k in varying), -1)
    union, position = union_of_lines(cols)
    lines_shape = tuple(full.cols.shape[k] for k in range(rank) if k in keep)
    width = union.shape[-1]
    out_cols = _restore(union.reshape((*lines_shape, width)), keep, axes, rank)
    spot = np.transpose(
        position.reshape((*lines_shape, *[shape[k] for k in axes], full.slots)), (*np.argsort([*keep, *axes]), rank)
    )
    if out_cols.size <= _COMPARED:
        out_cols = compressed(out_cols, rank)
    require_memory(STEP, (*shape, width), full.vals.dtype.itemsize)
    return Block(shape, out_cols, place(full.vals, compressed(spot, rank), full.slots, width, shape), full.rows)


def same_but_absent(block: Block, axes: Sequence[int]) -> Block | None:
    """The block with 0 for what is absent, if its columns are the same along `axes` wherever they are present."""
    cols = block.cols.max(axis=tuple(axes), keepdims=True)
    if not ((block.cols == cols) | (block.cols < 0)).all():
        return None
    return Block(block.shape, cols, present(block), block.rows)


def presence(blocks: Sequence[Block], axes: Sequence[int]) -> np.ndarray:
    """Which rows have which of the slots that `densify` gives, [*rows, slots] of bool."""
    there = [Block(b.shape, b.cols, np.ones((1,) * b.cols.ndim), b.rows) for b in blocks]
    found = densify(there, axes)
    return np.broadcast_to((found.vals > 0) & (found.cols >= 0), (*found.shape, found.slots))


def union(blocks: Sequence[Block]) -> Block:
    """One block with every column once per row."""
    return densify(blocks, ())


def once(array: np.ndarray) -> np.ndarray:
    """A known array without the copies that a view repeats: size 1 along an axis of stride 0."""
    return array[
        tuple(slice(1) if n > 1 and not s else slice(None) for n, s in zip(array.shape, array.strides, strict=True))
    ]


def compressed(value: np.ndarray, axes: int | None = None, first: int = 0) -> np.ndarray:
    """A known array that is the same along one of its axes (from `first` on, before `axes`), kept once."""
    for k in range(first, value.ndim if axes is None else axes):
        if value.shape[k] > 1 and (not value.strides[k] or (value == value.take([0], axis=k)).all()):
            value = value.take([0], axis=k)
    return value


def _restore(union: np.ndarray, keep: list[int], axes: Sequence[int], rank: int) -> np.ndarray:
    """[*kept, u] -> [*rows, u] with size 1 along `axes`."""
    with_ones = union.reshape((*union.shape[:-1], *[1] * len(axes), union.shape[-1]))
    return np.transpose(with_ones, (*np.argsort([*keep, *axes]), rank))


def union_of_lines(cols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per line: the sorted distinct columns (padded by -1), and the place of each entry among them."""
    require_columns(cols.shape, SORTED)
    order = np.argsort(cols, axis=1, kind="stable")
    ordered = np.take_along_axis(cols, order, axis=1)
    fresh = np.ones(ordered.shape, bool)
    fresh[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    fresh &= ordered >= 0
    rank = np.cumsum(fresh, axis=1) - 1
    width = int(fresh.sum(axis=1).max(initial=0))
    union = np.full((cols.shape[0], max(width, 1)), -1, np.int32)
    line = np.broadcast_to(np.arange(cols.shape[0])[:, None], cols.shape)
    union[line[fresh], rank[fresh]] = ordered[fresh]
    position = np.empty(cols.shape, np.int32)
    np.put_along_axis(position, order, np.where(ordered >= 0, rank, -1).astype(np.int32), axis=1)
    return union, position


def place(vals: Any, position: np.ndarray, slots: int, width: int, shape: tuple[int, ...]) -> Any:
    """Add the values of every row to their places among `width` slots.

    vals : [*rows, slots] or 1s; position : [*rows, slots] or 1s, -1 for an absent entry.
    """
    if math.prod(position.shape[:-1]) == 1:
        shifts = list(itertools.islice(_shifts(position.reshape(-1)), _UNROLLED + 1))
        if len(shifts) <= _UNROLLED:
            return _sum_shifts(shifts, vals, width)
    if position.size * width <= _KNOWN_MASK:
        runs = list(itertools.islice(_runs(position, width), _UNROLLED + 1))
        if len(runs) <= _UNROLLED and len(runs) * width <= _FEW:
            return _sum_runs(runs, position, vals, width)
    rows = math.prod(shape)
    position = np.broadcast_to(position, (*shape, slots)).reshape(rows, slots)
    line = np.broadcast_to(np.arange(rows)[:, None], position.shape)
    present = position >= 0
    vals = xp(vals).broadcast_to(vals, (*shape, slots)).reshape(rows, slots)
    if isinstance(vals, np.ndarray):
        known = np.zeros((rows, width), vals.dtype)
        np.add.at(known, (line[present], position[present]), vals[present])
        return known.reshape((*shape, width))
    index = np.where(present, line * width + position, rows * width)
    out = jnp.zeros((rows * width,), vals.dtype).at[index.reshape(-1)].add(vals.reshape(-1), mode="drop")
    return out.reshape((*shape, width))


def between_zeros(vals: Any, low: int, high: int) -> Any:
    """So many zeros before and after the slots."""
    if low == high == 0:
        return vals
    if isinstance(vals, np.ndarray):
        return np.pad(vals, [*[(0, 0)] * (vals.ndim - 1), (low, high)])
    return jax.lax.pad(vals, np.zeros((), vals.dtype), [*[(0, 0, 0)] * (vals.ndim - 1), (low, high, 0)])


def _shifts(position: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Slots (first, end) that go side by side, and where the first of them goes; the absent ones are left out."""
    ends = [0, *(np.flatnonzero(np.diff(position) != 1) + 1), len(position)]
    for start, end in itertools.pairwise(ends):
        if position[start] >= 0:
            yield start, end, int(position[start])
        elif end - start > 1:  # an absent slot before the place 0
            yield start + 1, end, 0


def _sum_shifts(shifts: Sequence[tuple[int, int, int]], vals: Any, width: int) -> Any:
    """Slots that are placed alike in all rows. [*rows, q] -> [*rows, u]."""
    total = None
    for start, end, low in shifts:
        own = vals[..., start:end] if vals.shape[-1] > 1 else vals
        own = xp(own).broadcast_to(own, (*own.shape[:-1], end - start))
        own = between_zeros(own, low, width - low - (end - start))
        total = own if total is None else plus(total, own)
    if total is None:
        return xp(vals).zeros((*vals.shape[:-1], width), vals.dtype)
    return total if isinstance(total, np.ndarray) or len(shifts) == 1 else taken_once(total)


def _sum_runs(runs: Sequence[tuple[int, int]], position: np.ndarray, vals: Any, width: int) -> Any:
    """Run by run, by selection: an absent Inf or NaN must vanish. [*rows, q] -> [*rows, u]."""
    parts = []
    for start, size in runs:
        own = vals[..., start : start + size] if vals.shape[-1] > 1 else vals
        group = position[..., start, None] // size  # [*rows or 1s, 1]
        mask = (group == np.arange(width // size))[..., None]  # [*rows or 1s, groups, 1]
        if not mask.all():
            full = xp(own).broadcast_to(own, (*own.shape[:-1], size))
            own = masked(full[..., None, :], mask)  # [*rows, groups, size]
            own = own.reshape((*own.shape[:-2], width))
        parts.append(own)
    return functools.reduce(operator.add, parts)


def _runs(position: np.ndarray, width: int) -> Iterator[tuple[int, int]]:
    """Slots (first, number) that go side by side to one of the equal groups that `width` splits into, or nowhere."""
    start, slots = 0, position.shape[-1]
    while start < slots:
        for size in (d for d in range(min(slots - start, width), 0, -1) if width % d == 0):
            own = position[..., start : start + size]
            first = own[..., :1]
            expected = np.where(first >= 0, first + np.arange(size), -1)
            if ((first < 0) | (first % size == 0)).all() and (own == expected).all():
                break
        yield start, size
        start += size
