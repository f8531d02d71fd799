"""Sliding windows: sums, convolutions, and selections of the greatest or the least element."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._blocks.block import Block, constant_along, densify, identity, only, xp
from chainrule._blocks.rows import pad_array, pad_rows
from chainrule._errors import MissingRuleError
from chainrule._jax import as_function
from chainrule._memory import require_columns
from chainrule._program import Coefficient, Context, Tangent, Value, as_jax
from chainrule._rules._registry import rule
from chainrule._rules.contraction import contract
from chainrule._rules.fallback import mix
from chainrule._rules.pointwise import result, tidy
from chainrule._rules.reduction import compact, sum_rows
from chainrule._rules.shape import renumber

# where so much of a dilated and padded image is zeros, what meets them alone is left out of the Jacobian in the kernel;
# a few of them would only make its pattern larger
_HOLES = 0.5


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
        if isinstance(a, np.ndarray):
            require_columns((*pieces[0].shape, len(taps)))
        return xp(a).stack(pieces, axis=-2)

    return Block((*b.shape[:lead], *outs, len(taps)), move(b.cols), move(b.vals))


def _padded(b: Block, padding: Any, dilation: Any, known: bool = False) -> Block:
    """With zeros between and around the elements; `known`: of a coefficient, whose columns mean nothing."""
    config = [(lo, hi, s - 1) for (lo, hi), s in zip(padding, dilation, strict=True)]
    full = tuple(s + (s - 1) * c[2] * (s > 0) + c[0] + c[1] for s, c in zip(b.shape, config, strict=True))
    return Block(full, b.cols, pad_array(b.vals, config, 0)) if known else pad_rows(b, config, full)


def _windows(b: Block, p: dict[str, Any], outs: tuple[int, ...]) -> Block:
    """[*rows] -> [*outs, taps]."""
    ones = (1,) * len(outs)
    padded, dilation = _padded(b, p["padding"], p.get("base_dilation", ones)), p.get("window_dilation", ones)
    return patches(padded, p["window_dimensions"], p["window_strides"], dilation, outs)


def _as_it_is(p: dict[str, Any], axis: int) -> bool:
    """Whether windows leave an axis as it is."""
    sizes = (p["window_dimensions"][axis], p["window_strides"][axis], p["base_dilation"][axis])
    return sizes == (1, 1, 1) and tuple(p["padding"][axis]) == (0, 0)


@rule("reduce_window_sum", reads="base_dilation padding window_dilation window_dimensions window_strides")
def reduce_window_sum(context: Context, eqn: Any, values: list[Value]) -> Any:
    """out[i] = sum over the taps t of in[i * stride + t * dilation]: every tap adds slots."""
    (u,), outs = values, tuple(eqn.outvars[0].aval.shape)
    assert isinstance(u, Tangent)
    kept = [k for k in range(len(outs)) if _as_it_is(eqn.params, k)]
    axes = tuple(k for k in range(len(outs)) if k not in kept)
    if not axes:
        return NotImplemented
    if all(constant_along(b, axes) for b in u.blocks):
        return mix(context, eqn, values, 0, axes, work=1, alike=kept)
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
    return _windows(identity(shape, 0, np.int32), p, outs).cols[..., 0]


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
    if isinstance(u, Tangent) and isinstance(kernel, Tangent):
        raise MissingRuleError("jacobian: a product of two tangents is not linear; check the custom derivative rules")
    d, aval = p["dimension_numbers"], eqn.outvars[0].aval
    features, batches = p["feature_group_count"], p["batch_group_count"]
    if isinstance(u, Tangent) and features == batches == 1:
        mixed = (d.lhs_spec[1], *d.lhs_spec[2:])
        if all(constant_along(b, mixed) for b in u.blocks):  # JAX's own convolution for every slot
            work = math.prod(eqn.invars[1].aval.shape[k] for k in d.rhs_spec[1:])
            (t,) = mix(context, eqn, values, 0, mixed, work)
            assert isinstance(t, Tangent)
            (b,) = t.blocks
            cols = np.moveaxis(b.cols, d.lhs_spec[0], d.out_spec[0])
            return result(eqn, (Block(t.shape, only(cols, _reached(eqn)), b.vals),))
    window = [eqn.invars[1].aval.shape[k] for k in d.rhs_spec[2:]]
    outs = [aval.shape[k] for k in d.out_spec[2:]]
    spatial = string.ascii_letters[6 : 6 + len(window)]

    def rows(b: Block, known: bool = False) -> Block:
        """[batch groups, n, feature groups, c, *spatial, taps], padding and dilation written out."""
        b = patches(_dilated(b, p, d, known), window, p["window_strides"], p["rhs_dilation"], outs)
        return _split_rows(_split_rows(b, 1, features), 0, batches)

    def weights(b: Block) -> Block:
        """[groups, output channels of each, c, taps]."""
        b = _transpose_rows(b, d.rhs_spec)
        flat = Block((*b.shape[:2], math.prod(window)), *(_flat_taps(a, window) for a in (b.cols, b.vals)))
        return _split_rows(flat, 0, features * batches)

    nonzero = None
    inner = (f"bnec{spatial}t", f"{'b' if batches > 1 else 'e'}oct", f"nbeo{spatial}")
    if isinstance(u, Tangent):
        assert isinstance(kernel, Coefficient)
        parts = [rows(b) for b in u.blocks]
        c, subscripts = weights(_coefficient_block(kernel.value)).vals[..., 0], f"{inner[0]},{inner[1]}->{inner[2]}"
        if kernel.nonzero is not None:
            nonzero = weights(_coefficient_block(kernel.nonzero)).vals[..., 0]
    else:
        assert isinstance(kernel, Tangent)
        parts = [weights(b) for b in kernel.blocks]
        c, subscripts = rows(_coefficient_block(u.value), True).vals[..., 0], f"{inner[1]},{inner[0]}->{inner[2]}"
        places = _coefficient_block(np.ones(u.shape, bool) if u.nonzero is None else u.nonzero)
        if places.vals.sum() <= _HOLES * math.prod(_dilated(places, p, d).shape):
            nonzero = rows(places, True).vals[..., 0]
    done = contract(context, Tangent(parts[0].shape, aval.dtype, tuple(parts)), c, subscripts, nonzero, p["precision"])
    shape = tuple(aval.shape[k] for k in d.out_spec)
    back = tuple(int(k) for k in np.argsort(d.out_spec))
    done = [_transpose_rows(_merged_channels(b, shape), back) for b in done]
    return result(eqn, tidy([b.with_vals(b.vals.astype(aval.dtype)) for b in done]))


def _reached(eqn: Any) -> np.ndarray:
    """Whether the window of each place of the result holds an element of the image, [*outs or 1s, 1].

    It is asked of axes of the image of one place only: what a wider one gives is dense, and better left so.
    """
    p, image, outs = eqn.params, eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    d, found = p["dimension_numbers"], np.ones((1,) * (len(outs) + 1), bool)
    for k, axis in enumerate(d.out_spec[2:]):
        if image[d.lhs_spec[2 + k]] == 1:
            first = np.arange(outs[axis]) * p["window_strides"][k] - p["padding"][k][0]
            taps = np.arange(eqn.invars[1].aval.shape[d.rhs_spec[2 + k]]) * p["rhs_dilation"][k]
            own = (first[:, None] + taps == 0).any(axis=1)
            found = found & own.reshape([-1 if j == axis else 1 for j in range(found.ndim)])
    return found


def _dilated(b: Block, p: dict[str, Any], d: Any, known: bool = True) -> Block:
    """The image as [n, c, *spatial], padding and dilation written out."""
    padding, dilation = ((0, 0), (0, 0), *p["padding"]), (1, 1, *p["lhs_dilation"])
    return _padded(_transpose_rows(b, d.lhs_spec), padding, dilation, known)


def _coefficient_block(value: Any) -> Block:
    return Block(tuple(value.shape), np.zeros((1,) * (value.ndim + 1), np.int32), value[..., None])


def _split_rows(b: Block, axis: int, groups: int) -> Block:
    """[..., g k, ...] -> [..., g, k, ...]; an axis of size 1 becomes two."""

    def split(a: Any) -> Any:
        two = (groups, -1) if a.shape[axis] != 1 or b.shape[axis] == 1 else (1, 1)
        return a.reshape((*a.shape[:axis], *two, *a.shape[axis + 1 :]))

    shape = (*b.shape[:axis], groups, b.shape[axis] // groups, *b.shape[axis + 1 :])
    return Block(shape, split(b.cols), split(b.vals))


def _flat_taps(a: Any, window: Sequence[int]) -> Any:
    """[o, c, *window, q] -> [o, c, taps or 1, q]."""
    if any(k != 1 for k in a.shape[2:-1]):
        a = xp(a).broadcast_to(a, (*a.shape[:2], *window, a.shape[-1]))
    return a.reshape((*a.shape[:2], -1, a.shape[-1]))


def _merged_channels(b: Block, shape: tuple[int, ...]) -> Block:
    """[n, batch groups, feature groups, o, *spatial] -> [n, channels, *spatial]."""

    def merged(a: Any) -> Any:
        if any(k != 1 for k in a.shape[1:4]):
            a = xp(a).broadcast_to(a, (a.shape[0], *b.shape[1:4], *a.shape[4:]))
        return a.reshape((a.shape[0], -1, *a.shape[4:]))

    return Block(shape, merged(b.cols), merged(b.vals))


def _transpose_rows(b: Block, order: tuple[int, ...]) -> Block:
    p = (*order, len(order))
    return Block(tuple(b.shape[k] for k in order), np.transpose(b.cols, p), xp(b.vals).transpose(b.vals, p))
