"""A residual MLP, sample by sample: a solve with the Jacobian of the whole batch, block-diagonal."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import chainrule as cr
from solve_problems.task import VARIANTS, Task, Ways, jitted

WIDTH, HIDDEN = 16, 32
_RNG = np.random.default_rng(3)
FIRST = _RNG.normal(size=(WIDTH, HIDDEN)) / np.sqrt(WIDTH)
SECOND = _RNG.normal(size=(HIDDEN, WIDTH)) / np.sqrt(HIDDEN)


def f(x: Any) -> Any:
    return 2 * x + jnp.tanh(x @ FIRST) @ SECOND


def ours(x: Any, b: Any) -> Any:
    return cr.jacobian(f)(x).solve(b)


def per_sample(x: Any, b: Any) -> Any:
    return jax.vmap(lambda x, b: jnp.linalg.solve(jax.jacfwd(f)(x), b))(x, b)


def blocks(x: Any, xp: Any) -> Any:
    """[batch, out, in]."""
    slope = 1 - xp.tanh(x @ FIRST) ** 2
    return 2 * xp.eye(WIDTH) + SECOND.T @ (slope[:, :, None] * FIRST.T)


def by_hand(x: Any, b: Any) -> Any:
    return jnp.linalg.solve(blocks(x, jnp), b[..., None])[..., 0]


def exact(x: np.ndarray, b: np.ndarray) -> np.ndarray:
    A = blocks(x.astype(np.longdouble), np)
    narrow, found = A.astype(float), np.zeros(b.shape, np.longdouble)
    for _ in range(4):
        left = b - (A @ found[..., None])[..., 0]
        found = found + np.linalg.solve(narrow, left.astype(float)[..., None])[..., 0]
    return found


def make(batch: int) -> Ways:
    rng = np.random.default_rng(0)
    inputs = [(rng.normal(size=(batch, WIDTH)), rng.normal(size=(batch, WIDTH))) for _ in range(VARIANTS)]
    ways = {"ours": jitted(ours, inputs), "vmap(solve(jacfwd))": jitted(per_sample, inputs)}
    return Ways(ways | {"by hand": jitted(by_hand, inputs)}, exact(*inputs[0]))


tasks = [
    Task("MLP per sample, batch 32", functools.partial(make, 32), smoke=True),
    Task("MLP per sample, batch 512", functools.partial(make, 512)),
]
