"""Take tangents through the body of a loop in an order that is planned once for all of its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from chainrule._accumulate.mixed import Mixed
from chainrule._linear import LinearProgram, body_program, precision_of, push_through, section
from chainrule._plan.body import planned_body
from chainrule._plan.node import Body
from chainrule._plan.planner import digest_of_body
from chainrule._plan.weights import weights
from chainrule._program import Coefficient, Context, Linear, Tangent, Value
from chainrule._propagate import pushing


def planning(bodies: Sequence[Body]) -> Context:
    """A context that applies the rules, and takes the bodies of loops in an order of their own: given, or the best."""
    given = {body.digest: body for body in bodies}

    def through(
        context: Context, jaxpr: Any, consts: Sequence[Any], operands: Sequence[Value], length: int
    ) -> list[Value]:
        operands = [v.filled() if isinstance(v, Tangent) else v for v in operands]
        body = _order_of(jaxpr, consts, operands, length, {**given, **context.bodies})
        if body is None:
            return context.propagate(jaxpr, consts, operands)
        context.bodies[body.digest] = body
        return (
            context.propagate(jaxpr, consts, operands) if body.pure else _taken(context, jaxpr, consts, operands, body)
        )

    context = pushing()
    context.through = through
    return context


def _order_of(
    jaxpr: Any, consts: Sequence[Any], operands: Sequence[Value], length: int, known: Mapping[str, Body]
) -> Body | None:
    """The order of a body; None where there is nothing to order."""
    found: list[Body] = []

    def trace() -> None:  # the coefficients that are recorded here are never run
        program, tangents, _ = _recorded(jaxpr, consts, operands)
        if program.steps and program.targets:
            digest = digest_of_body(program, tangents, length)
            found.append(known.get(digest) or planned_body(program, tangents, length, digest, weights()))

    jax.eval_shape(trace)
    return found[0] if found else None


def _recorded(
    jaxpr: Any, consts: Sequence[Any], operands: Sequence[Value]
) -> tuple[LinearProgram, list[Tangent], list[Coefficient | Linear]]:
    """The program of the tangents among the operands, these, and what the body gives."""
    seeds = [Linear(v.shape, v.dtype) if isinstance(v, Tangent) else v for v in operands]
    program, values = body_program(jaxpr, consts, seeds)
    return program, [v for v in operands if isinstance(v, Tangent)], values


def _taken(context: Context, jaxpr: Any, consts: Sequence[Any], operands: Sequence[Value], body: Body) -> list[Value]:
    program, tangents, values = _recorded(jaxpr, consts, operands)
    cuts = [tuple(program.arrays[k] for k in cut) for cut in body.cuts]
    mixed, precision, reached = Mixed(context, program, cuts), precision_of(program), tangents
    for leg in body.legs:
        if leg.node is None:
            between = section(program.steps, cuts[leg.start], cuts[leg.stop])
        else:
            between = mixed.part(leg.node).map(precision)
        reached = push_through(context, between, reached)
    own = {id(v): t for v, t in zip((*program.inputs, *program.targets), (*tangents, *reached), strict=True)}
    return [own[id(v)] if isinstance(v, Linear) else v for v in values]
