"""The Hessian of the chained Rosenbrock function: tridiagonal."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax import Array
from problem import Problem


def f(x: Array) -> Array:
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def by_hand(x: Array) -> tuple[Array, ...]:
    """The main diagonal [n], and the one beside it [n - 1]."""
    constant = np.full(x.shape, 202.0)
    constant[0], constant[-1] = 2, 200
    return jnp.pad(1200 * x[:-1] ** 2 - 400 * x[1:], (0, 1)) + constant, -400 * x[:-1]


def matrix(values: Any) -> Any:
    main, beside = values
    return scipy.sparse.diags_array([beside, main, beside], offsets=[-1, 0, 1]).tocsr()


problems = [
    Problem(
        f"Rosenbrock Hessian n={n}",
        f,
        np.random.default_rng(0).normal(size=n),
        by_hand,
        matrix,
        hessian=True,
        smoke=n == 1000,
    )
    for n in (1000, 100_000)
]
