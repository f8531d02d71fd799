"""Blocks through a linear program; nothing here knows a primitive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule._blocks.coefficient import evaluate, known
from chainrule._errors import MemoryLimitError, MissingRuleError
from chainrule._jax import Literal, inner_jaxpr, needed, taken_branch
from chainrule._memory import STEP, WAY_OUT, require_bytes, require_columns, require_memory
from chainrule._program import Coefficient, Context, Tangent, Value, zero_coefficient, zero_tangent
from chainrule._rules import SCATTERED, ZEROS, fallback, rule_for, written_out


def propagate(context: Context, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Value]) -> list[Value]:
    """Run a jaxpr on coefficients and tangents: one rule per linear equation, constants folded on the way."""
    env: dict[Any, Value] = dict(zip(jaxpr.constvars, [known(c) for c in consts], strict=True))
    env.update(zip(jaxpr.invars, map(_without_empty, inputs), strict=True))

    def read(v: Any) -> Value:
        return Coefficient(np.asarray(v.val, getattr(v.aval, "dtype", None))) if isinstance(v, Literal) else env[v]

    for eqn in needed(jaxpr):
        values = [read(v) for v in eqn.invars]
        outs = [_without_empty(v) for v in _equation(context, eqn, values)]
        env.update(zip(eqn.outvars, outs, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _without_empty(value: Value) -> Value:
    """An array of size 0 has no rows, and no numbers that a loop could carry: it is zero, whatever it is made of."""
    if 0 not in value.shape:
        return value
    if isinstance(value, Tangent):
        return zero_tangent(value)
    return zero_coefficient(value) if isinstance(value, Coefficient) and value.dtype.kind in "biufcV" else value


def _equation(context: Context, eqn: Any, values: list[Value]) -> Sequence[Value]:
    inner = inner_jaxpr(eqn)
    if inner is not None:
        return propagate(context, inner[0], inner[1], values)
    taken = taken_branch(eqn, values[0].value) if values and isinstance(values[0], Coefficient) else None
    if taken is not None:
        return propagate(context, taken.jaxpr, taken.consts, values[1:])
    written = written_out(eqn, [v.value if isinstance(v, Coefficient) else v for v in values])
    if written is not None:
        return propagate(context, written.jaxpr, written.consts, values)
    if all(isinstance(v, Coefficient) for v in values):
        outs = evaluate(eqn, values)
        if eqn.primitive not in ZEROS or all(isinstance(v, Coefficient) and v.static for v in outs):
            return outs
        return ZEROS[eqn.primitive](context, eqn, values, outs)
    return context.apply(context, eqn, values)


def push(context: Context, eqn: Any, values: list[Value]) -> Sequence[Value]:
    """One linear equation on tangents, by its rule."""
    vanishing = not any(isinstance(v, Tangent) and not v.vanishes for v in values)
    if vanishing or all(0 in v.aval.shape for v in eqn.outvars):
        return [zero_tangent(v.aval) for v in eqn.outvars]
    if eqn.primitive not in SCATTERED:
        values = [v.filled() if isinstance(v, Tangent) else v for v in values]
    try:
        return _measured(context, _by_rule(context, eqn, values))
    except MemoryLimitError as error:
        text = str(error).replace(f"{STEP}:", f"jacobian: the step `{eqn.primitive.name}`:")
        raise MemoryLimitError(text) from None
    except MemoryError as error:  # what no estimate foresaw
        raise MemoryLimitError(f"jacobian: the step `{eqn.primitive.name}`: {error}. {WAY_OUT}") from error


def _measured(context: Context, done: Sequence[Value], what: str = STEP) -> Sequence[Value]:
    for b in [b for v in done if isinstance(v, Tangent) and v.taken for b in v.blocks]:
        require_memory(what, b.vals.shape, b.vals.dtype.itemsize)
        require_columns(b.cols.shape, what=what)
        context.largest = max(context.largest, b.vals.size * b.vals.dtype.itemsize)
    return done


def _by_rule(context: Context, eqn: Any, values: list[Value]) -> Sequence[Value]:
    rule = rule_for(eqn)
    done = rule(context, eqn, values) if rule is not None else NotImplemented
    if done is not NotImplemented:
        return done
    return fallback(context, eqn, [v.filled() if isinstance(v, Tangent) else v for v in values])


def sweep(
    what: str, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Value], context: Context | None = None
) -> tuple[list[Value], Context]:
    """Propagate; give the values, and what was counted on the way.

    What comes out must fit beside the largest array on the way.
    """
    context = context or pushing()
    values = propagate(context, jaxpr, consts, inputs)
    require_sum(what, context, values)
    return values, context


def pushing() -> Context:
    """A context that applies the rules."""
    context = Context(propagate=lambda *a: propagate(context, *a), apply=push)
    return context


def require_sum(what: str, context: Context, values: Sequence[Value]) -> None:
    """Refuse what would not fit beside the largest array on the way to it."""
    total = 0
    for v in values:
        if isinstance(v, Tangent):
            total += sum(b.vals.size * b.vals.dtype.itemsize for b in v.blocks)  # a sum that waited is taken now
            _measured(context, [v], f"{what}: J")
    require_bytes(f"{what}: J, and the largest array on the way to it:", total + context.largest)


def require_tangent(value: Value, shape: tuple[int, ...], dtype: Any) -> Tangent:
    """The Jacobian of an output; an output that depends on no tangent has a zero one."""
    if isinstance(value, Tangent):
        return value
    if not value.zero and value.value.size:
        raise MissingRuleError(
            "jacobian: the derivative rule of an output gives a value that does not depend on the tangent"
        )
    return Tangent(shape, dtype, ())
