"""What XLA on a CPU would write, or compute again, where it need not.

A batch of matrix products leaves arrays behind that are as large as the result, or larger; written and read once
each, they take longer than the products themselves. Where all of them have an axis in common with the result, a loop
over parts of this axis leaves nothing behind but the result. A person would write the same `jax.lax.map`.

What is broadcast is computed for each element of the larger array; see `once`.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from chainrule._accumulate.once import ELEMENTWISE, repeated
from chainrule._blocks.block import taken_once
from chainrule._jax import Equation, Jaxpr, Literal, as_callable, needed, resized, straight_line
from chainrule._mesh import mesh_of

_LARGE = 2**20  # bytes of an array that is worth keeping in the cache
_PART = 2**21  # bytes of the largest array of a part
_WORTH = 2**24  # bytes that are not written between the products, from which on a loop is worth it
_AROUND = 2**23  # bytes that every part reads whole, at most
_LEAST = 4  # parts


@dataclass(frozen=True)
class Region:
    """Equations that lead from small arrays to a large one, and the axis of each of their arrays that is split."""

    equations: list[Equation]
    axes: dict[Any, int]  # of the arrays that the equations make
    sliced: list[tuple[Any, int]]  # operands and their axes
    whole: list[Any]

    @property
    def root(self) -> Any:
        """The large array, which is split along its first axis."""
        return self.equations[-1].outvars[0]


def in_parts(function: Callable[..., Any], *args: Any) -> Any:
    """function(*args) of traced arguments; on one CPU large products part by part, and what is broadcast once.

    Several devices would have to exchange what a loop takes apart; a GPU has no use for small parts.
    """
    leaves, tree = jax.tree.flatten(args)
    traced = [k for k, x in enumerate(leaves) if isinstance(x, jax.core.Tracer)]
    if jax.default_backend() != "cpu" or jax.device_count() > 1 or mesh_of(leaves) is not None or not traced:
        return function(*args)

    def of_traced(*own: Any) -> Any:
        given = dict(zip(traced, own, strict=True))
        return function(*jax.tree.unflatten(tree, [given.get(k, x) for k, x in enumerate(leaves)]))

    own = [leaves[k] for k in traced]
    closed, shapes = jax.make_jaxpr(of_traced, return_shape=True)(*own)
    return jax.tree.unflatten(jax.tree.structure(shapes), run(closed.jaxpr, closed.consts, own))


def run(jaxpr: Jaxpr, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    """Run what is needed of a jaxpr, region by region and what is between them."""
    jaxpr = straight_line(jaxpr.constvars, jaxpr.invars, jaxpr.outvars, needed(jaxpr))
    found, once = regions(jaxpr), repeated(jaxpr)
    if not found and not once:
        return as_callable(jaxpr, consts)(*args)
    inside = {id(e) for region in found for e in region.equations}
    roots = {id(region.equations[-1]): region for region in found}
    used = _uses(jaxpr)
    env = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))
    between: list[Equation] = []
    for eqn in jaxpr.eqns:
        if id(eqn) in roots:
            _run_straight(between, used, env)
            between, region = [], roots[id(eqn)]
            env[region.root] = _looped(region, env)
        elif id(eqn) not in inside:
            between.append(eqn)
            if not once.isdisjoint(eqn.outvars):
                _run_straight(between, used, env)
                between, (v,) = [], eqn.outvars
                env[v] = taken_once(env[v])
    _run_straight(between, used, env)
    return [v.val if isinstance(v, Literal) else env[v] for v in jaxpr.outvars]


def _uses(jaxpr: Jaxpr) -> Counter[Any]:
    """How often each variable is taken, by an equation or as a result."""
    taken = [*(v for e in jaxpr.eqns for v in e.invars), *jaxpr.outvars]
    return Counter(v for v in taken if not isinstance(v, Literal))


def _run_straight(eqns: Sequence[Equation], used: Mapping[Any, int], env: dict[Any, Any]) -> None:
    made = [v for e in eqns for v in e.outvars if used[v]]
    operands = dict.fromkeys(v for e in eqns for v in e.invars if not isinstance(v, Literal) and v in env)
    outs = as_callable(straight_line((), list(operands), made, eqns), ())(*[env[v] for v in operands])
    env.update(zip(made, outs, strict=True))


def _looped(region: Region, env: dict[Any, Any]) -> Any:
    n, size = region.root.aval.shape[0], part_size(region)
    assert size is not None
    body = _part(region, size)

    def split(v: Any, axis: int) -> Any:
        """[..., n, ...] -> [parts, ..., size, ...]"""
        shape = v.aval.shape
        parted = env[v].reshape((*shape[:axis], n // size, size, *shape[axis + 1 :]))
        return parted.transpose((axis, *(k for k in range(len(shape) + 1) if k != axis)))

    whole = [env[v] for v in region.whole]
    parts = jax.lax.map(lambda own: body(*own, *whole)[0], [split(v, axis) for v, axis in region.sliced])
    return parts.reshape(region.root.aval.shape)


def _part(region: Region, size: int) -> Callable[..., list[Any]]:
    """The equations for a part of so many rows."""
    made = {v: resized(v, axis, size) for v, axis in region.axes.items()}
    given = {(v, axis): resized(v, axis, size) for v, axis in region.sliced}
    eqns = []
    for eqn in region.equations:
        out = eqn.outvars[0]
        axis = region.axes[out]
        operands = [
            v if isinstance(v, Literal) or k is None else made[v] if v in made else given[v, k]
            for v, k in zip(eqn.invars, _operand_axes(eqn, axis) or (), strict=True)
        ]
        eqns.append(eqn.replace(invars=operands, outvars=[made[out]], params=_params(eqn, axis, size)))
    return as_callable(straight_line((), [*given.values(), *region.whole], [made[region.root]], eqns), ())


def regions(jaxpr: Jaxpr) -> list[Region]:
    """Those that are worth a loop, the latest first; they have no equation in common."""
    if not any(map(_is_product, jaxpr.eqns)):
        return []
    uses = _uses(jaxpr)
    maker = {v: k for k, e in enumerate(jaxpr.eqns) for v in e.outvars}
    found: list[Region] = []
    taken: set[int] = set()
    for k in range(len(jaxpr.eqns))[::-1]:
        if k not in taken and any(map(_is_large, jaxpr.eqns[k].outvars)):
            region = _region(jaxpr, k, maker, uses)
            if region is not None and _is_worth(region) and part_size(region) is not None:
                found.append(region)
                taken.update(maker[v] for v in region.axes)
    return found


def _region(jaxpr: Jaxpr, root: int, maker: dict[Any, int], uses: Mapping[Any, int]) -> Region | None:
    """All that a large array is made of, as far as its first axis leads through large arrays that nothing else uses."""
    axes: dict[Any, int] = {}
    asked: dict[Any, list[int | None]] = {jaxpr.eqns[root].outvars[0]: [0]}
    equations, waiting = list[Equation](), [-root]  # the latest first: by then all that use its result have asked
    while waiting:
        k = -heapq.heappop(waiting)
        eqn = jaxpr.eqns[k]
        if len(eqn.outvars) > 1:
            continue
        out = eqn.outvars[0]
        axis, wanted = asked[out][0], asked[out]
        inside = k == root or (len(wanted) == uses[out] and set(wanted) == {axis} and _is_large(out))
        operands = _operand_axes(eqn, axis) if inside and axis is not None else None
        if operands is None:
            continue
        assert axis is not None
        axes[out] = axis
        equations.append(eqn)
        for v, own in zip(eqn.invars, operands, strict=True):
            if not isinstance(v, Literal):
                if v not in asked and v in maker:
                    heapq.heappush(waiting, -maker[v])
                asked.setdefault(v, []).append(own)
    if not equations:
        return None
    outside = {v: set(wanted) for v, wanted in asked.items() if v not in axes}
    sliced = [(v, k) for v, wanted in outside.items() for k in sorted(w for w in wanted if w is not None)]
    return Region(equations[::-1], axes, sliced, [v for v, wanted in outside.items() if None in wanted])


def _is_product(eqn: Equation) -> bool:
    """Whether it is a matrix product of large arrays: what XLA writes and reads."""
    return eqn.primitive.name == "dot_general" and any(map(_is_large, [*eqn.invars, *eqn.outvars]))


def _is_large(v: Any) -> bool:
    return _bytes(v) >= _LARGE and len(getattr(v.aval, "shape", ())) > 0


def _bytes(v: Any) -> int:
    aval = v.aval
    return math.prod(aval.shape) * aval.dtype.itemsize if hasattr(aval, "shape") and hasattr(aval, "dtype") else 0


def _is_worth(region: Region) -> bool:
    """Whether enough stands between the products; XLA writes what a product takes and gives, and hardly more."""
    if sum(_bytes(v) for v in region.whole) > _AROUND:
        return False
    products = [e for e in region.equations if e.primitive.name == "dot_general"]
    between = {v for e in products for v in (*e.invars, *e.outvars) if not isinstance(v, Literal) and v in region.axes}
    return sum(_bytes(v) for v in between - {region.root}) >= _WORTH


def part_size(region: Region) -> int | None:
    """The rows of a part, a divisor of their number; None where no division is even enough."""
    n = region.root.aval.shape[0]
    row = max(_bytes(v) for v in region.axes) // n
    fitting = max(_PART // max(row, 1), 1)
    size = next(k for k in range(min(n, fitting), 0, -1) if n % k == 0)
    return size if n // size >= _LEAST and size * 4 >= fitting else None


def _operand_axes(eqn: Equation, axis: int) -> list[int | None] | None:
    """The axis of every operand that is this axis of the result, part for part; None where an equation mixes it."""
    name = eqn.primitive.name
    if name in ELEMENTWISE:
        shape = eqn.outvars[0].aval.shape
        return [axis if v.aval.shape and v.aval.shape[axis] == shape[axis] else None for v in eqn.invars]
    return _AXES[name](eqn, axis) if name in _AXES else None


def _of_broadcast(eqn: Equation, axis: int) -> list[int | None] | None:
    (operand, *more), places = eqn.invars, list(eqn.params["broadcast_dimensions"])
    if more:
        return None
    own = places.index(axis) if axis in places else None
    return [own if own is not None and operand.aval.shape[own] != 1 else None]


def _of_reshape(eqn: Equation, axis: int) -> list[int | None] | None:
    (operand, *more), shape = eqn.invars, eqn.outvars[0].aval.shape
    own, before = operand.aval.shape, math.prod(shape[:axis])
    if more or eqn.params.get("dimensions") is not None:
        return None
    places = [k for k in range(len(own)) if own[k] == shape[axis] and math.prod(own[:k]) == before]
    return [places[0]] if len(places) == 1 else None


def _of_squeeze(eqn: Equation, axis: int) -> list[int | None]:
    kept = [k for k in range(eqn.invars[0].aval.ndim) if k not in eqn.params["dimensions"]]
    return [kept[axis]]


def _of_reduction(eqn: Equation, axis: int) -> list[int | None] | None:
    kept = [k for k in range(eqn.invars[0].aval.ndim) if k not in eqn.params["axes"]]
    return [kept[axis]]


def _of_product(eqn: Equation, axis: int) -> list[int | None]:
    (summed, batch) = eqn.params["dimension_numbers"]
    a, b = (
        [k for k in range(v.aval.ndim) if k not in (*s, *t)] for v, s, t in zip(eqn.invars, summed, batch, strict=True)
    )
    both = len(batch[0])
    if axis < both:
        return [batch[0][axis], batch[1][axis]]
    return [a[axis - both], None] if axis < both + len(a) else [None, b[axis - both - len(a)]]


_AXES: dict[str, Callable[[Equation, int], list[int | None] | None]] = {
    "broadcast_in_dim": _of_broadcast,
    "reshape": _of_reshape,
    "squeeze": _of_squeeze,
    "transpose": lambda eqn, axis: [eqn.params["permutation"][axis]],
    "reduce_sum": _of_reduction,
    "dot_general": _of_product,
    "concatenate": lambda eqn, axis: None if eqn.params["dimension"] == axis else [axis] * len(eqn.invars),
}


def _params(eqn: Equation, axis: int, size: int) -> dict[str, Any]:
    """The parameters of an equation for so many rows."""
    name = {"broadcast_in_dim": "shape", "reshape": "new_sizes"}.get(eqn.primitive.name)
    if name is None:
        return dict(eqn.params)
    shape = eqn.params[name]
    return {**eqn.params, name: (*shape[:axis], size, *shape[axis + 1 :])}
