"""Five explicit steps of the viscous Burgers equation on a ring of 1000 points: a cyclic band of half width five.

u_t + u u_x = ν u_xx with central differences.
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
N, STEPS = 1000, 5
ADVECT, DIFFUSE = 0.1, 0.2  # Δt / (2 Δx), ν Δt / Δx²


def step(u: Array) -> Array:
    left, right = jnp.roll(u, 1), jnp.roll(u, -1)
    return u - ADVECT * u * (right - left) + DIFFUSE * (right - 2 * u + left)


def f(u: Array) -> Array:
    for _ in range(STEPS):
        u = step(u)
    return u


def by_hand(u: Array) -> Array:
    """[o, i]: d out_i / d u_{i+o-5}, on a ring laid out flat; a step mixes the bands of i - 1, i and i + 1."""
    u = jnp.pad(u, STEPS, mode="wrap")
    band: list[Any] = [jnp.ones_like(u)]
    for _ in range(STEPS):
        left, here, right = u[:-2], u[1:-1], u[2:]
        lower, middle, upper = (
            DIFFUSE + ADVECT * here,
            1 - 2 * DIFFUSE - ADVECT * (right - left),
            DIFFUSE - ADVECT * here,
        )
        mixed = [0.0] * (len(band) + 2)
        for o, values in enumerate(band):
            mixed[o] += lower * values[:-2]
            mixed[o + 1] += middle * values[1:-1]
            mixed[o + 2] += upper * values[2:]
        band, u = jax.lax.optimization_barrier((mixed, step(u)[1:-1]))  # a step is one loop over the memory
    return jnp.stack(band)


def matrix(values: Any) -> Any:
    o, i = np.indices(values.shape)
    place = (i.ravel(), ((i + o - STEPS) % N).ravel())
    return scipy.sparse.coo_array((values.ravel(), place), shape=(N, N)).tocsr()


problems = [Problem("Burgers, 5 steps", f, rng.uniform(size=N), by_hand, matrix, smoke=True)]
