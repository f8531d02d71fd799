"""Control flow: branches, and loops whose steps are independent. Other loops take the fallback."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from chainrule._jax import as_callable, scan_counts
from chainrule._program import Coefficient, Context, Tangent, Value, as_jax
from chainrule._rules._registry import rule
from chainrule._rules.pointwise import choose, tidy


@rule("cond", reads="branches")
def cond(context: Context, eqn: Any, values: list[Value]) -> Any:
    """out = branch[index](operands): all branches, each selected by the index. (Of a known index the propagation
    takes the one branch.)

    The columns are the union of the branches'. The branches are linear, their coefficients were
    computed by the branch of the primal that was taken: what is not selected costs little.
    """
    index, *operands = values
    branches = eqn.params["branches"]
    if not isinstance(index, Coefficient):
        return NotImplemented
    number = jnp.clip(as_jax(index.value).astype(jnp.int32), 0, len(branches) - 1)
    outs = [context.propagate(b.jaxpr, b.consts, operands) for b in branches]
    return [_selected(number, cases, v.aval) for v, cases in zip(eqn.outvars, zip(*outs, strict=True), strict=True)]


def _selected(number: Any, cases: tuple[Value, ...], aval: Any) -> Value:
    if not any(isinstance(case, Tangent) and case.blocks for case in cases):
        if all(isinstance(case, Tangent) or case.zero for case in cases):
            return Tangent(tuple(aval.shape), aval.dtype, ())
        return Coefficient(jax.lax.select_n(number, *[_plain(case) for case in cases]))
    blocks = []
    for k, case in enumerate(cases):
        if isinstance(case, Tangent):
            blocks += [choose(b, number == k) for b in case.filled().blocks]
    return Tangent(tuple(aval.shape), aval.dtype, tidy(blocks))


def _plain(case: Value) -> Any:
    return jnp.zeros(case.shape, case.dtype) if isinstance(case, Tangent) else as_jax(case.value)


@rule("scan", reads="jaxpr length reverse unroll num_consts num_carry ft_in ft_out")
def scan(context: Context, eqn: Any, values: list[Value]) -> Any:
    """A loop that carries no tangent is one step for all times at once; the others take the fallback."""
    consts, carry = scan_counts(eqn)
    init, body = values[consts : consts + carry], eqn.params["jaxpr"]
    if any(isinstance(v, Tangent) for v in init) or not eqn.params["length"]:
        return NotImplemented
    if carry:
        return NotImplemented
    axes = [None] * consts + [0] * (len(values) - consts)
    shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars]
    batched = jax.make_jaxpr(
        jax.vmap(as_callable(body.jaxpr, body.consts), in_axes=axes, axis_size=eqn.params["length"])
    )(*shapes)
    return context.propagate(batched.jaxpr, batched.consts, values)
