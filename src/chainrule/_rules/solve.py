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
    other = 2 * rank - 3 - axis  # of the last two axes
    return mix(context, eqn, values, 1, (axis,), work=size if size <= SMALL else _SOLVE * size, alike=(other,))


@rule("fft", reads="fft_lengths fft_type")
def fft(context: Context, eqn: Any, values: list[Value]) -> Any:
    """The discrete Fourier transform mixes its last axes."""
    (u,) = values
    assert isinstance(u, Tangent)
    first = len(u.shape) - len(eqn.params["fft_lengths"])
    return mix(context, eqn, values, 0, tuple(range(first, len(u.shape))), alike=range(first))


@rule("tridiagonal_solve", reads="perturb_singular")
def tridiagonal_solve(context: Context, eqn: Any, values: list[Value]) -> Any:
    """X with T X = B: the rows of B are mixed, its columns and the batch are not."""
    if not isinstance(values[-1], Tangent) or any(isinstance(v, Tangent) for v in values[:-1]):
        return NotImplemented
    rank = len(values[-1].shape)
    return mix(context, eqn, values, len(values) - 1, (rank - 2,), work=3, alike=(rank - 1,))


@rule("custom_linear_solve", reads="const_lengths jaxprs")
def custom_linear_solve(context: Context, eqn: Any, values: list[Value]) -> Any:
    """x with A x = b: the axes along which A is not diagonal are mixed.

    The primitive runs as a whole: what it is made of hides the matrix from differentiation.
    """
    b = values[-1]
    if len(eqn.outvars) != 1 or not isinstance(b, Tangent) or any(isinstance(v, Tangent) for v in values[:-1]):
        return NotImplemented
    count = eqn.params["const_lengths"].matvec
    matvec, found = eqn.params["jaxprs"].matvec, list[tuple[list[int], list[int]]]()

    def trace() -> list[Any]:
        seed = Tangent(b.shape, b.dtype, (identity(b.shape, 0, b.dtype),))
        found.append(_axes(context.propagate(matvec.jaxpr, matvec.consts, [*values[:count], seed])[0]))
        return []

    cost = context.cost
    jax.eval_shape(trace)
    context.cost = cost
    ((axes, alike),) = found
    work = _SOLVE * math.prod(b.shape[k] for k in axes)
    return mix(context, eqn, values, len(values) - 1, axes, work=work, alike=alike)


def _axes(image: Value) -> tuple[list[int], list[int]]:
    """The axes along which a map of an array to one of the same shape is not known to be diagonal; of the others, those
    along which it is known to do the same to each place."""
    shape = image.shape
    if not isinstance(image, Tangent):
        return list(range(len(shape))), []
    mixed, alike, blocks = list[int](), list[int](), image.filled().blocks
    for k, size in enumerate(shape):
        step = max(math.prod(shape[k + 1 :]), 1)
        own = np.arange(size).reshape((*[1] * k, size, *[1] * (len(shape) - k)))
        if not all(((b.cols // step % max(size, 1) == own) | (b.cols < 0)).all() for b in blocks):
            mixed.append(k)
        elif size and all(b.vals.shape[k] == 1 for b in blocks):
            others = [np.where(b.cols < 0, -1, b.cols - own * step) for b in blocks]  # the places on the other axes
            alike += [k] if all((o.max(k) == o.min(k)).all() for o in others) else []
    return mixed, alike
