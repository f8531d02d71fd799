"""From a linear program to its plan."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from chainrule._blocks.block import once
from chainrule._errors import InputTypeError
from chainrule._jax import Inner, bodies
from chainrule._linear import LinearProgram, Step, record
from chainrule._options import Kind
from chainrule._plan.body import chain_of
from chainrule._plan.cost import Graph
from chainrule._plan.local import is_number
from chainrule._plan.node import Node
from chainrule._plan.order import Chain, label
from chainrule._plan.plan import OrderCost, Plan
from chainrule._plan.weights import weights
from chainrule._program import Coefficient, Linear, Tangent
from chainrule._rules import rule_for

_ADDRESS = re.compile(r"0x[0-9a-f]+")


def digest_of(program: LinearProgram) -> str:
    """Equal programs have equal digests: the equations, their shapes, how they are wired, and what is known of them."""
    number = program.numbers
    text = hashlib.blake2b(digest_size=12)
    text.update(repr([(v.shape, str(v.dtype)) for v in program.inputs]).encode())
    for step in program.steps:
        wires = [number[id(v)] if isinstance(v, Linear) else _known(v) for v in step.operands]
        params = _ADDRESS.sub("", str(step.equation.params))
        text.update(repr((step.equation.primitive.name, wires, params)).encode())
    text.update(repr([number.get(id(v), -1) for v in program.outputs]).encode())
    return text.hexdigest()


def digest_of_body(program: LinearProgram, tangents: Sequence[Tangent], length: int) -> str:
    """Which body this is, and which columns enter it."""
    text = hashlib.blake2b(f"{digest_of(program)} {length}".encode(), digest_size=12)
    for b in (b for t in tangents for b in t.blocks):
        text.update(repr((b.shape, b.cols.shape, b.slots)).encode() + np.ascontiguousarray(b.cols).tobytes())
    return text.hexdigest()


def _known(v: Coefficient) -> Any:
    """What is known of a coefficient while tracing: whole numbers, and where it vanishes."""
    whole = v.static and v.value.dtype.kind in "iub"
    known = v.value if whole else v.nonzero
    found = (
        None
        if known is None
        else hashlib.blake2b(np.ascontiguousarray(once(known)).tobytes(), digest_size=8).hexdigest()
    )
    return tuple(v.shape), str(v.dtype), is_number(v), found


class Directions(NamedTuple):
    """The only order that comes into question, if there is but one, and whether it is the sole one that JAX has."""

    only: Kind | None
    sole: bool

    @property
    def backwards(self) -> bool:
        """Whether the program is that of the cotangents, from the outputs to the inputs: there is no forward one."""
        return self.sole and self.only == "reverse"


def planned(program: LinearProgram, what: str, directions: Directions, effort: int) -> tuple[Plan, Chain]:
    """Find the cheapest order of a program, or say what its orders cost where only one comes into question."""
    only, sole = directions
    chain = chain_of(program, weights(), effort)
    last, number = len(chain.cuts) - 1, program.numbers
    m, n = (sum(math.prod(v.shape) for v in arrays) for arrays in (program.outputs, program.inputs))
    nodes = {kind: Node(kind, 0, last) for kind in ("forward", "reverse") if not sole or only == kind}
    if directions.backwards:
        m, n = n, m
        nodes = {"reverse": Node("forward", 0, last)}
    mixed = chain.best[0, last][2]
    if not mixed.pure and only is None:
        nodes["mixed"] = mixed
    best = chain.best_node
    plan = Plan(
        *(what, (m, n), tuple(_cost(name, chain, node) for name, node in nodes.items())),
        chosen=only or (best.kind if best.pure else "mixed"),
        reason=f"{only}: {'the only order in which JAX differentiates this' if sole else _SINGLE}" if only else "",
        single=single(chain.graph),
        digest=digest_of(program),
        cuts=tuple(tuple(number[id(v)] for v in cut.arrays) for cut in chain.cuts),
        labels=tuple(label(chain.graph, cut, k, last) for k, cut in enumerate(chain.cuts)),
        fallbacks=tuple(dict.fromkeys(_without_rule(program.steps))),
    )
    return (plan if only else replace(plan, reason=_reason(plan))), chain


def _without_rule(steps: Sequence[Step]) -> Iterator[str]:
    """The primitives that no rule covers, those within loops and branches included."""
    for step in steps:
        if not rule_for(step.equation):
            yield step.equation.primitive.name
            continue
        for inner in bodies(step.equation, [isinstance(v, Linear) for v in step.operands]):
            yield from _within(step, inner)


def _within(step: Step, inner: Inner) -> list[str]:
    operands: list[Any] = []
    for var, linear, number in zip(inner.jaxpr.invars, inner.marked, inner.operands, strict=True):
        known = None if number is None else step.operands[number]
        shape = jax.ShapeDtypeStruct(var.aval.shape, var.aval.dtype)
        operands.append(Linear(shape.shape, shape.dtype) if linear else known or shape)
    unknown = [k for k, v in enumerate(operands) if isinstance(v, jax.ShapeDtypeStruct)]
    found: list[str] = []

    def trace(values: list[Any]) -> tuple[()]:
        for k, value in zip(unknown, values, strict=True):
            operands[k] = Coefficient(value)
        found.extend(_without_rule(record(inner.jaxpr, inner.consts, operands)[1]))
        return ()

    jax.eval_shape(trace, [operands[k] for k in unknown])
    return found


_SINGLE = "one sweep with a single column is all that it takes"


def _cost(name: str, chain: Chain, node: Node) -> OrderCost:
    work, peak = chain.work(node), chain.peak(node)
    return OrderCost(name, work.multiply_adds, peak, work.numbers, work.operations, chain.weights.seconds(work), node)


def single(graph: Graph) -> int:
    """Multiply-adds of one pushforward, or of one pullback: every entry of every local Jacobian once."""
    return sum(
        e.local.column.each if e.local.column is not None else sum(t.nnz for t in e.local.terms if not t.unit)
        for edges in graph.edges
        for e in edges
    )


def _reason(plan: Plan) -> str:
    forward, reverse = plan["forward"], plan["reverse"]
    own = plan[plan.chosen]
    best = min(forward, reverse, key=lambda o: o.seconds)
    if plan.chosen == "mixed":
        fewer, faster = (getattr(best, k) / max(getattr(own, k), 1e-12) for k in ("multiply_adds", "seconds"))
        what = f"{fewer:,.1f} times fewer multiply-adds" if fewer > faster else f"{faster:,.1f} times less time"
        return f"mixed: {what} than {best.name}, the better of the two sweeps"
    other = reverse if own is forward else forward
    if other.seconds > Chain.tie * own.seconds:
        return f"{own.name}: {other.seconds / max(own.seconds, 1e-12):,.1f} times cheaper than {other.name}"
    return f"{own.name}: no other order is sure to be cheaper; of equal ones a single sweep from the input is taken"


def cuts_of(plan: Plan, program: LinearProgram, what: str) -> list[tuple[Linear, ...]]:
    """The arrays at the cuts of a plan, in the program that it was made for. Raises InputTypeError for another one."""
    if plan.digest != digest_of(program):
        raise InputTypeError(
            f"{what}: the plan is of another program ({plan.what}, {plan.shape[0]}×{plan.shape[1]}); "
            "make one with chainrule.plan for this function and these shapes"
        )
    arrays = program.arrays
    if any(k >= len(arrays) for cut in plan.cuts for k in cut):
        raise InputTypeError(f"{what}: the plan names arrays that this program does not have; it was changed")
    return [tuple(arrays[k] for k in cut) for cut in plan.cuts]
