"""A 3×3 convolution and tanh: every output pixel sees nine pixels of every channel."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax import Array
from problem import Problem

rng = np.random.default_rng(0)
C, N = 4, 16
kernel = rng.normal(size=(C, C, 3, 3)) / 6


def f(x: Array) -> Array:
    return jnp.tanh(jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME"))


def by_hand(x: Array) -> Array:
    """[1, o, i, j, c, a, b]: (1 - y²) kernel; the taps outside the image are not looked at."""
    y = f(x)
    return (1 - y**2)[..., None, None, None] * kernel[None, :, None, None]


def matrix(values: Any) -> Any:
    o, i, j, c, a, b = np.indices(values.shape[1:])
    row, column = i + a - 1, j + b - 1
    inside = (row >= 0) & (row < N) & (column >= 0) & (column < N)
    rows, cols = (o * N + i) * N + j, (c * N + row) * N + column
    shape = (C * N * N, C * N * N)
    return scipy.sparse.coo_array((values[0][inside], (rows[inside], cols[inside])), shape=shape).tocsr()


problems = [Problem("conv 3×3", f, rng.normal(size=(1, C, N, N)), by_hand, matrix, smoke=True)]
