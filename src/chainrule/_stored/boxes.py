"""Boxes: a range of places along every axis of an array; and how a pytree of arrays falls into them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from chainrule._space import Space

Box = tuple[tuple[int, int], ...]  # half-open, one range for each axis


def whole(shape: Sequence[int]) -> Box:
    """All of an array."""
    return tuple((0, int(n)) for n in shape)


def sizes(box: Box) -> tuple[int, ...]:
    """The shape of a box."""
    return tuple(b - a for a, b in box)


def hull(one: Box | None, other: Box) -> Box:
    """The smallest box around both."""
    if one is None:
        return other
    return tuple((min(a, c), max(b, d)) for (a, b), (c, d) in zip(one, other, strict=True))


def relative(box: Box, origin: Box) -> Box:
    """The box as seen from the first place of another."""
    return tuple((a - o, b - o) for (a, b), (o, _) in zip(box, origin, strict=True))


def places(box: Box, shape: Sequence[int]) -> np.ndarray:
    """The flat numbers of the places in a box of an array of this shape, in the shape of the box."""
    total = np.zeros((1,) * len(box), np.int64)
    for k, (a, b) in enumerate(box):
        stride = math.prod(shape[k + 1 :])
        total = total + (np.arange(a, b, dtype=np.int64) * stride).reshape(
            [-1 if j == k else 1 for j in range(len(box))]
        )
    return total


@dataclass(frozen=True)
class Piece:
    """Consecutive numbers of the flat axis of a space, as boxes of consecutive leaves."""

    start: int
    boxes: tuple[tuple[int, Box], ...]  # number of the leaf, and what of it

    @property
    def stop(self) -> int:
        """The first number after it."""
        return self.start + sum(math.prod(sizes(box)) for _, box in self.boxes)

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return self.stop - self.start

    def halves(self) -> tuple[Piece, Piece]:
        """Two pieces that make up this one, which has two numbers or more."""
        if len(self.boxes) > 1:
            mid = len(self.boxes) // 2
            first = Piece(self.start, self.boxes[:mid])
            return first, Piece(first.stop, self.boxes[mid:])
        ((leaf, box),) = self.boxes
        axis = next(k for k, (a, b) in enumerate(box) if b - a > 1)
        a, b = box[axis]
        first = Piece(self.start, ((leaf, (*box[:axis], (a, (a + b) // 2), *box[axis + 1 :])),))
        return first, Piece(first.stop, ((leaf, (*box[:axis], ((a + b) // 2, b), *box[axis + 1 :])),))


def pieces_of(space: Space, most: int) -> Iterator[Piece]:
    """Cut a space into pieces of at most so many numbers; small leaves share one."""
    waiting: list[tuple[int, Box]] = []
    start = held = 0
    for leaf, (shape, size) in enumerate(zip(space.shapes, space.sizes, strict=True)):
        if not size:
            continue
        if waiting and held + size > most:
            yield Piece(start, tuple(waiting))
            start, waiting, held = start + held, [], 0
        if size <= most:
            waiting.append((leaf, whole(shape)))
            held += size
            continue
        for box in _slabs(shape, most):
            yield Piece(start, ((leaf, box),))
            start += math.prod(sizes(box))
    if waiting:
        yield Piece(start, tuple(waiting))


def _slabs(shape: tuple[int, ...], most: int) -> Iterator[Box]:
    """Boxes of consecutive places, of about equal sizes up to `most`, in an array that has more."""
    axis = next(k for k in range(len(shape)) if math.prod(shape[k + 1 :]) <= most)
    count = -(-shape[axis] // max(most // math.prod(shape[axis + 1 :]), 1))
    height = -(-shape[axis] // count)
    for before in np.ndindex(*shape[:axis]):
        for a in range(0, shape[axis], height):
            yield (*((k, k + 1) for k in before), (a, min(a + height, shape[axis])), *whole(shape[axis + 1 :]))
