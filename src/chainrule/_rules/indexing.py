"""Indexing primitives with known indices move rows; with unknown ones they take the fallback."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._block import Block, layers, take_rows
from chainrule._jax import as_function, evaluate_now
from chainrule._program import Coefficient, Context, Tangent, Value
from chainrule._rules._registry import rule
from chainrule._rules.pointwise import result, tidy
from chainrule._rules.shape import renumber


def _sources(eqn: Any, values: list[Value], operand: int) -> np.ndarray:
    """For every element of the result: which element of the operand it is, or -1 for none."""
    shape, dtype = eqn.invars[operand].aval.shape, eqn.invars[operand].aval.dtype
    size = int(np.prod(shape))
    full = [v.value if isinstance(v, Coefficient) else np.zeros(v.shape, v.dtype) for v in values]
    exact = np.float64 if jax.config.jax_enable_x64 else np.float32  # type: ignore[attr-defined]
    if dtype != exact or size >= 2 ** (53 if exact is np.float64 else 24):
        return _sources_by_digits(eqn, full, operand, shape, dtype, size)
    full[operand] = np.arange(1, size + 1, dtype=dtype).reshape(shape)
    return evaluate_now(as_function(eqn), *full)[0].astype(np.int64) - 1


def _sources_by_digits(eqn: Any, full: list[Any], operand: int, shape: Any, dtype: Any, size: int) -> np.ndarray:
    """The same in base 64, for dtypes that do not hold large whole numbers."""
    total: Any = 0
    for k in range(max(1, -(-(size + 1).bit_length() // 6))):
        digits = (np.arange(1, size + 1) >> (6 * k)) & 63
        full[operand] = digits.reshape(shape).astype(dtype)
        total = total + (evaluate_now(as_function(eqn), *full)[0].real.astype(np.int64) << (6 * k))
    return total - 1


def _move(eqn: Any, values: list[Value]) -> Any:
    (operand, *indices) = values
    if not isinstance(operand, Tangent) or not all(isinstance(v, Coefficient) and v.static for v in indices):
        return NotImplemented
    sources = _sources(eqn, values, 0)
    return result(eqn, [take_rows(b, sources) for b in operand.blocks])


@rule("gather", reads="dimension_numbers fill_value mode slice_sizes")
def gather(context: Context, eqn: Any, values: list[Value]) -> Any:
    """out[i] = in[source(i)]; an index that fills has no column."""
    fill = eqn.params.get("fill_value")
    return NotImplemented if fill not in (None, 0) else _move(eqn, values)


@rule("dynamic_slice", reads="slice_sizes")
def dynamic_slice(context: Context, eqn: Any, values: list[Value]) -> Any:
    """A window of rows whose start is known."""
    return _move(eqn, values)


@rule("dynamic_update_slice", "scatter", reads="dimension_numbers mode update_consts update_jaxpr")
def update(context: Context, eqn: Any, values: list[Value]) -> Any:
    """Rows of the operand, overwritten by rows of the update."""
    operand, other = (values[0], values[1]) if eqn.primitive.name == "dynamic_update_slice" else (values[0], values[2])
    places = (0, 1) if eqn.primitive.name == "dynamic_update_slice" else (0, 2)
    rest = [v for k, v in enumerate(values) if k not in places]
    if not all(isinstance(v, Coefficient) and v.static for v in rest):
        return NotImplemented
    blocks: list[Block] = []
    for k, v in zip(places, (operand, other), strict=True):
        if isinstance(v, Coefficient):
            if not v.zero:
                return NotImplemented
            continue
        base = [w if isinstance(w, Coefficient) else Tangent(w.shape, w.dtype, ()) for w in values]
        sources = _sources(eqn, base, k)
        blocks += [take_rows(b, sources) for b in v.blocks]
    return result(eqn, tidy(blocks))


@rule("scatter_add", reads="dimension_numbers mode update_consts update_jaxpr", scattered=True)
def scatter_add(context: Context, eqn: Any, values: list[Value]) -> Any:
    """out = operand, plus updates at known places: each update adds slots to the row it meets."""
    operand, indices, updates = values
    if not (isinstance(indices, Coefficient) and indices.static):
        return NotImplemented
    blocks = list(operand.blocks) if isinstance(operand, Tangent) else []
    if isinstance(operand, Coefficient) and not operand.zero:
        return NotImplemented
    if isinstance(updates, Tangent):
        shape = tuple(eqn.outvars[0].aval.shape)
        target = _targets(eqn, updates, indices)
        found = layers(target, math.prod(shape))
        if len(found) == 1 and 2 * (target >= 0).sum() >= math.prod(shape):  # most rows are met, each of them once
            blocks += [take_rows(b, found[0].reshape(shape)) for b in updates.filled().blocks]
        else:
            blocks += renumber(updates.blocks, target)
    return result(eqn, tidy(blocks))


def _targets(eqn: Any, updates: Tangent, indices: Coefficient) -> np.ndarray:
    """For every update the flat row it is added to, or -1: the transpose (a gather) of the row numbers."""
    shape = eqn.outvars[0].aval.shape
    run = as_function(eqn)
    zero = np.zeros(shape, eqn.outvars[0].aval.dtype)
    size = int(np.prod(shape))
    bits = max(1, size.bit_length())

    def row_numbers() -> Any:
        def add(u: Any) -> Any:
            return run(jnp.asarray(zero), jnp.asarray(indices.value), u)[0]

        transpose = jax.linear_transpose(add, jax.ShapeDtypeStruct(updates.shape, updates.dtype))
        total = jnp.zeros(updates.shape, jnp.int32)
        numbers = np.arange(1, size + 1)
        for k in range(bits):
            digit = jnp.asarray(((numbers >> k) & 1).reshape(shape).astype(zero.dtype))
            total = total + (transpose(digit)[0].real.astype(jnp.int32) << k)
        return total - 1

    return evaluate_now(row_numbers)
