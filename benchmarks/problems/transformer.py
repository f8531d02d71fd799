"""A transformer block with respect to its tokens: layer norm, attention with four heads, layer norm, MLP; dense.

y = x + sum over heads of A n Wv Wo with n = norm(x) and A = softmax(n Wq (n Wk)ᵀ / √16); then y + gelu(norm(y) W1) W2.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from problem import Problem

rng = np.random.default_rng(0)
T, D, HEADS, WIDE = 64, 64, 4, 256
HEAD = D // HEADS
Wq, Wk, Wv = rng.normal(size=(3, HEADS, D, HEAD)) / np.sqrt(D)
Wo = rng.normal(size=(HEADS, HEAD, D)) / np.sqrt(D)
W1, W2 = rng.normal(size=(D, WIDE)) / np.sqrt(D), rng.normal(size=(WIDE, D)) / np.sqrt(WIDE)


def norm(x: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)


def heads(n: Array) -> tuple[Array, Array, Array, Array]:
    """Queries, keys, values and weights of all heads."""
    q, k, v = (jnp.einsum("td,hde->hte", n, W) for W in (Wq, Wk, Wv))
    return q, k, v, jax.nn.softmax(jnp.einsum("hte,hse->hts", q, k) / np.sqrt(HEAD), axis=-1)


def f(x: Array) -> Array:
    _, _, v, A = heads(norm(x))
    y = x + jnp.einsum("hts,hse,hed->td", A, v, Wo)
    return y + jax.nn.gelu(norm(y) @ W1) @ W2


def norm_matrices(n: Array, r: Array) -> Array:
    """d norm / dx of every token: r (I - 11ᵀ/D - n nᵀ/D) with r = 1/√(variance + ε)."""
    return r[..., None] * (np.eye(D) - 1 / D - n[:, :, None] * n[:, None, :] / D)


def scale(x: Array) -> Array:
    return 1 / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)


def by_hand(x: Array) -> Array:
    """[t, s, d, e]: the paths through values, keys and (s = t) the query, between token t's MLP and token s's norm.

    A block is B (I - 11ᵀ/D - n nᵀ/D) r with B = sum over heads of A G + c qᵀ: the MLP is a part of G and c already,
    and the norm takes the mean and a multiple of nᵀ off every row, so that no block needs a matrix product.
    """
    n, r = norm(x), scale(x)
    q, k, v, A = heads(n)
    y = x + jnp.einsum("hts,hse,hed->td", A, v, Wo)
    n2 = norm(y)
    slope = jax.vmap(jax.vmap(jax.grad(jax.nn.gelu)))(n2 @ W1)
    after = np.eye(D) + W2.T @ (slope[:, :, None] * (W1.T @ norm_matrices(n2, scale(y))))  # [t, d, d']
    vo = jnp.einsum("hse,hed->hsd", v, Wo)
    centred = A[..., None] * (vo[:, None] - jnp.einsum("hts,hsd->htd", A, vo)[:, :, None])  # [h, t, s, d]
    query = jnp.einsum("hte,hde->thd", q, Wk) / np.sqrt(HEAD)
    keys = jnp.einsum("hte,hde->htd", k, Wq) / np.sqrt(HEAD)
    G = jnp.einsum("tdf,hef->thde", after, Wv @ Wo)
    c = jnp.einsum("tdf,htsf->tshd", after, centred) * r[:, :, None]
    own = jnp.einsum("htsd,hse->tde", centred, keys) @ norm_matrices(n, r) + np.eye(D)

    def row(token: tuple[Array, ...]) -> Array:
        """Of one t, while it is in the cache."""
        A, c, query, G, own, t = token
        G, query = G - G.mean(-1, keepdims=True), query - query.mean(-1, keepdims=True)
        along = jnp.einsum("sh,hde,se->sd", A, G, n, optimize=[(1, 2), (0, 1)])
        along += jnp.einsum("shd,hs->sd", c, query @ n.T)
        left = jnp.concatenate([c, -along[:, None] / D], 1)
        right = jnp.concatenate([jnp.broadcast_to(query, (T, HEADS, D)), n[:, None]], 1)
        J = (A @ G.reshape(HEADS, D * D)).reshape(T, D, D) + jnp.einsum("shd,she->sde", left, right)
        return J.at[t].add(own)

    tokens = (jnp.moveaxis(A, 0, -1) * r, c, query, G, after @ own, jnp.arange(T))
    return jax.lax.map(row, tokens)


def matrix(values: Any) -> Any:
    return values.transpose(0, 2, 1, 3).reshape(T * D, T * D)


problems = [Problem("transformer block", f, rng.normal(size=(T, D)), by_hand, matrix)]
