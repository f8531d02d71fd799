"""For each linear primitive: which boxes of its operands a box of its result takes, and how the box is computed.

A rule gives a `Part`, or None where it does not know; then the operands are taken whole.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jax import lax
from jax import numpy as jnp

from chainrule._jax import run_equation
from chainrule._linear import Step
from chainrule._program import Coefficient
from chainrule._stored.boxes import Box, hull, relative, sizes, whole


@dataclass(frozen=True, eq=False)
class Part:
    """`demands`: of each operand the box that is needed, or None; `run(equation, *operands)` gives the results.

    `run` holds nothing but hashable arguments: equal ones of one equation are one computation.
    """

    demands: tuple[Box | None, ...]
    run: partial[list[Any]]


Rule = Callable[[Step, Sequence[Any]], Part | None]
_RULES: dict[str, Rule] = {}


def part_rule(name: str) -> Rule | None:
    """The rule of a primitive, if it has one."""
    return _RULES.get(name)


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        _RULES.update(dict.fromkeys(names, function))
        return function

    return register


def opaque(step: Step) -> Part:
    """All of the operands, for all of the results."""
    return Part(tuple(whole(v.shape) for v in step.operands), partial(run_equation_on))


def run_equation_on(eqn: Any, *operands: Any) -> list[Any]:
    """The equation as it is."""
    return run_equation(eqn, operands)


def cut(x: Any, box: Box) -> Any:
    """The part of an array in a box."""
    if sizes(box) == x.shape:
        return x
    return lax.slice(x, [a for a, _ in box], [b for _, b in box])


def _bind(eqn: Any, *operands: Any) -> list[Any]:
    return [eqn.primitive.bind(*operands, **eqn.params)]


def _bind_and_cut(own: Box, eqn: Any, *operands: Any) -> list[Any]:
    return [cut(_bind(eqn, *operands)[0], own)]


@_rule(
    "mul", "div", "neg", "add", "add_any", "sub", "convert_element_type", "copy", "copy_p", "real", "imag", "complex"
)
@_rule("conj", "select_n", "reduce_precision")
def _each(step: Step, boxes: Sequence[Box]) -> Part | None:
    """Element by element; a number, or an axis of size 1, goes with every one."""
    out = step.outs[0].shape
    if any(v.shape and len(v.shape) != len(out) for v in step.operands):
        return None
    demands = [
        tuple(own if n == full else (0, n) for own, n, full in zip(boxes[0], v.shape, out, strict=True))
        if v.shape
        else ()
        for v in step.operands
    ]
    return Part(tuple(demands), partial(_bind))


@_rule("broadcast_in_dim")
def _broadcast(step: Step, boxes: Sequence[Box]) -> Part | None:
    if len(step.operands) != 1:
        return None
    dims, out = step.equation.params["broadcast_dimensions"], step.outs[0].shape
    shape = step.operands[0].shape
    demand = tuple(boxes[0][d] if n == out[d] else (0, 1) for n, d in zip(shape, dims, strict=True))
    return Part((demand,), partial(_broadcast_to, sizes(boxes[0]), tuple(dims)))


def _broadcast_to(shape: tuple[int, ...], dims: tuple[int, ...], _: Any, x: Any) -> list[Any]:
    return [lax.broadcast_in_dim(x, shape, dims)]


@_rule("transpose")
def _transpose(step: Step, boxes: Sequence[Box]) -> Part:
    permutation = step.equation.params["permutation"]
    demand = [boxes[0][permutation.index(k)] for k in range(len(permutation))]
    return Part((tuple(demand),), partial(_bind))


@_rule("rev")
def _rev(step: Step, boxes: Sequence[Box]) -> Part:
    dims, shape = step.equation.params["dimensions"], step.outs[0].shape
    demand = tuple(
        (n - b, n - a) if k in dims else (a, b) for k, (n, (a, b)) in enumerate(zip(shape, boxes[0], strict=True))
    )
    return Part((demand,), partial(_bind))


@_rule("reduce_sum")
def _reduce(step: Step, boxes: Sequence[Box]) -> Part:
    axes, left = step.equation.params["axes"], iter(boxes[0])
    demand = tuple((0, n) if k in axes else next(left) for k, n in enumerate(step.operands[0].shape))
    return Part((demand,), partial(_bind))


@_rule("cumsum")
def _along(step: Step, boxes: Sequence[Box]) -> Part:
    """What mixes one axis alone."""
    axis, (box,) = step.equation.params["axis"], boxes
    demand = (*box[:axis], (0, step.outs[0].shape[axis]), *box[axis + 1 :])
    return Part((demand,), partial(_bind_and_cut, relative(box, demand)))


@_rule("slice")
def _slice(step: Step, boxes: Sequence[Box]) -> Part:
    own = step.equation.params
    strides = tuple(own["strides"] or (1,) * len(boxes[0]))
    parts = zip(own["start_indices"], strides, boxes[0], strict=True)
    return Part((tuple((s + a * t, s + (b - 1) * t + 1) for s, t, (a, b) in parts),), partial(_strided, strides))


def _strided(strides: tuple[int, ...], _: Any, x: Any) -> list[Any]:
    return [x if max(strides, default=1) == 1 else lax.slice(x, (0,) * x.ndim, x.shape, strides)]


@_rule("pad")
def _pad(step: Step, boxes: Sequence[Box]) -> Part | None:
    config = step.equation.params["padding_config"]
    if any(inside for _, _, inside in config):
        return None
    demand, margins = list[tuple[int, int]](), list[tuple[int, int, int]]()
    for (low, _, _), n, (a, b) in zip(config, step.operands[0].shape, boxes[0], strict=True):
        start = max(0, a - low)
        stop = max(start, min(n, b - low))
        demand.append((start, stop))
        margins.append((start + low - a, b - stop - low, 0))
    return Part((tuple(demand), ()), partial(_padded, sizes(boxes[0]), tuple(margins)))


def _padded(shape: tuple[int, ...], margins: Any, _: Any, x: Any, value: Any) -> list[Any]:
    return [lax.pad(x, value, margins) if x.size else lax.broadcast(value, shape)]


@_rule("concatenate")
def _concatenate(step: Step, boxes: Sequence[Box]) -> Part:
    axis, (box,) = step.equation.params["dimension"], boxes
    demands, start = list[Any](), 0
    for v in step.operands:
        a, b = (min(max(k - start, 0), v.shape[axis]) for k in box[axis])
        demands.append((*box[:axis], (a, b), *box[axis + 1 :]) if a < b else None)
        start += v.shape[axis]
    return Part(tuple(demands), partial(_joined, axis))


def _joined(axis: int, _: Any, *operands: Any) -> list[Any]:
    return [lax.concatenate([x for x in operands if x is not None], axis)]


@_rule("stack")
def _stack(step: Step, boxes: Sequence[Box]) -> Part:
    axis, (box,) = step.equation.params["axis"], boxes
    own = (*box[:axis], *box[axis + 1 :])
    demands = tuple(own if box[axis][0] <= k < box[axis][1] else None for k in range(len(step.operands)))
    return Part(demands, partial(_stacked, axis))


def _stacked(axis: int, _: Any, *operands: Any) -> list[Any]:
    return [jnp.stack([x for x in operands if x is not None], axis)]


@_rule("unstack")
def _unstack(step: Step, boxes: Sequence[Box | None]) -> Part:
    axis = step.equation.params["axis"]
    own = [None if b is None else (*b[:axis], (k, k + 1), *b[axis:]) for k, b in enumerate(boxes)]
    return _taken_apart(own, axis)


@_rule("split")
def _split(step: Step, boxes: Sequence[Box | None]) -> Part:
    axis = step.equation.params["axis"]
    starts = [0, *itertools.accumulate(step.equation.params["sizes"])]
    own = [
        None if b is None else (*b[:axis], (b[axis][0] + s, b[axis][1] + s), *b[axis + 1 :])
        for s, b in zip(starts, boxes, strict=False)
    ]
    return _taken_apart(own, None)


def _taken_apart(own: Sequence[Box | None], squeezed: int | None) -> Part:
    """Each result is a part of the one operand; its axis `squeezed` is left out."""
    demand: Any = None
    for box in own:
        demand = demand if box is None else hull(demand, box)
    windows = tuple(None if box is None else relative(box, demand) for box in own)
    return Part((demand,), partial(_parts, windows, squeezed))


def _parts(windows: Sequence[Box | None], squeezed: int | None, _: Any, x: Any) -> list[Any]:
    outs = [None if box is None else cut(x, box) for box in windows]
    return outs if squeezed is None else [None if x is None else lax.squeeze(x, (squeezed,)) for x in outs]


@_rule("reshape", "squeeze", "expand_dims")
def _reshape(step: Step, boxes: Sequence[Box]) -> Part | None:
    """Axes that are laid flat together and cut anew: of each group of them a range of places."""
    if len(step.operands) != 1 or (
        step.equation.params.get("dimensions") and step.equation.primitive.name == "reshape"
    ):
        return None
    demand, ranges = list[tuple[int, int]](), []
    for old, new in _groups(step.operands[0].shape, step.outs[0].shape):
        box = [boxes[0][k] for k in new]
        start, stop = _flat_range(box, [step.outs[0].shape[k] for k in new])
        if stop - start != math.prod(sizes(tuple(box))):  # places that do not lie side by side
            return None
        around = _around(start, stop, [step.operands[0].shape[k] for k in old])
        first = _flat_range(around, [step.operands[0].shape[k] for k in old])[0]
        demand += around
        ranges.append((math.prod(sizes(tuple(around))), start - first, stop - first))
    return Part((tuple(demand),), partial(_reshaped, tuple(ranges), sizes(boxes[0])))


def _reshaped(ranges: Sequence[tuple[int, int, int]], shape: tuple[int, ...], _: Any, x: Any) -> list[Any]:
    x = lax.reshape(x, [n for n, _, _ in ranges])
    return [lax.reshape(cut(x, tuple((a, b) for _, a, b in ranges)), shape)]


def _groups(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Axes of both shapes, in groups of equal sizes that are as small as can be."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        own: tuple[list[int], list[int]] = ([], [])
        a = b = 1
        while not (own[0] or own[1]) or a != b:
            if j >= len(new) or (i < len(old) and a <= b and not (a == b == 1 and own[1])):
                own[0].append(i)
                a, i = a * old[i], i + 1
            else:
                own[1].append(j)
                b, j = b * new[j], j + 1
        groups.append(own)
    return groups


def _flat_range(box: Sequence[tuple[int, int]], shape: Sequence[int]) -> tuple[int, int]:
    first = last = 0
    for (a, b), n in zip(box, shape, strict=True):
        first, last = first * n + a, last * n + b - 1
    return first, last + 1


def _around(start: int, stop: int, shape: Sequence[int]) -> list[tuple[int, int]]:
    """The smallest box of places side by side around a flat range."""
    box: list[tuple[int, int]] = []
    for k in range(len(shape)):
        inner = math.prod(shape[k + 1 :])
        a, b = start // inner, (stop - 1) // inner
        box.append((a, b + 1))
        if a != b:
            return [*box, *whole(shape[k + 1 :])]
        start, stop = start - a * inner, stop - a * inner
    return box


@_rule("dot_general")
def _dot(step: Step, boxes: Sequence[Box]) -> Part:
    """Summed axes whole; batch axes and the free ones as the result has them."""
    summed, batch = step.equation.params["dimension_numbers"]
    demands, start = list[Any](), len(batch[0])
    for v, own_summed, own_batch in zip(step.operands, summed, batch, strict=True):
        demand: list[Any] = [None] * len(v.shape)
        for k, axis in enumerate(own_batch):
            demand[axis] = boxes[0][k]
        for axis in own_summed:
            demand[axis] = (0, v.shape[axis])
        free = [k for k, d in enumerate(demand) if d is None]
        for k, axis in enumerate(free):
            demand[axis] = boxes[0][start + k]
        start += len(free)
        demands.append(tuple(demand))
    return Part(tuple(demands), partial(_bind))


@_rule("gather")
def _gather(step: Step, boxes: Sequence[Box]) -> Part | None:
    """The indices of the rows that are asked for; of the operand what they point at, where they are known."""
    own, (operand, indices) = step.equation.params, step.operands
    numbers = own["dimension_numbers"]
    if numbers.operand_batching_dims or not isinstance(indices, Coefficient):
        return None
    batch = [k for k in range(len(boxes[0])) if k not in numbers.offset_dims]
    which = (*(boxes[0][k] for k in batch), (0, indices.shape[-1]))
    after = tuple((0, b - a) if k in batch else (a, b) for k, (a, b) in enumerate(boxes[0]))
    demand, shift = list(whole(operand.shape)), [0] * indices.shape[-1]
    if indices.static:
        used = indices.value[tuple(slice(a, b) for a, b in which)].reshape(-1, indices.shape[-1])
        low, high = used.min(axis=0), used.max(axis=0)
        ends = [int(high[k]) + own["slice_sizes"][axis] for k, axis in enumerate(numbers.start_index_map)]
        if (low >= 0).all() and all(
            e <= operand.shape[axis] for e, axis in zip(ends, numbers.start_index_map, strict=True)
        ):
            shift = [int(k) for k in low]
            for first, end, axis in zip(shift, ends, numbers.start_index_map, strict=True):
                demand[axis] = (first, end)
    return Part((tuple(demand), which), partial(_gathered, tuple(shift), after))


def _gathered(shift: tuple[int, ...], after: Box, eqn: Any, x: Any, indices: Any) -> list[Any]:
    first = np.asarray(shift, indices.dtype).reshape((1,) * (indices.ndim - 1) + (-1,))
    own = indices - first if any(shift) else indices
    return _bind_and_cut(after, eqn, x, own)


@_rule("conv_general_dilated")
def _conv(step: Step, boxes: Sequence[Box]) -> Part | None:
    """The batch, the features of the result, and of the places those within reach of the kernel."""
    own = step.equation.params
    if own["feature_group_count"] != 1 or own["batch_group_count"] != 1 or set(own["lhs_dilation"]) != {1}:
        return None
    lhs, rhs, out = own["dimension_numbers"]
    image, kernel = (list(whole(v.shape)) for v in step.operands)
    (box,), padding = boxes, []
    image[lhs[0]], kernel[rhs[0]] = box[out[0]], box[out[1]]
    for k, ((low, _), stride, dilation) in enumerate(
        zip(own["padding"], own["window_strides"], own["rhs_dilation"], strict=True)
    ):
        a, b = box[out[2 + k]]
        start = a * stride - low
        stop = (b - 1) * stride - low + (step.operands[1].shape[rhs[2 + k]] - 1) * dilation + 1
        n = step.operands[0].shape[lhs[2 + k]]
        if stop <= 0 or start >= n:
            return None
        image[lhs[2 + k]] = (max(start, 0), min(stop, n))
        padding.append((max(-start, 0), max(stop - n, 0)))
    return Part((tuple(image), tuple(kernel)), partial(_convolved, tuple(padding)))


def _convolved(padding: tuple[tuple[int, int], ...], eqn: Any, x: Any, kernel: Any) -> list[Any]:
    return [eqn.primitive.bind(x, kernel, **{**eqn.params, "padding": padding})]
