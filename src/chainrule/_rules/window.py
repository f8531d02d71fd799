"""Sliding windows: sums, and selections of the greatest or the least element."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._block import Block, constant_along, densify, pad_rows, xp
from chainrule._jax import as_function
from chainrule._program import Coefficient, Context, Tangent, Value, as_jax
from chainrule._rules._registry import rule
from chainrule._rules.contraction import contract
from chainrule._rules.fallback import fallback, mix
from chainrule._rules.pointwise import result, tidy
from chainrule._rules.reduction import compact, sum_rows
from chainrule._rules.shape import renumber


def patches(b: Block, window: Sequence[int], strides: Any, dilation: Any, outs: Sequence[int]) -> Block:
    """[*lead, *padded] -> [*lead, *outs, taps]: every tap is a shifted slice of the last axes."""
    taps, lead = list(np.ndindex(*window)), len(b.shape) - len(window)

    def move(a: Any) -> Any:
        pieces = []
        for tap in taps:
            cut = [
                slice(None)
                if a.shape[lead + k] == 1 and b.shape[lead + k] != 1
                else slice(t * e, t * e + (o - 1) * s + 1, s)
                for k, (t, e, o, s) in enumerate(zip(tap, dilation, outs, strides, strict=True))
            ]
            pieces.append(a[(slice(None),) * lead + tuple(cut)])
        if a.size == 1:
            return pieces[0][..., None, :]
        return xp(a).stack(pieces, axis=-2)

    return Block((*b.shape[:lead], *outs, len(taps)), move(b.cols), move(b.vals))


def _padded(b: Block, padding: Any, dilation: Any) -> Block:
    config = [(lo, hi, s - 1) for (lo, hi), s in zip(padding, dilation, strict=True)]
    full = tuple(s + (s - 1) * c[2] * (s > 0) + c[0] + c[1] for s, c in zip(b.shape, config, strict=True))
    return pad_rows(b, config, full)


def _windows(b: Block, p: dict[str, Any], outs: tuple[int, ...]) -> Block:
    """[*rows] -> [*outs, taps]."""
    ones = (1,) * len(outs)
    padded, dilation = _padded(b, p["padding"], p.get("base_dilation", ones)), p.get("window_dilation", ones)
    return patches(padded, p["window_dimensions"], p["window_strides"], dilation, outs)


@rule("reduce_window_sum", reads="base_dilation padding window_dilation window_dimensions window_strides")
def reduce_window_sum(context: Context, eqn: Any, values: list[Value]) -> Any:
    """out[i] = sum over the taps t of in[i * stride + t * dilation]: every tap adds slots."""
    (u,), outs = values, tuple(eqn.outvars[0].aval.shape)
    assert isinstance(u, Tangent)
    axes = tuple(k for k, w in enumerate(eqn.params["window_dimensions"]) if w != 1)
    if not axes:
        return NotImplemented
    if all(constant_along(b, axes) for b in u.blocks):
        return mix(context, eqn, values, 0, axes)
    blocks = tuple(_windows(b, eqn.params, outs) for b in u.blocks)
    summed = [sum_rows(b, (len(outs),)) for b in compact(blocks, (len(outs),))]
    context.count(*summed)
    return result(eqn, tidy(summed))


def _selected(eqn: Any, operand: Any, shape: tuple[int, ...], gathers: bool) -> Any:
    """The flat number of the element that each window selects, [*outs] (-1: one of the padding)."""
    run = as_function(eqn)
    numbers = jnp.arange(1, math.prod(shape) + 1, dtype=operand.dtype).reshape(shape)
    if gathers:
        chosen = run(numbers, operand)[0]
    else:
        source = jax.ShapeDtypeStruct(eqn.invars[0].aval.shape, operand.dtype)
        chosen = jax.linear_transpose(lambda s: run(s, operand)[0], source)(numbers)[0]
    return chosen.astype(jnp.int32) - 1


def _exact(dtype: Any, shape: tuple[int, ...]) -> bool:
    return jnp.issubdtype(dtype, jnp.floating) and math.prod(shape) < 2 ** jnp.finfo(dtype).nmant


@rule(
    "select_and_gather_add", reads="base_dilation padding select_prim window_dilation window_dimensions window_strides"
)
def select_and_gather_add(context: Context, eqn: Any, values: list[Value]) -> Any:
    """out[i] = in[the element that window i selects]: every tap has a slot, one of them the number 1."""
    u, operand = values
    outs = tuple(eqn.outvars[0].aval.shape)
    if not isinstance(u, Tangent) or not isinstance(operand, Coefficient):
        return NotImplemented
    if not _exact(u.dtype, u.shape):
        return NotImplemented
    selected = _selected(eqn, as_jax(operand.value), u.shape, True)
    taps = _tap_numbers(u.shape, eqn.params, outs)  # [*outs, taps]
    weights = (selected[..., None] == taps).astype(u.dtype)
    blocks = []
    for b in (densify(u.blocks, ()),) if len(u.blocks) > 4 else u.blocks:
        window = _windows(b, eqn.params, outs)
        chosen = jnp.where(weights[..., None] != 0, jnp.asarray(window.vals), jnp.zeros((), u.dtype))
        blocks.append(sum_rows(window.with_vals(chosen), (len(outs),)))
    context.count(*blocks)
    return result(eqn, tidy(blocks))


def _tap_numbers(shape: tuple[int, ...], p: dict[str, Any], outs: tuple[int, ...]) -> np.ndarray:
    numbers = np.arange(math.prod(shape), dtype=np.int32).reshape((*shape, 1))
    ones = np.ones((1,) * (len(shape) + 1))
    return _windows(Block(shape, numbers, ones), p, outs).cols[..., 0]


@rule("select_and_scatter_add", reads="padding select_prim window_dimensions window_strides")
def select_and_scatter_add(context: Context, eqn: Any, values: list[Value]) -> Any:
    """out[the element that window j selects] += in[j]: every tap of window j may be that element."""
    source, operand = values
    shape = tuple(eqn.outvars[0].aval.shape)
    if not isinstance(source, Tangent) or not isinstance(operand, Coefficient):
        return NotImplemented
    if not _exact(source.dtype, shape):
        return NotImplemented
    selected = _selected(eqn, as_jax(operand.value), shape, False)
    taps = _tap_numbers(shape, eqn.params, source.shape)  # [*windows, taps]
    blocks: list[Block] = []
    for t in range(taps.shape[-1]):
        chosen = (selected == taps[..., t])[..., None]
        for b in source.blocks:
            vals = jnp.where(chosen, jnp.asarray(b.vals), jnp.zeros((), source.dtype))
            blocks += renumber([Block(b.shape, b.cols, vals)], taps[..., t].reshape(-1))
    context.count(*blocks)
    return result(eqn, tidy(blocks))


@rule(
    "conv_general_dilated",
    reads="batch_group_count dimension_numbers feature_group_count lhs_dilation padding rhs_dilation window_strides",
)
def conv(context: Context, eqn: Any, values: list[Value]) -> Any:
    """A convolution with known window: one known-pattern patch map, then a contraction with the kernel."""
    u, kernel = values
    p = eqn.params
    if not isinstance(u, Tangent) or not isinstance(kernel, Coefficient):
        return NotImplemented
    if p["feature_group_count"] != 1 or p["batch_group_count"] != 1:
        return NotImplemented
    d = p["dimension_numbers"]
    spatial = d.lhs_spec[2:]
    if all(b.cols.shape[k] == 1 for b in u.blocks for k in (*spatial, d.lhs_spec[1])):
        return fallback(context, eqn, values)
    out_aval = eqn.outvars[0].aval
    window = [kernel.value.shape[k] for k in d.rhs_spec[2:]]
    outs = [out_aval.shape[k] for k in d.out_spec[2:]]
    weights = jnp.transpose(kernel.value, d.rhs_spec) if not kernel.static else np.transpose(kernel.value, d.rhs_spec)
    blocks: list[Block] = []
    for b in u.blocks:
        # [n, c, *spatial] with padding and dilation written out
        b = _transpose_rows(b, d.lhs_spec)
        padding, dilation = ((0, 0), (0, 0), *p["padding"]), (1, 1, *p["lhs_dilation"])
        blocks.append(patches(_padded(b, padding, dilation), window, p["window_strides"], p["rhs_dilation"], outs))
    rank = len(window)
    flat = weights.reshape((weights.shape[0], weights.shape[1], -1))  # [out channel, in channel, taps]
    names = string.ascii_letters
    spatial_names = names[4 : 4 + rank]
    tangent = Tangent(blocks[0].shape, u.dtype, tuple(blocks))  # [n, c, *spatial, taps]
    done = contract(context, tangent, flat, f"ab{spatial_names}c,dbc->ad{spatial_names}")
    back = tuple(int(k) for k in np.argsort(d.out_spec))
    return result(eqn, tidy([_transpose_rows(b, back) for b in done]))


def _transpose_rows(b: Block, order: tuple[int, ...]) -> Block:
    p = (*order, len(order))
    return Block(tuple(b.shape[k] for k in order), np.transpose(b.cols, p), xp(b.vals).transpose(b.vals, p))
