"""The inverse of a map by substitution, where its links have (block-)triangular Jacobians after a permutation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from chainrule._compiled import Transform
from chainrule._options import count_of_batch
from chainrule._space import name_of


def triangular_inverse(f: Callable[..., Any], *, batched: bool = False) -> Callable[..., Any]:
    """The inverse of f by substitution: x with f(x) = y, found one level of dependencies after the other.

    Parameters
    ----------
    f : callable
        One-to-one, as `jacobian` takes it, with as many outputs as inputs in its first argument. Between places where
        as many numbers are alive as x has, its Jacobian should be triangular, or block-triangular, after a permutation.
    batched : bool
        Whether the arrays of y (and of the start) have a leading axis of points.

    Returns
    -------
    callable
        `inverse(y, *args, start=None)` gives x, like the first argument of f; args are the other ones. `start`: a point
        of the form of x at which f is defined; y itself unless given. It is differentiable in y, in args and in what f
        closes over, by the implicit function theorem: J dx = dy - (∂f/∂θ) dθ. Where no x is found, it is nan.

    Raises
    ------
    ShapeError
        Where f(start) has not the form of y, or x not as many numbers; where the points of a batch are not equally
        many in every leaf.
    SingularError
        Where the zeros of a link's Jacobian alone make it singular.

    Notes
    -----
    A link of L levels is inverted by x ← x - D(x)⁻¹ (f(x) - y) with the diagonal blocks D of its Jacobian. Where each
    number enters its own output affinely (coupling layers: L = 2; masked autoregressive layers: L = n) step k makes
    level k exact, and L + 1 runs of f are the most; levels that hardly depend on those below them are exact much before
    (Song et al., *Accelerating feedforward computation via parallel nonlinear equation solving*, 2021). Other scalar
    equations are solved by Newton's method and bisection, one level at a time. A `scan` is one link: write layers that
    are to be inverted as a loop of Python. See Papamakarios et al., *Normalizing flows for probabilistic modeling and
    inference* (2021), section 3.1.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> def coupling(x):
    ...     a, b = jnp.split(x, 2)
    ...     return jnp.concatenate([a, b * jnp.exp(a) + a**2])
    >>> x = jnp.array([0.5, -1.0, 2.0, 3.0])
    >>> bool(jnp.allclose(cr.triangular_inverse(coupling)(coupling(x)), x))
    True
    """

    def body(function: Any, args: tuple[Any, ...]) -> Any:
        from chainrule._density.inverting import inverted

        y, start, *rest = args
        start = y if start is None else start
        if not batched:
            return inverted(function, y, start, rest)
        count_of_batch(f"triangular_inverse of {name_of(function)}", (y, start))
        return jax.vmap(lambda y, start: inverted(function, y, start, rest))(y, start)

    transform = Transform("triangular_inverse", f, (0, 1), body, ("triangular_inverse", batched), patterned=True)

    def inverse(y: Any, *args: Any, start: Any = None, **keywords: Any) -> Any:
        """x with f(x, *args, **keywords) = y."""
        return transform(y, start, *args, **keywords)

    inverse.__name__ = f"inverse_of_{name_of(f)}"
    return inverse
