"""The explorer: `explain(f)(x)` shows the chain rule at work on a function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chainrule.explain.explanation import Explain


def explain(f: Callable[..., Any], argnums: int | Sequence[int] = 0, *, detail: str = "auto") -> Explain:
    """See the chain rule at work on a function: its steps, their local Jacobians, paths, sweeps and costs.

    Parameters
    ----------
    f, argnums
        As for `jacobian`.
    detail : {'auto', 'operations', 'lines'}
        Whether a step is an operation of a line or a whole line of the source; long programs go by lines.

    Returns
    -------
    Explain
        A function of the arguments of `f` that gives an `Explanation`.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> print(cr.explain(lambda x: jnp.sin(x) * 2.0)(jnp.ones(3)).table())
    edge    local Jacobian  shape  structure
    x → u₁  Diag(sin′)      3×3    diagonal
    u₁ → y  2.0 I           3×3    scaled identity
    <BLANKLINE>
    J = (2.0 I) Diag(sin′)
    """
    from chainrule.explain.explanation import Explain

    return Explain(f, argnums, detail)
