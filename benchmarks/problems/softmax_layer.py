"""A softmax over the logits of a linear layer, 256 -> 1024: (diag(s) - s sᵀ) W."""

from __future__ import annotations

import jax
import numpy as np
from jax import Array
from problem import Problem

rng = np.random.default_rng(0)
M, N = 1024, 256
W = rng.normal(size=(M, N)) / np.sqrt(N)


def f(x: Array) -> Array:
    return jax.nn.softmax(W @ x)


def by_hand(x: Array) -> Array:
    """[1024, 256]: s_i (W_i - s W); the diagonal and the rank one need no matrix product."""
    s = f(x)
    return s[:, None] * (W - s @ W)


problems = [Problem("softmax of a layer 256-1024", f, rng.normal(size=N), by_hand, lambda J: J)]
