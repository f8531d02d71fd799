"""What iterations that lower a number share: their start, a point along a step, and the search for how far to go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from chainrule._errors import InputTypeError
from chainrule._options import require_count, require_tolerance
from chainrule._space import promoted
from chainrule._trace import real_problem

_HALVINGS = 40
ARMIJO = 1e-4  # the part of the decrease that the slope promises which a step must give


def start(name: str, f: Any, x0: Any, tolerances: dict[str, Any], max_iterations: Any) -> tuple[Any, Any]:
    """x0 as arrays and the dtype of all of them together; refuse what no iteration can start from."""
    problem = real_problem(name, f, x0, "x0")
    if any(isinstance(x, jax.core.Tracer) for x in problem.leaves):
        raise InputTypeError(
            f"{problem.what}: x0 is traced (inside jit, vmap or grad), and this is a loop of the host: call it outside"
        )
    for what, given in tolerances.items():
        require_tolerance(problem.what, what, given)
    require_count(problem.what, "max_iterations", max_iterations, 0)
    leaves = [jnp.asarray(x, x.dtype) for x in problem.leaves]  # none of a weak type, as those that follow have none
    return jax.tree.unflatten(problem.tree, leaves), promoted(*(x.dtype for x in problem.leaves))


def moved(x: Any, t: Any, d: Any) -> Any:
    """x + t d, leaf by leaf in the dtypes of x; x itself where t is 0, whatever d is."""
    return jax.tree.map(lambda a, b: jnp.where(t == 0, a, a + t.astype(a.dtype) * b.astype(a.dtype)), x, d)


def search(trial: Callable[[Any], Any], accepted: Callable[[Any, Any], Any], dtype: Any) -> tuple[Any, Any]:
    """The first of t = 1, 1/2, 1/4, … that is accepted, and whether there is one; nan never is."""
    one = jnp.ones((), dtype)
    t, new, _ = jax.lax.while_loop(
        lambda state: ~accepted(state[0], state[1]) & (state[2] < _HALVINGS),
        lambda state: (state[0] / 2, trial(state[0] / 2), state[2] + 1),
        (one, trial(one), 0),
    )
    return t, accepted(t, new)
