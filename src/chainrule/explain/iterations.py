"""What a loop carries, iteration by iteration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from chainrule._jax import Literal, as_callable, scan_counts, straight_line

_MOST_NUMBERS = 1024


def iterations(jaxpr: Any, consts: Sequence[Any], operands: Sequence[Any]) -> Any:
    """The value [times, *shape] after each iteration, where a step ends with a scan that carries it; else None."""
    eqn, out = (jaxpr.eqns or [None])[-1], jaxpr.outvars[0]
    if eqn is None or eqn.primitive.name != "scan" or isinstance(out, Literal) or out not in eqn.outvars:
        return None
    times, at = eqn.params["length"], list(eqn.outvars).index(out)
    fixed, carried = scan_counts(eqn)
    if at >= carried or times * out.aval.size > _MOST_NUMBERS or not jnp.issubdtype(out.aval.dtype, jnp.floating):
        return None
    before = straight_line(jaxpr.constvars, jaxpr.invars, eqn.invars, jaxpr.eqns[:-1])
    values = as_callable(before, consts)(*operands)
    body = eqn.params["jaxpr"]
    run = as_callable(body.jaxpr, body.consts)

    def step(carry: Any, x: Any) -> Any:
        following = tuple(run(*values[:fixed], *carry, *x)[:carried])
        return following, following[at]

    start, rest = tuple(values[fixed : fixed + carried]), tuple(values[fixed + carried :])
    found = jax.lax.scan(step, start, rest, length=times, reverse=eqn.params["reverse"])[1]
    return found[::-1] if eqn.params["reverse"] else found
