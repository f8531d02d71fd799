"""Nested dissection of a sparse pattern: a tree of dense fronts, of equal size on each level (George 1973).

A separator is a set of unknowns without which the others fall into two parts that share no entry. Each part is bisected
in turn. The front of a part holds its pivots, the separators that split it, and its boundary: the unknowns of larger
separators that share an entry with the part. Leaves of the tree are eliminated first, the largest separator last.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

_LEAF = 5  # unknowns of a part that is not bisected any more
_WIDEST = 3  # bisections that make one level of the tree, at most
# ns on a core of a CPU: to multiply and add, for an entry of a small inverse, to read an entry from a child, for a
# front, for a level (which takes a while to compile, too)
_PRODUCT, _INVERSE, _MOVE, _FRONT, _LEVEL = 0.07, 20.0, 1.0, 500.0, 1e5


@dataclass(frozen=True)
class Fronts:
    """The k fronts of a level: rows and columns of s pivots and b of the boundary. The children of front i are
    fronts a i, … a i + a - 1 of the next level.

    pivots : [k, s] unknowns; n where a front has fewer of them.
    boundary : b.
    rows : which entries of the matrix lie in rows of pivots, and where they stand in these [k, s, s + b], flattened;
        entry number nnz is a 1, the diagonal of pivots that are missing.
    columns : which entries lie in columns of pivots and rows of the boundary, and where in these [k, b, s], flattened.
    children : [a, k, s + b] where it stands on the boundaries of the first, … last children [a k, b' + 1], flattened;
        the last place of a boundary where it stands nowhere.
    parent : [k, b] where the boundary stands in the fronts of the parents [k / a', s' + b' + 1], flattened; the last
        place of a front where there is no more of it.
    """

    pivots: np.ndarray
    boundary: int
    rows: tuple[np.ndarray, np.ndarray]
    columns: tuple[np.ndarray, np.ndarray]
    children: np.ndarray
    parent: np.ndarray


class Dissection:
    """The parts and separators of a pattern, taken together to levels so that their fronts are cheap to factor."""

    def __init__(self, rows: np.ndarray, cols: np.ndarray, n: int):
        self.rows, self.cols, self.n = rows.astype(np.int64), cols.astype(np.int64), n
        self.depth = max(int(np.log2(n / _LEAF)), 0)
        self.edges = np.concatenate([[self.rows, self.cols], [self.cols, self.rows]], axis=1)
        self.part, self.level = _bisected(self.edges, n, self.depth)
        self.boundaries = [self._boundary(level) for level in range(self.depth + 1)]
        self.ns, self.starts = self._grouped()

    def part_on(self, level: int, unknown: np.ndarray) -> np.ndarray:
        """The parts on a level that unknowns of this level or a deeper one lie in."""
        return self.part[unknown] >> (self.depth - level)

    def _boundary(self, level: int) -> np.ndarray:
        """The keys (part · n + unknown) of the boundaries of the parts on a level, in order."""
        inside, outside = self.edges[:, (self.level[self.edges[0]] >= level) & (self.level[self.edges[1]] < level)]
        return np.unique(self.part_on(level, inside) * self.n + outside)

    def pivots(self, first: int, last: int) -> np.ndarray:
        """The keys of the unknowns from level `first` up to level `last`, in order."""
        own = np.flatnonzero((self.level >= first) & (self.level < last))
        return np.sort(self.part_on(first, own) * self.n + own)

    def _cost(self, first: int, last: int) -> float:
        """Nanoseconds to factor the fronts of these levels taken together."""
        k, keys = 1 << first, (self.pivots(first, last), self.boundaries[first])
        s, b = (int(np.bincount(own // self.n, minlength=1).max()) for own in keys)
        products, children = s * s * b + (s + b) * s * b, 1 << (last - first) if last <= self.depth else 1
        moves = children * (s + b) ** 2
        return k * (_PRODUCT * products + _INVERSE * s * s + _MOVE * moves + _FRONT) + _LEVEL

    def _grouped(self) -> tuple[float, list[int]]:
        """The least cost of all, and on which levels the groups begin that it takes."""
        end = self.depth + 1
        best: dict[int, tuple[float, list[int]]] = {end: (0.0, [])}
        for first in reversed(range(end)):
            ends = range(first + 1, min(first + _WIDEST, end) + 1)
            best[first] = min((self._cost(first, last) + best[last][0], [first, *best[last][1]]) for last in ends)
        return best[0]

    @cached_property
    def fronts(self) -> list[Fronts]:
        """The groups of levels, the root first."""
        ends = [*self.starts[1:], self.depth + 1]
        groups = [_Group(self, first, last) for first, last in zip(self.starts, ends, strict=True)]
        below, above = [*groups[1:], None], [None, *groups[:-1]]
        return [_fronts(self, *three) for three in zip(groups, below, above, strict=True)]


class _Group:
    """Which unknowns stand where in the fronts of some levels that are taken together."""

    def __init__(self, d: Dissection, first: int, last: int):
        self.d, self.first, self.last, self.count = d, first, last, 1 << first
        self.keys = d.pivots(first, last), d.boundaries[first]
        self.starts = [np.searchsorted(keys, np.arange(self.count + 1) * d.n) for keys in self.keys]
        s, b = (int(np.diff(starts).max()) for starts in self.starts)
        self.widths, self.size = (max(s, 1), b), max(s, 1) + b

    def index(self, which: int) -> tuple[np.ndarray, np.ndarray]:
        """The part of each pivot (0) or unknown of the boundary (1), and its number there."""
        part = self.keys[which] // self.d.n
        return part, np.arange(len(part)) - self.starts[which][part]

    def pivots(self) -> np.ndarray:
        """[k, s]."""
        table = np.full((self.count, self.widths[0]), self.d.n)
        table[self.index(0)] = self.keys[0] % self.d.n
        return table

    def place(self, part: np.ndarray, unknown: np.ndarray) -> np.ndarray:
        """Where unknowns stand in the fronts of parts."""
        key = part * self.d.n + unknown
        as_pivot, on_boundary = (np.searchsorted(keys, key) for keys in self.keys)
        is_pivot = np.append(self.keys[0], -1)[as_pivot] == key
        return np.where(is_pivot, as_pivot - self.starts[0][part], self.widths[0] + on_boundary - self.starts[1][part])


def _fronts(d: Dissection, own: _Group, below: _Group | None, above: _Group | None) -> Fronts:
    pivots, (s, b), size = own.pivots(), own.widths, own.size
    deeper = np.maximum(d.level[d.rows], d.level[d.cols])
    entries = np.flatnonzero((deeper >= own.first) & (deeper < own.last))
    row, col = d.rows[entries], d.cols[entries]
    part = d.part_on(own.first, np.where(d.level[row] >= own.first, row, col))
    row, col = own.place(part, row), own.place(part, col)
    front, missing = np.nonzero(pivots == d.n)
    places = [((part * s + row) * size + col)[row < s], (front * s + missing) * size + missing]
    rows = np.append(entries[row < s], np.full(len(front), len(d.rows))), np.concatenate(places)
    columns = entries[row >= s], ((part * b + row - s) * s + col)[row >= s]

    children = np.zeros((0, own.count, own.size), np.int64)
    if below:
        a, wide = below.count // own.count, below.widths[1] + 1
        child, number = below.index(1)
        children = np.arange(below.count).reshape(own.count, a).T[:, :, None] * wide + np.full(own.size, wide - 1)
        children[child % a, child // a, own.place(child // a, below.keys[1] % d.n)] = child * wide + number
    parent = np.zeros((own.count, 0), np.int64)
    if above:
        (part, number), over, wide = own.index(1), np.arange(own.count) * above.count // own.count, above.size + 1
        parent = over[:, None] * wide + np.full(own.widths[1], wide - 1)
        parent[part, number] = over[part] * wide + above.place(over[part], own.keys[1] % d.n)
    return Fronts(pivots.astype(np.int32), b, _short(rows), _short(columns), *_short((children, parent)))


def _short(arrays: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return arrays[0].astype(np.int32), arrays[1].astype(np.int32)


def _bisected(edges: np.ndarray, n: int, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """(part on the last level, level of the separator that it belongs to, or the last level) of each unknown."""
    part, level = np.zeros(n, np.int64), np.full(n, depth)
    edges = edges[:, edges[0] != edges[1]]
    for step in range(depth):
        edges = edges[:, (part[edges[0]] == part[edges[1]]) & (level[edges] == depth).all(0)]
        side, cut = _separated(edges, part, np.flatnonzero(level == depth), 1 << step)
        level[cut] = step
        part = 2 * part + side
    return part, level


def _separated(edges: np.ndarray, part: np.ndarray, live: np.ndarray, parts: int) -> tuple[np.ndarray, np.ndarray]:
    """(which half [n], whether on the separator [n]): of several ways to halve each part, that of the least separator.

    Each way orders the unknowns by their distance from one that lies far out, or by the difference of two such
    distances: its level sets are straight where those of one distance are circles. The separator is the rim of a half.
    """
    n, sizes = len(part), np.bincount(part[live], minlength=parts)
    starts = np.cumsum(sizes) - sizes
    side, cut, least = np.zeros(n, bool), np.zeros(n, bool), np.full(parts, n)
    component, distances = _distances(edges, n)
    a, b, c = distances
    for score, then in ((a, b), (a - c, a), (b - c, b)):
        order = live[_ordered(part[live], component[live], score[live] + n, then[live])]
        number = np.arange(len(order)) - starts[part[order]]
        for half in (False, True):
            count = np.zeros(parts, np.int64)
            for _ in range(2):  # the second time the halves are equal without the rim
                far, rim = np.zeros(n, bool), np.zeros(n, bool)
                far[order] = number >= ((sizes + (-count if half else count)) // 2)[part[order]]
                rim[edges[0][(far[edges[0]] == half) & (far[edges[1]] != half)]] = True
                count = np.bincount(part[rim], minlength=parts)
            better = (count < least)[part]
            least = np.minimum(count, least)
            side, cut = np.where(better, far, side), np.where(better, rim, cut)
    return side, cut


def _distances(edges: np.ndarray, n: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """The component of each unknown, and its distances from three that lie far from each other in that component."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import breadth_first_order, connected_components

    graph = csr_array((np.ones(edges.shape[1]), (edges[0], edges[1])), shape=(n, n))
    component = connected_components(graph, directed=False)[1]

    def from_(starts: np.ndarray) -> np.ndarray:
        """Steps from the start in each component: a search from one more vertex, next to all of them."""
        indices, last = np.append(graph.indices, starts), len(graph.indices) + len(starts)
        wide = csr_array((np.ones(last), indices, np.append(graph.indptr, last)), shape=(n + 1, n + 1))
        before = breadth_first_order(wide, n)[1]
        before[n] = n
        steps = np.append(np.ones(n, np.int64), 0)
        while (before != n).any():  # the way to the start is known for twice as many steps each time
            steps, before = steps + steps[before], before[before]
        return steps[:n]

    def farthest(distance: np.ndarray) -> np.ndarray:
        order = _ordered(component, distance)
        return order[np.append(component[order][1:] != component[order][:-1], True)]

    found = [from_(farthest(from_(farthest(np.zeros(n, np.int64)))))]
    for _ in range(2):
        found.append(from_(farthest(np.minimum.reduce(found))))
    return component, found


def _ordered(*keys: np.ndarray) -> np.ndarray:
    """Like `np.lexsort` of whole numbers ≥ 0, the first key counting most: in one sort."""
    one = np.zeros(len(keys[0]), np.int64)
    for key in keys:
        one = one * (int(key.max(initial=0)) + 1) + key
    return np.argsort(one, kind="stable")
