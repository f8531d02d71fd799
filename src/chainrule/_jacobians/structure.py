"""What a static sparsity pattern is, in the words that a person would use."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

_TRIANGULAR = (  # kinds that substitution solves
    *("identity", "scaled identity", "diagonal", "permutation", "scaled permutation"),
    *("lower triangular", "upper triangular", "permuted triangular"),
)
_NARROW = 4  # a band of at most 1/4 of the shorter side is narrow


@dataclass(frozen=True)
class Structure:
    """The kind of a pattern and its parameters; `str()` gives the words.

    kind : 'zero', 'identity', 'scaled identity', 'diagonal', 'permutation', 'scaled permutation', 'block-diagonal',
        'Kronecker', 'banded', 'lower triangular', 'upper triangular', 'arrowhead', 'permuted block-diagonal',
        'permuted triangular', 'block-triangular', 'sparse', 'dense', 'diagonal + low rank', 'sparse + low rank',
        'product' or 'matrix-free'.
    parameters : banded: (l, u); block-diagonal, permuted or not, and Kronecker: (blocks, rows of one, columns of one),
        or (blocks,) where their sizes differ; arrowhead: (width of the border,); block-triangular: (blocks, rows of the
        largest); sparse, and dense with some entries absent: (nonzeros, entries); low rank: (rank,); product:
        the sizes between its factors; none for the others.

    Examples
    --------
    >>> str(Structure("banded", (1, 2))), str(Structure("sparse", (12, 400)))
    ('banded(1, 2)', 'sparse (12 nonzeros, 3 %)')
    """

    kind: str
    parameters: tuple[int, ...] = ()

    def __str__(self) -> str:
        match self.kind, self.parameters:
            case "banded", (lower, upper):
                return f"banded({lower}, {upper})"
            case "block-diagonal", (blocks, height, width):
                return f"block-diagonal ({blocks:,} blocks {height}×{width})"
            case "block-diagonal", (blocks,):
                return f"block-diagonal ({blocks:,} blocks)"
            case "Kronecker", (blocks, height, width):
                return f"Kronecker ({blocks:,} times one block {height}×{width})"
            case "permuted block-diagonal", (blocks, height, width):
                return f"block-diagonal after a permutation ({blocks:,} blocks {height}×{width})"
            case "permuted block-diagonal", (blocks,):
                return f"block-diagonal after a permutation ({blocks:,} blocks)"
            case "permuted triangular", _:
                return "triangular after a permutation"
            case "block-triangular", (blocks, largest):
                return f"block-triangular after a permutation ({blocks:,} blocks, the largest {largest}×{largest})"
            case "arrowhead", (border,):
                return f"arrowhead (border {border})"
            case (("diagonal + low rank" | "sparse + low rank"), (rank,)):
                return f"{self.kind.split()[0]} + rank {rank}"
            case (("sparse" | "dense"), (nonzeros, entries)):
                return f"{self.kind} ({nonzeros:,} nonzeros, {percent(nonzeros, entries)})"
            case "product", sizes:
                return f"product of {len(sizes) - 1} ({'-'.join(map(str, sizes))})"
        return self.kind


def percent(part: int, whole: int) -> str:
    """Two digits and never an exponent; '100 %' is kept for all of it."""
    if part == whole:
        return "100 %"
    # a part of the whole must not be rounded up to all of it
    return np.format_float_positional(min(100 * part / whole, 99), precision=2, fractional=False, trim="-") + " %"


def bandwidth(rows: np.ndarray, cols: np.ndarray) -> tuple[int, int]:
    """How far the entries lie below and above the main diagonal: (l, u)."""
    if not len(rows):
        return 0, 0
    distance = rows.astype(np.int64, copy=False) - cols.astype(np.int64, copy=False)
    return max(int(distance.max()), 0), max(int(-distance.min()), 0)


@dataclass(frozen=True, eq=False)
class Places:
    """Distinct row-major places [nnz] of a matrix, and what graphs say of them; everything is found when asked for.

    sources : [nnz] numbers of the stored values, where known: equal numbers stand for one and the same value.
    values : [nnz], where all of them are known.
    """

    rows: np.ndarray
    cols: np.ndarray
    shape: tuple[int, int]
    sources: np.ndarray | None = None
    values: np.ndarray | None = None

    @cached_property
    def structure(self) -> Structure:
        return _classified(self)

    @property
    def triangular(self) -> bool:
        """Whether substitution solves it, maybe after a permutation."""
        kind, parameters = self.structure.kind, self.structure.parameters
        return kind in _TRIANGULAR or (kind == "banded" and 0 in parameters)

    @cached_property
    def adjacency(self) -> Any:
        """The places as a `scipy.sparse.csr_array` of ones."""
        return _graph(self.rows, self.cols, self.shape)

    @cached_property
    def components(self) -> tuple[int, np.ndarray, np.ndarray]:
        """(count, label of each row [m], label of each column [n]): parts that share no row and no column.

        Labels go up with the first row that has them; a row or a column without places is a part of its own.
        """
        from scipy.sparse.csgraph import connected_components

        m, n = self.shape
        both = _graph(self.rows, self.cols.astype(np.int64) + m, (m + n, m + n))
        count, labels = connected_components(both, directed=False)
        return int(count), labels[:m], labels[m:]

    @cached_property
    def matching(self) -> np.ndarray:
        """[m]: for each row a column of its own that it has an entry in, or -1: a maximum matching.

        The main diagonal where that is full, else by Hopcroft and Karp (1973), as SciPy has it.
        """
        m, n = self.shape
        if m == n and int((self.rows == self.cols).sum()) == n:
            return np.arange(n)
        from scipy.sparse.csgraph import maximum_bipartite_matching

        return maximum_bipartite_matching(self.adjacency, perm_type="column")

    @cached_property
    def structural_rank(self) -> int:
        """The largest rank that a matrix with these places can have."""
        return int((self.matching >= 0).sum())

    @cached_property
    def triangular_form(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(order of the rows, order of the columns, first row of each block): block lower triangular.

        For a square matrix of full structural rank: the columns are matched with the rows, and the strongly connected
        components of what is left are the blocks, each irreducible (Duff and Reid 1978).
        """
        from scipy.sparse.csgraph import connected_components

        n = self.shape[0]
        matched = self.matching
        row_of = np.empty(n, np.int64)
        row_of[matched] = np.arange(n)
        graph = _graph(self.rows, row_of[self.cols], self.shape)
        count, labels = connected_components(graph, directed=True, connection="strong")
        if (labels[self.rows] < labels[row_of[self.cols]]).any():
            labels = _reordered(labels, self.rows, row_of[self.cols], count)
        order = np.argsort(labels, kind="stable")
        return order, matched[order], np.searchsorted(labels[order], np.arange(count))


