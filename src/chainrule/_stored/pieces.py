"""The Jacobian piece by piece: a program that is linearized once, and the Jacobians of boxes of its rows."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._accumulate.accumulate import best_of
from chainrule._accumulate.loop_body import planning
from chainrule._accumulate.recorded import Accumulated, Recorded, assembled, swept
from chainrule._blocks.block import Block, identity
from chainrule._errors import MemoryLimitError, NotReversibleError
from chainrule._jacobians.assembled import Assembled
from chainrule._linear import LinearProgram, push_through, traced, transposed
from chainrule._memory import limited
from chainrule._program import Coefficient, Linear, Tangent, as_jax
from chainrule._space import Space, promoted
from chainrule._stored.boxes import Piece, places, sizes, whole
from chainrule._stored.restrict import Restricted, Slot, Window, restricted
from chainrule._trace import Problem, no_reverse_program

_KNOWN = 16  # numbers, up to which those that are known while tracing stand in the compiled program
_KEPT = 16  # compiled programs


@dataclass(frozen=True, eq=False)
class Source:
    """A linear program whose coefficients are in slots. `flipped`: it is that of the transposed Jacobian."""

    program: LinearProgram
    rows: Space
    columns: Space
    flipped: bool
    compiled: dict[Any, Any] = field(default_factory=dict, repr=False)
    lock: Any = field(default_factory=threading.RLock, repr=False)  # of `compiled`, which threads share

    @property
    def targets(self) -> Space:
        """What the program gives."""
        return self.columns if self.flipped else self.rows

    @property
    def inputs(self) -> Space:
        """What it takes."""
        return self.rows if self.flipped else self.columns


def source_of(recorded: Recorded) -> tuple[Source, list[Any]]:
    """The program with its coefficients in slots, and their values."""
    slots: dict[int, Slot] = {}
    values: list[Any] = []
    made: dict[int, Coefficient] = {}

    def slot(value: Any) -> Slot:
        if id(value) not in slots:
            slots[id(value)] = Slot(len(values), tuple(np.shape(value)), jnp.result_type(value))
            values.append(value)
        return slots[id(value)]

    def emptied(v: Coefficient | Linear) -> Coefficient | Linear:
        if isinstance(v, Linear) or (v.static and (v.value.size <= _KNOWN or v.value.dtype.kind not in "fcV")):
            return v
        if id(v) not in made:
            branches = None if v.branches is None else (slot(v.branches[0]), v.branches[1])
            made[id(v)] = Coefficient(slot(v.value), v.nonzero, v.minus_infinity, v.places, branches)
        return made[id(v)]

    p = recorded.program
    steps = tuple(replace(s, operands=tuple(emptied(v) for v in s.operands)) for s in p.steps)
    outputs = tuple(Coefficient(np.zeros(v.shape, v.dtype)) if isinstance(v, Coefficient) else v for v in p.outputs)
    source = Source(LinearProgram(p.inputs, outputs, steps), recorded.rows, recorded.columns, recorded.reverse)
    return source, [as_jax(v) for v in values]


class Pieces:
    """The Jacobians of pieces of a map's rows, or of its columns; equal pieces share a compiled program."""

    def __init__(self, what: str, source: Source, values: Sequence[Any], by_rows: bool, memory: int | None):
        self._source, self._values, self._memory = source, values, memory
        # where JAX has a program in the other direction only, its seeds are restricted in place of its results
        self._restricts = by_rows != source.flipped
        self._problem = Problem(lambda: None, None, what, (), None)  # the linear program stands for the function
        self.shape, self.dtype = (
            (source.rows.size, source.columns.size),
            promoted(source.rows.dtype, source.columns.dtype),
        )
        self.spaces = source.rows, source.columns
        self.space = source.rows if by_rows else source.columns

    def places(self, piece: Piece) -> int:
        """How many entries the Jacobian of a piece stores, absent ones too; it is traced, not run."""
        return sum(e.places for e in self._stage(piece)[1]["traced"].out_info._layout.entries)

    def jacobian(self, piece: Piece) -> Assembled:
        """The Jacobian of a piece, its rows (or columns) laid flat."""
        own, stage = self._stage(piece)
        if "compiled" not in stage:
            stage["compiled"] = stage["traced"].lower().compile()
        local = stage["compiled"](self._values, _starts(own))
        part = self.space.part(piece.size)
        if own is None:
            J = _placed(local, (self._source.targets, part), None)
        else:
            J = _placed(local, (part, self._source.inputs), _columns_of(own, self._source.inputs))
        return J.T if self._source.flipped else J

    def _stage(self, piece: Piece) -> tuple[Restricted | None, dict[str, Any]]:
        own = restricted(self._source.program, piece.boxes) if self._restricts else None
        key = own.key if own else (piece.boxes,)
        with self._source.lock:
            kept = self._source.compiled
            if key not in kept:
                while len(kept) >= _KEPT:
                    kept.pop(next(iter(kept)))
                body = self._body(own) if own else self._seeded_body(piece)
                with limited(self._memory):
                    kept[key] = {"traced": jax.jit(body).trace(self._values, _starts(own))}
            kept[key] = kept.pop(key)  # the last to go
            return own, kept[key]

    def _body(self, own: Restricted) -> Any:
        """The Jacobian of some rows of the program with respect to what these take of its inputs."""
        inputs = [Linear(sizes(box), v.dtype) for *_, v, box in own.inputs]
        shapes = tuple(sizes(box) for *_, box in own.outputs)
        rows = _space(shapes, tuple(v.dtype for v, *_ in own.outputs), self._source.targets)
        columns = _space(tuple(v.shape for v in inputs), tuple(v.dtype for v in inputs), self._source.inputs)

        def body(values: Sequence[Any], starts: Sequence[Any]) -> Any:
            read = [w.read(values, start) for w, start in zip(own.windows, starts, strict=True)]
            recorded = Recorded(None, None, rows, columns, traced(own.run, read, inputs), False)
            return best_of(self._problem, recorded, lambda: self._reversed(recorded)).jacobian

        return body

    def _reversed(self, recorded: Recorded) -> Accumulated | None:
        try:
            with no_reverse_program(self._problem.what):
                return swept(self._problem, replace(recorded, program=transposed(recorded.program), reverse=True))
        except (NotReversibleError, MemoryLimitError):
            return None

    def _seeded_body(self, piece: Piece) -> Any:
        """The Jacobian of the whole program with respect to a piece of its inputs."""
        source, part = self._source, self.space.part(piece.size)

        def body(values: Sequence[Any], _: Any) -> Any:
            program, context = _filled(source.program, values), planning(())
            tangents = push_through(context, program, _seeds(source.inputs, piece))
            return assembled(self._problem.what, context, (source.targets, part), tangents, False, "forward")

        return body


