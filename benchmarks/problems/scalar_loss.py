"""The gradient of a scalar loss, a control: nothing is cheaper than the reverse mode.

loss = |W3 tanh(W2 tanh(W1 x)) - y|² / 2.
"""

from __future__ import annotations

from itertools import pairwise

import jax.numpy as jnp
import numpy as np
from jax import Array
from problem import Problem

rng = np.random.default_rng(0)
SIZES = (200, 150, 100, 50)
W1, W2, W3 = (rng.normal(size=(m, n)) / np.sqrt(n) for n, m in pairwise(SIZES))
y = rng.normal(size=SIZES[-1])


def f(x: Array) -> Array:
    return jnp.sum((W3 @ jnp.tanh(W2 @ jnp.tanh(W1 @ x)) - y) ** 2) / 2


def by_hand(x: Array) -> Array:
    """[200], from the residual backwards."""
    h1 = jnp.tanh(W1 @ x)
    h2 = jnp.tanh(W2 @ h1)
    return (((W3 @ h2 - y) @ W3 * (1 - h2**2)) @ W2 * (1 - h1**2)) @ W1


problems = [Problem("control scalar loss", f, rng.normal(size=SIZES[0]), by_hand, lambda g: g[None], smoke=True)]
