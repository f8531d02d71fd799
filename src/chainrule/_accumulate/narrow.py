"""Narrow arrays beside wide ones: what passes through r numbers adds a map of rank r to a sparse one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.linalg
import numpy as np

from chainrule._blocks.block import Block, merge
from chainrule._jacobians.assembled import Assembled
from chainrule._jacobians.layout import Layout
from chainrule._jacobians.low_rank import LowRankUpdate
from chainrule._linear import LinearProgram, Step, push_through, section, seeds_of
from chainrule._plan.local import local
from chainrule._program import Context, Linear, Tangent
from chainrule._space import Space, promoted

_NARROW = 16  # times as many inputs and outputs as numbers that are narrow
_SPARSE = 4  # one entry in so many, and fewer, of what does not pass through them


def narrow(program: LinearProgram) -> list[Linear]:
    """The arrays that wide ones are reduced to, far smaller than inputs and outputs; none where these are too many."""
    least = min(sum(v.size for v in arrays) for arrays in (program.inputs, program.targets))
    most, ends = least // _NARROW, {id(v) for v in program.targets}
    found = [
        v
        for step in program.steps
        for r, v in enumerate(step.outs)
        if 0 < v.size <= most and id(v) not in ends and _sums(step, r, most)
    ]
    return found if 0 < sum(v.size for v in found) <= most else []


def _sums(step: Step, r: int, most: int) -> bool:
    """Whether a result sums up, and does not only pick, numbers of an array of more than so many."""
    wide = [k for k, v in enumerate(step.operands) if isinstance(v, Linear) and v.size > most]
    return any(t.nnz > step.outs[r].size for k in wide for t in local(step.equation, step.operands, k, r).terms)


def split(context: Context, program: LinearProgram, rows: Space, columns: Space) -> LowRankUpdate | None:
    """J = A + U V of a program with narrow arrays, where this is less than J."""
    arrays = narrow(program)
    found = _parted(context, program, rows, columns, arrays, arrays)
    return LowRankUpdate(found[0], found[1], found[3]) if found else None


def split_at_both_ends(context: Context, program: LinearProgram, rows: Space, columns: Space) -> Any:
    """(A, U, C, V) of J = A + U C V: C is what lies between the first narrow arrays and the last, None for nothing.

    Often U and V are plain weights, the same for all points of a batch, and C alone is not.
    """
    arrays = narrow(program)
    ends = _last(program, arrays)
    found = _parted(context, program, rows, columns, arrays, ends) if ends else None
    return found or _parted(context, program, rows, columns, arrays, arrays)


def _last(program: LinearProgram, arrays: Sequence[Linear]) -> list[Linear]:
    """The narrow arrays that wide ones are made of; none where these are too many."""
    least = min(sum(v.size for v in own) for own in (program.inputs, program.targets))
    most, outer = least // _NARROW, {id(v) for v in (*program.inputs, *program.targets)}
    wide = [step for step in program.steps if any(v.size > most for v in step.outs)]
    found = {id(v): v for step in wide for v in step.sources if 0 < v.size <= most and id(v) not in outer}
    return list(found.values()) if sum(v.size for v in found.values()) <= most else []


def _parted(
    context: Context,
    program: LinearProgram,
    rows: Space,
    columns: Space,
    arrays: Sequence[Linear],
    ends: Sequence[Linear],
) -> tuple[Assembled, Any, Any, Any] | None:
    """(A, U, C, V) with narrow arrays s, and t made of these; None where that is not less than J.

    With them as inputs of their own, y = A x + U t, t = C s and s = P x + L s, L strictly lower triangular:
    V = (I - L)⁻¹ P.
    """
    if not arrays or any(jnp.issubdtype(v.dtype, jnp.complexfloating) for v in program.arrays):
        return None
    count = len(program.inputs)

    def pushed(targets: Sequence[Any], given: Sequence[Linear]) -> list[Tangent]:
        return push_through(context, section(program.steps, given, targets), seeds_of(given))

    def space(own: Sequence[Linear]) -> Space:
        shapes, dtypes = tuple(v.shape for v in own), tuple(v.dtype for v in own)
        return Space(jax.tree.structure([0] * len(own)), shapes, dtypes, "a narrow array")

    first, last = [*program.inputs, *arrays], space(ends)
    inner = [pushed([v], first[: count + k])[0] for k, v in enumerate(arrays)]
    P, L = _parts(context, inner, space(arrays), columns)
    C = None
    if ends is not arrays:
        direct, between = _parts(context, pushed(ends, first), last, columns, space(arrays))
        if direct.nnz:
            return None
        C = between.dense()
    A, U = _parts(context, pushed(program.outputs, [*program.inputs, *ends]), rows, columns, last)
    if 2 * P.nnz < P.shape[0] * P.shape[1] or _SPARSE * A.nnz > math.prod(A.shape):
        return None
    V = P.dense()
    if L.nnz:
        I = jnp.eye(V.shape[0], dtype=V.dtype)  # noqa: E741
        V = jax.scipy.linalg.solve_triangular(I - L.dense(), V, lower=True, unit_diagonal=True)
    return A, U.dense(), C, V


def _parts(
    context: Context, tangents: Sequence[Tangent], rows: Space, columns: Space, between: Space | None = None
) -> tuple[Assembled, Assembled]:
    """The columns of the inputs, and those of the narrow arrays behind them."""
    between = between or rows
    dtype, n = promoted(*[t.dtype for t in tangents]), columns.size
    made = []
    for own, low, high in ((columns, 0, n), (between, n, n + between.size)):
        kept = [
            (offset, b)
            for tangent, offset in zip(tangents, rows.offsets, strict=True)
            for b in merge([_between(b, low, high) for b in tangent.blocks])
            if (b.cols >= 0).any()
        ]
        layout = Layout(rows, own, (), dtype, False, "factored", context.cost, tuple(context.fallbacks))
        made.append(Assembled.of(layout, kept))
    return made[0], made[1]


def _between(b: Block, low: int, high: int) -> Block:
    """The entries in columns low … high - 1, counted from low."""
    return Block(b.shape, np.where((b.cols >= low) & (b.cols < high), b.cols - low, -1), b.vals, b.rows)
