"""The forward Laplacian: each array of a program with its Jacobian, as blocks, and its Laplacian.

For y = F(u):   Δy = F'(u) Δu + Σ_k F''(u)[∂_k u, ∂_k u],   a sum over the inputs k of the program.
The first term is a pushforward. The second one vanishes where F is linear; it is φ''(u) Σ_k (∂_k u)² for a function of
each element, and 2 Σ_k ∂_k a ∂_k b for a product. See Li et al., *A computational framework for neural network-based
variational Monte Carlo with Forward Laplacian* (2023).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._blocks.coefficient import evaluate, known
from chainrule._jax import Literal, dependent, inner_jaxpr, needed, taken_branch
from chainrule._laplacian.function import Function
from chainrule._laplacian.gram import contracted_gram, gram
from chainrule._memory import require_memory
from chainrule._program import Coefficient, Context, Tangent, as_jax
from chainrule._propagate import propagate, push
from chainrule._rules import rule_for
from chainrule._rules.contraction import letters_of
from chainrule._rules.fallback import common_columns


@dataclass(frozen=True, eq=False)
class Curved:
    """An array that depends on the inputs: its value, its Jacobian and its Laplacian.

    A Laplacian of None is zero. Of what is not `second` nobody asks for it: it is multiplied by zero.
    `scaled`: the array that this one is a function of element by element, and its derivative, computed when asked for.
    """

    value: Coefficient
    jacobian: Tangent
    laplacian: Any = None
    second: bool = True
    scaled: tuple[Curved, Callable[[], Any]] | None = None
    _known: list[Any] = field(default_factory=list)

    def squares(self, context: Context) -> Any:
        """Σ_k (∂_k u)², or None for zero. It is summed once along a row of functions of each element."""
        u, factors = self, []
        while not u._known and u.scaled is not None:
            factors.append(u)
            u = u.scaled[0]
        if not u._known:
            u._known.append(gram(context, u.jacobian, u.jacobian, u.jacobian.shape))
        (found,) = u._known
        for v in reversed(factors):
            assert v.scaled is not None
            found = None if found is None else found * v.scaled[1]() ** 2
            v._known.append(found)
        return found


Value = Coefficient | Curved


# the derivative of these vanishes, or is none
_STOPPED = {"stop_gradient", "floor", "ceil", "round", "sign", "is_finite", "nextafter"}
# linear between kinks, where they are real: JAX takes a slope there, and no curvature
_PIECEWISE = {"abs", "max", "min", "clamp", "rem", "reduce_max", "reduce_min", "cummax", "cummin", "sort", "top_k"}
_PIECEWISE |= {"reduce_window_max", "reduce_window_min", "select_and_gather_add", "copysign"}
# linear in each of these operands, for given others
_PRODUCTS = {
    **dict.fromkeys(("mul", "dot_general", "conv_general_dilated"), (0, 1)),
    **dict.fromkeys(("div", "scatter-mul", "select_and_scatter_add", "select_and_gather_add"), (0,)),
    "triangular_solve": (1,),
    "tridiagonal_solve": (3,),
}
_POINTWISE = {
    *("acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cos", "cosh", "sin", "sinh", "tan", "tanh"),
    *("exp", "exp2", "expm1", "log", "log1p", "logistic", "pow", "integer_pow", "square", "sqrt", "rsqrt", "cbrt"),
    *("erf", "erfc", "erf_inv", "lgamma", "digamma", "polygamma", "igamma", "igammac", "zeta"),
    *("bessel_i0e", "bessel_i1e", "regularized_incomplete_beta", "mul", "div"),
}
_EACH = _POINTWISE | {"add", "sub", "neg", "abs", "copy"}
# their rules are products and solves: what these are made of is cheaper than derivatives of the rule column by column
_FACTORED = {"cholesky", "lu", "eigh", "qr", "svd"}
LOOPS: dict[str, Callable[..., list[Value]]] = {}  # `_laplacian_loops` enters them
SOLVES: dict[str, Callable[..., list[Any]]] = {}  # `_laplacian_solves` does


def laplacians(
    context: Context,
    jaxpr: Any,
    consts: Sequence[Any],
    inputs: Sequence[Value],
    jacobians: bool = True,
    costs: list[int] | None = None,
) -> list[Value]:
    """Run a jaxpr; `jacobians`: whether those of what it gives are asked for; `costs`: takes the count at each step."""
    env: dict[Any, Value] = dict(zip(jaxpr.constvars, [known(c) for c in consts], strict=True))
    env.update(zip(jaxpr.invars, inputs, strict=True))
    asked = _asked(jaxpr, inputs, jacobians)

    def read(v: Any) -> Value:
        return Coefficient(np.asarray(v.val, getattr(v.aval, "dtype", None))) if isinstance(v, Literal) else env[v]

    for eqn in needed(jaxpr):
        values = [read(v) for v in eqn.invars]
        if costs is not None:
            costs.append(context.cost)
        outs = _equation(context, eqn, values, any(v in asked for v in eqn.outvars))
        env.update(zip(eqn.outvars, outs, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _asked(jaxpr: Any, inputs: Sequence[Value], jacobians: bool) -> set[Any]:
    """The variables whose Jacobian an equation that is not linear takes."""
    varying = {v for v, own in zip(jaxpr.invars, inputs, strict=True) if isinstance(own, Curved)}
    marks = []
    for eqn in needed(jaxpr):
        marked = [not isinstance(v, Literal) and v in varying for v in eqn.invars]
        marks.append((eqn, marked))
        if any(marked) and eqn.primitive.name not in _STOPPED:
            varying.update(v for v, own in zip(eqn.outvars, dependent(eqn, marked), strict=True) if own)
    asked = {v for v in jaxpr.outvars if jacobians and not isinstance(v, Literal)}
    for eqn, marked in reversed(marks):
        if not _linear(eqn, marked) or any(v in asked for v in eqn.outvars):
            asked.update(v for v, own in zip(eqn.invars, marked, strict=True) if own)
    return asked


def _linear(eqn: Any, varying: Sequence[bool]) -> bool:
    """Whether an equation is linear, up to a constant, in its varying operands together: it has a rule then."""
    name, places = eqn.primitive.name, [k for k, own in enumerate(varying) if own]
    if rule_for(eqn) is None or name in LOOPS or name in _STOPPED:
        return False
    if name == "custom_linear_solve":
        return min(places, default=0) >= sum(eqn.params["const_lengths"])
    return name not in _PRODUCTS or (len(places) == 1 and places[0] in _PRODUCTS[name])


def _equation(context: Context, eqn: Any, values: list[Value], asked: bool) -> Sequence[Value]:
    name = eqn.primitive.name
    if inner := inner_jaxpr(eqn):
        return laplacians(context, *inner, values, asked)
    taken = taken_branch(eqn, values[0].value) if values and isinstance(values[0], Coefficient) else None
    if taken is not None:
        return laplacians(context, taken.jaxpr, taken.consts, values[1:], asked)
    varying = [isinstance(v, Curved) for v in values]
    if any(varying) and name in LOOPS:
        return LOOPS[name](context, eqn, values)
    found: Sequence[Any] = evaluate(eqn, [value_of(v) for v in values])
    if not any(varying) or name in _STOPPED:
        return found
    live = [jnp.issubdtype(v.aval.dtype, jnp.inexact) and v.aval.size > 0 for v in eqn.outvars]
    if not any(live):
        return found
    second = any(isinstance(v, Curved) and v.second for v in values)
    if second and (name.startswith(("custom_jvp", "custom_vjp")) or name in _FACTORED):
        outs = iter(_custom(context, eqn, values, asked, live))
    else:
        outs = iter(_step(context, eqn, values, asked, live, list(itertools.compress(found, live))))
    return [next(outs).of(c) if own else c for c, own in zip(found, live, strict=True)]


@dataclass(frozen=True, eq=False)
class _Derivatives:
    jacobian: Tangent
    laplacian: Any
    second: bool
    scaled: Any = None

    def of(self, value: Coefficient) -> Curved:
        return Curved(value, self.jacobian, self.laplacian, self.second, self.scaled)


def value_of(v: Value) -> Coefficient:
    return v.value if isinstance(v, Curved) else v


def _function(eqn: Any, values: Sequence[Value], live: Sequence[bool]) -> Function:
    places = [k for k, v in enumerate(values) if isinstance(v, Curved)]
    return Function(eqn, [value_of(v).value for v in values], places, live)


def _step(
    context: Context, eqn: Any, values: list[Value], asked: bool, live: list[bool], found: Sequence[Coefficient]
) -> list[_Derivatives]:
    curved = [v for v in values if isinstance(v, Curved)]
    linear = _linear(eqn, [isinstance(v, Curved) for v in values])
    solve = None if linear else SOLVES.get(eqn.primitive.name)
    function = _function(eqn, values, live)
    shapes = [(tuple(v.aval.shape), v.aval.dtype) for v, own in zip(eqn.outvars, live, strict=True) if own]
    jacobians: Sequence[Any] = [Tangent(*s, ()) for s in shapes]
    if asked or solve is not None:
        jacobians = _by_rule(context, eqn, values, live) if linear else _pushed(context, function, curved)
    if not any(v.second for v in curved):
        return [_Derivatives(J, None, False) for J in jacobians]
    first = _first(function, curved)
    if solve is not None:
        second = solve(context, eqn, values, [Curved(c, J) for c, J in zip(found, jacobians, strict=True)])
    else:
        second = [None] * len(shapes) if linear else _second(context, function, values)
    scaled = _scaled(function, curved[0], shapes[0])
    return [
        _Derivatives(J, plus_none(a, b, s), True, scaled)
        for J, a, b, s in zip(jacobians, first, second, shapes, strict=True)
    ]


def _scaled(function: Function, curved: Curved, shape: tuple[tuple[int, ...], Any]) -> Any:
    """What `Curved.scaled` says of the result of a step that takes one array element by element."""
    (u, *others), name = function.operands, function.eqn.primitive.name
    if others or name not in _EACH or (u.shape, u.dtype) != shape or jnp.iscomplexobj(u):
        return None
    return curved, lambda: function.slopes[0]


def plus_none(a: Any, b: Any, shape: tuple[tuple[int, ...], Any]) -> Any:
    """The sum of two terms, each of them None for zero, as an array of this shape and dtype."""
    terms = [jnp.broadcast_to(as_jax(x), shape[0]).astype(shape[1]) for x in (a, b) if x is not None]
    return functools.reduce(jnp.add, terms) if terms else None


def _by_rule(context: Context, eqn: Any, values: Sequence[Value], live: Sequence[bool]) -> list[Tangent]:
    """The Jacobians of a linear equation. What is added and does not vary has none."""

    def operand(v: Value) -> Any:
        if isinstance(v, Curved):
            return v.jacobian
        factor = eqn.primitive.name in _PRODUCTS or eqn.primitive.name == "custom_linear_solve"
        if factor or not jnp.issubdtype(v.dtype, jnp.inexact):
            return v
        return Coefficient(np.broadcast_to(np.zeros((), v.dtype), v.shape))

    outs = push(context, eqn, [operand(v) for v in values])
    return [_tangent(v, o) for o, v, own in zip(outs, eqn.outvars, live, strict=True) if own]


def _tangent(var: Any, found: Any) -> Tangent:
    return found if isinstance(found, Tangent) else Tangent(tuple(var.aval.shape), var.aval.dtype, ())


def _pushed(context: Context, function: Function, curved: Sequence[Curved]) -> list[Tangent]:
    """The Jacobians of what any equation gives: blocks through its linearization."""
    each = function.eqn.primitive.name in _POINTWISE and not any(jnp.iscomplexobj(u) for u in function.operands)
    slopes = function.slopes if each else []

    def linear(*t: Any) -> list[Any]:
        if not each:
            return function.push(function.operands, t)
        return [functools.reduce(jnp.add, map(jnp.multiply, slopes, t))]  # one product, where a rule has many

    closed, outs = jax.make_jaxpr(linear, return_shape=True)(*function.shapes)
    found = propagate(context, closed.jaxpr, closed.consts, [v.jacobian for v in curved])
    return [_present(v, o) for v, o in zip(found, outs, strict=True)]


def _present(found: Any, aval: Any) -> Tangent:
    """Without what a factor of zero has left of blocks."""
    if type(found) is not Tangent:  # what waits to be taken is left alone
        return found if isinstance(found, Tangent) else Tangent(aval.shape, aval.dtype, ())
    return Tangent(found.shape, found.dtype, tuple(b for b in found.blocks if (b.cols >= 0).any()))


def _first(function: Function, curved: Sequence[Curved]) -> list[Any]:
    """F'(u) Δu."""
    if all(v.laplacian is None for v in curved):
        return [None] * sum(function.live)
    zeros = [
        jnp.zeros_like(u) if v.laplacian is None else v.laplacian
        for u, v in zip(function.operands, curved, strict=True)
    ]
    return function.push(function.operands, zeros)


