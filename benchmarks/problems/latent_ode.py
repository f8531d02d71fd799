"""A latent ODE: encode 1000 values to 16, fifty explicit Euler steps of a small network by `scan`, decode to 1000."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from problem import Problem

rng = np.random.default_rng(0)
N, LATENT, HIDDEN, STEPS, DT = 1000, 16, 128, 50, 0.02
E, V = rng.normal(size=(LATENT, N)) / np.sqrt(N), rng.normal(size=(HIDDEN, LATENT)) / np.sqrt(LATENT)
U, D = rng.normal(size=(LATENT, HIDDEN)) / np.sqrt(HIDDEN), rng.normal(size=(N, LATENT)) / np.sqrt(LATENT)
b = rng.normal(size=HIDDEN)


def f(x: Array) -> Array:
    def step(z: Array, _: None) -> tuple[Array, None]:
        return z + DT * (U @ jnp.tanh(V @ z + b)), None

    return D @ jax.lax.scan(step, jnp.tanh(E @ x), None, length=STEPS)[0]


outer = DT * (U.T[:, :, None] * V[:, None, :]).reshape(HIDDEN, LATENT * LATENT)


def by_hand(x: Array) -> Array:
    """[1000, 1000]: D (S E) with S, 16×16, the product of the steps I + Δt U diag(1 - h²) V, formed all at once."""

    def step(z: Array, _: None) -> tuple[Array, Array]:
        h = jnp.tanh(V @ z + b)
        return z + DT * (U @ h), 1 - h**2

    z = jnp.tanh(E @ x)
    slopes = jax.lax.scan(step, z, None, length=STEPS)[1]
    steps = (slopes @ outer).reshape(STEPS, LATENT, LATENT) + np.eye(LATENT)
    S = jax.lax.scan(lambda S, A: (A @ S, None), jnp.diag(1 - z**2), steps)[0]
    return D @ (S @ E)


problems = [Problem("latent ODE 1000-16-1000", f, rng.normal(size=N), by_hand, lambda J: J)]
