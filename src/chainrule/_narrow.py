"""Narrow arrays beside wide ones: what passes through r numbers adds a map of rank r to a sparse one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._assembled import Assembled
from chainrule._block import Block, merge
from chainrule._layout import Layout
from chainrule._linear import LinearProgram, Step, push_through, section
from chainrule._low_rank import LowRankUpdate
from chainrule._mixed import seeds_of
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
    """J = A + U V of a program with narrow arrays s, where this is less than J.

    With s as inputs of their own, y = A x + B s and s = P x + L s, L strictly lower triangular: V = (I - L)⁻¹ P, U = B.
    """
    arrays = narrow(program)
    if not arrays or any(jnp.issubdtype(v.dtype, jnp.complexfloating) for v in program.arrays):
        return None
    sources = [*program.inputs, *arrays]
    seeds = dict(zip(map(id, sources), seeds_of(sources), strict=True))

    def pushed(targets: Sequence[Any], given: Sequence[Linear]) -> list[Tangent]:
        return push_through(context, section(program.steps, given, targets), [seeds[id(v)] for v in given])

    count = len(program.inputs)
    inner = [pushed([v], sources[: count + k])[0] for k, v in enumerate(arrays)]
    between = Space(jax.tree.structure([0] * len(arrays)), *_shapes(arrays), "a narrow array")
    P, L = _parts(context, inner, between, columns)
    A, U = _parts(context, pushed(program.outputs, sources), rows, columns, between)
    if 2 * P.nnz < P.shape[0] * P.shape[1] or _SPARSE * A.nnz > math.prod(A.shape):
        return None
    V = P.dense()
    if L.nnz:
        I = jnp.eye(V.shape[0], dtype=V.dtype)  # noqa: E741
        V = jax.scipy.linalg.solve_triangular(I - L.dense(), V, lower=True, unit_diagonal=True)
    return LowRankUpdate(A, U.dense(), V)


def _shapes(arrays: Sequence[Linear]) -> tuple[Any, Any]:
    return tuple(v.shape for v in arrays), tuple(v.dtype for v in arrays)


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
