"""A wide three-layer network, the Jacobian of every sample's output with respect to its input: matrix products."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from problem import Problem, blocks

rng = np.random.default_rng(0)
N, BATCH = 512, 16
W1, W2, W3 = rng.normal(size=(3, N, N)) / np.sqrt(N)


def f(x: Array) -> Array:
    return jnp.tanh(jnp.tanh(x @ W1) @ W2) @ W3


def by_hand(x: Array) -> Array:
    """[batch, 512, 512]: W3ᵀ diag(1 - h2²) W2ᵀ diag(1 - h1²) W1ᵀ, sample by sample, as the cache likes it."""

    def sample(slopes: tuple[Array, Array]) -> Array:
        return ((W3.T * slopes[1]) @ W2.T * slopes[0]) @ W1.T

    h1 = jnp.tanh(x @ W1)
    h2 = jnp.tanh(h1 @ W2)
    return jax.lax.map(sample, (1 - h1**2, 1 - h2**2))


problems = [Problem("wide MLP per sample", f, rng.normal(size=(BATCH, N)), by_hand, blocks)]
