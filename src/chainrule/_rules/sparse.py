"""Primitives of `jax.experimental.sparse`, written out: gathers, products and scatters, which have rules.

A matrix of nonzeros `data[k]` at the places `indices[k]` gives each nonzero a gather, a product and a scatter. Places
that are known while tracing make the pattern; those beyond the shape are padding, and give nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import sparse

from chainrule._blocks.block import flat_numbers
from chainrule._jax import IGNORED_PARAMETERS, primitive
from chainrule._memory import require_columns

Operation = Callable[..., Any]  # of the operands, with the parameters that it reads by name
_OPERATIONS: dict[Any, tuple[frozenset[str], Operation]] = {}


def written_out(eqn: Any, given: Sequence[Any] = ()) -> Any:
    """A closed jaxpr of the equation in primitives of arrays; None where there is none, or a parameter is unknown.

    Whole numbers that are known while tracing, NumPy arrays among the `given` operands, may shape it.
    """
    reads, operation = _OPERATIONS.get(eqn.primitive, (frozenset(), None))
    if operation is None or not reads.union(IGNORED_PARAMETERS).issuperset(eqn.params):
        return None
    params = {name: eqn.params[name] for name in reads}
    shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars]
    known = [isinstance(v, np.ndarray) and v.dtype.kind in "iu" for v in given] or [False] * len(shapes)

    def of(*operands: Any) -> list[Any]:
        return operation(
            *[v if own else x for v, x, own in zip(given or operands, operands, known, strict=True)], **params
        )

    try:
        closed = jax.make_jaxpr(of)(*shapes)
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
    full = jnp.broadcast_to(data, (*batch, *data.shape[len(batch) :]))
    if not places:  # one number, as a sum of nonzeros
        return [full.sum(0)]
    return [jnp.zeros(spinfo.shape, data.dtype).at[tuple(places)].add(full)]


@_operation("bcoo_extract", reads="assume_unique")
def _extract(indices: Any, array: Any, *, assume_unique: bool) -> list[Any]:
    if not assume_unique:
        raise NotImplementedError
    return [_gathered(array, _places(indices, array.shape[: indices.ndim - 2]))]


@_operation("bcoo_transpose", reads="permutation spinfo")
def _transpose(data: Any, indices: Any, *, permutation: Sequence[int], spinfo: Any) -> list[Any]:
    """The axes of the batch, those of the places and those of dense parts are permuted among themselves."""
    b, s = indices.ndim - 2, indices.shape[-1]
    batch, places = list(permutation[:b]), [k - b for k in permutation[b : b + s]]
    numbers = data.transpose([*batch, b, *(k - s + 1 for k in permutation[b + s :])])
    return [numbers, indices.transpose([*batch, b, b + 1])[..., np.array(places, int)]]


@_operation("bcoo_sum_duplicates", reads="spinfo nse")
def _sum_duplicates(data: Any, indices: Any, *, spinfo: Any, nse: int) -> list[Any]:
    """As JAX writes it out for a tangent: a scatter to the place of each nonzero among the distinct ones."""

    def summed(numbers: Any) -> Any:
        found = sparse.bcoo_sum_duplicates(sparse.BCOO((numbers, indices), shape=spinfo.shape), nse=nse)
        return found.data, found.indices

    _, out, places = jax.jvp(summed, (jnp.zeros_like(data),), (data,), has_aux=True)
    return [out, places]


@_operation("bcoo_dot_general", reads="dimension_numbers lhs_spinfo preferred_element_type")
def _dot_general(
    data: Any, indices: Any, right: Any, *, dimension_numbers: Any, lhs_spinfo: Any, preferred_element_type: Any
) -> list[Any]:
    """result[batch, free, dense, ...] += data[k, dense] right[batch, summed, ...] for each nonzero k."""
    (summed, right_summed), (batch, right_batch) = dimension_numbers
    shape, stacked = lhs_spinfo.shape, indices.ndim - 2
    places = _places(indices, shape[:stacked])
    if any(k >= len(places) for k in (*summed, *batch)):  # dense axes
        raise NotImplementedError
    free, dense = _others(len(places), summed, batch), data.shape[stacked + 1 :]
    rest = _others(right.ndim, right_summed, right_batch)
    rows = _gathered(right.transpose([*right_batch, *right_summed, *rest]), _at(places, [*batch, *summed]))
    dtype = preferred_element_type or jnp.result_type(data, right)
    numbers = jnp.broadcast_to(data, (*shape[:stacked], *data.shape[stacked:])).astype(dtype)
    rows = jnp.expand_dims(rows.astype(dtype), range(stacked + 1, stacked + 1 + len(dense)))
    made = jnp.expand_dims(numbers, range(numbers.ndim, numbers.ndim + len(rest))) * rows
    kept = [*batch, *free]
    if not kept:
        return [made.sum(tuple(range(stacked + 1)))]
    zeros = jnp.zeros([*(shape[k] for k in kept), *dense, *(right.shape[k] for k in rest)], dtype)
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
    batch = np.broadcast_shapes(columns.shape[:-1], pointers.shape[:-1])
    columns = jnp.broadcast_to(columns, (*batch, columns.shape[-1]))
    starts = jnp.broadcast_to(pointers, (*batch, pointers.shape[-1]))
    own = [np.arange(n).reshape((n, *[1] * (len(batch) - k))) for k, n in enumerate(batch)]
    rows = jnp.cumsum(jnp.zeros_like(columns).at[(*own, starts)].add(1), -1) - 1
    return jnp.stack([rows, columns], -1)


@_operation("bcsr_todense", reads="spinfo")
def _rows_todense(data: Any, columns: Any, pointers: Any, *, spinfo: Any) -> list[Any]:
    return _todense(data, _by_coordinates(columns, pointers), spinfo=spinfo)


@_operation("bcsr_extract", reads="")
def _rows_extract(columns: Any, pointers: Any, array: Any) -> list[Any]:
    return _extract(_by_coordinates(columns, pointers), array, assume_unique=True)


@_operation("bcsr_dot_general", reads="dimension_numbers lhs_spinfo preferred_element_type")
def _rows_dot_general(data: Any, columns: Any, pointers: Any, right: Any, **params: Any) -> list[Any]:
    return _dot_general(data, _by_coordinates(columns, pointers), right, **params)


@_operation("bcoo_spdot_general", reads="dimension_numbers lhs_spinfo rhs_spinfo preferred_element_type")
def _products(left: Any, left_at: Any, right: Any, right_at: Any, *, dimension_numbers: Any, lhs_spinfo: Any,
              rhs_spinfo: Any, preferred_element_type: Any) -> list[Any]:  # fmt: skip
    """result[t] += left[l] right[r] for each pair of nonzeros that meet; all places have to be known.

    The places of the result are all pairs of places that the factors have on the axes that stay, in order, and padding.
    """
    if not (isinstance(left_at, np.ndarray) and isinstance(right_at, np.ndarray)):
        raise NotImplementedError
    summed, alike = dimension_numbers
    b, c, a = left_at.ndim - 2, right_at.ndim - 2, len(alike[0])
    sides = (
        _Side.of(lhs_spinfo.shape[b:], [k - b for k in summed[0]], left.shape, left_at, alike[0], range(b, b + c - a)),
        _Side.of(rhs_spinfo.shape[c:], [k - c for k in summed[1]], right.shape, right_at, alike[1], range(a, b)),
    )
    batch = np.broadcast_shapes(
        [lhs_spinfo.shape[k] for k in alike[0]] + [1] * (b + c - 2 * a), *(s.batch for s in sides)
    )
    width = min(math.prod(s.nonzeros for s in sides), math.prod(n for s in sides for n in s.kept_sizes))
    places = np.zeros((*batch, width, sum(len(s.kept) for s in sides)), left_at.dtype)
    pairs = [np.zeros((3, 0), np.int64)]
    for number, at in enumerate(np.ndindex(*batch)):
        own, other = (s.at(at) for s in sides)
        first, second, target, places[at] = _meeting(own, other, width)
        pairs.append(
            np.stack([first, second, np.where(target < width, target + number * width, math.prod(batch) * width)])
        )
    first, second, target = np.concatenate(pairs, axis=1)
    dtype = preferred_element_type or jnp.result_type(left, right)
    made = left.reshape(-1)[first].astype(dtype) * right.reshape(-1)[second].astype(dtype)
    total = jnp.zeros(math.prod(batch) * width, dtype).at[target].add(made, mode="drop")
    return [total.reshape((*batch, width)), jnp.asarray(places)]


@dataclass(frozen=True)
class _Side:
    """The nonzeros of a factor: the number of each in the data laid flat, and its place.

    sizes : of the axes of places; summed : which of these are. numbers [*batch, nonzeros].
    places [*batch, nonzeros, axes].
    """

    sizes: tuple[int, ...]
    summed: Sequence[int]
    numbers: np.ndarray
    places: np.ndarray

    @classmethod
    def of(cls, sizes: Any, summed: Any, data: Any, places: np.ndarray, alike: Any, others: Any) -> _Side:
        """From data of a shape and places with axes of a batch; those `alike` stand first in the result's batch.

        others : the axes of that batch which belong to the other factor.
        """
        b = places.ndim - 2
        full, order = np.broadcast_shapes(data, places.shape[:-1]), [*alike, *_others(b, alike), b]
        numbers = np.broadcast_to(flat_numbers(data), full).transpose(order)
        wide = np.broadcast_to(places, (*full, places.shape[-1])).transpose([*order, b + 1])
        return cls(tuple(sizes), summed, *(np.expand_dims(a, tuple(others)) for a in (numbers, wide)))

    @property
    def batch(self) -> tuple[int, ...]:
        return self.numbers.shape[:-1]

    @property
    def nonzeros(self) -> int:
        """Those that a product with another factor has for each of its own."""
        return self.numbers.shape[-1] if self.kept else 1

    @property
    def kept(self) -> list[int]:
        return _others(len(self.sizes), self.summed)

    @property
    def kept_sizes(self) -> list[int]:
        return [self.sizes[k] for k in self.kept]

    def at(self, index: tuple[int, ...]) -> _Side:
        """The factor at a place of the result's batch."""
        own = tuple(min(i, n - 1) for i, n in zip(index, self.batch, strict=True))
        return _Side(self.sizes, self.summed, self.numbers[own], self.places[own])

    def flat(self, axes: Sequence[int]) -> np.ndarray:
        """The places on some of the axes as one number; -1 beyond the shape, which is padding."""
        found, inside = np.zeros(len(self.places), np.int64), np.ones(len(self.places), bool)
        for k in axes:
            found, inside = found * self.sizes[k] + self.places[:, k], inside & (self.places[:, k] < self.sizes[k])
        return np.where(inside, found, -1)


