"""A dense Jacobian in parts: so many columns, or rows, at a time, on one device or on several."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._accumulate.loop_body import planning
from chainrule._accumulate.recorded import Accumulated, entries
from chainrule._blocks.block import Block
from chainrule._errors import MemoryLimitError
from chainrule._jacobians.assembled import Assembled
from chainrule._jacobians.layout import Layout
from chainrule._memory import OF_J, require_memory
from chainrule._options import Kind
from chainrule._program import Tangent
from chainrule._propagate import require_tangent, sweep
from chainrule._space import Space, promoted, space_of
from chainrule._trace import Problem, flat_output, no_forward_program, no_reverse_program

if TYPE_CHECKING:
    from chainrule._mesh import Split


def largest_chunks(problem: Problem, has_aux: bool, order: Kind, split: Split | None) -> Accumulated:
    size = 1024
    while True:
        try:
            return in_chunks(problem, has_aux, order, size, split)
        except MemoryLimitError:
            if size == 1:
                raise
            size //= 2


def in_chunks(problem: Problem, has_aux: bool, order: Kind, size: int | None, split: Split | None) -> Accumulated:
    """A dense Jacobian, `size` columns (or rows) at a time (None: all): each chunk is one step of a loop.

    With `split`, each device has columns that lie side by side, and computes its share of every chunk.
    """
    function, found = flat_output(problem, has_aux)
    with no_forward_program(problem.what, "order='reverse'"), no_reverse_program(problem.what):
        if order == "reverse":
            y, run, aux = jax.vjp(function, *problem.leaves, has_aux=True)
        else:
            y, run, aux = jax.linearize(function, *problem.leaves, has_aux=True)
    columns, rows = space_of(problem.tree, problem.leaves, problem.f), space_of(found["tree"], y, problem.f)
    seeded, other = (rows, columns) if order == "reverse" else (columns, rows)
    shapes = [jax.ShapeDtypeStruct(s, d) for s, d in zip(seeded.shapes, seeded.dtypes, strict=True)]
    closed = jax.make_jaxpr((lambda *t: run(list(t))) if order == "reverse" else run)(*shapes)
    devices, most, dtype = split.devices if split else 1, max(seeded.size, 1), promoted(*other.dtypes)
    share = -(-min(size or most, most) // devices)  # of a chunk
    size = share * devices
    count, part = -(-seeded.size // size), Space(jax.tree.structure(0), ((size,),), (dtype,))
    first = (np.arange(devices)[:, None] * count * share + np.arange(share)).reshape(-1).astype(np.int32)
    require_memory(f"{problem.what}: J", (other.size, count * size), dtype.itemsize, OF_J)
    spent: list[Any] = []

    def one(start: Any) -> Any:
        values, context = sweep(
            problem.what, closed.jaxpr, closed.consts, _chunk_of_seeds(seeded, first + start, split), planning(())
        )
        spent[:] = [context]
        last = zip(values, other.shapes, other.dtypes, strict=True)
        blocks = entries([require_tangent(*parts) for parts in last], other)
        dense = Assembled.of(Layout(other, part, (), dtype), blocks).dense()
        return split(dense) if split else dense

    chunks = jax.lax.map(one, jnp.arange(count, dtype=jnp.int32) * np.int32(share))  # [chunks, swept, size]
    # [chunks, swept, size] -> [swept, devices, chunks, share] -> [swept, seeded]
    dense = jnp.moveaxis(chunks.reshape(count, other.size, devices, share), 0, 2).reshape(other.size, count * size)
    dense = (split(dense) if split else dense)[:, : seeded.size]
    cost, general = (spent[0].cost * count, tuple(spent[0].fallbacks)) if spent else (0, ())
    layout = Layout(rows, columns, (), dtype, order == "reverse", order, cost, general)
    every = np.arange(seeded.size, dtype=np.int32)[None]
    whole = [(0, Block((other.size,), every, dense))] if dense.size else []
    return Accumulated(jax.tree.unflatten(found["tree"], y), aux, Assembled.of(layout, whole))


def _chunk_of_seeds(space: Space, columns: Any, split: Split | None) -> list[Tangent]:
    """These columns of the identity, zeros where there is none, as columns 0 … size − 1."""
    size = columns.shape[0]
    seeds = []
    for shape, offset, dtype in zip(space.shapes, space.offsets, space.dtypes, strict=True):
        own = offset + np.arange(math.prod(shape), dtype=np.int32).reshape((*shape, 1))
        every = np.arange(size, dtype=np.int32).reshape((*[1] * len(shape), size))
        vals = (own == columns.reshape(every.shape)).astype(dtype)
        vals = split(vals) if split else vals
        seeds.append(Tangent(shape, dtype, () if 0 in shape else (Block(shape, every, vals),)))
    return seeds