def _graph(rows: np.ndarray, cols: np.ndarray, shape: tuple[int, int]) -> Any:
    import scipy.sparse

    starts = np.searchsorted(rows, np.arange(shape[0] + 1))
    return scipy.sparse.csr_array((np.ones(len(cols), np.int8), cols, starts), shape=shape)


def _reordered(labels: np.ndarray, rows: np.ndarray, cols: np.ndarray, count: int) -> np.ndarray:
    """The labels renumbered so that every edge goes from a higher to a lower or an equal one."""
    left, right = labels[rows], labels[cols]
    edges = np.unique(np.stack([left, right])[:, left != right], axis=1)
    level = np.zeros(count, np.int64)
    while True:
        raised = level.copy()
        np.maximum.at(raised, edges[0], level[edges[1]] + 1)
        if (raised == level).all():
            return np.argsort(np.argsort(level, kind="stable"), kind="stable")[labels]
        level = raised


def _classified(p: Places) -> Structure:
    """Name a pattern, in time linear in its number of places where these are in order.

    The first that fits is taken:

    - zero: no entry;
    - diagonal: all entries on the main diagonal, of a rectangle too and some of them absent; identity, scaled identity:
      square, none absent, and all of them known to be 1, to be equal;
    - (scaled) permutation: square, one entry in every row and in every column; unscaled where all are known to be 1;
    - dense: no entry absent;
    - block-diagonal: at least two blocks, full, each beginning where the last one ends, together over all rows and
      columns; Kronecker: all blocks hold the same values in the same places, the blocks of a permutation too;
    - banded(l, u): l + u + 1 diagonals that are narrow, at most 1/4 of the shorter side, or that are full and fewer
      than the shorter side;
    - lower, upper triangular: square, and nothing above, below the diagonal;
    - arrowhead: square, some rows and the same columns, and the diagonal;
    - block-diagonal after a permutation: at least two parts that share no row and no column;
    - triangular, block-triangular after a permutation: square, of full structural rank, with at least two blocks;
    - dense with its nonzeros counted: more than half of the entries; sparse: all else.
    """
    rows, cols, (m, n), nnz = p.rows, p.cols, p.shape, len(p.rows)
    if not nnz:
        return Structure("zero")
    one_a_row = m == n == nnz and bool((rows == np.arange(m)).all())
    ones = one_a_row and p.values is not None and bool((p.values == 1).all())
    if np.array_equal(rows, cols):
        same = one_a_row and m > 1 and _all_equal(p)
        return Structure("identity" if ones else "scaled identity" if same else "diagonal")
    if one_a_row and bool((np.bincount(cols, minlength=n) == 1).all()):
        return Structure("permutation" if ones else "scaled permutation")
    if nnz == m * n:
        return Structure("dense")
    found = _block_diagonal(rows, cols, p.shape)
    if found is not None and len(found.parameters) == 3 and _repeats(p, *found.parameters):
        return Structure("Kronecker", found.parameters)
    found = found or _of_band(nnz, bandwidth(rows, cols), p.shape) or _arrowhead(p) or _permuted(p)
    return found or Structure("dense" if 2 * nnz > m * n else "sparse", (nnz, m * n))


