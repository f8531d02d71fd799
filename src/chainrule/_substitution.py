"""Small triangular systems solved by substitution, as a few operations of the whole batch.

LAPACK takes the matrices of a batch one by one, in a layout of its own, and a call for each costs more than the
arithmetic of a small one. Operations of whole batches XLA fuses with what stands around; it is the same arithmetic.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from chainrule._jax import ClosedJaxpr, primitive

SMALL = 8  # unknowns up to which a step for each of them takes less time than a call of LAPACK for each matrix


def with_substitution(eqn: Any) -> Any:
    """The equation with its small triangular solves, also those inside of it (a solve by factors), by substitution."""
    if eqn.primitive is primitive("triangular_solve") and 0 < eqn.invars[0].aval.shape[-1] <= SMALL:
        shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars]
        (call,) = jax.make_jaxpr(jax.jit(functools.partial(_substituted, eqn.params)))(*shapes).eqns
        return eqn.replace(primitive=call.primitive, params=call.params)
    params = {name: _inside(value) for name, value in eqn.params.items()}
    return eqn if all(params[name] is value for name, value in eqn.params.items()) else eqn.replace(params=params)


def _inside(value: Any) -> Any:
    if isinstance(value, ClosedJaxpr):
        eqns = [with_substitution(e) for e in value.jaxpr.eqns]
        same = all(a is b for a, b in zip(eqns, value.jaxpr.eqns, strict=True))
        return value if same else value.replace(jaxpr=value.jaxpr.replace(eqns=eqns))
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # the programs of a linear solve
        parts = [_inside(v) for v in value]
        return value if all(a is b for a, b in zip(parts, value, strict=True)) else type(value)(*parts)
    return value


def _substituted(params: Any, a: Any, b: Any) -> Any:
    """X with A X = B (or X A = B) for triangular A, one row (column) of X at a time."""
    axis, transposed = b.ndim - 2, params["transpose_a"]
    if not params["left_side"]:  # X A = B is Aᵀ Xᵀ = Bᵀ
        axis, transposed = b.ndim - 1, not transposed
    a = a.conj() if params["conjugate_a"] else a
    a = jnp.swapaxes(a, -1, -2) if transposed else a
    size, down, found = a.shape[-1], params["lower"] != transposed, list[Any]()
    cut = functools.partial(jax.lax.slice_in_dim, axis=axis)
    for k in range(size) if down else reversed(range(size)):
        column = jnp.expand_dims(a[..., k], -1 if params["left_side"] else -2)  # its entries lie along `axis`
        first, low, high = (1, k + 1, size) if down else (0, 0, k)  # the unknowns that are left
        own = cut(b, 0, 1) if down else cut(b, k, k + 1)
        x = own if params["unit_diagonal"] else own / cut(column, k, k + 1)
        b = cut(b, first, first + high - low) - cut(column, low, high) * x
        found.append(x)
    return jnp.concatenate(found if down else found[::-1], axis)
