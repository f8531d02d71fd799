"""A layer of a graph network: messages tanh(W_s h[src] + W_d h[dst]) of all edges, summed at their targets."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax import Array
from problem import Problem

rng = np.random.default_rng(0)
NODES, EDGES, F = 4_000, 20_000, 4
keys = np.sort(rng.choice(NODES * NODES, size=EDGES, replace=False))
dst, src = np.divmod(keys, NODES)  # no edge twice, sorted by target
Ws, Wd = rng.normal(size=(2, F, F)) / np.sqrt(F)


def f(h: Array) -> Array:
    messages = jnp.tanh(h[src] @ Ws.T + h[dst] @ Wd.T)
    return jax.ops.segment_sum(messages, dst, num_segments=NODES)


def by_hand(h: Array) -> tuple[Array, Array]:
    """[edge, i, j]: (1 - m²) W_s, from the edge's source; [node, i, j]: the sum of (1 - m²) times W_d, from itself."""
    slope = 1 - jnp.tanh((h @ Ws.T)[src] + (h @ Wd.T)[dst]) ** 2
    total = jax.ops.segment_sum(slope, dst, num_segments=NODES, indices_are_sorted=True)
    return slope[:, :, None] * Ws, total[:, :, None] * Wd


def matrix(values: Any) -> Any:
    """An edge from a node to itself meets that node's own block."""
    of_edges, of_nodes = values
    blocks, shape = np.concatenate([of_edges, of_nodes]), (NODES * F, NODES * F)
    rows, cols = np.concatenate([dst, np.arange(NODES)]), np.concatenate([src, np.arange(NODES)])
    i, j = np.arange(F)[:, None], np.arange(F)
    rows, cols = np.broadcast_arrays(rows[:, None, None] * F + i, cols[:, None, None] * F + j)
    return scipy.sparse.coo_array((blocks.ravel(), (rows.ravel(), cols.ravel())), shape=shape).tocsr()


problems = [Problem("graph network", f, rng.normal(size=(NODES, F)), by_hand, matrix)]
