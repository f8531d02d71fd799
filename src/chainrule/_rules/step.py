"""One step of a loop: what each part of its carry is, and the pattern of the step."""

from __future__ import annotations

import copy
import math
from typing import Any

import jax
import numpy as np

from chainrule._blocks.block import Block, identity
from chainrule._jax import Literal
from chainrule._program import Coefficient, Context, Tangent, Value, as_jax, zero_coefficient, zero_tangent
from chainrule._rules.reach import Pattern, blocks_of, filled, product, rows_of


class Step:
    """One step of a loop: what each part of its carry is, and the pattern of the step.

    A part of the carry is 'zero' until a step makes a 'coefficient' or a 'tangent' of it.
    """

    def __init__(self, context: Context, body: Any, consts: list[Value], carry: list[Value], xs: list[Value]):
        self.context, self.body, self.consts = context, body, consts
        self.xs = [whole(v) for v in xs]
        self.kinds = [kind_of(v) for v in carry]
        cost = context.cost
        while True:
            before = context.cost
            outs = self._probe(carry)
            kinds = [kind_of(o) if k == "zero" else k for k, o in zip(self.kinds, outs, strict=False)]
            if kinds == self.kinds:
                break
            self.kinds = kinds
        entries = sum(math.prod(b.shape) * b.slots for o in outs if isinstance(o, Tangent) for b in o.blocks)
        # whether the equations of the step cost more than a product with its own Jacobian would
        self.heavy = context.cost - before > entries
        context.cost = cost
        self.outs = outs
        self.carry = [_as_kind(kind, v) for kind, v in zip(kinds, carry, strict=True)]
        self.rows = [v.shape if kind == "tangent" else () for kind, v in zip(kinds, carry, strict=True)]
        self.received, self.handed_on = (self._parts(v) for v in (body.jaxpr.invars[len(consts) :], body.jaxpr.outvars))
        self._local = rows_of([o if k == "tangent" else None for k, o in zip(kinds, outs, strict=False)], self._width)

    def _parts(self, variables: list[Any]) -> dict[Any, int]:
        """The parts of the carry that hold tangents, by the variables of the body that stand for them."""
        pairs = zip(variables, self.kinds, strict=False)
        return {v: k for k, (v, kind) in enumerate(pairs) if kind == "tangent" and not isinstance(v, Literal)}

    def run(self, operands: list[Value]) -> list[Value]:
        """One step on blocks."""
        return self.context.propagate(self.body.jaxpr, self.body.consts, operands)

    def through(self, operands: list[Value], length: int) -> list[Value]:
        """One of so many steps on blocks, in the order of the body."""
        return self.context.through(self.context, self.body.jaxpr, self.body.consts, operands, length)

    def during(self, carry: list[Value], times: range) -> Step:
        """The same step, entered with this carry, at some of the times only."""
        stage = copy.copy(self)
        stage.carry = [_as_kind(kind, v) for kind, v in zip(self.kinds, carry, strict=True)]
        stage.xs = [_at_times(v, times) for v in self.xs]
        return stage

    def local(self, operands: list[Value]) -> list[Value]:
        """The Jacobian of one step, with a column of its own for every element of what carries a tangent."""
        return [whole(v) for v in self.run([self._own(k, v) for k, v in enumerate(operands)])]

    def _own(self, k: int, v: Value) -> Value:
        if isinstance(v, Coefficient):
            return v
        return Tangent(v.shape, v.dtype, (identity(v.shape, self._starts[k], v.dtype),))

    @property
    def starts(self) -> dict[int, tuple[int, tuple[int, ...]]]:
        """Of each part of the carry that holds a tangent: the first of the columns that `local` gives it; its shape."""
        first = self._starts[len(self.consts) :]
        return {k: (first[k], v.shape) for k, v in enumerate(self.carry) if self.kinds[k] == "tangent"}

    def _probe(self, carry: list[Value]) -> list[Value]:
        """The outputs of a step, with a column of its own for every element of what carries a tangent."""
        self._starts, self._width = [], 0
        operands: list[Any] = []
        for k, v in enumerate([*self.consts, *carry, *self.xs]):
            kind = self.kinds[k - len(self.consts)] if 0 <= k - len(self.consts) < len(carry) else kind_of(v)
            shape = v.shape if k < len(self.consts) + len(carry) else v.shape[1:]
            self._starts.append(self._width)
            if kind == "tangent":
                operands.append(Tangent(shape, v.dtype, (identity(shape, self._width, v.dtype),)))
                self._width += math.prod(shape)
            elif kind == "zero":
                operands.append(zero_coefficient(jax.ShapeDtypeStruct(shape, v.dtype)))
            elif k < len(self.consts):
                operands.append(v)
            else:
                operands.append(jax.ShapeDtypeStruct(shape, v.dtype))
        unknown = [k for k, v in enumerate(operands) if isinstance(v, jax.ShapeDtypeStruct)]
        supports = {len(operands) - len(self.xs) + k: support_at_any_time(v) for k, v in enumerate(self.xs)}
        outs: list[Value] = []

        def trace(given: list[Any]) -> list[Any]:
            full = list(operands)
            for k, value in zip(unknown, given, strict=True):
                full[k] = Coefficient(value, supports.get(k))
            outs[:] = map(whole, self.run(full))  # all that is computed is computed within this trace
            return [numbers_of(o) for o in outs]

        bodies = self.context.bodies
        self.context.bodies = dict(bodies)  # of loops within: nothing is run here
        jax.eval_shape(trace, [operands[k] for k in unknown])
        self.context.bodies = bodies
        return outs

    @property
    def columns(self) -> int:
        """One more than the largest column of what enters the loop."""
        entering = [v for v in (*self.consts, *self.carry, *self.xs) if isinstance(v, Tangent)]
        return 1 + max((int(b.cols.max(initial=-1)) for v in entering for b in blocks_of(v)), default=-1)

    def reach(self, xs: list[Pattern], steps: int | None) -> Pattern:
        """The columns that each row of the carry can hold after up to so many steps (None: any number)."""
        n, a = self.columns, len(self.consts)
        size = sum(math.prod(s) for s, kind in zip(self.rows, self.kinds, strict=True) if kind == "tangent")
        first = self._starts[a] if self.carry else 0
        own = self._local[:, first : first + size]
        held = rows_of([v if k == "tangent" else None for k, v in zip(self.kinds, self.carry, strict=True)], n)
        for k, v in enumerate(self.consts):
            if kind_of(v) == "tangent":
                held = held + product(self._local[:, self._starts[k] :][:, : math.prod(v.shape)], rows_of([v], n))
        for k, pattern in zip(self._starts[a + len(self.carry) :], xs, strict=True):
            held = held + product(self._local[:, k : k + pattern.shape[0]], pattern)
        return filled(own, held, steps)


