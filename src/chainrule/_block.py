"""The broadcast-ELLPACK block: one summand of the Jacobian of an intermediate array.

An array `u` of shape S has the Jacobian (a sum over blocks)

    d u[i] / d x[cols[i, q]] += vals[i, q]        for every element i of u and slot q.

`cols` and `vals` have rank len(S) + 1; an axis of size 1 means 'the same along this axis';
a column of -1 is absent, whatever stands in `vals`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True, eq=False)
class Block:
    """Columns known while tracing, and the values that stand in them."""

    shape: tuple[int, ...]
    cols: np.ndarray
    vals: Any

    @property
    def slots(self) -> int:
        return int(np.broadcast_shapes(self.cols.shape[-1:], self.vals.shape[-1:])[0])

    @property
    def static(self) -> bool:
        return isinstance(self.vals, np.ndarray)

    def with_vals(self, vals: Any) -> Block:
        return Block(self.shape, self.cols, vals)


def identity(shape: tuple[int, ...], offset: int, dtype: Any) -> Block:
    """The Jacobian of an input with respect to itself: one slot, the number 1."""
    size = math.prod(shape)
    cols = np.arange(offset, offset + size, dtype=np.int32).reshape((*shape, 1))
    return Block(shape, cols, np.ones((1,) * (len(shape) + 1), dtype))


def xp(array: Any) -> Any:
    return np if isinstance(array, np.ndarray) else jnp


def expand(block: Block, axes: Sequence[int]) -> Block:
    """Write `cols` and `vals` out along some of the rows' axes."""

    def out(array: Any) -> Any:
        shape = tuple(s if k in axes else a for k, (s, a) in enumerate(zip(block.shape, array.shape, strict=False)))
        return xp(array).broadcast_to(array, (*shape, array.shape[-1]))

    return Block(block.shape, out(block.cols), out(block.vals))


def constant_along(block: Block, axes: Sequence[int]) -> bool:
    """Say whether the columns are the same along all of `axes`."""
    return all(block.cols.shape[k] == 1 for k in axes)


def move_rows(block: Block, shape: tuple[int, ...], move: Callable[[Any, Any], Any]) -> Block:
    """Apply a structural step alike to columns and values: move(array, numpy-or-jax)."""
    return Block(shape, move(block.cols, np), move(block.vals, xp(block.vals)))


def merge(blocks: Sequence[Block]) -> list[Block]:
    """Add the values of blocks whose columns are equal."""
    groups: dict[Any, Block] = {}
    for block in blocks:
        key = (block.cols.shape, block.cols.tobytes())
        found = groups.get(key)
        groups[key] = block if found is None else block.with_vals(_add(found.vals, block.vals))
    return list(groups.values())


def _add(a: Any, b: Any) -> Any:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a + b
    shape = np.broadcast_shapes(a.shape, b.shape)
    return jnp.broadcast_to(jnp.asarray(a), shape) + jnp.broadcast_to(jnp.asarray(b), shape)


def multiply(a: Any, b: Any) -> Any:
    """Product with broadcasting of axes of size 1, in NumPy where both are known."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return np.multiply(a, b)
    return jnp.multiply(jnp.asarray(a), jnp.asarray(b))


def join(blocks: Sequence[Block]) -> Block:
    """Lay blocks of one array side by side along the slots."""
    if len(blocks) == 1:
        return blocks[0]
    cols = _join_arrays([_full_slots(b, b.cols) for b in blocks], np)
    static = all(b.static for b in blocks)
    vals = [_full_slots(b, b.vals) for b in blocks]
    return Block(blocks[0].shape, cols, _join_arrays(vals, np if static else jnp))


def _full_slots(block: Block, array: Any) -> Any:
    return xp(array).broadcast_to(array, (*array.shape[:-1], block.slots))


def _join_arrays(arrays: list[Any], module: Any) -> Any:
    rows = np.broadcast_shapes(*[a.shape[:-1] for a in arrays])
    return module.concatenate([module.broadcast_to(a, (*rows, a.shape[-1])) for a in arrays], axis=-1)


def to_slots(block: Block, axes: Sequence[int]) -> Block:
    """Move row axes into the slot axis; the rows lose these axes."""
    keep = [k for k in range(len(block.shape)) if k not in axes]
    full = expand(block, axes)
    size = math.prod(block.shape[k] for k in axes)

    def move(array: Any) -> Any:
        # [*rows, q] -> [*kept rows, *axes, q] -> [*kept rows, axes * q]
        array = xp(array).transpose(array, (*keep, *axes, len(block.shape)))
        array = xp(array).broadcast_to(array, (*array.shape[:-1], block.slots))
        return array.reshape((*array.shape[: len(keep)], size * block.slots))

    if block.vals.size == 1:  # one number stays one number
        return Block(tuple(block.shape[k] for k in keep), move(full.cols), block.vals.reshape((1,) * (len(keep) + 1)))
    return Block(tuple(block.shape[k] for k in keep), move(full.cols), move(full.vals))


def densify(blocks: Sequence[Block], axes: Sequence[int]) -> Block:
    """Make a sum of blocks one block whose columns are the same along `axes`.

    The slots become the union of the columns over these axes; the other axes stay as they are.
    """
    if len(blocks) == 1 and constant_along(blocks[0], axes):
        return blocks[0]
    shape, rank = blocks[0].shape, len(blocks[0].shape)
    full = expand(join([expand(b, axes) for b in blocks]), axes)
    keep = [k for k in range(rank) if k not in axes]
    varying = [k for k in keep if full.cols.shape[k] != 1]
    cols = np.transpose(full.cols, (*keep, *axes, rank)).reshape(math.prod(shape[k] for k in varying), -1)
    union, position = union_of_lines(cols)
    lines_shape = tuple(full.cols.shape[k] for k in range(rank) if k in keep)
    width = union.shape[-1]
    out_cols = _restore(union.reshape((*lines_shape, width)), keep, axes, rank)
    place = np.transpose(
        position.reshape((*lines_shape, *[shape[k] for k in axes], full.slots)), (*np.argsort([*keep, *axes]), rank)
    )
    return Block(shape, out_cols, _place(expand(full, keep).vals, place, full.slots, width, shape))


def _restore(union: np.ndarray, keep: list[int], axes: Sequence[int], rank: int) -> np.ndarray:
    """[*kept, u] -> [*rows, u] with size 1 along `axes`."""
    with_ones = union.reshape((*union.shape[:-1], *[1] * len(axes), union.shape[-1]))
    return np.transpose(with_ones, (*np.argsort([*keep, *axes]), rank))


def union_of_lines(cols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per line: the sorted distinct columns (padded by -1), and the place of each entry among them."""
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