def _all_equal(p: Places) -> bool:
    known = p.values if p.values is not None else p.sources
    return known is not None and bool((known == known[0]).all())


def _repeats(p: Places, count: int, height: int, width: int) -> bool:
    """Whether the full blocks, in row-major order, hold the same stored values in the same places."""
    if p.sources is None or height * width == 1:
        return False
    blocks = p.sources.reshape(count, height * width)
    return bool((blocks == blocks[0]).all())


def _arrowhead(p: Places) -> Structure | None:
    """A border of dense rows and columns around a diagonal."""
    (m, n), off = p.shape, p.rows != p.cols
    if m != n or not (off.any() and n > 3):
        return None
    degree = np.bincount(p.rows[off], minlength=n) + np.bincount(p.cols[off], minlength=n)
    border = degree > n // 2
    if not 0 < 4 * border.sum() <= n or not (border[p.rows] | border[p.cols] | ~off).all():
        return None
    return Structure("arrowhead", (int(border.sum()),))


def _permuted(p: Places) -> Structure | None:
    square = p.shape[0] == p.shape[1] == p.structural_rank
    starts = p.triangular_form[2] if square else np.empty(0, int)
    if len(starts) == 1:
        return None  # irreducible: it has one part only
    found = _parts(p)
    if found or not square:
        return found
    if len(starts) == p.shape[0]:
        return Structure("permuted triangular")
    return Structure("block-triangular", (len(starts), int(np.diff(starts, append=p.shape[0]).max())))


def _parts(p: Places) -> Structure | None:
    """At least two parts that share no row and no column, and leave none out."""
    count, row_labels, col_labels = p.components
    heights, widths = (np.bincount(labels, minlength=count) for labels in (row_labels, col_labels))
    if count == 1 or not (heights.all() and widths.all()):
        return None
    if (heights != heights[0]).any() or (widths != widths[0]).any():
        return Structure("permuted block-diagonal", (count,))
    sizes = count, int(heights[0]), int(widths[0])
    if p.sources is not None and len(p.rows) == sizes[0] * sizes[1] * sizes[2]:
        order = np.lexsort((p.cols, p.rows, row_labels[p.rows]))
        if _repeats(Places(p.rows[order], p.cols[order], p.shape, p.sources[order]), *sizes):
            return Structure("Kronecker", sizes)
    return Structure("permuted block-diagonal", sizes)


def _block_diagonal(rows: np.ndarray, cols: np.ndarray, shape: tuple[int, int]) -> Structure | None:
    """Full blocks, one after the other, from the first row and column to the last."""
    m, n = shape
    ends = np.append(np.flatnonzero(rows[1:] != rows[:-1]), len(rows) - 1)  # the last entry of each row
    starts = np.append(0, ends[:-1] + 1)
    first, last = cols[starts].astype(np.int64), cols[ends].astype(np.int64)
    if len(ends) != m or first[0] != 0:
        return None
    tops = np.append(0, np.flatnonzero(first[1:] != first[:-1]) + 1)  # the first row of each block
    heights, widths = np.diff(tops, append=m), np.diff(first[tops], append=n)
    # each row must reach, without a gap, from its block's first column to right before the next block's
    width = np.repeat(widths, heights)
    if (ends - starts + 1 != width).any() or (last - first + 1 != width).any():
        return None
    equal = bool((heights == heights[0]).all() and (widths == widths[0]).all())
    return Structure("block-diagonal", (len(tops), int(heights[0]), int(widths[0])) if equal else (len(tops),))


def _of_band(nnz: int, band: tuple[int, int], shape: tuple[int, int]) -> Structure | None:
    (m, n), (lower, upper) = shape, band
    width = lower + upper + 1
    if _NARROW * width <= min(m, n) or (width < min(m, n) and nnz == _band_size(lower, upper, shape)):
        return Structure("banded", (lower, upper))
    if m != n or (lower and upper):
        return None
    return Structure("upper triangular" if upper else "lower triangular")


def without_places(nnz: int, band: tuple[int, int], shape: tuple[int, int]) -> Structure:
    """What the number of entries and the bandwidths alone say of a pattern, looser words for some than its places."""
    if not nnz:
        return Structure("zero")
    if nnz == math.prod(shape):
        return Structure("dense")
    counted = Structure("dense" if 2 * nnz > math.prod(shape) else "sparse", (nnz, math.prod(shape)))
    return Structure("diagonal") if band == (0, 0) else _of_band(nnz, band, shape) or counted


def _band_size(lower: int, upper: int, shape: tuple[int, int]) -> int:
    """Number of places on the diagonals from -lower to upper."""
    m, n = shape
    offset = np.arange(-lower, upper + 1)
    return int((np.minimum(m, n - offset) - np.maximum(-offset, 0)).sum())
