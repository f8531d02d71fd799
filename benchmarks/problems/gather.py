"""Residuals on the edges of a graph: each sees the two nodes at its ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
from jax import Array
from problem import Problem

rng = np.random.default_rng(0)


def edges(m: int, n: int) -> Problem:
    first = rng.integers(0, n, m)
    second = (first + rng.integers(1, n, m)) % n

    def f(x: Array) -> Array:
        return (x[first] - x[second]) ** 2 * x[first]

    def by_hand(x: Array) -> tuple[Array, ...]:
        """d/dx[first] and d/dx[second], [m] each."""
        a, d = x[first], x[first] - x[second]
        through_second = -2 * d * a
        return d * d - through_second, through_second

    def matrix(values: Any) -> Any:
        rows, cols = np.tile(np.arange(m), 2), np.concatenate([first, second])
        return scipy.sparse.coo_array((np.concatenate(values), (rows, cols)), shape=(m, n)).tocsr()

    return Problem(f"gather residuals {m}×{n}", f, rng.normal(size=n), by_hand, matrix, smoke=m < 1000)


problems = [edges(400, 50), edges(200_000, 50_000)]
