"""Robertson's stiff reactions in many cells: a Newton step of implicit Euler; J has a 3×3 block for each cell."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import chainrule as cr
from solve_problems.task import VARIANTS, Task, Ways, jitted

SLOW, FAST, MIDDLE = 0.04, 3e7, 1e4
H = 0.01


def reactions(y: Any) -> Any:
    """[..., 3] -> [..., 3] (Hairer and Wanner, Solving ODEs II, IV.1)."""
    a, b, c = y[..., 0], y[..., 1], y[..., 2]
    first, second, third = SLOW * a, FAST * b * b, MIDDLE * b * c
    return jnp.stack([third - first, first - second - third, second], axis=-1)


def residual(y: Any, before: Any) -> Any:
    return y - before - H * reactions(y)


def ours(y: Any, before: Any) -> Any:
    """The correction of the step."""
    return cr.jacobian(lambda y: residual(y, before))(y).solve(residual(y, before))


def per_cell(y: Any, before: Any) -> Any:
    def step(y: Any, before: Any) -> Any:
        return jnp.linalg.solve(jax.jacfwd(residual)(y, before), residual(y, before))

    return jax.vmap(step)(y, before)


def entries(y: Any) -> tuple[tuple[Any, ...], ...]:
    """The block of each cell, row by row."""
    _, b, c = y[..., 0], y[..., 1], y[..., 2]
    zero, fall = 0 * b, 2 * FAST * b
    return (
        (zero + 1 + H * SLOW, -H * MIDDLE * c, -H * MIDDLE * b),
        (zero - H * SLOW, 1 + H * (fall + MIDDLE * c), H * MIDDLE * b),
        (zero, -H * fall, zero + 1),
    )


def by_hand(y: Any, before: Any) -> Any:
    """Cramer's rule, cell by cell, along the arrays."""
    (a, b, c), (d, e, f), (g, h, i) = entries(y)
    r = residual(y, before)
    p, q, s = r[..., 0], r[..., 1], r[..., 2]
    A, B, C = e * i - f * h, f * g - d * i, d * h - e * g
    D, E, F = c * h - b * i, a * i - c * g, b * g - a * h
    G, K, L = b * f - c * e, c * d - a * f, a * e - b * d
    change = jnp.stack([A * p + D * q + G * s, B * p + E * q + K * s, C * p + F * q + L * s], axis=-1)
    return change / (a * A + b * B + c * C)[..., None]


def exact(y: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Elimination without pivots in extended precision: the blocks are M-matrices by columns, which need none."""
    y, before = y.astype(np.longdouble), before.astype(np.longdouble)
    M = np.stack([np.stack(row, -1) for row in entries(y)], -2)
    a, b, c = y[..., 0], y[..., 1], y[..., 2]
    rate = [MIDDLE * b * c - SLOW * a, SLOW * a - FAST * b * b - MIDDLE * b * c, FAST * b * b]
    r = y - before - H * np.stack(rate, -1)
    for k in range(3):
        for i in range(k + 1, 3):
            factor = M[:, i, k] / M[:, k, k]
            M[:, i] -= factor[:, None] * M[:, k]
            r[:, i] -= factor * r[:, k]
    for k in (2, 1, 0):
        r[:, k] = (r[:, k] - (M[:, k, k + 1 :] * r[:, k + 1 :]).sum(1)) / M[:, k, k]
    return r


def make(cells: int) -> Ways:
    rng = np.random.default_rng(0)
    inputs = []
    for _ in range(VARIANTS):
        burnt = rng.uniform(0.05, 0.9, size=cells)
        before = np.stack([1 - burnt, rng.uniform(1e-6, 4e-5, size=cells), burnt], axis=-1)
        inputs.append((before * rng.uniform(0.99, 1.01, size=before.shape), before))
    ways = {"ours": jitted(ours, inputs), "vmap(solve(jacfwd))": jitted(per_cell, inputs)}
    return Ways(ways | {"by hand": jitted(by_hand, inputs)}, exact(*inputs[0]))


tasks = [
    Task("stiff kinetics, 500 cells", functools.partial(make, 500), smoke=True),
    Task("stiff kinetics, 10000 cells", functools.partial(make, 10_000)),
]
