"""The Hessian of the chained Rosenbrock function: tridiagonal."""

import numpy as np
import scipy.sparse
from problem import Problem


def f(x):
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def by_hand(x):
    """The main diagonal [n], and the one beside it [n - 1]."""
    main = 1200 * x**2 + 202
    main = main.at[:-1].add(-400 * x[1:]).at[0].add(-200).at[-1].set(200)
    return main, -400 * x[:-1]


def matrix(values):
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
