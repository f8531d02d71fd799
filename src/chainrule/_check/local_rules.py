"""A custom rule at its own inputs, against quotients of the function it belongs to and against its transpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from chainrule._check.flow import IRREVERSIBLE, Flow, Reading, of_operands, push, signs
from chainrule._jax import as_function


def _direction(ins: list[Flow]) -> list[Any]:
    """Local tangents of the operands' own size, None for what does not depend on x."""
    found = []
    for k, f in enumerate(ins):
        size = jnp.abs(f.value).max(initial=0) if f.tangents is not None else None
        found.append(None if size is None else signs(f.value, 97 + k)[0] * jnp.where(size > 0, size, 1))
    return [None if t is None else t.astype(f.value.dtype) for t, f in zip(found, ins, strict=True)]


def rule_reading(eqn: Any, primal: Callable[..., list[Any]], ins: list[Flow], eps: float) -> Reading:
    """How far the rule lies outside of the one-sided slopes of what it is the rule of, at the best step.

    Between them a rule may choose at a kink. A slope is extrapolated from two quotients: the interval of the quotients
    themselves is as wide as the step, and would hold a rule that is off by less. Numbers: the error relative to the
    larger one.
    """
    values, ts = [f.value for f in ins], _direction(ins)
    by_rule = push(as_function(eqn), values, [None if t is None else t[None] for t in ts])
    if not any(r is not None for r in by_rule):
        return _scored(jnp.zeros(()))
    base = primal(*values)

    def error(step: Any) -> Any:
        def quotient(s: Any) -> list[Any]:
            moved = [v if t is None else v + (s * t).astype(v.dtype) for v, t in zip(values, ts, strict=True)]
            return [(a - b) / s for a, b, r in zip(primal(*moved), base, by_rule, strict=True) if r is not None]

        def slope(s: Any) -> list[Any]:
            return [2 * near - far for near, far in zip(quotient(s / 2), quotient(s), strict=True)]

        rules = [r[0] for r in by_rule if r is not None]
        found = [_outside(r, a, b) for r, a, b in zip(rules, slope(step), slope(-step), strict=True)]
        return jnp.stack(found).max()

    errors = lax.map(error, jnp.asarray(eps ** np.linspace(0.2, 0.6, 5)))
    least = jnp.where(jnp.isfinite(errors), errors, jnp.inf).min()
    return _scored(jnp.where(jnp.isfinite(least), least, 0.0))


def transpose_reading(eqn: Any, ins: list[Flow]) -> Reading | None:
    """⟨w, J t⟩ against ⟨Jᵀ w, t⟩ at one equation."""
    run, values, ts = as_function(eqn), [f.value for f in ins], _direction(ins)
    live = [k for k, t in enumerate(ts) if t is not None]
    of = of_operands(run, values, live)
    try:
        primal, t = tuple(values[k] for k in live), tuple(ts[k] for k in live)
        forward = jax.jvp(of, primal, t)[1]
        w = [signs(o, 11 + k)[0].astype(o.dtype) for k, o in enumerate(forward)]
        back = jax.vjp(of, *primal)[1](w)
    except IRREVERSIBLE:
        return None
    left, right = _inner(w, forward), _inner(back, t)
    scale = jnp.sqrt(_inner(forward, forward) * _inner(w, w)) + jnp.sqrt(_inner(back, back) * _inner(t, t))
    return _scored(jnp.abs(left - right) / jnp.where(scale > 0, scale, 1))


def _outside(rule: Any, one: Any, other: Any) -> Any:
    """The largest distance of a rule from the interval of two quotients, relative to the largest of all."""
    low, high = jnp.minimum(one.real, other.real), jnp.maximum(one.real, other.real)
    off = jnp.maximum(low - rule.real, rule.real - high).max(initial=0.0)
    scale = jnp.maximum(jnp.abs(rule).max(initial=0.0), jnp.abs(one).max(initial=0.0))
    return (off / jnp.where(scale > 0, scale, 1)).astype(float)


def _inner(a: Any, b: Any) -> Any:
    return sum((jnp.vdot(x, y).real.astype(float) for x, y in zip(a, b, strict=True)), jnp.zeros(()).astype(float))


def _scored(error: Any) -> Reading:
    error = jnp.where(jnp.isnan(error), 0.0, error).astype(float)
    return Reading(-error, error[None], jnp.zeros(0, np.int32))
