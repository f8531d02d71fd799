"""The linear program laid flat: its equations, its sections and their transposes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from chainrule._blocks.block import identity
from chainrule._blocks.coefficient import evaluate as coefficients
from chainrule._jax import dependent, run_equation
from chainrule._memory import require_columns
from chainrule._program import Coefficient, Context, Linear, Tangent, zero_coefficient, zero_tangent
from chainrule._propagate import propagate, require_tangent


@dataclass(frozen=True, eq=False)
class Step:
    """One linear equation; its operands are coefficients and linear arrays."""

    equation: Any
    operands: tuple[Coefficient | Linear, ...]
    outs: tuple[Linear, ...]

    @property
    def sources(self) -> list[Linear]:
        """The linear operands."""
        return [v for v in self.operands if isinstance(v, Linear)]


@dataclass(frozen=True, eq=False)
class LinearProgram:
    """A linear map of arrays, as steps in the order of the program; no step is dead.

    An output that depends on no input is a zero coefficient.
    """

    inputs: tuple[Linear, ...]
    outputs: tuple[Linear | Coefficient, ...]
    steps: tuple[Step, ...] = field(repr=False)

    @property
    def coefficients(self) -> list[Coefficient]:
        """The coefficients of the steps, in the order of their use."""
        return [v for step in self.steps for v in step.operands if isinstance(v, Coefficient)]

    @cached_property
    def arrays(self) -> list[Linear]:
        """The inputs and what each step gives, in order: their numbers name them in a plan."""
        return [*self.inputs, *(v for step in self.steps for v in step.outs)]

    @cached_property
    def numbers(self) -> dict[int, int]:
        """The number of each array, by its id."""
        return {id(v): k for k, v in enumerate(self.arrays)}

    @cached_property
    def targets(self) -> tuple[Linear, ...]:
        """The outputs that depend on an input."""
        return tuple(v for v in self.outputs if isinstance(v, Linear))


def record(
    jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Coefficient | Linear]
) -> tuple[list[Coefficient | Linear], tuple[Step, ...]]:
    """Run a jaxpr on coefficients; its linear equations are noted: (values, steps)."""
    steps: list[Step] = []

    def note(_: Context, eqn: Any, values: list[Any]) -> list[Any]:
        outs = [Linear(tuple(v.aval.shape), v.aval.dtype) for v in eqn.outvars]
        steps.append(Step(eqn, tuple(values), tuple(outs)))
        linear = dependent(eqn, [isinstance(v, Linear) for v in values])
        if all(linear):
            return outs
        # a loop that recomputes values beside their tangents: what does not depend on these is had without them
        known = [zero_coefficient(v) if isinstance(v, Linear) else v for v in values]
        return [o if own else c for o, own, c in zip(outs, linear, coefficients(eqn, known), strict=True)]

    context = Context(propagate=lambda *a: propagate(context, *a), apply=note)
    values: list[Any] = propagate(context, jaxpr, consts, list(inputs))  # type: ignore[arg-type]
    return values, tuple(steps)


def section(steps: Sequence[Step], sources: Sequence[Linear], targets: Sequence[Linear | Coefficient]) -> LinearProgram:
    """The part of a program that the targets take from the sources."""
    wanted = {id(v) for v in targets if isinstance(v, Linear)} - {id(v) for v in sources}
    kept = []
    for step in reversed(steps):
        if any(id(v) in wanted for v in step.outs):
            kept.append(step)
            wanted.update(id(v) for v in step.sources)
            wanted.difference_update(id(v) for v in sources)
    return LinearProgram(tuple(sources), tuple(targets), tuple(kept[::-1]))


def body_program(
    jaxpr: Any, consts: Sequence[Any], operands: Sequence[Coefficient | Linear]
) -> tuple[LinearProgram, list[Coefficient | Linear]]:
    """The program of a jaxpr, and what the jaxpr gives: each of its targets is among this, and the result of a step."""
    values, steps = record(jaxpr, consts, operands)
    inputs = [v for v in operands if isinstance(v, Linear)]
    targets = {id(v): v for v in values if isinstance(v, Linear) and not any(v is own for own in inputs)}
    return section(steps, inputs, list(targets.values())), values


def seeds_of(arrays: Sequence[Linear]) -> tuple[Tangent, ...]:
    """The identity: the columns of one array after those of the other."""
    seeds, offset = [], 0
    for v in arrays:
        require_columns(v.shape, what="jacobian: where a sweep begins")
        seeds.append(Tangent(v.shape, v.dtype, (identity(v.shape, offset, v.dtype),) if v.size else ()))
        offset += v.size
    return tuple(seeds)


def push_through(
    context: Context,
    program: LinearProgram,
    inputs: Sequence[Tangent],
    seen: Callable[[Linear, Tangent], Tangent] = lambda _, tangent: tangent,
) -> list[Tangent]:
    """The tangents of the outputs, step by step; what each step gives is replaced by what `seen` makes of it."""
    env: dict[int, Any] = {id(v): t for v, t in zip(program.inputs, inputs, strict=True)}
    for step in program.steps:
        values = [env.get(id(v), v) if isinstance(v, Linear) else v for v in step.operands]
        values = [zero_tangent(v) if isinstance(v, Linear) else v for v in values]
        for out, value in zip(step.outs, context.apply(context, step.equation, values), strict=True):
            made = zero_tangent(out) if 0 in out.shape else value
            env[id(out)] = seen(out, made) if isinstance(made, Tangent) else made
    return [require_tangent(env.get(id(v), v), tuple(v.shape), v.dtype) for v in program.outputs]


def evaluate(
    program: LinearProgram, values: Sequence[Any], inputs: Sequence[Any], added: Mapping[int, Any] | None = None
) -> list[Any]:
    """The map applied to arrays, with these values for the coefficients: the outputs that depend on an input.

    `added`: what is added to arrays on the way, by their ids.
    """
    left, env = iter(values), {id(v): x for v, x in zip(program.inputs, inputs, strict=True)}
    for step in program.steps:
        operands = [next(left) if isinstance(v, Coefficient) else env[id(v)] for v in step.operands]
        for v, made in zip(step.outs, run_equation(step.equation, operands), strict=True):
            env[id(v)] = made + added[id(v)] if added and id(v) in added else made
    return [env[id(v)] for v in program.targets]


def transposed(program: LinearProgram) -> LinearProgram:
    """The program of the cotangents: from those of the outputs to those of the inputs."""
    live = [isinstance(v, Linear) for v in program.outputs]

    def run(values: Sequence[Any], cotangents: Sequence[Any]) -> Any:
        transpose = jax.linear_transpose(
            lambda *inputs: evaluate(program, values, inputs), *[_aval(v) for v in program.inputs]
        )
        return transpose([c for c, own in zip(cotangents, live, strict=True) if own])

    return traced(run, program.coefficients, program.outputs)


def cotangents(program: LinearProgram) -> LinearProgram:
    """The program of the cotangents of all arrays that have elements, in their order, from those of the outputs."""
    arrays = [v for v in program.arrays if v.size]

    def run(values: Sequence[Any], given: Sequence[Any]) -> Any:
        def changed(*changes: Any) -> list[Any]:
            added = dict(zip(map(id, arrays), changes, strict=True))
            inputs = [added[id(v)] if v.size else jnp.zeros(v.shape, v.dtype) for v in program.inputs]
            return evaluate(program, values, inputs, added)

        return jax.linear_transpose(changed, *map(_aval, arrays))(list(given))

    return traced(run, program.coefficients, program.targets)


def traced(
    run: Callable[..., Any], coefficients: Sequence[Coefficient], inputs: Sequence[Linear | Coefficient]
) -> LinearProgram:
    """The program of run(values of the coefficients, inputs), which is linear in the inputs."""
    closed = jax.make_jaxpr(run)([_aval(v) for v in coefficients], [_aval(v) for v in inputs])
    seeds = [Linear(v.shape, v.dtype) for v in inputs]
    values, steps = record(closed.jaxpr, closed.consts, [*coefficients, *seeds])
    return section(steps, seeds, values)


def _aval(v: Coefficient | Linear) -> Any:
    return jax.ShapeDtypeStruct(v.shape, v.dtype)


def precision_of(program: LinearProgram) -> Any:
    """The highest precision that a product of the program asks for, or None where none does."""
    asked = [p for s in program.steps for p in jax.tree.leaves(s.equation.params.get("precision"))]
    return max((p for p in asked if isinstance(p, jax.lax.Precision)), key=lambda p: p.value, default=None)
