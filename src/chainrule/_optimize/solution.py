"""`Solution`: where a solver stopped, why, and how it came there."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any, NamedTuple

_SHOWN = 20  # rows at either end of a long table


class Iteration(NamedTuple):
    """One point of a solver, and the step that was tried from it.

    value : f(x) where it is minimised, nan where it is solved. norm : ‖f(x)‖ of equations, ‖∇f(x)‖ of a minimum.
    step : the length of the whole step ‖d‖, nan where none was computed. fraction : how much of it was taken.
    direction : how d was found.
    """

    value: float
    norm: float
    step: float
    fraction: float
    direction: str


@dataclass(frozen=True)
class Solution:
    """What `newton` and `newton_cg` give; `print` it for the table of iterations.

    Attributes
    ----------
    x : a pytree like x0. value : f(x). norm : ‖f(x)‖ of equations, ‖∇f(x)‖ of a minimum. iterations : steps that were
    taken. converged : whether x is what was asked for. message : why it stopped. history : an `Iteration` for each
    point, the last one included.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> s = cr.newton(lambda x: x**2 - 2, jnp.array([1.0]))
    >>> s.converged, s.iterations == len(s.history) - 1
    (True, True)
    """

    what: str
    x: Any
    value: Any
    norm: float
    iterations: int
    converged: bool
    message: str
    history: tuple[Iteration, ...]

    def __str__(self) -> str:
        minimised = any(not math.isnan(row.value) for row in self.history)
        rows = [line(k, row, minimised) for k, row in enumerate(self.history)]
        if len(rows) > 2 * _SHOWN:
            rows[_SHOWN:-_SHOWN] = [f"{'…':>9}"]
        lines = [heading(minimised), *rows]
        verdict = "converged" if self.converged else "NOT converged"
        return "\n".join([self.what, "", *lines, "", f"{verdict} after {self.iterations} iterations: {self.message}"])


def heading(minimised: bool) -> str:
    value, norm = (f"{'f(x)':>15}", "‖∇f(x)‖") if minimised else ("", "‖f(x)‖")
    return f"iteration{value}{norm:>12}{'‖step‖':>12}{'taken':>10}  direction"


def line(k: int, row: Iteration, minimised: bool) -> str:
    """One row of the table."""
    value = f"{row.value:15.6e}" if minimised else ""
    step = " " * 22 if math.isnan(row.step) else f"{row.step:12.3e}{row.fraction:10.3g}"
    return f"{k:9}{value}{row.norm:12.3e}{step}  {row.direction}".rstrip()


class Report:
    """The history of a run, printed line by line where that is asked for."""

    def __init__(self, printed: bool, minimised: bool):
        self._printed, self._minimised = printed, minimised
        self.rows: list[Iteration] = []

    def add(self, row: Iteration) -> None:
        """Keep a row."""
        if self._printed:
            top = "" if self.rows else heading(self._minimised) + "\n"
            sys.stdout.write(f"{top}{line(len(self.rows), row, self._minimised)}\n")
        self.rows.append(row)
