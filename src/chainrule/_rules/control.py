"""Branches: all of them in one layout, each selected by the index."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from chainrule._errors import MissingRuleError
from chainrule._program import Coefficient, Context, Tangent, Value, as_jax, plain, zero_coefficient, zero_tangent
from chainrule._rules._registry import rule, zeros
from chainrule._rules.pointwise import choose, tidy
from chainrule._rules.step import Step, kind_of


@rule("cond", reads="branches")
def cond(context: Context, eqn: Any, values: list[Value]) -> Any:
    """out = branch[index](operands): all branches, each selected by the index.

    The columns are the union of the branches'. The branches are linear, their coefficients were computed by the branch
    of the primal that was taken: what is not selected costs little. Of a known index only the one branch is propagated.
    """
    index, *operands = values
    branches = eqn.params["branches"]
    if not isinstance(index, Coefficient):
        return NotImplemented
    number = jnp.clip(as_jax(index.value).astype(jnp.int32), 0, len(branches) - 1)
    try:
        outs = [
            context.propagate(b.jaxpr, b.consts, [_within(v, index, k) for v in operands])
            for k, b in enumerate(branches)
        ]
    except MissingRuleError:
        return NotImplemented  # what is linear as a whole, if at all, is run as a whole
    return [_selected(number, cases, v.aval) for v, cases in zip(eqn.outvars, zip(*outs, strict=True), strict=True)]


def _within(v: Value, index: Coefficient, branch: int) -> Value:
    """What an operand is in one branch: what the same branch gave before may be known to be zero there."""
    if isinstance(v, Coefficient) and v.branches is not None and v.branches[0] is index.value and v.branches[1][branch]:
        return zero_coefficient(v)
    return v


def _selected(number: Any, cases: tuple[Value, ...], aval: Any) -> Value:
    if not any(isinstance(case, Tangent) and case.blocks for case in cases):
        if all(isinstance(case, Tangent) or case.zero for case in cases):
            return zero_tangent(aval)
        return Coefficient(jax.lax.select_n(number, *[plain(case) for case in cases]))
    blocks = []
    for k, case in enumerate(cases):
        if isinstance(case, Tangent):
            blocks += [choose(b, number == k) for b in case.filled().blocks]
    return Tangent(tuple(aval.shape), aval.dtype, tidy(blocks))


@zeros("cond")
def cond_zeros(context: Context, eqn: Any, values: list[Value], outs: list[Coefficient]) -> list[Value]:
    """Zeros in every branch, or in some."""
    index, *operands = values
    assert isinstance(index, Coefficient)
    cases = [Step(context, branch, operands, [], []).outs for branch in eqn.params["branches"]]
    found: list[Value] = []
    for out, own in zip(outs, zip(*cases, strict=True), strict=True):
        flags = tuple(kind_of(o) == "zero" for o in own)
        found.append(zero_coefficient(out) if all(flags) else replace(out, branches=(index.value, flags)))
    return found
