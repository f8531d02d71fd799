"""Patterns of loops: which columns a carry can reach, and in which slots they stand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph

from chainrule._blocks.block import Block
from chainrule._errors import MissingRuleError
from chainrule._memory import COLUMN, SORTED, require_bytes, require_columns
from chainrule._program import Tangent, Value

_PART = 2**26  # multiply-adds of the rows of a product of patterns that are taken at a time
_CHEAP, _DEAR = 2**22, 2**33  # multiply-adds of a power that is always taken, and of one that never is

Pattern = Any  # scipy.sparse.csr_array: rows × columns, its numbers count paths and only say where


def filled(own: Pattern, held: Pattern, steps: int | None) -> Pattern:
    """(I + own)^steps @ held, as patterns."""
    own, held = ones(own + scipy.sparse.eye_array(own.shape[0], format="csr")), ones(held)
    left, growth = own.shape[0] if steps is None else min(steps, own.shape[0]), 2.0
    while left:
        if left & 1:
            held = product(own, held)
        left >>= 1
        if left:
            work = int(_work(own, own)[-1])
            if work > _CHEAP:
                connected = _connected(own, held)
                # what fills in anyway is filled at once
                if connected.entries <= 2 * held.nnz * growth ** left.bit_length() or work > _DEAR:
                    return connected.pattern
            squared = product(own, own)
            if squared.nnz == own.nnz:
                return product(own, held)
            own, growth = squared, squared.nnz / own.nnz
    return held


@dataclass(frozen=True, eq=False)
class _Connected:
    """All columns of a connected component, and the component of each row."""

    columns: Pattern
    component: np.ndarray

    @property
    def entries(self) -> int:
        return int(np.diff(self.columns.indptr).astype(np.int64)[self.component].sum())

    @property
    def pattern(self) -> Pattern:
        require_bytes(_HELD, COLUMN * self.entries)
        return self.columns[self.component]


def _connected(own: Pattern, held: Pattern) -> _Connected:
    _, label = scipy.sparse.csgraph.connected_components(own, directed=False)
    member = scipy.sparse.csr_array((np.ones(len(label), np.float32), (label, np.arange(len(label)))))
    return _Connected(ones(member @ held), label)


_HELD = "jacobian: a loop: what it carries takes"


def _work(a: Pattern, b: Pattern) -> np.ndarray:
    """The multiply-adds of a product before each row, and of all."""
    return np.concatenate([[0], np.cumsum(np.diff(b.indptr).astype(np.int64)[a.indices])])[a.indptr]


def product(a: Pattern, b: Pattern) -> Pattern:
    """The pattern of a product, some rows at a time: what would not fit is refused before it is there."""
    work = _work(a, b)
    if work[-1] <= _PART:
        return ones(a @ b)
    cuts = np.unique(np.searchsorted(work, np.arange(0, work[-1], _PART))[1:])
    parts: list[Pattern] = []
    for start, stop in itertools.pairwise([0, *cuts, a.shape[0]]):
        parts.append(ones(a[start:stop] @ b))
        require_bytes(_HELD, COLUMN * sum(part.nnz for part in parts))
    return ones(scipy.sparse.vstack(parts, format="csr"))


def ones(pattern: Any) -> Pattern:
    pattern = scipy.sparse.csr_array(pattern)
    pattern.sum_duplicates()
    pattern.data = np.ones(len(pattern.data), np.float32)
    return pattern


def trajectories(cols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[T, k] -> the distinct columns of the array [T, d], and the number of each [k]."""
    key = np.random.default_rng(0).integers(2**62, size=(2, len(cols)))
    _, first, number = np.unique((key @ cols.astype(np.int64)).T, axis=0, return_index=True, return_inverse=True)
    distinct, number = cols[:, first], number.reshape(-1)
    if not np.array_equal(distinct[:, number], cols):  # two of them share both keys
        distinct, number = np.unique(cols, axis=1, return_inverse=True)
    return distinct, number.reshape(-1)


