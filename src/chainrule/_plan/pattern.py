"""What a local Jacobian is, axis by axis, from shapes alone; products and sums of such patterns, and what they cost.

The Jacobian of an array s with respect to an array p is a sum of `Term`s. A term is a Kronecker product of small
matrices, each over some axes of p and some of s (a `Group`): the diagonal of an axis that both share, the full matrix
of the axes that a contraction sums and those that it makes, the row of ones of a sum. A product of two terms multiplies
the groups that meet at an axis of the array between, which has n elements along the axes that meet:

    multiply-adds = nnz(A) nnz(B) / n,   nnz(AB) = min(multiply-adds, rows · columns)

the first exact for diagonals, full matrices and bands of equal rows, the second a bound.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

Axes = frozenset[int]
Shape = tuple[int, ...]


class Group(NamedTuple):
    """One factor, over axes `ins` of the source and `outs` of the target; all of its `nnz` entries are 1 if `unit`.

    Its places are those of a table of indices if it is `indexed`.
    """

    ins: Axes
    outs: Axes
    columns: int  # elements of the axes of the source
    rows: int  # elements of the axes of the target
    nnz: int
    unit: bool
    indexed: bool = False

    @property
    def slots(self) -> int:
        """Entries in a row, rounded up."""
        return -(-self.nnz // max(self.rows, 1))


def group(source: Shape, target: Shape, ins: Iterable[int], outs: Iterable[int], nnz: int, unit: bool = True) -> Group:
    """A group of axes of arrays of these shapes; axes of size 1 are left out."""
    ins, outs = (frozenset(k for k in axes if shape[k] != 1) for axes, shape in ((ins, source), (outs, target)))
    return Group(ins, outs, math.prod(source[k] for k in ins), math.prod(target[k] for k in outs), nnz, unit)


NUMBER = Group(frozenset(), frozenset(), 1, 1, 1, False)  # a number other than 1, of no axis


@dataclass(frozen=True)
class Term:
    """A Kronecker product of groups; `key` tells apart what equal groups may hide (a shift of the places).

    unit : whether every entry is 1 (or one number).
    stored : numbers that are stored: what is the same along an axis of the rows is stored once; a row is stored whole.
    """

    groups: tuple[Group, ...]
    key: int = 0
    unit: bool = field(init=False, compare=False)
    stored: int = field(init=False, compare=False)
    _hash: int = field(init=False, compare=False, repr=False)  # the same terms are looked up again and again

    def __post_init__(self) -> None:
        unit, stored = True, 1
        for g in self.groups:
            unit, stored = unit and g.unit, stored * (g.slots if g.unit else g.nnz)
        self.__dict__.update(unit=unit, stored=1 if unit else stored, _hash=hash((self.groups, self.key)))

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def partition(self) -> frozenset[tuple[Axes, Axes]]:
        """Which axes belong together."""
        return frozenset((g.ins, g.outs) for g in self.groups)

    @property
    def T(self) -> Term:
        """The transpose."""
        return Term(
            tuple(Group(g.outs, g.ins, g.rows, g.columns, g.nnz, g.unit, g.indexed) for g in self.groups), self.key
        )

    @cached_property
    def nnz(self) -> int:
        """Entries."""
        return math.prod(g.nnz for g in self.groups)

    @cached_property
    def indexed(self) -> bool:
        """Whether the places of a factor are those of a table."""
        return any(g.indexed for g in self.groups)


Terms = tuple[Term, ...]
_MOST_TERMS = 6
_FUSED = 16  # numbers; XLA lays smaller products together, which then take no time of their own


def diagonal(shape: Shape) -> Terms:
    """The pattern of an array with respect to itself."""
    return (Term(tuple(group(shape, shape, [k], [k], n) for k, n in enumerate(shape) if n != 1)),)


def full(source: Shape, target: Shape) -> Term:
    """Every element of the target depends on every one of the source."""
    nnz = math.prod(source) * math.prod(target)
    return Term((group(source, target, range(len(source)), range(len(target)), nnz, False),))


@dataclass(slots=True)  # not frozen: sums of it are made by the ten thousand, in a third of the time
class Work:
    """What operations take: their number, multiply-adds, and numbers that are read and written."""

    operations: int = 0
    multiply_adds: int = 0
    numbers: int = 0

    def __add__(self, other: Work) -> Work:
        if other is NOTHING:
            return self
        return Work(
            self.operations + other.operations,
            self.multiply_adds + other.multiply_adds,
            self.numbers + other.numbers,
        )

    def __sub__(self, other: Work) -> Work:
        return Work(
            self.operations - other.operations,
            self.multiply_adds - other.multiply_adds,
            self.numbers - other.numbers,
        )


NOTHING = Work()


def compose(outer: Terms, inner: Terms, source: Shape, target: Shape) -> tuple[Terms, Work]:
    """The product outer · inner of patterns, and what it takes; the shapes are those of both ends."""
    if len(outer) == len(inner) == 1:
        term, work = _product(outer[0], inner[0])
        return (term,), work
    products = [_product(b, a) for b in outer for a in inner]
    return total(tuple(term for term, _ in products), source, target), sum((work for _, work in products), NOTHING)


_kept = functools.lru_cache(maxsize=2**14)  # layers of a network are alike


@_kept
def _product(outer: Term, inner: Term) -> tuple[Term, Work]:
    groups, multiply_adds, summed, scaled = [], 1, False, False
    for mine, others in _meeting(outer, inner):
        ins, outs, columns, between, rows, count = frozenset[int](), frozenset[int](), 1, 1, 1, 1
        unit, indexed = True, False
        for g in others:
            ins, columns, between, count = ins | g.ins, columns * g.columns, between * g.rows, count * g.nnz
            unit, indexed = unit and g.unit, indexed or g.indexed
        for g in mine:
            outs, rows, count = outs | g.outs, rows * g.rows, count * g.nnz
            unit, indexed = unit and g.unit, indexed or g.indexed
        count //= max(between, 1)
        most = columns * rows
        nnz = min(count, most)
        made = Group(ins, outs, columns, rows, nnz, unit, indexed and nnz < most)
        summed = summed or nnz < count
        multiply_adds *= made.slots if made.unit else count
        scaled = scaled or not made.unit
        if made.ins or made.outs or nnz != 1:
            groups.append(made)
    if scaled and all(g.unit for g in groups):
        groups.append(NUMBER)
    term = Term(tuple(groups), hash((outer.key, inner.key)) if outer.key and inner.key else outer.key or inner.key)
    if (outer.unit or inner.unit) and not summed:  # entries are taken over, or copied: XLA fuses it
        return term, NOTHING
    return term, Work(int(term.stored >= _FUSED), multiply_adds, outer.stored + inner.stored + term.stored)


def _meeting(outer: Term, inner: Term) -> list[tuple[list[Group], list[Group]]]:
    """The groups of both that are connected by axes of the array between."""
    parts: list[tuple[list[Group], list[Group], Axes]] = [([], [g], g.outs) for g in inner.groups]
    for g in outer.groups:
        part: tuple[list[Group], list[Group], Axes] = [g], [], g.ins
        apart = []
        for other in parts:
            if other[2].isdisjoint(g.ins):
                apart.append(other)
            else:
                part = part[0] + other[0], part[1] + other[1], part[2] | other[2]
        parts = [*apart, part]
    return [(mine, others) for mine, others, _ in parts]


@_kept
def total(terms: Terms, source: Shape, target: Shape) -> Terms:
    """The sum: equal places are added, many different ones are joined."""
    kept: dict[object, Term] = {}
    for t in terms:
        key = (t.partition, t.key)
        found = kept.get(key)
        kept[key] = t if found is None else _sum(found, t)
    if len(kept) > _MOST_TERMS:
        joined: dict[object, Term] = {}
        for t in kept.values():
            found = joined.get(t.partition)
            joined[t.partition] = t if found is None else _joined(found, t)
        kept = joined
    count, most = sum(t.nnz for t in kept.values()), math.prod(source) * math.prod(target)
    if len(kept) > 1 and (len(kept) > _MOST_TERMS or count >= most > 1):
        unit = count < most and all(t.unit for t in kept.values())
        every = group(source, target, range(len(source)), range(len(target)), min(count, most), unit)
        return (Term((every,), hash(tuple(t.key for t in kept.values()))),)
    return tuple(kept.values())


def _sum(a: Term, b: Term) -> Term:
    others = {(g.ins, g.outs): g for g in b.groups}
    return Term(
        tuple(
            Group(g.ins, g.outs, g.columns, g.rows, max(g.nnz, o.nnz), g.unit and o.unit, g.indexed or o.indexed)
            for g in a.groups
            for o in [others[g.ins, g.outs]]
        ),
        a.key,
    )


def _joined(a: Term, b: Term) -> Term:
    """Entries of both, as more of them in the first group that a diagonal or a full matrix is."""
    same, groups = _sum(a, b), []
    left = (a.nnz + b.nnz) / max(same.nnz, 1)
    for g in same.groups:
        more = min(math.ceil(g.nnz * left), max(g.columns * g.rows, 1)) if g.ins and g.outs and left > 1 else g.nnz
        groups.append(g._replace(nnz=more))
        left *= g.nnz / max(more, 1)
    return Term(tuple(groups), hash((a.key, b.key)))


def columns(terms: Terms, target: Shape) -> int:
    """Columns that hold the entries of a row, rounded up: an equation that is applied column by column takes these."""
    return -(-sum(t.nnz for t in terms) // max(math.prod(target), 1))


def stored(terms: Terms) -> int:
    """Numbers that a sum of terms stores."""
    return sum(t.stored for t in terms if not t.unit)
