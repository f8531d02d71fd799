"""Pointwise primitives: they scale, add or convert values; columns stay as they are."""

from __future__ import annotations

import math
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._blocks.block import (
    Block,
    between_zeros,
    compressed,
    flat_numbers,
    merge,
    multiply,
    only,
    plus,
    present,
    slots_first,
    union,
    xp,
)
from chainrule._errors import MissingRuleError
from chainrule._program import Coefficient, Context, Scaled, Tangent, Value
from chainrule._rules._registry import rule
from chainrule._space import converted

_FEW_SLOTS, _FEW_ROWS = 16, 2**17  # up to these, blocks are looked through for common columns
_FEW_PLACES = 8  # blocks of different rows of one array, up to which each is scaled by itself
_MANY = 16  # above this many blocks of one array, XLA's compile time costs more than wider slots


def tidy(blocks: list[Block]) -> tuple[Block, ...]:
    """Merge equal columns, and few ones into a union; join what is scalar, or too much, along the slots."""
    groups: dict[Any, list[Block]] = {}
    for b in merge(blocks):
        groups.setdefault((b.shape, None if b.rows is None else b.rows.tobytes()), []).append(b)
    out = [b for group in groups.values() for b in _tidy_group(group)]
    return tuple(_stacked(out) if len(out) > _FEW_PLACES else out)


def _stacked(blocks: list[Block]) -> list[Block]:
    """Put scattered blocks of about as many slots one under the other: each step costs one operation for each block."""
    classes: dict[int, list[Block]] = {}
    for b in blocks:
        classes.setdefault(-1 if b.rows is None else b.slots.bit_length(), []).append(b)
    return [b for key, group in classes.items() for b in (group if key < 0 or len(group) == 1 else [pile(group)])]


def pile(blocks: list[Block]) -> Block:
    """Scattered blocks as one of all their rows, laid flat; what is narrower gets absent columns."""
    width, cols, vals = max(b.slots for b in blocks), [], []
    for b in blocks:
        size = (math.prod(b.shape), b.slots)
        more = width - b.slots
        wide = np.broadcast_to(b.cols, (*b.shape, b.slots)).reshape(size)
        cols.append(np.pad(wide, ((0, 0), (0, more)), constant_values=-1))
        vals.append(between_zeros(xp(b.vals).broadcast_to(b.vals, (*b.shape, b.slots)).reshape(size), 0, more))
    rows = np.concatenate([b.rows.reshape(-1) for b in blocks if b.rows is not None])
    module = np if all(b.static for b in blocks) else jnp
    return Block((len(rows),), np.concatenate(cols), module.concatenate(vals), rows)


def _tidy_group(blocks: list[Block]) -> list[Block]:
    blocks = overlaid(blocks) if len(blocks) > 1 else blocks
    if len(blocks) == 1:
        return blocks
    scalar = math.prod(blocks[0].shape) <= 1
    if scalar or len(blocks) > _MANY:
        return [union(blocks)]
    widest = max(b.slots for b in blocks)
    if widest <= _FEW_SLOTS and union_width(blocks, 32) <= widest and union_width(blocks, _FEW_ROWS) <= widest:
        return [union(blocks)]
    return blocks


def overlaid(blocks: list[Block], known: bool = False) -> list[Block]:
    """Make blocks one whose columns agree wherever both are present, as parts of an array that were padded do.

    What is known stays apart, unless it is overlaid, too (`known`), or the values are the same ones.
    """
    out: list[Block] = []
    for b in blocks:
        for k, a in enumerate(out):
            both = _overlay(a, b, known)
            if both is not None:
                out[k] = both
                break
        else:
            out.append(b)
    return out


def _overlay(a: Block, b: Block, known: bool) -> Block | None:
    if a.slots != b.slots:
        return None
    alike = a.static and b.static and np.array_equal(a.vals, b.vals)
    if (a.static or b.static) and not (known or alike):
        return None
    corner = (slice(_FEW_PLACES),) * a.cols.ndim  # most of those that differ do so at once
    if not (_agree(a.cols[corner], b.cols[corner]) and _agree(a.cols, b.cols)):
        return None
    apart = alike and not ((a.cols >= 0) & (b.cols >= 0)).any()
    if not (known or apart) and a.static:
        return None
    cols = compressed(np.maximum(a.cols, b.cols), a.cols.ndim - 1)
    return Block(a.shape, cols, a.vals if apart else plus(present(a), present(b)), a.rows)


