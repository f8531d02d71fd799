"""What the trace, the diagonal or the determinant of a Jacobian takes, from its structure alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule._jacobians.structure import bandwidth


def exact_cost(what: str, J: Any, stored: bool) -> int:
    """Multiply-adds until the entries that are needed are there, where they are not stored, and of the elimination."""
    n = J.shape[0]
    if not n:
        return 0
    if what == "log_det" and all(a.shape[0] == a.shape[1] for a in J.factors):
        entries = n * J.cost if J._products_only else 0 if stored else J.cost
        return entries + sum(map(_elimination, J.factors))
    if J._products_only:
        return n * J.cost
    whole = (0 if stored else J.cost) + _multiplied_out(J.factors)
    return whole + n + (n**3 // 3 if what == "log_det" else 0)


def _multiplied_out(factors: tuple[Any, ...]) -> int:
    """Multiply-adds of the product of sparse maps, as if their entries lay evenly."""
    nnz, cost = factors[0].nnz, 0
    for J in factors[1:]:
        work = nnz * J.nnz // max(J.shape[0], 1)
        cost, nnz = cost + work, min(work, factors[0].shape[0] * J.shape[1])
    return cost


def _elimination(J: Any) -> int:
    """About the multiply-adds of a determinant; of a pattern without a name, those of the band it is reordered to."""
    n, kind, parameters = J.shape[0], J.structure.kind, J.structure.parameters
    match kind, parameters:
        case (("dense" | "matrix-free"), _):
            return n**3 // 3
        case (("block-diagonal" | "permuted block-diagonal"), (blocks, size, _)):
            return blocks * size**3 // 3
        case "Kronecker", (_, size, _):
            return size**3 // 3
        case "banded", (lower, upper):
            return n * (1 + lower * (lower + upper))
        case "arrowhead", (border,):
            return n * (1 + border**2)
        case (("diagonal + low rank" | "sparse + low rank"), (rank,)):
            return n * rank**2 + _elimination(J.parts[0])
    return J.nnz if J._layout.places.triangular else min(n**3 // 3, n * _band(J) ** 2)


def _band(J: Any) -> int:
    """How wide the band is that reverse Cuthill-McKee makes of a pattern."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import reverse_cuthill_mckee

    n, (rows, cols) = J.shape[0], J._positions()
    both = np.concatenate([rows, cols]), np.concatenate([cols, rows])
    order = reverse_cuthill_mckee(csr_array((np.ones(2 * len(rows)), both), shape=(n, n)), symmetric_mode=True)
    place = np.empty(n, np.int64)
    place[order] = np.arange(n)
    return max(bandwidth(place[rows], place[cols]))
