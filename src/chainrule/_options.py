"""What options share: the refusal of what is no count, no tolerance and no batch; packages that may be missing."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from chainrule._errors import ChainruleError, InputTypeError, ShapeError

ANY_J = "singular_values() tells of any J"  # the way out of a determinant of a J that is not square


def require_count(what: str, name: str, given: Any, least: int = 1) -> None:
    """Refuse what is no whole number from `least` on."""
    if not isinstance(given, (int, np.integer)) or isinstance(given, bool) or given < least:
        raise InputTypeError(f"{what}: {name}={given!r} is no whole number from {least} on")


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
