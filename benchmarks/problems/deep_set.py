"""A deep set with context: y_i = rho(x_i, mean over j of phi(x_j)), two networks with 64 hidden units (Zaheer 2017)."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from problem import Problem

rng = np.random.default_rng(0)
N, D, HIDDEN, CONTEXT = 64, 8, 64, 16
A, B = rng.normal(size=(D, HIDDEN)) / np.sqrt(D), rng.normal(size=(HIDDEN, CONTEXT)) / np.sqrt(HIDDEN)
P, Q = rng.normal(size=(D, HIDDEN)) / np.sqrt(D), rng.normal(size=(CONTEXT, HIDDEN)) / np.sqrt(CONTEXT)
R = rng.normal(size=(HIDDEN, D)) / np.sqrt(HIDDEN)


def f(x: Array) -> Array:
    context = jnp.mean(jnp.tanh(x @ A) @ B, axis=0)
    return jnp.tanh(jnp.concatenate([x, jnp.broadcast_to(context, (N, CONTEXT))], axis=1) @ jnp.concatenate([P, Q])) @ R


def by_hand(x: Array) -> Array:
    """[i, d, j, e]: one product of rank 16, d y_i / d context times d context / d x_j, and d rho / d x_i at j = i."""
    h = jnp.tanh(x @ A)
    g = jnp.tanh(x @ P + jnp.mean(h, axis=0) @ B @ Q)
    after = R.T * (1 - g**2)[:, None, :]  # [i, d, hidden]
    before = ((A * (1 - h**2)[:, None, :]).reshape(N * D, HIDDEN) @ B) / N
    J = ((after.reshape(N * D, HIDDEN) @ Q.T) @ before.T).reshape(N, D, N, D)
    i = np.arange(N)
    return J.at[i, :, i].add(after @ P.T)


def matrix(values: Any) -> Any:
    return values.reshape(N * D, N * D)


problems = [Problem("deep set with context", f, rng.normal(size=(N, D)), by_hand, matrix)]
