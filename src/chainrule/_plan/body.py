"""The order of the body of a loop, planned once for all of its steps.

What enters a body is no identity but a Jacobian, often of many more columns than the body has inputs. From cut to cut
of the body it is pushed through the equations, or multiplied by the Jacobian between these, which the chain of the body
gives in its cheapest way. The cheapest row of such legs is a shortest path over the cuts.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from chainrule._blocks.block import Block
from chainrule._jax import dependent, scan_counts
from chainrule._linear import LinearProgram, Step, body_program
from chainrule._plan.cost import Graph, Held, sweep_cost
from chainrule._plan.local import Column, column
from chainrule._plan.node import Body, Leg
from chainrule._plan.order import Chain, Cut, dominators, label, pays, until, useful
from chainrule._plan.pattern import NOTHING, Shape, Term, Work, compose, full, group, total
from chainrule._plan.weights import Weights
from chainrule._program import Coefficient, Linear, Tangent


@dataclass(frozen=True, eq=False)
class Entering:
    """The columns that enter a body, as arrays of their own, and the patterns of its inputs with respect to these."""

    seeds: tuple[Linear, ...]
    held: Held

    @classmethod
    def of(cls, inputs: Sequence[Linear], tangents: Sequence[Tangent]) -> Entering:
        """What enters, from its blocks; those with the same columns share them."""
        seeds: dict[tuple[Shape, bytes], Linear] = {}
        found: dict[int, dict[int, list[Term]]] = {id(v): {} for v in inputs}
        for v, tangent in zip(inputs, tangents, strict=True):
            for b in tangent.blocks:
                shape, term = _pattern(b)
                key = (shape, np.unique(b.cols).tobytes())
                seeds.setdefault(key, Linear(shape, tangent.dtype))
                found[id(v)].setdefault(list(seeds).index(key), []).append(term)
        own = tuple(seeds.values())
        held = {id(v): {k: total(tuple(t), own[k].shape, v.shape) for k, t in found[id(v)].items()} for v in inputs}
        return cls(own, held)


def _pattern(b: Block) -> tuple[Shape, Term]:
    """The shape of the columns of a block, and the pattern of the block.

    Rows that differ along some axes, and share no columns along these, have columns (places along them, slots).
    """
    columns = np.unique(b.cols[b.cols >= 0]).size
    entries = int((b.cols >= 0).sum()) * math.prod(b.shape) * b.slots // max(b.cols.size, 1)
    apart = [k for k, n in enumerate(b.cols.shape[:-1]) if n != 1]
    places = math.prod(b.shape[k] for k in apart)
    if not apart or columns != places * b.slots:
        return (columns,), Term((group((columns,), b.shape, [0], range(len(b.shape)), entries, False),))
    shape = (places, b.slots)
    rest = [k for k in range(len(b.shape)) if k not in apart]
    lines = math.prod(b.shape[k] for k in rest) * b.slots
    groups = (group(shape, b.shape, [0], apart, places, False), group(shape, b.shape, [1], rest, lines, False))
    return shape, Term(groups)


class Through:
    """The ways of what enters through a body."""

    def __init__(self, chain: Chain, entering: Entering):
        self.chain, self.entering = chain, entering
        steps = len(chain.graph.program.steps)
        self.swept = sweep_cost(chain.graph, entering.seeds, range(steps), held=entering.held)

    def pushed(self, i: int, j: int) -> Work:
        """From cut i to cut j through the equations."""
        return until(self.swept, self.chain.cuts[j].after) - until(self.swept, self.chain.cuts[i].after)

    def product(self, i: int, j: int) -> Work:
        """What has come to cut i, by the Jacobian of cut j with respect to it."""
        outer, work = self.chain.forward[i].terms, NOTHING
        for n, between in enumerate(self.chain.cuts[i].arrays):
            for seed, inner in self.swept.terms.get(id(between), {}).items():
                for target in self.chain.cuts[j].arrays:
                    if local := outer.get(id(target), {}).get(n):
                        work = work + compose(local, inner, self.entering.seeds[seed].shape, target.shape)[1]
        return work

    @cached_property
    def best(self) -> tuple[Work, tuple[Leg, ...]]:
        """The cheapest legs, and their work; all of it pushed where that costs hardly more."""
        found: list[tuple[Work, tuple[Leg, ...]]] = [(NOTHING, ())]
        last, seconds = len(self.chain.cuts) - 1, self.chain.weights.seconds
        for j in range(1, last + 1):
            found.append(min(self._ways(found, j), key=lambda way: seconds(way[0])))
        pushed, (work, legs) = self.pushed(0, last), found[last]
        swept, own = ((seconds(w), w.multiply_adds) for w in (pushed, work))
        return (work, legs) if pays(swept, own, self._dense()) else (pushed, (Leg(0, last, None),))

    def _ways(self, found: list[tuple[Work, tuple[Leg, ...]]], j: int) -> Iterator[tuple[Work, tuple[Leg, ...]]]:
        for i, (before, legs) in enumerate(found):
            yield before + self.pushed(i, j), (*legs, Leg(i, j, None))
            if is_complex(self.chain.graph.program):
                continue
            _, work, node = self.chain.best[i, j]
            yield before + work + self.product(i, j), (*legs, Leg(i, j, node))

    def _dense(self) -> bool:
        """Whether every output depends on every column that reaches it."""
        return all(
            sum(t.nnz for t in terms) >= v.size * self.entering.seeds[k].size
            for v in self.chain.cuts[-1].arrays
            for k, terms in self.swept.terms.get(id(v), {}).items()
        )


def planned_body(
    program: LinearProgram, tangents: Sequence[Tangent], length: int, digest: str, weights: Weights
) -> Body:
    """The cheapest order of a body that is run so many times."""
    chain = chain_of(program, weights)
    through, number = Through(chain, Entering.of(program.inputs, tangents)), program.numbers
    work, legs = through.best
    last = len(chain.cuts) - 1
    return Body(
        *(digest, length, tuple(tuple(number[id(v)] for v in cut.arrays) for cut in chain.cuts)),
        labels=("what enters", *[label(chain.graph, chain.cuts[k], k, last) for k in range(1, last)], "what leaves"),
        legs=legs,
        pushed=length * through.pushed(0, last).multiply_adds,
        multiply_adds=length * work.multiply_adds,
    )


def is_complex(program: LinearProgram) -> bool:
    """Whether an array is complex.

    Real and imaginary parts are linear over real numbers only: of a complex array one column is not enough.
    """
    return any(np.dtype(v.dtype).kind == "c" for v in program.arrays)


def divisible(program: LinearProgram) -> bool:
    """Whether a program can be cut: not where an output is one twice, or an input, or where an array is complex."""
    ends = {id(v) for v in (*program.inputs, *program.targets)}
    return len(ends) == len(program.inputs) + len(program.targets) and not is_complex(program)


def chain_of(program: LinearProgram, weights: Weights, effort: int = 0) -> Chain:
    """The chain of a program: a single link where it cannot be cut."""
    graph, whole = Graph.of(program, functools.partial(column_of, weights)), divisible(program)
    cuts = dominators(program) if whole else [Cut(program.inputs, 0), Cut(program.targets, len(program.steps))]
    return Chain(graph, useful(graph, cuts), weights, effort if whole else -1)


def column_of(weights: Weights, step: Step) -> Column:
    """What a loop takes on columns, with its body planned for as many as there are."""
    eqn = step.equation
    marked, (a, b) = [isinstance(v, Linear) for v in step.operands], scan_counts(eqn)
    marked[a : a + b] = dependent(eqn, marked)[:b]
    body, found = eqn.params["jaxpr"], list[Chain]()

    def trace(values: Sequence[Any]) -> None:  # the coefficients that are recorded here are never run
        known = [v if k < a and isinstance(v, Coefficient) else None for k, v in enumerate(step.operands)]
        own = [k or Coefficient(v) for k, v in zip(known, values, strict=True)]
        linear = [Linear(v.shape, v.dtype) if m else v for m, v in zip(marked, own, strict=True)]
        found.append(chain_of(body_program(body.jaxpr, body.consts, linear)[0], weights))

    jax.eval_shape(trace, [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in body.in_avals])
    (chain,) = found

    @functools.cache
    def many(columns: int) -> int:
        seed = Linear((columns,), np.float32)
        held = {id(v): {0: (full(seed.shape, v.shape),)} for v in chain.graph.program.inputs if v.size}
        return int(eqn.params["length"]) * Through(chain, Entering((seed,), held)).best[0].multiply_adds

    return Column(column(eqn), many)
