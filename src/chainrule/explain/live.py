"""A function at a point that can be moved: what the server and the notebook answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from chainrule.explain.encode import numbers

_MOST_POINTS = 4096


class Refusal(Exception):
    """A request that is not served: a status and a reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Live:
    """Answers with the explanation at other points, and with values; `first` is the one it began with.

    Parameters
    ----------
    at : callable
        The explanation, for the leaves of the arguments that are differentiated.
    values : callable
        The outputs [k, m] for flat points [k, n].
    leaves : sequence of arrays
        Those of the first point.
    """

    def __init__(
        self, at: Callable[[Sequence[Any]], Any], values: Callable[[Any], Any], leaves: Sequence[Any], first: Any
    ) -> None:
        self._at, self._values, self._leaves, self.first = at, values, leaves, first
        self._lock = threading.Lock()
        self.size = sum(x.size for x in leaves)

    def answer(self, request: Any) -> str:
        """JSON for {"x": [n numbers]} or {"points": [[n numbers], …]}; a Refusal for anything else."""
        if not isinstance(request, dict) or len(request) != 1 or not set(request) <= {"x", "points"}:
            raise Refusal(400, 'give {"x": [numbers]} or {"points": [[numbers], …]}')
        if "x" in request:
            leaves = apart(self._numbers(request["x"]), self._leaves)
            with self._lock:
                return self._at(leaves).to_json()
        points = request["points"]
        if not isinstance(points, list) or not 0 < len(points) <= _MOST_POINTS:
            raise Refusal(400, f"give 1 to {_MOST_POINTS:,} points")
        with self._lock:
            found = self._values(np.stack([self._numbers(p) for p in points]))
        return json.dumps({"values": [numbers(row) for row in np.asarray(found)]})

    def _numbers(self, given: Any) -> np.ndarray:
        plain = isinstance(given, list) and len(given) == self.size
        if not plain or any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in given):
            raise Refusal(400, f"a point is a list of {self.size} numbers")
        try:
            found = np.asarray(given, np.float64)
        except OverflowError as error:
            raise Refusal(400, "a number is too large") from error
        if not np.isfinite(found).all():
            raise Refusal(400, "a point has finite numbers")
        return found


def apart(x: Any, leaves: Sequence[Any]) -> list[Any]:
    """Flat numbers as arrays like these."""
    ends = np.cumsum([leaf.size for leaf in leaves])
    parts = zip(leaves, ends, strict=True)
    return [jnp.asarray(x[end - k.size : end], k.dtype).reshape(k.shape) for k, end in parts]
