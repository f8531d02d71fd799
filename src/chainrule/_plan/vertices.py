"""Orders of elimination of a wide link, over arrays: the scalar rules on edges that are patterns.

The cost of eliminating an array is counted as time, so that a view costs nothing and a small product an operation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from chainrule._plan import elimination
from chainrule._plan.cost import Graph
from chainrule._plan.local import Column
from chainrule._plan.node import Elimination
from chainrule._plan.pattern import NOTHING, Shape, Terms, Work, columns, compose, stored, total
from chainrule._plan.weights import Weights
from chainrule._program import Linear

_MOST, _MOST_WITH_EFFORT = 120, 2000  # arrays of a link; larger ones are swept
_WIDTH = 64  # products that an edge which stays is met with later, at most: with the sizes of arrays they only grow


@dataclass(frozen=True, eq=False)
class _Pattern:
    """The Jacobian of an array by another, and the work of pushing one column through it where that is counted."""

    source: Shape
    target: Shape
    terms: Terms
    column: Column | None

    @cached_property
    def numbers(self) -> int:
        return stored(self.terms)

    @cached_property
    def elementwise(self) -> bool:
        size = math.prod(self.source)
        return size == math.prod(self.target) and all(t.nnz <= size for t in self.terms)


class Patterns:
    """Products and sums of patterns, each of which is had once: layers of a network are alike, and so are rules.

    Equal patterns are one object, so that looking up what was made of them takes no comparison.
    """

    def __init__(self, weights: Weights):
        self.weights = weights
        self._known: dict[Any, _Pattern] = {}
        self._products: dict[tuple[_Pattern, _Pattern], tuple[_Pattern, Work, float]] = {}
        self._sums: dict[tuple[_Pattern, _Pattern], _Pattern] = {}
        self.algebra = elimination.Algebra(self.compose, self.add, self.size, lambda p: p.elementwise)

    def pattern(self, source: Shape, target: Shape, terms: Terms, column: Column | None) -> _Pattern:
        """The pattern of these; the one that was made before, where there is one."""
        key = (source, target, terms, column)
        return self._known.get(key) or self._known.setdefault(key, _Pattern(*key))

    def compose(self, outer: _Pattern, inner: _Pattern) -> tuple[_Pattern, float]:
        """The product, and its time."""
        made, _, seconds = self.product(outer, inner)
        return made, seconds

    def product(self, outer: _Pattern, inner: _Pattern) -> tuple[_Pattern, Work, float]:
        """The product, its work and its time."""
        found = self._products.get((outer, inner))
        if found is None:
            terms, work = compose(outer.terms, inner.terms, inner.source, outer.target)
            for p in (outer, inner):
                if p.column is not None:
                    work = work + Work(1, p.column.multiply_adds(columns(terms, outer.target)), 0)
            made = self.pattern(inner.source, outer.target, terms, None)
            found = self._products[outer, inner] = made, work, self.weights.seconds(work)
        return found

    def add(self, a: _Pattern, b: _Pattern) -> _Pattern:
        """The sum."""
        found = self._sums.get((a, b))
        if found is None:
            column = a.column if b.column is None else b.column if a.column is None else a.column + b.column
            terms = total((*a.terms, *b.terms), a.source, a.target)
            found = self._sums[a, b] = self.pattern(a.source, a.target, terms, column)
        return found

    def size(self, p: _Pattern) -> float:
        """The time that it takes to write a pattern."""
        return self.weights.number * p.numbers


def eliminations(
    graph: Graph, start: Sequence[Linear], stop: Sequence[Linear], steps: range, patterns: Patterns, effort: int = 0
) -> list[Elimination]:
    """What each rule gives for the link of these steps; nothing where it is a single path, or too large."""
    sources, numbers = {id(v) for v in start}, graph.program.numbers
    inside = sources | {id(v) for n in steps for v in graph.program.steps[n].outs}
    paths: dict[tuple[int, int], _Pattern] = {}
    for e in (e for n in steps for e in graph.edges[n]):
        if id(e.source) in inside and id(e.target) not in sources:
            key = numbers[id(e.source)], numbers[id(e.target)]
            found = patterns.pattern(e.source.shape, e.target.shape, e.local.terms, e.local.column)
            paths[key] = patterns.add(paths[key], found) if key in paths else found
    arrays = {k for key in paths for k in key}
    if not 2 < len(arrays) <= (_MOST_WITH_EFFORT if effort else _MOST) or len(paths) < len(arrays):
        return []
    ends = {numbers[id(v)] for v in stop}
    if any(p in ends for p, _ in paths):  # an output that is used further
        return []
    width = min(sum(v.size for v in start), sum(v.size for v in stop), _WIDTH)
    algebra = patterns.algebra
    orders = elimination.orders(paths, algebra, width)
    if effort:
        best = min((elimination.Ordering.of(paths, *o, algebra) for o in orders.items()), key=lambda p: p.cost)
        annealed = elimination.anneal(paths, best, algebra, effort)
        orders[annealed.rule] = list(annealed.order)
    return [Elimination(tuple(order), rule, *_work(paths, order, patterns)) for rule, order in orders.items()]


def _work(paths: dict[tuple[int, int], _Pattern], order: Sequence[int], patterns: Patterns) -> tuple[Work, int]:
    """The work of an order, product by product, and the numbers of the largest product."""
    work, peak = NOTHING, 0

    def compose(outer: _Pattern, inner: _Pattern) -> tuple[_Pattern, float]:
        nonlocal work, peak
        made, cost, seconds = patterns.product(outer, inner)
        work, peak = work + cost, max(peak, made.numbers)
        return made, seconds

    elimination.count(paths, order, replace(patterns.algebra, compose=compose))
    return work, peak
