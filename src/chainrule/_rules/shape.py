"""Structural primitives: they move rows; columns and values move alike, without arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._blocks.block import Block, expand, flat_numbers, join, move_rows, only, xp
from chainrule._blocks.rows import pad_array, pad_rows, scatter_rows
from chainrule._memory import require_columns
from chainrule._program import Coefficient, Context, Contracted, Tangent, Value
from chainrule._rules._registry import rule
from chainrule._rules.contraction import transposed
from chainrule._rules.pointwise import result, tidy


def renumber(blocks: Sequence[Block], target: np.ndarray) -> list[Block]:
    """Blocks whose rows keep their values under other numbers."""
    moved = [scatter_rows(b, target) for b in blocks]
    return [b for b in moved if b is not None]


def stays_narrow(block: Block, shape: tuple[int, ...]) -> bool:
    """Say whether absent entries in all other rows of `shape` cost less than rows kept apart would."""
    return block.slots == 1 or (block.slots <= 16 and math.prod(shape) <= 8 * math.prod(block.shape))


def _rows(eqn: Any, values: list[Value], move: Any) -> list[Value]:
    shape = tuple(eqn.outvars[0].aval.shape)
    (u,) = values[:1]
    assert isinstance(u, Tangent)
    full = [move_rows(b, shape, move) for b in u.blocks if b.rows is None]
    scattered = [b for b in u.blocks if b.rows is not None]
    if not scattered:
        return result(eqn, full)
    source = move(flat_numbers(u.shape)[..., None], np)[..., 0].reshape(-1)
    target = np.full(math.prod(u.shape), -1)
    target[source] = np.arange(len(source))
    return result(eqn, full + renumber(scattered, target))


@rule("transpose", reads="permutation", scattered=True)
def transpose(context: Context, eqn: Any, values: list[Value]) -> Any:
    """Permute the rows' axes: out[i[p0], i[p1], ...] = in[i0, i1, ...]."""
    p, u = eqn.params["permutation"], values[0]
    if isinstance(u, Contracted) and not u.taken:
        return transposed(context, eqn, u, p)
    return _rows(eqn, values, lambda a, m: m.transpose(a, (*p, len(p))))


@rule("rev", reads="dimensions", scattered=True)
def rev(context: Context, eqn: Any, values: list[Value]) -> Any:
    """Reverse the rows along some axes."""
    return _rows(eqn, values, lambda a, m: m.flip(a, eqn.params["dimensions"]))


@rule("squeeze", reads="dimensions", scattered=True)
def squeeze(context: Context, eqn: Any, values: list[Value]) -> Any:
    """Drop row axes of size 1."""
    return _rows(eqn, values, lambda a, m: m.squeeze(a, eqn.params["dimensions"]))


@rule("broadcast_in_dim", reads="shape broadcast_dimensions")
def broadcast_in_dim(context: Context, eqn: Any, values: list[Value]) -> Any:
    """Repeat rows along new axes: nothing is copied, a new axis has size 1."""
    shape, where = eqn.params["shape"], eqn.params["broadcast_dimensions"]

    def move(a: Any, m: Any) -> Any:
        out = [1] * len(shape)
        for k, axis in enumerate(where):
            out[axis] = a.shape[k]
        return a.reshape((*out, a.shape[-1]))

    return _rows(eqn, values, move)


@rule("reshape", reads="new_sizes dimensions", scattered=True)
def reshape(context: Context, eqn: Any, values: list[Value]) -> Any:
    """Regroup the rows. Axes that are the same along a whole group stay of size 1."""
    u, shape = values[0], tuple(eqn.outvars[0].aval.shape)
    assert isinstance(u, Tangent)
    if (order := eqn.params.get("dimensions")) is not None:
        turned = jax.make_jaxpr(lambda a: a.transpose(order).reshape(shape))(jax.ShapeDtypeStruct(u.shape, u.dtype))
        return context.propagate(turned.jaxpr, turned.consts, values)
    groups = _groups(u.shape, shape)

    def move(a: Any) -> Any:
        sizes_in, sizes_out = list(a.shape[:-1]), []
        for old, new in groups:
            if all(a.shape[k] == 1 for k in old):
                sizes_out += [1] * len(new)
            else:
                for k in old:
                    sizes_in[k] = u.shape[k]
                sizes_out += [shape[k] for k in new]
        if isinstance(a, np.ndarray):
            require_columns((*sizes_out, a.shape[-1]))
        return xp(a).broadcast_to(a, (*sizes_in, a.shape[-1])).reshape((*sizes_out, a.shape[-1]))

    moved = [Block(shape, move(b.cols), move(b.vals)) if b.rows is None else b for b in u.blocks]
    return result(eqn, moved)


