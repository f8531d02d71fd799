"""Attention with respect to its queries, and self-attention with respect to the tokens."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from problem import Problem, blocks

rng = np.random.default_rng(0)
T, D = 20, 16
K, V = rng.normal(size=(T, D)), rng.normal(size=(T, D))
Wq, Wk, Wv = (rng.normal(size=(D, D)) / 4 for _ in range(3))
x0 = rng.normal(size=(T, D))


def attend(q: Array, k: Array, v: Array) -> Array:
    return jax.nn.softmax(q @ k.T / np.sqrt(D), axis=-1) @ v


def queries(q: Array) -> Array:
    return attend(q, K, V)


def queries_by_hand(q: Array) -> Array:
    """[t, d, e]: sum over j of A[t, j] (V[j, d] - y[t, d]) K[j, e] / √D."""
    A = jax.nn.softmax(q @ K.T / np.sqrt(D), axis=-1)
    centred = A[:, :, None] * (V - (A @ V)[:, None, :])
    return jnp.einsum("tjd,je->tde", centred, K / np.sqrt(D))


def self_attention(x: Array) -> Array:
    return attend(x @ Wq, x @ Wk, x @ Wv)


def self_by_hand(x: Array) -> Array:
    """[t, d, s, e]: the paths through the values, the keys and (s = t) the query."""
    q, k, v = x @ Wq, x @ Wk, x @ Wv
    A = jax.nn.softmax(q @ k.T / np.sqrt(D), axis=-1)
    centred = A[:, :, None] * (v - (A @ v)[:, None, :])  # [t, j, d]
    keys, query = k @ Wq.T / np.sqrt(D), q @ Wk.T / np.sqrt(D)
    through_values = A[:, None, :, None] * Wv.T[None, :, None, :]
    through_keys = jnp.swapaxes(centred, 1, 2)[..., None] * query[:, None, None, :]
    through_query = jnp.einsum("tjd,je->tde", centred, keys)
    return through_values + through_keys + np.eye(T)[:, None, :, None] * through_query[:, :, None, :]


problems = [
    Problem("attention wrt queries", queries, x0, queries_by_hand, blocks, smoke=True),
    Problem("self-attention", self_attention, x0, self_by_hand, lambda J: J.reshape(T * D, T * D), smoke=True),
]
