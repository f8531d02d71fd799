"""Where a forward and a reverse sweep meet: arrays that together cut every path from the inputs to the outputs.

Over the arrays v of such a cut, J = sum over v of (∂y/∂v) (∂v/∂x). What stands before it depends on few inputs, and is
pushed forward; of what stands behind it few outputs depend on each element, and these are pulled back. In a scan by
pairs, sums of ever longer intervals come first, and are then handed down to the places of each.

The arrays before the cut are a closure of the graph: with each stands all that it is made of. The cheapest closure is
a minimum cut of a network: J.-C. Picard, 'Maximal closure of a graph and applications to combinatorial problems',
Management Science 22 (1976).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from chainrule._blocks.block import union
from chainrule._jax import transposable
from chainrule._linear import LinearProgram, Step, cotangents, push_through, seeds_of
from chainrule._plan.body import divisible
from chainrule._plan.node import Meeting
from chainrule._plan.pattern import Work
from chainrule._program import Linear, Tangent
from chainrule._propagate import pushing

_MOST_STEPS, _MOST_ELEMENTS = 1000, 2**19  # of a program that is looked at
_MOST_ARRAYS = 100  # of a cut: J is stored as a block or more for each
_FEWER = 2.5  # times the multiply-adds of a meeting that the better sweep takes at least: many small products
_SMALL = 4096  # numbers of unknown values up to which an operation costs more than they do
_CAPACITY = 2**30  # the sum of all that is finite; SciPy counts in 32 bits


def meeting(program: LinearProgram) -> Meeting | None:
    """The cheapest cut, where sweeps to it are sure to be cheaper than one through all of the program; else None."""
    large = len(program.steps) > _MOST_STEPS or sum(v.size for v in program.arrays) > _MOST_ELEMENTS
    if large or not divisible(program) or not all(map(_reversible, program.steps)):
        return None
    sizes = Sizes.of(program)
    found = sizes and sizes.meeting()
    if not (sizes and found) or len(found.arrays) > _MOST_ARRAYS or _FEWER * found.work.multiply_adds > sizes.swept:
        return None
    return found


def _reversible(step: Step) -> bool:
    """Whether a step is had from its outputs at little cost: no loop, no whole numbers, which have no cotangents."""
    straight = step.equation.primitive.name != "scan" and transposable(step.equation)
    return straight and all(jnp.issubdtype(v.dtype, jnp.floating) for v in (*step.sources, *step.outs))


def boundary(program: LinearProgram, ahead: Container[int]) -> list[Linear]:
    """Of the arrays before a cut, by id, those that something behind it is made of; and those that are outputs."""
    ends = {id(v) for v in program.targets}
    for step in program.steps:
        if any(id(v) not in ahead for v in step.outs):
            ends.update(map(id, step.sources))
    return [v for v in program.arrays if id(v) in ahead and id(v) in ends]


@dataclass(frozen=True, eq=False)
class Sizes:
    """On how many inputs each element of an array depends (`forward`), and how many outputs on it (`reverse`), by id.

    Both are rounded up to powers of two: elements of about the same widths are multiplied together.
    computed : the arrays that take arithmetic; all others are views of them. swept : multiply-adds of the better sweep.
    """

    program: LinearProgram
    forward: Mapping[int, np.ndarray]
    reverse: Mapping[int, np.ndarray]
    computed: frozenset[int]
    swept: int

    @classmethod
    def of(cls, program: LinearProgram) -> Sizes | None:
        """Those of the blocks that both sweeps meet.

        None where no meeting would pay: it takes a multiply-add for each element computed and for each number of J.
        """
        ahead, back = pushing(), pushing()
        forward, cost = {id(v): np.ones(v.shape, int) for v in program.inputs}, {}

        def seen(v: Linear, tangent: Tangent) -> Tangent:
            forward[id(v)] = _columns(tangent)  # takes what has waited
            cost[id(v)] = ahead.cost
            return side_by_side(v, tangent)

        push_through(ahead, program, seeds_of(program.inputs), seen)
        computed = {v for (_, before), (v, after) in itertools.pairwise([(0, 0), *cost.items()]) if after > before}
        least = sum(v.size for v in program.arrays if id(v) in computed)
        least += sum(forward[id(v)].sum() // 2 for v in program.targets)  # rounded up to less than twice
        if _FEWER * least > ahead.cost:
            return None
        pulled = push_through(back, cotangents(program), seeds_of(program.targets), side_by_side)
        reverse = {id(v): np.zeros(v.shape, int) for v in program.arrays}
        reverse |= {id(v): _columns(t) for v, t in zip((v for v in program.arrays if v.size), pulled, strict=True)}
        return cls(program, forward, reverse, frozenset(computed), min(ahead.cost, back.cost))

    def product(self, v: Linear) -> int:
        """Numbers of the outer products of the columns and the rows of an array's elements."""
        return int((self.forward[id(v)] * self.reverse[id(v)]).sum())

    def meeting(self) -> Meeting | None:
        """The cheapest one; None where that is a single sweep."""
        ahead, arrays = self._ahead(), self.program.arrays
        cut = boundary(self.program, ahead)
        if any({id(v) for v in cut} <= {id(v) for v in ends} for ends in (self.program.inputs, self.program.targets)):
            return None
        products = sum(map(self.product, cut))
        if products > 2 * sum(self.forward[id(v)].sum() for v in self.program.targets):  # J would store summands
            return None
        held = {id(v): (self.forward if id(v) in ahead else self.reverse)[id(v)].sum() for v in arrays}
        made = [held[v] for v in self.computed]
        work = Work(len(made) + len(cut), int(sum(made)) + products, 2 * int(sum(made)) + products)
        return Meeting(tuple(self.program.numbers[id(v)] for v in cut), work, int(max(held.values())))

    def _ahead(self) -> set[int]:
        """The arrays before the cut, by id; of equally cheap cuts the last one."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import breadth_first_order, maximum_flow

        n = len(self.program.arrays)
        edges = np.array(list(self._network()))
        total = int(edges[np.isfinite(edges[:, 2]), 2].sum())
        scale = max(total / _CAPACITY, 1.0)
        capacity = np.where(np.isfinite(edges[:, 2]), edges[:, 2] / scale, _CAPACITY).astype(np.int32)
        ends = edges[:, 0].astype(int), edges[:, 1].astype(int)
        network = coo_array((capacity, ends), shape=(2 * n + 2, 2 * n + 2)).tocsr()
        left = network - maximum_flow(network, 2 * n, 2 * n + 1).flow
        left.eliminate_zeros()
        behind = set(breadth_first_order(left.T.tocsr(), 2 * n + 1, return_predecessors=False).tolist())
        return {id(v) for k, v in enumerate(self.program.arrays) if k not in behind}

    def _network(self) -> Iterator[tuple[int, int, float]]:
        """Edges (from, to, capacity), of which a cut takes those from its side of the source to that of the sink.

        Vertex k, array k, is on the side of the source where it stands before the cut; n + k where all of its users
        do, too. 2n is the source, 2n + 1 the sink.
        """
        arrays, number = self.program.arrays, self.program.numbers
        n, users = len(arrays), {k: set[int]() for k in range(len(arrays))}
        for step in self.program.steps:
            for v in step.sources:
                users[number[id(v)]].update(number[id(w)] for w in step.outs)
        given = {id(v) for v in self.program.inputs}
        for k, v in enumerate(arrays):
            forward, reverse = (side[id(v)].sum() * (id(v) in self.computed) for side in (self.forward, self.reverse))
            yield 2 * n, k, math.inf if id(v) in given else reverse
            yield k, 2 * n + 1, forward
            yield k, n + k, self.product(v)
            for w in users[k]:
                yield w, k, math.inf
                yield n + k, w, math.inf


def side_by_side(_: Linear, tangent: Tangent) -> Tangent:
    """The tangent with few numbers of many blocks as one block: in a tree each step would double their number."""
    whole = [b for b in tangent.blocks if b.rows is None] if tangent.taken else []
    if len(whole) < 2 or all(b.static for b in whole):
        return tangent
    if sum(math.prod(b.shape) * b.slots for b in whole) > _SMALL:
        return tangent
    scattered = (b for b in tangent.blocks if b.rows is not None)
    return Tangent(tangent.shape, tangent.dtype, (union(whole), *scattered))


def _columns(tangent: Tangent) -> np.ndarray:
    """The number of columns in each row."""
    found = np.zeros(math.prod(tangent.shape), int)
    for b in tangent.blocks:
        there = (b.cols >= 0).sum(axis=-1) * (b.slots // b.cols.shape[-1])
        np.add.at(found, b.lines.reshape(-1), np.broadcast_to(there, b.shape).reshape(-1))
    return np.where(found, powers_of_two(np.maximum(found, 1)), 0).reshape(tangent.shape)


def powers_of_two(numbers: Any) -> Any:
    """Positive numbers, rounded up."""
    return (2 ** np.ceil(np.log2(numbers))).astype(int)
