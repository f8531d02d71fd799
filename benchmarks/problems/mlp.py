"""A three-layer network, the Jacobian of every sample's output with respect to its input."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from problem import Problem, blocks

rng = np.random.default_rng(0)
W1, W2, W3 = (rng.normal(size=s) / np.sqrt(s[0]) for s in ((64, 128), (128, 128), (128, 32)))


def f(x: Array) -> Array:
    return jnp.tanh(jnp.tanh(x @ W1) @ W2) @ W3


CHUNK = 64  # samples whose intermediate matrices stay in the cache; larger batches go chunk by chunk


def by_hand(x: Array) -> Array:
    """[batch, 32, 64]: W3ᵀ diag(1 - h2²) W2ᵀ diag(1 - h1²) W1ᵀ, from the output as it is the narrower side."""
    if len(x) <= CHUNK:
        return chunk_by_hand(x)
    return jax.lax.map(chunk_by_hand, x.reshape(-1, CHUNK, 64)).reshape(-1, 32, 64)


def chunk_by_hand(x: Array) -> Array:
    h1 = jnp.tanh(x @ W1)
    h2 = jnp.tanh(h1 @ W2)
    J = (W3.T * (1 - h2**2)[:, None, :]) @ W2.T
    return (J * (1 - h1**2)[:, None, :]) @ W1.T


problems = [
    Problem(f"MLP per sample, batch {batch}", f, rng.normal(size=(batch, 64)), by_hand, blocks, smoke=batch == 64)
    for batch in (64, 512)
]
