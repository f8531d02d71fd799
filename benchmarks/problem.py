"""What a benchmark problem is: a function, a point, and the Jacobian that a person would derive and code by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Problem:
    """One row of the report.

    by_hand : x -> the values of the nonzeros in the layout that is natural for the problem.
    matrix : what `by_hand` gives, as NumPy arrays -> a SciPy sparse or a dense matrix, for the check of the values.
    hessian : whether the Hessian of a scalar `f` is meant.
    smoke : whether the problem is small enough for a short run.
    large : whether it is for a GPU, whose caches and launches smaller ones are bound by; a CPU runs it if it is named.
    """

    name: str
    f: Callable[[Any], Any]
    x: Any
    by_hand: Callable[[Any], Any]
    matrix: Callable[[Any], Any]
    hessian: bool = False
    smoke: bool = False
    large: bool = False


def blocks(values: np.ndarray) -> Any:
    """[k, p, q] -> the block-diagonal matrix of k blocks p×q."""
    import scipy.sparse

    k, p, q = values.shape
    return scipy.sparse.bsr_array((values, np.arange(k), np.arange(k + 1)), shape=(k * p, k * q)).tocsr()
