"""Accumulate a Jacobian in one direction, or in the cheaper of the two by counted cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._assembled import Assembled
from chainrule._block import WAY_OUT, Block
from chainrule._errors import InputTypeError, MemoryLimitError, NotReversibleError
from chainrule._jacobian import Jacobian
from chainrule._jax import has_custom_vjp, walk
from chainrule._layout import Layout
from chainrule._linear import LinearProgram, push_through, record, section
from chainrule._memory import limited, require_memory
from chainrule._mixed import Mixed, seeds_of
from chainrule._plan.order import Chain, Node, chain_of
from chainrule._program import Coefficient, Context, Linear, Tangent, plain
from chainrule._propagate import pushing, require_sum, require_tangent, sweep
from chainrule._space import Space, promoted, space_of
from chainrule._trace import Problem, flat_output, linear_jaxpr, no_forward_program, no_reverse_program, require_inputs

Order = Literal["auto", "forward", "reverse"]
_TIE = 1.3  # orders whose counted costs differ by less are taken as equal; forward is kept


@dataclass(frozen=True, eq=False)
class Accumulated:
    """A function's value and auxiliary output, and its Jacobian."""

    value: Any
    aux: Any
    jacobian: Jacobian


@dataclass(frozen=True)
class Options:
    """What may be asked of an accumulation; see `chainrule.jacobian`."""

    has_aux: bool = False
    order: Order = "auto"
    holomorphic: bool = False
    chunk_size: int | Literal["auto"] | None = None
    memory_limit: int | None = None


def accumulate(problem: Problem, options: Options) -> Accumulated:
    """Accumulate within the memory that there is, in parts where that is asked for."""
    has_aux, order, holomorphic = options.has_aux, options.order, options.holomorphic
    if order not in get_args(Order):
        raise InputTypeError(f"{problem.what}: order={order!r} is not one of {', '.join(get_args(Order))}")
    require_inputs(problem, holomorphic)
    if order == "reverse" and not holomorphic:
        _require_real_outputs(problem, has_aux)
    with limited(options.memory_limit):
        if options.chunk_size is None:
            return _whole(problem, has_aux, order, holomorphic)
        if options.chunk_size != "auto":
            return in_chunks(problem, has_aux, order, holomorphic, options.chunk_size)
        try:
            return _whole(problem, has_aux, order, holomorphic)
        except MemoryLimitError:
            return _largest_chunks(problem, has_aux, order, holomorphic)


def _largest_chunks(problem: Problem, has_aux: bool, order: Order, holomorphic: bool) -> Accumulated:
    size = 1024
    while True:
        try:
            return in_chunks(problem, has_aux, order, holomorphic, size)
        except MemoryLimitError:
            if size == 1:
                raise
            size //= 2


