"""One method of elimination for each kind of pattern.

A method is made once from static places. `factor(values)` gives arrays; `solve(factors, b, transposed)` takes b [r, n];
`slogdet(values)` is differentiable. What a singular matrix gives is inf or nan, and is judged by who calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._jacobians.structure import Places
from chainrule._linalg import small
from chainrule._linalg.differentiable import sign_and_log
from chainrule._linalg.host import Sparse, parity, working
from chainrule._linalg.multifrontal import Multifrontal
from chainrule._memory import require_memory


class Method(Protocol):
    """How to solve with, and take the determinant of, the matrices of one pattern."""

    def factor(self, values: Any) -> Any:
        """[nnz] -> arrays."""

    def solve(self, factors: Any, b: Any, transposed: bool) -> Any:
        """[r, n] -> [r, n], in the dtype of the factors."""

    def slogdet(self, values: Any) -> tuple[Any, Any]:
        """[nnz] -> sign and log |det|."""

    def det(self, values: Any) -> Any:
        """[nnz] -> det, as a product where there is one: differentiable where it vanishes too."""


class ScaledPermutation:
    """One entry in every row and in every column: a division."""

    def __init__(self, p: Places):
        self._cols, self._parity = p.cols, parity(p.cols)
        self._row_of = np.argsort(p.cols)
        self._straight = bool((p.cols == np.arange(len(p.cols))).all())

    def factor(self, values: Any) -> Any:
        return (values.astype(working(values.dtype)),)

    def solve(self, factors: Any, b: Any, transposed: bool) -> Any:
        if self._straight:
            return b / factors[0][None]
        return b[:, self._cols] / factors[0][None] if transposed else (b / factors[0][None])[:, self._row_of]

    def slogdet(self, values: Any) -> tuple[Any, Any]:
        sign, log = sign_and_log(values.astype(working(values.dtype)))
        return sign * self._parity, log

    def det(self, values: Any) -> Any:
        """[nnz] -> the product of the entries, with the sign of the permutation."""
        return jnp.prod(values.astype(working(values.dtype))) * self._parity


class _Group:
    """The blocks of one size p: their rows [k, p], columns [k, p] and entries [k, p, p] (-1: absent)."""

    def __init__(self, rows: np.ndarray, cols: np.ndarray, take: np.ndarray, sources: np.ndarray | None):
        self.rows, self.cols, self.take = rows, cols, take
        if sources is not None and len(take) > 1:
            stored = np.where(take < 0, -1, sources[take])
            if (stored == stored[0]).all():  # one and the same block, and one factor for all of them
                self.take = take[:1]
        self._in_order = bool((self.take.reshape(-1) == np.arange(self.take.size)).all())
        self.small = take.shape[1] <= small.SMALL and len(self.take) > 1

    def matrices(self, values: Any) -> Any:
        """[k, p, p]."""
        require_memory("the dense blocks of a factorization", self.take.shape, values.dtype.itemsize, _WAY_OUT)
        if self._in_order:
            return values[: self.take.size].reshape(self.take.shape)
        found = values[self.take]
        return found if (self.take >= 0).all() else jnp.where(self.take >= 0, found, 0)

    def factor(self, values: Any) -> Any:
        A = self.matrices(values)
        if self.small:
            return small.factored(jnp.moveaxis(A, 0, -1))
        lu, swaps, _ = jax.lax.linalg.lu(A)
        return lu, swaps

    def solve(self, factors: Any, b: Any, transposed: bool) -> Any:
        """[k, p, r] -> [k, p, r]."""
        if self.small:
            return jnp.moveaxis(small.solved(factors, jnp.moveaxis(b, 0, -1), transposed), -1, 0)
        if len(self.take) < len(b):  # the same block for all: its right-hand sides stand side by side
            side_by_side = jnp.moveaxis(b, 0, 1).reshape(1, b.shape[1], -1)
            x = self.solve(factors, side_by_side, transposed)
            return jnp.moveaxis(x.reshape(b.shape[1], len(b), b.shape[2]), 1, 0)
        from jax.scipy.linalg import lu_solve

        return jax.vmap(lambda f, b: lu_solve(f, b, trans=int(transposed)))(factors, b)


_WAY_OUT = "Use solve(method='gmres'), which forms no matrix."


class Blocks:
    """Parts that share no row and no column, each dense: one batched LU for all parts of a size.

    Entries outside of the parts are left out. One part that holds all is the dense method.
    """

    def __init__(self, p: Places, row_labels: np.ndarray, col_labels: np.ndarray):
        row_order, col_order = (np.argsort(labels, kind="stable") for labels in (row_labels, col_labels))
        sizes = np.bincount(row_labels)
        starts = np.cumsum(sizes) - sizes
        inside = np.flatnonzero(row_labels[p.rows] == col_labels[p.cols])
        place = [np.empty(len(row_order), np.int64) for _ in range(2)]  # of a row, a column in its part
        for own, order, labels in zip(place, (row_order, col_order), (row_labels, col_labels), strict=True):
            own[order] = np.arange(len(order)) - starts[labels[order]]
        entry_label = row_labels[p.rows[inside]]
        self._n, self.groups = len(row_labels), list[_Group]()
        for size in np.unique(sizes):
            labels = np.flatnonzero(sizes == size)
            number = np.full(len(sizes), -1)
            number[labels] = np.arange(len(labels))
            mine = inside[number[entry_label] >= 0]
            take = np.full((len(labels), size, size), -1)
            rows, cols = p.rows[mine], p.cols[mine]
            take[number[row_labels[rows]], place[0][rows], place[1][cols]] = mine
            lines = starts[labels][:, None] + np.arange(size)
            self.groups.append(_Group(row_order[lines], col_order[lines], take, p.sources))
        self._parity = parity(row_order) * parity(col_order)
        self._order = [np.concatenate([getattr(g, name).reshape(-1) for g in self.groups]) for name in ("rows", "cols")]

    def factor(self, values: Any) -> Any:
        values = values.astype(working(values.dtype))
        return tuple(group.factor(values) for group in self.groups)

    def solve(self, factors: Any, b: Any, transposed: bool) -> Any:
        pieces = []
        for group, f in zip(self.groups, factors, strict=True):
            lines = group.cols if transposed else group.rows
            part = group.solve(f, _taken(b, lines), transposed)
            pieces.append(part.reshape(lines.size, len(b)))
        x = (pieces[0] if len(pieces) == 1 else jnp.concatenate(pieces)).T
        order = self._order[0 if transposed else 1]
        if not (order == np.arange(self._n)).all():
            x = x[:, np.argsort(order)]
        return x

    def slogdet(self, values: Any) -> tuple[Any, Any]:
        values = values.astype(working(values.dtype))
        sign, log = jnp.asarray(self._parity, values.dtype), jnp.zeros((), values.dtype).real
        for group in self.groups:
            if group.take.shape[1] == 1:
                signs, logs = sign_and_log(group.matrices(values))
            else:
                each = jnp.linalg.slogdet(group.matrices(values))
                signs, logs = jnp.prod(each[0]), each[1].sum()
            copies = len(group.rows) // len(group.take)
            sign, log = sign * signs**copies, log + logs * copies
        return sign, log

    def det(self, values: Any) -> Any:
        """[nnz] -> the product of the blocks' determinants."""
        values = values.astype(working(values.dtype))
        found = jnp.asarray(self._parity, values.dtype)
        for group in self.groups:
            found = found * jnp.prod(jnp.linalg.det(group.matrices(values))) ** (len(group.rows) // len(group.take))
        return found


def _taken(b: Any, lines: np.ndarray) -> Any:
    """[r, n] -> [k, p, r]."""
    shape, b = (*lines.shape, len(b)), b.T
    return b.reshape(shape) if np.array_equal(lines.reshape(-1), np.arange(len(b))) else b[lines]


def dense(p: Places) -> Blocks:
    """The whole matrix as one part: LU with partial pivoting."""
    nothing = np.zeros(p.shape[0], np.int64)
    return Blocks(p, nothing, nothing)


class BlockTriangular:
    """Irreducible blocks along the diagonal of a triangular form, and entries below them.

    With the blocks D and the rest N, which is nilpotent: x ← D⁻¹ (b - N x), as many times as the longest chain of
    blocks has links, is exact; where chains are long, another method solves. The determinant is that of the blocks.
    """

    LONGEST = 8

    def __init__(self, p: Places, others: Any):
        rows, cols, starts = p.triangular_form
        label = np.zeros(p.shape[0], np.int64)
        label[starts[1:]] = 1
        label = np.cumsum(label)
        row_labels, col_labels = np.empty_like(label), np.empty_like(label)
        row_labels[rows], col_labels[cols] = label, label
        self._blocks = Blocks(p, row_labels, col_labels)
        left, right = row_labels[p.rows], col_labels[p.cols]
        self._outside = np.flatnonzero(left != right)
        self._places = p
        self._steps = _longest(left[self._outside], right[self._outside], len(starts), self.LONGEST)
        self._other = None if self._steps is not None else others()

    def factor(self, values: Any) -> Any:
        if self._other is not None:
            return self._other.factor(values)
        return self._blocks.factor(values), values[self._outside].astype(working(values.dtype))

    def factor_for_many(self, values: Any) -> Any:
        return self.factor(values) if self._other is None else factor_for_many(self._other, values)

    def solve(self, factors: Any, b: Any, transposed: bool) -> Any:
        if self._other is not None:
            return self._other.solve(factors, b, transposed)
        diagonal, rest = factors
        rows, cols = self._places.rows[self._outside], self._places.cols[self._outside]
        rows, cols = (cols, rows) if transposed else (rows, cols)
        x = self._blocks.solve(diagonal, b, transposed)
        for _ in range(self._steps or 0):
            below = jnp.zeros_like(b).at[:, rows].add(rest[None] * x[:, cols])
            x = self._blocks.solve(diagonal, b - below, transposed)
        return x

    def slogdet(self, values: Any) -> tuple[Any, Any]:
        return self._blocks.slogdet(values)

    def det(self, values: Any) -> Any:
        """[nnz] -> the product of the blocks' determinants."""
        return self._blocks.det(values)


def _longest(rows: np.ndarray, cols: np.ndarray, count: int, limit: int) -> int | None:
    """Links of the longest chain of blocks that depend on each other, or None for more than the limit."""
    level = np.zeros(count, np.int64)
    for steps in range(limit + 1):
        raised = level.copy()
        np.maximum.at(raised, rows, level[cols] + 1)
        if (raised == level).all():
            return steps
        level = raised
    return None


class Triangular:
    """Triangular, maybe after a permutation: substitution, of stored entries only where these are few."""

    def __init__(self, p: Places):
        self._rows, self._cols, _ = p.triangular_form
        n = p.shape[0]
        place_row, place_col = np.empty(n, np.int64), np.empty(n, np.int64)
        place_row[self._rows], place_col[self._cols] = np.arange(n), np.arange(n)
        self._at = place_row[p.rows], place_col[p.cols]  # all in the lower triangle
        self._diagonal = np.flatnonzero(self._at[0] == self._at[1])
        self._order = np.argsort(self._at[0][self._diagonal])
        self._parity = parity(self._rows) * parity(self._cols)
        few = n > _DENSE and _SPARSE * len(p.rows) < n * n
        self._sparse = Sparse(*self._at, n, ordered=True) if few else None
        self._n = n

    def factor(self, values: Any) -> Any:
        if self._sparse is not None:
            return self._sparse.factor(values)
        require_memory("the dense triangle of a factorization", (self._n,) * 2, values.dtype.itemsize, _WAY_OUT)
        wide = values.astype(working(values.dtype))
        return (jnp.zeros((self._n, self._n), wide.dtype).at[self._at].set(wide, unique_indices=True),)

    def solve(self, factors: Any, b: Any, transposed: bool) -> Any:
        given, found = (self._cols, self._rows) if transposed else (self._rows, self._cols)
        c = b[:, given]
        if self._sparse is not None:
            y = self._sparse.solve(factors, c, transposed)
        else:
            from jax.scipy.linalg import solve_triangular

            y = solve_triangular(factors[0], c.T, trans=int(transposed), lower=True).T
        return y[:, np.argsort(found)]

    def slogdet(self, values: Any) -> tuple[Any, Any]:
        sign, log = sign_and_log(values[self._diagonal].astype(working(values.dtype)))
        return sign * self._parity, log

    def det(self, values: Any) -> Any:
        """[nnz] -> the product of the diagonal."""
        return jnp.prod(values[self._diagonal].astype(working(values.dtype))) * self._parity


_DENSE = 100  # unknowns up to which a dense method wins whatever the pattern
_SPARSE = 20  # one entry in so many, and fewer, are sparse
_FULL = 3  # a band with one entry in so many is taken as full


def is_sparse(n: int, nnz: int) -> bool:
    """Whether a method that skips zeros is worth its overhead."""
    return n > _DENSE and _SPARSE * nnz < n * n


def factor_for_many(method: Method, values: Any) -> Any:
    """[nnz] -> arrays with which each solve is fast, even where it takes longer to compile."""
    if isinstance(method, Multifrontal | BlockTriangular):
        return method.factor_for_many(values)
    return method.factor(values)


def choose(p: Places) -> Method:
    """The method for a square pattern of full structural rank."""
    from chainrule._linalg.banded import Banded, Tridiagonal

    n, nnz, kind = p.shape[0], len(p.rows), p.structure.kind
    if nnz == n:
        return ScaledPermutation(p)
    if kind == "dense" and nnz == n * n:
        return dense(p)
    if p.triangular:
        return Triangular(p)  # pivots would fill what substitution leaves as it is
    count, row_labels, col_labels = p.components
    if count > 1 and not _large_and_sparse(np.bincount(row_labels), np.bincount(row_labels[p.rows])):
        return Blocks(p, row_labels, col_labels)
    if kind == "banded" and n > _DENSE and _FULL * nnz >= n * (sum(p.structure.parameters) + 1):
        return Tridiagonal(p) if p.structure.parameters == (1, 1) else Banded(p)

    def whole() -> Method:
        return Multifrontal(p.rows, p.cols, n) if is_sparse(n, nnz) else dense(p)

    rows, _, starts = p.triangular_form
    if len(starts) == n:
        return Triangular(p)
    sizes = np.diff(starts, append=n)
    label = np.empty(n, np.int64)
    label[rows] = np.repeat(np.arange(len(starts)), sizes)
    if len(starts) > 1 and not _large_and_sparse(sizes, np.bincount(label[p.rows], minlength=len(sizes))):
        return BlockTriangular(p, whole)
    return whole()


def _large_and_sparse(sizes: Sequence[int] | np.ndarray, entries: np.ndarray) -> bool:
    """Whether some part is too sparse to be taken as dense."""
    return any(is_sparse(int(s), int(e)) for s, e in zip(sizes, entries, strict=True) if s > _DENSE)
