"""What functions that equations define refuse: no solution, and systems that are singular there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._api import jacobian
from chainrule._errors import ConvergenceError, SingularError
from chainrule._space import flat, unit_of

_SMALL = 1000  # unknowns, up to which an error gives the condition number
_SHOWN = 6  # numbers of a point that an error names
_OTHER = "allow more steps (max_steps), or choose another solver of optimistix (solver=)"
_ADVICE = {
    "root": f"Start nearer to one, {_OTHER}; chainrule.newton shows the iterations of Newton's method",
    "inverse": f"Invert around a point that is nearer to it (x0), {_OTHER}",
    "fixed_point": f"Start nearer to one, {_OTHER}: optimistix.Newton needs no contraction",
    "minimize_implicit": f"It got nowhere, or came to a saddle point or a maximum; start elsewhere, {_OTHER}",
}
_SYSTEM = {"fixed_point": "I - ∂f/∂z", "minimize_implicit": "the Hessian in y", "inverse": "J"}
_UNKNOWN = {"fixed_point": "z", "inverse": "x"}
_PROMISE = {"inverse": "there f has no differentiable inverse"}


@contextlib.contextmanager
def named(name: str, what: str, at: tuple[Any, Any] | None = None) -> Iterator[None]:
    """Say which system is singular by its zeros alone, and at which (x, y) where that is asked for and known."""
    try:
        yield
    except SingularError as error:
        known = at is not None and _all_finite(at) is not None
        where = f" (condition number inf) at {_place(name, *at)}" if at and known else ""
        raise SingularError(
            f"{what}: {_system(name)} is singular by its zeros alone{where}: some of its "
            "equations hold fewer unknowns than there are of them, and define no differentiable function"
        ) from error


def _all_finite(*trees: Any) -> bool | None:
    """Whether all numbers are finite; None inside a trace."""
    leaves = jax.tree.leaves(trees)
    if any(isinstance(a, jax.core.Tracer) for a in leaves):
        return None
    return all(bool(jnp.isfinite(a).all()) for a in leaves if jnp.issubdtype(jnp.result_type(a), jnp.inexact))


def refuse_unsolved(name: str, what: str, g: Callable[..., Any], y: Any, last: Any, given: Any) -> None:
    """Where no y was found, say where the solver was at the end, and whether g(x, y) = 0 is singular there."""
    if _all_finite(y) is not False or not _all_finite(given):
        return
    x, _, args = given
    where = f", at {_place(name, x, last)}{_condition_there(name, g, x, last, args)}" if _all_finite(last) else ""
    raise ConvergenceError(f"{what}: the solver stopped without a solution{where}. {_ADVICE[name]}")


def _condition_there(name: str, g: Callable[..., Any], x: Any, y: Any, args: Any) -> str:
    if flat(y).size > _SMALL:
        return ""
    A = jacobian(g, argnums=1)(x, y, *args)
    if not _all_finite(A):
        return f", where {_system(name)} is not finite"
    condition = float(A.cond())
    singular = condition * unit_of(y) > 0.1
    return f", where {_system(name)} is singular (condition number {condition:.3g})" if singular else ""


def refuse_singular(name: str, what: str, g: Callable[..., Any], x: Any, y: Any, args: Any, J: Any) -> None:
    """Where ∂g/∂y is singular, say so, at which point, and how badly it is conditioned."""
    if J._products_only:
        J = J @ jnp.ones(J.shape[1], J.dtype)
    if _all_finite(J) is not False or not _all_finite((x, y, args)):
        return
    A = jacobian(g, argnums=1)(x, y, *args)
    if not _all_finite(A):
        raise SingularError(f"{what}: {_system(name)} is not finite at {_place(name, x, y)}")
    condition = f"condition number {float(A.cond()):.3g}" if A.shape[0] <= _SMALL else "not invertible"
    promise = _PROMISE.get(name, "there g(x, y) = 0 does not define y as a differentiable function of x")
    raise SingularError(
        f"{what}: {_system(name)}, {A!r}, is singular to working precision ({condition}) at {_place(name, x, y)}: "
        f"{promise}"
    )


def _system(name: str) -> str:
    return _SYSTEM.get(name, "∂g/∂y")


def _place(name: str, x: Any, y: Any) -> str:
    """The point in the names of the function; of an inverse x is the unknown, and what is given is y."""
    unknown = _UNKNOWN.get(name, "y")
    return f"{unknown} = {_point(y)}, {'y' if unknown == 'x' else 'x'} = {_point(x)}"


def _point(x: Any) -> str:
    numbers = np.asarray(flat(x))
    shown = ", ".join(f"{v:.6g}" for v in numbers[:_SHOWN])
    return f"[{shown}{', …' if len(numbers) > _SHOWN else ''}]"
