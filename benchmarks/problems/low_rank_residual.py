"""Ten residual layers of rank four, x <- x + U_k tanh(V_k x) with x of width 64: the identity and rank forty."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import solve_triangular
from problem import Problem

rng = np.random.default_rng(0)
D, R, LAYERS = 64, 4, 10
U, V = rng.normal(size=(LAYERS, D, R)) / np.sqrt(R), rng.normal(size=(LAYERS, R, D)) / np.sqrt(D)


def f(x: Array) -> Array:
    for u, v in zip(U, V, strict=True):
        x = x + u @ jnp.tanh(v @ x)
    return x


left, right = np.concatenate(U, axis=1), np.concatenate(V)
below = np.tril(right @ left, -1) * (np.subtract.outer(np.arange(LAYERS * R) // R, np.arange(LAYERS * R) // R) > 0)


def by_hand(x: Array) -> Array:
    """[64, 64]: I + U (I - S B)⁻¹ S V, layers side by side, S the slopes and B the blocks V_k U_l of l < k, constant.

    So the chain is a triangular solution of 40 rows, and a single product has the full width.
    """
    slopes = []
    for u, v in zip(U, V, strict=True):
        h = jnp.tanh(v @ x)
        x = x + u @ h
        slopes.append(1 - h**2)
    S = jnp.concatenate(slopes)[:, None]
    Q = solve_triangular(np.eye(LAYERS * R) - S * below, S * right, lower=True, unit_diagonal=True)
    return left @ Q + np.eye(D)


problems = [Problem("low-rank residual stack", f, rng.normal(size=D), by_hand, lambda J: J, smoke=True)]
