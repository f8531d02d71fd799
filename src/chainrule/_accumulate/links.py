"""Chains of arrays, link by link: where a link weighs neighbours, its own Jacobian is assembled first.

Taken through the equations of a link one by one, a wide band is moved and added as often as the link has equations. Its
own Jacobian is narrow, so it is cheaper to find this first and to multiply by it: a sum of shifts, as for a loop.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from chainrule._blocks.block import Block, taken_once
from chainrule._linear import LinearProgram, Step, push_through, section, seeds_of
from chainrule._plan.order import dominators
from chainrule._program import Context, Linear, Tangent
from chainrule._propagate import pushing
from chainrule._rules.layout import Layout, all_numbers
from chainrule._rules.reach import ones, rows_of
from chainrule._rules.stencil import Stencil, taps_of, weights_of

_MOVES = frozenset({"slice", "pad", "concatenate", "rev", "split", "reshape", "squeeze", "transpose"})
_SCALES = frozenset({"mul", "div", "neg", "add", "add_any", "sub", "select_n", "convert_element_type", "copy"})


def push_linked(context: Context, program: LinearProgram, inputs: Sequence[Tangent]) -> list[Tangent]:
    """The tangents of the outputs, as `push_through` gives them, from link to link."""
    reached = list(inputs)
    for link in _links(program):
        reached = _multiplied(context, link, reached) or push_through(context, link, reached)
    return reached


def _links(program: LinearProgram) -> Iterator[LinearProgram]:
    """The program cut at arrays through which every path passes; what only scales belongs to the link before it."""
    arrays: tuple[Linear, ...] = program.inputs
    steps: list[Step] = []
    cuts = dominators(program)
    for k, cut in enumerate(cuts[1:-1], 1):
        steps += program.steps[cuts[k - 1].after : cut.after]
        coming = program.steps[cut.after : cuts[k + 1].after]
        if any(s.equation.primitive.name not in _SCALES for s in coming):
            yield section(steps, arrays, cut.arrays)
            arrays, steps = cut.arrays, []
    yield section([*steps, *program.steps[cuts[-2].after :]], arrays, program.outputs)


def _multiplied(context: Context, link: LinearProgram, entering: Sequence[Tangent]) -> list[Tangent] | None:
    """The product with the Jacobian of a link, if that is a sum of shifts and costs less than the equations."""
    if not _may_weigh(link):
        return None
    (source,), (v,) = link.inputs, entering
    width, own = sum(b.slots for b in v.blocks), pushing()
    if width < 2:
        return None
    local = push_through(own, link, seeds_of([source]))
    taps = taps_of(local, {0: (0, source.shape)})
    if taps is None or width * (own.cost - source.size * len(taps)) <= own.cost:
        return None
    held = rows_of([v], 1 + max(int(b.cols.max(initial=-1)) for b in v.blocks))
    old, new = (Layout(["tangent"], [v], p) for p in (held, ones(rows_of(local, source.size) @ held)))
    stencil = Stencil(taps, [taken_once(w) for w in weights_of(local)])
    moves = stencil.shifts(old.cols, new.cols)
    if moves is None:
        return None
    numbers = all_numbers(Block(v.shape, old.cols[0], old.numbers([v])[0]), moves[1])
    full = (*v.shape, new.cols[0].shape[-1])
    (after,) = stencil.advance([numbers], stencil.weights, moves[0], [full])
    context.cost += own.cost + len(taps) * math.prod(full)
    return [Tangent(v.shape, v.dtype, (Block(v.shape, new.cols[0], after),))]


def _may_weigh(link: LinearProgram) -> bool:
    """Whether a link of real arrays moves and scales, and gives an array of the shape that it takes."""
    if len(link.inputs) != 1 or len(link.outputs) != 1 or len(link.targets) != 1:
        return False
    names = {step.equation.primitive.name for step in link.steps}
    alike = {(link.inputs[0].shape, link.inputs[0].dtype), (link.targets[0].shape, link.targets[0].dtype)}
    real = link.inputs[0].dtype.kind == "f"
    return real and len(alike) == 1 and names <= _MOVES | _SCALES and not names <= _SCALES
