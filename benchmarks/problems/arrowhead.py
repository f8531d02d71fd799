"""An arrowhead: the first output sees everything, the others themselves and the first input."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from problem import Problem

n = 500


def f(x: Array) -> Array:
    return jnp.concatenate([(x * x).sum()[None], x[0] * x[1:]])


def by_hand(x: Array) -> tuple[Array, ...]:
    """The first row [n], the first column below it [n - 1], and the number along the diagonal."""
    return 2 * x, x[1:], x[0]


def matrix(values: Any) -> Any:
    row, column, number = values
    J = number * np.eye(n)
    J[1:, 0], J[0] = column, row
    return J


problems = [Problem("arrowhead n=500", f, np.random.default_rng(0).normal(size=n), by_hand, matrix, smoke=True)]