def _groups(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Smallest runs of old and new axes of equal size."""
    if 0 in old:
        return [(list(range(len(old))), list(range(len(new))))]
    groups, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        a: list[int] = []
        b: list[int] = []
        p = q = 1
        while (not a and not b) or p != q:
            if p <= q and i < len(old):
                a.append(i)
                p, i = p * old[i], i + 1
            else:
                b.append(j)
                q, j = q * new[j], j + 1
        groups.append((a, b))
    return groups


@rule("slice", reads="start_indices limit_indices strides", scattered=True)
def slice_(context: Context, eqn: Any, values: list[Value]) -> Any:
    """Keep some rows."""
    p = eqn.params
    steps = p["strides"] or (1,) * len(p["start_indices"])
    cut = [slice(*s) for s in zip(p["start_indices"], p["limit_indices"], steps, strict=True)]

    u = values[0]
    assert isinstance(u, Tangent)
    own = u.shape

    def move(a: Any, m: Any) -> Any:
        return a[tuple(c if a.shape[k] != 1 or own[k] == 1 else slice(None) for k, c in enumerate(cut))]

    return _rows(eqn, values, move)


@rule("pad", reads="padding_config", scattered=True)
def pad(context: Context, eqn: Any, values: list[Value]) -> Any:
    """Surround rows by copies of one: of zeros, whose columns are absent, or of that of the filler."""
    u, filler = values
    config, shape = eqn.params["padding_config"], tuple(eqn.outvars[0].aval.shape)
    if any(isinstance(v, Coefficient) and not v.zero for v in values):
        return NotImplemented
    blocks: list[Block] = []
    if isinstance(filler, Tangent) and filler.blocks:
        around = pad_array(flat_numbers(u.shape), config, -1)[..., None] < 0
        for b in filler.filled().blocks:
            cols, vals = (a.reshape((*[1] * len(shape), -1)) for a in (b.cols, b.vals))
            blocks.append(Block(shape, only(cols, around), vals))
    for b in u.blocks if isinstance(u, Tangent) else ():
        if b.rows is None and (b.vals.size == 1 or stays_narrow(b, shape)):
            blocks.append(pad_rows(b, config, shape))
        else:
            blocks += renumber([b], _padded_numbers(u.shape, config, shape))
    return result(eqn, blocks)


def _padded_numbers(old: tuple[int, ...], config: Any, new: tuple[int, ...]) -> np.ndarray:
    """Where each element of an array stands once it is padded; -1 where it is cut off."""
    source = pad_array(flat_numbers(old), config, -1).reshape(-1)
    target = np.full(math.prod(old), -1)
    kept = source >= 0
    target[source[kept]] = np.flatnonzero(kept)
    return target


@rule("concatenate", reads="dimension", scattered=True)
def concatenate(context: Context, eqn: Any, values: list[Value]) -> Any:
    """Lay rows one after the other: blocks of equal width are concatenated, the others padded."""
    return _lay_along(context, eqn, values, eqn.params["dimension"])


@rule("stack", reads="axis")
def stack(context: Context, eqn: Any, values: list[Value]) -> Any:
    """Lay rows one after the other along a new axis."""
    axis = eqn.params["axis"]
    return _lay_along(context, eqn, [_with_axis(v, axis) for v in values], axis)


def _with_axis(v: Value, axis: int) -> Value:
    if isinstance(v, Coefficient):
        return Coefficient(xp(v.value).expand_dims(v.value, axis))
    shape = _with(v.shape, axis, 1)
    moved = [move_rows(b, shape, lambda a, m: m.expand_dims(a, axis)) for b in v.blocks]
    return Tangent(shape, v.dtype, tuple(moved))


@rule("unstack", reads="axis")
def unstack(context: Context, eqn: Any, values: list[Value]) -> Any:
    """Cut rows apart along an axis, which goes."""
    (u,), axis = values, eqn.params["axis"]
    assert isinstance(u, Tangent)
    outs = []
    for k, var in enumerate(eqn.outvars):
        shape = tuple(var.aval.shape)

        def move(a: Any, m: Any, k: int = k) -> Any:
            return m.take(a, min(k, a.shape[axis] - 1), axis)

        moved = [move_rows(b, shape, move) for b in u.blocks]
        outs.append(Tangent(shape, var.aval.dtype, tuple(moved)))
    return outs


def _lay_along(context: Context, eqn: Any, values: list[Value], axis: int) -> Any:
    shape = tuple(eqn.outvars[0].aval.shape)
    sizes = [v.value.shape[axis] if isinstance(v, Coefficient) else v.shape[axis] for v in values]
    if any(isinstance(v, Coefficient) and not v.zero for v in values):
        return NotImplemented
    pieces = [[b for b in v.blocks if b.rows is None] if isinstance(v, Tangent) else [] for v in values]
    moved = _moved_along(eqn, values, sizes, axis, shape)
    small = np.prod(shape) <= 64
    if small:
        pieces = [[join(p)] if p else [] for p in pieces]
    blocks: list[Block] = []
    while any(pieces):
        first = next(p[0] for p in pieces if p)
        row = [_take_like(p, first, small) for p in pieces]
        if sum(b is not None for b in row) == 1 and first.vals.size > 1 and not stays_narrow(first, shape):
            k = next(k for k, b in enumerate(row) if b is not None)
            blocks += renumber([first], _places_along(sizes, k, axis, shape))
        else:
            blocks.append(_concatenate(row, sizes, axis, shape))
    out = tidy(blocks + moved)
    context.count(*out)
    return result(eqn, out)


def _moved_along(eqn: Any, values: list[Value], sizes: list[int], axis: int, shape: tuple[int, ...]) -> list[Block]:
    """The scattered blocks of the operands, under the numbers of the result."""
    moved: list[Block] = []
    for k, v in enumerate(values):
        scattered = [b for b in v.blocks if b.rows is not None] if isinstance(v, Tangent) else []
        if scattered:
            moved += renumber(scattered, _places_along(sizes, k, axis, shape))
    return moved


def _places_along(sizes: list[int], k: int, axis: int, shape: tuple[int, ...]) -> np.ndarray:
    """The flat numbers in the result of the elements of operand k."""
    start = sum(sizes[:k])
    return flat_numbers(shape)[(slice(None),) * axis + (slice(start, start + sizes[k]),)].reshape(-1)


def _take_like(piece: list[Block], first: Block, small: bool) -> Block | None:
    """The next block of this operand that fits beside `first`."""
    for k, b in enumerate(piece):
        equal = b is first or (b.slots == first.slots and b.static == first.static)
        if equal and b.static and b is not first:
            equal = b.vals.size == first.vals.size == 1 and b.vals.item() == first.vals.item()
        if equal or small:
            return piece.pop(k)
    return None


def _concatenate(row: list[Block | None], sizes: list[int], axis: int, shape: tuple[int, ...]) -> Block:
    live = [b for b in row if b is not None]
    width = max(b.slots for b in live)
    pieces = [_piece_cols(b, s, axis, width, shape) for b, s in zip(row, sizes, strict=True)]
    other = np.broadcast_shapes(*[_without(c.shape, axis) for c in pieces])
    require_columns(_with(other, axis, sum(sizes)))
    cols = np.concatenate([np.broadcast_to(c, _with(other, axis, c.shape[axis])) for c in pieces], axis)
    first = live[0].vals
    if all(b.static and b.vals.size == 1 and b.vals.item() == first.item() for b in live):
        return Block(shape, cols, first)
    if len(live) == 1 and first.shape[axis] == 1 and live[0].shape[axis] != 1:
        return Block(shape, cols, first)
    vals = [_piece_vals(b, s, axis, width, live[0]) for b, s in zip(row, sizes, strict=True)]
    other = np.broadcast_shapes(*[_without(v.shape, axis) for v in vals])
    module = np if all(isinstance(v, np.ndarray) for v in vals) else jnp
    whole = module.concatenate([module.broadcast_to(v, _with(other, axis, v.shape[axis])) for v in vals], axis)
    return Block(shape, cols, whole)


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def _with(shape: tuple[int, ...], axis: int, size: int) -> tuple[int, ...]:
    return (*shape[:axis], size, *shape[axis:])


def _piece_cols(b: Block | None, size: int, axis: int, width: int, shape: tuple[int, ...]) -> np.ndarray:
    if b is None:
        require_columns((size, width))
        return np.full((*_with((1,) * (len(shape) - 1), axis, size), width), -1, np.int32)
    cols = b.full_slots(expand(b, [axis]).cols)
    return np.pad(cols, [(0, 0)] * len(shape) + [(0, width - b.slots)], constant_values=-1)


def _piece_vals(b: Block | None, size: int, axis: int, width: int, like: Block) -> Any:
    if b is None:
        return np.zeros((*_with((1,) * (len(like.shape) - 1), axis, size), width), like.vals.dtype)
    vals = b.full_slots(expand(b, [axis]).vals)
    return xp(vals).pad(vals, [(0, 0)] * len(b.shape) + [(0, width - b.slots)])


@rule("split", reads="axis sizes")
def split(context: Context, eqn: Any, values: list[Value]) -> Any:
    """Cut rows into pieces along one axis."""
    (u,) = values
    assert isinstance(u, Tangent)
    axis, start, outs = eqn.params["axis"], 0, []
    for size, var in zip(eqn.params["sizes"], eqn.outvars, strict=True):
        cut = (slice(None),) * axis + (slice(start, start + size),)
        shape = tuple(var.aval.shape)

        def move(a: Any, m: Any, cut: Any = cut) -> Any:
            return a if a.shape[axis] == 1 and u.shape[axis] != 1 else a[cut]

        moved = [move_rows(b, shape, move) for b in u.blocks]
        outs.append(Tangent(shape, var.aval.dtype, tuple(moved)))
        start += size
    return outs


@rule("tile", reads="reps")
def tile(context: Context, eqn: Any, values: list[Value]) -> Any:
    """Repeat the rows along some axes; an axis along which all is the same stays so."""
    reps = eqn.params["reps"]

    def move(a: Any, m: Any) -> Any:
        own = [1 if a.shape[k] == 1 else r for k, r in enumerate(reps)]
        if m is np:
            require_columns([n * r for n, r in zip(a.shape, [*own, 1], strict=True)])
        return m.tile(a, (*own, 1))

    return _rows(eqn, values, move)
