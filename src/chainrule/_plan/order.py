"""The cheapest order of the product: cuts at dominators, and dynamic programming over the chain that they make.

An array through which every path from the inputs to the outputs passes cuts the program into links. The Jacobian
between two cuts i < j is had by a forward sweep (from i), a reverse sweep (from j), the product of two Jacobians that
meet at a cut k, or a sweep of one of them through the links that the other would cover. The cheapest of these, for all
pairs, solves the generalised Jacobian chain bracketing problem: U. Naumann, 'Optimization of generalized Jacobian chain
products without memory constraints' (2020); without links that are swept it is the matrix chain of Cormen et al.,
*Introduction to Algorithms*, section 15.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from chainrule._jax import transposable
from chainrule._linear import LinearProgram
from chainrule._plan.cost import Graph, Swept, sweep_cost
from chainrule._plan.node import Elimination, Kind, Node
from chainrule._plan.pattern import NOTHING, Work, compose, stored
from chainrule._plan.vertices import Patterns, eliminations
from chainrule._plan.weights import Weights
from chainrule._program import Linear


@dataclass(frozen=True, eq=False)
class Cut:
    """Arrays through which every path passes; `after`: the steps before it."""

    arrays: tuple[Linear, ...]
    after: int

    @property
    def size(self) -> int:
        return sum(v.size for v in self.arrays)


_MOST_CUTS = 24  # cuts that are tried; of more, the narrowest
_BUDGET = 2500  # (cuts · steps) that are swept for it


def dominators(program: LinearProgram) -> list[Cut]:
    """The inputs, the arrays through which every path passes, the outputs."""
    steps, last = program.steps, {id(v): -1 for v in program.inputs}
    for n, step in enumerate(steps):
        last.update((id(v), n) for v in step.sources)
    last.update((id(v), len(steps)) for v in program.targets)
    reach, found = max([last[id(v)] for v in program.inputs], default=-1), [Cut(program.inputs, 0)]
    for n, step in enumerate(steps):
        live = [v for v in step.outs if id(v) in last]
        # alive after this step: what is used later, of this step and of those before it
        if reach <= n and len(live) == 1 and last[id(live[0])] < len(steps) and n + 1 < len(steps):
            found.append(Cut((live[0],), n + 1))
        reach = max([reach, *[last[id(v)] for v in live]])
    return [*found, Cut(program.targets, len(steps))]


def useful(graph: Graph, cuts: Sequence[Cut]) -> list[Cut]:
    """Of cuts with nothing but element-wise steps and views between them the first; of too many the narrowest."""
    inner = [
        cut for before, cut in pairwise(cuts[:-1]) if before is cuts[0] or _mixes(graph, range(before.after, cut.after))
    ]
    if inner and not _mixes(graph, range(inner[-1].after, cuts[-1].after)):
        inner.pop()
    most = max(min(_MOST_CUTS, _BUDGET // max(len(graph.edges), 1)), 1)
    narrow = sorted(inner, key=lambda c: c.size)[:most]
    return [cuts[0], *(c for c in inner if c in narrow), cuts[-1]]


def _mixes(graph: Graph, steps: range) -> bool:
    return any(t.nnz > max(e.source.size, e.target.size) for n in steps for e in graph.edges[n] for t in e.local.terms)


class Chain:
    """The costs of all sweeps between cuts, and the cheapest way between any two."""

    tie = 1.3  # costs that differ by less count as equal

    def __init__(self, graph: Graph, cuts: Sequence[Cut], weights: Weights, effort: int):
        self.graph, self.cuts, self.weights, self.effort = graph, list(cuts), weights, effort
        self.patterns = Patterns(weights)
        steps = len(graph.program.steps)
        self.forward = [sweep_cost(graph, c.arrays, range(c.after, steps)) for c in self.cuts[:-1]]
        self.reverse = [sweep_cost(graph, c.arrays, range(c.after), reverse=True) for c in self.cuts[1:]]
        # the work of each sweep when it has come to each cut
        self._pushed = [[until(swept, c.after) for c in self.cuts] for swept in self.forward]
        self._pulled = [[swept.work.get(c.after, NOTHING) for c in self.cuts] for swept in self.reverse]

    @property
    def arrays(self) -> list[tuple[Linear, ...]]:
        """The arrays of each cut."""
        return [cut.arrays for cut in self.cuts]

    @cached_property
    def rough(self) -> bool:
        """Whether patterns show in the blocks only: a step is applied as a whole, or moves elements to other places."""
        locals_ = [e.local for edges in self.graph.edges for e in edges]
        return any(step.column is not None or any(t.key for t in step.terms) for step in locals_)

    def pushed(self, source: int, i: int, j: int) -> Work:
        """A forward sweep from cut i to cut j of Jacobians with respect to cut `source`."""
        done = self._pushed[source]
        return done[j] - done[i]

    def pulled(self, target: int, i: int, j: int) -> Work:
        """A reverse sweep from cut j to cut i of the Jacobians of cut `target`."""
        done = self._pulled[target - 1]
        return done[i] - done[j]

    def product(self, i: int, k: int, j: int) -> Work:
        """The product of the Jacobians of k by i and of j by k."""
        (between,), work = self.cuts[k].arrays, NOTHING
        for s, source in enumerate(self.cuts[i].arrays):
            inner = self.forward[i].terms.get(id(between), {}).get(s)
            for target in self.cuts[j].arrays:
                outer = self.forward[k].terms.get(id(target), {}).get(0)
                if inner and outer:
                    work = work + compose(outer, inner, source.shape, target.shape)[1]
        return work

    @cached_property
    def best(self) -> dict[tuple[int, int], tuple[float, Work, Node]]:
        """For all cuts i < j: seconds, work and the way."""
        best: dict[tuple[int, int], tuple[float, Work, Node]] = {}
        for width in range(1, len(self.cuts)):
            for i in range(len(self.cuts) - width):
                best[i, i + width] = self._cheapest(best, i, i + width)
        return best

    def _eliminations(self, i: int, j: int) -> list[Elimination]:
        """Orders for a wide link, or for all of them, where sweeps cost much more than to write their result."""
        a, b = self.cuts[i], self.cuts[j]
        swept = min(self.weights.seconds(w) for w in (self.pushed(i, i, j), self.pulled(j, i, j)))
        result = sum(stored(terms) for v in b.arrays for terms in self.forward[i].terms.get(id(v), {}).values())
        little = swept < _WORTHWHILE * self.weights.seconds(Work(1, 0, result))
        if self.effort < 0 or (little and not self.effort):
            return []
        return eliminations(self.graph, a.arrays, b.arrays, range(a.after, b.after), self.patterns, self.effort)

    @cached_property
    def best_node(self) -> Node:
        """The cheapest way of all; one sweep where that costs hardly more, forward rather than reverse."""
        last = len(self.cuts) - 1
        seconds, work, node = self.best[0, last]
        pure = {"forward": self.pushed(0, 0, last), "reverse": self.pulled(last, 0, last)}
        forward, reverse = map(self.weights.seconds, pure.values())
        fewest = min(w.multiply_adds for w in pure.values())
        sure = pays((min(forward, reverse), fewest), (seconds, work.multiply_adds), self._dense())
        if node.pure or not sure:
            backwards = reverse * self.tie < forward and self._reversible(0, last)
            return Node("reverse" if backwards else "forward", 0, last)
        return node

    def work(self, node: Node) -> Work:
        """What a node takes, with its parts."""
        i, j, work = node.start, node.stop, sum(map(self.work, node.parts), NOTHING)
        if node.eliminated is not None:
            return node.eliminated.work
        if node.kind == "product":
            return work + self.product(i, node.between, j)
        if node.kind == "forward":
            return work + self.pushed(i, node.between if node.parts else i, j)
        return work + self.pulled(j, i, node.between if node.parts else j)

    def peak(self, node: Node) -> int:
        """Numbers of the largest Jacobian on the way to that of a node, which itself is not counted."""
        i, j = node.start, node.stop
        if node.eliminated is not None:
            return node.eliminated.peak
        parts = [max(self.peak(p), self._stored(p)) for p in node.parts]
        if node.kind == "product":
            return max(parts)
        k = node.between if node.parts else (i if node.kind == "forward" else j)
        low, high = (k, j) if node.kind == "forward" else (i, k)
        swept = self.forward[i] if node.kind == "forward" else self.reverse[j - 1]
        ends = {id(v) for cut in (self.cuts[i], self.cuts[j]) for v in cut.arrays}
        steps = self.graph.program.steps[self.cuts[low].after : self.cuts[high].after]
        between = {id(v): v for step in steps for v in (*step.outs, *step.sources) if id(v) not in ends}
        return max([*parts, *map(swept.numbers, between.values())], default=0)

    def _reversible(self, i: int, j: int) -> bool:
        """Whether JAX can take all steps between two cuts from their outputs."""
        return not any(self.cuts[i].after <= n < self.cuts[j].after for n in self._one_way)

    @cached_property
    def _one_way(self) -> list[int]:
        return [n for n, step in enumerate(self.graph.program.steps) if not transposable(step.equation)]

    def _stored(self, node: Node) -> int:
        return sum(self.forward[node.start].numbers(v) for v in self.cuts[node.stop].arrays)

    def _dense(self) -> bool:
        """Whether every output depends on every input."""
        first, last = self.cuts[0], self.cuts[-1]
        found = sum(
            t.nnz for v in last.arrays for terms in self.forward[0].terms.get(id(v), {}).values() for t in terms
        )
        return found >= first.size * last.size

    def _cheapest(
        self, best: dict[tuple[int, int], tuple[float, Work, Node]], i: int, j: int
    ) -> tuple[float, Work, Node]:
        """The first of the cheapest ways from cut i to cut j, of all that lies between these the best."""
        seconds, least = self.weights.seconds, (math.inf, NOTHING, Node("forward", i, j))

        def offer(work: Work, kind: Kind, parts: tuple[Node, ...] = ()) -> None:
            nonlocal least
            if (own := seconds(work)) < least[0]:
                least = own, work, Node(kind, i, j, parts)

        offer(self.pushed(i, i, j), "forward")
        if self._reversible(i, j):
            offer(self.pulled(j, i, j), "reverse")
        if j == i + 1 or (i, j) == (0, len(self.cuts) - 1):
            for found in self._eliminations(i, j):
                own = seconds(found.work) * (1 if j == i + 1 else _ACROSS)
                if own < least[0]:
                    least = own, found.work, Node("eliminate", i, j, (), found)
        for k in range(i + 1, j):
            (_, right, first), (_, left, last) = best[i, k], best[k, j]
            offer(right + self.pushed(i, k, j), "forward", (first,))
            if self._reversible(i, k):
                offer(left + self.pulled(j, i, k), "reverse", (last,))
            parts = right + left
            if seconds(parts) < least[0] and (k, j) not in self._tables:  # else no product of them is cheaper
                offer(parts + self.product(i, k, j), "product", (first, last))
        return least

    @cached_property
    def _tables(self) -> set[tuple[int, int]]:
        """The cuts (k, j) whose Jacobian has the places of a table: a product with it would gather its entries."""
        return {
            (k, j)
            for j, cut in enumerate(self.cuts)
            for k, swept in enumerate(self.forward[:j])
            if any(t.indexed for v in cut.arrays for t in swept.terms.get(id(v), {}).get(0, ()))
        }


def pays(swept: tuple[float, int], own: tuple[float, int], dense: bool) -> bool:
    """Whether an order is sure to be cheaper than a sweep, by the seconds and the multiply-adds of both.

    XLA fuses what a sweep only moves and scales, and sparse products gather: only arithmetic that is saved is sure to
    pay, or passes over arrays that no cache holds.
    """
    least = _FEWER_OF_SPARSE if not dense else _FEWER if swept[0] < _LONG else 0
    return swept[0] > Chain.tie * own[0] and swept[1] >= least * own[1]


def until(swept: Swept, step: int) -> Work:
    """The work up to a step, itself not counted."""
    return swept.work.get(step - 1, NOTHING)


_WORTHWHILE = 2  # a link is eliminated where its sweeps take so many times what its Jacobian takes to write
_FEWER, _FEWER_OF_SPARSE = 1.5, 2.5  # times the multiply-adds of a mixed order that the sweeps take at least
_ACROSS = 1.05  # of about equal ways that which is cut into links: its parts are few and large
_LONG = 1e-2  # seconds of a sweep, from which on its passes over memory count as much as its arithmetic


def label(graph: Graph, cut: Cut, k: int, last: int) -> str:
    """The name of cut k of a chain."""
    if k in (0, last):
        return "x" if k == 0 else "y"
    name = graph.program.steps[cut.after - 1].equation.primitive.name
    return f"the {'×'.join(map(str, cut.arrays[0].shape)) or 'number'} of step {cut.after} ({name})"
