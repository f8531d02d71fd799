"""1-D heat with radiation: a Newton step of implicit Euler; J is tridiagonal."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import lineax
import numpy as np
import scipy.linalg
import scipy.sparse

import chainrule as cr
from solve_problems.task import VARIANTS, Task, Ways, jitted, on_host, refined

RATIO = 1e3  # h / dx²
H = 1e-2


def residual(u: Any, before: Any, xp: Any = jnp) -> Any:
    """u - h (u'' - u⁴) - before, u = 0 outside."""
    p = xp.pad(u, 1)
    return u - before - RATIO * (p[2:] + p[:-2] - 2 * u) + H * u**4


def diagonal(u: Any) -> Any:
    return 1 + 2 * RATIO + 4 * H * u**3


def ours(u: Any, before: Any) -> Any:
    return u - cr.jacobian(lambda u: residual(u, before))(u).solve(residual(u, before))


def by_hand(u: Any, before: Any) -> Any:
    beside = jnp.full(u.shape, -RATIO)
    lower, upper = beside.at[0].set(0), beside.at[-1].set(0)
    return u - jax.lax.linalg.tridiagonal_solve(lower, diagonal(u), upper, residual(u, before)[:, None])[:, 0]


def by_lineax(u: Any, before: Any) -> Any:
    beside = jnp.full(len(u) - 1, -RATIO)
    operator = lineax.TridiagonalLinearOperator(diagonal(u), beside, beside)
    return u - lineax.linear_solve(operator, residual(u, before), lineax.Tridiagonal()).value


def by_scipy(u: np.ndarray, before: np.ndarray) -> np.ndarray:
    bands = np.full((3, len(u)), -RATIO)
    bands[1] = diagonal(u)
    r = residual(u, before, np)
    return u - scipy.linalg.solve_banded((1, 1), bands, r, overwrite_ab=True, overwrite_b=True, check_finite=False)


def exact(u: np.ndarray, before: np.ndarray) -> np.ndarray:
    u, before = u.astype(np.longdouble), before.astype(np.longdouble)
    beside = np.full(len(u) - 1, np.longdouble(-RATIO))
    A = scipy.sparse.diags_array([beside, diagonal(u), beside], offsets=[-1, 0, 1])
    return u - refined(A, residual(u, before, np))


def make(n: int) -> Ways:
    x = np.linspace(0, 1, n + 2)[1:-1]
    before = [np.sin(np.pi * x) + (0.5 + 0.05 * i) * np.sin(20 * np.pi * x) ** 2 for i in range(VARIANTS)]
    inputs = [(0.9 * u, u) for u in before]
    ways = {
        "ours": jitted(ours, inputs),
        "tridiagonal_solve by hand": jitted(by_hand, inputs),
        "SciPy solve_banded by hand": on_host(by_scipy, inputs),
        "lineax.Tridiagonal by hand": jitted(by_lineax, inputs),
    }
    return Ways(ways, exact(*inputs[0]))


tasks = [
    Task("1-D heat n=1000", functools.partial(make, 1000), smoke=True),
    Task("1-D heat n=100000", functools.partial(make, 100_000)),
]
