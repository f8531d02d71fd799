"""Causal self-attention with respect to the tokens, by a mask of -inf: block lower triangular."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from problem import Problem

rng = np.random.default_rng(0)
T, D = 32, 8
Wq, Wk, Wv = rng.normal(size=(3, D, D)) / np.sqrt(D)
past = np.tri(T, dtype=bool)


def attention(q: Array, k: Array) -> Array:
    return jax.nn.softmax(jnp.where(past, q @ k.T / np.sqrt(D), -jnp.inf), axis=-1)


def f(x: Array) -> Array:
    return attention(x @ Wq, x @ Wk) @ (x @ Wv)


def by_hand(x: Array) -> Array:
    """[t, d, s, e]: the paths through the values, the keys and (s = t) the query; zero for s > t."""
    q, k, v = x @ Wq, x @ Wk, x @ Wv
    A = attention(q, k)
    centred = A[:, None, :] * (v.T - (A @ v)[:, :, None])  # [t, d, j]
    keys, query = k @ Wq.T / np.sqrt(D), q @ Wk.T / np.sqrt(D)
    through_values = A[:, None, :, None] * Wv.T[:, None, :]
    through_keys = centred[..., None] * query[:, None, None, :]
    through_query = (centred.reshape(T * D, T) @ keys).reshape(T, D, D)
    t = np.arange(T)
    return (through_values + through_keys).at[t, :, t].add(through_query)


problems = [
    Problem("causal attention", f, rng.normal(size=(T, D)), by_hand, lambda J: J.reshape(T * D, T * D), smoke=True)
]
