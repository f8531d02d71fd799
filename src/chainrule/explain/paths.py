"""Sum over paths: how many there are, the largest ones, and the rest; they are never enumerated.

The vertices are scalar components of values. Numbers of paths come from dynamic programming in exact whole numbers, the
largest products from a best-first search that knows the largest product from every vertex to the output.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chainrule.explain.encode import number
from chainrule.explain.products import Pattern

_BITS = 30  # of one limb of a whole number
_BEYOND = 1e9  # the logarithm that stands for what is not finite


@dataclass(frozen=True)
class Link:
    """An edge between two values, with the entries of its matrix that are not zero, column by column.

    Rows are the components of `stop`, columns those of `start`; `begins` [n + 1] says where each column begins.
    """

    id: str
    start: str
    stop: str
    rows: np.ndarray
    values: np.ndarray
    begins: np.ndarray

    def column(self, c: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows and the values of a column."""
        own = slice(self.begins[c], self.begins[c + 1])
        return self.rows[own], self.values[own]

    def gathered(self, ufunc: np.ufunc, terms: np.ndarray, into: np.ndarray) -> None:
        """Put the terms of each column's entries together, with those that are there: into[c] ∘= term ∘ term ∘ …"""
        full = np.flatnonzero(np.diff(self.begins))
        if len(full):
            into[full] = ufunc(into[full], ufunc.reduceat(terms, self.begins[full], axis=0))


