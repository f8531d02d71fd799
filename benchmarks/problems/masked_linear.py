"""A linear layer whose weights are masked to a band of five, and tanh: the zeros of a constant are those of J."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax import Array
from problem import Problem

rng = np.random.default_rng(0)
N, HALF = 512, 2
offset = np.subtract.outer(np.arange(N), np.arange(N))
W, mask = rng.normal(size=(N, N)), (abs(offset) <= HALF).astype(float)
bands = np.stack([np.concatenate([np.zeros(max(-o, 0)), np.diag(W, o), np.zeros(max(o, 0))]) for o in range(-2, 3)])


def f(x: Array) -> Array:
    return jnp.tanh((W * mask) @ x)


def by_hand(x: Array) -> Array:
    """[o, i]: (1 - y_i²) W[i, i + o - 2]; y from the bands alone."""
    padded = jnp.pad(x, HALF)
    y = jnp.tanh(sum(bands[o] * padded[o : o + N] for o in range(2 * HALF + 1)))
    return (1 - y**2) * bands


def matrix(values: Any) -> Any:
    offsets = range(-HALF, HALF + 1)
    diagonals = [values[k, max(-o, 0) : N - max(o, 0)] for k, o in enumerate(offsets)]
    return scipy.sparse.diags_array(diagonals, offsets=list(offsets), shape=(N, N))


problems = [Problem("masked linear", f, rng.normal(size=N), by_hand, matrix, smoke=True)]