def in_chunks(problem: Problem, has_aux: bool, order: Order, holomorphic: bool, size: int) -> Accumulated:
    """A dense Jacobian, `size` columns (or rows) at a time: each chunk is one step of a loop."""
    if order == "auto":
        traced, out = _primal(problem, has_aux)
        m, n = (sum(math.prod(a.shape) for a in arrays) for arrays in (out, problem.leaves))
        order = _only_order(traced, out, holomorphic) or ("reverse" if m < n and not holomorphic else "forward")
    function, found = flat_output(problem, has_aux)
    with no_forward_program(problem.what, "order='reverse'"), no_reverse_program(problem.what):
        if order == "reverse":
            y, run, aux = jax.vjp(function, *problem.leaves, has_aux=True)
        else:
            y, run, aux = jax.linearize(function, *problem.leaves, has_aux=True)
    columns, rows = space_of(problem.tree, problem.leaves, problem.f), space_of(found["tree"], y, problem.f)
    seeded, swept = (rows, columns) if order == "reverse" else (columns, rows)
    shapes = [jax.ShapeDtypeStruct(s, d) for s, d in zip(seeded.shapes, seeded.dtypes, strict=True)]
    closed = jax.make_jaxpr((lambda *t: run(list(t))) if order == "reverse" else run)(*shapes)
    size, dtype = min(size, max(seeded.size, 1)), promoted(*swept.dtypes)
    count, part = -(-seeded.size // size), Space(jax.tree.structure(0), ((size,),), (dtype,))
    require_memory(f"{problem.what}: J", (swept.size, count * size), dtype.itemsize, WAY_OUT)
    spent: list[Any] = []

    def one(start: Any) -> Any:
        values, context = sweep(problem.what, closed.jaxpr, closed.consts, _chunk_of_seeds(seeded, start, size))
        spent[:] = [context]
        last = zip(values, swept.shapes, swept.dtypes, strict=True)
        blocks = _entries([require_tangent(*parts) for parts in last], swept)
        return Assembled.of(Layout(swept, part, (), dtype), blocks).dense()

    chunks = jax.lax.map(one, jnp.arange(count, dtype=jnp.int32) * np.int32(size))  # [chunks, swept, size]
    dense = jnp.moveaxis(chunks, 0, 1).reshape(swept.size, count * size)[:, : seeded.size]
    cost, general = (spent[0].cost * count, tuple(spent[0].fallbacks)) if spent else (0, ())
    layout = Layout(rows, columns, (), dtype, order == "reverse", order, cost, general)
    every = np.arange(seeded.size, dtype=np.int32)[None]
    whole = [(0, Block((swept.size,), every, dense))] if dense.size else []
    return Accumulated(jax.tree.unflatten(found["tree"], y), aux, Assembled.of(layout, whole))


def _chunk_of_seeds(space: Space, start: Any, size: int) -> list[Tangent]:
    """Columns start … start + size − 1 of the identity, as columns 0 … size − 1."""
    seeds = []
    for shape, offset, dtype in zip(space.shapes, space.offsets, space.dtypes, strict=True):
        own = offset + np.arange(math.prod(shape), dtype=np.int32).reshape((*shape, 1))
        every = np.arange(size, dtype=np.int32).reshape((*[1] * len(shape), size))
        vals = (own - start == every).astype(dtype)
        seeds.append(Tangent(shape, dtype, () if 0 in shape else (Block(shape, every, vals),)))
    return seeds


def _whole(problem: Problem, has_aux: bool, order: Order, holomorphic: bool) -> Accumulated:
    """Accumulate in the order asked for. With 'auto' both are counted, one is kept; XLA never sees the other."""
    if order == "auto":
        return _cheapest(problem, has_aux, holomorphic)
    with no_forward_program(problem.what, "order='reverse' or 'auto'"):
        return _sweep(problem, has_aux, order == "reverse")


def _cheapest(problem: Problem, has_aux: bool, holomorphic: bool) -> Accumulated:
    traced, out = _primal(problem, has_aux)
    m, n = (sum(math.prod(a.shape) for a in arrays) for arrays in (out, problem.leaves))
    only = _only_order(traced, out, holomorphic)
    if only or n <= 1:
        return _sweep(problem, has_aux, only == "reverse")
    if m <= 1:
        return _reverse(problem, has_aux) or _sweep(problem, has_aux, False)
    recorded = _recorded(problem, has_aux, False)
    chain = chain_of(recorded.program)
    if chain is not None and not (node := chain.best_node).pure:
        return _carried_out(problem, recorded, chain, node)
    try:
        forward = _swept(problem, recorded)
    except MemoryLimitError:
        return _sweep(problem, has_aux, True)
    if forward.jacobian.cost <= 4 * (m + n) * max(1, len(traced.jaxpr.eqns)):
        return forward  # already within a small multiple of what the function itself costs
    reverse = _reverse(problem, has_aux)
    return reverse if reverse and reverse.jacobian.cost * _TIE < forward.jacobian.cost else forward


def _only_order(traced: Any, out: Sequence[Any], holomorphic: bool) -> Order | None:
    """The one order in which JAX differentiates this function, if there is but one."""
    if has_custom_vjp(traced.jaxpr):
        return "reverse"
    complex_out = any(jnp.issubdtype(o.dtype, jnp.complexfloating) for o in out)
    loops = any(e.primitive.name == "while" for e in walk(traced.jaxpr))
    return "forward" if loops or (complex_out and not holomorphic) else None


def _reverse(problem: Problem, has_aux: bool) -> Accumulated | None:
    """The reverse sweep, or None where JAX cannot reverse this function or it would not fit."""
    try:
        return _sweep(problem, has_aux, True)
    except (NotReversibleError, MemoryLimitError):
        return None


def _primal(problem: Problem, has_aux: bool) -> tuple[Any, list[Any]]:
    function, _ = flat_output(problem, has_aux)
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in problem.leaves]
    return jax.make_jaxpr(lambda *x: function(*x)[0], return_shape=True)(*shapes)


