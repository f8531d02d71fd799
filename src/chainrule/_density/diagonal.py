"""The blocks on the diagonal of a Jacobian's block-triangular form, without what stands below them.

Paths from an input to an output of a later block give entries that no determinant and no substitution divides by. Let
every row and column have the label of its block, so that entry (i, j) is there only where label(i) ≥ label(j). An
element e of an intermediate array is of use to column j only where an output of the same label is reached from e; as
no output of a lower label than j's is reached by column j at all, that is where label(j) ≥ min label(outputs that e
reaches). One whole number for each element, found by one backward pass over patterns, tells what to leave out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from chainrule._accumulate.loop_body import planning
from chainrule._accumulate.recorded import assembled
from chainrule._blocks.block import Block, compressed, expand, xp
from chainrule._jacobians.assembled import Assembled
from chainrule._jacobians.layout import Layout
from chainrule._jacobians.structure import Places
from chainrule._linear import LinearProgram, Step, push_through, section, seeds_of
from chainrule._memory import limited
from chainrule._program import Context, Linear, Tangent, as_jax
from chainrule._space import Space

_NEVER = np.iinfo(np.int32).max  # the label of an element that is of no use
_UNLIMITED = 2**62  # bytes: of patterns nothing is allocated
_FEWER = 4  # times fewer slots, from which on values are picked from their rows


@dataclass(frozen=True, eq=False)
class Form:
    """The block-triangular form of a link: labels of rows and of columns, and how many rows each label has.

    Labels go up along the dependencies: entry (i, j) is there only where rows[i] ≥ cols[j].
    """

    places: Places
    rows: np.ndarray
    cols: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, places: Places) -> Form | None:
        """The form of a square pattern; None where its structural rank is not full."""
        n = places.shape[0]
        if places.structural_rank < n:
            return None
        row_order, col_order, starts = places.triangular_form
        sizes = np.diff(starts, append=n)
        labels, rows, cols = np.repeat(np.arange(len(starts)), sizes), np.empty(n, np.int32), np.empty(n, np.int32)
        rows[row_order], cols[col_order] = labels, labels
        return cls(places, rows, cols, sizes)

    @property
    def largest(self) -> int:
        """Rows of the largest block."""
        return int(self.sizes.max(initial=0))

    @cached_property
    def _ends(self) -> tuple[np.ndarray, np.ndarray]:
        """The labels of the row and of the column of each entry."""
        return self.rows[self.places.rows], self.cols[self.places.cols]

    @property
    def diagonal(self) -> bool:
        """Whether nothing stands outside of the blocks."""
        high, low = self._ends
        return bool((high == low).all())

    @cached_property
    def levels(self) -> np.ndarray:
        """For each label, how many blocks the longest chain of blocks has that this one waits for."""
        (high, low), count = self._ends, len(self.sizes)
        edges = np.unique((high.astype(np.int64) * count + low)[high != low])  # each once, in the order of the rows
        starts = np.searchsorted(edges, np.arange(count + 1) * count)
        level = np.zeros(count, np.int32)
        for k in range(count):  # labels go up along the edges, so those below are done
            level[k] = level[edges[starts[k] : starts[k + 1]] % count].max(initial=-1) + 1
        return level

    @property
    def column_levels(self) -> np.ndarray:
        """The level of each column."""
        return self.levels[self.cols]


def patterns(program: LinearProgram, rows: Space, columns: Space) -> tuple[Places, dict[int, Tangent]]:
    """The places of the Jacobian, and the tangent of every array, of whose values nothing is computed."""
    met: dict[int, Tangent] = {}
    found: list[Layout] = []

    def note(v: Linear, tangent: Tangent) -> Tangent:
        met[id(v)] = Tangent(v.shape, v.dtype, tangent.blocks)  # a sum that waits is taken while the trace lasts
        return tangent

    def trace() -> None:
        context = planning(())
        tangents = push_through(context, program, seeds_of(program.inputs), note)
        found.append(assembled("", context, (rows, columns), tangents, False, "forward")._layout)

    with limited(_UNLIMITED):
        jax.eval_shape(trace)
    return found[0].places, met


def blocks_of(
    context: Context, program: LinearProgram, form: Form, met: Mapping[int, Tangent], rows: Space, columns: Space
) -> Assembled:
    """The Jacobian with its blocks alone; `met`: the tangents that `patterns` gave."""
    if form.diagonal:
        tangents = push_through(context, program, seeds_of(program.inputs))
        return assembled("", context, (rows, columns), tangents, False, "forward")
    least = _least(program, form, met)
    # a flag beside the tangents of a loop has no tangent, and may be needed
    used = tuple(s for s in program.steps if any(id(v) not in met or (least[id(v)] < _NEVER).any() for v in s.outs))

    def trimmed(v: Linear, tangent: Tangent) -> Tangent:
        if not _lower(met[id(v)], least[id(v)], form.cols):
            return tangent
        kept = [b for b in (_kept(b, least[id(v)], form.cols) for b in tangent.blocks) if b is not None]
        return Tangent(v.shape, v.dtype, tuple(kept))

    part = LinearProgram(program.inputs, program.outputs, used)
    tangents = push_through(context, part, seeds_of(part.inputs), trimmed)
    ends = zip(program.outputs, tangents, strict=True)  # an output that is an input, or trimmed before, stays as it is
    tangents = [trimmed(v, t) if id(v) in met else t for v, t in ends if isinstance(v, Linear)]
    return assembled("", context, (rows, columns), tangents, False, "forward")


def _least(program: LinearProgram, form: Form, met: Mapping[int, Tangent]) -> dict[int, np.ndarray]:
    """For each element of each array the lowest label of the outputs it is of use to, [size]; _NEVER for none."""
    least = {id(v): np.full(math.prod(v.shape), _NEVER, np.int32) for v in program.arrays}
    offset = 0
    for v in program.outputs:
        size = math.prod(v.shape)
        np.minimum(least[id(v)], form.rows[offset : offset + size], out=least[id(v)])
        offset += size
    for step in reversed(program.steps):
        for v in step.outs:
            own = least[id(v)]
            own[_highest(met.get(id(v)), own.size, form.cols) < own] = _NEVER
        if any((least[id(v)] < _NEVER).any() for v in step.outs):
            for v in {id(v): v for v in step.sources}.values():
                _pull(step, v, [o for o in step.outs if id(o) in met], least)
    return least


def _pull(step: Step, source: Linear, outs: Sequence[Linear], least: dict[int, np.ndarray]) -> None:
    """Hand the labels of a step's results on to one of its operands, along the pattern of the local Jacobian.

    outs : the results that have a tangent; what a loop counts beside them has none.
    """
    alone, own = section([step], [source], outs), least[id(source)]
    found: list[Tangent] = []

    def trace() -> None:
        made = push_through(planning(()), alone, seeds_of([source]))
        found.extend(Tangent(t.shape, t.dtype, t.blocks) for t in made)

    with limited(_UNLIMITED):
        jax.eval_shape(trace)
    for out, tangent in zip(outs, found, strict=True):
        for b in tangent.blocks:
            labels = _of_rows(least[id(out)], b)
            same = tuple(k for k in range(len(b.shape)) if b.cols.shape[k] == 1)
            labels = np.broadcast_to(labels.min(axis=same, keepdims=True, initial=_NEVER)[..., None], b.cols.shape)
            there = (b.cols >= 0) & (labels < _NEVER)
            np.minimum.at(own, b.cols[there], labels[there])


def _of_rows(labels: np.ndarray, b: Block) -> np.ndarray:
    """[size] -> the shape of the block."""
    return labels[b.rows] if b.rows is not None else labels.reshape(b.shape)


def _labels(cols: np.ndarray, of_columns: np.ndarray) -> np.ndarray:
    return np.where(cols >= 0, of_columns[cols], np.int32(-1))


def _highest(tangent: Tangent | None, size: int, of_columns: np.ndarray) -> np.ndarray:
    """For each element the highest label of its columns, [size]; -1 for none."""
    highest = np.full(size, -1, np.int32)
    for b in tangent.blocks if tangent else ():
        own = np.broadcast_to(_labels(b.cols, of_columns).max(axis=-1, initial=-1), b.shape).reshape(-1)
        np.maximum.at(highest, np.arange(own.size) if b.rows is None else b.rows.reshape(-1), own)
    return highest


def _lower(tangent: Tangent, least: np.ndarray, of_columns: np.ndarray) -> bool:
    """Whether an element has a column that it is of no use to."""
    return any(
        bool(((b.cols >= 0) & (_labels(b.cols, of_columns) < _of_rows(least, b)[..., None])).any())
        for b in tangent.blocks
    )


def _kept(b: Block, least: np.ndarray, of_columns: np.ndarray) -> Block | None:
    """The block without the columns that its elements are of no use to; None where nothing is left."""
    rank = len(b.shape)
    kept = (b.cols >= 0) & (_labels(b.cols, of_columns) >= _of_rows(least, b)[..., None])  # [*rows, slots]
    if not kept.any():
        return None
    cols = compressed(np.where(kept, b.cols, np.int32(-1)), rank)
    width = int(kept.sum(axis=-1).max())
    if cols.shape[-1] == 1 or width * _FEWER > cols.shape[-1]:
        return Block(b.shape, cols, b.vals, b.rows)
    first = compressed(np.argsort(cols < 0, axis=-1, kind="stable")[..., :width], rank)  # [*rows or 1s, width]
    picked = np.take_along_axis(cols, np.broadcast_to(first, (*cols.shape[:-1], width)), axis=-1)
    return Block(b.shape, picked, _picked(b, first), b.rows)


def _picked(b: Block, slots: np.ndarray) -> Any:
    """The values at these slots of each row, [*rows or 1s, width]."""
    if b.vals.shape[-1] == 1:
        return b.vals
    if slots.size == slots.shape[-1]:  # the same ones in all rows
        return b.vals[..., slots.reshape(-1)]
    full = expand(b, [k for k in range(len(b.shape)) if slots.shape[k] != 1]).vals
    wide = np.broadcast_to(slots, (*full.shape[:-1], slots.shape[-1]))
    if isinstance(full, np.ndarray):
        return np.take_along_axis(full, wide, axis=-1)
    return xp(full).take_along_axis(as_jax(full), wide, axis=-1, mode="promise_in_bounds")


def space_of_arrays(arrays: Sequence[Linear]) -> Space:
    """Arrays between two links, laid flat one after the other."""
    shapes, dtypes = tuple(v.shape for v in arrays), tuple(v.dtype for v in arrays)
    return Space(jax.tree.structure([0] * len(arrays)), shapes, dtypes, "a link")
