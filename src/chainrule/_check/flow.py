"""An array on its way through a program, with its tangents: what one equation makes of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from chainrule._jax import has_custom_vjp

NOISE = 3  # the last rows of the tangents: rounding errors
# what JAX raises where it has no reverse derivative: a loop of unknown length, a rule that is not linear
IRREVERSIBLE = (TypeError, ValueError, NotImplementedError, AssertionError)

Path = tuple[int, ...]  # the place of an equation: its number, and within its jaxpr the number of the next


class Flow(NamedTuple):
    """An array, its tangents [rows, *shape] (None where it does not depend on x), and the comparisons it comes of."""

    value: Any
    tangents: Any = None
    origins: frozenset[Path] = frozenset()


class Reading(NamedTuple):
    """What was read at one equation; of several steps of a loop, the one with the smallest `near` is kept."""

    near: Any
    numbers: Any
    steps: Any  # of the loops around it, the outermost first


Readings = dict[tuple[Path, str], Reading]


def inexact(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.inexact)


def signs(like: Any, salt: int) -> Any:
    """−1 and 1 without pattern, [NOISE, *shape]: hashed positions, which compile faster than a random generator."""
    size = NOISE * math.prod(jnp.shape(like))
    xp: Any = np if size <= 4096 else jnp  # a constant compiles faster still
    k = xp.arange(size, dtype=np.uint32) + np.uint32(salt * 40503 % 2**31)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        k = (k ^ (k >> np.uint32(shift))) * np.uint32(factor)
    dtype = jnp.finfo(jnp.result_type(like)).dtype
    return (1 - 2 * ((k >> np.uint32(16)) & np.uint32(1)).astype(dtype)).reshape((NOISE, *jnp.shape(like)))


def push(run: Callable[..., Any], values: Sequence[Any], tangents: Sequence[Any]) -> list[Any]:
    """The tangents of the inexact results, row by row; None where no operand has any."""
    live = [k for k, t in enumerate(tangents) if t is not None]
    kept = [inexact(o) for o in jax.eval_shape(run, *values)]
    if not live or not any(kept):
        return [None] * len(kept)
    forward = forward_of(of_operands(run, values, live), [values[k] for k in live])
    rows = iter(_rows(forward, [tangents[k] for k in live]))
    return [next(rows) if own else None for own in kept]


def of_operands(run: Callable[..., Any], values: Sequence[Any], live: Sequence[int]) -> Callable[..., list[Any]]:
    """The inexact results as a function of some of the operands."""

    def of(*xs: Any) -> list[Any]:
        full = list(values)
        for k, x in zip(live, xs, strict=True):
            full[k] = x
        return [o for o in run(*full) if inexact(o)]

    return of


def forward_of(of: Callable[..., list[Any]], primal: Sequence[Any]) -> Callable[..., list[Any]]:
    """One tangent to that of the results; where there is no forward rule, by the reverse one.

    That is transposed, and where it has no transpose (a loop of unknown length, or steps that are not linear), it is
    taken for one number of the results after the other.
    """
    primal, like = tuple(primal), jax.eval_shape(of, *primal)

    def forward(*ts: Any) -> list[Any]:
        return jax.jvp(of, primal, ts)[1]

    def twice(*ts: Any) -> list[Any]:
        pull = jax.vjp(of, *primal)[1]
        return jax.linear_transpose(pull, like)(tuple(ts))[0]

    def by_rows(*ts: Any) -> list[Any]:
        pull = jax.vjp(of, *primal)[1]
        none = [jnp.zeros(o.shape, o.dtype) for o in like]

        def slope(k: int, row: Any) -> Any:
            seeds = [*none[:k], none[k].at[jnp.unravel_index(row, like[k].shape)].set(1), *none[k + 1 :]]
            return sum((jnp.vdot(g, t) for g, t in zip(pull(seeds), ts, strict=True)), jnp.zeros(()))

        found = [lax.map(functools.partial(slope, k), jnp.arange(o.size)) for k, o in enumerate(like)]
        return [s.reshape(o.shape).astype(o.dtype) for s, o in zip(found, like, strict=True)]

    shapes = [jax.ShapeDtypeStruct(jnp.shape(p), jnp.result_type(p)) for p in primal]
    if not has_custom_vjp(jax.make_jaxpr(of)(*shapes).jaxpr):
        return forward
    try:
        jax.eval_shape(twice, *shapes)
    except IRREVERSIBLE:
        return by_rows
    return twice


def _rows(run: Callable[..., Any], tangents: Sequence[Any]) -> Any:
    try:
        return jax.vmap(run)(*tangents)
    except NotImplementedError:  # a primitive that has no batched form
        return lax.map(lambda ts: run(*ts), tuple(tangents))
