"""Orders of elimination of a wide link, over arrays: the scalar rules on edges that are patterns.

The cost of eliminating an array is counted as time, so that a view costs nothing and a small product an operation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from chainrule._plan import elimination
from chainrule._plan.cost import Edge, Graph
from chainrule._plan.local import Column
from chainrule._plan.node import Elimination
from chainrule._plan.pattern import Shape, Terms, Work, compose, stored, total
from chainrule._plan.weights import Weights
from chainrule._program import Linear

_MOST, _MOST_WITH_EFFORT = 120, 2000  # arrays of a link; larger ones are swept
_WIDTH = 64  # products that an edge which stays is met with later, at most: with the sizes of arrays they only grow


@dataclass(frozen=True)
class _Pattern:
    """The Jacobian of an array by another, and the work of pushing one column through it where that is counted."""

    source: Shape
    target: Shape
    terms: Terms
    column: Column | None = None


def eliminations(
    graph: Graph, start: Sequence[Linear], stop: Sequence[Linear], steps: range, weights: Weights, effort: int = 0
) -> list[Elimination]:
    """What each rule gives for the link of these steps; nothing where it is a single path, or too large."""
    edges = [e for n in steps for e in graph.edges[n]]
    sources, numbers = {id(v) for v in start}, {id(v): k for k, v in enumerate(graph.program.arrays)}
    inside = sources | {id(v) for n in steps for v in graph.program.steps[n].outs}
    paths: dict[tuple[int, int], _Pattern] = {}
    for e in edges:
        if id(e.source) in inside and id(e.target) not in sources:
            _note(paths, (numbers[id(e.source)], numbers[id(e.target)]), e)
    arrays = {k for key in paths for k in key}
    if not 2 < len(arrays) <= (_MOST_WITH_EFFORT if effort else _MOST) or len(paths) < len(arrays):
        return []
    ends = {numbers[id(v)] for v in stop}
    if any(p in ends for p, _ in paths):  # an output that is used further
        return []
    composing = _Composing(weights)
    algebra = elimination.Algebra(composing, _add, lambda p: weights.seconds(Work(0, 0, stored(p.terms))))
    width = min(sum(v.size for v in start), sum(v.size for v in stop))
    diagonal = {s for (_, s), p in paths.items() if _is_diagonal(p)}
    orders = {
        "Markowitz": elimination.markowitz(paths, algebra),
        "ELIAD": elimination.eliad(paths, algebra, lambda v: v in diagonal),
        "delta": elimination.delta_greedy(paths, algebra, min(width, _WIDTH)),
    }
    found = [
        elimination.Plan(rule, tuple(order), elimination.count(paths, order, algebra)) for rule, order in orders.items()
    ]
    if effort:
        found.append(elimination.anneal(paths, min(found, key=lambda p: p.cost), algebra, effort))
    return [Elimination(p.order, p.rule, *_work(paths, p.order, algebra, composing)) for p in found]


def _is_diagonal(p: _Pattern) -> bool:
    return all(t.nnz <= max(math.prod(p.source), math.prod(p.target)) for t in p.terms)


def _note(paths: dict[tuple[int, int], _Pattern], key: tuple[int, int], e: Edge) -> None:
    found = _Pattern(e.source.shape, e.target.shape, e.local.terms, e.local.column)
    paths[key] = _add(paths[key], found) if key in paths else found


def _add(a: _Pattern, b: _Pattern) -> _Pattern:
    column = a.column if b.column is None else b.column if a.column is None else a.column + b.column
    return _Pattern(a.source, a.target, total([*a.terms, *b.terms], a.source, a.target), column)


class _Composing:
    """Products of patterns, and their time; `work` of them is kept, to be summed up."""

    def __init__(self, weights: Weights):
        self.weights = weights
        self.known: dict[tuple[_Pattern, _Pattern], tuple[_Pattern, Work]] = {}

    def __call__(self, outer: _Pattern, inner: _Pattern) -> tuple[_Pattern, float]:
        made, work = self.product(outer, inner)
        return made, self.weights.seconds(work)

    def product(self, outer: _Pattern, inner: _Pattern) -> tuple[_Pattern, Work]:
        key = (outer, inner)
        if key not in self.known:
            terms, work = compose(outer.terms, inner.terms, (inner.source, inner.target, outer.target))
            for p in (outer, inner):
                if p.column is not None:
                    columns = -(-sum(t.nnz for t in terms) // max(math.prod(outer.target), 1))
                    work = work + Work(1, p.column.multiply_adds(columns), 0)
            self.known[key] = (_Pattern(inner.source, outer.target, terms), work)
        return self.known[key]


def _work(
    paths: dict[tuple[int, int], _Pattern], order: Sequence[int], algebra: elimination.Algebra, composing: _Composing
) -> tuple[Work, int]:
    """The work of an order, product by product, and the numbers of the largest product."""
    graph, work, peak = elimination.Graph(paths, algebra), Work(), 0
    for v in order:
        for inner in graph.preds[v].values():
            for outer in graph.succs[v].values():
                made, cost = composing.product(outer, inner)
                work, peak = work + cost, max(peak, stored(made.terms))
        graph.eliminate(v)
    return work, peak
