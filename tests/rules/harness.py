"""A rule against its primitive: the primitive applied to every dense column is the oracle; no formula is written twice."""

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._block import Block, identity
from chainrule._program import Coefficient, Tangent
from chainrule._propagate import require_tangent, sweep

N = 7  # number of inputs that the seeds speak of


def seeds(shape, dtype, rng):
    """Sums of blocks of every kind, for an operand of this shape: {name: blocks}."""
    size = int(np.prod(shape))
    ones = (1,) * len(shape)

    def cols(*parts):
        return rng.integers(-1, N, size=parts).astype(np.int32)

    def vals(*parts):
        real = rng.normal(size=parts)
        return jnp.asarray(real + 1j * rng.normal(size=parts) if np.dtype(dtype).kind == "c" else real, dtype)

    first = (*shape[:1], *ones[1:])
    kinds = {
        "identity": [
            Block(shape, np.arange(size, dtype=np.int32).reshape((*shape, 1)) % N, np.ones((*ones, 1), dtype))
        ],
        "diagonal": [Block(shape, np.arange(size, dtype=np.int32).reshape((*shape, 1)) % N, vals(*shape, 1))],
        "dense": [Block(shape, np.arange(N, dtype=np.int32).reshape((*ones, N)), vals(*shape, N))],
        "same rows": [Block(shape, np.arange(N, dtype=np.int32).reshape((*ones, N)), vals(*ones, N))],
        "per sample": [Block(shape, cols(*first, 2), vals(*shape, 2))],
        "absent entries": [Block(shape, cols(*shape, 3), vals(*shape, 3))],
        "sum": [Block(shape, cols(*shape, 1), vals(*ones, 1)), Block(shape, cols(*ones, 2), vals(*shape, 2))],
    }
    if size:
        rows = rng.permutation(size)[: max(size // 2, 1)]
        kinds["scattered"] = [Block(rows.shape, cols(len(rows), 2), vals(len(rows), 2), rows)]
    return kinds


def dense(tangent):
    """[*shape, N]: a sum of blocks written out."""
    out = jnp.zeros((int(np.prod(tangent.shape)), N), tangent.dtype)
    for b in tangent.blocks:
        size = int(np.prod(b.shape))
        rows = np.arange(size) if b.rows is None else b.rows.reshape(-1)
        full = (*b.shape, b.slots)
        cols = np.broadcast_to(b.cols, full).reshape(size, b.slots)
        vals = jnp.where(cols >= 0, jnp.broadcast_to(jnp.asarray(b.vals), full).reshape(cols.shape), 0)
        out = out.at[rows[:, None], np.maximum(cols, 0)].add(vals.astype(tangent.dtype))
    return out.reshape((*tangent.shape, N))


def propagated(g, operands, kinds):
    """Propagate the tangents of `operands` ((shape, dtype) each) through g; the outputs' dense columns."""
    closed, outs = jax.make_jaxpr(g, return_shape=True)(*[jax.ShapeDtypeStruct(s, d) for s, d in operands])
    inputs = [Tangent(s, d, () if 0 in s else tuple(k)) for (s, d), k in zip(operands, kinds, strict=True)]
    values, _ = sweep(closed.jaxpr, closed.consts, inputs)
    return [dense(require_tangent(v, o.shape, o.dtype)) for v, o in zip(values, jax.tree.leaves(outs), strict=True)]


def oracle(g, operands, kinds):
    """The primitive itself on every dense column."""
    columns = [dense(Tangent(s, d, tuple(k))) for (s, d), k in zip(operands, kinds, strict=True)]
    return jax.tree.leaves(jax.vmap(g, in_axes=-1, out_axes=-1)(*columns))


def compare(g, operands, kinds):
    for got, wanted in zip(propagated(g, operands, kinds), oracle(g, operands, kinds), strict=True):
        assert got.shape == wanted.shape and got.dtype == wanted.dtype
        eps = np.finfo(wanted.dtype).eps
        np.testing.assert_allclose(got, wanted, rtol=200 * eps, atol=200 * eps)


__all__ = ["Block", "Coefficient", "N", "compare", "identity", "oracle", "propagated", "seeds"]
