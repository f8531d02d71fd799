"""Carry out an order of the product: sweeps between cuts, and products of what they gave."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chainrule._blocks.apply import of_blocks
from chainrule._blocks.block import Block, merge, multiply, only
from chainrule._jax import dependent
from chainrule._linear import LinearProgram, precision_of, push_through, section, seeds_of, transposed
from chainrule._plan.meeting import powers_of_two, side_by_side
from chainrule._plan.node import Node
from chainrule._program import Context, Linear, Tangent
from chainrule._rules.pointwise import pile, tidy

_FEW_PARTS = 8  # parts of different widths that the elements of an array are taken in, at most


@dataclass(frozen=True, eq=False)
class Part:
    """The Jacobian between two cuts: tangents of the arrays of the last with columns of the first, or the reverse."""

    start: tuple[Linear, ...]
    stop: tuple[Linear, ...]
    tangents: tuple[Tangent, ...]
    flipped: bool

    def program(self, precision: Any) -> LinearProgram:
        """This map as a program, from the start to the stop; or its transpose, where that is what is stored."""
        rows, columns = (self.start, self.stop) if self.flipped else (self.stop, self.start)
        return of_blocks(self.tangents, rows, columns, precision)

    def map(self, precision: Any) -> LinearProgram:
        """This map as a program from the start to the stop."""
        own = self.program(precision)
        return transposed(own) if self.flipped else own


@dataclass(frozen=True, eq=False)
class Partial:
    """The derivative of an array by another: a step to be taken yet, or a tangent with columns of the source."""

    source: Linear
    target: Linear
    step: LinearProgram | None
    tangent: Tangent | None = None

    def assembled(self, context: Context) -> Tangent:
        """The tangent."""
        if self.tangent is not None:
            return self.tangent
        assert self.step is not None
        (made,) = push_through(context, self.step, seeds_of([self.source]))
        return made

    def after(self, context: Context, inner: Partial, precision: Any) -> Partial:
        """The product with a derivative of the source of this one."""
        program = self.step or of_blocks([self.assembled(context)], [self.target], [self.source], precision)
        (made,) = push_through(context, program, [inner.assembled(context)])
        return Partial(inner.source, self.target, None, made)

    def plus(self, context: Context, other: Partial) -> Partial:
        """The sum with another one of the same arrays."""
        blocks = [*self.assembled(context).blocks, *other.assembled(context).blocks]
        return Partial(self.source, self.target, None, Tangent(self.target.shape, self.target.dtype, tidy(blocks)))


class Mixed:
    """The parts of a plan, evaluated on the values of one linear program."""

    def __init__(self, context: Context, program: LinearProgram, cuts: Sequence[tuple[Linear, ...]]):
        self.context, self.program, self.cuts = context, program, cuts
        self.precision = precision_of(program)

    def part(self, node: Node) -> Part:
        """The Jacobian of a node of the plan."""
        start, stop = self.cuts[node.start], self.cuts[node.stop]
        if node.kind == "product":
            return self._product(*map(self.part, node.parts))
        if node.eliminated is not None:
            return Part(start, stop, tuple(self._eliminated(node.eliminated.order, start, stop)), False)
        if node.met is not None:
            return Part(start, stop, self._met([self.program.arrays[k] for k in node.met.arrays], start, stop), False)
        flipped = node.kind == "reverse"
        near, far = (stop, start) if flipped else (start, stop)
        if node.parts:
            first = self._oriented(self.part(node.parts[0]), flipped)
            near = first.start if flipped else first.stop
            seeds = first.tangents
        else:
            seeds = seeds_of(near)
        between = self._between(far, near) if flipped else self._between(near, far)
        through = transposed(between) if flipped else between
        return Part(start, stop, tuple(push_through(self.context, through, seeds)), flipped)

    def _eliminated(
        self, order: Sequence[int], start: tuple[Linear, ...], stop: tuple[Linear, ...]
    ) -> Iterator[Tangent]:
        """Multiply the local Jacobians along the paths through each array in turn, until none is left between."""
        link = self._between(start, stop)
        offsets, offset = {}, 0
        for v in start:
            offsets[id(v)], offset = offset, offset + v.size
        preds: dict[int, dict[int, Partial]] = {}
        for step in link.steps:
            # what an array without elements gives depends on nothing
            for v in {id(v): v for v in step.sources if v.size and (id(v) in preds or id(v) in offsets)}.values():
                for out in itertools.compress(step.outs, dependent(step.equation, [u is v for u in step.operands])):
                    preds.setdefault(id(out), {})[id(v)] = Partial(v, out, section([step], [v], [out]))
        for v in (self.program.arrays[k] for k in order):
            through = preds.pop(id(v), {})
            outs = [edges for edges in preds.values() if id(v) in edges]
            for edges in outs:
                outer = edges.pop(id(v))
                for key, inner in through.items():
                    made = outer.after(self.context, inner, self.precision)
                    edges[key] = edges[key].plus(self.context, made) if key in edges else made
        for v in stop:
            blocks = [
                Block(b.shape, np.where(b.cols >= 0, b.cols + np.int32(offsets[key]), b.cols), b.vals, b.rows)
                for key, edge in preds.get(id(v), {}).items()
                for b in edge.assembled(self.context).blocks
            ]
            yield Tangent(v.shape, v.dtype, tidy(blocks))

    def _met(self, cut: Sequence[Linear], start: tuple[Linear, ...], stop: tuple[Linear, ...]) -> tuple[Tangent, ...]:
        """The sum over the arrays of a cut of ∂stop/∂v ∂v/∂start; those of equal ∂stop/∂v are added first."""
        inner = push_through(self.context, self._between(start, cut), seeds_of(start), side_by_side)
        outer = push_through(self.context, transposed(self._between(cut, stop)), seeds_of(stop), side_by_side)
        alike: dict[int, tuple[Tangent, list[Block]]] = {}
        for by_start, by_stop in zip(inner, outer, strict=True):
            alike.setdefault(id(by_stop), (by_stop, []))[1].extend(by_start.filled().blocks)
        pairs = list[tuple[Block, Block]]()
        for by_stop, blocks in alike.values():
            pairs += itertools.product(map(_flat, tidy(list(by_stop.filled().blocks))), map(_flat, tidy(blocks)))
        return crossed(self.context, pairs, stop)

    def _between(self, start: Sequence[Linear], stop: Sequence[Linear]) -> LinearProgram:
        return section(self.program.steps, start, stop)

    def _oriented(self, part: Part, flipped: bool) -> Part:
        """The same Jacobian, stored by columns (flipped) or by rows."""
        if part.flipped == flipped:
            return part
        seeds = part.stop if flipped else part.start
        made = push_through(self.context, transposed(part.program(self.precision)), seeds_of(seeds))
        return Part(part.start, part.stop, tuple(made), flipped)

    def _product(self, first: Part, last: Part) -> Part:
        """The Jacobian of last.stop by first.start."""
        if first.flipped and last.flipped:
            made = push_through(self.context, first.program(self.precision), last.tangents)
            return Part(first.start, last.stop, tuple(made), True)
        made = push_through(self.context, last.map(self.precision), self._oriented(first, False).tangents)
        return Part(first.start, last.stop, tuple(made), False)


def crossed(context: Context, pairs: Sequence[tuple[Block, Block]], stop: Sequence[Linear]) -> tuple[Tangent, ...]:
    """Of each element of an array, the outputs that depend on it times the inputs that it depends on.

    pairs : the Jacobians of all outputs by arrays, transposed, and of these by the inputs; both laid flat. Elements of
    about the same widths are laid one under the other. Each product stands in rows of its own.
    """
    offsets, tangents = np.cumsum([0, *(v.size for v in stop)]), []
    for v, low, high in zip(stop, offsets, offsets[1:], strict=False):
        classes: dict[tuple[int, ...], list[tuple[Block, Block]]] = {}
        for all_rows, columns in pairs:
            for outer, inner in _evenly(_within(all_rows, low, high), columns):
                widths = tuple(int(_rounded(b.slots)) for b in (outer, inner))
                classes.setdefault(widths, []).append((outer, inner))
        blocks = []
        for own in classes.values():
            outer, inner = (pile(list(side)) for side in zip(*own, strict=True))
            vals = multiply(outer.vals[..., None], inner.vals[..., None, :])
            cols = only(inner.cols[..., None, :], (outer.cols >= 0)[..., None])
            blocks.append(Block(outer.cols.shape, cols, vals, np.maximum(outer.cols, 0)))
        context.count(*blocks)
        tangents.append(Tangent(v.shape, v.dtype, tuple(merge(blocks))))
    return tuple(tangents)


def _flat(b: Block) -> Block:
    """The block with its elements in one row."""
    return pile([Block(b.shape, b.cols, b.vals, b.lines)])


def _within(b: Block, low: int, high: int) -> Block:
    """The columns from `low` to `high`, numbered anew, and the slots that have such."""
    inside = (b.cols >= low) & (b.cols < high)
    slots = np.flatnonzero(inside.any(axis=0))
    part = slice(slots[0], slots[-1] + 1) if len(slots) else slice(0)
    cols = np.where(inside, b.cols - low, np.int32(-1))[:, part]
    return Block(b.shape, cols, b.vals[:, part], b.rows)


def _evenly(outer: Block, inner: Block) -> Iterator[tuple[Block, Block]]:
    """The elements of an array in a few parts that have about the same widths each."""
    widths = np.stack([_rounded((b.cols >= 0).sum(axis=1)) for b in (outer, inner)])
    ends = [0, *(np.flatnonzero((widths[:, 1:] != widths[:, :-1]).any(axis=0)) + 1), widths.shape[1]]
    for part in itertools.starmap(slice, itertools.pairwise(ends if len(ends) <= _FEW_PARTS else [0, ends[-1]])):
        if (outer.cols[part] >= 0).any() and (inner.cols[part] >= 0).any():
            yield _elements(outer, part), _elements(inner, part)


def _elements(b: Block, part: slice) -> Block:
    """Some of the elements, without the slots behind the last one that they have."""
    width = np.flatnonzero((b.cols[part] >= 0).any(axis=0))[-1] + 1
    cols = b.cols[part, :width]
    return Block(cols.shape[:1], cols, b.vals[part, :width], b.lines[part])


def _rounded(slots: Any) -> Any:
    """Equal for numbers of slots that are laid together: up to 2, 4, 8, ..."""
    return powers_of_two(np.maximum(slots, 2))
