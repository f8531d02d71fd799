"""Einstein sums of two arrays."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._blocks.block import multiply, plus, taken_once, xp
from chainrule._program import as_jax

# XLA on a CPU calls a routine for each product of a batch; up to so many summands, and numbers of both sides, it takes
# longer to call than to add them
_SUMMED, _NUMBERS, _BATCH = 8, 512, 32
_EXACT = (np.float32, np.float64)  # narrower ones are summed in more digits than they have


def parted(subscripts: str) -> list[str]:
    """The axes of both operands of an Einstein sum, and of its result."""
    return subscripts.replace("->", ",").split(",")


def einsum(subscripts: str, a: Any, b: Any, precision: Any) -> Any:
    """An Einstein sum, in NumPy where both are known."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        if "V" in (a.dtype.kind, b.dtype.kind):  # NumPy has no sums of bfloat16 and its like
            wide = np.einsum(subscripts, a.astype(np.float32), b.astype(np.float32))
            return wide.astype(np.result_type(a, b))
        return np.einsum(subscripts, a, b)
    left, right, out = parted(subscripts)
    if set(left + right) <= set(out):  # nothing is summed: as a batch of products XLA would turn and copy both sides
        return multiply(_aligned(a, left, out), _aligned(b, right, out))
    sizes = dict(zip(left + right, (*a.shape, *b.shape), strict=True))
    if a.dtype == b.dtype and a.dtype in _EXACT and _is_batch_of_small(left, right, out, sizes):
        return taken_once(_one_by_one(left, right, out, as_jax(a), as_jax(b)))  # as the routine would write it
    return jnp.einsum(subscripts, a, b, precision=precision)


def _is_batch_of_small(left: str, right: str, out: str, sizes: Mapping[str, int]) -> bool:
    def count(labels: set[str]) -> int:
        return math.prod(sizes[x] for x in labels)

    every, batch = {*left, *right}, {*left} & {*right} & {*out}
    summed = every - {*out}
    one = len(summed) == 1 and summed <= {*left} & {*right}
    return one and count(batch) >= _BATCH and count(summed) <= _SUMMED and count(every - batch) <= _NUMBERS


def _one_by_one(left: str, right: str, out: str, a: Any, b: Any) -> Any:
    (summed,) = {*left} - {*out}

    def at(array: Any, labels: str, k: int) -> Any:
        row = jax.lax.index_in_dim(array, k, labels.index(summed), keepdims=False)
        return _aligned(row, labels.replace(summed, ""), out)

    terms = [multiply(at(a, left, k), at(b, right, k)) for k in range(a.shape[left.index(summed)])]
    return functools.reduce(plus, terms)


def _aligned(array: Any, labels: str, target: str) -> Any:
    """The array with its axes in the order of the target, and axes of size 1 for those that it lacks."""
    order = sorted(range(len(labels)), key=lambda k: target.index(labels[k]))
    array = xp(array).transpose(array, order)
    return xp(array).expand_dims(array, [k for k, x in enumerate(target) if x not in labels])
