"""The residual of a nonlinear Poisson equation by linear finite elements: gather, local residual, scatter-add.

-div((1 + u²) grad u) = 1 on 200 000 triangles: r_i = sum over the triangles at i of area ((1 + ū²) g_i·grad u - 1/3),
where ū is the mean of the corners, g_i the gradient of corner i's shape function and grad u = sum of g_j u_j.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax import Array
from problem import Problem

rng = np.random.default_rng(0)
NX, NY = 500, 200  # squares of two triangles
N = (NX + 1) * (NY + 1)


def mesh() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corners [E, 3] of every triangle, gradients [E, 3, 2] of its shape functions and its area [E]."""
    nodes = np.arange(N).reshape(NX + 1, NY + 1)
    a, b, c, d = (n.ravel() for n in (nodes[:-1, :-1], nodes[1:, :-1], nodes[1:, 1:], nodes[:-1, 1:]))
    corners = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    points = np.moveaxis(np.indices((NX + 1, NY + 1)), 0, -1).reshape(N, 2) + rng.uniform(-0.2, 0.2, size=(N, 2))
    p = points[corners]
    opposite = np.roll(p, -2, 1) - np.roll(p, -1, 1)
    area = (opposite[:, 0, 0] * opposite[:, 1, 1] - opposite[:, 0, 1] * opposite[:, 1, 0]) / 2
    gradients = np.stack([-opposite[..., 1], opposite[..., 0]], -1) / (2 * area[:, None, None])
    return corners, gradients, area


corners, gradients, area = mesh()


def f(u: Array) -> Array:
    at = u[corners]
    slope = jnp.einsum("eid,ei->ed", gradients, at)
    flux = (1 + at.mean(1) ** 2)[:, None] * jnp.einsum("eid,ed->ei", gradients, slope)
    return jnp.zeros(N).at[corners].add(area[:, None] * (flux - 1 / 3))


# Known from the mesh: the pattern in CSR, and where each of the nine entries of an element goes.
of_entry = (corners[:, :, None] * N + corners[:, None, :]).ravel()
places, place = np.unique(of_entry, return_inverse=True)
stiffness = np.einsum("e,eid,ejd->eij", area, gradients, gradients)


def by_hand(u: Array) -> Array:
    """The assembled values in CSR: element blocks (1 + ū²) K + (2 ū / 3) K u 1ᵀ with K_ij = area g_i·g_j, summed.

    The sums over three corners are written out: a reduction over so short an axis is slow.
    """
    a, b, c = (u[corners][:, k, None] for k in range(3))
    mean = (a + b + c) / 3
    Ku = stiffness[:, :, 0] * a + stiffness[:, :, 1] * b + stiffness[:, :, 2] * c
    blocks = (1 + mean**2)[:, :, None] * stiffness + (2 / 3 * mean * Ku)[:, :, None]
    return jnp.zeros(len(places)).at[place].add(blocks.ravel())


def matrix(values: Any) -> Any:
    return scipy.sparse.csr_array((values, np.divmod(places, N)), shape=(N, N))


problems = [Problem("finite elements", f, rng.uniform(size=N), by_hand, matrix)]
