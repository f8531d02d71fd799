"""Products of two Jacobians column by column: of arrays a and b, the sum over all inputs k of ∂a/∂x[k] ∂b/∂x[k].

Nothing is met but columns that both arrays have, and these are known while tracing.
"""

from __future__ import annotations

import functools
import math
import string
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from chainrule._blocks.block import (
    Block,
    compressed,
    densify,
    masked,
    multiply,
    place,
    plus,
    present,
    slots_first,
    union,
    union_of_lines,
    xp,
)
from chainrule._program import Context, Tangent, as_jax
from chainrule._rules.reach import position

_COMPARED = 4  # slots up to which each is compared with each
_KNOWN = 2**23  # elements of a mask that are kept as a constant
_LOOKED = 2  # multiply-adds of a matrix product that take as long as one of values that are looked up


def gram(context: Context, a: Tangent, b: Tangent, shape: tuple[int, ...]) -> Any:
    """Element by element, over arrays that broadcast to `shape`: [*shape or 1s], or None where no column is common."""
    ours, theirs = _spread(a, shape), _spread(b, shape)
    if not ours or not theirs:
        return None
    square = a is b
    if not _pays(ours, theirs):
        ours, theirs = _joint(ours, theirs, range(0)) if not square else ([union(ours)],) * 2
    terms: dict[tuple[int, ...], Any] = {}  # those of equal shapes are summed over their slots together
    for j, p in enumerate(ours):
        for k, q in enumerate(theirs):
            term = None if square and k < j else _product(p, q)
            if term is not None:
                term = term + term if square and k > j else term
                context.cost += 0 if isinstance(term, np.ndarray) else term.size
                terms[term.shape] = plus(terms[term.shape], term) if term.shape in terms else term
    sums = [_summed(t, len(shape)) for t in terms.values()]
    return functools.reduce(plus, sums) if sums else None


def _summed(term: Any, rank: int) -> Any:
    """The sum over the slots, as they lie: see `slots_first`."""
    if term.ndim == rank + 1 and rank:
        return xp(term).swapaxes(term, -1, -2).sum(-2)
    return term.reshape((*term.shape[:rank], -1)).sum(-1)


def _spread(a: Tangent, shape: tuple[int, ...]) -> list[Block]:
    """The blocks of an array that stands beside one of `shape`, each of their columns once in a row."""
    blocks = []
    for b in a.filled().blocks:
        ones = (1,) * (len(shape) - len(b.shape))
        b = Block(shape, *(m.reshape((*ones, *m.shape)) for m in (b.cols, b.vals)))
        blocks.append(b if _distinct(b) else union([b]))
    return blocks


def _distinct(b: Block) -> bool:
    if b.cols.shape[-1] == 1:
        return b.slots == 1
    lines = np.sort(b.cols, axis=-1)
    return not ((lines[..., 1:] == lines[..., :-1]) & (lines[..., 1:] >= 0)).any()


def _pays(ours: Sequence[Block], theirs: Sequence[Block]) -> bool:
    """Whether blocks are met pair by pair: with fewer values to look up than to place in the union of all columns."""
    looked_up = sum(min(p.slots, q.slots) for p in ours for q in theirs if not _same(p, q) and _meet(p, q))
    return looked_up <= sum(b.slots for b in (*ours, *theirs))


def _meet(p: Block, q: Block) -> bool:
    """Whether some column is in both."""
    return _same(p, q) or bool(np.intersect1d(p.cols, q.cols).max(initial=-1) >= 0)


def _same(p: Block, q: Block) -> bool:
    return p.cols is q.cols or (p.cols.shape == q.cols.shape and np.array_equal(p.cols, q.cols))


def _product(p: Block, q: Block) -> Any:
    """Products of values that stand for the same column, [*rows, slots] or [*rows, slots, slots]; None for zero."""
    if _same(p, q):
        return _slots(p, q, compressed(p.cols >= 0))
    if not _meet(p, q):
        return None
    if max(p.slots, q.slots) > _COMPARED:
        p, q = (p, q) if p.slots <= q.slots else (q, p)
        at = compressed(position(p.cols, q.cols, p.shape), len(p.shape))
        return _slots(p, Block(p.shape, at, _looked_up(q.vals, at)), at >= 0)
    match = (p.cols[..., :, None] == q.cols[..., None, :]) & (p.cols >= 0)[..., :, None]
    if not match.any():
        return None
    if p.slots == q.slots:
        beside = np.einsum("...qq->...q", match)
        if beside.sum() == match.sum():
            return _slots(p, q, compressed(beside))
    return masked(multiply(p.vals[..., :, None], q.vals[..., None, :]), compressed(match, match.ndim - 2))


def _looked_up(vals: Any, at: np.ndarray) -> Any:
    """The values of each row in these slots of it; anything where a place is -1."""
    if vals.shape[-1] == 1:
        return vals
    at = np.maximum(at, 0)
    if at.size == at.shape[-1]:
        return vals[..., at.reshape(-1)]
    if isinstance(vals, np.ndarray):
        return np.take_along_axis(vals, at, axis=-1)
    return jnp.take_along_axis(vals, at, axis=-1, mode="promise_in_bounds")


