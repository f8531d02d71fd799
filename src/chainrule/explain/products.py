"""Products and sums of local Jacobians that are numbers already: what a folded group does as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse

from chainrule._jacobians.structure import Places, Structure

_FULL = 0.1  # from this density on, products are taken with all entries stored


class Pattern:
    """The places of a matrix that are no structural zeros.

    Equal steps share theirs: its structure, and the patterns of its products, are found once for all of them.
    """

    def __init__(self, ones: Any, known: Structure | None = None, places: Any = None) -> None:
        self.ones, self.known = ones, known  # sparse or dense; what the engine says of its structure
        self._places = places
        self._made: dict[tuple[str, Pattern], Pattern] = {}

    @classmethod
    def of(cls, J: Any) -> Pattern:
        """That of a Jacobian of the engine."""
        m, n = J.shape
        rows, cols, _ = J.assemble().coo()
        stored = len(rows)
        if stored > _FULL * m * n:
            ones = np.zeros(J.shape, np.float32)
            ones[rows, cols] = 1
        else:
            pointers = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=m))])
            ones = scipy.sparse.csr_array((np.ones(stored, np.float32), np.asarray(cols), pointers), shape=J.shape)
        return cls(ones, J.structure, (rows, cols))

    @property
    def dense(self) -> bool:
        return isinstance(self.ones, np.ndarray)

    @cached_property
    def full(self) -> Pattern:
        return self if self.dense else Pattern(self.ones.toarray(), self.known)

    @cached_property
    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """(rows, cols), row by row."""
        rows, cols = self._places or np.nonzero(self.full.ones)
        return rows, cols

    @cached_property
    def structure(self) -> Structure:
        return self.known or Places(*self.places, self.ones.shape).structure

    @cached_property
    def columns(self) -> tuple[np.ndarray, np.ndarray]:
        """(the order of the places column by column, where each column begins [n + 1])."""
        cols = self.places[1]
        counts = np.bincount(cols, minlength=self.ones.shape[1])
        return np.argsort(cols, kind="stable"), np.concatenate([[0], np.cumsum(counts)])

    def filled(self, entries: np.ndarray) -> Any:
        """A matrix with these entries at its places."""
        if not self.dense:
            return scipy.sparse.csr_array((entries, self.ones.indices, self.ones.indptr), shape=self.ones.shape)
        found = np.zeros(self.ones.shape)
        found[self.places] = entries
        return found

    def __matmul__(self, other: Pattern) -> Pattern:
        return self._once("@", other, lambda: _reached(self.ones, other.ones))

    def __add__(self, other: Pattern) -> Pattern:
        return self._once("+", other, lambda: _ones(self.ones + other.ones))

    def _once(self, operation: str, other: Pattern, make: Callable[[], Any]) -> Pattern:
        if (operation, other) not in self._made:
            self._made[operation, other] = Pattern(make())
        return self._made[operation, other]


class Product:
    """A matrix that is a product or a sum of Jacobians, with the pattern that theirs give it; what J says of itself."""

    def __init__(self, pattern: Pattern, values: Any = None, order: str = "product", parts: Any = None) -> None:
        self.pattern, self.order = pattern, order
        self.parts = parts  # (A, U, V) of A + U V
        if values is not None:
            self.values = values  # sparse or dense, as the pattern is

    @classmethod
    def of(cls, pattern: Pattern, order: str, entries: np.ndarray, parts: Any) -> Product:
        """A Jacobian of the engine, from the entries that it has once it is assembled."""
        found = cls(pattern, None, order, parts)
        found._entries = np.asarray(entries, np.float64)
        return found

    @cached_property
    def values(self) -> Any:
        return self.pattern.filled(self._entries)

    @cached_property
    def _entries(self) -> np.ndarray:
        return self.full.values[self.pattern.places]

    @property
    def shape(self) -> tuple[int, int]:
        m, n = self.pattern.ones.shape
        return m, n

    @property
    def structure(self) -> Structure:
        return self.pattern.structure

    @property
    def _identity(self) -> bool:
        return self.pattern.known is not None and self.pattern.known.kind == "identity"

    @cached_property
    def full(self) -> Product:
        """The same with all entries stored."""
        return self if self.pattern.dense else Product(self.pattern.full, self.values.toarray())

    def __matmul__(self, other: Product) -> Product:
        if self._identity or other._identity:
            return other if self._identity else self
        with np.errstate(invalid="ignore", over="ignore"):
            return Product(self.pattern @ other.pattern, self.values @ other.values)

    def __add__(self, other: Product) -> Product:
        mixed = self.pattern.dense != other.pattern.dense
        a, b = (self.full, other.full) if mixed else (self, other)
        return Product(a.pattern + b.pattern, a.values + b.values)

    @property
    def nnz(self) -> int:
        return len(self.pattern.places[0])

    def __getitem__(self, index: tuple[int, int]) -> Any:
        return self.values[index]

    def row(self, i: int) -> np.ndarray:
        return self.full.values[i]

    def coo(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return *self.pattern.places, self._entries


def _reached(a: Any, b: Any) -> Any:
    """The pattern of a product; that with a full one needs no product."""
    full = np.ones((a.shape[0], b.shape[1]), np.float32)
    if isinstance(a, np.ndarray) and a.all():
        return full * (np.asarray(b.sum(axis=0)) > 0)
    if isinstance(b, np.ndarray) and b.all():
        return full * (np.asarray(a.sum(axis=1)) > 0)[:, None]
    return _ones(a @ b)


def _ones(pattern: Any) -> Any:
    if isinstance(pattern, np.ndarray):
        return np.minimum(pattern, 1)
    pattern.data[:] = 1
    return pattern


def pushed(start: Any, edges: Sequence[Any], local: dict[str, Any], most: int) -> dict[str, Any]:
    """The Jacobians by one value of all that it reaches through these edges, in topological order.

    None stands for one that is not formed, as it has more than `most` entries.
    """
    reached: dict[str, Any] = {}
    for edge in edges:
        J = local[edge.id]
        if edge.start is not start:
            if edge.start.id not in reached:
                continue
            before = reached[edge.start.id]
            small = J is not None and before is not None and J.shape[0] * before.shape[1] <= most
            J = J @ before if small else None
        if edge.stop.id in reached:
            other = reached[edge.stop.id]
            J = None if other is None or J is None else other + J
        reached[edge.stop.id] = J
    return reached


def constant(matrix: np.ndarray) -> Product:
    """A matrix whose zeros are structural."""
    return Product(Pattern((matrix != 0).astype(np.float32)), matrix)


def stacked(parts: Sequence[Product], axis: int) -> Product:
    """Matrices under each other (0) or side by side (1)."""
    if len(parts) == 1:
        return parts[0]
    full = [p.full for p in parts]
    pattern = Pattern(np.concatenate([p.pattern.ones for p in full], axis))
    return Product(pattern, np.concatenate([p.values for p in full], axis))
