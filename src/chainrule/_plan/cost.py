"""What an accumulation costs: the work of sweeps over a linear program, from shapes and patterns only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from chainrule._linear import LinearProgram
from chainrule._plan.local import Column, Local, local
from chainrule._plan.pattern import NOTHING, Shape, Terms, Work, columns, compose, diagonal, stored, total
from chainrule._program import Coefficient, Linear


@dataclass(frozen=True, eq=False)
class Edge:
    """The local Jacobian of `target` with respect to `source`, from one operand of a step to one of its results."""

    source: Linear
    target: Linear
    local: Local

    @cached_property
    def pulling(self) -> Terms:
        """The patterns of the transpose."""
        return tuple(t.T for t in self.local.terms)


@dataclass(frozen=True, eq=False)
class Graph:
    """A linear program with the patterns of its local Jacobians."""

    program: LinearProgram
    edges: list[list[Edge]]  # of each step

    @classmethod
    def of(cls, program: LinearProgram, loop: Callable[[Any], Column]) -> Graph:
        """The graph of a program; `loop` says what one of its loops takes."""
        found: dict[Any, Local] = {}
        loops: dict[int, Column] = {}

        def own(step: Any, k: int, r: int) -> Local:
            made = local(step.equation, step.operands, k, r)
            if made.column is None or step.equation.primitive.name != "scan":
                return made
            if id(step) not in loops:
                loops[id(step)] = loop(step)
            return Local(made.terms, loops[id(step)])

        def edge(step: Any, k: int, r: int) -> Edge:
            key = (id(step.equation), k, r, *(id(v) for v in step.operands if isinstance(v, Coefficient)))
            if key not in found:
                found[key] = own(step, k, r)
            return Edge(step.operands[k], step.outs[r], found[key])

        def edges(step: Any) -> list[Edge]:
            own = [k for k, v in enumerate(step.operands) if isinstance(v, Linear) and v.size]
            made = (edge(step, k, r) for r, out in enumerate(step.outs) if out.size for k in own)
            return [e for e in made if e.local.terms]

        return cls(program, [edges(step) for step in program.steps])


Held = Mapping[int, Mapping[int, Terms]]  # by the array, by the number of the seed


@dataclass(eq=False)
class Swept:
    """What a sweep has met: for each array, the patterns by each of the seeds; the work up to each step."""

    seeds: tuple[Linear, ...]
    terms: dict[int, dict[int, Terms]]  # by the array, by the number of the seed: its columns
    work: dict[int, Work] = field(default_factory=dict)  # of all steps that were met when this step was done

    def numbers(self, array: Linear) -> int:
        """Numbers that the Jacobian of an array stores."""
        return sum(map(stored, self.terms.get(id(array), {}).values()))


def sweep_cost(
    graph: Graph, seeds: Sequence[Linear], steps: range, reverse: bool = False, held: Held | None = None
) -> Swept:
    """A sweep from the seeds over these steps: forward, or in reverse over the transposed local Jacobians.

    `held`: what arrays depend on the seeds already; these are the arrays themselves unless it is given.
    """
    entering = {id(v): {k: diagonal(v.shape)} for k, v in enumerate(seeds)} if held is None else held
    swept, work = Swept(tuple(seeds), {array: dict(terms) for array, terms in entering.items()}), NOTHING
    for n in reversed(steps) if reverse else steps:
        made: dict[tuple[Linear, int], list[Terms]] = {}
        for e in graph.edges[n]:
            near, far, outer = (e.target, e.source, e.pulling) if reverse else (e.source, e.target, e.local.terms)
            for k, terms in swept.terms.get(id(near), {}).items():
                product, cost = compose(outer, terms, swept.seeds[k].shape, far.shape)
                work = work + applied(e.local, cost, product, far)
                made.setdefault((far, k), []).append(product)
        for (far, k), parts in made.items():
            work = work + _add(swept.terms.setdefault(id(far), {}), k, parts, swept.seeds[k].shape, far.shape)
        swept.work[n] = work
    return swept


def applied(step: Local, cost: Work, product: Terms, reached: Linear) -> Work:
    """The work of a product; of an equation that is applied column by column, that of its columns."""
    if step.column is None:
        return cost
    return Work(1, step.column.multiply_adds(columns(product, reached.shape)), cost.numbers)


def _add(known: dict[int, Terms], k: int, parts: list[Terms], source: Shape, target: Shape) -> Work:
    """Sum what reaches an array by seed k; count the sums of numbers that are stored."""
    if k in known:
        parts = [known[k], *parts]
    if len(parts) == 1:
        known[k] = parts[0]
        return NOTHING
    known[k] = total(tuple(t for p in parts for t in p), source, target)
    return Work(0, 0, max(0, sum(map(stored, parts)) - stored(known[k])))
