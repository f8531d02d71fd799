"""LU factors of a batch of small matrices, entry by entry.

LAPACK takes the matrices of a batch one by one; up to a few unknowns a call costs more than its arithmetic. Here every
entry is one long vector over the batch, and XLA fuses the elimination into a few passes over them.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

SMALL = 5  # unknowns up to which this takes less time than LAPACK's calls


def factored(A: Any) -> tuple[Any, Any]:
    """[p, p, k] -> L U of P A in one array [p, p, k], and for each step the row that it was swapped with [p, k].

    Gaussian elimination with partial pivoting; Golub and Van Loan, *Matrix Computations* (2013), section 3.4.
    """
    p, swaps = A.shape[0], []
    rows = [[A[i, j] for j in range(p)] for i in range(p)]
    for j in range(p):
        chosen = jnp.argmax(jnp.abs(jnp.stack([row[j] for row in rows[j:]])), axis=0)
        for c, column in enumerate(zip(*rows[j:], strict=True)):
            for i, entry in enumerate(_swapped(list(column), chosen)):
                rows[j + i][c] = entry
        for row in rows[j + 1 :]:
            row[j] = row[j] / rows[j][j]
            for c in range(j + 1, p):
                row[c] = row[c] - row[j] * rows[j][c]
        swaps.append(chosen)
    return jax.lax.optimization_barrier((jnp.stack([jnp.stack(row) for row in rows]), jnp.stack(swaps)))


def _swapped(entries: list[Any], chosen: Any) -> list[Any]:
    """The first entry changes places with the chosen one."""
    first, *rest = entries
    taken = first
    for i, entry in enumerate(rest):
        taken = jnp.where(chosen == i + 1, entry, taken)
    return [taken, *(jnp.where(chosen == i + 1, first, entry) for i, entry in enumerate(rest))]


def solved(factors: tuple[Any, Any], b: Any, transposed: bool) -> Any:
    """A x = b, or Aᵀ x = b, of factors [p, p, k]: b and x are [p, r, k]."""
    LU, swaps = (f[..., None, :] for f in factors)
    p, x = LU.shape[0], list(b)
    if transposed:
        for i in range(p):  # Uᵀ y = b
            x[i] = (x[i] - sum(LU[j, i] * x[j] for j in range(i))) / LU[i, i]
        for i in reversed(range(p)):  # Lᵀ z = y; the swaps come last, in the opposite order
            x[i] = x[i] - sum(LU[j, i] * x[j] for j in range(i + 1, p))
        for i in reversed(range(p)):
            x[i:] = _swapped(x[i:], swaps[i])
        return jnp.stack(x)
    for i in range(p):
        x[i:] = _swapped(x[i:], swaps[i])
    for i in range(p):
        x[i] = x[i] - sum(LU[i, j] * x[j] for j in range(i))
    for i in reversed(range(p)):
        x[i] = (x[i] - sum(LU[i, j] * x[j] for j in range(i + 1, p))) / LU[i, i]
    return jnp.stack(x)
