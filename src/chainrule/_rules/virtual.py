"""The inputs of the steps of a loop: columns that change from step to step, under numbers that do not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from chainrule._blocks.block import Block, compressed, only
from chainrule._memory import require_columns, require_memory
from chainrule._program import Coefficient, Tangent, Value, as_jax, zero_coefficient
from chainrule._rules.pointwise import tidy
from chainrule._rules.reach import Pattern, blocks_of, ones, position, rows_of, trajectories
from chainrule._rules.step import Step, kind_of, support_at_any_time

_SELECTED = 4  # slots that are placed by selection rather than by a scatter


class Virtual:
    """The inputs of the steps: columns that change from step to step under numbers that do not.

    `table[t, k]` is the column that the virtual column `base + k` stands for at time t, -1 for none.
    """

    def __init__(self, step: Step, T: int, reverse: bool):
        self.reverse = reverse
        self._step, self.length, self._base = step, T, step.columns
        self._blocks: list[list[Any]] = []
        self.scanned: list[Any] = []
        tables: list[np.ndarray] = [np.zeros((T, 0), np.int32)]
        width = 0
        for x in step.xs:
            own = []
            for b in blocks_of(x) if isinstance(x, Tangent) else ():
                shape, cols = b.shape[1:], b.cols[0]
                if b.cols.shape[0] != 1:
                    distinct, number = trajectories(b.cols.reshape(T, -1))
                    cols = (self._base + width + number).reshape(cols.shape).astype(np.int32)
                    tables.append(distinct)
                    width += distinct.shape[1]
                own.append((shape, cols, None if b.vals.shape[0] == 1 and T > 1 else len(self.scanned), b.vals[0]))
                if own[-1][2] is not None:
                    self.scanned.append(as_jax(b.vals))
            self._blocks.append(own)
            if isinstance(x, Coefficient) and not x.zero:
                self.scanned.append(as_jax(x.value))
        self._table = np.concatenate(tables, axis=1)

    def at(self, slices: Sequence[Any]) -> list[Value]:
        """The inputs of one step, from its slices of `scanned`."""
        left, out = iter(slices), list[Value]()
        for x, blocks in zip(self._step.xs, self._blocks, strict=True):
            if isinstance(x, Tangent):
                made = [Block(s, c, first if k is None else next(left)) for s, c, k, first in blocks]
                out.append(Tangent(x.shape[1:], x.dtype, tuple(made)))
            elif x.zero:
                out.append(zero_coefficient(jax.ShapeDtypeStruct(x.value.shape[1:], x.value.dtype)))
            else:
                out.append(Coefficient(next(left), support_at_any_time(x)))
        return out

    def patterns(self) -> list[Pattern]:
        """The columns of the inputs at all times together."""
        n, out = self._base, []
        for x in self._step.xs:
            size = math.prod(x.shape[1:])
            if kind_of(x) != "tangent":
                out.append(scipy.sparse.csr_array((0, n), dtype=np.float32))
                continue
            coo = rows_of([x], n).tocoo()
            out.append(ones(scipy.sparse.coo_array((coo.data, (coo.row % size, coo.col)), shape=(size, n))))
        return out

    def within(self, block: Block) -> bool:
        """Say whether the block has virtual columns."""
        return bool(self._table.shape[1]) and int(block.cols.max(initial=-1)) >= self._base

    def columns(self, cols: np.ndarray) -> np.ndarray:
        """[*rows, q] -> [T, *rows, q]: the columns that virtual ones stand for."""
        require_columns((self.length, *cols.shape), what="jacobian: a loop")
        out = np.broadcast_to(cols, (self.length, *cols.shape)).copy()
        where = cols >= self._base
        out[:, where] = self._table[:, cols[where] - self._base]
        return out

    def placed(self, b: Block, layout: np.ndarray, time: Any) -> Any:
        """[*rows, columns of the layout]: the values at the places that they have at this time."""
        width = layout.shape[-1]
        spots = position(self.columns(b.cols), layout, b.shape)
        spot = jnp.asarray(compressed(spots, spots.ndim - 1, first=1))[time]  # the times stay
        vals, spot = as_jax(b.full_slots(b.vals)), b.full_slots(spot)
        if b.slots <= _SELECTED:
            zero = jnp.zeros((), vals.dtype)
            every = np.arange(width, dtype=np.int32).reshape((*[1] * len(b.shape), width))
            parts = [jnp.where(spot[..., q : q + 1] == every, vals[..., q : q + 1], zero) for q in range(b.slots)]
            return sum(parts[1:], parts[0])
        rows = math.prod(b.shape)
        if math.prod(spot.shape[:-1]) == 1:  # the same places in all rows
            full = jnp.broadcast_to(vals, (*b.shape, b.slots))
            if (np.diff(spots, axis=-1) == 1).all() and (spots >= 0).all():  # side by side
                out = jnp.zeros((*b.shape, width), vals.dtype)
                return jax.lax.dynamic_update_slice_in_dim(out, full, spot.reshape(-1)[0], len(b.shape))
            spot = jnp.where(spot < 0, np.int32(width), spot).reshape(-1)
            out = jnp.zeros((width, *b.shape), vals.dtype)
            return jnp.moveaxis(out.at[spot].add(jnp.moveaxis(full, -1, 0), mode="drop"), 0, -1)
        line = np.arange(rows, dtype=np.int32).reshape((*b.shape, 1)) * np.int32(width)
        flat = jnp.where(spot < 0, np.int32(rows * width), line + spot).reshape(-1)
        vals = jnp.broadcast_to(vals, (*b.shape, b.slots)).reshape(-1)
        return jnp.zeros(rows * width, vals.dtype).at[flat].add(vals, mode="drop").reshape((*b.shape, width))

    def births(self) -> np.ndarray:
        """For each column: the first step of the loop (in its order) that it enters with; -1: before all."""
        n, T = self._base, self.length
        born = np.full(n + 1, T)
        order = self._table[::-1] if self.reverse else self._table
        for t in range(T - 1, -1, -1) if order.size else ():
            born[order[t]] = t
        early = [b for v in [*self._step.consts, *self._step.carry] if isinstance(v, Tangent) for b in blocks_of(v)]
        early += [Block(s, c, v) for own in self._blocks for s, c, _, v in own]
        for b in early:
            born[b.cols[(b.cols >= 0) & (b.cols < n)]] = -1
        return born

    def stacked(self, out: Value, numbers: Any, born: np.ndarray) -> Value:
        """An output of all steps, from its numbers at each: columns that were not born are absent."""
        if isinstance(out, Coefficient):
            return Coefficient(numbers)
        blocks, T = [], self.length
        clock = np.arange(T)[::-1] if self.reverse else np.arange(T)
        for b, vals in zip(out.filled().blocks, numbers, strict=True):
            require_memory("jacobian: a loop", vals.shape, vals.dtype.itemsize)
            cols = self.columns(b.cols)
            young = (b.cols < self._base) & (b.cols >= 0)
            age = clock.reshape((T, *[1] * b.cols.ndim))
            cols = only(cols, ~(young & (born[np.where(young, b.cols, 0)] > age)))
            first = cols[:1]
            blocks.append(Block((T, *out.shape), first if (cols == first).all() else cols, vals))
        return Tangent((T, *out.shape), out.dtype, tidy(blocks))
