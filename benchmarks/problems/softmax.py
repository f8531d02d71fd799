"""Softmax: diag(s) - s sᵀ, row by row."""

import jax
import numpy as np
from problem import Problem, blocks

rng = np.random.default_rng(0)


def f(x):
    return jax.nn.softmax(x, axis=-1)


def by_hand(x):
    s = jax.nn.softmax(x, axis=-1)
    return s[..., :, None] * (np.eye(x.shape[-1]) - s[..., None, :])


problems = [
    Problem("softmax 16×32", f, rng.normal(size=(16, 32)), by_hand, blocks, smoke=True),
    Problem("softmax n=500", f, rng.normal(size=500), by_hand, lambda J: J, smoke=True),
]
