"""A fixed-point layer in the manner of deep equilibrium models: 500 values into a state of 200, five outputs.

Twenty iterations z <- tanh(W z + U x) by `fori_loop` from z = 0, then C z.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from problem import Problem

rng = np.random.default_rng(0)
N, STATE, OUT, STEPS = 500, 200, 5, 20
W, U = rng.normal(size=(STATE, STATE)) / (2 * np.sqrt(STATE)), rng.normal(size=(STATE, N)) / np.sqrt(N)
C = rng.normal(size=(OUT, STATE)) / np.sqrt(STATE)


def f(x: Array) -> Array:
    return C @ jax.lax.fori_loop(0, STEPS, lambda _, z: jnp.tanh(W @ z + U @ x), jnp.zeros(STATE))


def by_hand(x: Array) -> Array:
    """[5, 500]: backwards, as five outputs are few, and what all iterations say of U x is summed before U is met."""
    injected = U @ x

    def step(z: Array, _: None) -> tuple[Array, Array]:
        z = jnp.tanh(W @ z + injected)
        return z, 1 - z**2

    def back(carry: tuple[Array, Array], slopes: Array) -> tuple[tuple[Array, Array], None]:
        after, total = carry
        after = after * slopes
        return (after @ W, total + after), None

    slopes = jax.lax.scan(step, jnp.zeros(STATE), None, length=STEPS)[1]
    total = jax.lax.scan(back, (jnp.asarray(C), jnp.zeros((OUT, STATE))), slopes, reverse=True)[0][1]
    return total @ U


problems = [Problem("fixed point 500-200-5", f, rng.normal(size=N), by_hand, lambda J: J)]
