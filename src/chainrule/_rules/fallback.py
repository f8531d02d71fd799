"""The universal fallback: densify, then the primitive under `vmap`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._blocks.block import Block, densify, expand, xp
from chainrule._errors import MissingRuleError
from chainrule._jax import as_function
from chainrule._memory import require_memory
from chainrule._program import Context, Tangent, Value, as_jax, plain, zero_tangent
from chainrule._substitution import with_substitution


def fallback(context: Context, eqn: Any, values: list[Value]) -> list[Value]:
    """Apply one linear equation to every dense column of its tangent operands: what `jacfwd` does."""
    run = as_function(eqn)
    live = [k for k, v in enumerate(values) if isinstance(v, Tangent) and v.blocks]
    derived = [jnp.issubdtype(var.aval.dtype, jnp.inexact) for var in eqn.outvars]  # a flag beside them is no tangent
    _require_linear(eqn, values, lambda *full: list(itertools.compress(run(*full), derived)))

    def on_tangents(*columns: Any) -> list[Any]:
        full = [plain(v) for v in values]
        for k, column in zip(live, columns, strict=True):
            full[k] = column
        return list(itertools.compress(run(*full), derived))

    operands = [v.blocks for v in values if isinstance(v, Tangent) and v.blocks]
    outs = iter(through_columns(eqn.primitive.name, operands, on_tangents))
    context.fallbacks[eqn.primitive.name] = None
    results: list[Value] = []
    for var, own in zip(eqn.outvars, derived, strict=True):
        blocks = next(outs) if own else []
        context.count(*blocks)
        results.append(Tangent(tuple(var.aval.shape), var.aval.dtype, tuple(blocks)))
    return results


# linear in the tangent, though JAX may have no transpose of them
_LINEAR = {"scan", "while", "cond", "custom_lin", "bcoo_spdot_general"}


def _require_linear(eqn: Any, values: list[Value], run: Any) -> None:
    """Refuse a step that JAX itself cannot transpose: it is not linear in its tangents."""
    name = eqn.primitive.name
    if name in _LINEAR:
        return
    shapes = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in values if isinstance(v, Tangent)]

    def linear(*tangents: Any) -> Any:
        left = iter(tangents)
        return run(*[next(left) if isinstance(v, Tangent) else as_jax(v.value) for v in values])

    try:
        outs = jax.eval_shape(linear, *shapes)
        jax.eval_shape(lambda *ct: jax.linear_transpose(linear, *shapes)(list(ct)), *outs)
    except Exception as error:
        raise MissingRuleError(
            f"jacobian: the step `{name}` is not linear in its tangent or cotangent, so the derivative rule that "
            "contains it (a custom_jvp or custom_vjp of the function?) defines no Jacobian; jax.vjp gives its products."
        ) from error


def mix(
    context: Context,
    eqn: Any,
    values: list[Value],
    operand: int,
    axes: Sequence[int],
    work: int | None = None,
    batch: dict[int, int] | None = None,
    alike: Sequence[int] = (),
) -> list[Value]:
    """Densify along the mixed axes only, then the primitive under `vmap` over the slots.

    `work` is the number of operations for each element of the result: as a matrix would take, unless given.
    `batch` says which axis of the result each other axis of the operand becomes: the same one, unless given.
    `alike` are those of the other axes along which the primitive does the same all along: where the values do not vary
    there either, they are taken once.
    """
    tangent = values[operand]
    assert isinstance(tangent, Tangent)
    aval, rank = eqn.outvars[0].aval, len(tangent.shape)
    if not tangent.blocks:  # a sum that waited, and vanishes
        return [zero_tangent(aval)]
    run, batch = as_function(with_substitution(eqn)), batch or {k: k for k in range(rank) if k not in axes}

    def column(vals: Any) -> Any:
        full = [as_jax(v.value) if not isinstance(v, Tangent) else vals for v in values]
        return run(*full)[0]

    def applied(vals: Any) -> Any:
        free = [k for k in alike if vals.shape[k] == 1 < tangent.shape[k]]
        out = _side_by_side(column, as_jax(vals), tangent.shape, free, [batch[k] for k in free])
        context.cost += int(np.prod(out.shape)) * (work or int(np.prod([tangent.shape[k] for k in axes])))
        return out

    def aligned(array: Any) -> Any:
        """[*rows of the operand, 1 along the mixed axes, slots] -> [*rows of the result, slots]."""
        kept = sorted(batch, key=lambda k: batch[k])
        array = xp(array).transpose(array, (*kept, *axes, rank))
        sizes = dict(zip((batch[k] for k in kept), array.shape, strict=False))
        return array.reshape((*[sizes.get(k, 1) for k in range(len(aval.shape))], array.shape[-1]))

    packed, shape = densify(tangent.blocks, axes), tuple(aval.shape)
    factors = _factors(tangent.blocks, axes, alike, packed)
    if factors is None:
        vals = applied(packed.vals)
    else:
        vals, units, before = factors
        factor = aligned(as_jax(vals)).astype(aval.dtype)
        vals = applied(units)[..., None, :] * factor[..., None]  # [*rows, slots of the factor, units]
        context.cost += int(np.prod(vals.shape))
        vals = jnp.swapaxes(vals, -1, -2) if before else vals
        vals = vals.reshape((*vals.shape[:-2], packed.slots))
    return [Tangent(shape, aval.dtype, (Block(shape, aligned(packed.cols), vals),))]


def _side_by_side(
    run: Callable[[Any], Any], vals: Any, shape: tuple[int, ...], free: Sequence[int], becomes: Sequence[int]
) -> Any:
    """A linear map of arrays of this shape on each slot, [*shape or 1s, slots] -> [*outs or 1s, slots].

    The axes `free` become those axes of the result, and the map does the same all along them: as no value varies there,
    one run takes as many slots as they have places.
    """
    rows, slots, sizes = vals.shape[:-1], vals.shape[-1], [shape[k] for k in free]
    room = math.prod(sizes)
    runs = -(-slots // room)
    if runs * room > slots:
        vals = jnp.pad(vals, [*[(0, 0)] * len(rows), (0, runs * room - slots)])
    vals = vals.reshape((*[r for k, r in enumerate(rows) if k not in free], runs, *sizes))
    vals = jnp.broadcast_to(jnp.moveaxis(vals, range(-len(free), 0), free), (*shape, runs))
    out = jax.vmap(run, in_axes=-1, out_axes=-1)(vals)
    out = jnp.moveaxis(out, becomes, range(-len(free), 0))  # [*other axes, runs, *free]
    out = out.reshape((*out.shape[: out.ndim - len(free) - 1], runs * room))[..., :slots]
    return jnp.expand_dims(out, tuple(becomes))


def _factors(
    blocks: Sequence[Block], axes: Sequence[int], alike: Sequence[int], packed: Block
) -> tuple[Any, Any, bool] | None:
    """(values, units, order) where an operand is units along the mixed axes times values that do not vary there.

    A linear map along these axes then takes the units alone: values [*rows, q] times what it makes of units [*rows, u]
    are the result. None where a column is met twice, or where the values are but one for all units. `packed` is the
    operand made dense; in its slots the units stand before the q, or after them.
    """
    (b, *others), count, rank = blocks, math.prod(blocks[0].shape[k] for k in axes), len(blocks[0].shape)
    one = b.vals.shape[-1] == 1 and all(b.vals.shape[k] == 1 for k in alike)
    vary = any(b.vals.shape[k] != 1 for k in axes)
    if others or one or vary or b.rows is not None or packed.slots != count * b.slots:
        return None
    if jnp.iscomplexobj(b.vals):  # some maps commute with real numbers alone
        return None
    full = b.full_slots(expand(b, axes).cols)
    keep = [k for k in range(rank) if k not in axes]
    for before in (False, True):
        cols = np.transpose(full, (*keep, *axes, rank) if before else (*keep, rank, *axes))
        cols = cols.reshape((*[1 if k in axes else full.shape[k] for k in range(rank)], packed.slots))
        if (cols == packed.cols).all():
            sizes = [b.shape[k] if k in axes else 1 for k in range(rank)]
            units = jnp.eye(count, dtype=b.vals.dtype).reshape((*sizes, count))
            return b.full_slots(b.vals), units, before
    return None


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


def through_columns(name: str, operands: Sequence[Sequence[Block]], run: Callable[..., list[Any]]) -> list[list[Block]]:
    """Apply a linear map to every dense column: the universal fallback, exactly `jacfwd` for one equation."""
    columns, values = common_columns(operands)
    if not len(columns):
        shapes = [jax.ShapeDtypeStruct(v.shape[:-1], v.dtype) for v in values]
        return [[_absent(o.shape, o.dtype)] for o in jax.eval_shape(run, *shapes)]
    for o in jax.eval_shape(run, *[jax.ShapeDtypeStruct(v.shape[:-1], v.dtype) for v in values]):
        require_memory(f"jacobian: the step `{name}`", (*o.shape, len(columns)), o.dtype.itemsize)
    # along a first axis, as `jacfwd` does: some primitives have no other
    outs = jax.vmap(run, out_axes=-1)(*[jnp.moveaxis(v, -1, 0) for v in values])
    return [[Block(o.shape[:-1], columns.reshape((1,) * (o.ndim - 1) + (-1,)), o)] for o in outs]


def _absent(shape: tuple[int, ...], dtype: Any) -> Block:
    ones = (1,) * (len(shape) + 1)
    return Block(shape, np.full(ones, -1, np.int32), np.zeros(ones, dtype))
