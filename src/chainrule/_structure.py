"""What a static sparsity pattern is, in the words that a person would use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_NARROW = 4  # a band of at most 1/4 of the shorter side is narrow


@dataclass(frozen=True)
class Structure:
    """The kind of a pattern and its parameters; `str()` gives the words.

    kind : 'zero', 'identity', 'diagonal', 'permutation', 'scaled permutation', 'block-diagonal', 'banded',
        'lower triangular', 'upper triangular', 'sparse', 'dense', 'product' or 'matrix-free'.
    parameters : banded: (l, u); block-diagonal: (blocks, rows of one, columns of one), or (blocks,) where their sizes
        differ; sparse, and dense with some entries absent: (nonzeros, entries); none for the others.

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


def classify(rows: np.ndarray, cols: np.ndarray, shape: tuple[int, int], values: np.ndarray | None = None) -> Structure:
    """Name the pattern of distinct row-major places, in time linear in their number.

    The first that fits is taken, in this order:

    - zero: no entry;
    - diagonal: all entries on the main diagonal, of a rectangle too and some of them absent; identity: square, none
      absent, and all of them known to be 1;
    - (scaled) permutation: square, one entry in every row and in every column; unscaled where all are known to be 1;
    - dense: no entry absent;
    - block-diagonal: at least two blocks, full, each beginning where the last one ends, together over all rows and
      columns;
    - banded(l, u): l + u + 1 diagonals that are narrow, at most 1/4 of the shorter side, or that are full and fewer
      than the shorter side;
    - lower, upper triangular: square, and nothing above, below the diagonal;
    - dense with its nonzeros counted: more than half of the entries; sparse: all else.

    rows, cols : [nnz]; values : [nnz] where all of them are known, to tell an identity from a diagonal.
    """
    (m, n), nnz = shape, len(rows)
    if not nnz:
        return Structure("zero")
    one_a_row = m == n == nnz and bool((rows == np.arange(m)).all())
    ones = one_a_row and values is not None and bool((values == 1).all())
    if np.array_equal(rows, cols):
        return Structure("identity" if ones else "diagonal")
    if one_a_row and bool((np.bincount(cols, minlength=n) == 1).all()):
        return Structure("permutation" if ones else "scaled permutation")
    if nnz == m * n:
        return Structure("dense")
    loose = Structure("dense" if 2 * nnz > m * n else "sparse", (nnz, m * n))
    return _block_diagonal(rows, cols, shape) or _banded_or_triangular(rows, cols, shape) or loose


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


def _banded_or_triangular(rows: np.ndarray, cols: np.ndarray, shape: tuple[int, int]) -> Structure | None:
    (m, n), (lower, upper) = shape, bandwidth(rows, cols)
    width = lower + upper + 1
    if _NARROW * width <= min(m, n) or (width < min(m, n) and len(rows) == _band_size(lower, upper, shape)):
        return Structure("banded", (lower, upper))
    if m != n or (lower and upper):
        return None
    return Structure("upper triangular" if upper else "lower triangular")


def _band_size(lower: int, upper: int, shape: tuple[int, int]) -> int:
    """Number of places on the diagonals from -lower to upper."""
    m, n = shape
    offset = np.arange(-lower, upper + 1)
    return int((np.minimum(m, n - offset) - np.maximum(-offset, 0)).sum())
