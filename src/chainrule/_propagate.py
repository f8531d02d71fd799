"""Blocks through a linear program; nothing here knows a primitive, but for what may be folded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from chainrule._errors import MissingRuleError
from chainrule._jax import Literal, evaluate_now, inner_jaxpr, is_static, run_equation, taken_branch
from chainrule._program import Coefficient, Context, Tangent, Value, as_jax
from chainrule._rules import SCATTERED, fallback, rule_for

_FOLD_LIMIT = 2**24  # elements; a larger known value is left to the compiled program


def known(value: Any) -> Coefficient:
    """A coefficient: in NumPy where it is known while tracing."""
    if not is_static(value) or jax.dtypes.issubdtype(getattr(value, "dtype", None), jax.dtypes.extended):
        return Coefficient(value)
    return Coefficient(np.asarray(value))


def propagate(context: Context, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Value]) -> list[Value]:
    """Run a jaxpr on coefficients and tangents: one rule per linear equation, constants folded on the way."""
    env: dict[Any, Value] = dict(zip(jaxpr.constvars, [known(c) for c in consts], strict=True))
    env.update(zip(jaxpr.invars, inputs, strict=True))

    def read(v: Any) -> Value:
        return Coefficient(np.asarray(v.val, getattr(v.aval, "dtype", None))) if isinstance(v, Literal) else env[v]

    for eqn in jaxpr.eqns:
        values = [read(v) for v in eqn.invars]
        outs = [_without_empty(v) for v in _equation(context, eqn, values)]
        env.update(zip(eqn.outvars, outs, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _without_empty(value: Value) -> Value:
    """An array of size 0 has no rows: no rule needs to see blocks of it."""
    if isinstance(value, Tangent) and 0 in value.shape:
        return Tangent(value.shape, value.dtype, ())
    return value


def _equation(context: Context, eqn: Any, values: list[Value]) -> Sequence[Value]:
    inner = inner_jaxpr(eqn)
    if inner is not None:
        return propagate(context, inner[0], inner[1], values)
    taken = taken_branch(eqn, values[0].value) if values and isinstance(values[0], Coefficient) else None
    if taken is not None:
        return propagate(context, taken.jaxpr, taken.consts, values[1:])
    if not any(isinstance(v, Tangent) for v in values):
        return _coefficients(eqn, values)
    vanishing = not any(isinstance(v, Tangent) and not v.vanishes for v in values)
    if vanishing or all(0 in v.aval.shape for v in eqn.outvars):
        return [Tangent(tuple(v.aval.shape), v.aval.dtype, ()) for v in eqn.outvars]
    if eqn.primitive not in SCATTERED:
        values = [v.filled() if isinstance(v, Tangent) else v for v in values]
    rule = rule_for(eqn)
    done = rule(context, eqn, values) if rule is not None else NotImplemented
    if done is NotImplemented:
        filled = [v.filled() if isinstance(v, Tangent) else v for v in values]
        return fallback(context, eqn, filled)
    return done


def _coefficients(eqn: Any, values: list[Any]) -> list[Value]:
    sizes = [int(np.prod(v.aval.shape)) for v in eqn.outvars if hasattr(v.aval, "shape")]
    plain = all(not jax.dtypes.issubdtype(v.aval.dtype, jax.dtypes.extended) for v in eqn.outvars)
    foldable = plain and not eqn.effects and sum(sizes) <= _FOLD_LIMIT
    if foldable and all(v.static for v in values):
        return [Coefficient(o) for o in _fold(eqn, [v.value for v in values])]
    outs = run_equation(eqn, [as_jax(v.value) for v in values])
    support = _support(eqn, values) if len(outs) == 1 else None
    return [Coefficient(o, support) for o in outs]


def _fold(eqn: Any, operands: list[Any]) -> list[np.ndarray]:
    if eqn.primitive.name == "broadcast_in_dim" and len(operands) == 1:
        shape, where = eqn.params["shape"], eqn.params["broadcast_dimensions"]
        sizes = [1] * len(shape)
        for k, axis in enumerate(where):
            sizes[axis] = operands[0].shape[k]
        return [np.broadcast_to(operands[0].reshape(sizes), shape)]
    return list(evaluate_now(lambda *a: run_equation(eqn, a), *operands))


_MOVES = {"broadcast_in_dim", "reshape", "transpose", "squeeze", "expand_dims", "slice", "rev"}


def _support(eqn: Any, values: list[Any]) -> np.ndarray | None:
    """Where a coefficient of unknown value is known to vanish (W * mask, where(mask, W, 0), tril(W))."""
    name, nonzero = eqn.primitive.name, [v.nonzero for v in values]
    shape = tuple(eqn.outvars[0].aval.shape)
    if name == "mul":
        found = [n for n in nonzero if n is not None]
        return np.logical_and.reduce([np.broadcast_to(n, shape) for n in found]) if found else None
    if name in ("neg", "convert_element_type", "copy", "div"):
        return nonzero[0] if nonzero[0] is None or nonzero[0].shape == shape else None
    if name == "select_n" and values[0].static and values[0].value.shape == shape:
        arms = [np.ones(shape, bool) if n is None else n for n in nonzero[1:]]
        return np.choose(values[0].value.astype(int), arms)
    if name in _MOVES and len(values) == 1 and nonzero[0] is not None:
        moved = evaluate_now(lambda a: run_equation(eqn, [a]), nonzero[0].astype(eqn.invars[0].aval.dtype))
        return moved[0] != 0
    return None


def sweep(jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Value]) -> tuple[list[Value], int]:
    """Propagate; give the values and the counted cost."""
    context = Context(propagate=lambda *a: propagate(context, *a))
    return propagate(context, jaxpr, consts, inputs), context.cost


def require_tangent(value: Value, shape: tuple[int, ...], dtype: Any) -> Tangent:
    """The Jacobian of an output; an output that depends on no tangent has a zero one."""
    if isinstance(value, Tangent):
        return value
    if not value.zero and value.value.size:
        raise MissingRuleError(
            "jacobian: the derivative rule of an output gives a value that does not depend on the tangent"
        )
    return Tangent(shape, dtype, ())