def _second(context: Context, function: Function, values: Sequence[Value]) -> list[Any]:
    """Σ_k F''(u)[∂_k u, ∂_k u]: of each result an array, or None for zero."""
    eqn, curved = function.eqn, [v for v in values if isinstance(v, Curved)]
    name, real = eqn.primitive.name, not any(jnp.iscomplexobj(u) for u in function.operands)
    if name in _PIECEWISE and real:
        return [None] * sum(function.live)
    if name == "mul" and len(curved) == 2:
        found = _products(context, curved[0], curved[1], tuple(eqn.outvars[0].aval.shape))
        return [None if found is None else found + found]
    if name == "dot_general" and len(curved) == 2:
        a, b = (v.jacobian for v in curved)
        found = contracted_gram(context, a, b, letters_of(eqn), eqn.params["precision"])
        return [None if found is None else found + found]
    if name in _POINTWISE and (real or len(curved) == 1):
        return [_pointwise(context, function, curved)]
    return _dense(context, function, curved)


def _products(context: Context, a: Curved, b: Curved, shape: tuple[int, ...]) -> Any:
    """Σ_k ∂_k a ∂_k b, or None for zero."""
    return a.squares(context) if a is b else gram(context, a.jacobian, b.jacobian, shape)


def _pointwise(context: Context, function: Function, curved: Sequence[Curved]) -> Any:
    """Σ over pairs of operands of φ_ab Σ_k ∂_k a ∂_k b; φ_ab from derivatives along ones."""
    (out,) = jax.eval_shape(function, *function.operands)
    total = None
    for j, k in itertools.combinations_with_replacement(range(len(curved)), 2):
        found = _products(context, curved[j], curved[k], out.shape)
        if found is None:
            continue
        bend = function.bend(function.only(j), function.only(k))[0]
        term = bend * (found if j == k else found + found)
        total = term if total is None else total + term
    return total


