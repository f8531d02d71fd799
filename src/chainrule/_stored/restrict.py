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

from chainrule._linear import LinearProgram, Step
from chainrule._program import Coefficient, Linear
from chainrule._stored.boxes import Box, hull, relative, sizes, whole
from chainrule._stored.restrict_rules import Part, cut, opaque, part_rule


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
    outputs: tuple[tuple[Linear | Coefficient, tuple[Place, Box] | None, Box], ...]  # what the rows are read from
    key: Any

    def run(self, values: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
        """The rows, linear in the inputs."""
        env = {place: x for (_, place, _, _), x in zip(self.inputs, inputs, strict=True)}
        left = iter(values)
        for taken in self.steps:
            operands = []
            for v, demand, read in zip(taken.step.operands, taken.part.demands, taken.reads, strict=True):
                own = isinstance(v, Coefficient) and demand is not None
                operands.append(next(left) if own else None if demand is None else _read(env, read, v.dtype, demand))
            outs = taken.part.run(taken.step.equation, *operands)
            env.update({place: x for place, x in zip(taken.gives, outs, strict=True) if place is not None})
        return [_read(env, read, v.dtype, box) for v, read, box in self.outputs]


def _read(env: dict[Place, Any], read: tuple[Place, Box] | None, dtype: Any, box: Box) -> Any:
    """What a box holds; zeros where nothing is read for it."""
    return jnp.zeros(sizes(box), dtype) if read is None else cut(env[read[0]], read[1])


class _Held:
    """The boxes that are needed of each array: those that lie near each other become one."""

    def __init__(self, program: LinearProgram):
        self.numbers, self._boxes, self._zeros = program.numbers, dict[int, list[Box]](), set[Place]()

    def boxes(self, v: Linear) -> list[Box]:
        return self._boxes.get(self.numbers[id(v)], [])

    def need(self, v: Linear, box: Box) -> None:
        if not _size(box):
            return None
        own = self._boxes.setdefault(self.numbers[id(v)], [])
        for k, other in enumerate(own):
            both = hull(other, box)
            if _size(both) <= _SPARE * (_size(other) + _size(box)):
                del own[k]
                return self.need(v, both)
        return own.append(box)

    def find(self, v: Linear | Coefficient, box: Box | None) -> tuple[Place, Box] | None:
        """The box that holds this one, and where in it; None of what is not needed, known, empty or zero."""
        if box is None or not _size(box) or isinstance(v, Coefficient):
            return None
        boxes = self.boxes(v)
        k = next(k for k, own in enumerate(boxes) if hull(own, box) == own)
        place = self.numbers[id(v)], k
        return None if place in self._zeros else (place, relative(box, boxes[k]))

    def set_to_zero(self, places: Sequence[Place | None]) -> None:
        """What depends on nothing but empty arrays."""
        self._zeros.update(place for place in places if place is not None)


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


def _assembled(
    program: LinearProgram,
    wanted: Sequence[tuple[Linear | Coefficient, Box]],
    held: _Held,
    parts: Sequence[tuple[int, Step, Part, list[Box | None]]],
) -> Restricted:
    windows, steps, key = list[Window](), list[Taken](), list[Any]()
    for number, step, part, boxes in parts:
        pairs = list(zip(step.operands, part.demands, strict=True))
        reads = tuple(held.find(v, box) for v, box in pairs)
        given = [held.find(v, box) for v, box in zip(step.outs, boxes, strict=True)]
        gives = tuple(None if own is None else own[0] for own in given)
        if not any(reads):
            held.set_to_zero(gives)
            continue
        windows += [Window(v, box) for v, box in pairs if isinstance(v, Coefficient) and box is not None]
        steps.append(Taken(step, part, reads, gives))
        key.append((number, part.run.func.__name__, part.run.args, reads, gives))
    boxes_of = [(k, v, list(enumerate(held.boxes(v)))) for k, v in enumerate(program.inputs)]
    inputs = tuple((k, (held.numbers[id(v)], j), v, box) for k, v, own in boxes_of for j, box in own)
    outputs = tuple((v, held.find(v, box), box) for v, box in wanted)
    shapes = tuple((place, sizes(box)) for _, place, _, box in inputs)
    shape_key = tuple((read, sizes(box)) for _, read, box in outputs)
    read = tuple(w.key for w in windows)
    return Restricted(inputs, tuple(windows), tuple(steps), outputs, (tuple(key), shapes, shape_key, read))
