"""Solves and transforms: they mix known axes; the other axes stay a batch."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._block import Block, densify, expand, identity
from chainrule._program import Coefficient, Context, Tangent, Value, as_jax
from chainrule._rules._registry import rule
from chainrule._rules.fallback import mix

_SOLVE = 8  # times as long as a product of the same size: a solve goes row by row
_SMALL = 8  # unknowns up to which a step for each of them takes less time than LAPACK's calls, one for each matrix
_SMALL = 8  # unknowns up to which a step for each of them takes less time than LAPACK's calls, one for each matrix


@rule("triangular_solve", reads="conjugate_a left_side lower transpose_a unit_diagonal")
def triangular_solve(context: Context, eqn: Any, values: list[Value]) -> Any:
    """X with A X = B (or X A = B): the rows of B are mixed, its columns and the batch are not."""
    a, b = values
    if not isinstance(a, Coefficient) or not isinstance(b, Tangent):
        return NotImplemented
    rank = len(b.shape)
    axis = rank - 2 if eqn.params["left_side"] else rank - 1
    if b.shape[axis] > _SMALL:
        return mix(context, eqn, values, 1, (axis,), work=_SOLVE * b.shape[axis])
    block = densify(b.blocks, (axis,))
    vals = substituted(eqn.params, as_jax(a.value), as_jax(expand(block, (axis,)).vals), axis)
    context.cost += vals.size * b.shape[axis]
    return [Tangent(b.shape, eqn.outvars[0].aval.dtype, (Block(b.shape, block.cols, vals),))]


def substituted(params: Any, a: Any, b: Any, axis: int) -> Any:
    """Solve M x = b along `axis` for small triangular M by substitution; b has the axes of B, and any others after.

    LAPACK takes the matrices of a batch one by one, in a layout of its own. Here every step is one operation
    for the whole batch, and XLA fuses it with what stands around; the arithmetic is the same.
    """
    transposed = params["transpose_a"] == params["left_side"]  # X A = B is Aᵀ Xᵀ = Bᵀ
    lower, size, cut = params["lower"] != transposed, a.shape[-1], jax.lax.slice_in_dim
    a = jnp.swapaxes(a, -1, -2) if transposed else a
    a = a.conj() if params["conjugate_a"] else a
    before, after = axis - a.ndim + 2, b.ndim - axis - 1
    m = a.reshape((*a.shape[:-2], *[1] * before, size, *[1] * after, size))  # its rows lie along `axis` of b
    b = jnp.broadcast_to(b, np.broadcast_shapes(b.shape, m.shape[:-1]))
    found: list[Any] = []
    for k in range(size) if lower else reversed(range(size)):
        column, own = m[..., k], 0 if lower else k
        x = cut(b, own, own + 1, axis=axis)
        x = x if params["unit_diagonal"] else x / cut(column, k, k + 1, axis=axis)
        found.append(x)
        low, high = (k + 1, size) if lower else (0, k)  # the unknowns that are left
        later = cut(b, int(lower), high - low + int(lower), axis=axis)
        b = later - cut(column, low, high, axis=axis) * x
    return jnp.concatenate(found if lower else found[::-1], axis)


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
    matvec, found = eqn.params["jaxprs"].matvec, list[Value]()

    def trace() -> list[Any]:
        seed = Tangent(b.shape, b.dtype, (identity(b.shape, 0, b.dtype),))
        found[:] = context.propagate(matvec.jaxpr, matvec.consts, [*values[:count], seed])
        return []

    cost = context.cost
    jax.eval_shape(trace)
    context.cost = cost
    axes = _mixed_axes(found[0])
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
