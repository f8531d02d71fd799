"""Ordinary differential equations by diffrax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from chainrule._options import optional
from chainrule._space import promoted

Field = Callable[[Any, Any], Any]  # (t, x) -> dx/dt


def settled(x0: Any) -> tuple[Any, Any]:
    """x0 as arrays, none of a weak type, and the dtype of all of them together, which is that of the time."""
    x0 = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), x0)
    return x0, promoted(*[x.dtype for x in jax.tree.leaves(x0)])


def integrated(
    what: str, field: Field, x0: Any, times: Any, solver: Any, rtol: float, atol: float, max_steps: int
) -> tuple[Any, Any]:
    """The points at these times from the first on, nan where not all were reached, and whether they were."""
    diffrax = optional(what, "diffrax")
    found = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, x, _: field(t, x)),
        solver,
        times[0],
        times[-1],
        None,
        x0,
        saveat=diffrax.SaveAt(ts=times),
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
        max_steps=max_steps,
        throw=False,
    )
    finite = [jnp.isfinite(x).all() for x in jax.tree.leaves(found.ys)]
    reached = jax.tree.map(lambda x: jnp.where(jnp.isfinite(x), x, jnp.nan), found.ys)
    return reached, jnp.stack([found.result == diffrax.RESULTS.successful, *finite]).all()