def _meeting(left: _Side, right: _Side, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The pairs of nonzeros that meet: the numbers of both, that of the place they add to; and the places."""
    own, other = left.flat(left.summed), right.flat(right.summed)
    order = np.argsort(other, kind="stable")
    first, last = (np.searchsorted(other[order], own, side=side) for side in ("left", "right"))
    count = np.where(own < 0, 0, last - first)
    require_columns((int(count.sum()),))
    one = np.repeat(np.arange(len(own)), count)
    two = order[np.arange(len(one)) + np.repeat(first - np.cumsum(count) + count, count)]
    kept = left.flat(left.kept), right.flat(right.kept)
    distinct = [np.unique(k[k >= 0]) for k in kept]
    size = math.prod(map(len, distinct))
    numbers = [np.searchsorted(d, k) for d, k in zip(distinct, kept, strict=True)]
    target = np.where(
        (kept[0][one] < 0) | (kept[1][two] < 0), size, numbers[0][one] * len(distinct[1]) + numbers[1][two]
    )
    grid = np.meshgrid(*distinct, indexing="ij")
    found = [
        p.reshape(-1)
        for s, g in zip((left, right), grid, strict=True)
        if s.kept
        for p in np.unravel_index(g, s.kept_sizes)
    ]
    places = np.tile(np.array([*left.kept_sizes, *right.kept_sizes], left.places.dtype), (width, 1))
    if found:
        places[:size] = np.stack(found, 1)
    return left.numbers[one], right.numbers[two], target, places
