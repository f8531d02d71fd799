"""Loops whose step weighs neighbours at fixed distances: the weights of all steps first, then the weighted sums.

Taken through its equations one by one, a step of a loop costs as many passes over the wide values of the carry as it
has equations. Its own Jacobian is narrow, so it is cheaper to find this first, and then to multiply by it, where the
product is a sum of shifts: new[i, t] = sum over taps of weight[i] * old[i + distance, t - shift].
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._blocks.block import Block, compressed, masked, taken_once
from chainrule._program import Tangent, Value, as_jax
from chainrule._rules.reach import blocks_of, position
from chainrule._rules.step import Step
from chainrule._rules.virtual import Virtual

_TAPS = 32  # more terms than this in one sum are compiled slowly, and save no passes
_ZERO = -2  # the column of what lies outside: no column, and its values are zeros


@dataclass(frozen=True)
class Tap:
    """One term: the part `source` of the carry, moved by `distance` along the rows, is added to the part `target`.

    Along an axis that `wraps`, the neighbour of the last row is the first one.
    """

    source: int
    wraps: tuple[bool, ...]
    distance: tuple[int, ...]
    target: int


@dataclass(frozen=True)
class Stencil:
    """The steps of a loop as weighted sums of neighbours.

    `weights` holds [time, *rows or 1s] for each tap, zero where there is no such neighbour.
    """

    taps: list[Tap]
    weights: list[Any]

    def shifts(self, old: Sequence[Any], new: Sequence[Any]) -> tuple[list[int], bool] | None:
        """How far the columns of each tap move along the slots; None where these do not move alike in all rows.

        And whether what is absent meets only what is absent; else it must be zero.
        """
        found = [f for t in self.taps if (f := _shift(t, old[t.source], new[t.target])) is not None]
        return ([s for s, _ in found], all(apart for _, apart in found)) if len(found) == len(self.taps) else None

    def advance(
        self, state: Sequence[Any], weights: Sequence[Any], shifts: list[int], full: Sequence[Any]
    ) -> list[Any]:
        """The numbers of the carry after a step, [*rows, slots] of shape `full`; see `shifts` for `state`."""
        new: list[Any] = [None] * len(full)
        terms = sorted(zip(self.taps, weights, shifts, strict=True), key=_kind)
        for (target, source, wraps), group in itertools.groupby(terms, key=_kind):
            own = list(group)
            moves = np.array([[*t.distance, -shift] for t, _, shift in own])
            total = _sum_of(state[source], [w for _, w, _ in own], moves, wraps, full[target])
            new[target] = total if new[target] is None else new[target] + total
        pairs = zip(new, full, state, strict=True)
        return [jnp.zeros(f, s.dtype) if n is None and f is not None else n for n, f, s in pairs]


def _kind(term: tuple[Tap, Any, int]) -> tuple[int, int, tuple[bool, ...]]:
    return term[0].target, term[0].source, term[0].wraps


def _sum_of(old: Any, weights: list[Any], moves: np.ndarray, wraps: tuple[bool, ...], full: tuple[int, ...]) -> Any:
    wider = [n - own for n, own in zip(full, old.shape, strict=True)]
    low, high = np.maximum(-moves.min(axis=0), 0), np.maximum(moves.max(axis=0) + wider, 0)
    padded = _padded(old, list(zip(low.tolist(), high.tolist(), strict=True)), wraps)
    total: Any = 0
    for weight, start in zip(weights, moves + low, strict=True):
        total = total + weight[..., None] * jax.lax.slice(padded, start.tolist(), (start + full).tolist())
    return total


def _padded(a: Any, margin: list[tuple[int, int]], wraps: tuple[bool, ...]) -> Any:
    """Neighbours that lie outside: zeros, or the rows of the other end."""
    for k, wrap in enumerate(wraps):
        if wrap:
            (low, high), n = margin[k], a.shape[k]
            margin[k] = (0, 0)
            ends = [jax.lax.slice_in_dim(a, n - low, n, axis=k), a, jax.lax.slice_in_dim(a, 0, high, axis=k)]
            a = jnp.concatenate(ends, axis=k)
    return jnp.pad(a, margin)


def stencil_of(step: Step, virtual: Virtual) -> Stencil | None:
    """The steps of a loop as weighted sums of neighbours, where they are, and where that is cheaper."""
    carried, starts = len(step.carry), step.starts
    if not step.heavy or "coefficient" in step.kinds or taps_of(step.outs[:carried], starts) is None:
        return None
    dtypes = {v.dtype for kind, v in zip(step.kinds, step.carry, strict=True) if kind == "tangent"}
    if len(dtypes) != 1 or any(jnp.issubdtype(d, jnp.complexfloating) for d in dtypes):
        return None  # a step may be linear over the reals alone, where no number weighs a complex one
    taps: list[Tap] | None = None
    cost = step.context.cost

    def one(slices: Any) -> Any:
        nonlocal taps
        step.context.cost = cost
        outs = step.local([*step.consts, *step.carry, *virtual.at(slices)])[:carried]
        taps = taps_of(outs, starts)
        return weights_of(outs)

    # written first: XLA would find weights that only a sum reads anew for every slot of it
    weights = [taken_once(w) for w in jax.vmap(one, axis_size=virtual.length)(virtual.scanned)]
    step.context.cost = cost + virtual.length * (step.context.cost - cost)
    return None if taps is None else Stencil(taps, weights)


def weights_of(outs: Sequence[Value]) -> list[Any]:
    """The numbers [*rows or 1s] of every slot that is present anywhere, zero where it is absent."""
    return [_weight(*slot) for out in outs for slot in _slots(out)]


def taps_of(outs: Sequence[Value], starts: Mapping[int, tuple[int, tuple[int, ...]]]) -> list[Tap] | None:
    """The tap of every slot of the new carry; None if the distance of one is not fixed.

    starts : of each part of the old carry its first column, and its shape.
    """
    taps: list[Tap] = []
    for target, out in enumerate(outs):
        for cols, _, _ in _slots(out):
            source = _part_of(int(cols.max()), starts)
            if source is None or starts[source][1] != cols.shape or len(taps) == _TAPS:
                return None
            there, present = cols - starts[source][0], cols >= 0
            found = None if (there[present] < 0).any() else _distance(there, present, cols.shape)
            if found is None:
                return None
            taps.append(Tap(source, found[1], found[0], target))
    return taps


def _part_of(column: int, starts: Mapping[int, tuple[int, tuple[int, ...]]]) -> int | None:
    """The part of the old carry whose column this is; None for one of a constant or of an input."""
    inside = (k for k, (first, shape) in starts.items() if 0 <= column - first < math.prod(shape))
    return next(inside, None)


def _slots(out: Value) -> list[tuple[np.ndarray, Block, int]]:
    """The columns [*rows] of every slot that is present anywhere, and which slot of which block it is."""
    found = []
    for b in blocks_of(out) if isinstance(out, Tangent) else ():
        for q in range(b.slots):
            cols = np.broadcast_to(b.cols[..., min(q, b.cols.shape[-1] - 1)], b.shape)
            if (cols >= 0).any():
                found.append((cols, b, q))
    return found


def _weight(cols: np.ndarray, b: Block, q: int) -> Any:
    return masked(as_jax(b.vals)[..., min(q, b.vals.shape[-1] - 1)], compressed(cols >= 0))


def _distance(
    there: np.ndarray, present: np.ndarray, shape: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[bool, ...]] | None:
    """How far the flat number `there` lies from its row on each axis, and whether it passes over the end."""
    distance, wraps = list[int](), list[bool]()
    others = np.unravel_index(there[present], shape) if shape else ()
    for n, here, other in zip(shape, np.nonzero(present) if shape else (), others, strict=True):
        apart = other - here
        wrap = bool((apart != apart[0]).any())
        if wrap:
            apart = (apart + n // 2) % n - n // 2
        if (apart != apart[0]).any() or (wrap and not present.all()):
            return None
        distance.append(int(apart[0]))
        wraps.append(wrap)
    return tuple(distance), tuple(wraps)


def _shift(tap: Tap, old: np.ndarray, new: np.ndarray) -> tuple[int, bool] | None:
    """How far a neighbour's columns move along the slots, and whether absent ones meet absent ones."""
    shape = np.broadcast_shapes(old.shape[:-1], new.shape[:-1])
    width, wide = old.shape[-1], new.shape[-1]
    moved = np.broadcast_to(old, (*shape, width))
    for k, (d, wrap) in enumerate(zip(tap.distance, tap.wraps, strict=True)):
        if shape[k] == 1 or not d:
            continue
        moved = np.roll(moved, -d, axis=k)
        if not wrap:
            outside = [slice(None)] * moved.ndim
            outside[k] = slice(max(shape[k] - d, 0), None) if d > 0 else slice(0, -d)
            moved[tuple(outside)] = _ZERO
    spot = position(moved, new, shape)
    apart = (spot - np.arange(width))[spot >= 0]
    if len(apart) and (apart != apart[0]).any():
        return None
    shift = int(apart[0]) if len(apart) else 0
    first, last = max(shift, 0), min(wide, width + shift)
    absent = moved[..., first - shift : last - shift] == -1
    return shift, not (absent & (new[..., first:last] >= 0)).any()
