"""The columns of what a loop, or a chain of steps, carries: one layout for the values of all steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from chainrule._blocks.block import Block, between_zeros, compressed, join, masked, place, present
from chainrule._memory import require_memory
from chainrule._program import Coefficient, Tangent, Value, as_jax
from chainrule._rules.reach import Pattern, blocks_of, position, slots_of
from chainrule._rules.virtual import Virtual


class Layout:
    """The columns of every part of a carry, and how its values are put into them.

    kinds : what each part is, see `Step`; pattern : of all rows of tangents, one under the other.
    """

    def __init__(self, kinds: Sequence[str], carry: Sequence[Value], pattern: Pattern):
        self._kinds, self._carry = kinds, carry
        self.cols: list[Any] = []
        start = 0
        for kind, v in zip(kinds, carry, strict=True):
            if kind != "tangent":
                self.cols.append(None)
                continue
            rows = pattern[start : start + math.prod(v.shape)]
            start += math.prod(v.shape)
            cols = compressed(slots_of(rows, v.shape).reshape((*v.shape, -1)), len(v.shape))
            require_memory("jacobian: a loop", (*v.shape, cols.shape[-1]), v.dtype.itemsize)
            self.cols.append(cols)

    def values(self, state: Sequence[Any]) -> list[Value]:
        """The carry, from its numbers."""
        left, out = iter(state), []
        for kind, v, cols in zip(self._kinds, self._carry, self.cols, strict=True):
            if kind == "zero":
                out.append(v)
            elif kind == "coefficient":
                out.append(Coefficient(next(left)))
            else:
                out.append(Tangent(v.shape, v.dtype, (Block(v.shape, cols, next(left)),)))
        return out

    def numbers(self, carry: Sequence[Value], virtual: Virtual | None = None, time: Any = None) -> list[Any]:
        """The numbers of the carry: coefficients as they are, tangents [*rows, columns of the layout]."""
        out = []
        for kind, own, v, cols in zip(self._kinds, self._carry, carry, self.cols, strict=True):
            if kind == "coefficient":
                assert isinstance(v, Coefficient)
                out.append(as_jax(v.value))
            elif kind == "tangent":
                out.append(self._placed(own, v, cols, virtual, time))
        return out

    def _placed(self, own: Value, v: Value, cols: np.ndarray, virtual: Virtual | None, time: Any) -> Any:
        full = (*own.shape, cols.shape[-1])
        total, rest = None, []
        for b in blocks_of(v):
            if b.cols.shape == cols.shape and np.array_equal(b.cols, cols):
                total = _plus(total, jnp.broadcast_to(as_jax(b.vals), full))
            elif virtual is not None and virtual.within(b):
                total = _plus(total, virtual.placed(b, cols, time))
            else:
                spot = position(b.cols, cols, b.shape)
                moved = _shifted(b, spot, cols.shape[-1])
                if moved is None:
                    rest.append(Block(b.shape, spot, b.vals))
                else:
                    total = _plus(total, moved)
        if rest:
            b = join(rest)
            total = _plus(total, as_jax(place(b.vals, compressed(b.cols, len(b.shape)), b.slots, full[-1], b.shape)))
        if total is None:
            return jnp.zeros(full, own.dtype)
        return jnp.broadcast_to(total, full).astype(own.dtype)


def all_numbers(b: Block, exact: bool) -> Any:
    """[*rows, slots]; 0 where absent, unless nothing is made of what is absent."""
    return jnp.broadcast_to(as_jax(b.vals if exact else present(b)), (*b.shape, b.slots))


def _shifted(block: Block, spot: np.ndarray, width: int) -> Any:
    """The values in their places, if these are a shift of the slots that is the same in all rows; else None."""
    flat = spot.reshape(-1, spot.shape[-1])
    first = flat.max(axis=0)
    present = np.flatnonzero(first >= 0)
    if not len(present) or not ((flat == first) | (flat < 0)).all():
        return None
    low = int(first[present[0]] - present[0])
    if not np.array_equal(first[present], present + low) or block.slots != len(first):
        return None
    vals = masked(as_jax(block.full_slots(block.vals)), compressed(spot >= 0))
    return between_zeros(vals, low, width - block.slots - low)


def _plus(a: Any, b: Any) -> Any:
    return b if a is None else a + b
