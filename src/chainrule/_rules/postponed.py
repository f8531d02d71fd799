"""What the steps of a loop only add up is summed before it is met: sum over t of L s_t is L applied to one sum.

The transpose of a loop that closes over x has such sums: every step gives its part of the cotangent of x.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from chainrule._jax import (
    Literal,
    as_callable,
    count_operations,
    inner_jaxpr,
    operations_of,
    part_of,
    primitive,
    scan_counts,
)
from chainrule._program import Coefficient, Value
from chainrule._rules.step import kind_of

_ADDS = {primitive("add"), primitive("add_any")}
_WORTH = 2  # operations for each number of the sum, from which on they are postponed: a product, no reshaping


@dataclass(frozen=True)
class Term:
    """A summand of what a step adds to a part of the carry: `source`, and the variable that is made of it."""

    source: Any
    made: Any

    @property
    def postponed(self) -> bool:
        return self.source is not self.made


def postponed(eqn: Any, values: list[Value], kinds: Sequence[str]) -> Any:
    """A closed jaxpr of the same scan in which steps add up what linear equations are then applied to once, or None.

    Such equations have one operand that changes from step to step, and the step does nothing else with their result
    than to add it to a part of the carry, with which in turn it does nothing else.
    """
    (a, b), body = scan_counts(eqn), eqn.params["jaxpr"].jaxpr
    if body.effects:
        return None
    reading = _Reading(body, values[:a], narrow=any(kind_of(v) == "tangent" for v in values[a + b :]))
    pairs = zip(body.invars[a : a + b], body.outvars[:b], kinds, strict=True)
    sums = [reading.sum_of(own, out) if kind == "tangent" else None for own, out, kind in pairs]
    if not any(t.postponed for terms in sums if terms for t in terms):
        return None
    shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars]
    return jax.make_jaxpr(lambda *operands: _run(eqn, reading, sums, operands))(*shapes)


def _run(eqn: Any, reading: _Reading, sums: list[list[Term] | None], operands: tuple[Any, ...]) -> list[Any]:
    (a, b), closed = scan_counts(eqn), eqn.params["jaxpr"]
    body, consts, carry = closed.jaxpr, operands[:a], operands[a : a + b]
    late = list(dict.fromkeys(t.source for terms in sums for t in terms or () if t.postponed))
    early = [[out] if terms is None else [t.made for t in terms if not t.postponed]
             for out, terms in zip(body.outvars, sums, strict=False)]  # fmt: skip
    kept = [k for k in range(b) if early[k]]  # a part that nothing is added to any more stays outside the loop
    given = [*(v for own in early for v in own), *body.outvars[b:], *late]
    entering = [body.invars[a + k] for k in kept]
    inside = as_callable(part_of(body, [*body.invars[:a], *entering, *body.invars[a + b :]], given), closed.consts)

    def one(state: Any, xs: Any) -> Any:
        own, sums_so_far = state
        outs = iter(inside(*consts, *own, *xs))
        after = []
        for k, c in zip(kept, own, strict=True):
            found = [next(outs) for _ in early[k]]
            after.append(found[0] if sums[k] is None else sum(found, c))
        ys = [next(outs) for _ in body.outvars[b:]]
        return (after, [s + new for s, new in zip(sums_so_far, outs, strict=True)]), ys

    start = [carry[k] for k in kept], [jnp.zeros(v.aval.shape, v.aval.dtype) for v in late]
    options = {name: eqn.params[name] for name in ("length", "reverse", "unroll")}
    (ends, totals), ys = jax.lax.scan(one, start, list(operands[a + b :]), **options)
    out = dict(zip(kept, ends, strict=True))
    total_of = dict(zip(late, totals, strict=True))
    for k in range(b):
        for t in (t for t in sums[k] or () if t.postponed):
            tail = as_callable(part_of(body, [*body.invars[:a], t.source], [t.made]), closed.consts)
            out[k] = out.get(k, carry[k]) + tail(*consts, total_of[t.source])[0]
    return [*(out[k] for k in range(b)), *ys]


class _Reading:
    """Who makes and who uses the variables of the body of a loop, and which are the same at every step."""

    def __init__(self, body: Any, consts: Sequence[Value], narrow: bool):
        self.maker = {v: e for e in body.eqns for v in e.outvars}
        read = [*(v for e in body.eqns for v in e.invars), *body.outvars]
        self.uses = Counter(v for v in read if not isinstance(v, Literal))
        known = (v for v, c in zip(body.invars, consts, strict=False) if isinstance(c, Coefficient))
        self.same = {*body.constvars, *known}
        for e in body.eqns:
            if not e.effects and not self._changing(e):
                self.same.update(e.outvars)
        # columns that come with a step are few until they are added to those of all steps: no larger sums for these
        self.narrow = narrow

    def _changing(self, e: Any) -> list[Any]:
        return [v for v in e.invars if not isinstance(v, Literal) and v not in self.same]

    def sum_of(self, own: Any, out: Any) -> list[Term] | None:
        """What a step adds to a part of the carry; None where it does anything else with it."""
        if isinstance(out, Literal) or self.uses[own] != 1:
            return None
        parts = self._parts(out)
        if own not in parts or any(isinstance(v, Literal) or v.aval.shape != own.aval.shape for v in parts):
            return None
        return [self._term(v) for v in parts if v is not own]

    def _parts(self, v: Any) -> list[Any]:
        e = None if isinstance(v, Literal) or self.uses[v] != 1 else self.maker.get(v)
        return [v] if e is None or e.primitive not in _ADDS else [p for u in e.invars for p in self._parts(u)]

    def _term(self, made: Any) -> Term:
        """The summand with as much postponed as saves most."""
        v, work, most, source = made, 0, 0, made
        while v in self.maker and self.uses[v] == 1 and len(self.maker[v].outvars) == 1:
            e = self.maker[v]
            changing = self._changing(e)
            if len(changing) != 1 or e.effects:
                break
            inner = inner_jaxpr(e)
            v, work = changing[0], work + (operations_of(e) if inner is None else count_operations(inner[0]))
            saved = work + _size(made) - _size(v)
            allowed = not self.narrow or _size(v) <= _size(made)
            if saved > most and work >= _WORTH * _size(v) and allowed:
                most, source = saved, v
        return Term(source, made)


def _size(v: Any) -> int:
    return math.prod(v.aval.shape)
