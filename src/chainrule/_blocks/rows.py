"""The rows of blocks by their numbers: padded, taken, renumbered, filled in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from chainrule._blocks.block import Block, compressed, expand, flat_numbers, only
from chainrule._memory import require_columns


def pad_rows(block: Block, config: Any, shape: tuple[int, ...]) -> Block:
    """Pad columns with -1; values that are the same along an axis stay so."""
    moved = [k for k, c in enumerate(config) if tuple(c) != (0, 0, 0)]
    cols = pad_array(expand(block, moved).cols, config, -1)
    own = [(c if block.vals.shape[k] != 1 or (block.shape[k] == 1 and block.vals.size > 1) else (0, 0, 0))
           for k, c in enumerate(config)]  # fmt: skip
    return Block(shape, cols, pad_array(block.vals, own, 0))


def pad_array(array: Any, config: Any, filler: int) -> Any:
    """`lax.pad` of the leading axes, in NumPy where the array is known."""
    if isinstance(array, np.ndarray):
        require_columns([n + max(n - 1, 0) * step + max(low, 0) + max(high, 0)
                         for n, (low, high, step) in zip(array.shape, [*config, (0, 0, 0)], strict=False)])  # fmt: skip
        for k, (low, high, step) in enumerate(config):
            array = _pad_axis(array, k, low, high, step, filler)
        return array
    return jax.lax.pad(array, np.asarray(filler, array.dtype), [*[tuple(c) for c in config], (0, 0, 0)])


def _pad_axis(a: np.ndarray, k: int, low: int, high: int, step: int, filler: int) -> np.ndarray:
    if (low, high, step) == (0, 0, 0):
        return a
    size = a.shape[k]
    inner = size + max(size - 1, 0) * step
    out = np.full((*a.shape[:k], inner + max(low, 0) + max(high, 0), *a.shape[k + 1 :]), filler, a.dtype)
    where = [slice(None)] * a.ndim
    where[k] = slice(max(low, 0), max(low, 0) + inner, step + 1)
    out[tuple(where)] = a
    where[k] = slice(max(-low, 0), out.shape[k] - max(-high, 0))
    return out[tuple(where)]


def fill(block: Block, shape: tuple[int, ...]) -> list[Block]:
    """A scattered block as blocks of all rows of an array of `shape`, one for each time that rows repeat."""
    if block.rows is None:
        return [block]
    box = _box(block.rows.reshape(-1), shape)
    if box is not None:
        return [_surrounded(block, box, shape)]
    return [take_rows(block, layer.reshape(shape)) for layer in layers(block.rows, math.prod(shape))]


def _box(numbers: np.ndarray, shape: tuple[int, ...]) -> tuple[slice, ...] | None:
    """The slices that cut exactly these flat numbers, in order, out of an array of `shape`."""
    first, last = (np.unravel_index(int(numbers[k]), shape) for k in (0, -1))
    box = tuple(slice(int(a), int(b) + 1) for a, b in zip(first, last, strict=True))
    if math.prod(max(s.stop - s.start, 0) for s in box) != len(numbers):
        return None
    return box if np.array_equal(flat_numbers(shape)[box].reshape(-1), numbers) else None


def _surrounded(block: Block, box: tuple[slice, ...], shape: tuple[int, ...]) -> Block:
    """A block of a box of rows, padded to all rows."""
    inner = tuple(s.stop - s.start for s in box)
    if block.shape != inner:
        full = expand(block, range(len(block.shape)))
        block = Block(inner, *(a.reshape((*inner, a.shape[-1])) for a in (full.cols, full.vals)))
    return pad_rows(block, [(s.start, n - s.stop, 0) for s, n in zip(box, shape, strict=True)], shape)


def present_parts(blocks: Sequence[Block], axis: int) -> list[tuple[slice, list[Block]]]:
    """Blocks cut to the parts of an axis that they are present in; none where these are more than the axis has."""
    found: dict[tuple[int, int], list[Block]] = {}
    for b in blocks:
        there = np.asarray((b.cols >= 0).any(axis=tuple(k for k in range(b.cols.ndim) if k != axis)))
        if len(there) == 1 or not there.any():
            return []
        places = np.flatnonzero(there)
        found.setdefault((int(places[0]), int(places[-1]) + 1), []).append(b)
    n = blocks[0].shape[axis] if blocks else 0
    if (0, n) in found or sum(stop - start for start, stop in found) > n:
        return []
    return [(slice(*part), [_cut(b, axis, slice(*part)) for b in own]) for part, own in found.items()]


def _cut(block: Block, axis: int, part: slice) -> Block:
    """The rows in a part of an axis."""
    shape, cut = list(block.shape), (slice(None),) * axis + (part,)
    shape[axis] = part.stop - part.start
    vals = block.vals if block.vals.shape[axis] == 1 else block.vals[cut]
    return Block(tuple(shape), compressed(block.cols[cut], len(shape)), vals)


def layers(targets: np.ndarray, size: int) -> list[np.ndarray]:
    """For each time that rows repeat: which element goes to each of `size` rows, or -1."""
    flat = targets.reshape(-1)
    order = np.argsort(flat, kind="stable")
    order = order[flat[order] >= 0]
    rows = flat[order]
    depth = np.arange(len(rows)) - np.searchsorted(rows, rows, side="left")
    shape = int(depth.max(initial=-1)) + 1, size
    require_columns(shape)
    out = np.full(shape, -1, np.int64)
    out[depth, rows] = order
    return list(out)


def take_rows(block: Block, sources: np.ndarray) -> Block:
    """Rows by their flat numbers, -1 for none; a single number stays one."""
    full = expand(block, range(len(block.shape)))
    cols = full.cols.reshape(-1, full.cols.shape[-1])
    index = np.maximum(sources, 0)
    require_columns((*sources.shape, cols.shape[-1]))
    cols = only(cols[index], (sources >= 0)[..., None])
    if block.vals[..., :1].size == 1:
        return Block(sources.shape, cols, block.vals.reshape((1,) * sources.ndim + block.vals.shape[-1:]))
    vals = full.vals.reshape(-1, full.vals.shape[-1])
    if isinstance(vals, np.ndarray):
        return Block(sources.shape, cols, vals[index])
    return Block(sources.shape, cols, vals.at[index].get(mode="promise_in_bounds"))


def scatter_rows(block: Block, target: np.ndarray) -> Block | None:
    """Renumber rows: row i of the array becomes row target[i] of another one, or is dropped (-1)."""
    rows = target.reshape(-1)[block.lines]
    if (rows >= 0).all():
        return Block(block.shape, block.cols, block.vals, rows)
    kept = np.flatnonzero(rows >= 0)
    if not len(kept):
        return None
    box = _box(kept, block.shape)
    if box is not None:
        cols, vals = (
            a[tuple(s if n != 1 else slice(None) for s, n in zip(box, a.shape, strict=False))]
            for a in (block.cols, block.vals)
        )
        return Block(tuple(s.stop - s.start for s in box), cols, vals, rows[box])
    own = take_rows(Block(block.shape, block.cols, block.vals), kept)
    return Block(own.shape, own.cols, own.vals, rows.reshape(-1)[kept])
