"""The linear program laid flat: its equations, its sections, their transposes, and programs made of blocks."""

from __future__ import annotations

import functools
import math
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._block import Block, compressed, densify, presence, union_of_lines, xp
from chainrule._coefficient import evaluate as coefficients
from chainrule._jax import dependent, run_equation
from chainrule._program import Coefficient, Context, Linear, Tangent
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
        known = [Coefficient(np.zeros(v.shape, v.dtype)) if isinstance(v, Linear) else v for v in values]
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
        values = [Tangent(v.shape, v.dtype, ()) if isinstance(v, Linear) else v for v in values]
        for out, value in zip(step.outs, context.apply(context, step.equation, values), strict=True):
            made = Tangent(out.shape, out.dtype, ()) if 0 in out.shape else value
            env[id(out)] = seen(out, made) if isinstance(made, Tangent) else made
    return [require_tangent(env.get(id(v), v), tuple(v.shape), v.dtype) for v in program.outputs]


def evaluate(program: LinearProgram, values: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
    """The map applied to arrays, with these values for the coefficients: the outputs that depend on an input."""
    left, env = iter(values), {id(v): x for v, x in zip(program.inputs, inputs, strict=True)}
    for step in program.steps:
        operands = [next(left) if isinstance(v, Coefficient) else env[id(v)] for v in step.operands]
        env.update(zip(map(id, step.outs), run_equation(step.equation, operands), strict=True))
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


def of_blocks(
    tangents: Sequence[Tangent], targets: Sequence[Linear], sources: Sequence[Linear], precision: Any = None
) -> LinearProgram:
    """The program of the Jacobians of some arrays with respect to the sources laid flat, one after another."""
    own = [[_even(b) for b in t.filled().blocks] for t in tangents]
    coefficients = [Coefficient(b.vals, there) for blocks in own for b, there in blocks]

    def run(values: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
        flat = inputs[0] if len(inputs) == 1 else jnp.concatenate([x.reshape(-1) for x in inputs])
        left, outs = iter(values), []
        for v, blocks in zip(targets, own, strict=True):
            terms = [_term(b, next(left), flat, v.dtype, precision) for b, _ in blocks]
            outs.append(functools.reduce(jnp.add, terms) if terms else jnp.zeros(v.shape, v.dtype))
        return outs

    return traced(run, coefficients, sources)


def _even(b: Block) -> tuple[Block, np.ndarray | None]:
    """The block with one row of columns for all places of an axis, where these have most of their columns in common.

    With it: which of its entries are there, where not all are.
    """
    own = b
    for axis in [k for k, n in enumerate(b.cols.shape[:-1]) if n != 1]:
        lines = np.moveaxis(own.cols, axis, -1).reshape((*np.delete(own.cols.shape[:-1], axis), -1))
        if union_of_lines(lines.reshape(-1, lines.shape[-1]))[0].shape[-1] <= _COMMON * own.slots:
            own = densify([own], [axis])
    there = (own.cols >= 0) if own is b else presence([b], _along(b, own))
    if there.all():
        return own, None
    vals = xp(own.vals).broadcast_to(own.vals, np.broadcast_shapes(own.vals.shape, compressed(there).shape))
    return own.with_vals(vals), np.broadcast_to(compressed(there), vals.shape)


def _along(b: Block, own: Block) -> list[int]:
    return [k for k, (n, m) in enumerate(zip(b.cols.shape, own.cols.shape, strict=True)) if n != m and k < len(b.shape)]


_COMMON = 1.5  # times the columns of one row


def _term(b: Block, vals: Any, flat: Any, dtype: Any, precision: Any) -> Any:
    """out[i] = sum over q of vals[i, q] u[cols[i, q]]; an axis along which nothing varies is never written out."""
    slots, letters = b.slots, string.ascii_letters[: len(b.shape) + 1]
    present, u = b.cols >= 0, taken(flat, completed(b.cols, flat.size))
    if not present.all():  # zeros that are known: the steps that follow find the pattern again
        vals = jnp.where(present, jnp.broadcast_to(vals, np.broadcast_shapes(vals.shape, present.shape)), 0)
    if slots == 1:
        return jnp.broadcast_to((vals * u)[..., 0], b.shape).astype(dtype)
    parts = [_squeezed(a, letters) for a in (vals, u)]
    out = "".join(x for x in letters[:-1] if x in parts[0][0] + parts[1][0])
    copies = slots if letters[-1] not in parts[0][0] + parts[1][0] else 1
    product = jnp.einsum(f"{parts[0][0]},{parts[1][0]}->{out}", parts[0][1] * copies, parts[1][1], precision=precision)
    product = product.reshape([s if x in out else 1 for x, s in zip(letters, b.shape, strict=False)])
    return jnp.broadcast_to(product, b.shape).astype(dtype)


def _squeezed(a: Any, letters: str) -> tuple[str, Any]:
    kept = [k for k, s in enumerate(a.shape) if s != 1]
    return "".join(letters[k] for k in kept), a.reshape([a.shape[k] for k in kept])


def completed(cols: np.ndarray, size: int) -> np.ndarray:
    """Columns with some in place of absent ones: where all others run evenly, those of the same run.

    So a mask does not turn a slice into a gather.
    """
    present = cols >= 0
    if present.all() or not present.any():
        return np.maximum(cols, 0)
    origin = np.argwhere(present)[0]
    even = np.full((1,) * cols.ndim, cols[tuple(origin)])
    for k, n in enumerate(cols.shape):
        before, after = (np.take(cols, range(a, n - 1 + a), axis=k) for a in (0, 1))
        strides = (after - before)[(before >= 0) & (after >= 0)]
        if strides.size and strides[0]:
            places = (np.arange(n, dtype=cols.dtype) - origin[k]) * strides[0]
            even = even + places.reshape([-1 if j == k else 1 for j in range(cols.ndim)])
    inside = even.min() >= 0 and even.max() < size
    return even if inside and (~present | (cols == even)).all() else np.maximum(cols, 0)


def taken(array: Any, places: np.ndarray) -> Any:
    """`array` laid flat at places: a slice, a reshape and a transpose where these run evenly, else a gather."""
    axes = [k for k, s in enumerate(places.shape) if s != 1]
    origin = int(places[(0,) * places.ndim]) if places.size else 0

    def stride(k: int) -> int:
        return int(places[tuple(int(k == j) for j in range(places.ndim))]) - origin

    order = sorted(axes, key=stride, reverse=True)
    sizes = [places.shape[k] for k in order]
    even = origin + np.arange(math.prod(sizes), dtype=places.dtype).reshape(sizes)
    if places.size and np.array_equal(even, places.squeeze().transpose([axes.index(k) for k in order])):
        own = even.size == array.size
        part = array if own else jax.lax.slice(array.reshape(-1), (origin,), (origin + even.size,))
        part = part.reshape(sizes).transpose([order.index(k) for k in axes])
        return part.reshape(places.shape)
    return array.reshape(-1).at[places].get(mode="promise_in_bounds", wrap_negative_indices=False)
