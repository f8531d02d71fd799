"""2-D Brusselator on a periodic N×N grid: two species, the 5-point Laplacian (Hairer and Wanner, Solving ODEs II)."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax import Array
from problem import Problem

A, B, D = 1.0, 3.4, 10.0


def laplacian(u: Array) -> Array:
    return jnp.roll(u, 1, 0) + jnp.roll(u, -1, 0) + jnp.roll(u, 1, 1) + jnp.roll(u, -1, 1) - 4 * u


def f(x: Array) -> Array:
    u, v = x
    return jnp.stack([A + u * u * v - (B + 1) * u + D * laplacian(u), B * u - u * u * v + D * laplacian(v)])


def by_hand(x: Array) -> Array:
    """The four diagonals that vary, [4, N, N]; the eight of the neighbours are the number D."""
    u, v = x
    uv, uu = 2 * u * v, u * u
    return jnp.stack([uv - (B + 1) - 4 * D, uu, B - uv, -uu - 4 * D])


def matrix(values: Any) -> Any:
    N = values.shape[-1]
    ring = scipy.sparse.csr_array(np.roll(np.eye(N), 1, 0) + np.roll(np.eye(N), -1, 0))
    eye = scipy.sparse.eye_array(N)
    neighbours = D * (scipy.sparse.kron(ring, eye) + scipy.sparse.kron(eye, ring))
    uu, uv, vu, vv = (scipy.sparse.diags_array(np.ravel(a)) for a in values)
    return scipy.sparse.block_array([[uu + neighbours, uv], [vu, vv + neighbours]]).tocsr()


def point(N: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0.5, 2.0, size=(2, N, N))


problems = [
    Problem(f"Brusselator N={N}", f, point(N), by_hand, matrix, smoke=N == 64, large=N > 512)
    for N in (64, 128, 256, 512, 2048)
]
