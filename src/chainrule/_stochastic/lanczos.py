"""Random probes of log |det A| from products alone: Lanczos quadrature, and the power series of a contraction."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from chainrule._linalg.host import working
from chainrule._stochastic.probing import drawn, trace

_GOES_ON = 0.9  # the chance that the power series takes one more term; its square root bounds the contraction


@functools.partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def log_dets(A: Any, x: Any, key: Any, method: str, terms: int) -> Any:
    """Samples [k] of log |det A| = tr log A from probes x [k, n].

    'lanczos' is for symmetric positive definite A, 'normal' for all invertible ones (by AᵀA), 'series' for I + G with a
    contraction G. The derivative is the estimate of tr(A⁻¹ dA) by the same probes, of which no method is asked for
    derivatives of its own; it can be differentiated again.
    """
    if method == "series":
        return _series(lambda v: _rows(A, v) - v, x, key, terms)
    product, power = _symmetric(A, method)
    return power * jax.vmap(lambda v: _quadrature(product, v, terms))(x)


def _symmetric(A: Any, method: str) -> tuple[Callable[[Any], Any], float]:
    """The symmetric map of which Lanczos' method takes the logarithm, and its power in A."""
    return (A._apply, 1.0) if method == "lanczos" else (lambda v: A.T._apply(A._apply(v)), 0.5)


@log_dets.defjvp
def _log_dets_jvp(method: str, terms: int, given: Any, tangents: Any) -> Any:
    A, x, key = given
    moved = jax.jvp(lambda A: _rows(A, x), (A,), tangents[:1])[1]
    return log_dets(A, x, key, method, terms), (_solved(A, x, method) * moved).sum(1)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4, 5, 6, 7))
def split_log_det(
    A: Any, key: Any, method: str, terms: int, estimator: str, n: int, probes: int, distribution: str
) -> tuple[Any, Any]:
    """tr log A by Hutch++ or XTrace, and its standard error; `log_dets` says what A is.

    The derivative is that of Hutchinson's estimate with as many probes: the subspaces that are split off log A tell
    nothing of A⁻¹ dA.
    """
    product, power = _symmetric(A, method)

    def logarithm(x: Any) -> Any:
        return power * jax.vmap(lambda v: _log_times(product, v, terms))(x)

    return trace(estimator, logarithm, key, n, probes, distribution, A._columns.dtype)


@split_log_det.defjvp
def _split_log_det_jvp(
    method: str, terms: int, estimator: str, n: int, probes: int, distribution: str, given: Any, tangents: Any
) -> Any:
    A, key = given
    value, error = split_log_det(A, key, method, terms, estimator, n, probes, distribution)
    x = drawn(key, (probes, n), value.dtype, "rademacher")
    moved = jax.jvp(lambda A: _rows(A, x), (A,), tangents[:1])[1]
    return (value, error), ((_solved(A, x, method) * moved).sum(1).mean(0), jnp.zeros_like(error))


def _rows(A: Any, x: Any) -> Any:
    return jax.vmap(A._apply)(x)


def _solved(A: Any, x: Any, method: str) -> Any:
    """A⁻ᵀ x, row by row, by conjugate gradients."""
    from jax.scipy.sparse import linalg

    cg = functools.partial(linalg.cg, tol=float(jnp.finfo(x.dtype).eps) ** 0.5)
    if method == "lanczos":
        return jax.vmap(lambda v: cg(A._apply, v)[0])(x)
    return jax.vmap(lambda v: A._apply(cg(lambda u: A.T._apply(A._apply(u)), v)[0]))(x)


def _quadrature(product: Callable[[Any], Any], v: Any, terms: int) -> Any:
    """vᵀ log(A) v of a symmetric positive definite A by Gauss quadrature: the nodes are Ritz values; nan for others."""
    size = jnp.linalg.norm(v)
    nodes, vectors, _ = _ritz(product, v / size, terms)
    return size**2 * (vectors[0] ** 2 @ jnp.log(nodes)).astype(v.dtype)


def _log_times(product: Callable[[Any], Any], v: Any, terms: int) -> Any:
    """log(A) v = ‖v‖ Qᵀ log(T) e₁, likewise; 0 for v = 0."""
    size = jnp.linalg.norm(v)
    nodes, vectors, Q = _ritz(product, jnp.where(size > 0, v / jnp.where(size > 0, size, 1), 0), terms)
    return size * ((vectors @ (jnp.log(nodes) * vectors[0])).astype(v.dtype) @ Q)


def _ritz(product: Callable[[Any], Any], q: Any, terms: int) -> tuple[Any, Any, Any]:
    """The eigenvalues and eigenvectors of Lanczos' matrix from a unit vector q, and the basis Q [steps, n] it is in."""
    T, Q = tridiagonal(product, q, min(terms, len(q)))
    return *jnp.linalg.eigh(T.astype(working(q.dtype))), Q


def tridiagonal(product: Callable[[Any], Any], q: Any, steps: int) -> tuple[Any, Any]:
    """Lanczos' matrix [steps, steps] and basis [steps, n] from a unit vector q.

    Each vector is made orthogonal twice. Where the Krylov space is used up, ones follow on the diagonal: they have no
    part in what starts from q.
    """
    eps = float(jnp.finfo(q.dtype).eps)

    def step(state: Any, k: Any) -> Any:
        Q, q, largest = state
        Q = Q.at[k].set(q)
        going = (q != 0).any()
        y = product(q)
        main = q @ y
        for _ in range(2):
            y = y - Q.T @ (Q @ y)
        side = jnp.linalg.norm(y)
        largest = jnp.maximum(largest, jnp.abs(main) + side)
        more = side > len(q) * eps * largest
        side = jnp.where(more, side, 0)
        following = jnp.where(more, y / jnp.where(more, side, 1), 0)
        return (Q, following, largest), (jnp.where(going, main, 1), side)

    start = jnp.zeros((steps, len(q)), q.dtype), q, jnp.zeros((), q.dtype)
    (Q, *_), (main, side) = jax.lax.scan(step, start, jnp.arange(steps))
    return jnp.diag(main) + jnp.diag(side[:-1], 1) + jnp.diag(side[:-1], -1), Q


def _series(contract: Callable[[Any], Any], x: Any, key: Any, terms: int) -> Any:
    """xᵀ log(I + G) x = Σ_k (-1)^(k+1) xᵀ G^k x / k: `terms` terms, and as many more as chance allows, weighed by that.

    The number of the others is geometric: after each, another one follows with a fixed chance c, so that term number
    terms + j comes with chance c^j and is divided by it.
    """
    uniform = jax.random.uniform(key, x.shape[:1], x.dtype, minval=float(jnp.finfo(x.dtype).tiny))
    last = terms + jnp.floor(jnp.log(uniform) / jnp.log(jnp.asarray(_GOES_ON, x.dtype)))  # [k]

    def more(state: Any) -> Any:
        return (state[2] <= last).any()

    def step(state: Any) -> Any:
        total, u, k = state
        u = contract(u)
        weight = jnp.asarray(_GOES_ON, x.dtype) ** -jnp.maximum(k - terms, 0)
        term = jnp.where(k % 2 == 1, weight, -weight) / k * (x * u).sum(1)
        return total + jnp.where(k <= last, term, 0), u, k + 1

    return jax.lax.while_loop(more, step, (jnp.zeros_like(last), x, jnp.ones((), x.dtype)))[0]
