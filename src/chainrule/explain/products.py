"""Products and sums of local Jacobians that are numbers already: what a folded group does as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse

from chainrule._structure import Places, Structure

_FULL = 0.1  # from this density on, products are taken with all entries stored


class Product:
    """A matrix that is a product or a sum of Jacobians, with the pattern that theirs give it; what J says of itself."""

    def __init__(
        self, values: Any, pattern: Any, known: Structure | None = None, order: str = "product", parts: Any = None
    ) -> None:
        self.values, self.pattern = values, pattern  # of equal shape, both sparse or both dense
        self.known, self.order = known, order  # what the engine says of it
        self.parts = parts  # (A, U, V) of A + U V

    @classmethod
    def of(cls, J: Any, entries: Any) -> Product:
        """A Jacobian of the engine, and the numbers of its entries once it is assembled."""
        numbers = np.asarray(entries, np.float64)
        m, n = J.shape
        rows, cols = np.divmod(np.arange(m * n), n) if len(numbers) == m * n else J._positions()
        if len(numbers) > _FULL * m * n:
            values, pattern = np.zeros(J.shape), np.zeros(J.shape, np.float32)
            values[rows, cols], pattern[rows, cols] = numbers, 1
        else:
            values = scipy.sparse.csr_array((numbers, (rows, cols)), shape=J.shape)
            pattern = scipy.sparse.csr_array((np.ones(len(rows), np.float32), (rows, cols)), shape=J.shape)
        found = cls(values, pattern, J.structure, J.order, getattr(J, "parts", None))
        found.__dict__["_entries"] = rows, cols, numbers
        return found

    @property
    def shape(self) -> tuple[int, int]:
        m, n = self.values.shape
        return m, n

    @property
    def dense(self) -> bool:
        return isinstance(self.values, np.ndarray)

    @property
    def identity(self) -> bool:
        return self.known is not None and self.known.kind == "identity"

    def full(self) -> Product:
        return self if self.dense else Product(self.values.toarray(), self.pattern.toarray(), self.known)

    def __matmul__(self, other: Product) -> Product:
        if self.identity or other.identity:
            return other if self.identity else self
        a, b = (self.full(), other.full()) if self.dense or other.dense else (self, other)
        with np.errstate(invalid="ignore", over="ignore"):
            return Product(a.values @ b.values, _reached(a.pattern, b.pattern))

    def __add__(self, other: Product) -> Product:
        a, b = (self.full(), other.full()) if self.dense or other.dense else (self, other)
        return Product(a.values + b.values, _ones(a.pattern + b.pattern))

    @cached_property
    def _entries(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        found = self.full()
        rows, cols = np.nonzero(found.pattern)
        return rows, cols, found.values[rows, cols]

    @property
    def nnz(self) -> int:
        return len(self._entries[0])

    def __getitem__(self, index: tuple[int, int]) -> Any:
        return self.values[index]

    def row(self, i: int) -> np.ndarray:
        return self.full().values[i]

    def coo(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self._entries

    @cached_property
    def structure(self) -> Structure:
        return self.known or Places(*self._entries[:2], self.shape).structure


def _reached(a: Any, b: Any) -> Any:
    """The pattern of a product; that with a full one needs no product."""
    if isinstance(a, np.ndarray) and a.all():
        return np.broadcast_to(b.max(axis=0, initial=0), (len(a), b.shape[1]))
    if isinstance(b, np.ndarray) and b.all():
        return np.broadcast_to(a.max(axis=1, initial=0)[:, None], (len(a), b.shape[1]))
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


def stacked(parts: Sequence[Any], axis: int) -> Product:
    """Matrices under each other (0) or side by side (1)."""
    if len(parts) == 1:
        return parts[0]
    full = [p.full() for p in parts]
    values, pattern = (np.concatenate([getattr(p, k) for p in full], axis) for k in ("values", "pattern"))
    return Product(values, pattern)
