"""Blocks as maps of vectors: applied to one, and as programs of their own."""

from __future__ import annotations

import functools
import math
import operator
import string
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._blocks.block import Block, compressed, densify, presence, union_of_lines, xp
from chainrule._linear import LinearProgram, traced
from chainrule._program import Coefficient, Linear, Tangent

_COMMON = 1.5  # times the columns of one row


def of_blocks(
    tangents: Sequence[Tangent], targets: Sequence[Linear], sources: Sequence[Linear], precision: Any
) -> LinearProgram:
    """The program of the Jacobians of some arrays with respect to the sources laid flat, one after another."""
    own = [[_even(b) for b in t.filled().blocks] for t in tangents]
    coefficients = [Coefficient(b.vals, there) for blocks in own for b, there in blocks]

    def run(values: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
        flat = inputs[0] if len(inputs) == 1 else jnp.concatenate([x.reshape(-1) for x in inputs])
        left, outs = iter(values), []
        for v, blocks in zip(targets, own, strict=True):
            terms = [_term(b, next(left), flat, v.dtype, precision) for b, _ in blocks]
            outs.append(functools.reduce(jnp.add, terms) if terms else jnp.zeros(v.shape, v.dtype))
        return outs

    return traced(run, coefficients, sources)


def _even(b: Block) -> tuple[Block, np.ndarray | None]:
    """The block with one row of columns for all places of an axis, where these have most of their columns in common.

    With it: which of its entries are there, where not all are.
    """
    own = b
    for axis in [k for k, n in enumerate(b.cols.shape[:-1]) if n != 1]:
        lines = np.moveaxis(own.cols, axis, -1).reshape((*np.delete(own.cols.shape[:-1], axis), -1))
        if union_of_lines(lines.reshape(-1, lines.shape[-1]))[0].shape[-1] <= _COMMON * own.slots:
            own = densify([own], [axis])
    there = (own.cols >= 0) if own is b else presence([b], _along(b, own))
    if there.all():
        return own, None
    there = compressed(there)
    vals = xp(own.vals).broadcast_to(own.vals, np.broadcast_shapes(own.vals.shape, there.shape))
    return own.with_vals(vals), np.broadcast_to(there, vals.shape)


def _along(b: Block, own: Block) -> list[int]:
    return [k for k, (n, m) in enumerate(zip(b.cols.shape, own.cols.shape, strict=True)) if n != m and k < len(b.shape)]


def _term(b: Block, vals: Any, flat: Any, dtype: Any, precision: Any) -> Any:
    """out[i] = sum over q of vals[i, q] u[cols[i, q]]; an axis along which nothing varies is never written out."""
    there, places = b.cols >= 0, completed(b.cols, flat.size)
    if not there.all():  # zeros that are known: the steps that follow find the pattern again
        vals = jnp.where(there, jnp.broadcast_to(vals, np.broadcast_shapes(vals.shape, there.shape)), 0)
    if b.slots == 1:  # without the axis of slots: what is known would be another constant, of another shape
        return jnp.broadcast_to(vals[..., 0] * taken(flat, places[..., 0]), b.shape).astype(dtype)
    return contracted(vals, taken(flat, places), b, (*b.shape, 1), precision)[..., 0].astype(dtype)


def contracted(
    vals: Any, other: Any, b: Block, target: tuple[int, ...], precision: Any = None, unrolled: int = 0
) -> Any:
    """Multiply two arrays [*rows, slots] and sum to `target`; size 1 is 'the same along this axis'.

    The products of up to `unrolled` slots are added one by one: XLA sums a short last axis number by number.
    """
    letters = string.ascii_letters[: len(b.shape) + 1]
    full = (*b.shape, b.slots)
    kept = [[x for x, s in zip(letters, a.shape, strict=True) if s != 1] for a in (vals, other)]
    out = [x for x, t in zip(letters, target, strict=True) if t != 1 and (x in kept[0] or x in kept[1])]
    # an axis that both lack, and that the target sums, stands for equal summands
    copies = math.prod(
        f for x, f, t in zip(letters, full, target, strict=True) if t == 1 and x not in kept[0] and x not in kept[1]
    )
    a, c = (x.reshape([s for s in x.shape if s != 1]) for x in (vals, other))
    terms = [(a, c)]
    if 0 < full[-1] <= unrolled and target[-1] == 1 and all(letters[-1] in own for own in kept):
        terms = [(a[..., k], c[..., k]) for k in range(full[-1])]
        kept = [own[:-1] for own in kept]
    subscripts = f"{''.join(kept[0])},{''.join(kept[1])}->{''.join(out)}"
    product = functools.reduce(operator.add, (jnp.einsum(subscripts, *own, precision=precision) for own in terms))
    product = product.reshape([t if x in out else 1 for x, t in zip(letters, target, strict=True)])
    return jnp.broadcast_to(product * copies if copies != 1 else product, target)


def completed(cols: np.ndarray, size: int) -> np.ndarray:
    """Columns with some in place of absent ones: where all others run evenly, those of the same run.

    So a mask does not turn a slice into a gather.
    """
    present = cols >= 0
    if present.all() or not present.any():
        return np.maximum(cols, 0)
    origin = np.argwhere(present)[0]
    even = np.full((1,) * cols.ndim, cols[tuple(origin)])
    for k, n in enumerate(cols.shape):
        before, after = (np.take(cols, range(a, n - 1 + a), axis=k) for a in (0, 1))
        strides = (after - before)[(before >= 0) & (after >= 0)]
        if strides.size and strides[0]:
            places = (np.arange(n, dtype=cols.dtype) - origin[k]) * strides[0]
            even = even + places.reshape([-1 if j == k else 1 for j in range(cols.ndim)])
    inside = even.min() >= 0 and even.max() < size
    return even if inside and (~present | (cols == even)).all() else np.maximum(cols, 0)


def taken(array: Any, places: np.ndarray) -> Any:
    """`array` laid flat at places: a slice, a reshape and a transpose where these run evenly, else a gather."""
    axes = [k for k, s in enumerate(places.shape) if s != 1]
    origin = int(places[(0,) * places.ndim]) if places.size else 0

    def stride(k: int) -> int:
        return int(places[tuple(int(k == j) for j in range(places.ndim))]) - origin

    order = sorted(axes, key=stride, reverse=True)
    sizes = [places.shape[k] for k in order]
    even = origin + np.arange(math.prod(sizes), dtype=places.dtype).reshape(sizes)
    if places.size and np.array_equal(even, places.squeeze().transpose([axes.index(k) for k in order])):
        own = even.size == array.size
        part = array if own else jax.lax.slice(array.reshape(-1), (origin,), (origin + even.size,))
        part = part.reshape(sizes).transpose([order.index(k) for k in axes])
        return part.reshape(places.shape)
    return array.reshape(-1).at[places].get(mode="promise_in_bounds", wrap_negative_indices=False)