def _at_times(v: Value, times: range) -> Value:
    cut = slice(times.start, times.stop)
    if isinstance(v, Coefficient):
        support = None if v.support is None or not v.support.ndim else v.support[cut]
        return Coefficient(v.value[cut], v.support if support is None else support)
    blocks = [
        Block((len(times), *b.shape[1:]), *(a if a.shape[0] == 1 else a[cut] for a in (b.cols, b.vals)))
        for b in blocks_of(v)
    ]
    return Tangent((len(times), *v.shape[1:]), v.dtype, tuple(blocks))


def support_at_any_time(v: Value) -> np.ndarray | None:
    """Where an input of the steps may differ from zero, in some of them."""
    nonzero = v.nonzero if isinstance(v, Coefficient) else None
    return None if nonzero is None else np.asarray(nonzero.any(axis=0))


def whole(v: Value) -> Value:
    return v.filled() if isinstance(v, Tangent) else v


def kind_of(v: Value) -> str:
    if isinstance(v, Tangent):
        return "tangent" if v.blocks else "zero"
    return "zero" if v.static and v.zero else "coefficient"


def _as_kind(kind: str, v: Value) -> Value:
    if kind == "zero":
        return zero_coefficient(v)
    if kind == "tangent" and isinstance(v, Coefficient):
        return zero_tangent(v)
    return whole(v)


def numbers_of(v: Value) -> Any:
    return [as_jax(b.vals) for b in v.filled().blocks] if isinstance(v, Tangent) else as_jax(v.value)
