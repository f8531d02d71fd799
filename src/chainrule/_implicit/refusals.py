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
from chainrule._space import flat

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


@contextlib.contextmanager
def named(name: str, what: str, at: tuple[Any, Any] | None = None) -> Iterator[None]:
    """Say which system is singular by its zeros alone, and at which (x, y) where that is asked for and known."""
    try:
        yield
    except SingularError as error:
        known = at is not None and _all_finite(at) is not None
        where = f" (condition number inf) at y = {_point(at[1])}, x = {_point(at[0])}" if at and known else ""
        raise SingularError(
            f"{what}: {_SYSTEM.get(name, '∂g/∂y')} is singular by its zeros alone{where}: some of its "
            "equations hold fewer unknowns than there are of them, and define no differentiable function"
        ) from error


def _all_finite(*trees: Any) -> bool | None:
    """Whether all numbers are finite; None inside a trace."""
    leaves = jax.tree.leaves(trees)
    if any(isinstance(a, jax.core.Tracer) for a in leaves):
        return None
    return all(bool(jnp.isfinite(a).all()) for a in leaves if jnp.issubdtype(jnp.result_type(a), jnp.inexact))


def refuse_unsolved(name: str, what: str, y: Any, given: Any) -> None:
    if _all_finite(y) is False and _all_finite(given):
        raise ConvergenceError(f"{what}: the solver stopped without a solution. {_ADVICE[name]}")


def refuse_singular(what: str, g: Callable[..., Any], x: Any, y: Any, args: Any, J: Any) -> None:
    """Where ∂g/∂y is singular, say so, at which point, and how badly it is conditioned."""
    if J._products_only:
        J = J @ jnp.ones(J.shape[1], J.dtype)
    if _all_finite(J) is not False or not _all_finite((x, y, args)):
        return
    A = jacobian(g, argnums=1)(x, y, *args)
    if not _all_finite(A):
        raise SingularError(f"{what}: ∂g/∂y is not finite at y = {_point(y)}, x = {_point(x)}")
    condition = f"condition number {float(A.cond()):.3g}" if A.shape[0] <= _SMALL else "not invertible"
    raise SingularError(
        f"{what}: ∂g/∂y, {A!r}, is singular to working precision ({condition}) at y = {_point(y)}, x = {_point(x)}: "
        "there g(x, y) = 0 does not define y as a differentiable function of x"
    )


def _point(x: Any) -> str:
    numbers = np.asarray(flat(x))
    shown = ", ".join(f"{v:.6g}" for v in numbers[:_SHOWN])
    return f"[{shown}{', …' if len(numbers) > _SHOWN else ''}]"
