"""Layer norm of one vector with gain and bias: y = g (x - mean) / √(variance + ε) + b; a diagonal and rank two."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array
from problem import Problem

rng = np.random.default_rng(0)
N, EPS = 1024, 1e-5
gain, bias = rng.normal(size=(2, N))


def f(x: Array) -> Array:
    return gain * (x - x.mean()) / jnp.sqrt(x.var() + EPS) + bias


def by_hand(x: Array) -> Array:
    """[n, n]: g r (I - 11ᵀ/n - z zᵀ/n) with z = (x - mean) r; the diagonal is added in place."""
    r, i = 1 / jnp.sqrt(x.var() + EPS), np.arange(N)
    z = (x - x.mean()) * r
    scale = gain * r
    return (-(scale / N)[:, None] - (scale * z / N)[:, None] * z).at[i, i].add(scale)


problems = [Problem("layer norm n=1024", f, rng.normal(size=N), by_hand, lambda J: J)]
