"""A controlled recurrent network, a loop of ten steps: all states with respect to all inputs, block lower triangular.

h_t = tanh(W h_{t-1} + U u_t), with states of width 32 and inputs of width 16.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax import Array
from problem import Problem

rng = np.random.default_rng(0)
T, H, M = 10, 32, 16
W, U = rng.normal(size=(H, H)) / np.sqrt(H), rng.normal(size=(H, M)) / np.sqrt(M)


def f(u: Array) -> Array:
    h, states = jnp.zeros(H), []
    for t in range(T):
        h = jnp.tanh(W @ h + U @ u[t])
        states.append(h)
    return jnp.stack(states)


def by_hand(u: Array) -> list[Array]:
    """Row t transposed, [16 (t + 1), 32]: [row t-1 times Wᵀ; Uᵀ] (1 - h_t²), forwards, since every row is wanted."""
    injected = u @ U.T
    h = jnp.tanh(injected[0])
    rows = [U.T * (1 - h**2)]
    for now in injected[1:]:
        h = jnp.tanh(W @ h + now)
        rows.append(jnp.concatenate([rows[-1] @ W.T, U.T]) * (1 - h**2))
    return rows


def matrix(rows: Any) -> Any:
    J = np.zeros((T * H, T * M))
    for t, row in enumerate(rows):
        J[t * H : (t + 1) * H, : len(row)] = row.T
    return scipy.sparse.csr_array(J)


problems = [Problem("controlled RNN, 10 steps", f, rng.normal(size=(T, M)), by_hand, matrix, smoke=True)]
