"""The Hessian of the Helmholtz energy of a mixed fluid, 1000 components: a diagonal and rank three.

f(x) = R T sum x_i log(x_i / (1 - b·x)) - xᵀA x / (√8 b·x) log((1 + (1 + √2) b·x) / (1 + (1 - √2) b·x)), the classic
of automatic differentiation (Griewank 1989), with A = diag(d) + a aᵀ.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array
from problem import Problem

rng = np.random.default_rng(0)
N, RT = 1000, 2.5
UP, DOWN = 1 + np.sqrt(2), 1 - np.sqrt(2)
a, b, d = rng.uniform(size=N), rng.uniform(size=N) / N, rng.uniform(size=N)


def f(x: Array) -> Array:
    bx = b @ x
    attraction = (x @ (d * x) + (a @ x) ** 2) / (np.sqrt(8) * bx)
    return RT * jnp.sum(x * jnp.log(x / (1 - bx))) - attraction * jnp.log((1 + UP * bx) / (1 + DOWN * bx))


def by_hand(x: Array) -> Array:
    """[n, n]: the terms are functions of b·x times the sum of x or q = xᵀA x, so all but a diagonal is of rank three.

    With g(β) = log(...) / (√8 β): R T diag(1/x) - 2 g A + w bᵀ + b wᵀ, w = R T 1 / (1-β) - 2 g' A x + c b / 2 and
    c = R T sum(x) / (1-β)² - g'' q; the matrix is filled in one pass.
    """
    bx, ax = b @ x, a @ x
    Ax = d * x + ax * a
    up, down = UP / (1 + UP * bx), DOWN / (1 + DOWN * bx)
    g = jnp.log((1 + UP * bx) / (1 + DOWN * bx)) / (np.sqrt(8) * bx)
    g1 = ((up - down) / np.sqrt(8) - g) / bx
    g2 = ((down**2 - up**2) / np.sqrt(8) - 2 * g1) / bx
    c = RT * x.sum() / (1 - bx) ** 2 - g2 * (x @ Ax)
    w = RT / (1 - bx) - 2 * g1 * Ax + c / 2 * b
    H = (-2 * g * a)[:, None] * a + w[:, None] * b + b[:, None] * w
    i = np.arange(N)
    return H.at[i, i].add(RT / x - 2 * g * d)


x0 = rng.uniform(0.1, 1.0, size=N)
problems = [Problem("Helmholtz energy Hessian", f, x0, by_hand, lambda H: H, hessian=True)]
