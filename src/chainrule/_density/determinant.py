"""The determinant of a linear program, link by link: no product of links is formed, and of a link only its blocks.

Wherever the arrays that are alive hold as many numbers as the inputs, the program falls into two square maps, and the
determinant is the product of theirs. A single array that every path passes through is such a place, and so are two
halves that a flow carries side by side, or what it has put out already beside what it goes on with.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._accumulate.loop_body import planning
from chainrule._accumulate.narrow import split_at_both_ends
from chainrule._density.diagonal import Form, blocks_of, patterns, space_of_arrays
from chainrule._jacobians.low_rank import LowRankUpdate
from chainrule._jax import dependent, scan_counts
from chainrule._linalg.host import parity
from chainrule._linear import LinearProgram, Step, record, section
from chainrule._plan.local import local
from chainrule._program import Coefficient, Linear, as_jax
from chainrule._space import promoted

_DENSE = 16  # rows of a block, from which on it may be a sparse map and one of low rank


@dataclass(frozen=True, eq=False)
class Link:
    """The part of a program between two places where as many numbers are alive as there are inputs.

    kind : 'moves' numbers, 'scales' them, 'mixes' them, or is a 'loop' whose steps are links of their own.
    """

    start: tuple[Linear, ...]
    stop: tuple[Linear, ...]
    steps: tuple[Step, ...]
    kind: str

    @property
    def program(self) -> LinearProgram:
        """The link as a program of its own."""
        return section(self.steps, self.start, self.stop)


def links_of(program: LinearProgram) -> list[Link]:
    """The links of a square program, in order; those that only move numbers join the next one, or the last."""
    links: list[Link] = []
    for (i, start), (j, stop) in pairwise(places_of(program)):
        steps = program.steps[i:j]
        own = Link(start, stop, steps, "loop" if _is_loop(start, stop, steps) else _kind(steps))
        last = links[-1] if links else None
        kinds = {own.kind, last.kind} if last else set()
        if last and "loop" not in kinds and ("moves" in kinds or kinds == {"scales"}):
            kind = own.kind if last.kind == "moves" else last.kind
            links[-1] = Link(last.start, stop, (*last.steps, *steps), kind)
        else:
            links.append(own)
    return links


def places_of(program: LinearProgram) -> Iterator[tuple[int, tuple[Linear, ...]]]:
    """(number of steps before it, arrays that are alive there), from the inputs to the outputs."""
    steps, last = program.steps, dict[int, int]()
    for n, step in enumerate(steps):
        last.update((id(v), n) for v in step.sources)
    last.update((id(v), len(steps)) for v in program.targets)
    n = sum(v.size for v in program.inputs)
    alive = {id(v): v for v in program.inputs if v.size}
    yield 0, program.inputs
    for k, step in enumerate(steps[:-1]):
        alive.update((id(v), v) for v in step.outs if v.size and id(v) in last)
        for v in step.sources:
            if last[id(v)] == k:
                alive.pop(id(v), None)
        arrays = tuple(alive.values())
        if sum(v.size for v in arrays) == n and all(np.dtype(v.dtype).kind == "f" for v in arrays):
            yield k + 1, arrays
    yield len(steps), program.targets


def _kind(steps: Sequence[Step]) -> str:
    kinds = {_kind_of(step) for step in steps}
    return next((kind for kind in ("mixes", "scales") if kind in kinds), "moves")


def _kind_of(step: Step) -> str:
    """Whether some result is more than one entry for each number, or more than ones."""
    scales = False
    for r, out in enumerate(step.outs):
        linear = [(k, v.size) for k, v in enumerate(step.operands) if isinstance(v, Linear)]
        terms = [(t, size) for k, size in linear for t in local(step.equation, step.operands, k, r).terms]
        if sum(t.nnz for t, _ in terms) > out.size or any(t.nnz > size for t, size in terms):
            return "mixes"
        scales = scales or any(not t.unit for t, _ in terms)
    return "scales" if scales else "moves"


def _is_loop(start: Sequence[Linear], stop: Sequence[Linear], steps: Sequence[Step]) -> bool:
    """Whether it is one loop that carries all that there is from the start to the stop, and takes nothing else."""
    if len(steps) != 1 or steps[0].equation.primitive.name != "scan" or not steps[0].equation.params["length"]:
        return False
    (step,), (consts, carried) = steps, scan_counts(steps[0].equation)
    linear = [isinstance(v, Linear) for v in step.operands]
    outs = [v for v, own in zip(step.outs, linear[consts:], strict=False) if own]
    inside = not any(linear[:consts]) and not any(linear[consts + carried :])
    kept = dependent(step.equation, linear)[:carried] == linear[consts : consts + carried]
    return inside and kept and _same(step.sources, start) and _same(outs, stop)


def _same(some: Sequence[Linear], others: Sequence[Linear]) -> bool:
    return len(some) == len(others) and {id(v) for v in some} == {id(v) for v in others}


def _turned(arrays: Sequence[Linear], others: Sequence[Linear]) -> int:
    """The sign of the permutation between two orders of the same arrays, laid flat."""
    starts = dict(zip(map(id, others), np.cumsum([0, *[v.size for v in others]]), strict=False))
    return parity(np.concatenate([starts[id(v)] + np.arange(v.size) for v in arrays]))


def slogdet_of(program: LinearProgram) -> tuple[Any, Any] | None:
    """Sign and log |det| of a square program, None where its zeros alone make it singular."""
    dtype = promoted(*[v.dtype for v in (*program.inputs, *program.outputs)])
    targets = program.targets
    if len({id(v) for v in targets}) < len(program.outputs):  # an output that is zero, or is there twice
        return None
    real = jnp.finfo(dtype).dtype
    signs, logs = [jnp.ones((), dtype)], [jnp.zeros((), real)]
    for link in links_of(program) if program.steps else [Link(program.inputs, targets, (), "moves")]:
        found = _loop(link) if link.kind == "loop" else _slogdet(link.program)
        if found is None:
            return None
        sign, log = found
        signs.append(sign.astype(dtype))
        logs.append(log.astype(real))
    return math.prod(signs), sum(logs)


def _slogdet(program: LinearProgram) -> tuple[Any, Any] | None:
    columns, rows = space_of_arrays(program.inputs), space_of_arrays(program.targets)
    places, met = patterns(program, rows, columns)
    form, n = Form.of(places), rows.size
    if form is None:
        return None
    if form.largest >= _DENSE and 2 * form.largest > n:
        found = split_at_both_ends(planning(()), program, rows, columns)
        if found is not None:
            return _of_low_rank(*found)
    return blocks_of(planning(()), program, form, met, rows, columns)._slogdet()


def _of_low_rank(A: Any, U: Any, C: Any, V: Any) -> tuple[Any, Any]:
    """Of A + U C V. Where A is a permutation with signs: det A · det(I + (V A⁻¹ U) C), of which C alone may vary."""
    known = A._layout.places.values
    if C is None or known is None or not (abs(known) == 1).all():
        return LowRankUpdate(A, U if C is None else U @ C, V)._slogdet()
    W = A._by_factors(A._eliminated(), U.T, False).T
    (sign, log), small = A._slogdet(), (V @ W) @ C
    s, more = jnp.linalg.slogdet(jnp.eye(len(small), dtype=small.dtype) + small)
    return sign * s, log + more


def _loop(link: Link) -> tuple[Any, Any] | None:
    """The product over the steps of a loop."""
    (step,) = link.steps
    eqn, operands = step.equation, step.operands
    (a, b), closed = scan_counts(eqn), eqn.params["jaxpr"]
    linear = [isinstance(v, Linear) for v in operands[a : a + b]]
    start = [as_jax(v.value) for v in operands[a : a + b] if isinstance(v, Coefficient)]

    def body(carry: list[Any], slices: list[Any]) -> Any:
        left = iter(carry)
        seeds = [Linear(v.shape, v.dtype) if own else Coefficient(next(left))
                 for v, own in zip(operands[a : a + b], linear, strict=True)]  # fmt: skip
        inputs = [*operands[:a], *seeds, *map(Coefficient, slices)]
        values, steps = record(closed.jaxpr, closed.consts, inputs)
        sources = [v for v in seeds if isinstance(v, Linear)]
        outs = [v for v, own in zip(values, linear, strict=False) if own]
        known = [v for v, own in zip(values, linear, strict=False) if not own]
        after = [as_jax(v.value) for v in known if isinstance(v, Coefficient)]
        return after, slogdet_of(section(steps, sources, outs))

    xs = [as_jax(v.value) for v in operands[a + b :] if isinstance(v, Coefficient)]
    length = eqn.params["length"]
    _, found = jax.lax.scan(body, start, xs, length, reverse=eqn.params["reverse"])
    if found is None:  # from a body that is singular, which is run at least once
        return None
    signs, logs = found
    outs = [v for v, own in zip(step.outs, linear, strict=False) if own]
    return jnp.prod(signs) * (_turned(step.sources, link.start) * _turned(outs, link.stop)), jnp.sum(logs)
