"""Softmax: diag(s) - s sᵀ, row by row."""

from __future__ import annotations

import jax
import numpy as np
from jax import Array
from problem import Problem, blocks

rng = np.random.default_rng(0)


def f(x: Array) -> Array:
    return jax.nn.softmax(x, axis=-1)


def rows_by_hand(x: Array) -> Array:
    """[k, n, n], in one pass over small blocks."""
    s = f(x)
    return s[:, :, None] * (np.eye(x.shape[-1]) - s[:, None, :])


def vector_by_hand(x: Array) -> Array:
    """[n, n]; the diagonal is added in place, quicker for a large block."""
    s, i = f(x), np.arange(len(x))
    return (-s[:, None] * s).at[i, i].add(s)


problems = [
    Problem("softmax 16×32", f, rng.normal(size=(16, 32)), rows_by_hand, blocks, smoke=True),
    Problem("softmax n=500", f, rng.normal(size=500), vector_by_hand, lambda J: J, smoke=True),
]
