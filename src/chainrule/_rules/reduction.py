"""Primitives that sum rows."""

from __future__ import annotations

import string
from typing import Any

import numpy as np

from chainrule._blocks.block import Block, compressed, constant_along, densify, only, presence, to_slots, xp
from chainrule._memory import require_memory
from chainrule._program import Context, Contracted, Scaled, Tangent, Value
from chainrule._rules._registry import rule
from chainrule._rules.contraction import associated, contract, contracted, drop_absent
from chainrule._rules.fallback import mix
from chainrule._rules.pointwise import result, tidy


@rule("reduce_sum", reads="axes", scattered=True)
def reduce_sum(context: Context, eqn: Any, values: list[Value]) -> Any:
    """out[i] = sum over k of in[i, k].

    Where the columns are the same along k the values are summed; where they vary, k moves into the
    slots without arithmetic.
    """
    (u,) = values
    assert isinstance(u, Tangent)
    axes = tuple(eqn.params["axes"])
    if isinstance(u, Scaled) and _summed(u.source, axes):
        return [weighted(context, eqn, u)]
    full = u.filled().blocks
    blocks = tidy([drop_absent(sum_rows(b, axes)) for b in compact(full, axes)])
    context.count(*full)
    return result(eqn, blocks)


def _summed(u: Tangent, axes: tuple[int, ...]) -> bool:
    """Whether rows of values that differ are summed to one: a matrix product."""
    return all(
        b.rows is None and constant_along(b, axes) and all(b.vals.shape[k] == u.shape[k] for k in axes)
        for b in u.blocks
    )


def weighted(context: Context, eqn: Any, u: Scaled) -> Contracted:
    """out[i] = sum over k of c[i, k] in[i, k], an Einstein sum: nothing of the size of c · in is written on the way."""
    letters = string.ascii_letters[: len(u.shape)]
    out = "".join(x for k, x in enumerate(letters) if k not in eqn.params["axes"])
    given = associated(u.source, u.coefficient, f"{letters},{letters}->{out}", None)
    return contracted(context, eqn.outvars[0].aval, *given, None)


def sum_rows(block: Block, axes: tuple[int, ...]) -> Block:
    same = [k for k in axes if block.cols.shape[k] == 1]
    vary = [k for k in axes if block.cols.shape[k] != 1]
    copies = int(np.prod([block.shape[k] for k in same if block.vals.shape[k] == 1]))
    keep = tuple(k for k in same if block.vals.shape[k] != 1)
    vals = block.vals.sum(axis=keep, keepdims=True, dtype=block.vals.dtype) if keep else block.vals
    vals = vals * np.asarray(copies, vals.dtype) if copies != 1 else vals
    shape = tuple(1 if k in same else s for k, s in enumerate(block.shape))
    moved = to_slots(Block(shape, block.cols, vals), vary) if vary else Block(shape, block.cols, vals)
    left = [k for k in range(len(block.shape)) if k not in vary]
    drop = tuple(left.index(k) for k in same)
    out_shape = tuple(s for k, s in enumerate(block.shape) if k not in axes)
    return Block(out_shape, np.squeeze(moved.cols, drop), xp(moved.vals).squeeze(moved.vals, drop))


def compact(blocks: tuple[Block, ...], axes: tuple[int, ...]) -> list[Block]:
    """Densify along `axes` first where moving them into the slots would repeat most columns."""
    vary = [b for b in blocks if not constant_along(b, axes)]
    if not vary:
        return list(blocks)
    out = [b for b in blocks if constant_along(b, axes)]
    for b in vary:
        width = b.slots * int(np.prod([b.shape[k] for k in axes if b.cols.shape[k] != 1]))
        columns = len(np.unique(b.cols)) if width > 1 else 1
        out.append(densify([b], axes) if width > 2 * columns else b)
    return out


@rule("cumsum", reads="axis reverse")
def cumsum(context: Context, eqn: Any, values: list[Value]) -> Any:
    """out[i] = sum over k <= i of in[k]: contraction with a known triangle of ones."""
    (u,) = values
    assert isinstance(u, Tangent)
    axis, n = eqn.params["axis"], u.shape[eqn.params["axis"]]
    cols = np.concatenate([b.cols.reshape(-1) for b in u.blocks])
    if len(np.unique(cols)) * 2 <= n * sum(b.slots for b in u.blocks) or all(
        constant_along(b, (axis,)) for b in u.blocks
    ):
        others = [k for k in range(len(u.shape)) if k != axis]
        (mixed,) = mix(context, eqn, values, 0, (axis,), work=1, alike=others)
        return [_since(mixed, u.blocks, axis, eqn.params["reverse"])]
    require_memory("jacobian: the step `cumsum`", (n, n), u.dtype.itemsize, "chainrule.linearize gives products.")
    triangle = np.tril(np.ones((n, n), u.dtype))
    triangle = triangle.T if eqn.params["reverse"] else triangle
    rank = len(u.shape)
    letters = "".join(chr(97 + k) for k in range(rank))
    out = letters.replace(letters[axis], "z")
    return result(eqn, tidy(contract(context, u, triangle, f"{letters},z{letters[axis]}->{out}", triangle != 0)))


def _since(mixed: Value, blocks: tuple[Block, ...], axis: int, reverse: bool) -> Tangent:
    """Columns are absent before the first row that has them."""
    assert isinstance(mixed, Tangent)
    (b,), shape = mixed.blocks, mixed.shape
    if all(constant_along(a, (axis,)) for a in blocks):
        return mixed
    flip = slice(None, None, -1 if reverse else 1)
    seen = np.moveaxis(presence(blocks, (axis,)), axis, 0)[flip]
    seen = np.moveaxis(np.logical_or.accumulate(seen, axis=0)[flip], 0, axis)
    return Tangent(shape, mixed.dtype, (Block(shape, compressed(only(b.cols, seen), len(shape)), b.vals),))