def _slots(p: Block, q: Block, there: np.ndarray) -> Any:
    product = slots_first(multiply, p.vals, q.vals)
    if product.shape[-1] == 1 and there.shape[-1] == 1:
        product = product * np.asarray(p.slots, product.dtype)
    return masked(product, there)


def _joint(ours: Sequence[Block], theirs: Sequence[Block], axes: Sequence[int]) -> tuple[list[Block], list[Block]]:
    """Both as one block each, over one union of columns that is the same along `axes`."""

    def absent(blocks: Sequence[Block]) -> list[Block]:
        return [b.with_vals(np.zeros((1,) * b.cols.ndim, b.vals.dtype)) for b in blocks]

    return [densify([*ours, *absent(theirs)], axes)], [densify([*theirs, *absent(ours)], axes)]


def contracted_gram(context: Context, a: Tangent, b: Tangent, letters: tuple[str, str, str], precision: Any) -> Any:
    """The same for an Einstein sum of both arrays: [*out], or None.

    Pair by pair in the space of all axes, or over columns that are the same along all but the batch axes.
    """
    left, right, out = letters
    sizes = dict(zip(left, a.shape, strict=True)) | dict(zip(right, b.shape, strict=True))
    every = out + "".join(x for x in dict.fromkeys(left + right) if x not in out)
    space = math.prod(sizes.values())
    p, q = ([_turned(m, labels, every, sizes) for m in t.filled().blocks] for t, labels in ((a, left), (b, right)))
    if not p or not q:
        return None
    batch = [k for k, x in enumerate(every) if x in left and x in right and x in out]
    columns = _columns([*p, *q], batch)
    met = sum(min(m.slots, o.slots) for m in p for o in q)
    if _LOOKED * met <= columns.shape[-1] and space * met <= _KNOWN:
        full = tuple(sizes[x] for x in every)
        found = gram(context, Tangent(full, a.dtype, tuple(p)), Tangent(full, b.dtype, tuple(q)), full)
        if found is None:
            return None
        summed = range(len(out), len(every))
        copies = math.prod(full[k] for k in summed if found.shape[k] == 1)
        return found.sum(tuple(summed)) * np.asarray(copies, found.dtype)
    slot = next(x for x in string.ascii_letters if x not in every)
    cols = columns.reshape((*[sizes[x] if k in batch and len(columns) > 1 else 1 for k, x in enumerate(every)], -1))
    parts = [_over(t, labels, every, cols) for t, labels in ((a, left), (b, right))]
    context.cost += space * columns.shape[-1]
    return jnp.einsum(f"{left}{slot},{right}{slot}->{out}", *parts, precision=precision)


def _turned(b: Block, labels: str, every: str, sizes: dict[str, int]) -> Block:
    """A block in the space of all axes: the same along those that its array lacks."""
    order = [labels.index(x) for x in every if x in labels]

    def turn(m: Any) -> Any:
        m = xp(m).transpose(m, (*order, len(labels)))
        return xp(m).expand_dims(m, [k for k, x in enumerate(every) if x not in labels])

    return Block(tuple(sizes[x] for x in every), turn(b.cols), turn(b.vals))


def _columns(blocks: Sequence[Block], batch: Sequence[int]) -> np.ndarray:
    """The distinct columns of all blocks at each place of the batch axes: [places or 1, columns]."""
    varying = [k for k in batch if any(b.cols.shape[k] != 1 for b in blocks)]
    lines = []
    for b in blocks:
        rest = [k for k in range(b.cols.ndim) if k not in varying]
        cols = np.transpose(b.cols, (*varying, *rest))
        places = [b.shape[k] for k in varying]
        flat = cols.reshape((*cols.shape[: len(varying)], -1))
        lines.append(np.broadcast_to(flat, (*places, flat.shape[-1])).reshape(math.prod(places), -1))
    return union_of_lines(np.concatenate([np.sort(m, axis=1) for m in lines], axis=1))[0]


def _over(t: Tangent, labels: str, every: str, cols: np.ndarray) -> Any:
    """The values of all blocks in these columns: [*shape, columns]."""
    own = np.squeeze(cols, tuple(k for k, x in enumerate(every) if x not in labels))
    kept = [x for x in every if x in labels]
    own = np.transpose(own, (*[kept.index(x) for x in labels], len(labels)))
    return in_columns(t, own)


def in_columns(t: Tangent, cols: np.ndarray) -> Any:
    """The values of all blocks in these columns, which hold all that there are: [*shape, columns]."""
    full = (*t.shape, cols.shape[-1])
    terms: list[Any] = [np.zeros((1,) * len(full), t.dtype)]
    for b in t.filled().blocks:
        if b.slots == full[-1] and ((b.cols == cols) | (b.cols < 0)).all():
            terms.append(present(b))
        else:
            spot = compressed(position(b.full_slots(b.cols), cols, t.shape), len(t.shape))
            terms.append(place(b.vals, spot, b.slots, full[-1], t.shape))
    return jnp.broadcast_to(as_jax(functools.reduce(plus, terms[1:] or terms)), full).astype(t.dtype)