def _dense(context: Context, function: Function, curved: Sequence[Curved]) -> list[Any]:
    """The derivative of the pushforward along each column that the operands have: what `jax.hessian` does."""
    held = [k for k, v in enumerate(curved) if v.jacobian.blocks]
    if not held:
        return [None] * sum(function.live)
    columns, vals = common_columns([curved[k].jacobian.filled().blocks for k in held])

    def along(*column: Any) -> list[Any]:
        given = dict(zip(held, column, strict=True))
        tangents = tuple(given.get(k, jnp.zeros_like(u)) for k, u in enumerate(function.operands))
        return function.bend(tangents, tangents)

    name = function.eqn.primitive.name
    for o in jax.eval_shape(along, *[jax.ShapeDtypeStruct(v.shape[:-1], v.dtype) for v in vals]):
        require_memory(f"laplacian: the step `{name}`", (*o.shape, len(columns)), o.dtype.itemsize, "")
        context.cost += o.size * len(columns)
    context.fallbacks[name] = None
    return [o.sum(-1) for o in jax.vmap(along, in_axes=-1, out_axes=-1)(*vals)]


def _custom(context: Context, eqn: Any, values: list[Value], asked: bool, live: list[bool]) -> list[_Derivatives]:
    """By the rule that came with the function, G(u, w) = F'(u) w.

    Where w = 0, ∂_k w = ∂_k u and Δw = 2 Δu, the Laplacian of G(u, w) is 2 F''(u)[∂_k u, ∂_k u] summed + 2 F'(u) Δu,
    and its Jacobian is that of F. All that depends on u alone is met by zeros: its own Laplacian is not asked for.
    """
    curved = [v for v in values if isinstance(v, Curved)]
    function = _function(eqn, values, live)
    closed = jax.make_jaxpr(lambda u, w: function.push(u, w))(function.shapes, function.shapes)
    us = [Curved(v.value, v.jacobian, None, False) for v in curved]
    ws = [
        Curved(
            Coefficient(np.broadcast_to(np.zeros((), v.value.dtype), v.value.shape)),
            v.jacobian,
            None if v.laplacian is None else 2 * v.laplacian,
        )
        for v in curved
    ]
    outs = laplacians(context, closed.jaxpr, closed.consts, [*us, *ws], asked)
    own = []
    for o, v in zip(outs, itertools.compress(eqn.outvars, live), strict=True):
        if isinstance(o, Curved):
            own.append(_Derivatives(o.jacobian, None if o.laplacian is None else 0.5 * o.laplacian, True))
        else:
            own.append(_Derivatives(Tangent(tuple(v.aval.shape), v.aval.dtype, ()), None, True))
    return own
