"""Loops: the columns that a carry can ever hold by reachability, then a loop, or a few in turn, over its values.

One step of a loop is a linear map (constants, carry, inputs of the step) -> (carry, outputs of the step). Its sparsity
pattern, found once, says which columns the carry can ever hold; the loop then runs on values in this layout. Columns
that differ from step to step (those of the inputs of the steps) travel through the step as *virtual* columns; a table
holds their numbers at each step.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._blocks.block import Block
from chainrule._errors import MissingRuleError
from chainrule._jax import Literal, as_callable, count_equations, scan_counts
from chainrule._memory import require_memory
from chainrule._program import Coefficient, Context, Tangent, Value, as_jax, plain, zero_coefficient, zero_tangent
from chainrule._rules._registry import rule, zeros
from chainrule._rules.layout import Layout, all_numbers
from chainrule._rules.postponed import postponed
from chainrule._rules.reach import Pattern, blocks_of
from chainrule._rules.stencil import Stencil, stencil_of
from chainrule._rules.step import Step, kind_of, numbers_of, whole
from chainrule._rules.virtual import Virtual

# a loop over known positions or masks is written out up to this length and size, so that every step keeps its own
_UNROLLED_STEPS, _UNROLLED_EQUATIONS = 32, 512
# a carry that holds no more than this part of its columns by half-time is worth a few loops, each as wide as it needs,
# or as many as there are steps, where these are few and short
_GROWN, _STAGES, _SINGLE_STEPS = 0.75, 4, 16


@rule("scan", reads="jaxpr length reverse unroll num_consts num_carry ft_in ft_out")
def scan(context: Context, eqn: Any, values: list[Value]) -> Any:
    """carry, y_t = step(constants, carry, x_t) for every time t."""
    try:
        return _scan(context, eqn, values)
    except MissingRuleError:
        return NotImplemented  # what is linear as a whole, if at all, is run as a whole


def _scan(context: Context, eqn: Any, values: list[Value]) -> list[Value]:
    body, T = eqn.params["jaxpr"], eqn.params["length"]
    a, b = scan_counts(eqn)
    consts, carry, xs = values[:a], values[a : a + b], values[a + b :]
    if not T:
        return [*carry, *[zero_tangent(v.aval) for v in eqn.outvars[b:]]]
    small = T <= _UNROLLED_STEPS and T * count_equations(body.jaxpr) <= _UNROLLED_EQUATIONS
    if T == 1 or (b and small and any(_positions_known(v) for v in values)):
        return _unrolled(context, eqn, values)
    step = Step(context, body, consts, carry, xs)
    if "tangent" not in step.kinds:
        return _mapped(context, eqn, step)
    rewritten = postponed(eqn, values, step.kinds)
    if rewritten is not None:
        return context.propagate(rewritten.jaxpr, rewritten.consts, values)
    return _staged(context, eqn, step)


def _unrolled(context: Context, eqn: Any, values: list[Value]) -> list[Value]:
    """A short loop, written out: each step has patterns and known coefficients of its own."""
    (a, b), T = scan_counts(eqn), eqn.params["length"]
    step = as_callable(eqn.params["jaxpr"].jaxpr, eqn.params["jaxpr"].consts)

    def written_out(*operands: Any) -> list[Any]:
        carry, ys = list(operands[a : a + b]), [()] * T
        for t in reversed(range(T)) if eqn.params["reverse"] else range(T):
            xs = [jax.lax.index_in_dim(x, t, keepdims=False) for x in operands[a + b :]]
            outs = step(*operands[:a], *carry, *xs)
            carry, ys[t] = outs[:b], tuple(outs[b:])
        return [*carry, *[jnp.stack(y) for y in zip(*ys, strict=True)]]

    closed = jax.make_jaxpr(written_out)(*[jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars])
    return context.propagate(closed.jaxpr, closed.consts, values)


def _mapped(context: Context, eqn: Any, step: Step) -> list[Value]:
    """A loop that carries no tangent is one step for all times at once."""
    T, a, b = eqn.params["length"], len(step.consts), len(step.carry)
    run, carry, last = as_callable(step.body.jaxpr, step.body.consts), step.carry, step.carry
    if "coefficient" in step.kinds:  # the carry at every time, from the loop itself; no tangent reaches it

        def keep(c: Any, x: Any) -> Any:
            return run(*map(plain, step.consts), *c, *x)[:b], c

        ends, entered = jax.lax.scan(
            keep, list(map(plain, carry)), list(map(plain, step.xs)), length=T, reverse=eqn.params["reverse"]
        )
        last = [v if kind == "zero" else Coefficient(e) for kind, v, e in zip(step.kinds, carry, ends, strict=True)]
        carry = [v if kind == "zero" else Coefficient(e) for kind, v, e in zip(step.kinds, carry, entered, strict=True)]
    axes = [*[None] * a, *[None if kind == "zero" else 0 for kind in step.kinds], *[0] * len(step.xs)]
    operands = [*step.consts, *carry, *step.xs]
    shapes = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in operands]
    batched = jax.make_jaxpr(jax.vmap(run, in_axes=axes, axis_size=T))(*shapes)
    return [*last, *context.propagate(batched.jaxpr, batched.consts, operands)[b:]]


def _staged(context: Context, eqn: Any, step: Step) -> list[Value]:
    """The loop in stages, each with a layout of its own, where the columns of the carry become more and more."""
    T, b, reverse = eqn.params["length"], len(step.carry), eqn.params["reverse"]
    virtual = Virtual(step, T, reverse)
    grown = step.reach(virtual.patterns(), T)
    _require_outputs(step, grown, T)
    only_carry = all(_among(v, step.handed_on | step.received) for v in step.body.jaxpr.outvars[b:])
    stencil = stencil_of(step, virtual) if only_carry else None
    count = T if stencil is not None and T <= _SINGLE_STEPS else min(T, _STAGES)
    small = stencil is not None or count * count_equations(step.body.jaxpr) <= _UNROLLED_EQUATIONS
    if not small or not _grows(step, grown, T, reverse):
        return _loop(context, step, range(T), virtual, Layout(step.kinds, step.carry, grown), stencil)
    carry, made = step.carry, []
    for start, stop in itertools.pairwise(k * T // count for k in range(count + 1)):
        times = _of_order(start, stop, T, reverse)
        stage = step.during(carry, times)
        virtual = Virtual(stage, len(times), reverse)
        layout = Layout(stage.kinds, stage.carry, stage.reach(virtual.patterns(), len(times)))
        outs = _loop(context, stage, times, virtual, layout, stencil)
        carry = outs[:b]
        made.append((times, outs[b:]))
    made.sort(key=lambda m: m[0].start)
    ys = zip(*[outs for _, outs in made], strict=True)
    return [*carry, *[_in_sequence(list(y), [times for times, _ in made], T) for y in ys]]


def _require_outputs(step: Step, grown: Pattern, T: int) -> None:
    """Refuse the states of all steps where they would not fit, before stages are laid out: the last has all columns."""
    sizes = [math.prod(s) if k == "tangent" else 0 for s, k in zip(step.rows, step.kinds, strict=True)]
    before = [0, *itertools.accumulate(sizes)]
    for v in step.body.jaxpr.outvars[len(step.carry) :]:
        parts = step.handed_on if _among(v, step.handed_on) else step.received
        if _among(v, parts):
            entries = int(grown.indptr[before[parts[v] + 1]] - grown.indptr[before[parts[v]]])
            require_memory("jacobian: the outputs of a loop", (-(-T // _STAGES), entries), v.aval.dtype.itemsize)


def _grows(step: Step, grown: Pattern, T: int, reverse: bool) -> bool:
    """Say whether many of the columns that the carry holds in the end reach it in the second half."""
    half = step.during(step.carry, _of_order(0, T // 2, T, reverse))
    return bool(half.reach(Virtual(half, T // 2, reverse).patterns(), T // 2).nnz <= _GROWN * grown.nnz)


def _of_order(start: int, stop: int, T: int, reverse: bool) -> range:
    """The times of these steps of the loop, in increasing order."""
    return range(T - stop, T - start) if reverse else range(start, stop)


def _in_sequence(parts: list[Value], times: list[range], T: int) -> Value:
    """What the stages gave, one after the other; each keeps its own columns."""
    if all(isinstance(v, Coefficient) for v in parts):
        return Coefficient(jnp.concatenate([as_jax(v.value) for v in parts if isinstance(v, Coefficient)]))
    shape, blocks = parts[0].shape[1:], []
    for v, own in zip(parts, times, strict=True):
        rows = np.arange(own.start * math.prod(shape), own.stop * math.prod(shape)).reshape((len(own), *shape))
        blocks += [Block(b.shape, b.cols, b.vals, rows) for b in blocks_of(v)]
    return Tangent((T, *shape), parts[0].dtype, tuple(blocks))


def _loop(
    context: Context, step: Step, times: range, virtual: Virtual, layout: Layout, stencil: Stencil | None
) -> list[Value]:
    """One `lax.scan` over the values of the carry, in a layout that never changes."""
    outvars, b = step.body.jaxpr.outvars, len(step.carry)
    done = None if stencil is None else _by_sums(context, step, times, virtual.reverse, layout, stencil)
    end, made, ys = _by_equations(context, step, virtual, layout) if done is None else done
    born = virtual.births()
    stacked: list[Value] = []
    for v, out, y in zip(outvars[b:], made, ys, strict=True):
        # what a step receives was born before it; what it hands on may be born in it
        stacked.append(virtual.stacked(out, y, born if _among(v, step.handed_on) else born + 1))
    return [*layout.values(end), *stacked]


def _by_equations(context: Context, step: Step, virtual: Virtual, layout: Layout) -> tuple[Any, list[Value], Any]:
    """Every step through its equations: the carry in the end, what a step gives, and its numbers at all times."""
    T, b, cost = virtual.length, len(step.carry), context.cost
    outvars = step.body.jaxpr.outvars
    made: list[Value] = []

    def one(state: Any, slices: Any) -> Any:
        time, xs = slices
        context.cost = cost
        outs = step.through([*step.consts, *layout.values(state), *virtual.at(xs)], T)
        state = layout.numbers(outs[:b], virtual, time)
        carried = layout.values(state)
        made[:] = [
            carried[step.handed_on[v]] if _among(v, step.handed_on) else whole(out)
            for v, out in zip(outvars[b:], outs[b:], strict=True)
        ]
        return state, [numbers_of(out) for out in made]

    over = (jnp.arange(T, dtype=np.int32), virtual.scanned)
    end, ys = jax.lax.scan(one, layout.numbers(step.carry), over, length=T, reverse=virtual.reverse)
    context.cost = cost + T * (context.cost - cost)
    return end, made, ys


def _by_sums(
    context: Context, step: Step, times: range, reverse: bool, layout: Layout, stencil: Stencil
) -> tuple[Any, list[Value], Any] | None:
    """The same by weighted sums of neighbours; None where the columns of these do not move alike in all rows."""
    moves = stencil.shifts(layout.cols, layout.cols)
    if moves is None:
        return None
    full = [None if c is None else (*v.shape, c.shape[-1]) for c, v in zip(layout.cols, step.carry, strict=True)]
    weights = [w[times.start : times.stop] for w in stencil.weights]
    given = step.body.jaxpr.outvars[len(step.carry) :]
    own = [v.blocks[0] if isinstance(v, Tangent) and len(v.blocks) == 1 else None for v in step.carry]
    narrow = None
    if len(times) == 1 and all(b is not None or c is None for b, c in zip(own, layout.cols, strict=True)):
        narrow = stencil.shifts([None if b is None else b.cols for b in own], layout.cols)
    if narrow is None:
        entering = iter(layout.numbers(step.carry))
        own = [None if s is None else Block(s[:-1], c, next(entering)) for s, c in zip(full, layout.cols, strict=True)]
    shifts, exact = moves if narrow is None else narrow
    state = [None if b is None else all_numbers(b, exact) for b in own]

    def one(state: Any, weights: Any) -> Any:
        after = stencil.advance(state, weights, shifts, full)
        return after, [[after[step.handed_on[v]] if v in step.handed_on else state[step.received[v]]] for v in given]

    if narrow is None:
        end, ys = jax.lax.scan(one, state, weights, length=len(times), reverse=reverse)
    else:  # a single step takes the carry as it comes
        end, ys = one(state, [w[0] for w in weights])
        ys = [[y[None]] for (y,) in ys]
    context.cost += len(times) * sum(math.prod(full[t.target] or ()) for t in stencil.taps)
    numbers = [a for a in end if a is not None]
    after = layout.values(numbers)
    before: list[Value] = [
        v if b is None else Tangent(v.shape, v.dtype, (b,)) for b, v in zip(own, step.carry, strict=True)
    ]
    made = [after[step.handed_on[v]] if v in step.handed_on else before[step.received[v]] for v in given]
    return numbers, made, ys


def _among(v: Any, handed_on: dict[Any, int]) -> bool:
    return not isinstance(v, Literal) and v in handed_on


@rule("while", reads="cond_nconsts cond_jaxpr body_nconsts body_jaxpr")
def while_loop(context: Context, eqn: Any, values: list[Value]) -> Any:
    """carry = body(constants, carry) while cond(constants, carry); the condition sees no tangent."""
    cond, body, a = eqn.params["cond_jaxpr"], eqn.params["body_jaxpr"], eqn.params["cond_nconsts"]
    b = a + eqn.params["body_nconsts"]
    try:
        step, test = Step(context, body, values[a:b], values[b:], []), as_callable(cond.jaxpr, cond.consts)
    except MissingRuleError:
        return NotImplemented
    layout = Layout(step.kinds, step.carry, step.reach([], None))

    def going(state: Any) -> Any:
        return test(*map(plain, values[:a]), *map(plain, layout.values(state)))[0]

    def one(state: Any) -> Any:
        after, on = layout.numbers(step.run([*step.consts, *layout.values(state)])), going(state)
        if not on.ndim:
            return after
        # a batch of loops: what has ended stays as it is
        wide = [on.reshape((*on.shape, *[1] * (new.ndim - on.ndim))) for new in after]
        return [jnp.where(w, new, old) for w, new, old in zip(wide, after, state, strict=True)]

    def go_on(state: Any) -> Any:
        return going(state).any()

    return layout.values(jax.lax.while_loop(go_on, one, layout.numbers(step.carry)))


@zeros("scan")
def scan_zeros(context: Context, eqn: Any, values: list[Value], outs: list[Coefficient]) -> list[Value]:
    """Zeros that the steps hand on: tangents of constants that JAX writes out, and those of masked weights."""
    a, b = scan_counts(eqn)
    step = Step(context, eqn.params["jaxpr"], values[:a], values[a : a + b], values[a + b :])
    kinds = [*step.kinds, *map(kind_of, step.outs[b:])]
    return [
        zero_coefficient(v) if kind == "zero" else _supported(v, made) if eqn.params["length"] else v
        for kind, v, made in zip(kinds, outs, step.outs, strict=True)
    ]


def _supported(v: Coefficient, made: Value) -> Coefficient:
    """What a loop gives, in the end or at all times, is zero where what a step makes is."""
    nonzero = made.nonzero if isinstance(made, Coefficient) else None
    return v if nonzero is None else replace(v, support=np.broadcast_to(nonzero, v.shape))


@zeros("while")
def while_zeros(context: Context, eqn: Any, values: list[Value], outs: list[Coefficient]) -> list[Value]:
    """Zeros that stay zero."""
    a = eqn.params["cond_nconsts"]
    b = a + eqn.params["body_nconsts"]
    step = Step(context, eqn.params["body_jaxpr"], values[a:b], values[b:], [])
    return [zero_coefficient(v) if kind == "zero" else v for kind, v in zip(step.kinds, outs, strict=True)]


def _positions_known(v: Value) -> bool:
    return isinstance(v, Coefficient) and v.static and v.value.ndim > 0 and v.value.dtype.kind in "iub"
