"""Derivatives of what equations define, by solves with the Jacobian in the unknowns."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._api import jacobian, linearize
from chainrule._errors import MemoryLimitError
from chainrule._jacobians.assembled import Assembled, whole
from chainrule._jacobians.matrix_free import MatrixFree
from chainrule._jax import as_callable
from chainrule._linalg.iterative import KRYLOV
from chainrule._space import flat, unit_of
from chainrule._stochastic.lanczos import tridiagonal

DENSE = 1000  # unknowns, beyond which a system without zeros is solved by products
_FEW = 1_000_000  # entries, up to which dy/dx is stored whatever its structure
_PRODUCTS = 20  # with a Hessian, to see whether it is indefinite


def implicit_jacobian(of_x: Any, of_y: Any, x: Any, y: Any, method: str) -> Any:
    """-(∂g/∂y)⁻¹ ∂g/∂x: its entries where they are few or many of them vanish, else a map of products."""
    A, B = system(of_y, y, method), jacobian(of_x)(x)
    if not isinstance(A, Assembled) or not isinstance(B, Assembled) or method in KRYLOV:
        return _products(A, B, method)
    sizes = np.bincount(A._layout.places.components[1])
    if len(sizes) > 1 and int((sizes**2).sum()) <= max(_FEW, 16 * (A.nnz + B.nnz)) and method == "auto":
        A._require_structural_rank("implicit")
        return -(A.inverse() @ B)
    if A.shape[0] * B.shape[1] > max(_FEW, 16 * (A.nnz + B.nnz)):
        return _products(A, B, method)
    like = replace(B._layout, rows=A._columns, flipped=False)
    return whole(like, -A.solve(B.dense(), method=method))


def _products(A: Any, B: Any, method: str) -> Any:
    """-A⁻¹ B as a map of products."""
    solve = A.factorize().solve if method == "auto" and isinstance(A, Assembled) else _by(A, method)
    return MatrixFree.of(lambda v: -solve(B._apply(v)), A._columns, B._columns)


def _by(A: Any, method: str) -> Callable[[Any], Any]:
    if method in KRYLOV or not isinstance(A, Assembled):
        return lambda b: A.solve(b, method=method, tolerance=_tolerance(b))
    return lambda b: A.solve(b, method=method)


def _tolerance(b: Any) -> float:
    return unit_of(b) ** 0.7


def system(f: Callable[[Any], Any], y: Any, method: str, dense: int = DENSE) -> Any:
    """∂f/∂y for solves: assembled where that pays, else a map of products."""
    if method in KRYLOV:
        return linearize(f)(y)
    try:
        A = jacobian(f)(y)
    except MemoryLimitError:
        if method != "auto":
            raise
        return linearize(f)(y)
    # what is traced here and not used is not compiled
    crowded = A.shape[0] > dense and 4 * A.nnz > A.shape[0] ** 2
    return linearize(f)(y) if crowded and method == "auto" else A


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def solution(g: Any, how: tuple[str, int], y: Any, x: Any, closed_over: Any) -> Any:
    return y


@solution.defjvp
def _solution_jvp(g: Any, how: tuple[str, int], primals: Any, tangents: Any) -> Any:
    y, x, closed_over = primals
    y = solution(g, how, y, x, closed_over)  # itself again: the next derivative goes the same way
    _, r = jax.jvp(lambda x, c: g(x, y, *c), (x, closed_over), tangents[1:])
    A = system(lambda y: g(x, y, *closed_over), y, *how)
    b = jax.tree.map(jnp.negative, r)
    return y, jax.tree.map(lambda d, v: d.astype(v.dtype), _by(A, how[0])(b), y)


def converted(f: Callable[[Any, Any], Any], x: Any, y: Any) -> tuple[Callable[..., Any], list[Any]]:
    """f(x, y, *closed_over): what is traced around f becomes an argument, for it has derivatives, or is mapped, too.

    Whole numbers as well, which `jax.closure_convert` leaves where a custom derivative cannot see them.
    """
    closed, shapes = jax.make_jaxpr(f, return_shape=True)(x, y)
    traced = [isinstance(c, jax.core.Tracer) for c in closed.consts]

    def own(x: Any, y: Any, *given: Any) -> Any:
        left = iter(given)
        consts = [next(left) if moves else c for c, moves in zip(closed.consts, traced, strict=True)]
        outs = as_callable(closed.jaxpr, consts)(*jax.tree.leaves((x, y)))
        return jax.tree.unflatten(jax.tree.structure(shapes), outs)

    return own, list(itertools.compress(closed.consts, traced))


def iterated(f: Callable[[Any], Any], z0: Any, rtol: float, max_steps: int) -> tuple[Any, Any]:
    """z ← f(z) until it stays, and whether it does."""

    def step(state: Any) -> Any:
        z, _, k = state
        after = jax.tree.map(lambda a, b: jnp.asarray(a, b.dtype), f(z), z)
        change, size = (jnp.abs(v).max(initial=0) for v in (flat(after) - flat(z), flat(after)))
        return after, ~(change <= rtol * (1 + size)), k + 1

    start = jax.tree.map(lambda v: jnp.asarray(v, jnp.result_type(v)), z0), jnp.array(True), jnp.zeros((), jnp.int32)
    z, far, _ = jax.lax.while_loop(lambda state: state[1] & (state[2] < max_steps), step, start)
    return z, ~far


def curves_down(f: Callable[[Any], Any], y: Any) -> Any:
    """Whether the Hessian of f at y has a negative eigenvalue, as far as a few steps of Lanczos' method see.

    Their values lie within the spectrum: what they find is there, and up to `_PRODUCTS` unknowns they find all.
    """
    point = flat(y)
    if not point.size:
        return jnp.array(False)
    H = linearize(jax.grad(f))(y)
    start = jax.random.normal(jax.random.key(0), point.shape, point.dtype)
    T, Q = tridiagonal(H._apply, start / jnp.linalg.norm(start), min(_PRODUCTS, point.size))
    used = (Q != 0).any(1)[None]  # where the space is used up it goes on with ones
    values = jnp.linalg.eigvalsh(jnp.where(used, T, 0))
    return values.min() < -(float(jnp.finfo(point.dtype).eps) ** 0.5) * jnp.abs(values).max()
