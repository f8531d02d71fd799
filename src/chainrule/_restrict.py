"""A linear program of some of its rows: of each array on the way, only the box that these rows depend on.

A box is a range of places along every axis. Which boxes of its operands a step needs for a box of its result is known
for the primitives that move elements, act on each alone, or mix some axes only; any other step needs its operands
whole. So the rows of a piece cost what the piece takes, not what the whole takes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jax import lax
from jax import numpy as jnp

from chainrule._boxes import Box, hull, relative, sizes, whole
from chainrule._linear import LinearProgram, Step
from chainrule._program import Coefficient, Linear
from chainrule._restrict_rules import Part, opaque, part_rule


@dataclass(frozen=True)
class Slot:
    """The value of a coefficient that is not known while tracing: its number among the values that a run is given."""

    number: int
    shape: tuple[int, ...]
    dtype: Any


@dataclass(frozen=True, eq=False)
class Window:
    """A part of a coefficient: known while tracing, or read from its slot where the program runs."""

    coefficient: Coefficient
    box: Box

    def _cut(self, array: np.ndarray) -> np.ndarray:
        return np.asarray(array[tuple(slice(a, b) for a, b in self.box)])

    @cached_property
    def key(self) -> Any:
        """What a program that reads the window must have in common with another one: where it starts is not of it."""
        c = self.coefficient
        if c.static:
            own = self._cut(c.value)
            return own.shape, str(own.dtype), own.tobytes()
        masks = [None if a is None else self._cut(a).tobytes() for a in (c.nonzero, c.minus_infinity)]
        places = None if c.places is None else tuple(self._cut(a).tobytes() for a in c.places)
        return c.value, sizes(self.box), *masks, places, c.branches

    def read(self, values: Sequence[Any], start: Sequence[Any]) -> Coefficient:
        """The part from `start` on, with all that is known of it."""
        c = self.coefficient
        if c.static:
            return Coefficient(self._cut(c.value))
        value = values[c.value.number]
        own = value if sizes(self.box) == c.shape else lax.dynamic_slice(value, start, sizes(self.box))
        support, low = (None if a is None else self._cut(a) for a in (c.nonzero, c.minus_infinity))
        support = None if support is None or support.all() else support
        places = None if c.places is None else (self._cut(c.places[0]), self._cut(c.places[1]))
        branches = None if c.branches is None else (values[c.branches[0].number], c.branches[1])
        return Coefficient(own, support, low, places, branches)


Place = tuple[int, int]  # which array, by its number in the program, and which of the boxes that are held of it


@dataclass(frozen=True, eq=False)
class Taken:
    """A step for some boxes of its results. `reads`: for each operand that is needed, a box and a window in it."""

    step: Step
    part: Part
    reads: tuple[tuple[Place, Box] | None, ...]
    gives: tuple[Place | None, ...]


@dataclass(frozen=True, eq=False)
class Restricted:
    """What some rows of a linear program take: boxes of its inputs, windows of its coefficients, parts of its steps.

    Two of equal keys are one program, run with other windows.
    """

    inputs: tuple[tuple[int, Place, Linear, Box], ...]  # number among the program's inputs
    windows: tuple[Window, ...]
    steps: tuple[Taken, ...]
    outputs: tuple[tuple[Linear | Coefficient, Place | None, Box], ...]  # what the rows are read from
    key: Any

    def run(self, values: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
        """The rows, linear in the inputs."""
        env = {place: x for (_, place, _, _), x in zip(self.inputs, inputs, strict=True)}
        left = iter(values)
        for taken in self.steps:
            operands = []
            for v, demand, read in zip(taken.step.operands, taken.part.demands, taken.reads, strict=True):
                own = isinstance(v, Coefficient) and demand is not None
                operands.append(next(left) if own else None if read is None else cut(env[read[0]], read[1]))
            outs = taken.part.run(taken.step.equation, *operands)
            env.update({place: x for place, x in zip(taken.gives, outs, strict=True) if place is not None})
        return [
            jnp.zeros(sizes(own), v.dtype) if place is None else cut(env[place], own)  # depends on no input
            for v, place, own in self.outputs
        ]


class _Held:
    """The boxes that are needed of each array: those that lie near each other become one."""

    def __init__(self, program: LinearProgram):
        self.numbers, self._boxes = program.numbers, dict[int, list[Box]]()

    def boxes(self, v: Linear) -> list[Box]:
        return self._boxes.get(self.numbers[id(v)], [])

    def need(self, v: Linear, box: Box) -> None:
        own = self._boxes.setdefault(self.numbers[id(v)], [])
        for k, other in enumerate(own):
            both = hull(other, box)
            if _size(both) <= _SPARE * (_size(other) + _size(box)):
                del own[k]
                return self.need(v, both)
        return own.append(box)

    def find(self, v: Linear, box: Box) -> tuple[Place, Box]:
        """The box that holds this one, and where in it."""
        boxes = self.boxes(v)
        k = next(k for k, own in enumerate(boxes) if hull(own, box) == own)
        return (self.numbers[id(v)], k), relative(box, boxes[k])


_SPARE = 1.5  # times the places that are needed of an array, up to which what lies between them is taken along


def _size(box: Box) -> int:
    return math.prod(sizes(box))


def restricted(program: LinearProgram, targets: Sequence[tuple[int, Box]]) -> Restricted:
    """The part of a program that boxes of some of its outputs take; targets: numbers of outputs, and boxes."""
    held = _Held(program)
    wanted = [(program.outputs[k], box) for k, box in targets]
    for v, box in wanted:
        if isinstance(v, Linear):
            held.need(v, box)
    parts: list[tuple[int, Step, Part, list[Box | None]]] = []
    for number in range(len(program.steps) - 1, -1, -1):
        step = program.steps[number]
        for part, boxes in _parts(step, held):
            parts.append((number, step, part, boxes))
            for v, demand in zip(step.operands, part.demands, strict=True):
                if isinstance(v, Linear) and demand is not None:
                    held.need(v, demand)
    return _assembled(program, wanted, held, parts[::-1])


def _parts(step: Step, held: _Held) -> list[tuple[Part, list[Box | None]]]:
    """One for each box that is needed; or all of them at once, where the step is taken whole."""
    every: list[list[Box | None]] = [
        [box if j == k else None for j in range(len(step.outs))]
        for k, v in enumerate(step.outs)
        for box in held.boxes(v)
    ]
    rule = part_rule(step.equation.primitive.name)
    found = [rule(step, boxes) for boxes in every] if rule else [None]
    if all(part is not None for part in found):
        return [(part, boxes) for part, boxes in zip(found, every, strict=True) if part is not None]
    for v in step.outs if every else ():
        held.need(v, whole(v.shape))
    return [(opaque(step), [whole(v.shape) for v in step.outs])] if every else []


def cut(x: Any, own: Box) -> Any:
    """The part of an array in a box."""
    if sizes(own) == x.shape:
        return x
    return lax.slice(x, [a for a, _ in own], [b for _, b in own])


def _assembled(
    program: LinearProgram,
    wanted: Sequence[tuple[Linear | Coefficient, Box]],
    held: _Held,
    parts: Sequence[tuple[int, Step, Part, list[Box | None]]],
) -> Restricted:
    windows, steps, key = list[Window](), list[Taken](), list[Any]()
    for number, step, part, boxes in parts:
        pairs = list(zip(step.operands, part.demands, strict=True))
        windows += [Window(v, box) for v, box in pairs if isinstance(v, Coefficient) and box is not None]
        reads = tuple(held.find(v, box) if isinstance(v, Linear) and box is not None else None for v, box in pairs)
        gives = tuple(None if b is None else held.find(v, b)[0] for v, b in zip(step.outs, boxes, strict=True))
        steps.append(Taken(step, part, reads, gives))
        key.append((number, part.run.func.__name__, part.run.args, reads, gives))
    inputs = tuple((k, held.find(v, box)[0], v, box) for k, v in enumerate(program.inputs) for box in held.boxes(v))
    found = [(v, held.find(v, box) if isinstance(v, Linear) else (None, box)) for v, box in wanted]
    outputs = tuple((v, place, own) for v, (place, own) in found)
    shapes = tuple((place, sizes(box)) for _, place, _, box in inputs)
    shape_key = tuple((place, own if place else sizes(own)) for _, place, own in outputs)
    read = tuple(w.key for w in windows)
    return Restricted(inputs, tuple(windows), tuple(steps), outputs, (tuple(key), shapes, shape_key, read))
