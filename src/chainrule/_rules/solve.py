"""Solves and transforms: they mix known axes; the other axes stay a batch.

`custom_linear_solve` has no rule on purpose: what it is made of hides the matrix from differentiation, only the
primitive as a whole (which the fallback runs) can be differentiated again.
"""

from __future__ import annotations

from typing import Any

from chainrule._program import Coefficient, Context, Tangent, Value
from chainrule._rules._registry import rule
from chainrule._rules.fallback import mix


@rule("triangular_solve", reads="conjugate_a left_side lower transpose_a unit_diagonal")
def triangular_solve(context: Context, eqn: Any, values: list[Value]) -> Any:
    """X with A X = B (or X A = B): the rows of B are mixed, its columns and the batch are not."""
    a, b = values
    if not isinstance(a, Coefficient) or not isinstance(b, Tangent):
        return NotImplemented
    rank = len(b.shape)
    return mix(context, eqn, values, 1, (rank - 2 if eqn.params["left_side"] else rank - 1,))


@rule("fft", reads="fft_lengths fft_type")
def fft(context: Context, eqn: Any, values: list[Value]) -> Any:
    """The discrete Fourier transform mixes its last axes."""
    (u,) = values
    assert isinstance(u, Tangent)
    rank = len(u.shape)
    return mix(context, eqn, values, 0, tuple(range(rank - len(eqn.params["fft_lengths"]), rank)))
