"""x + softmax(x): a solve with its Jacobian, diagonal + rank one, and the logarithm of its determinant."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import chainrule as cr
from solve_problems.task import VARIANTS, Task, Ways, jitted


def f(x: Any) -> Any:
    return x + jax.nn.softmax(x)


def ours(x: Any, b: Any) -> Any:
    J = cr.jacobian(f, order="factored")(x)
    return J.solve(b), J.slogdet()[1]


def by_hand(x: Any, b: Any) -> Any:
    """J = diag(1 + p) - p pᵀ: Woodbury's formula and the determinant lemma."""
    return _by_parts(jax.nn.softmax(x), b, jnp)


def _by_parts(p: Any, b: Any, xp: Any) -> Any:
    y, z = b / (1 + p), p / (1 + p)
    left = 1 - xp.dot(p, z)
    return y + z * (xp.dot(p, y) / left), xp.log1p(p).sum() + xp.log(left)


def dense(x: Any, b: Any) -> Any:
    J = jax.jacfwd(f)(x)
    return jnp.linalg.solve(J, b), jnp.linalg.slogdet(J)[1]


def exact(x: np.ndarray, b: np.ndarray) -> Any:
    e = np.exp((x - x.max()).astype(np.longdouble))
    return _by_parts(e / e.sum(), b.astype(np.longdouble), np)


def make(n: int) -> Ways:
    rng = np.random.default_rng(0)
    inputs = [(rng.normal(size=n), rng.normal(size=n)) for _ in range(VARIANTS)]
    ways = {"ours": jitted(ours, inputs), "Woodbury by hand": jitted(by_hand, inputs)}
    if n <= 1000:
        ways["dense JAX"] = jitted(dense, inputs)
    return Ways(ways, exact(*inputs[0]))


tasks = [
    Task(f"x + softmax(x) n={n}: solve and slogdet", functools.partial(make, n), smoke=smoke)
    for n, smoke in ((300, True), (1000, False), (10_000, False), (100_000, False), (1_000_000, False))
]