def position(cols: np.ndarray, layout: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The slot of every column of [..., *rows, q] in its row of the layout; -1 where there is none."""
    rows, width = math.prod(shape), layout.shape[-1]
    n = int(max(layout.max(initial=0), cols.max(initial=0))) + 1
    if math.prod(layout.shape[:-1]) == 1:
        slots = np.full(n + 1, -1, np.int32)  # the last one is that of -1
        slots[layout.reshape(-1)[::-1]] = np.arange(width - 1, -1, -1)
        slots[-1] = -1
        return slots[cols]
    line, table = np.arange(rows).reshape((*shape, 1)), np.broadcast_to(layout, (*shape, width))
    keys, place = np.where(table < 0, -1, table + line * n).reshape(-1), np.arange(rows * width) % width
    order = np.argsort(keys, kind="stable")
    keys, place = keys[order], place[order]
    asked = np.where(cols < 0, -2, cols + line * n)
    at = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[at] == asked, place[at], -1).astype(np.int32)


def slots_of(pattern: Pattern, shape: tuple[int, ...]) -> np.ndarray:
    """[rows, slots]: the columns of each row, -1 for none.

    Where the columns stand at the same distances from all rows, as in a stencil, a slot is a distance: what
    a neighbour hands on is then a shift along the slots. Otherwise the columns are sorted.
    """
    if pattern.nnz and _uniform(pattern):
        first = pattern.indices[: pattern.indptr[1]].astype(np.int32)
        return np.broadcast_to(first, (pattern.shape[0], len(first)))
    size, coo = max(pattern.shape[0], 1), pattern.tocoo()
    here, there = (np.stack(np.unravel_index(k, shape)) if shape else np.zeros((0, coo.nnz), int)
                   for k in (coo.row, coo.col % size))  # fmt: skip
    extent = np.array(shape, int).reshape(-1, 1)
    apart = (there - here + extent // 2) % extent  # around zero, so that neighbours are neighbouring numbers
    key = coo.col // size * size + (np.ravel_multi_index(tuple(apart), shape) if shape else 0)
    distinct, slot = np.unique(key, return_inverse=True)
    widest = int(np.diff(pattern.indptr).max(initial=0))
    if coo.nnz and len(distinct) <= widest + widest // 2:
        out = np.full((pattern.shape[0], len(distinct)), -1, np.int32)
        out[coo.row, slot] = coo.col
        return out
    return _padded(pattern)


def _uniform(pattern: Pattern) -> bool:
    counts = np.diff(pattern.indptr)
    return bool(
        (counts == counts[0]).all() and (pattern.indices.reshape(len(counts), -1) == pattern.indices[: counts[0]]).all()
    )


def _padded(pattern: Pattern) -> np.ndarray:
    """[rows, widest]: the sorted columns of each row, then -1."""
    pattern.sort_indices()
    counts = np.diff(pattern.indptr)
    require_columns((pattern.shape[0], int(counts.max(initial=0))), what="jacobian: a loop")
    out = np.full((pattern.shape[0], max(int(counts.max(initial=0)), 1)), -1, np.int32)
    out[np.arange(out.shape[1]) < counts[:, None]] = pattern.indices
    return out


def rows_of(values: Sequence[Value | None], n: int) -> Pattern:
    """The patterns of some tangents, one under the other; None has no rows."""
    rows, cols, start = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
    for v in values:
        if v is None:
            continue
        for b in blocks_of(v):
            require_columns((*b.shape, b.cols.shape[-1]), SORTED)
            full = np.broadcast_to(b.cols, (*b.shape, b.cols.shape[-1])).reshape(math.prod(b.shape), -1)
            where = np.nonzero(full >= 0)
            rows.append(where[0] + start)
            cols.append(full[where])
        start += math.prod(v.shape)
    r, c = np.concatenate(rows), np.concatenate(cols)
    return ones(scipy.sparse.coo_array((np.ones(len(r), np.float32), (r, c)), shape=(start, n)))


def blocks_of(v: Value) -> tuple[Block, ...]:
    """The blocks of a tangent, all rows in each; none of what must be zero."""
    if isinstance(v, Tangent):
        return v.filled().blocks
    if not v.zero and v.value.size:
        raise MissingRuleError("jacobian: a loop carries a tangent that does not depend on the tangents of its inputs")
    return ()