@dataclass(frozen=True)
class PathSum:
    """∂yᵢ/∂xⱼ as a sum over paths; `top` are the largest ones, then some that meet a zero."""

    i: int
    j: int
    value: float
    count: int
    zero: int
    top: tuple[dict[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        shown = sum(1 for p in self.top if p["nonzero"])
        rest = self.value - float(np.sum([p["product"] for p in self.top]))
        return {
            "i": self.i,
            "j": self.j,
            "value": number(self.value),
            "count": str(self.count),
            "zero": str(self.zero),
            "total": str(self.count + self.zero),
            "top": [
                {
                    "product": number(p["product"]),
                    "factors": [number(v) for v in p["factors"]],
                    "edges": list(p["edges"]),
                    "components": [list(c) for c in p["components"]],
                }
                for p in self.top
            ],
            "rest": {"count": str(self.count - shown), "sum": number(rest)},
        }


def link(name: str, start: str, stop: str, pattern: Pattern, entries: np.ndarray) -> Link:
    """An edge from the entries at the places of a pattern."""
    order, begins = pattern.columns
    rows, values = pattern.places[0][order], np.asarray(entries, np.float64)[order]
    if not values.all():
        begins = np.concatenate([[0], np.cumsum(values != 0)])[begins]
        rows, values = rows[values != 0], values[values != 0]
    return Link(name, start, stop, rows, values, begins)


def path_sum(
    order: Sequence[str],
    sizes: Mapping[str, int],
    links: Sequence[Link],
    first: tuple[str, int],
    last: tuple[str, int],
    numbers: tuple[int, int],
    value: float | None,
    k: int,
) -> PathSum:
    """The paths from component `first` to component `last`; `order` is topological, `numbers` are (i, j)."""
    graph = _Between(order, sizes, links, first, last)
    count, total = graph.counts()
    top = list(itertools.islice(graph.best(k), k))
    if len(top) < k and count == len(top):
        top += itertools.islice(graph.zeros(), k - len(top))
    if value is None:
        value = graph.value()
    return PathSum(*numbers, float(value), count, total - count, tuple(top))


class _Between:
    """The part of the graph that lies between two components."""

    def __init__(
        self, order: Sequence[str], sizes: Mapping[str, int], links: Sequence[Link], first: Any, last: Any
    ) -> None:
        self.first, self.last, self.sizes = first, last, sizes
        at = {v: k for k, v in enumerate(order)}
        ahead, behind = {first[0]}, {last[0]}
        links = sorted(links, key=lambda e: at[e.stop])
        for e in links:
            if e.start in ahead and e.start != last[0]:
                ahead.add(e.stop)
        for e in sorted(links, key=lambda e: -at[e.start]):
            if e.stop in behind and e.stop != first[0]:
                behind.add(e.start)
        within = ahead & behind if last[0] in ahead else set()
        self.order = [v for v in order if v in within]
        self.links = [e for e in links if {e.start, e.stop} <= within and e.start != last[0] and e.stop != first[0]]
        self.out: dict[str, list[Link]] = {v: [] for v in within}
        for e in self.links:
            self.out[e.start].append(e)

    def _from_output(self, seed: Any, step: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for v in reversed(self.order):
            found[v] = seed if v == self.last[0] else step([(e, found[e.stop]) for e in self.out[v]], self.sizes[v])
        return found

    def counts(self) -> tuple[int, int]:
        """(paths without a zero factor, all paths through components of these values)."""
        if self.first[0] == self.last[0]:
            same = self.first[1] == self.last[1]
            return int(same), int(same)
        if not self.order:
            return 0, 0
        seed = np.zeros((self.sizes[self.last[0]], 1), np.int64)
        seed[self.last[1]] = 1
        limbs = self._from_output(seed, _counted)[self.first[0]][self.first[1]]
        totals: dict[str, int] = {self.last[0]: 1}
        for v in reversed(self.order[:-1] if self.order[-1] == self.last[0] else self.order):
            if v != self.last[0]:
                ways = (1 if e.stop == self.last[0] else self.sizes[e.stop] for e in self.out[v])
                totals[v] = sum(w * totals[e.stop] for w, e in zip(ways, self.out[v], strict=True))
        return sum(int(limb) << (_BITS * p) for p, limb in enumerate(limbs)), totals[self.first[0]]

    def value(self) -> float:
        """The sum itself."""
        if self.first[0] == self.last[0] or not self.order:
            return float(self.first == self.last)
        seed = np.zeros(self.sizes[self.last[0]])
        seed[self.last[1]] = 1

        def step(pairs: Any, size: int) -> Any:
            found = np.zeros(size)
            for e, ahead in pairs:
                e.gathered(np.add, e.values * ahead[e.rows], found)
            return found

        return float(self._from_output(seed, step)[self.first[0]][self.first[1]])

    def best(self, k: int) -> Iterator[dict[str, Any]]:
        """Paths without a zero, the largest product first: the bound of a partial path is what its best end gives."""
        if self.first[0] == self.last[0]:
            if self.first == self.last:
                yield _path([], [self.first], [])
            return
        if not self.order:
            return
        seed = np.full(self.sizes[self.last[0]], -np.inf)
        seed[self.last[1]] = 0.0
        bound = self._from_output(seed, _largest)
        ticket, taken = itertools.count(), dict[Any, int]()
        # of equal bounds the longest path first, so that ties do not spread
        heap: list[Any] = [(_rank(bound[self.first[0]][self.first[1]], 0), next(ticket), 0.0, [self.first], [], [])]
        while heap:
            rank, _, size, at, factors, edges = heapq.heappop(heap)
            if np.isposinf(rank[0]):
                return
            v, c = at[-1]
            if v == self.last[0]:
                yield _path(factors, at, edges)
                continue
            taken[v, c] = taken.get((v, c), 0) + 1
            if taken[v, c] > k:  # the best paths begin with the k best ways to here
                continue
            children: list[Any] = []
            for e in self.out[v]:
                rows, values = e.column(c)
                sizes = size + _logarithm(values)
                scores = sizes + bound[e.stop][rows]
                for p in np.argsort(-scores, kind="stable")[:k]:
                    if not np.isneginf(scores[p]):
                        here = [*at, (e.stop, int(rows[p]))]
                        rest = (float(sizes[p]), here, [*factors, float(values[p])], [*edges, e.id])
                        children.append((_rank(scores[p], len(here)), next(ticket), *rest))
            for child in heapq.nsmallest(k, children):
                heapq.heappush(heap, child)

    def zeros(self) -> Iterator[dict[str, Any]]:
        """Paths that meet a zero; to be asked for only where there are few others."""
        if self.first[0] == self.last[0] or not self.order:
            return
        stack: list[Any] = [([self.first], [], [])]
        while stack:
            at, factors, edges = stack.pop()
            v, c = at[-1]
            if v == self.last[0]:
                if not all(factors):
                    yield _path(factors, at, edges)
                continue
            for e in reversed(self.out[v]):
                rows = [self.last[1]] if e.stop == self.last[0] else range(self.sizes[e.stop])
                column = np.zeros(self.sizes[e.stop])
                column[e.column(c)[0]] = e.column(c)[1]
                ways = (([*at, (e.stop, int(r))], [*factors, float(column[r])], [*edges, e.id]) for r in reversed(rows))
                stack.extend(ways)


def _path(factors: list[float], at: list[Any], edges: list[str]) -> dict[str, Any]:
    product = float(np.prod(factors)) if all(factors) else 0.0  # what meets a zero is zero, whatever else it meets
    return {"product": product, "factors": factors, "components": at, "edges": edges, "nonzero": all(factors)}


def _rank(bound: float, length: int) -> tuple[float, int]:
    return round(-float(bound), 9), -length


def _logarithm(values: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.isfinite(values), np.log(np.abs(values)), _BEYOND)


def _largest(pairs: Any, size: int) -> Any:
    """The largest product from each component on, as a logarithm."""
    found = np.full(size, -np.inf)
    for e, ahead in pairs:
        e.gathered(np.maximum, _logarithm(e.values) + ahead[e.rows], found)
    return found


def _counted(pairs: Any, size: int) -> Any:
    """The numbers of paths from each component on, in limbs [size, limbs]: exact whole numbers of any length."""
    found = np.zeros((size, max(limbs.shape[1] for _, limbs in pairs)), np.int64)
    for e, limbs in pairs:
        e.gathered(np.add, limbs[e.rows], found[:, : limbs.shape[1]])
    while (carry := found >> _BITS).any():
        found &= (1 << _BITS) - 1
        if carry[:, -1].any():
            found, carry = (np.pad(a, ((0, 0), (0, 1))) for a in (found, carry))
        found[:, 1:] += carry[:, :-1]
    return found
