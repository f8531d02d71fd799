"""What may be asked for, and the refusal of what is no count, no tolerance and no batch, or is not installed."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np

from chainrule._errors import ChainruleError, InputTypeError, ShapeError

if TYPE_CHECKING:
    from chainrule._plan.plan import Plan

Kind = Literal["forward", "reverse"]
Chunked = Literal["auto", "forward", "reverse"]
Order = Literal[Chunked, "factored"]
ChunkSize = int | Literal["auto"] | None

ANY_J = "singular_values() tells of any J"  # the way out of a determinant of a J that is not square


@dataclass(frozen=True)
class Options:
    """What may be asked of an accumulation; see `chainrule.jacobian`."""

    has_aux: bool = False
    order: Order | Plan = "auto"
    holomorphic: bool = False
    chunk_size: ChunkSize = None
    memory_limit: int | None = None
    shard_axis: str | None = None

    def require_sizes(self, what: str) -> None:
        """Refuse what is no number of columns, or of bytes, before equal numbers share a program (True is 1)."""
        if self.chunk_size is not None and self.chunk_size != "auto":
            require_count(what, "chunk_size", self.chunk_size, other="'auto'")
        if self.memory_limit is not None:
            require_count(what, "memory_limit", self.memory_limit)
        if self.shard_axis is not None and not isinstance(self.shard_axis, str):
            raise InputTypeError(f"{what}: shard_axis={self.shard_axis!r} is not the name of an axis of the mesh")


def require_count(what: str, name: str, given: Any, least: int = 1, other: str = "") -> None:
    """Refuse what is no whole number from `least` on; `other`: what else may be given."""
    if not isinstance(given, (int, np.integer)) or isinstance(given, bool) or given < least:
        raise InputTypeError(
            f"{what}: {name}={given!r} is no whole number from {least} on{other and f', and not {other}'}"
        )


def is_index(given: Any) -> bool:
    """Whether this is a whole number that may count places, one of an array too."""
    try:
        return not isinstance(given, (bool, np.bool_)) and operator.index(given) is not None
    except TypeError:
        return False


def require_tolerance(what: str, name: str, given: Any) -> None:
    """Refuse what no number can be compared with; nan is one of these. None, and what is traced, may pass."""
    if given is None or isinstance(given, jax.core.Tracer):
        return
    if np.shape(given) or np.asarray(given).dtype.kind not in "fiu" or not given >= 0:
        raise InputTypeError(f"{what}: {name}={given!r} is no number from 0 on")


def count_of_points(what: str, said: str, tree: Any, way_out: str = "") -> int:
    """How many points lie along the first axis of all arrays; `said`: what needs them."""
    shapes = [tuple(np.shape(x)) for x in jax.tree.leaves(tree)]
    if len({s[:1] for s in shapes}) != 1 or () in shapes:
        raise ShapeError(
            f"{what}: {said} points along a first axis of the same size in every leaf, got shapes {shapes}{way_out}"
        )
    return shapes[0][0]


def count_of_batch(what: str, tree: Any) -> int:
    """The same of the arguments that `batched` speaks of."""
    return count_of_points(what, "batched=True needs", tree, "; leave batched out for one point")


def optional(what: str, package: str, extra: str = "solvers") -> Any:
    """A package that need not be installed."""
    try:
        return __import__(package)
    except ImportError as error:
        raise ChainruleError(f"{what} needs {package}: pip install 'chainrule[{extra}]'") from error
