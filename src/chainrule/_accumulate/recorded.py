"""A function's value and the linear program of its Jacobian; and the Jacobian that a sweep, or a plan, makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from chainrule._accumulate.links import push_linked
from chainrule._accumulate.loop_body import planning
from chainrule._accumulate.mixed import Mixed, Part
from chainrule._accumulate.narrow import split
from chainrule._accumulate.series import joined
from chainrule._blocks.block import Block
from chainrule._jacobians.assembled import Assembled
from chainrule._jacobians.factored import Factored
from chainrule._jacobians.jacobian import Jacobian
from chainrule._jacobians.layout import Layout
from chainrule._linear import LinearProgram, record, section, seeds_of
from chainrule._plan.node import Body, Node
from chainrule._plan.order import Chain
from chainrule._program import Coefficient, Context, Linear, Tangent, plain
from chainrule._propagate import require_sum
from chainrule._space import Space, promoted, space_of
from chainrule._trace import Problem, flat_output, linear_jaxpr


@dataclass(frozen=True, eq=False)
class Accumulated:
    """A function's value and auxiliary output, and its Jacobian."""

    value: Any
    aux: Any
    jacobian: Jacobian
    bodies: tuple[Body, ...] = ()


@dataclass(frozen=True, eq=False)
class Recorded:
    """A function's value, and the linear program of its Jacobian (in reverse: of the transpose)."""

    value: Any
    aux: Any
    rows: Space
    columns: Space
    program: LinearProgram
    reverse: bool

    def with_jacobian(self, jacobian: Jacobian, context: Context | None = None) -> Accumulated:
        """The value and auxiliary output beside the Jacobian that was made of the program."""
        return Accumulated(self.value, self.aux, jacobian, tuple(context.bodies.values()) if context else ())


def recorded_program(problem: Problem, has_aux: bool, reverse: bool) -> Recorded:
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
    return Recorded(y, aux, rows, columns, joined(section(steps, seeds, values[n_y + n_aux :])), reverse)


def _plain(v: Coefficient | Linear) -> Any:
    """A value; of what depends on the tangents alone, none of which there is, zeros."""
    return plain(Tangent(v.shape, v.dtype, ()) if isinstance(v, Linear) else v)


def swept(problem: Problem, recorded: Recorded, bodies: Sequence[Body] = ()) -> Accumulated:
    """One sweep; `bodies`: orders of the bodies of its loops, in place of the best."""
    context = planning(bodies)
    tangents = push_linked(context, recorded.program, seeds_of(recorded.program.inputs))
    spaces, order = (recorded.rows, recorded.columns), "reverse" if recorded.reverse else "forward"
    own = assembled(problem.what, context, spaces, tangents, recorded.reverse, order)
    return recorded.with_jacobian(own, context)


def carried_out(
    problem: Problem,
    recorded: Recorded,
    cuts: Sequence[tuple[Linear, ...]],
    node: Node,
    bodies: Sequence[Body] = (),
) -> Accumulated:
    """A mixed order; `bodies` as for `swept`."""
    context = planning(bodies)
    part = Mixed(context, recorded.program, cuts).part(node)
    tangents, spaces = _of_all_outputs(part, recorded), (recorded.rows, recorded.columns)
    own = assembled(problem.what, context, spaces, tangents, part.flipped, "mixed")
    return recorded.with_jacobian(own, context)


def _of_all_outputs(part: Part, recorded: Recorded) -> list[Tangent]:
    """The tangents of a part up to the outputs that depend on an input, with rows or columns for all outputs."""
    outputs, offsets = recorded.program.outputs, recorded.rows.offsets
    if not part.flipped:
        left = iter(part.tangents)
        return [next(left) if isinstance(v, Linear) else Tangent(v.shape, v.dtype, ()) for v in outputs]
    places = [offset + np.arange(v.size) for v, offset in zip(outputs, offsets, strict=True) if isinstance(v, Linear)]
    number = np.concatenate([*places, [-1]]).astype(np.int32)  # the last is that of an absent column
    return [
        Tangent(t.shape, t.dtype, tuple(Block(b.shape, number[b.cols], b.vals, b.rows) for b in t.blocks))
        for t in part.tangents
    ]


def in_one_link(problem: Problem, recorded: Recorded) -> Accumulated:
    """The Jacobian as a product of one, kept as a low-rank update where it is one."""
    found = None if recorded.reverse else split(planning(()), recorded.program, recorded.rows, recorded.columns)
    if found is not None:
        return recorded.with_jacobian(found)
    done = swept(problem, recorded)
    return replace(done, jacobian=Factored([done.jacobian]))


def in_links(problem: Problem, recorded: Recorded, chain: Chain) -> Accumulated:
    """The Jacobian as the product of its links between cuts, each of them in its cheapest order."""
    links, last = list[Jacobian](), len(chain.cuts) - 1
    for k in range(last):
        context, (start, stop) = planning(()), chain.arrays[k : k + 2]
        columns = recorded.columns if k == 0 else _space(start)
        rows = recorded.rows if k == last - 1 else _space(stop)
        found = split(context, section(recorded.program.steps, start, stop), rows, columns)
        if found is not None:
            links.append(found)
            continue
        part = Mixed(context, recorded.program, chain.arrays).part(chain.best[k, k + 1][2])
        links.append(assembled(problem.what, context, (rows, columns), part.tangents, part.flipped, "factored"))
    return recorded.with_jacobian(Factored(links[::-1]))


def _space(arrays: Sequence[Linear]) -> Space:
    (own,) = arrays
    return Space(jax.tree.structure(0), (own.shape,), (own.dtype,), "a link")


def assembled(
    what: str, context: Context, spaces: tuple[Space, Space], tangents: Sequence[Tangent], flipped: bool, order: str
) -> Assembled:
    """The Jacobian that these tangents are; spaces: of its rows, of its columns."""
    require_sum(what, context, tangents)
    rows, columns = spaces
    dtype, general = promoted(*[t.dtype for t in tangents]), tuple(context.fallbacks)
    layout = Layout(rows, columns, (), dtype, flipped, order, context.cost, general)
    return Assembled.of(layout, entries(tangents, columns if flipped else rows))


def entries(tangents: Sequence[Tangent], swept: Space) -> list[tuple[int, Block]]:
    parts = zip(tangents, swept.offsets, strict=True)
    return [(offset, b) for tangent, offset in parts for b in tangent.blocks if (b.cols >= 0).any()]
