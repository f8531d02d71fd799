"""What functions of a field share: the Jacobian at a point, at each of many points, and what is no field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from chainrule._api import Argnums, checked_argnums, places
from chainrule._compiled import Transform
from chainrule._errors import ShapeError
from chainrule._options import Options, count_of_batch
from chainrule._trace import Problem, pick


def at_points(problem: Problem, batched: bool, run: Callable[..., Any], beside: Any = None) -> Any:
    """`run(problem)`, for each point where they are a batch; with a direction or a point `beside`, `run(problem, it)`.

    What is beside belongs to all points, or has their leading axis.
    """
    more = () if beside is None else (beside,)
    if not batched:
        return run(problem, *more)
    count, ranks = count_of_batch(problem.what, problem.leaves), [np.ndim(x) for x in jax.tree.leaves(beside)]
    own = 0 if ranks == [x.ndim for x in problem.leaves] else None
    sizes = {np.shape(x)[0] for x in jax.tree.leaves(beside)} if own == 0 else set()
    if sizes - {count}:
        raise ShapeError(f"{problem.what}: a batch of {count} points needs as many beside them, got {sizes}")
    each = lambda more, *leaves: run(replace(problem, leaves=leaves), *more)  # noqa: E731
    return jax.vmap(each, in_axes=(own, *[0] * len(problem.leaves)))(more, *problem.leaves)


def require_field(what: str, rows: Any, columns: Any) -> None:
    """Refuse values that are not like the point; rows and columns are their spaces."""
    if rows.tree != columns.tree or rows.shapes != columns.shapes:
        raise ShapeError(
            f"{what}: a field gives a vector at each point, like the point. The point has shapes "
            f"{list(columns.shapes)} in {columns.tree}, the values have shapes {list(rows.shapes)} in {rows.tree} "
            f"(J is {rows.size}×{columns.size}). Choose the point with argnums, stack the values as the point is, or "
            "see chainrule.jacobian"
        )


def of_field(name: str, f: Any, argnums: Argnums, batched: bool, finish: Callable[[Any], Any], *key: Any) -> Transform:
    """A transform of the Jacobian of a field; `finish` depends on the name and the key alone."""

    def checked(problem: Problem) -> Any:
        J = accumulated(problem)
        require_field(problem.what, J._rows, J._columns)
        return finish(J)

    return of_jacobian(name, f, argnums, batched, checked, key)


def of_jacobian(
    name: str, f: Any, argnums: Argnums, batched: bool, run: Callable[[Problem], Any], key: tuple[Any, ...]
) -> Transform:
    """A transform of the function at a point; `run` depends on the name and the key alone."""
    numbers = checked_argnums(name, f, argnums, least=1)

    def body(function: Any, args: tuple[Any, ...]) -> Any:
        return at_points(pick(name, function, numbers, args), batched, run)

    return Transform(name, f, places(numbers), body, (name, numbers, batched, *key), patterned=True)


def accumulated(problem: Problem, order: Any = "auto") -> Any:
    """The Jacobian of the function at a point."""
    from chainrule._accumulate.accumulate import accumulate

    return accumulate(problem, Options(order=order)).jacobian