def _place(vals: Any, position: np.ndarray, slots: int, width: int, shape: tuple[int, ...]) -> Any:
    """Add the values of every row to their places among `width` slots."""
    rows = math.prod(shape)
    position = np.broadcast_to(position, (*shape, slots)).reshape(rows, slots)
    line = np.broadcast_to(np.arange(rows)[:, None], position.shape)
    present = position >= 0
    vals = xp(vals).broadcast_to(vals, (*shape, slots)).reshape(rows, slots)
    if isinstance(vals, np.ndarray):
        out = np.zeros((rows, width), vals.dtype)
        np.add.at(out, (line[present], position[present]), vals[present])
        return out.reshape((*shape, width))
    if slots == 1 and not present.all():
        position = np.where(present, position, width)
    index = np.where(present, line * width + position, rows * width)
    out = jnp.zeros((rows * width,), vals.dtype).at[index.reshape(-1)].add(vals.reshape(-1), mode="drop")
    return out.reshape((*shape, width))


def common_columns(operands: Sequence[Sequence[Block]]) -> tuple[np.ndarray, list[Any]]:
    """Densify several arrays completely, over one union of columns: (columns, values of each)."""
    dense = [densify(blocks, range(len(blocks[0].shape))) for blocks in operands]
    columns = np.unique(np.concatenate([d.cols.reshape(-1) for d in dense]))
    columns = columns[columns >= 0]
    return columns.astype(np.int32), [_spread(d, columns) for d in dense]


def _spread(block: Block, columns: np.ndarray) -> Any:
    mine = block.cols.reshape(-1)
    vals = jnp.broadcast_to(jnp.asarray(block.vals), (*block.shape, block.slots))
    mine = np.broadcast_to(mine, (block.slots,))
    if np.array_equal(mine, columns):
        return vals
    present = mine >= 0
    place = np.searchsorted(columns, mine[present])
    out = jnp.zeros((*block.shape, len(columns)), vals.dtype)
    return out.at[..., place].add(vals[..., np.flatnonzero(present)])


def through_columns(operands: Sequence[Sequence[Block]], run: Callable[..., list[Any]]) -> list[list[Block]]:
    """Apply a linear map to every dense column: the universal fallback, exactly `jacfwd` for one equation."""
    columns, values = common_columns(operands)
    if not len(columns):
        shapes = [jax.ShapeDtypeStruct(v.shape[:-1], v.dtype) for v in values]
        return [[_absent(o.shape, o.dtype)] for o in jax.eval_shape(run, *shapes)]
    outs = jax.vmap(run, in_axes=-1, out_axes=-1)(*values)
    return [[Block(o.shape[:-1], columns.reshape((1,) * (o.ndim - 1) + (-1,)), o)] for o in outs]


def _absent(shape: tuple[int, ...], dtype: Any) -> Block:
    ones = (1,) * (len(shape) + 1)
    return Block(shape, np.full(ones, -1, np.int32), np.zeros(ones, dtype))
