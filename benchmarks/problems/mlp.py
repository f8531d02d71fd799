"""A three-layer network, the Jacobian of every sample's output with respect to its input."""

import jax.numpy as jnp
import numpy as np
from problem import Problem, blocks

rng = np.random.default_rng(0)
W1, W2, W3 = (rng.normal(size=s) / np.sqrt(s[0]) for s in ((64, 128), (128, 128), (128, 32)))


def f(x):
    return jnp.tanh(jnp.tanh(x @ W1) @ W2) @ W3


def by_hand(x):
    """[batch, 32, 64]: W3ᵀ diag(1 - h2²) W2ᵀ diag(1 - h1²) W1ᵀ, from the output as it is the narrower side."""
    h1 = jnp.tanh(x @ W1)
    h2 = jnp.tanh(h1 @ W2)
    J = (W3.T * (1 - h2**2)[:, None, :]) @ W2.T
    return (J * (1 - h1**2)[:, None, :]) @ W1.T


problems = [
    Problem(f"MLP per sample, batch {batch}", f, rng.normal(size=(batch, 64)), by_hand, blocks, smoke=batch == 64)
    for batch in (64, 512)
]
