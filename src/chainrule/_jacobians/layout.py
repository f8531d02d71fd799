"""What is known of an assembled Jacobian while tracing: its blocks' places, and the pattern they make."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np

from chainrule._blocks.block import Block, union_of_lines
from chainrule._jacobians.structure import Places, Structure
from chainrule._jax import evaluate_now
from chainrule._linalg.methods import Method, choose
from chainrule._memory import SORTED, require_columns
from chainrule._space import Space


@dataclass(frozen=True, eq=False)
class Entry:
    """One block of rows from `offset` on: what is known of it while tracing."""

    offset: int
    shape: tuple[int, ...]
    cols: np.ndarray
    known: np.ndarray | None  # its values, where these are known
    vals_shape: tuple[int, ...]
    rows: np.ndarray | None = None  # of a scattered block
    split: tuple[int, ...] = ()  # the axes that stored values have in place of that of the slots

    @property
    def slots(self) -> int:
        return int(np.broadcast_shapes(self.cols.shape[-1:], self.vals_shape[-1:])[0])

    @property
    def places(self) -> int:
        """Number of entries, absent ones too."""
        return math.prod(self.shape) * self.slots

    @cached_property
    def lines(self) -> np.ndarray:
        """The rows of the Jacobian (or of its transpose) that this block has entries in, flat."""
        own = np.arange(math.prod(self.shape)) if self.rows is None else self.rows.reshape(-1)
        return own + self.offset

    @cached_property
    def side(self) -> tuple[int, float]:
        """Where it should stand among the entries of the same rows: the widest first, then from left to right."""
        there = self.cols[self.cols >= 0]
        return -self.slots, float(there.mean()) if there.size else 0.0

    @cached_property
    def key(self) -> Any:
        known = None if self.known is None else (self.known.shape, self.known.tobytes())
        rows = None if self.rows is None else self.rows.tobytes()
        return (self.offset, self.shape, self.cols.shape, self.cols.tobytes(), known, self.vals_shape, rows, self.split)


@dataclass(frozen=True, eq=False)
class Layout:
    """All that is known of a Jacobian while tracing; `flipped`: the blocks are those of the transpose.

    Two layouts are equal when they describe the same places, whatever function they come from: inside one `jit`,
    Jacobians of equal layouts share a trace, and what comes out has the name, order and cost of the first of them.
    """

    rows: Space
    columns: Space
    entries: tuple[Entry, ...]
    dtype: Any
    flipped: bool = False
    order: str = "forward"
    cost: int = 0
    fallbacks: tuple[str, ...] = ()
    passing: bool = False  # one of many pieces: no compiled program is kept for it, or each would hold its pattern

    @cached_property
    def key(self) -> Any:
        entries = tuple(e.key for e in self.entries)
        return (self.rows.key, self.columns.key, entries, str(self.dtype), self.flipped)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Layout) and self.key == other.key)

    def __hash__(self) -> int:
        return hash((self.rows.size, self.columns.size, len(self.entries), self.flipped))

    @cached_property
    def pattern(self) -> Pattern:
        return _pattern(self)

    @property
    def structure(self) -> Structure:
        return self.places.structure

    @cached_property
    def places(self) -> Places:
        p, known = self.pattern, None
        if self.entries and all(e.known is not None for e in self.entries):
            known = evaluate_now(lambda: p.collect([Block(e.shape, e.cols, e.known) for e in self.entries], self.dtype))
        return Places(p.rows, p.cols, (self.rows.size, self.columns.size), self._sources, known)

    @property
    def _sources(self) -> np.ndarray | None:
        """[nnz]: for each place the number of its stored value, where one is stored for several."""
        if self.pattern.more is not None or all(math.prod(e.vals_shape) == e.places for e in self.entries):
            return None
        blocks, start = [], 0
        for e in self.entries:
            stored = np.arange(start, start + math.prod(e.vals_shape)).reshape(e.vals_shape)
            blocks.append(Block(e.shape, e.cols, stored))
            start += stored.size
        return np.asarray(self.pattern.collect(blocks, np.int64))

    def spec(self, e: Entry) -> tuple[Any, ...]:
        """How the values of an entry are split: as the array whose rows they are, then as that of their columns."""
        swept, other = (self.columns, self.rows) if self.flipped else (self.rows, self.columns)
        if not swept.shardings or e.rows is not None:
            return ()
        leaf = int(np.searchsorted(swept.offsets, e.offset, side="right")) - 1
        rows, used = [None] * len(e.shape), set[Any]()
        if e.shape == swept.shapes[leaf]:
            rows = [*swept.shardings[leaf].spec, *rows][: len(e.shape)]
            rows = [axis if n == size else None for axis, n, size in zip(rows, e.vals_shape, e.shape, strict=False)]
            used = {axis for axis in rows if axis is not None}
        leaf = int(np.searchsorted(other.offsets, e.cols.max(initial=0), side="right")) - 1
        of_columns = [*other.shardings[leaf].spec, *[None] * len(e.split)]
        first = len(other.shapes[leaf]) - len(e.split)
        fits = e.split and other.shapes[leaf][first:] == e.split
        columns = of_columns[first : first + len(e.split)] if fits else [None]
        return (*rows, *(None if axis in used else axis for axis in columns))[: len(e.vals_shape) - 1 + len(e.split)]

    @cached_property
    def transposed(self) -> Layout:
        """The layout of the transpose: the same one each time, with all that has been found of it."""
        made = replace(self, rows=self.columns, columns=self.rows, flipped=not self.flipped)
        made.__dict__["transposed"] = self
        return made

    @property
    def straight(self) -> Layout:
        """This layout, or where it is flipped that of the transpose: whose blocks are rows."""
        return self.transposed if self.flipped else self

    @cached_property
    def method(self) -> Method:
        """How to solve with these places."""
        return choose(self.places)


@dataclass(frozen=True, eq=False)
class Pattern:
    """The distinct places, row-major, and where in the blocks their values stand."""

    rows: np.ndarray
    cols: np.ndarray
    groups: tuple[tuple[int, ...], ...]  # entries that share their rows, laid side by side along the slots
    source: np.ndarray | None  # [nnz] place of each value in the blocks laid flat; None: in the same order
    more: tuple[np.ndarray, np.ndarray] | None  # where places repeat: the other places in the blocks, added to which

    def __post_init__(self) -> None:
        for array in (self.rows, self.cols):
            array.flags.writeable = False  # what is given away must not change it

    def collect(self, blocks: Sequence[Block], dtype: Any) -> Any:
        """The values [nnz] of blocks of this pattern."""
        pieces = [_side_by_side([blocks[k] for k in group], dtype) for group in self.groups]
        if not pieces:
            return jnp.zeros((0,), dtype)
        module = np if all(isinstance(p, np.ndarray) for p in pieces) else jnp
        values = module.concatenate(pieces)
        first = values if self.source is None else _read(values, self.source)
        return first if self.more is None else jnp.asarray(first).at[self.more[1]].add(values[self.more[0]])


_WITHOUT = "What needs no pattern still works: J @ v, J.T @ w, J.dense()."


def _side_by_side(blocks: list[Block], dtype: Any) -> Any:
    module = np if all(b.static for b in blocks) else jnp
    wide = [module.broadcast_to(b.vals, (*b.shape, b.slots)) for b in blocks]
    wide = wide if len(wide) == 1 else [module.concatenate(wide, axis=-1)]
    return wide[0].reshape(-1).astype(dtype)


def _read(values: Any, source: np.ndarray) -> Any:
    """The values at these places: a slice where they are the same part of lines of one length, else a gather."""
    breaks = np.flatnonzero(np.diff(source) != 1)
    width, length = len(source), len(values)
    if len(breaks):
        width = int(breaks[0]) + 1
        length = int(source[width] - source[0])
    if not width or length < width:
        return values[source]
    line, column = divmod(int(source[0]), length)

    def part(of: Any) -> Any:
        table = of[: len(of) // length * length].reshape(-1, length)
        return table[line : line + len(source) // width, column : column + width].reshape(-1)

    return part(values) if np.array_equal(part(np.arange(len(values))), source) else values[source]


def _pattern(layout: Layout) -> Pattern:
    """Sort and count the places; entries of the same rows stand side by side, so that most are sorted already."""
    name, shape = layout.columns.name or "f", (layout.rows.size, layout.columns.size)
    places = sum(e.places for e in layout.entries)
    require_columns((places,), SORTED, f"the pattern of J_{name}, {shape[0]}×{shape[1]}", _WITHOUT)
    groups: dict[Any, list[int]] = {}
    for k, e in enumerate(layout.entries):
        groups.setdefault((e.offset, e.shape, None if e.rows is None else e.rows.tobytes()), []).append(k)
    groups = {key: sorted(group, key=lambda k: layout.entries[k].side) for key, group in groups.items()}
    ordered = sorted(groups.values(), key=lambda group: int(layout.entries[group[0]].lines[0]))
    index = np.int32 if max(layout.rows.size, layout.columns.size) < 2**31 else np.int64
    parts, start, found = [(np.empty(0, index),) * 2 + (np.empty(0, np.int64),) * 2], 0, 0
    for group in ordered:
        table = np.concatenate([_table(layout.entries[k]) for k in group], axis=1)
        line, col, source, target = _sorted_lines(layout.entries[group[0]].lines.astype(index), table)
        parts.append((line, col.astype(index, copy=False), source + start, target + found))
        start, found = start + table.size, found + len(col)
    line, col, source, target = (np.concatenate(p) for p in zip(*parts, strict=True))
    mixed = len(groups) > len({e.offset for e in layout.entries}) or any(e.rows is not None for e in layout.entries)
    line, col, target = _sorted(line, col, target, layout, mixed)
    kept_groups = tuple(tuple(group) for group in ordered)
    more = None
    if len(source) > len(line):
        order = np.lexsort((source, target))
        again = np.append(False, target[order[1:]] == target[order[:-1]])
        more, (source, target) = (
            (source[order[again]], target[order[again]]),
            (source[order[~again]], target[order[~again]]),
        )
    by_place = np.empty(len(source), np.int64)  # the first value of a place is taken, others are added
    by_place[target] = source
    in_order = len(source) == start and bool((by_place[1:] > by_place[:-1]).all())
    return Pattern(line, col, kept_groups, None if in_order else by_place, more)


def _sorted_lines(lines: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, ...]:
    """The distinct (line, column) of a table [rows, slots]; and its entries: where in it, to which of those."""
    order = np.argsort(table, axis=1, kind="stable")
    ordered = np.take_along_axis(table, order, axis=1)
    if ordered[:, 0].min() >= 0 and not (ordered[:, 1:] == ordered[:, :-1]).any():  # nothing absent or twice
        source = (np.arange(0, table.size, table.shape[1])[:, None] + order).reshape(-1)
        return np.repeat(lines, table.shape[1]), ordered.reshape(-1), source, np.arange(table.size)
    union, position = union_of_lines(table)
    present, kept = position >= 0, union >= 0
    count = kept.sum(axis=1)
    target = ((np.cumsum(count) - count)[:, None] + position)[present]
    return np.repeat(lines, count), union[kept], np.flatnonzero(present), target


def _sorted(
    line: np.ndarray, col: np.ndarray, target: np.ndarray, layout: Layout, mixed: bool
) -> tuple[np.ndarray, ...]:
    """Distinct row-major places, and the new number of each old place; `mixed`: lines may repeat or be out of order."""
    swept, other = (layout.columns, layout.rows) if layout.flipped else (layout.rows, layout.columns)
    if mixed:
        key = line.astype(np.int64) * max(other.size, 1) + col
        unique, number = np.unique(key, return_inverse=True)
        line, col = (a.astype(line.dtype) for a in np.divmod(unique, max(other.size, 1)))
        target = number[target]
    if not layout.flipped:
        return line, col, target
    order = _column_major(line, col, swept.size, other.size)
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    return col[order], line[order], number[target]


def _table(e: Entry) -> np.ndarray:
    """The columns of an entry, [rows, slots]."""
    return np.broadcast_to(e.cols, (*e.shape, e.slots)).reshape(math.prod(e.shape), e.slots)


def _column_major(line: np.ndarray, col: np.ndarray, lines: int, width: int) -> np.ndarray:
    """The order that sorts row-major places by column first, in linear time."""
    import scipy.sparse

    starts = np.searchsorted(line, np.arange(lines + 1))
    csr = scipy.sparse.csr_array((np.arange(len(line)), col, starts), shape=(lines, width))
    return csr.tocsc().data