def _filled(program: LinearProgram, values: Sequence[Any]) -> LinearProgram:
    def read(v: Any) -> Any:
        return Window(v, whole(v.shape)).read(values, ()) if isinstance(v, Coefficient) else v

    steps = tuple(replace(s, operands=tuple(read(v) for v in s.operands)) for s in program.steps)
    return LinearProgram(program.inputs, program.outputs, steps)


def _seeds(space: Space, piece: Piece) -> list[Tangent]:
    """The identity on a piece; nothing of the leaves beside it."""
    found, first = [Tangent(s, d, ()) for s, d in zip(space.shapes, space.dtypes, strict=True)], 0
    for leaf, box in piece.boxes:
        shape, dtype = space.shapes[leaf], space.dtypes[leaf]
        block = identity(sizes(box), first, dtype)
        rows = None if box == whole(shape) else places(box, shape)
        found[leaf] = Tangent(shape, dtype, (Block(block.shape, block.cols, block.vals, rows),))
        first += math.prod(sizes(box))
    return found


def _starts(own: Restricted | None) -> list[tuple[Any, ...]]:
    """Where each window starts: numbers that a compiled program is given."""
    return [] if own is None else [tuple(np.int32(a) for a, _ in w.box) for w in own.windows]


def _space(shapes: Any, dtypes: Any, like: Space) -> Space:
    return Space(jax.tree.structure([0] * len(shapes)), shapes, dtypes, like.name, like.place)


def _columns_of(own: Restricted, space: Space) -> np.ndarray:
    """The column in the whole of each local one."""
    found = [space.offsets[k] + places(box, space.shapes[k]).reshape(-1) for k, *_, box in own.inputs]
    return np.concatenate([np.empty(0, np.int64), *found]).astype(np.int32 if space.size < 2**31 else np.int64)


def _placed(local: Assembled, spaces: tuple[Space, Space], columns: np.ndarray | None) -> Assembled:
    """A Jacobian in other spaces; its columns are those of these numbers in the new one."""
    layout, (rows, wide) = local._layout, spaces
    like = replace(layout, rows=rows, columns=wide, entries=(), passing=True)
    blocks = local._blocks()
    if columns is None:
        return Assembled.of(like, blocks)
    if layout.flipped:  # blocks of the transpose: what was a column is a row of theirs
        return Assembled.of(like, [(0, _at_rows(b, columns[offset : offset + len(columns)])) for offset, b in blocks])
    return Assembled.of(
        like, [(o, Block(b.shape, np.where(b.cols < 0, -1, columns[b.cols]), b.vals, b.rows)) for o, b in blocks]
    )


def _at_rows(b: Block, columns: np.ndarray) -> Block:
    local = np.arange(math.prod(b.shape)).reshape(b.shape) if b.rows is None else b.rows
    return Block(b.shape, b.cols, b.vals, columns[local])
