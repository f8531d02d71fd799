"""Loops and branches of the forward Laplacian: value, Jacobian and Laplacian are carried side by side.

Columns must not change from step to step: those of the carry are grown until one more step adds none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._blocks.block import Block, densify
from chainrule._jax import as_callable, dependent, scan_counts
from chainrule._laplacian.forward import LOOPS, Curved, Value, laplacians, value_of
from chainrule._laplacian.gram import in_columns
from chainrule._program import Coefficient, Context, Tangent, as_jax

_OWN_COLUMNS = 3  # steps for which rows keep columns of their own; after these, all rows have the same


@dataclass(frozen=True, eq=False)
class _Place:
    """What an array is carried as: its value alone, or its Jacobian in these columns and its Laplacian with it."""

    varies: bool
    second: bool = True
    cols: np.ndarray | None = None  # None: its Jacobian vanishes

    def numbers(self, v: Value) -> list[Any]:
        """The value as a list of arrays."""
        own = [as_jax(value_of(v).value)]
        if not self.varies:
            return own
        shape, dtype = own[0].shape, own[0].dtype
        J, lap = (v.jacobian, v.laplacian) if isinstance(v, Curved) else (Tangent(shape, dtype, ()), None)
        own.append(jnp.zeros(shape, dtype) if lap is None else lap)
        return own if self.cols is None else [*own, in_columns(J, self.cols)]

    def value(self, numbers: Sequence[Any]) -> Value:
        """The array of these numbers."""
        value = Coefficient(numbers[0])
        if not self.varies:
            return value
        shape, dtype = tuple(numbers[0].shape), numbers[0].dtype
        blocks = () if self.cols is None else (Block(shape, self.cols, numbers[2]),)
        return Curved(value, Tangent(shape, dtype, blocks), numbers[1] if self.second else None, self.second)


def _joined(place: _Place, v: Value, together: bool) -> _Place:
    """The place of an array that may be this, too; `together`: with the same columns in all rows."""
    if not isinstance(v, Curved):
        return place
    blocks = [b for b in v.jacobian.filled().blocks if (b.cols >= 0).any()]
    own = replace(place, varies=True, second=(place.second and place.varies) or v.second)
    if not blocks:
        return own
    if place.cols is not None:
        blocks.append(Block(blocks[0].shape, place.cols, np.zeros((1,) * place.cols.ndim)))
    axes = [k for k in range(len(blocks[0].shape)) if together or all(b.cols.shape[k] == 1 for b in blocks)]
    return replace(own, cols=_columns(blocks, axes))


def _columns(blocks: Sequence[Block], axes: Sequence[int]) -> np.ndarray:
    """The columns of a sum of blocks, each of them once in a row, and the same along the axes."""
    known = [Block(b.shape, b.cols, np.zeros((1,) * b.cols.ndim)) for b in blocks]
    return densify([*known, known[0]], axes).cols  # of one block alone `densify` leaves columns that repeat


def _same(a: _Place, b: _Place) -> bool:
    if (a.varies, a.second, a.cols is None) != (b.varies, b.second, b.cols is None):
        return False
    return a.cols is None or b.cols is None or (a.cols.shape == b.cols.shape and np.array_equal(a.cols, b.cols))


def _settled(entering: Sequence[Value], step: Callable[[list[Value]], list[Value]]) -> list[_Place]:
    """The places of a carry: those of what enters, grown by what a step makes of them until they stay."""
    places = [_joined(_Place(False, False), v, False) for v in entering]
    shapes = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in map(value_of, entering)]
    turn = 0
    while not all(map(_same, places, grown := _joined_by(places, shapes, step, turn >= _OWN_COLUMNS))):
        places, turn = grown, turn + 1
    return places


def _joined_by(
    places: Sequence[_Place], shapes: Sequence[Any], step: Callable[[list[Value]], list[Value]], together: bool
) -> list[_Place]:
    grown: list[_Place] = []

    def trace() -> None:  # nothing of this is run
        given = [
            p.value(p.numbers(Coefficient(jnp.zeros(s.shape, s.dtype)))) for p, s in zip(places, shapes, strict=True)
        ]
        outs = step(given)
        grown[:] = [_joined(_joined(p, g, together), o, together) for p, g, o in zip(places, given, outs, strict=True)]

    jax.eval_shape(trace)
    return grown


def _split(flat: Sequence[Any], places: Sequence[_Place]) -> list[Value]:
    left = iter(flat)
    return [p.value([next(left) for _ in range(_count(p))]) for p in places]


def _count(p: _Place) -> int:
    return 1 if not p.varies else 2 if p.cols is None else 3


def _flat(values: Sequence[Value], places: Sequence[_Place]) -> list[Any]:
    return [x for p, v in zip(places, values, strict=True) for x in p.numbers(v)]


def _entering(values: Sequence[Value]) -> list[Value]:
    """What waits to be taken is taken here: within the trace of a body it would be kept for use outside of it."""
    return [replace(v, jacobian=_plain(v.jacobian)) if isinstance(v, Curved) else v for v in values]


def _plain(J: Tangent) -> Tangent:
    return Tangent(J.shape, J.dtype, J.filled().blocks)


def _anew(values: Sequence[Value]) -> list[Value]:
    """The same without what was found out about them: in another trace it does not hold."""
    return [replace(v, scaled=None, _known=[]) if isinstance(v, Curved) else v for v in values]


def scan(context: Context, eqn: Any, values: list[Value]) -> list[Value]:
    """One loop over values, Jacobians and Laplacians; one without a carry that varies is a batch of its steps."""
    a, b = scan_counts(eqn)
    carried = dependent(eqn, [isinstance(v, Curved) for v in values])[:b]
    if not any(carried):
        return _mapped(context, eqn, values)
    values = _entering(values)
    body, consts, carry, xs = eqn.params["jaxpr"], values[:a], values[a : a + b], values[a + b :]
    stacked = [_over_time(v) for v in xs]

    def step(given: Sequence[Value], slices: Sequence[Any]) -> list[Value]:
        own = _split(slices, [p for p, _ in stacked])
        return laplacians(context, body.jaxpr, body.consts, [*_anew(consts), *given, *own])

    first = [x[0] if len(x) else jnp.zeros(x.shape[1:], x.dtype) for _, s in stacked for x in s]
    places = _settled(carry, lambda given: step(given, first)[:b])
    ys: list[_Place] = []

    def one(state: Any, slices: Any) -> Any:
        outs = step(_split(state, places), slices)
        ys[:] = [_joined(_Place(False, False), v, False) for v in outs[b:]]
        return _flat(outs[:b], places), _flat(outs[b:], ys)

    cost = context.cost
    over = [x for _, s in stacked for x in s]
    end, rows = jax.lax.scan(
        one, _flat(carry, places), over, length=eqn.params["length"], reverse=eqn.params["reverse"]
    )
    context.cost += (context.cost - cost) * (eqn.params["length"] - 1)
    rows = iter(rows)
    return [*_split(end, places), *[_of_all_times(p, [next(rows) for _ in range(_count(p))]) for p in ys]]


def _over_time(v: Value) -> tuple[_Place, list[Any]]:
    """What is sliced along its first axis: the place of a slice, whose columns are the same at all times."""
    if not isinstance(v, Curved):
        return _Place(False), [as_jax(v.value)]
    place = _joined(_Place(True, v.second), v, False)
    if place.cols is None:
        return place, place.numbers(v)
    cols = place.cols
    if cols.shape[0] > 1:
        cols = _columns([Block(v.jacobian.shape, cols, np.zeros((1,) * cols.ndim))], [0])
    return replace(place, cols=cols[0]), replace(place, cols=cols).numbers(v)


def _of_all_times(place: _Place, numbers: list[Any]) -> Value:
    return (place if place.cols is None else replace(place, cols=place.cols[None])).value(numbers)


def _mapped(context: Context, eqn: Any, values: list[Value]) -> list[Value]:
    """The carry does not vary: all steps at once, each with the carry that it meets."""
    (a, b), body, length = scan_counts(eqn), eqn.params["jaxpr"], eqn.params["length"]
    run = as_callable(body.jaxpr, body.consts)
    numbers = [as_jax(value_of(v).value) for v in values]
    consts, carry, xs = numbers[:a], numbers[a : a + b], numbers[a + b :]

    def keep(state: Any, x: Any) -> Any:
        return run(*consts, *state, *x)[:b], state

    end, met = jax.lax.scan(keep, carry, xs, length=length, reverse=eqn.params["reverse"])

    def rows(own: Sequence[Any], state: Sequence[Any], x: Sequence[Any]) -> Any:
        return jax.vmap(lambda state, x: run(*own, *state, *x)[b:], axis_size=length)(state, x)

    closed = jax.make_jaxpr(rows)(*[[jax.ShapeDtypeStruct(v.shape, v.dtype) for v in p] for p in (consts, met, xs)])
    given = [*values[:a], *map(Coefficient, met), *values[a + b :]]
    return [*map(Coefficient, end), *laplacians(context, closed.jaxpr, closed.consts, given)]


def while_loop(context: Context, eqn: Any, values: list[Value]) -> list[Value]:
    """One loop, that goes on as long as the values say."""
    params, values = eqn.params, _entering(values)
    tests, n = values[: params["cond_nconsts"]], params["cond_nconsts"] + params["body_nconsts"]
    consts, carry, body = values[params["cond_nconsts"] : n], values[n:], params["body_jaxpr"]
    goes_on = as_callable(params["cond_jaxpr"].jaxpr, params["cond_jaxpr"].consts)

    def step(given: Sequence[Value]) -> list[Value]:
        return laplacians(context, body.jaxpr, body.consts, [*_anew(consts), *given])

    places = _settled(carry, step)

    def going(state: Any) -> Any:
        now = [as_jax(value_of(v).value) for v in (*tests, *_split(state, places))]
        return goes_on(*now)[0]

    end = jax.lax.while_loop(going, lambda state: _flat(step(_split(state, places)), places), _flat(carry, places))
    return _split(end, places)


def cond(context: Context, eqn: Any, values: list[Value]) -> list[Value]:
    """The branch that is taken, its results in a place that those of all branches have."""
    index, *operands = _entering(values)
    branches = eqn.params["branches"]
    places = [_Place(False, False)] * len(eqn.outvars)

    def run(branch: Any) -> list[Value]:
        return laplacians(context, branch.jaxpr, branch.consts, _anew(operands))

    def trace(branch: Any) -> None:
        places[:] = [_joined(p, o, False) for p, o in zip(places, run(branch), strict=True)]

    for branch in branches:
        jax.eval_shape(lambda branch=branch: trace(branch))
    at = jnp.clip(as_jax(value_of(index).value).astype(jnp.int32), 0, len(branches) - 1)
    return _split(jax.lax.switch(at, [lambda branch=branch: _flat(run(branch), places) for branch in branches]), places)


LOOPS.update({"scan": scan, "while": while_loop, "cond": cond})
