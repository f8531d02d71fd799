"""The gradient of every sample's cross-entropy with respect to the parameters of a network 32-64-10, batch of 64."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from problem import Problem

rng = np.random.default_rng(0)
BATCH, IN, HIDDEN, OUT = 64, 32, 64, 10
x, labels = rng.normal(size=(BATCH, IN)), rng.integers(OUT, size=BATCH)
W1, W2 = rng.normal(size=(IN, HIDDEN)) / np.sqrt(IN), rng.normal(size=(HIDDEN, OUT)) / np.sqrt(HIDDEN)
b1, b2 = rng.normal(size=HIDDEN), rng.normal(size=OUT)


def f(parameters: Any) -> Array:
    W1, b1, W2, b2 = parameters
    logits = jnp.tanh(x @ W1 + b1) @ W2 + b2
    return -jax.nn.log_softmax(logits)[np.arange(BATCH), labels]


def by_hand(parameters: Any) -> tuple[Array, ...]:
    """[64, ...] each: backwards per sample; the gradient of a matrix is the outer product of its two sides."""
    W1, b1, W2, b2 = parameters
    h = jnp.tanh(x @ W1 + b1)
    after = jax.nn.softmax(h @ W2 + b2) - np.eye(OUT)[labels]
    before = after @ W2.T * (1 - h**2)
    return x[:, :, None] * before[:, None, :], before, h[:, :, None] * after[:, None, :], after


def matrix(values: Any) -> Any:
    return np.concatenate([v.reshape(BATCH, -1) for v in values], axis=1)


problems = [Problem("per-sample gradients", f, (W1, b1, W2, b2), by_hand, matrix, smoke=True)]
