"""Indexing primitives: known indices move rows; unknown ones mix the axes that they choose from, no others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._blocks.block import Block
from chainrule._blocks.coefficient import evaluate
from chainrule._blocks.rows import layers, take_rows
from chainrule._jax import as_function, evaluate_now
from chainrule._memory import require_columns
from chainrule._program import Coefficient, Context, Tangent, Value, as_jax, zero_coefficient, zero_tangent
from chainrule._rules._registry import rule
from chainrule._rules.fallback import mix
from chainrule._rules.pointwise import choose, result, scale, tidy
from chainrule._rules.shape import renumber


def _sources(eqn: Any, values: list[Value], operand: int) -> np.ndarray:
    """For every element of the result: which element of the operand it is, or -1 for none."""
    shape, dtype = eqn.invars[operand].aval.shape, eqn.invars[operand].aval.dtype
    size = int(np.prod(shape))
    for own in (shape, eqn.outvars[0].aval.shape):
        require_columns(own)
    full = [v.value if isinstance(v, Coefficient) and v.static else np.zeros(v.shape, v.dtype) for v in values]
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
    operand, indices = values
    if not isinstance(operand, Tangent) or not isinstance(indices, Coefficient):
        return NotImplemented
    if fill not in (None, 0) and not (indices.static and _inside(eqn, operand, indices)):
        return NotImplemented
    if indices.static:
        return _move(eqn, values)
    if narrow := _of_one_number(
        indices, eqn.params["dimension_numbers"].start_index_map, operand.shape, eqn.params["slice_sizes"]
    ):
        return _within(context, eqn, [operand, _from_zero(indices, narrow)], narrow)
    d, sizes, aval = eqn.params["dimension_numbers"], eqn.params["slice_sizes"], eqn.outvars[0].aval
    rest = [k for k in range(len(aval.shape)) if k not in d.offset_dims]
    window = [k for k in range(len(sizes)) if k not in (*d.collapsed_slice_dims, *d.operand_batching_dims)]
    batch = {k: o for k, o in zip(window, d.offset_dims, strict=True) if sizes[k] == operand.shape[k]}
    batch |= {k: rest[j] for k, j in zip(d.operand_batching_dims, d.start_indices_batching_dims, strict=True)}
    batch |= {k: rest[j] for k, j in _counted(indices, d.start_index_map, operand.shape) if sizes[k] == 1}
    return _mixed(context, eqn, values, 0, batch)


def _inside(eqn: Any, operand: Tangent, indices: Coefficient) -> bool:
    """Say whether no known index is out of range: then nothing is filled in."""
    found = evaluate_now(as_function(eqn), np.zeros(operand.shape, operand.dtype), indices.value)[0]
    return bool((found == 0).all())


@rule("dynamic_slice", reads="slice_sizes")
def dynamic_slice(context: Context, eqn: Any, values: list[Value]) -> Any:
    """A window of rows. Of an unknown start, axes that are taken whole stay a batch."""
    done = _move(eqn, values)
    if done is not NotImplemented or not isinstance(values[0], Tangent):
        return done
    shape, sizes = values[0].shape, eqn.params["slice_sizes"]
    if narrow := _starts_known(values[1:], shape, sizes):
        return _within(context, eqn, values, narrow)
    return _mixed(context, eqn, values, 0, {k: k for k in range(len(shape)) if sizes[k] == shape[k]})


def _mixed(context: Context, eqn: Any, values: list[Value], operand: int, batch: dict[int, int]) -> list[Value]:
    axes = [k for k in range(len(values[operand].shape)) if k not in batch]
    return mix(context, eqn, values, operand, axes, work=1, batch=batch)


@dataclass(frozen=True)
class Narrow:
    """Axes on which every index is the same known number, `start`: the window there has size `size`.

    `component` is where the indices hold it.
    """

    axis: int
    component: int
    start: int
    size: int


def _of_one_number(
    indices: Coefficient, dims: Sequence[int], shape: Sequence[int], sizes: Sequence[int]
) -> list[Narrow]:
    """The axes of the operand on which all indices are one known number, and the window is narrower than the axis."""
    found = []
    if indices.partly is not None and indices.value.size:
        known, value = indices.partly
        for c, k in enumerate(dims):
            own = value[..., c]
            start = int(own.flat[0])
            inside = 0 <= start <= shape[k] - sizes[k] and sizes[k] < shape[k]
            if inside and known[..., c].all() and (own == start).all():
                found.append(Narrow(k, c, start, sizes[k]))
    return found


def _starts_known(starts: Sequence[Value], shape: Sequence[int], sizes: Sequence[int]) -> list[Narrow]:
    """The same of a slice, whose start is one number for each axis, brought into range."""
    return [
        Narrow(k, k, min(max(int(v.value), 0), shape[k] - sizes[k]), sizes[k])
        for k, v in enumerate(starts)
        if isinstance(v, Coefficient) and v.static and sizes[k] < shape[k]
    ]


def _written(eqn: Any, values: list[Value], updates: int) -> list[Narrow]:
    """The same of what is written."""
    shape, own = values[0].shape, values[updates].shape
    if eqn.primitive.name == "dynamic_update_slice":
        return _starts_known(values[2:], shape, own)
    d, indices = eqn.params["dimension_numbers"], values[1]
    assert isinstance(indices, Coefficient)
    window = [k for k in range(len(shape)) if k not in (*d.inserted_window_dims, *d.operand_batching_dims)]
    sizes = dict(zip(window, (own[k] for k in d.update_window_dims), strict=True))
    return _of_one_number(indices, d.scatter_dims_to_operand_dims, shape, [sizes.get(k, 1) for k in range(len(shape))])


def _rewritten(values: list[Value], narrow: list[Narrow], updates: int) -> list[Value]:
    """The operands of a write, with indices that count from the beginning of the window."""
    if updates == 1:  # the starts of a slice are brought into range
        return values
    return [values[0], _from_zero(values[1], narrow), *values[2:]]


def _from_zero(indices: Value, narrow: list[Narrow]) -> Coefficient:
    """Indices that count from the beginning of the window."""
    assert isinstance(indices, Coefficient) and indices.partly is not None
    known, number = indices.partly
    number, value = number.copy(), as_jax(indices.value)
    for own in narrow:
        number[..., own.component] = 0
        value = value.at[..., own.component].set(0)
    return Coefficient(value, places=(known, number))


def _within(context: Context, eqn: Any, values: list[Value], narrow: list[Narrow], writes: bool = False) -> list[Value]:
    """The same within the part of the operand that known indices point to: the others choose from no more."""
    starts, ends = [0] * len(values[0].shape), list(values[0].shape)
    for own in narrow:
        starts[own.axis], ends[own.axis] = own.start, own.start + own.size

    def run(operand: Any, *rest: Any) -> Any:
        (out,) = as_function(eqn)(jax.lax.slice(operand, starts, ends), *rest)
        return jax.lax.dynamic_update_slice(operand, out, starts) if writes else out

    closed = jax.make_jaxpr(run)(*[jax.ShapeDtypeStruct(v.shape, v.dtype) for v in values])
    return context.propagate(closed.jaxpr, closed.consts, values)


def _counted(indices: Coefficient, dims: Any, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """(axis of the operand, axis of the indices) where the index on that axis is known to be its own position."""
    if indices.partly is None:
        return []
    known, value = indices.partly
    found, lead = [], indices.shape[:-1]
    for c, k in enumerate(dims):
        if not known[..., c].all():
            continue
        for j, size in enumerate(lead):
            own = np.arange(size).reshape((*[1] * j, size, *[1] * (len(lead) - j - 1)))
            if size == shape[k] and (value[..., c] == own).all():
                found.append((k, j))
                break
    return found


@rule("dynamic_update_slice", "scatter", reads="dimension_numbers mode update_consts update_jaxpr")
def update(context: Context, eqn: Any, values: list[Value]) -> Any:
    """Rows of the operand, overwritten by rows of the update."""
    places = (0, 1) if eqn.primitive.name == "dynamic_update_slice" else (0, 2)
    rest = [v for k, v in enumerate(values) if k not in places]
    if any(isinstance(v, Tangent) for v in rest):
        return NotImplemented
    known = all(isinstance(v, Coefficient) and v.static for v in rest)
    if not known and (narrow := _written(eqn, values, places[1])):
        return _within(context, eqn, _rewritten(values, narrow, places[1]), narrow, writes=True)
    blocks: list[Block] = []
    for k in places:
        v = values[k]
        if isinstance(v, Coefficient):
            if not v.zero:
                return NotImplemented
        elif known:
            base = [w if isinstance(w, Coefficient) else zero_tangent(w) for w in values]
            sources = _sources(eqn, base, k)
            blocks += [take_rows(b, sources) for b in v.blocks]
        elif k == 0:
            keep = _kept(eqn, values, places[1])
            blocks += [choose(b, keep) for b in v.blocks]
        else:
            own = [w if j == k or j not in places else zero_coefficient(w) for j, w in enumerate(values)]
            (part,) = _mixed(context, eqn, own, k, _batch_of_updates(eqn, values, k))
            assert isinstance(part, Tangent)
            blocks += part.blocks
    context.count(*blocks)
    return result(eqn, tidy(blocks))


def _kept(eqn: Any, values: list[Value], updates: int) -> Any:
    """Which elements of the operand no update overwrites."""
    full = [as_jax(w.value) if isinstance(w, Coefficient) else jnp.zeros(w.shape, w.dtype) for w in values]
    full[0], full[updates] = jnp.ones(values[0].shape, values[0].dtype), jnp.zeros_like(full[updates])
    return as_function(eqn)(*full)[0] != 0


def _batch_of_updates(eqn: Any, values: list[Value], updates: int) -> dict[int, int]:
    """Which axes of the updates are axes of the result: those written whole, and those whose place is known."""
    shape, out = values[updates].shape, eqn.outvars[0].aval.shape
    if eqn.primitive.name == "dynamic_update_slice":
        return {k: k for k in range(len(out)) if shape[k] == out[k]}
    d, indices = eqn.params["dimension_numbers"], values[1]
    rest = [k for k in range(len(shape)) if k not in d.update_window_dims]
    window = [k for k in range(len(out)) if k not in (*d.inserted_window_dims, *d.operand_batching_dims)]
    batch = {u: k for k, u in zip(window, d.update_window_dims, strict=True) if shape[u] == out[k]}
    batch |= {rest[j]: k for k, j in zip(d.operand_batching_dims, d.scatter_indices_batching_dims, strict=True)}
    assert isinstance(indices, Coefficient)
    counted = _counted(indices, d.scatter_dims_to_operand_dims, out)
    return batch | {rest[j]: k for k, j in counted if k in d.inserted_window_dims}


@rule("scatter_add", "scatter_sub", reads="dimension_numbers mode update_consts update_jaxpr", scattered=True)
def scatter_add(context: Context, eqn: Any, values: list[Value]) -> Any:
    """out = operand, plus or minus updates at known places: each update adds slots to the row it meets."""
    operand, indices, updates = values
    if not isinstance(indices, Coefficient):
        return NotImplemented
    blocks = list(operand.blocks) if isinstance(operand, Tangent) else []
    if isinstance(operand, Coefficient) and not operand.zero:
        return NotImplemented
    if isinstance(updates, Tangent) and not indices.static:
        if narrow := _written(eqn, values, 2):
            return _within(context, eqn, _rewritten(values, narrow, 2), narrow, writes=True)
        own: list[Value] = [zero_coefficient(operand), indices, updates.filled()]
        (part,) = _mixed(context, eqn, own, 2, _batch_of_updates(eqn, own, 2))
        assert isinstance(part, Tangent)
        blocks += part.blocks
    elif isinstance(updates, Tangent):
        shape = tuple(eqn.outvars[0].aval.shape)
        target = _targets(eqn, updates, indices)
        found = layers(target, math.prod(shape))
        if len(found) == 1 and 2 * (target >= 0).sum() >= math.prod(shape):  # most rows are met, each of them once
            added = [take_rows(b, found[0].reshape(shape)) for b in updates.filled().blocks]
        else:
            added = renumber(updates.blocks, target)
        blocks += [b.with_vals(-b.vals) for b in added] if eqn.primitive.name == "scatter-sub" else added
    return result(eqn, tidy(blocks))


@rule("scatter_mul", reads="dimension_numbers mode update_consts update_jaxpr")
def scatter_mul(context: Context, eqn: Any, values: list[Value]) -> Any:
    """out = operand, some of its elements times numbers: J_out = diag(factor) J_u."""
    operand, *rest = values
    if not isinstance(operand, Tangent) or any(isinstance(v, Tangent) for v in rest):
        return NotImplemented
    ones = Coefficient(np.ones(operand.shape, operand.dtype))
    (factor,) = evaluate(eqn, [ones, *rest])
    assert isinstance(factor, Coefficient)
    return result(eqn, [scale(context, b, factor, operand.shape) for b in operand.blocks])


def _targets(eqn: Any, updates: Tangent, indices: Coefficient) -> np.ndarray:
    """For every update the flat row it is added to, or -1: the transpose (a gather) of the row numbers."""
    shape = eqn.outvars[0].aval.shape
    for own in (shape, updates.shape):
        require_columns(own)
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
            found = abs(transpose(digit)[0].real)  # of a difference it is negative
            total = total + (found.astype(jnp.int32) << k)
        return total - 1

    return evaluate_now(row_numbers)