def _require_real_outputs(problem: Problem, has_aux: bool) -> None:
    if any(jnp.issubdtype(o.dtype, jnp.complexfloating) for o in _primal(problem, has_aux)[1]):
        raise InputTypeError(f"{problem.what}: complex outputs of real inputs need order='forward'")


@dataclass(frozen=True, eq=False)
class Recorded:
    """A function's value, and the linear program of its Jacobian (in reverse: of the transpose)."""

    value: Any
    aux: Any
    rows: Space
    columns: Space
    program: LinearProgram
    reverse: bool


def _recorded(problem: Problem, has_aux: bool, reverse: bool) -> Recorded:
    function, found = flat_output(problem, has_aux)
    closed, (y_shape, aux_shape, _) = linear_jaxpr(problem.what, function, problem.leaves, reverse)
    columns = space_of(problem.tree, problem.leaves, problem.f)
    rows = space_of(found["tree"], y_shape, problem.f)
    seeded = rows if reverse else columns
    seeds = [Linear(s, d) for s, d in zip(seeded.shapes, seeded.dtypes, strict=True)]
    values, steps = record(closed.jaxpr, closed.consts, [*map(Coefficient, problem.leaves), *seeds])
    n_y, n_aux = len(y_shape), len(jax.tree.leaves(aux_shape))
    y = jax.tree.unflatten(found["tree"], [_plain(v) for v in values[:n_y]])
    aux = jax.tree.unflatten(jax.tree.structure(aux_shape), [_plain(v) for v in values[n_y : n_y + n_aux]])
    return Recorded(y, aux, rows, columns, section(steps, seeds, values[n_y + n_aux :]), reverse)


def _plain(v: Coefficient | Linear) -> Any:
    """A value; of what depends on the tangents alone, none of which there is, zeros."""
    return plain(Tangent(v.shape, v.dtype, ()) if isinstance(v, Linear) else v)


def _sweep(problem: Problem, has_aux: bool, reverse: bool) -> Accumulated:
    """One assembled Jacobian, from the input or from the output."""
    return _swept(problem, _recorded(problem, has_aux, reverse))


def _swept(problem: Problem, recorded: Recorded) -> Accumulated:
    context = pushing()
    tangents = push_through(context, recorded.program, seeds_of(recorded.program.inputs))
    return _assembled(
        problem, recorded, context, tangents, recorded.reverse, "reverse" if recorded.reverse else "forward"
    )


def _carried_out(problem: Problem, recorded: Recorded, chain: Chain, node: Node) -> Accumulated:
    context = pushing()
    part = Mixed(context, recorded.program, chain.cuts).part(node)
    return _assembled(problem, recorded, context, part.tangents, part.flipped, "mixed")


def _assembled(
    problem: Problem, recorded: Recorded, context: Context, tangents: Sequence[Tangent], flipped: bool, order: str
) -> Accumulated:
    require_sum(problem.what, context, tangents)
    swept = recorded.columns if flipped else recorded.rows
    blocks = _entries(tangents, swept)
    dtype, general = promoted(*[t.dtype for t in tangents]), tuple(context.fallbacks)
    layout = Layout(recorded.rows, recorded.columns, (), dtype, flipped, order, context.cost, general)
    return Accumulated(recorded.value, recorded.aux, Assembled.of(layout, blocks))


def _entries(tangents: Sequence[Tangent], swept: Space) -> list[tuple[int, Block]]:
    parts = zip(tangents, swept.offsets, strict=True)
    return [(offset, b) for tangent, offset in parts for b in tangent.blocks if (b.cols >= 0).any()]
