"""Networks of one sample, where the order of the matrix products decides: narrow waists, zig-zags, random sizes.

The Jacobian is W_L D_{L-1} W_{L-1} ... D_1 W_1 with D_k = diag(1 - h_k²). The cheapest bracketing is found from the
sizes by the dynamic programme for matrix chains (Godbole 1973); for a network that only narrows or widens it is
one of the pure modes, which is what the controls are for.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import jax.numpy as jnp
import numpy as np
from jax import Array
from problem import Problem


def chain(name: str, sizes: tuple[int, ...], smoke: bool = False) -> Problem:
    """x -> W_L tanh(... tanh(W_1 x)), and its Jacobian in the cheapest order."""
    rng = np.random.default_rng(sizes[0])
    weights = [rng.normal(size=(m, n)) / np.sqrt(n) for n, m in pairwise(sizes)]

    @cache
    def cheapest(first: int, end: int) -> tuple[int, int]:
        """Multiply-adds of the product of the layers first ... end - 1, and the layer at which to split it."""
        if end - first == 1:
            return 0, first
        return min(
            (cheapest(first, k)[0] + cheapest(k, end)[0] + sizes[first] * sizes[k] * sizes[end], k)
            for k in range(first + 1, end)
        )

    def f(x: Array) -> Array:
        for W in weights[:-1]:
            x = jnp.tanh(W @ x)
        return weights[-1] @ x

    def by_hand(x: Array) -> Array:
        slopes = [jnp.ones_like(x)]
        for W in weights[:-1]:
            x = jnp.tanh(W @ x)
            slopes.append(1 - x**2)

        def product(first: int, end: int) -> Array:
            """Of the layers first ... end - 1, the slopes taken into the smaller factor."""
            if end - first == 1:
                return weights[first]
            k = cheapest(first, end)[1]
            before, after = product(first, k), product(k, end)
            if sizes[first] < sizes[end]:
                return after @ (slopes[k][:, None] * before)
            return (after * slopes[k]) @ before

        return product(0, len(weights))

    return Problem(name, f, rng.normal(size=sizes[0]), by_hand, lambda J: J, smoke=smoke)


def random(links: int, seed: int) -> Problem:
    sizes = np.random.default_rng(seed).integers(5, 301, size=links + 1)
    return chain(f"random chain, {links} links", tuple(sizes.tolist()))


problems = [
    chain("narrow waist 1000-300-10-300-1000", (1000, 300, 10, 300, 1000)),
    chain("zig-zag 500-50-500-5-500-50-500", (500, 50, 500, 5, 500, 50, 500)),
    random(5, 1),
    random(10, 2),
    random(20, 3),
    chain("control 100-50-20-5", (100, 50, 20, 5), smoke=True),
    chain("control 5-20-50-100", (5, 20, 50, 100), smoke=True),
    chain("control 5-400-400-50", (5, 400, 400, 50)),
]
