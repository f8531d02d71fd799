"""Solves of the forward Laplacian: from the equation that the unknown satisfies, not from the steps of the solver.

A(c) x = b, so   A Δx = Δb − Σ over k of ∂²_k (A(c) x), where x has its Jacobian, and neither c nor x a Laplacian of
its own in the sum: those of c and b come through the pushforward. Where A is c itself, the sum is 2 Σ_k ∂_k A ∂_k x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from chainrule._jax import run_equation
from chainrule._laplacian.forward import SOLVES, Curved, Value, value_of
from chainrule._laplacian.loops import laplacians
from chainrule._program import Context, as_jax
from chainrule._substitution import with_substitution


def linear_solve(context: Context, eqn: Any, values: Sequence[Value], found: Sequence[Curved]) -> list[Any]:
    """A x = b with A given as a function."""
    lengths, matvec = eqn.params["const_lengths"], eqn.params["jaxprs"].matvec
    return _bent(context, eqn, values, values[: lengths.matvec], found, matvec, sum(lengths))


def triangular_solve(context: Context, eqn: Any, values: Sequence[Value], found: Sequence[Curved]) -> list[Any]:
    """A X = B or X A = B with a triangle of a matrix."""
    params = eqn.params

    def product(a: Any, x: Any) -> Any:
        a = jnp.tril(a) if params["lower"] else jnp.triu(a)
        if params["unit_diagonal"]:
            a = jnp.where(jnp.eye(a.shape[-1], dtype=bool), jnp.ones((), a.dtype), a)
        a = a.conj() if params["conjugate_a"] else a
        a = jnp.swapaxes(a, -1, -2) if params["transpose_a"] else a
        return a @ x if params["left_side"] else x @ a

    closed = jax.make_jaxpr(product)(*[jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars])
    return _bent(context, eqn, values, values[:1], found, closed, 1)


def _bent(
    context: Context,
    eqn: Any,
    values: Sequence[Value],
    consts: Sequence[Value],
    found: Sequence[Curved],
    product: Any,
    known: int,
) -> list[Any]:
    """−A⁻¹ Σ_k ∂²_k (A x) of each unknown, or None for zero; the right-hand sides come after `known` operands."""
    bare = [replace(v, laplacian=None, scaled=None) if isinstance(v, Curved) else v for v in (*consts, *found)]
    outs = laplacians(context, product.jaxpr, product.consts, bare, False)
    sums = [o.laplacian if isinstance(o, Curved) else None for o in outs]
    if all(s is None for s in sums):
        return [None] * len(found)
    sides = [
        jnp.zeros(v.aval.shape, v.aval.dtype) if s is None else -s
        for s, v in zip(sums, eqn.invars[known:], strict=True)
    ]
    return run_equation(with_substitution(eqn), [*[as_jax(value_of(v).value) for v in values[:known]], *sides])


SOLVES.update({"custom_linear_solve": linear_solve, "triangular_solve": triangular_solve})