def _agree(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether the columns are the same wherever both are present."""
    return bool(((a == b) | (a < 0) | (b < 0)).all())


def union_width(blocks: list[Block], rows: int) -> int:
    """The number of distinct columns in one row, at most; taken from the first rows."""
    shape = np.broadcast_shapes((1,), *[b.cols.shape[:-1] for b in blocks])
    if math.prod(shape) > rows >= _FEW_ROWS:
        return sys.maxsize
    first = np.unravel_index(np.arange(min(rows, math.prod(shape))), shape)
    cols = [np.broadcast_to(b.cols, (*shape, b.slots))[first] for b in blocks]
    lines = np.sort(np.concatenate(cols, axis=1), axis=1)
    fresh = (np.diff(lines, axis=1, prepend=-1) != 0) & (lines >= 0)
    return int(fresh.sum(axis=1).max(initial=0))


def part(value: Any, block: Block, shape: tuple[int, ...]) -> Any:
    """The elements of a pointwise coefficient of an array of `shape` that belong to the block's rows, as [*rows]."""
    if value.ndim == 0:
        return value.reshape((1,) * len(block.shape))
    if block.rows is None:
        return value
    flat, rows = value.reshape(-1), block.rows
    if value.shape != shape:  # an axis of size 1 stands for all
        rows = np.broadcast_to(flat_numbers(value.shape), shape).reshape(-1)[rows]
    first, size = int(rows.flat[0]), rows.size
    if np.array_equal(rows.reshape(-1), np.arange(first, first + size)):
        # a slice fuses where a gather may not
        own = (
            flat[first : first + size]
            if isinstance(flat, np.ndarray)
            else jax.lax.slice_in_dim(flat, first, first + size)
        )
        return own.reshape(rows.shape)
    return flat[rows]


def scale(context: Context, block: Block, coefficient: Coefficient, shape: tuple[int, ...]) -> Block:
    """vals * c[..., None]; where c is known to vanish the columns become absent."""
    nonzero, cols, value = coefficient.nonzero, block.cols, part(coefficient.value, block, shape)
    if nonzero is not None and nonzero.ndim:
        cols = only(cols, part(nonzero, block, shape)[..., None])
    value = compressed(value) if isinstance(value, np.ndarray) else value
    operands = block.vals, xp(value).expand_dims(value, -1)
    turned = context.summed and value.ndim and block.vals.shape[-1] > 1
    out = Block(block.shape, cols, slots_first(multiply, *operands) if turned else multiply(*operands), block.rows)
    context.count(out)
    return out


def result(eqn: Any, blocks: tuple[Block, ...] | list[Block]) -> list[Value]:
    aval = eqn.outvars[0].aval
    return [Tangent(tuple(aval.shape), aval.dtype, tuple(blocks))]


@rule("mul", reads="out_dtype", scattered=True)
def mul(context: Context, eqn: Any, values: list[Value]) -> Any:
    """out = c * u, element by element: J_out = diag(c) J_u."""
    tangents = [v for v in values if isinstance(v, Tangent)]
    if len(tangents) != 1:
        raise MissingRuleError("jacobian: a product of two tangents is not linear; check the custom derivative rules")
    if eqn.params.get("out_dtype") not in (None, tangents[0].dtype):
        return NotImplemented
    (c,) = [v for v in values if isinstance(v, Coefficient)]
    shape, (u,) = tuple(eqn.outvars[0].aval.shape), tangents

    def take() -> tuple[Block, ...]:
        return tidy([scale(context, b, c, shape) for b in _broadcast_scalar(u, shape)])

    if u.shape == c.shape == shape and c.nonzero is None:
        return [Scaled(u, c, take)]
    return result(eqn, take())


def _broadcast_scalar(tangent: Tangent, shape: tuple[int, ...]) -> list[Block]:
    if tangent.shape == tuple(shape):
        return list(tangent.blocks)
    tangent = tangent.filled()
    if len(tangent.shape) == len(shape):  # axes of size 1 already mean 'the same along this axis'
        return [Block(tuple(shape), b.cols, b.vals) for b in tangent.blocks]
    ones = (1,) * len(shape)
    return [
        Block(tuple(shape), b.cols.reshape((*ones, b.cols.shape[-1])), b.vals.reshape((*ones, b.vals.shape[-1])))
        for b in tangent.blocks
    ]


@rule("div", scattered=True)
def div(context: Context, eqn: Any, values: list[Value]) -> Any:
    """out = u / c: J_out = diag(1/c) J_u. An infinite quotient keeps its column."""
    u, c = values
    if not isinstance(u, Tangent) or isinstance(c, Tangent):
        raise MissingRuleError("jacobian: a division by a tangent is not linear; check the custom derivative rules")
    blocks, shape = [], tuple(eqn.outvars[0].aval.shape)
    for b in _broadcast_scalar(u, shape):
        value = part(c.value, b, shape)
        if b.static and isinstance(value, np.ndarray):
            with np.errstate(all="ignore"):
                blocks.append(b.with_vals(np.divide(b.vals, value[..., None])))
        else:
            blocks.append(b.with_vals(jnp.divide(jnp.asarray(b.vals), jnp.expand_dims(value, -1))))
    context.count(*blocks)
    return result(eqn, blocks)


@rule("add", "add_any", "sub", scattered=True)
def add(context: Context, eqn: Any, values: list[Value]) -> Any:
    """out = u ± v: the sums of blocks are laid together, equal columns are added."""
    shape, blocks = eqn.outvars[0].aval.shape, []
    for k, v in enumerate(values):
        if isinstance(v, Coefficient):
            if not v.zero:
                raise MissingRuleError("jacobian: a constant is added to a tangent; check the custom derivative rules")
            continue
        own = _broadcast_scalar(v, shape)
        negative = k == 1 and eqn.primitive.name == "sub"
        blocks += [b.with_vals(-b.vals) for b in own] if negative else own
    out = tidy(blocks)
    context.count(*[b for b in out if not any(b is a for a in blocks)])
    return result(eqn, out)


@rule("neg", "copy", "real", "imag", "conj", "convert_element_type", "device_put",
      "sharding_constraint", "name", "stop_gradient", "reduce_precision",
      reads="new_dtype input_dtype name exponent_bits mantissa_bits", scattered=True)  # fmt: skip
def unary(context: Context, eqn: Any, values: list[Value]) -> Any:
    """out = op(u) for an op that is linear over the reals, applied to the values alone."""
    if eqn.primitive.name in ("sharding_constraint", "device_put", "name", "stop_gradient"):
        return values  # what is linear has been differentiated already: nothing is stopped
    (u,) = values
    assert isinstance(u, Tangent)
    blocks = [b.with_vals(_UNARY[eqn.primitive.name](b.vals, eqn.params)) for b in u.blocks]
    return result(eqn, blocks)


_UNARY: dict[str, Any] = {
    "neg": lambda a, p: -a,
    "copy": lambda a, p: a,
    "real": lambda a, p: a.real,
    "imag": lambda a, p: a.imag,
    "conj": lambda a, p: a.conj(),
    "convert_element_type": lambda a, p: converted(a, p["new_dtype"]),
    "reduce_precision": lambda a, p: jax.lax.reduce_precision(jnp.asarray(a), p["exponent_bits"], p["mantissa_bits"]),
}


@rule("complex")
def complex_(context: Context, eqn: Any, values: list[Value]) -> Any:
    """out = u + i v."""
    dtype, blocks = eqn.outvars[0].aval.dtype, []
    for v, unit in zip(values, (1, 1j), strict=True):
        if isinstance(v, Tangent):
            own = _broadcast_scalar(v, eqn.outvars[0].aval.shape)
            blocks += [b.with_vals(b.vals.astype(dtype) * np.asarray(unit, dtype)) for b in own]
    return result(eqn, tidy(blocks))


@rule("select_n")
def select_n(context: Context, eqn: Any, values: list[Value]) -> Any:
    """out[i] = cases[which[i]][i]: every case is kept where it may be chosen."""
    which, *cases = values
    if isinstance(which, Tangent):
        return NotImplemented
    blocks = []
    for k, case in enumerate(cases):
        if isinstance(case, Coefficient):
            if not case.zero:
                raise MissingRuleError("jacobian: select_n between a tangent and a nonzero constant is not linear")
            continue
        chosen = which.value == k if which.value.dtype != bool else (which.value if k else ~which.value)
        if isinstance(chosen, np.ndarray):
            blocks += [_mask(b, chosen) for b in case.blocks]
        elif which.partly is not None:
            known, number = which.partly
            blocks += [choose(_mask(b, ~known | (number == k)), chosen) for b in case.blocks]
        else:
            blocks += [choose(b, chosen) for b in case.blocks]
    context.count(*blocks)
    return result(eqn, tidy(blocks))


def _mask(block: Block, chosen: np.ndarray) -> Block:
    if chosen.ndim == 0:
        chosen = chosen.reshape((1,) * len(block.shape))
    return Block(block.shape, only(block.cols, chosen[..., None]), block.vals)


def choose(block: Block, chosen: Any) -> Block:
    """A select, not a product: an unchosen NaN or Inf must vanish."""
    if chosen.ndim == 0:
        chosen = chosen.reshape((1,) * len(block.shape))
    vals = jnp.asarray(block.vals)
    return block.with_vals(jnp.where(chosen[..., None], vals, jax.lax.full((), 0, vals.dtype)))


@rule("optimization_barrier", scattered=True)
def optimization_barrier(context: Context, eqn: Any, values: list[Value]) -> Any:
    """The identity, behind which XLA may not look: the values stay behind it too."""
    outs: list[Value] = []
    for v in values:
        if isinstance(v, Tangent):
            behind = (b if b.static else b.with_vals(jax.lax.optimization_barrier(b.vals)) for b in v.blocks)
            v = Tangent(v.shape, v.dtype, tuple(behind))
        outs.append(v)
    return outs
