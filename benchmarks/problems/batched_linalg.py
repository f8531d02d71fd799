"""A batch of 3×3 Cholesky factors, and of 3×3 linear systems, of A = x xᵀ + 3 I: a block for each matrix."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from problem import Problem, blocks

rng = np.random.default_rng(0)
B, K = 200, 3
x0 = rng.normal(size=(B, K, K))


def positive(x: Array) -> Array:
    return x @ jnp.swapaxes(x, -1, -2) + 3 * jnp.eye(K)


def cholesky(x: Array) -> Array:
    return jnp.linalg.cholesky(positive(x))


def cholesky_by_hand(x: Array) -> Array:
    """[ij, ab, B]: L Φ(L⁻¹ dA L⁻ᵀ) with dA = e_a x_bᵀ + x_b e_aᵀ.

    Φ keeps the lower triangle, with half of the diagonal. The batch comes last: every entry is a long vector.
    """
    x = jnp.moveaxis(x, 0, -1)
    L, inverse = factor(x)
    Z = (inverse[:, :, None] * x[None]).sum(1)
    halved = L[:, :, None] * (np.tri(K) - np.eye(K) / 2)[None, :, :, None]  # [i, k, j, B]
    P = (halved[:, :, :, None] * inverse[None, :, None]).sum(1)  # [i, j, a, B]
    Q = (halved[:, :, :, None] * Z[None, :, None]).sum(1)
    P, Q, Z, inverse = jax.lax.optimization_barrier((P, Q, Z, inverse))
    J = P[:, :, :, None] * Z[None, :, None] + Q[:, :, None] * inverse[None, :, :, None]
    return J.reshape(K**2, K**2, B)


def factor(x: Array) -> tuple[Array, Array]:
    """The Cholesky factor of x xᵀ + 3 I and its inverse, entry by entry."""
    A = (x[:, None] * x[None]).sum(2) + 3 * np.eye(K)[:, :, None]
    a, zero = jnp.sqrt(A[0, 0]), jnp.zeros(B)
    b, c = A[1, 0] / a, A[2, 0] / a
    d = jnp.sqrt(A[1, 1] - b**2)
    e = (A[2, 1] - b * c) / d
    f = jnp.sqrt(A[2, 2] - c**2 - e**2)
    L = [[a, zero, zero], [b, d, zero], [c, e, f]]
    inverse = [[1 / a, zero, zero], [-b / (a * d), 1 / d, zero], [(b * e - c * d) / (a * d * f), -e / (d * f), 1 / f]]
    return jax.lax.optimization_barrier((jnp.array(L), jnp.array(inverse)))


def solve(x: Array) -> Array:
    return jnp.linalg.solve(positive(x), jnp.sin(x).sum(-1)[..., None])[..., 0]


def solve_by_hand(x: Array) -> Array:
    """[i, ab, B]: A⁻¹ (db - dA y), which is A⁻¹[i, a] (cos x_ab - (xᵀ y)_b) - (A⁻¹ x)[i, b] y_a."""
    x = jnp.moveaxis(x, 0, -1)
    inverse = inverse_of(x)
    y = (inverse * jnp.sin(x).sum(1)).sum(1)
    direct = jnp.cos(x) - (x * y[:, None]).sum(0)
    through = (inverse[:, :, None] * x[None]).sum(1)
    y, direct, through = jax.lax.optimization_barrier((y, direct, through))
    return (inverse[:, :, None] * direct - through[:, None] * y[:, None]).reshape(K, K**2, B)


def inverse_of(x: Array) -> Array:
    """Of x xᵀ + 3 I by its cofactors: the cross products of its rows."""
    A = (x[:, None] * x[None]).sum(2) + 3 * np.eye(K)[:, :, None]
    (a, b, c), (_, d, e), (_, _, f) = A
    p, q, r = d * f - e * e, c * e - b * f, b * e - c * d
    s, t, u = a * f - c * c, b * c - a * e, a * d - b * b
    inverse = jnp.array([[p, q, r], [q, s, t], [r, t, u]]) / (a * p + b * q + c * r)
    return jax.lax.optimization_barrier(inverse)


def matrix(values: Any) -> Any:
    return blocks(np.moveaxis(values, -1, 0))


problems = [
    Problem("batched Cholesky", cholesky, x0, cholesky_by_hand, matrix, smoke=True),
    Problem("batched solve", solve, x0, solve_by_hand, matrix, smoke=True),
]
