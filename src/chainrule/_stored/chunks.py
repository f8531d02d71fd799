"""`jacobian_chunks`: a Jacobian in pieces, of which one at a time is in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from chainrule._api import Argnums, checked_argnums, places
from chainrule._compiled import Known, Transform
from chainrule._errors import InputTypeError, MemoryLimitError, MissingRuleError, NotReversibleError
from chainrule._jacobians.jacobian import Jacobian
from chainrule._memory import limit
from chainrule._options import require_count
from chainrule._space import Space, name_of
from chainrule._trace import no_forward_program, pick, require_inputs

if TYPE_CHECKING:
    from chainrule._stored.boxes import Piece
    from chainrule._stored.pieces import Pieces

_SORTED = 48  # bytes that an entry takes beside its value while it is sorted into a list
_SHARE = 4  # of the free memory a piece takes one part in so many, unless it is told


@dataclass(frozen=True)
class Chunk:
    """A piece of a Jacobian: `jacobian` holds the `rows` and `columns` of the whole, one of which is all of them.

    Attributes
    ----------
    jacobian : Jacobian, of the size of the piece. rows, columns : range, where it sits in the whole.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> piece = next(cr.jacobian_chunks(jnp.sin, rows=2)(jnp.zeros(6)))
    >>> piece.jacobian.shape, piece.rows, piece.columns
    ((2, 6), range(0, 2), range(0, 6))
    """

    jacobian: Jacobian
    rows: range
    columns: range


class Chunks:
    """`jacobian_chunks(f)`: call it with the arguments of `f`; it gives an iterator of `Chunk`s."""

    def __init__(self, f: Any, argnums: Any, holomorphic: bool, by_rows: bool, most: int | None, memory: int | None):
        self._f, self._by_rows, self._most, self._memory = f, by_rows, most, memory

        def body(function: Any, args: tuple[Any, ...]) -> Any:
            from chainrule._stored.pieces import source_of

            problem = pick("jacobian_chunks", function, argnums, args)
            require_inputs(problem, holomorphic)
            source, values = source_of(_recorded(problem, holomorphic, by_rows))
            return values, Known(source)

        key = ("jacobian_chunks", argnums, holomorphic, by_rows)
        self._transform = Transform("jacobian_chunks", f, places(argnums), body, key, patterned=True)

    def __call__(self, *args: Any, **keywords: Any) -> Iterator[Chunk]:
        """Linearize at once; the pieces are computed as they are asked for."""
        pieces = self.pieces(*args, **keywords)
        return self.computed(pieces, self.cut(pieces))

    def pieces(self, *args: Any, **keywords: Any) -> Pieces:
        """The linearized map, of which pieces can be computed."""
        from chainrule._stored.pieces import Pieces

        what = f"jacobian_chunks of {name_of(self._f)}"
        values, source = self._transform(*args, **keywords)
        if any(isinstance(v, jax.core.Tracer) for v in values):
            raise InputTypeError(
                f"{what}: pieces are computed one after another, from numbers, and an argument, or what f closes over, "
                "is traced; call it outside jit, vmap and grad, or take the whole with jacobian"
            )
        return Pieces(what, source.value, values, self._by_rows, self._memory)

    @property
    def _room(self) -> int:
        """Bytes that a piece may take."""
        return self._memory or limit() // _SHARE

    def cut(self, pieces: Pieces) -> list[Piece]:
        """The pieces to begin with; one that turns out too large is halved."""
        from chainrule._stored.boxes import pieces_of

        most = self._most or _fitting(pieces, self._room)
        return list(pieces_of(pieces.space, most))

    def computed(self, pieces: Pieces, waiting: list[Piece]) -> Iterator[Chunk]:
        """The chunks of pieces; a piece whose entries take more than the memory asked for is halved."""
        left, m, n = deque(waiting), pieces.shape[0], pieces.shape[1]
        while left:
            piece = left.popleft()
            if self._most is None and piece.size > 1 and _bytes(pieces, piece) > self._room:
                left.extendleft(reversed(piece.halves()))
                continue
            own = range(piece.start, piece.stop)
            rows, columns = (own, range(n)) if self._by_rows else (range(m), own)
            yield Chunk(pieces.jacobian(piece), rows, columns)


def _recorded(problem: Any, holomorphic: bool, by_rows: bool) -> Any:
    """The linear program whose results are what is cut, or where JAX has none the one in the other direction."""
    from chainrule._accumulate.accumulate import only_order
    from chainrule._accumulate.recorded import recorded_program

    only, sole = only_order(problem, False, holomorphic)
    with no_forward_program(problem.what, "rows="):
        if sole:
            return recorded_program(problem, False, only == "reverse")
        try:
            return recorded_program(problem, False, not by_rows)
        except (MissingRuleError, NotReversibleError):
            return recorded_program(problem, False, by_rows)


def _bytes(pieces: Pieces, piece: Piece) -> int:
    """What the Jacobian of a piece takes, listed entry by entry; more than there is, where tracing it says so."""
    try:
        return pieces.places(piece) * (np.dtype(pieces.dtype).itemsize + _SORTED)
    except MemoryLimitError:
        if piece.size == 1:
            raise
        return 2**62


def _fitting(pieces: Pieces, memory: int) -> int:
    """How many rows (or columns) about fill the memory, found by tracing pieces in the middle."""
    from chainrule._stored.boxes import pieces_of

    space: Space = pieces.space
    most = max(1, min(space.size, memory // (64 * (8 + _SORTED))))
    for _ in range(6):
        own = list(pieces_of(space, most))
        if not own:
            return most
        middle = own[len(own) // 2]
        ratio = memory / max(_bytes(pieces, middle), 1)
        if 1 <= ratio < 2 or (ratio >= 1 and most >= space.size) or (ratio < 1 and most == 1):
            break
        scaled = int(middle.size * 0.9 * ratio) if ratio > 2**-30 else most // 8
        most = max(1, min(space.size, scaled))
    return most


def jacobian_chunks(
    f: Callable[..., Any],
    argnums: Argnums = 0,
    *,
    rows: int | None = None,
    columns: int | None = None,
    by_memory: int | None = None,
    holomorphic: bool = False,
) -> Chunks:
    """The Jacobian of `f` in pieces, for one that is larger than memory.

    Parameters
    ----------
    f, argnums, holomorphic
        As for `jacobian`.
    rows, columns : int, optional
        At most so many rows, or columns, in a piece. A piece is a box of one output (or input), or several small
        ones whole.
    by_memory : int, optional
        Bytes that a piece may take while its entries are listed; its size follows. Rows, unless `columns` is given,
        and a quarter of the free memory unless anything is.

    Returns
    -------
    Chunks
        A function of the same arguments that gives an iterator of `Chunk`s: `.jacobian`, a `Jacobian`, and the ranges
        `.rows` and `.columns` that it holds of the whole, in order.

    Raises
    ------
    InputTypeError
        As `jacobian`; or where more than one of `rows`, `columns`, `by_memory` is given, or no whole number.
    MemoryLimitError
        A single row (or column) takes more than `by_memory`.

    Notes
    -----
    `f` is linearized once, and its coefficients stay in memory. A piece is the linear program restricted to the boxes
    of arrays that its rows depend on, so a stencil's rows cost no more than themselves; pieces of equal patterns share
    one compiled program. Steps that no such box is known for (loops, solves, scatters) are computed whole.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> pieces = cr.jacobian_chunks(lambda x: x[1:] * x[:-1], rows=2)(jnp.arange(1.0, 6.0))
    >>> [(p.rows, p.jacobian.nnz) for p in pieces]
    [(range(0, 2), 4), (range(2, 4), 4)]
    """
    what = f"jacobian_chunks of {name_of(f)}"
    given = {"rows": rows, "columns": columns, "by_memory": by_memory}
    named = {name: value for name, value in given.items() if value is not None}
    if len(named) > 1:
        raise InputTypeError(f"{what}: give one of rows, columns and by_memory, got {' and '.join(named)}")
    for name, value in named.items():
        require_count(what, name, value)
    numbers = checked_argnums("jacobian_chunks", f, argnums)
    return Chunks(f, numbers, holomorphic, columns is None, rows or columns, by_memory)
