"""What a static sparsity pattern is, in the words that a person would use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_NARROW = 4  # a band is called one where it fills at most 1/4 of the matrix


@dataclass(frozen=True)
class Structure:
    """The kind of a pattern and its parameters; `str()` gives the words.

    kind : 'zero', 'identity', 'diagonal', 'permutation', 'scaled permutation', 'banded', 'lower triangular',
        'upper triangular', 'block-diagonal', 'sparse', 'dense' or 'matrix-free'.
    parameters : banded: (l, u); block-diagonal: (blocks, rows of one, columns of one); sparse: (nonzeros, entries).
    """

    kind: str
    parameters: tuple[int, ...] = ()

    def __str__(self) -> str:
        p = self.parameters
        match self.kind:
            case "banded":
                return f"banded({p[0]}, {p[1]})"
            case "block-diagonal":
                return f"block-diagonal ({p[0]} blocks {p[1]}×{p[2]})"
            case "sparse":
                return f"sparse ({p[0]:,} nonzeros, {100 * p[0] / p[1]:.2g} %)"
        return self.kind


def bandwidth(rows: np.ndarray, cols: np.ndarray) -> tuple[int, int]:
    """How far the entries lie below and above the main diagonal: (l, u)."""
    if not len(rows):
        return 0, 0
    distance = rows.astype(np.int64) - cols
    return max(int(distance.max()), 0), max(int(-distance.min()), 0)


def classify(rows: np.ndarray, cols: np.ndarray, shape: tuple[int, int], values: np.ndarray | None = None) -> Structure:
    """Name the pattern of distinct row-major places, in time linear in their number.

    rows, cols : [nnz]; values : [nnz] where all of them are known, to tell an identity from a diagonal.
    """
    (m, n), nnz = shape, len(rows)
    if not nnz:
        return Structure("zero")
    ones = values is not None and bool((values == 1).all())
    if m == n == nnz and np.array_equal(rows, cols):
        return Structure("identity" if ones else "diagonal")
    if m == n == nnz and _each_once(rows, m) and _each_once(cols, n):
        return Structure("permutation" if ones else "scaled permutation")
    if nnz == m * n:
        return Structure("dense")
    return _blocks(rows, cols, shape) or _banded_or_triangular(rows, cols, shape) or Structure("sparse", (nnz, m * n))


def _each_once(places: np.ndarray, size: int) -> bool:
    return bool((np.bincount(places, minlength=size) == 1).all())


def _blocks(rows: np.ndarray, cols: np.ndarray, shape: tuple[int, int]) -> Structure | None:
    """Full blocks of one size, one after the other along the diagonal."""
    m, n = shape
    count = np.gcd(m, n)
    width = int(np.searchsorted(rows, rows[0], side="right"))  # entries of the first row
    if rows[0] != 0 or n % width or len(rows) != m * width:
        return None
    blocks = n // width
    if blocks < 2 or count % blocks:
        return None
    if not np.array_equal(rows // (m // blocks), cols // width):
        return None
    return Structure("block-diagonal", (blocks, m // blocks, width))


def _banded_or_triangular(rows: np.ndarray, cols: np.ndarray, shape: tuple[int, int]) -> Structure | None:
    m, n = shape
    lower, upper = bandwidth(rows, cols)
    if _NARROW * (lower + upper + 1) <= min(m, n) and lower + upper > 0:
        return Structure("banded", (lower, upper))
    if m != n:
        return None
    if upper == 0:
        return Structure("lower triangular")
    return Structure("upper triangular") if lower == 0 else None
