"""Running sums, and a linear recurrence by `associative_scan`: lower triangular, and dense below the diagonal.

The sums: y_t = sum over s ≤ t of sin(x_s). The recurrence: h_t = a_t h_{t-1} + b_t with a = sigmoid(x).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax import Array
from problem import Problem

rng = np.random.default_rng(0)
N, T = 1000, 256
lower = np.tri(N, dtype=bool)
b = rng.normal(size=T)


def sums(x: Array) -> Array:
    return jnp.cumsum(jnp.sin(x))


def sums_by_hand(x: Array) -> Array:
    """cos(x_s), the number that stands in column s from row s on."""
    return jnp.cos(x)


def recurrence(a: Array, b: Array | np.ndarray) -> Array:
    def combine(first: tuple[Array, Array], then: tuple[Array, Array]) -> tuple[Array, Array]:
        return first[0] * then[0], then[0] * first[1] + then[1]

    return jax.lax.associative_scan(combine, (a, b))[1]


def gates(x: Array) -> Array:
    return recurrence(jax.nn.sigmoid(x), b)


def both(x: Array) -> Array:
    return recurrence(jax.nn.sigmoid(x[0]), x[1])


def paths(a: Array, diagonal: Array) -> Array:
    """[t, ..., s]: the product of a_r over s < r ≤ t, times diagonal[s, ...]; zero for s > t."""

    def step(row: Array, now: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        a, entry, t = now
        row = jnp.where(np.arange(T) == t, entry[..., None], a * row)
        return row, row

    return jax.lax.scan(step, jnp.zeros((*diagonal.shape[1:], T)), (a, diagonal, jnp.arange(T)))[1]


def slopes(a: Array, h: Array) -> Array:
    """What dx_s adds to h_s: a' h_{s-1} with a' = a (1 - a)."""
    return a * (1 - a) * jnp.concatenate([jnp.zeros(1), h[:-1]])


def gates_by_hand(x: Array) -> Array:
    """[t, s]: the product of a_r over s < r ≤ t, times a'_s h_{s-1}."""
    a = jax.nn.sigmoid(x)
    return paths(a, slopes(a, recurrence(a, b)))


def both_by_hand(x: Array) -> Array:
    """[t, k, s]: as above for the gates (k = 0), and the products alone for b (k = 1)."""
    a = jax.nn.sigmoid(x[0])
    return paths(a, jnp.stack([slopes(a, recurrence(a, x[1])), jnp.ones(T)], axis=1))


problems = [
    Problem(
        "cumulative sum",
        sums,
        rng.normal(size=N),
        sums_by_hand,
        lambda slopes: scipy.sparse.csr_array(np.where(lower, slopes, 0)),
    ),
    Problem("associative scan", gates, rng.normal(size=T), gates_by_hand, scipy.sparse.csr_array, smoke=True),
    Problem(
        "associative scan, both", both, rng.normal(size=(2, T)), both_by_hand, lambda J: J.reshape(T, 2 * T), smoke=True
    ),
]
