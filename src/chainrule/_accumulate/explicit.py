"""Functions of arrays on a mesh with explicit axes: traced with these, computed with automatic ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, get_abstract_mesh, use_abstract_mesh

from chainrule._accumulate.recorded import Accumulated
from chainrule._jacobians.assembled import Assembled
from chainrule._jax import Literal, as_function, custom_call, inner_jaxpr, run_equation, without_types
from chainrule._mesh import automatic, typed, untyped, with_types
from chainrule._space import Space
from chainrule._trace import Problem, flat_output

_TYPES_ALONE = {"reshard", "mesh_cast", "sharding_constraint"}  # what these change on a mesh with explicit axes


def with_automatic_axes(
    problem: Problem, has_aux: bool, axis: str | None, run: Callable[[Problem], Accumulated]
) -> Accumulated:
    """Run for the same function of arrays without explicit types; its results have those of the function's own."""
    function, found = flat_output(problem, has_aux)
    mesh, shardings = problem.mesh, [jax.typeof(x).sharding for x in problem.leaves]
    given = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s) for x, s in zip(problem.leaves, shardings, strict=True)]
    closed, (y_shape, aux_shape) = jax.make_jaxpr(function, return_shape=True)(*given)
    outs = [NamedSharding(mesh, v.aval.sharding.spec) for v in closed.jaxpr.outvars]
    y_types, aux_types = outs[: len(y_shape)], outs[len(y_shape) :]
    with automatic(mesh):
        consts = [_constant(c) for c in closed.consts]

        def bare(*leaves: Any) -> Any:
            values = _evaluate(mesh, closed.jaxpr, consts, leaves)
            y = jax.tree.unflatten(found["tree"], values[: len(y_types)])
            return (y, jax.tree.unflatten(jax.tree.structure(aux_shape), values[len(y_types) :])) if has_aux else y

        leaves = tuple(untyped(x) for x in problem.leaves)
        done = run(Problem(bare, problem.f, problem.what, leaves, problem.tree, get_abstract_mesh()))
    J = done.jacobian
    if isinstance(J, Assembled):
        x_types = tuple(NamedSharding(mesh, s.spec) for s in shardings)
        own = J._layout
        rows, columns = replace(own.rows, shardings=tuple(y_types)), replace(own.columns, shardings=x_types)
        if axis is not None and J.order == "reverse":
            rows = _split(rows, axis)
        elif axis is not None:
            columns = _split(columns, axis)
        J = Assembled(replace(own, rows=rows, columns=columns), J._values)
    value, aux = (
        jax.tree.map(lambda x, s: typed(x, mesh, s.spec), tree, jax.tree.unflatten(jax.tree.structure(tree), types))
        for tree, types in ((done.value, y_types), (done.aux, aux_types))
    )
    return Accumulated(value, aux, with_types(J, mesh, ()), done.bodies)


def _evaluate(mesh: Any, jaxpr: Any, consts: Sequence[Any], operands: Sequence[Any]) -> list[Any]:
    """A jaxpr of typed values applied to values of automatic axes."""
    env = dict(zip(jaxpr.constvars, consts, strict=True)) | dict(zip(jaxpr.invars, operands, strict=True))

    def read(v: Any) -> Any:
        return v.val if isinstance(v, Literal) else env[v]

    def plain(inner: Any, constants: Sequence[Any]) -> Any:
        return jax.make_jaxpr(lambda *x: _evaluate(mesh, inner, constants, x))(*[_shape(v) for v in inner.invars])

    for eqn in jaxpr.eqns:
        values, called = [read(v) for v in eqn.invars], inner_jaxpr(eqn)
        if eqn.primitive.name in _TYPES_ALONE:
            outs = values[:1]
        elif called is not None:
            outs = _evaluate(mesh, *called, values)
        elif custom_call(eqn) is not None:
            outs = _with_own_rule(mesh, eqn, values)
        else:
            outs = run_equation(without_types(eqn, plain), values)
        env.update(zip(eqn.outvars, outs, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _with_own_rule(mesh: Any, eqn: Any, values: Sequence[Any]) -> list[Any]:
    """A call of a function with a derivative rule of its own: the rule, too, is traced with explicit axes."""
    jaxpr, consts, backwards = custom_call(eqn)  # type: ignore[misc]
    typed_call, types, outs = as_function(eqn), [*map(_type, eqn.invars)], [*map(_type, eqn.outvars)]
    moving = [k for k, t in enumerate(types) if jax.numpy.issubdtype(t.dtype, jax.numpy.inexact)]

    def among(all_values: Sequence[Any], own: Sequence[Any]) -> list[Any]:
        left = iter(own)
        return [next(left) if k in moving else v for k, v in enumerate(all_values)]

    def call(*own: Any) -> list[Any]:
        return _evaluate(mesh, jaxpr, consts, among(values, own))

    def traced(rule: Callable[..., Any], more: Sequence[Any]) -> Callable[..., Any]:
        with use_abstract_mesh(mesh):
            closed = jax.make_jaxpr(rule)(types, more)
        return lambda *given: _evaluate(mesh, closed.jaxpr, [_constant(c) for c in closed.consts], given)

    def pushed(x: Sequence[Any], t: Sequence[Any]) -> Any:
        return jax.jvp(lambda *own: typed_call(*among(x, own)), [x[k] for k in moving], list(t))

    def pulled(x: Sequence[Any], w: Sequence[Any]) -> Any:
        return jax.vjp(lambda *own: typed_call(*among(x, own)), *[x[k] for k in moving])[1](list(w))

    if backwards:
        run: Any = jax.custom_vjp(call)
        run.defvjp(
            lambda *own: (call(*own), own),
            lambda own, w: tuple(traced(pulled, outs)(*among(values, own), *w)),
        )
    else:

        def rule(own: Sequence[Any], t: Sequence[Any]) -> Any:
            both = traced(pushed, [types[k] for k in moving])(*among(values, own), *t)
            return both[: len(outs)], both[len(outs) :]

        run = jax.custom_jvp(call)
        run.defjvp(rule)
    return run(*[values[k] for k in moving])


def _shape(v: Any) -> Any:
    return jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype)


def _type(v: Any) -> Any:
    return jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype, sharding=v.aval.sharding)


def _constant(c: Any) -> Any:
    """What may shape a pattern stays known while tracing."""
    if not isinstance(c, jax.Array) or isinstance(c, jax.core.Tracer):
        return untyped(c)
    with jax.ensure_compile_time_eval():
        return np.asarray(c) if c.is_fully_replicated or c.dtype.kind in "iub" else untyped(c)


def _split(space: Space, axis: str) -> Space:
    """A space whose arrays are split along this axis of the mesh, where they are whole and can be."""

    def one(shape: tuple[int, ...], sharding: NamedSharding) -> NamedSharding:
        mesh = sharding.mesh
        if not shape or shape[0] % mesh.shape[axis] or any(sharding.spec):
            return sharding
        return NamedSharding(mesh, PartitionSpec(axis))

    return replace(space, shardings=tuple(map(one, space.shapes, space.shardings)))
