"""Bundle adjustment in the camera model of Agarwal et al., Bundle Adjustment in the Large (2010): 2 000 observations.

A camera is a rotation vector, a translation, a focal length and two coefficients of radial distortion.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax import Array
from problem import Problem

rng = np.random.default_rng(0)
CAMERAS, POINTS, M = 20, 300, 2000
pairs = rng.permutation(CAMERAS * POINTS)[:M]
camera, point = pairs // POINTS, pairs % POINTS


def f(x: Any) -> Array:
    cameras, points = x
    c, p = cameras[camera], points[point]
    w = c[:, :3]
    theta = jnp.sqrt((w * w).sum(1, keepdims=True))
    k, cos, sin = w / theta, jnp.cos(theta), jnp.sin(theta)
    q = p * cos + jnp.cross(k, p) * sin + k * (k * p).sum(1, keepdims=True) * (1 - cos) + c[:, 3:6]
    u = -q[:, :2] / q[:, 2:]
    r2 = (u * u).sum(1, keepdims=True)
    return c[:, 6:7] * (1 + r2 * (c[:, 7:8] + r2 * c[:, 8:9])) * u


def skew(a: Array) -> Array:
    """[k, 3] -> [k, 3, 3], the matrix of the cross product with a."""
    z = jnp.zeros(len(a), a.dtype)
    rows = [[z, -a[:, 2], a[:, 1]], [a[:, 2], z, -a[:, 0]], [-a[:, 1], a[:, 0], z]]
    return jnp.stack([jnp.stack(r, axis=1) for r in rows], axis=1)


def by_hand(x: Any) -> tuple[Array, ...]:
    """[M, 2, 9] and [M, 2, 3]: du/dq times the rotation and its derivative -R [p]ₓ J_r(w)."""
    cameras, points = x
    c, p = cameras[camera], points[point]
    w, focal, k1, k2 = c[:, :3], c[:, 6:7], c[:, 7:8], c[:, 8:9]
    theta2 = (w * w).sum(1)[:, None, None]
    theta = jnp.sqrt(theta2)
    a, b = jnp.sin(theta) / theta, (1 - jnp.cos(theta)) / theta2
    W = skew(w)
    WW = W @ W
    R = np.eye(3) + a * W + b * WW
    J_r = np.eye(3) - b * W + (1 - a) / theta2 * WW
    q = (R @ p[:, :, None])[:, :, 0] + c[:, 3:6]
    u = -q[:, :2] / q[:, 2:]
    r2 = (u * u).sum(1, keepdims=True)
    radial = 1 + r2 * (k1 + r2 * k2)
    du = focal[:, :, None] * (
        radial[:, :, None] * np.eye(2) + (2 * (k1 + 2 * r2 * k2))[:, :, None] * u[:, :, None] * u[:, None, :]
    )
    dq = -jnp.concatenate([jnp.broadcast_to(np.eye(2), (M, 2, 2)), u[:, :, None]], axis=2) / q[:, 2:, None]
    dq = du @ dq  # [M, 2, 3]
    dp = dq @ R
    dw = -dp @ skew(p) @ J_r
    others = [radial * u, focal * r2 * u, focal * r2 * r2 * u]
    return jnp.concatenate([dw, dq, *[o[:, :, None] for o in others]], axis=2), dp


def matrix(values: Any) -> Any:
    rows = np.arange(2 * M).reshape(M, 2, 1)
    cols = [9 * camera[:, None, None] + np.arange(9), 9 * CAMERAS + 3 * point[:, None, None] + np.arange(3)]
    parts = [np.broadcast_arrays(rows, c, v) for c, v in zip(cols, values, strict=True)]
    r, c, v = (np.concatenate([p[k].ravel() for p in parts]) for k in range(3))
    return scipy.sparse.coo_array((v, (r, c)), shape=(2 * M, 9 * CAMERAS + 3 * POINTS)).tocsr()


x0 = (
    np.concatenate(
        [
            rng.normal(size=(CAMERAS, 3)) / 3,
            rng.normal(size=(CAMERAS, 3)) / 5 - [0, 0, 6],
            rng.uniform(1, 2, (CAMERAS, 1)),
            rng.normal(size=(CAMERAS, 2)) / 10,
        ],
        axis=1,
    ),
    rng.normal(size=(POINTS, 3)),
)
problems = [Problem("bundle adjustment, 2000 observations", f, x0, by_hand, matrix, smoke=True)]
