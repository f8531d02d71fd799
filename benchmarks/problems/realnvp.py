"""An affine coupling layer (Dinh et al., Density estimation using Real NVP, 2017): one half conditions the other."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from problem import Problem

rng = np.random.default_rng(0)
n, hidden = 64, 64
half = n // 2
M1, M2, M3 = (
    rng.normal(size=(half, hidden)) / 6,
    rng.normal(size=(hidden, half)) / 8,
    rng.normal(size=(hidden, half)) / 8,
)


def f(x: Array) -> Array:
    a, b = x[:half], x[half:]
    h = jnp.tanh(a @ M1)
    return jnp.concatenate([a, b * jnp.exp(jnp.tanh(h @ M2)) + h @ M3])


def by_hand(x: Array) -> tuple[Array, ...]:
    """The full block dy₂/da [half, half] and the diagonal dy₂/db [half]; dy₁/da is the identity."""
    a, b = x[:half], x[half:]
    h = jnp.tanh(a @ M1)
    s = jnp.tanh(h @ M2)
    scale = jnp.exp(s)
    through_h = (b * scale * (1 - s**2))[:, None] * M2.T + M3.T
    return (through_h * (1 - h**2)) @ M1.T, scale


def matrix(values: Any) -> Any:
    block, scale = values
    return np.block([[np.eye(half), np.zeros((half, half))], [block, np.diag(scale)]])


problems = [Problem("RealNVP layer", f, rng.normal(size=n), by_hand, matrix, smoke=True)]
