"""Solves and transforms: they mix known axes; the other axes stay a batch."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np

from chainrule._blocks.block import identity
from chainrule._program import Coefficient, Context, Tangent, Value
from chainrule._rules._registry import rule
from chainrule._rules.fallback import mix
from chainrule._substitution import SMALL

_SOLVE = 8  # times as long as a product of the same size: a large solve goes row by row


@rule("triangular_solve", reads="conjugate_a left_side lower transpose_a unit_diagonal")
def triangular_solve(context: Context, eqn: Any, values: list[Value]) -> Any:
    """X with A X = B (or X A = B): the rows of B are mixed, its columns and the batch are not."""
    a, b = values
    if not isinstance(a, Coefficient) or not isinstance(b, Tangent):
        return NotImplemented
    rank = len(b.shape)
    axis = rank - 2 if eqn.params["left_side"] else rank - 1
    size = b.shape[axis]
    return mix(context, eqn, values, 1, (axis,), work=size if size <= SMALL else _SOLVE * size)


@rule("fft", reads="fft_lengths fft_type")
def fft(context: Context, eqn: Any, values: list[Value]) -> Any:
    """The discrete Fourier transform mixes its last axes."""
    (u,) = values
    assert isinstance(u, Tangent)
    rank = len(u.shape)
    return mix(context, eqn, values, 0, tuple(range(rank - len(eqn.params["fft_lengths"]), rank)))


@rule("tridiagonal_solve", reads="perturb_singular")
def tridiagonal_solve(context: Context, eqn: Any, values: list[Value]) -> Any:
    """X with T X = B: the rows of B are mixed, its columns and the batch are not."""
    if not isinstance(values[-1], Tangent) or any(isinstance(v, Tangent) for v in values[:-1]):
        return NotImplemented
    return mix(context, eqn, values, len(values) - 1, (len(values[-1].shape) - 2,), work=3)


@rule("custom_linear_solve", reads="const_lengths jaxprs")
def custom_linear_solve(context: Context, eqn: Any, values: list[Value]) -> Any:
    """x with A x = b: the axes along which A is not diagonal are mixed.

    The primitive runs as a whole: what it is made of hides the matrix from differentiation.
    """
    b = values[-1]
    if len(eqn.outvars) != 1 or not isinstance(b, Tangent) or any(isinstance(v, Tangent) for v in values[:-1]):
        return NotImplemented
    count = eqn.params["const_lengths"].matvec
    matvec, axes = eqn.params["jaxprs"].matvec, list[int]()

    def trace() -> list[Any]:
        seed = Tangent(b.shape, b.dtype, (identity(b.shape, 0, b.dtype),))
        axes[:] = _mixed_axes(context.propagate(matvec.jaxpr, matvec.consts, [*values[:count], seed])[0])
        return []

    cost = context.cost
    jax.eval_shape(trace)
    context.cost = cost
    return mix(context, eqn, values, len(values) - 1, axes, work=_SOLVE * math.prod(b.shape[k] for k in axes))


def _mixed_axes(image: Value) -> list[int]:
    """The axes along which a map of an array to one of the same shape is not known to be diagonal."""
    shape = image.shape
    if not isinstance(image, Tangent):
        return list(range(len(shape)))
    mixed = []
    for k, size in enumerate(shape):
        own = np.arange(size).reshape((*[1] * k, size, *[1] * (len(shape) - k)))
        for b in image.filled().blocks:
            there = b.cols // max(math.prod(shape[k + 1 :]), 1) % max(size, 1)
            if not ((there == own) | (b.cols < 0)).all():
                mixed.append(k)
                break
    return mixed
