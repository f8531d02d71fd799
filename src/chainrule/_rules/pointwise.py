"""Pointwise primitives: they scale, add or convert values; columns stay as they are."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._block import Block, join, merge, multiply
from chainrule._errors import MissingRuleError
from chainrule._program import Coefficient, Context, Tangent, Value
from chainrule._rules._registry import rule

_MANY = 24  # above this many blocks of one array, XLA's compile time costs more than wider slots


def tidy(blocks: list[Block]) -> tuple[Block, ...]:
    """Merge equal columns; join what is scalar, or too much, along the slots."""
    merged = merge(blocks)
    scalar = len(merged) > 1 and np.prod(merged[0].shape) <= 1
    return (join(merged),) if scalar or len(merged) > _MANY else tuple(merged)


def scale(context: Context, block: Block, coefficient: Coefficient) -> Block:
    """vals * c[..., None]; where c is known to vanish the columns become absent."""
    value = coefficient.value
    if value.ndim == 0:
        value = value.reshape((1,) * len(block.shape))
    nonzero, cols = coefficient.nonzero, block.cols
    if nonzero is not None and nonzero.ndim == len(block.shape):
        cols = np.where(nonzero[..., None], cols, np.int32(-1))
    out = Block(block.shape, cols, multiply(block.vals, _compressed(value)[..., None]))
    context.count(out)
    return out


def _compressed(value: Any) -> Any:
    """A known value that is the same along an axis is kept once."""
    if not isinstance(value, np.ndarray) or value.size <= 1:
        return value
    for k in range(value.ndim):
        first = value.take([0], axis=k) if value.shape[k] else value
        if value.shape[k] > 1 and (value == first).all():
            value = first
    return value


def result(eqn: Any, blocks: tuple[Block, ...] | list[Block]) -> list[Value]:
    aval = eqn.outvars[0].aval
    return [Tangent(tuple(aval.shape), aval.dtype, tuple(blocks))]


@rule("mul")
def mul(context: Context, eqn: Any, values: list[Value]) -> Any:
    """out = c * u, element by element: J_out = diag(c) J_u."""
    tangents = [v for v in values if isinstance(v, Tangent)]
    if len(tangents) != 1:
        raise MissingRuleError("jacobian: a product of two tangents is not linear; check the custom derivative rules")
    (c,) = [v for v in values if isinstance(v, Coefficient)]
    u = _broadcast_scalar(tangents[0], eqn.outvars[0].aval.shape)
    return result(eqn, tidy([scale(context, b, c) for b in u]))


def _broadcast_scalar(tangent: Tangent, shape: tuple[int, ...]) -> list[Block]:
    if tangent.shape == tuple(shape):
        return list(tangent.blocks)
    if len(tangent.shape) == len(shape):  # axes of size 1 already mean 'the same along this axis'
        return [Block(tuple(shape), b.cols, b.vals) for b in tangent.blocks]
    ones = (1,) * len(shape)
    return [
        Block(tuple(shape), b.cols.reshape((*ones, b.cols.shape[-1])), b.vals.reshape((*ones, b.vals.shape[-1])))
        for b in tangent.blocks
    ]


@rule("div")
def div(context: Context, eqn: Any, values: list[Value]) -> Any:
    """out = u / c: J_out = diag(1/c) J_u. An infinite quotient keeps its column."""
    u, c = values
    if not isinstance(u, Tangent) or isinstance(c, Tangent):
        raise MissingRuleError("jacobian: a division by a tangent is not linear; check the custom derivative rules")
    blocks = []
    for b in _broadcast_scalar(u, eqn.outvars[0].aval.shape):
        value = c.value.reshape((1,) * len(b.shape)) if c.value.ndim == 0 else c.value
        if b.static and isinstance(value, np.ndarray):
            with np.errstate(all="ignore"):
                blocks.append(b.with_vals(np.divide(b.vals, value[..., None])))
        else:
            blocks.append(b.with_vals(jnp.divide(jnp.asarray(b.vals), jnp.asarray(value)[..., None])))
    context.count(*blocks)
    return result(eqn, blocks)


@rule("add", "add_any", "sub")
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


@rule("neg", "copy", "real", "imag", "conj", "convert_element_type", "reduce_precision", "device_put",
      "sharding_constraint", "optimization_barrier", "name")  # fmt: skip
def unary(context: Context, eqn: Any, values: list[Value]) -> Any:
    """out = op(u) for an op that is linear over the reals, applied to the values alone."""
    (u,) = values
    assert isinstance(u, Tangent)
    if eqn.primitive.name in ("sharding_constraint", "device_put", "optimization_barrier", "name"):
        return result(eqn, u.blocks)
    if eqn.primitive.name == "reduce_precision":
        return NotImplemented
    blocks = [b.with_vals(_UNARY[eqn.primitive.name](b.vals, eqn.params)) for b in u.blocks]
    return result(eqn, blocks)


_UNARY: dict[str, Any] = {
    "neg": lambda a, p: -a,
    "copy": lambda a, p: a,
    "real": lambda a, p: a.real,
    "imag": lambda a, p: a.imag,
    "conj": lambda a, p: a.conj(),
    "convert_element_type": lambda a, p: converted(a, p["new_dtype"]),
}


def converted(array: Any, dtype: Any) -> Any:
    """The values in another dtype; the real part where a complex one becomes real."""
    real = array.dtype.kind == "c" and not jnp.issubdtype(dtype, jnp.complexfloating)
    return (array.real if real else array).astype(dtype)


@rule("complex")
def complex_(context: Context, eqn: Any, values: list[Value]) -> Any:
    """out = u + i v."""
    dtype, blocks = eqn.outvars[0].aval.dtype, []
    for v, unit in zip(values, (1, 1j), strict=True):
        if isinstance(v, Tangent):
            blocks += [b.with_vals(b.vals.astype(dtype) * np.asarray(unit, dtype)) for b in v.blocks]
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
        dtype = case.dtype
        chosen = which.value == k if which.value.dtype != bool else (which.value if k else ~which.value)
        if isinstance(chosen, np.ndarray):
            blocks += [_mask(b, chosen) for b in case.blocks]
        else:
            blocks += [_choose(b, chosen, dtype) for b in case.blocks]
    context.count(*blocks)
    return result(eqn, tidy(blocks))


def _mask(block: Block, chosen: np.ndarray) -> Block:
    if chosen.ndim == 0:
        chosen = chosen.reshape((1,) * len(block.shape))
    return Block(block.shape, np.where(chosen[..., None], block.cols, np.int32(-1)), block.vals)


def _choose(block: Block, chosen: Any, dtype: Any) -> Block:
    """A select, not a product: an unchosen NaN or Inf must vanish."""
    if chosen.ndim == 0:
        chosen = chosen.reshape((1,) * len(block.shape))
    vals = jnp.asarray(block.vals)
    return block.with_vals(jnp.where(chosen[..., None], vals, jax.lax.full((), 0, vals.dtype)))
