"""Ten explicit steps of nonlinear heat conduction with a reaction, by `fori_loop`: a band of half width ten.

du/dt = (D(u) u')' + u (1 - u) with D(u) = 1 + u², and u = 0 outside the rod.
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
N, STEPS = 5_000, 10
C, DT = 0.1, 0.01  # C = DT / DX²


def step(u: Array) -> Array:
    padded = jnp.pad(u, 1)
    D = 1 + padded**2
    flux = (D[1:] + D[:-1]) / 2 * (padded[1:] - padded[:-1])
    return u + C * (flux[1:] - flux[:-1]) + DT * u * (1 - u)


def f(u: Array) -> Array:
    return jax.lax.fori_loop(0, STEPS, lambda _, u: step(u), u)


def tridiagonal(u: Array) -> tuple[Array, Array, Array]:
    """Of one step: d out_i / d u_{i-1}, u_i, u_{i+1}."""
    padded = jnp.pad(u, 1)
    mean, jump = 1 + (padded[1:] ** 2 + padded[:-1] ** 2) / 2, padded[1:] - padded[:-1]
    left, right = C * (padded[:-1] * jump - mean), C * (padded[1:] * jump + mean)  # d flux / d its left, its right
    return -left[:-1], 1 + left[1:] - right[:-1] + DT * (1 - 2 * u), right[1:]


def by_hand(u: Array) -> Array:
    """[i, o]: d out_i / d u_{i+o-10}; every step mixes the bands of its neighbours i - 1, i and i + 1."""
    steps = jax.lax.scan(lambda u, _: (step(u), tridiagonal(u)), u, None, length=STEPS)[1]
    lower, middle, upper = (values[..., None] for values in steps)
    band = jnp.ones((N, 1))
    for k in range(STEPS):  # one loop over the memory each
        padded = jax.lax.optimization_barrier(jnp.pad(band, ((1, 1), (2, 2))))
        mixed = lower[k] * padded[:-2, 2:] + middle[k] * padded[1:-1, 1:-1] + upper[k] * padded[2:, :-2]
        band = jax.lax.optimization_barrier(mixed)
    return band


def matrix(values: Any) -> Any:
    i, o = np.indices(values.shape)
    inside = (i + o >= STEPS) & (i + o < N + STEPS)
    place = (i[inside], (i + o - STEPS)[inside])
    return scipy.sparse.coo_array((values[inside], place), shape=(N, N)).tocsr()


problems = [Problem("nonlinear heat, 10 steps", f, rng.uniform(size=N), by_hand, matrix)]
