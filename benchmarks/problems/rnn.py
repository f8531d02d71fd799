"""Recurrent networks by `scan`, all states with respect to all inputs: block lower triangular.

A full matrix in the recurrence: h_t = tanh(W h_{t-1} + U x_t + b). A diagonal one: h_t = a h_{t-1} + tanh(x_t).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax import Array
from problem import Problem

rng = np.random.default_rng(0)
T, H = 50, 8
W, U, b = rng.normal(size=(H, H)) / np.sqrt(H), rng.normal(size=(H, H)) / np.sqrt(H), rng.normal(size=H)
T2, H2 = 200, 16
a = rng.uniform(0.5, 1.0, size=H2)


def full(xs: Array) -> Array:
    def step(h: Array, x: Array) -> tuple[Array, Array]:
        h = jnp.tanh(W @ h + U @ x + b)
        return h, h

    return jax.lax.scan(step, jnp.zeros(H), xs)[1]


def full_by_hand(xs: Array) -> Array:
    """[t, i, s, j]: row t is (1 - h_t²) W times row t-1, and (1 - h_t²) U at s = t."""
    slopes = (1 - full(xs) ** 2)[:, :, None]

    def step(row: Array, now: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        through_state, through_input, t = now
        row = jax.lax.dynamic_update_slice(through_state @ row, through_input, (0, t * H))
        return row, row

    return jax.lax.scan(step, jnp.zeros((H, T * H)), (slopes * W, slopes * U, jnp.arange(T)))[1]


def diagonal(xs: Array) -> Array:
    def step(h: Array, x: Array) -> tuple[Array, Array]:
        h = h * a + jnp.tanh(x)
        return h, h

    return jax.lax.scan(step, jnp.zeros(H2), xs)[1]


powers = np.tril(a[:, None, None] ** np.abs(np.subtract.outer(np.arange(T2), np.arange(T2))))  # [i, t, s]


def diagonal_by_hand(xs: Array) -> Array:
    """[i, t, s]: a_i^(t-s) (1 - tanh(x_s)²); the powers are known."""
    return (1 - jnp.tanh(xs) ** 2).T[:, None, :] * powers


def diagonal_matrix(values: Any) -> Any:
    i, t, s = np.nonzero(powers)
    shape = (T2 * H2, T2 * H2)
    return scipy.sparse.coo_array((values[i, t, s], (t * H2 + i, s * H2 + i)), shape=shape).tocsr()


problems = [
    Problem("RNN", full, rng.normal(size=(T, H)), full_by_hand, lambda J: J.reshape(T * H, T * H), smoke=True),
    Problem("diagonal RNN", diagonal, rng.normal(size=(T2, H2)), diagonal_by_hand, diagonal_matrix),
]
