"""Primitives of `jax.experimental.sparse`, written out: gathers, products and scatters, which have rules.

A matrix of nonzeros `data[k]` at the places `indices[k]` gives each nonzero a gather, a product and a scatter. Places
that are known while tracing make the pattern; those beyond the shape are padding, and give nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from chainrule._jax import IGNORED_PARAMETERS, primitive

Operation = Callable[..., Any]  # of the operands, with the parameters that it reads by name
_OPERATIONS: dict[Any, tuple[frozenset[str], Operation]] = {}


def written_out(eqn: Any) -> Any:
    """A closed jaxpr of the equation in primitives of arrays; None where there is none, or a parameter is unknown."""
    reads, operation = _OPERATIONS.get(eqn.primitive, (frozenset(), None))
    if operation is None or not reads.union(IGNORED_PARAMETERS).issuperset(eqn.params):
        return None
    params = {name: eqn.params[name] for name in reads}
    shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars]
    try:
        closed = jax.make_jaxpr(lambda *operands: operation(*operands, **params))(*shapes)
    except NotImplementedError:
        return None
    return closed if [v.dtype for v in closed.out_avals] == [v.aval.dtype for v in eqn.outvars] else None


def _operation(name: str, reads: str) -> Callable[[Operation], Operation]:
    def register(operation: Operation) -> Operation:
        _OPERATIONS[primitive(name)] = frozenset(reads.split()), operation
        return operation

    return register


def _places(indices: Any, batch: Sequence[int] | None = None) -> list[Any]:
    """The place of each nonzero along every axis, those of the batch first; arrays of shape (*batch, nonzeros)."""
    given = indices.shape[:-2] if batch is None else batch
    full = jnp.broadcast_to(indices, (*given, *indices.shape[-2:]))
    own = [jax.lax.broadcasted_iota(indices.dtype, full.shape[:-1], k) for k in range(len(given))]
    return [*own, *[full[..., k] for k in range(full.shape[-1])]]


def _at(places: Sequence[Any], axes: Sequence[int]) -> tuple[Any, ...]:
    return tuple(places[k] for k in axes)


def _gathered(array: Any, places: Sequence[Any]) -> Any:
    if not places:
        raise NotImplementedError
    return array.at[tuple(places)].get(mode="fill", fill_value=0)


def _others(ndim: int, *axes: Sequence[int]) -> list[int]:
    return [k for k in range(ndim) if not any(k in own for own in axes)]


@_operation("bcoo_todense", reads="spinfo")
def _todense(data: Any, indices: Any, *, spinfo: Any) -> list[Any]:
    batch = spinfo.shape[: indices.ndim - 2]
    places = _places(indices, batch)
    if not places:
        raise NotImplementedError
    full = jnp.broadcast_to(data, (*batch, *data.shape[len(batch) :]))
    return [jnp.zeros(spinfo.shape, data.dtype).at[tuple(places)].add(full)]


@_operation("bcoo_extract", reads="assume_unique")
def _extract(indices: Any, array: Any, *, assume_unique: bool) -> list[Any]:
    if not assume_unique:
        raise NotImplementedError
    return [_gathered(array, _places(indices, array.shape[: indices.ndim - 2]))]


@_operation("bcoo_transpose", reads="permutation spinfo")
def _transpose(data: Any, indices: Any, *, permutation: Sequence[int], spinfo: Any) -> list[Any]:
    if indices.ndim != 2 or data.ndim != 1:
        raise NotImplementedError
    return [data, jnp.stack([indices[:, k] for k in permutation], 1)]


@_operation("bcoo_dot_general", reads="dimension_numbers lhs_spinfo preferred_element_type")
def _dot_general(
    data: Any, indices: Any, right: Any, *, dimension_numbers: Any, lhs_spinfo: Any, preferred_element_type: Any
) -> list[Any]:
    """result[batch, free, ...] += data[k] right[batch, summed, ...] for each nonzero k."""
    (summed, right_summed), (batch, right_batch) = dimension_numbers
    shape, stacked = lhs_spinfo.shape, indices.ndim - 2
    if data.ndim != stacked + 1:  # dense axes
        raise NotImplementedError
    places, free = _places(indices, shape[:stacked]), _others(len(shape), summed, batch)
    rest = _others(right.ndim, right_summed, right_batch)
    rows = _gathered(right.transpose([*right_batch, *right_summed, *rest]), _at(places, [*batch, *summed]))
    dtype = preferred_element_type or jnp.result_type(data, right)
    numbers = jnp.broadcast_to(data, (*shape[:stacked], data.shape[-1])).astype(dtype)
    made = numbers.reshape((*numbers.shape, *[1] * len(rest))) * rows.astype(dtype)
    kept = [*batch, *free]
    if not kept:
        return [made.sum(tuple(range(stacked + 1)))]
    zeros = jnp.zeros([*(shape[k] for k in kept), *(right.shape[k] for k in rest)], dtype)
    return [zeros.at[_at(places, kept)].add(made)]


@_operation("bcoo_dot_general_sampled", reads="dimension_numbers")
def _sampled(left: Any, right: Any, indices: Any, *, dimension_numbers: Any) -> list[Any]:
    """result[k] = sum over s of left[batch, free, s] right[batch, free, s] at the place of each nonzero k."""
    (left_summed, right_summed), (left_batch, right_batch) = dimension_numbers
    left_free = _others(left.ndim, left_summed, left_batch)
    right_free = _others(right.ndim, right_summed, right_batch)
    b, f = len(left_batch), len(left_free)
    sizes = [left.shape[k] for k in (*left_batch, *left_free)]
    places, count = _places(indices, sizes[: indices.ndim - 2]), b + f + len(right_free)
    if len(places) != count:  # dense axes
        raise NotImplementedError
    rows = _gathered(left.transpose([*left_batch, *left_free, *left_summed]), places[: b + f])
    columns = _gathered(
        right.transpose([*right_batch, *right_free, *right_summed]), [*places[:b], *places[b + f : count]]
    )
    return [(rows * columns).sum(tuple(range(indices.ndim - 1, rows.ndim)))]


def _by_coordinates(columns: Any, pointers: Any) -> Any:
    """The places of nonzeros that are given row by row."""
    if columns.ndim != 1:
        raise NotImplementedError
    rows = jnp.cumsum(jnp.zeros_like(columns).at[pointers].add(1)) - 1
    return jnp.stack([rows, columns], 1)


@_operation("bcsr_todense", reads="spinfo")
def _rows_todense(data: Any, columns: Any, pointers: Any, *, spinfo: Any) -> list[Any]:
    return _todense(data, _by_coordinates(columns, pointers), spinfo=spinfo)


@_operation("bcsr_extract", reads="")
def _rows_extract(columns: Any, pointers: Any, array: Any) -> list[Any]:
    return _extract(_by_coordinates(columns, pointers), array, assume_unique=True)


@_operation("bcsr_dot_general", reads="dimension_numbers lhs_spinfo preferred_element_type")
def _rows_dot_general(data: Any, columns: Any, pointers: Any, right: Any, **params: Any) -> list[Any]:
    return _dot_general(data, _by_coordinates(columns, pointers), right, **params)
