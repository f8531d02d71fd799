"""Accumulate a Jacobian in the order asked for, in the cheapest one, or in chunks that fit in memory."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp

from chainrule._accumulate.dense_parts import in_chunks, largest_chunks
from chainrule._accumulate.explicit import with_automatic_axes
from chainrule._accumulate.recorded import (
    Accumulated,
    Recorded,
    carried_out,
    in_links,
    in_one_link,
    recorded_program,
    swept,
)
from chainrule._errors import InputTypeError, MemoryLimitError, NotReversibleError
from chainrule._jax import has_custom_vjp, reversible
from chainrule._memory import limited
from chainrule._mesh import is_explicit, split_over
from chainrule._options import Chunked, Kind, Options, Order
from chainrule._plan.body import chain_of
from chainrule._plan.meeting import meeting
from chainrule._plan.node import Body, Meeting, Node
from chainrule._plan.order import Chain
from chainrule._plan.plan import Plan, counted, with_bodies, with_meeting
from chainrule._plan.planner import Directions, cuts_of, planned
from chainrule._plan.weights import weights
from chainrule._space import name_of
from chainrule._trace import (
    Problem,
    flat_output,
    named_as,
    no_forward_program,
    no_reverse_program,
    require_inputs,
)


def accumulate(problem: Problem, options: Options) -> Accumulated:
    """Accumulate within the memory that there is, in parts where that is asked for."""
    has_aux, order, holomorphic = options.has_aux, options.order, options.holomorphic
    if not isinstance(order, Plan) and order not in get_args(Order):
        raise InputTypeError(f"{problem.what}: order={order!r} is not one of {', '.join(get_args(Order))}, nor a Plan")
    if (options.chunk_size or options.shard_axis) is not None and order not in get_args(Chunked):
        raise InputTypeError(f"{problem.what}: chunks are parts of one sweep; give order='forward' or 'reverse'")
    require_inputs(problem, holomorphic)
    if is_explicit(problem.mesh):
        return with_automatic_axes(problem, has_aux, options.shard_axis, lambda bare: accumulate(bare, options))
    if order == "reverse" and not holomorphic:
        _require_real_outputs(problem, has_aux)
    with limited(options.memory_limit):
        whole = options.chunk_size is None or options.chunk_size == "auto"
        if whole and options.shard_axis is None:
            try:
                return _whole(problem, has_aux, order, holomorphic)
            except MemoryLimitError:
                if options.chunk_size is None:
                    raise
        assert not isinstance(order, Plan) and order != "factored"  # refused above
        return _parts(problem, order, options)


def _parts(problem: Problem, order: Chunked, options: Options) -> Accumulated:
    """Dense columns or rows in parts, split over devices where an axis of the mesh is named."""
    has_aux, size = options.has_aux, options.chunk_size
    axis = options.shard_axis
    split = None if axis is None else split_over(problem.what, axis, problem.mesh)
    if order == "auto":
        traced, out = _primal(problem, has_aux)
        m, n = (sum(math.prod(a.shape) for a in arrays) for arrays in (out, problem.leaves))
        few = m < n and not options.holomorphic
        order = _only_order(traced, out, options.holomorphic) or ("reverse" if few else "forward")
    if size == "auto":
        return largest_chunks(problem, has_aux, order, split)
    return in_chunks(problem, has_aux, order, size, split)


def _whole(problem: Problem, has_aux: bool, order: Order | Plan, holomorphic: bool) -> Accumulated:
    """Accumulate in the order asked for; with 'auto' in the one that costs least: XLA never sees another."""
    if order == "auto":
        return _cheapest(problem, has_aux, holomorphic)
    with no_forward_program(problem.what, "order='reverse' or 'auto'"):
        if isinstance(order, Plan):
            return _replayed(problem, has_aux, order)
        if order == "factored":
            return _linked(problem, has_aux, holomorphic)
        return _sweep(problem, has_aux, order == "reverse")


def _sweep(problem: Problem, has_aux: bool, reverse: bool, bodies: Sequence[Body] = ()) -> Accumulated:
    """One assembled Jacobian, from the input or from the output."""
    return swept(problem, recorded_program(problem, has_aux, reverse), bodies)


def _replayed(problem: Problem, has_aux: bool, plan: Plan) -> Accumulated:
    recorded = recorded_program(problem, has_aux, _only_reverse(plan))
    cuts = cuts_of(plan, recorded.program, problem.what)
    bodies = plan[plan.chosen].bodies
    if not plan.node.pure:
        with no_reverse_program(problem.what):
            return carried_out(problem, recorded, cuts, plan.node, bodies)
    return swept(problem, recorded, bodies) if plan.node.kind == "forward" else _sweep(problem, has_aux, True, bodies)


def _linked(problem: Problem, has_aux: bool, holomorphic: bool) -> Accumulated:
    """One link for each cut; a function that has but one direction is a single link."""
    directions = only_order(problem, has_aux, holomorphic)
    recorded = recorded_program(problem, has_aux, directions.backwards)
    program = recorded.program
    chain = None if directions.sole else chain_of(program, weights())
    if chain is None or len(chain.cuts) == 2 or len(program.targets) < len(program.outputs):
        return in_one_link(problem, recorded)
    with no_reverse_program(problem.what):
        return in_links(problem, recorded, chain)


def _only_reverse(plan: Plan) -> bool:
    return [o.name for o in plan.orders] == ["reverse"]


def plan_of(problem: Problem, has_aux: bool, holomorphic: bool, effort: int) -> Plan:
    """The costs of all orders; f is traced, never run."""
    require_inputs(problem, holomorphic)
    directions = only_order(problem, has_aux, holomorphic)
    recorded = recorded_program(problem, has_aux, directions.backwards)
    plan, chain = planned(recorded.program, name_of(problem.f), directions, effort)
    if directions.only is None and chain.best_node.pure and chain.rough:
        sweeps = _fitting(_forward(problem, recorded), _reverse(problem, has_aux))
        plan = with_bodies(plan, {name: sweep.bodies for name, sweep in sweeps.items()})
        costs = {name: sweep.jacobian.cost for name, sweep in sweeps.items()}
        few = _few_outputs(recorded) and "reverse" in sweeps
        met = _met(problem, recorded, sweeps["forward"]) if "forward" in sweeps and not few else None
        if met is not None:
            return counted(with_meeting(plan, met[0], weights()), costs | {"mixed": met[1].jacobian.cost}, "mixed")
        return counted(plan, costs, _cheaper(recorded, sweeps)) if sweeps else plan
    if any(step.equation.primitive.name == "scan" for step in recorded.program.steps):
        with contextlib.suppress(MemoryLimitError, NotReversibleError):
            return with_bodies(plan, {plan.chosen: _replayed(problem, has_aux, plan).bodies})
    return plan


def _forward(problem: Problem, recorded: Recorded) -> Accumulated | None:
    try:
        return swept(problem, recorded)
    except MemoryLimitError:
        return None


_NEAR = 4  # multiply-adds for each number of J, up to which a sweep is near the least that any takes
_LEAST = 2  # and up to which sweeps that meet are not tried; times their multiply-adds that one sweep takes at least
_BROAD = 20_000  # inputs times steps, above which counting from shapes takes longer than a sweep


def _met(problem: Problem, recorded: Recorded, forward: Accumulated) -> tuple[Meeting, Accumulated] | None:
    """Where two sweeps meet, and what they give, where that is sure to pay."""
    program = recorded.program
    with contextlib.suppress(MemoryLimitError, NotReversibleError), no_reverse_program(problem.what):
        found = None if _near(forward, _LEAST) else meeting(program)
        if found is not None:
            node = Node("meet", 0, 1, met=found)
            done = carried_out(problem, recorded, [program.inputs, program.targets], node)
            pays = _LEAST * done.jacobian.cost <= forward.jacobian.cost and _stored(done) <= _stored(forward)
            return (found, done) if pays else None
    return None


def _near(sweep: Accumulated, limit: float = _NEAR) -> bool:
    """Whether no order can take much less."""
    return sweep.jacobian.cost <= limit * _stored(sweep)


def _stored(sweep: Accumulated) -> int:
    return sum(v.size for v in jax.tree.leaves(sweep.jacobian))


def _few_outputs(recorded: Recorded) -> bool:
    """Whether the reverse sweep is taken without counting."""
    return recorded.rows.size * _NEAR <= recorded.columns.size


def _fitting(forward: Accumulated | None, reverse: Accumulated | None) -> dict[str, Accumulated]:
    """Both sweeps as far as they fit: patterns of loops and of indices show in their blocks only."""
    return {name: sweep for name, sweep in (("forward", forward), ("reverse", reverse)) if sweep}


def _cheaper(recorded: Recorded, sweeps: Mapping[str, Accumulated]) -> str:
    """The sweep of fewer multiply-adds; of about equal ones forward. It is that which `_counted` takes."""
    if "reverse" not in sweeps or "forward" not in sweeps:
        return next(iter(sweeps))
    if _few_outputs(recorded):
        return "reverse"
    forward, reverse = (sweeps[name].jacobian.cost for name in ("forward", "reverse"))
    return "forward" if _near(sweeps["forward"]) or forward <= Chain.tie * reverse else "reverse"


def _cheapest(problem: Problem, has_aux: bool, holomorphic: bool) -> Accumulated:
    directions = only_order(problem, has_aux, holomorphic)
    if directions.only is not None:
        done = _reverse(problem, has_aux) if directions.only == "reverse" and not directions.sole else None
        return done or _sweep(problem, has_aux, directions.backwards)
    return best_of(problem, recorded_program(problem, has_aux, False), lambda: _reverse(problem, has_aux))


def best_of(problem: Problem, recorded: Recorded, reverse: Callable[[], Accumulated | None]) -> Accumulated:
    """The order of a forward program that costs least; `reverse` makes the reverse sweep, where there is one."""
    if len(recorded.program.inputs) * len(recorded.program.steps) > _BROAD:
        return _counted(problem, recorded, reverse)
    chain = chain_of(recorded.program, weights())
    node = chain.best_node
    try:
        if not node.pure:
            with no_reverse_program(problem.what):
                return carried_out(problem, recorded, chain.arrays, node)
        if node.kind == "forward" and not chain.rough:
            return swept(problem, recorded)
    except (NotReversibleError, MemoryLimitError):
        return reverse() or swept(problem, recorded)
    if not chain.rough:
        return reverse() or swept(problem, recorded)
    return _counted(problem, recorded, reverse)


def _counted(problem: Problem, recorded: Recorded, reverse: Callable[[], Accumulated | None]) -> Accumulated:
    """The cheaper of both sweeps by the blocks that they meet; the other is made only where it may be the cheaper."""
    if _few_outputs(recorded) and (few := reverse()):
        return few
    forward = _forward(problem, recorded)
    if forward and (met := _met(problem, recorded, forward)):
        return met[1]
    if forward and _near(forward):
        return forward
    sweeps = _fitting(forward, reverse())
    return sweeps[_cheaper(recorded, sweeps)] if sweeps else swept(problem, recorded)  # the error of the first


def only_order(problem: Problem, has_aux: bool, holomorphic: bool) -> Directions:
    """The one order in which JAX differentiates this function, or the one that a single input or output calls for."""
    traced, out = _primal(problem, has_aux)
    m, n = (sum(math.prod(a.shape) for a in arrays) for arrays in (out, problem.leaves))
    only = _only_order(traced, out, holomorphic)
    return Directions(only or ("forward" if n <= 1 else "reverse" if m <= 1 else None), only is not None)


def _only_order(traced: Any, out: Sequence[Any], holomorphic: bool) -> Kind | None:
    """The one order in which JAX differentiates this function, if there is but one."""
    if has_custom_vjp(traced.jaxpr):
        return "reverse"
    complex_out = any(jnp.issubdtype(o.dtype, jnp.complexfloating) for o in out)
    return "forward" if not reversible(traced.jaxpr) or (complex_out and not holomorphic) else None


def _reverse(problem: Problem, has_aux: bool) -> Accumulated | None:
    """The reverse sweep, or None where JAX cannot reverse this function or it would not fit."""
    try:
        return _sweep(problem, has_aux, True)
    except (NotReversibleError, MemoryLimitError):
        return None


def _primal(problem: Problem, has_aux: bool) -> tuple[Any, list[Any]]:
    function, _ = flat_output(problem, has_aux)
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in problem.leaves]
    return jax.make_jaxpr(named_as(problem.f, lambda *x: function(*x)[0]), return_shape=True)(*shapes)


def _require_real_outputs(problem: Problem, has_aux: bool) -> None:
    if any(jnp.issubdtype(o.dtype, jnp.complexfloating) for o in _primal(problem, has_aux)[1]):
        raise InputTypeError(f"{problem.what}: complex outputs of real inputs need order='forward'")
