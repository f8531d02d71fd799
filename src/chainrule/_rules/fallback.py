"""The universal fallback: densify, then the primitive under `vmap`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._blocks.block import Block, densify, expand
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
) -> list[Value]:
    """Densify along the mixed axes only, then the primitive under `vmap` over the slots.

    `work` is the number of operations for each element of the result: as a matrix would take, unless given.
    `batch` says which axis of the result each other axis of the operand becomes: the same one, unless given.
    """
    tangent = values[operand]
    assert isinstance(tangent, Tangent)
    aval = eqn.outvars[0].aval
    if not tangent.blocks:  # a sum that waited, and vanishes
        return [zero_tangent(aval)]
    packed = densify(tangent.blocks, axes)
    block, run = expand(packed, range(len(tangent.shape))), as_function(with_substitution(eqn))

    def column(vals: Any) -> Any:
        full = [as_jax(v.value) if not isinstance(v, Tangent) else vals for v in values]
        return run(*full)[0]

    slots = block.slots
    vals = jnp.broadcast_to(as_jax(block.vals), (*block.shape, slots))
    out = jax.vmap(column, in_axes=-1, out_axes=-1)(vals)
    context.cost += int(np.prod(out.shape)) * (work or int(np.prod([tangent.shape[k] for k in axes])))
    shape = tuple(aval.shape)
    cols = packed.cols
    if batch is not None:
        kept = sorted(batch, key=lambda k: batch[k])
        cols = np.transpose(cols, (*kept, *axes, cols.ndim - 1))
        sizes = dict(zip((batch[k] for k in kept), cols.shape, strict=False))
        cols = cols.reshape((*[sizes.get(k, 1) for k in range(len(shape))], cols.shape[-1]))
    return [Tangent(shape, aval.dtype, (Block(shape, cols, out),))]


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
