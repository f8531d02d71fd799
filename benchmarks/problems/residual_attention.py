"""Self-attention with a residual: y = x + softmax(x Wq (x Wk)ᵀ / √d) x Wv, 32 tokens of width 32; dense."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax import Array
from problem import Problem

rng = np.random.default_rng(0)
T, D = 32, 32
Wq, Wk, Wv = rng.normal(size=(3, D, D)) / np.sqrt(D)


def f(x: Array) -> Array:
    return x + jax.nn.softmax(x @ Wq @ (x @ Wk).T / np.sqrt(D), axis=-1) @ (x @ Wv)


def by_hand(x: Array) -> Array:
    """[t, d, s, e]: A Wvᵀ through the values, rank one through the keys; the query and the residual at s = t.

    d y_t / d score_ts = A_ts (v_s - y_t); the score is bilinear, so its two factors are vectors of width d.
    """
    q, k, v = x @ Wq / np.sqrt(D), x @ Wk / np.sqrt(D), x @ Wv
    A = jax.nn.softmax(q @ k.T * np.sqrt(D), axis=-1)
    centred = A[:, None, :] * (v.T - (A @ v)[:, :, None])  # [t, d, s]
    J = A[:, None, :, None] * Wv.T[:, None, :] + centred[..., None] * (q @ Wk.T)[:, None, None, :]
    t = np.arange(T)
    return J.at[t, :, t].add(centred @ (k @ Wq.T) + np.eye(D))


def matrix(values: Any) -> Any:
    return values.reshape(T * D, T * D)


problems = [Problem("self-attention with residual", f, rng.normal(size=(T, D)), by_hand, matrix)]
