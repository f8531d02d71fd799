"""Continuous flows: a point and the logarithm of its density along an ordinary differential equation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from chainrule._api import jacobian
from chainrule._errors import ChainruleError, ShapeError
from chainrule._space import flat, name_of
from chainrule._trace import pick, require_inputs


def integrate_density(
    v: Callable[..., Any],
    x0: Any,
    log_p0: Any,
    t0: Any,
    t1: Any,
    *args: Any,
    key: Any = None,
    solver: Any = None,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    max_steps: int = 4096,
) -> tuple[Any, Any]:
    """Carry a point and the logarithm of its density along a field, from time t0 to t1.

        dx/dt = v(t, x),    d log p(x(t)) / dt = -div v(t, x) = -tr ∂v/∂x

    Parameters
    ----------
    v : callable
        The field v(t, x, *args), like x.
    x0 : pytree of arrays
        The point at t0.
    log_p0 : float
        The logarithm of the density at x0 and t0.
    t0, t1 : float
        From when to when; t1 may lie before t0.
    *args
        Whatever else v takes.
    key : jax.random.key, optional
        Estimate the divergence by εᵀ (∂v/∂x) ε with one ε of random signs for the whole way, at the cost of a single
        product; unbiased for log p (Grathwohl et al. 2019). Without a key the divergence is exact, from the structure
        of ∂v/∂x.
    solver : diffrax.AbstractSolver, optional
        `diffrax.Tsit5()` unless given; for a stiff field an implicit one with `StructuredSolver`.
    rtol, atol, max_steps
        Tolerances of the adaptive steps, and how many there may be.

    Returns
    -------
    tuple
        (x(t1), log p(x(t1))). Samples x0 of p0 with log_p0 = log p0(x0) become samples of p1 with their log-densities.
        For the density of a given x at t1, carry (x, 0.0) back to t0: with (z, d) that is log p0(z) - d. It is
        differentiable by all arguments and by what v closes over; for many points use `jax.vmap`.

    Raises
    ------
    ChainruleError
        Where diffrax is not installed.
    InputTypeError
        As `jacobian`.
    ShapeError
        Where v is not like x.

    Notes
    -----
    The instantaneous change of variables of Chen et al., *Neural ordinary differential equations* (2018), theorem 1.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> x, log_p = cr.integrate_density(lambda t, x: -0.5 * x, jnp.array([1.0, 2.0]), 0.0, 0.0, 2.0)
    >>> bool(jnp.allclose(x, jnp.exp(-1.0) * jnp.array([1.0, 2.0]), rtol=1e-4)), round(float(log_p), 4)
    (True, 2.0)
    """
    try:
        import diffrax
    except ImportError as error:
        raise ChainruleError("integrate_density needs diffrax: pip install 'chainrule[solvers]'") from error
    require_inputs(pick("integrate_density", v, 1, (t0, x0, *args)), False)
    x0 = jax.tree.map(jnp.asarray, x0)
    _require_like(v, t0, x0, args)
    divergence = _exact(v) if key is None else _probed(v, _signs(key, x0))

    def field(t: Any, state: Any, args: Any) -> Any:
        x, log_p = state
        return v(t, x, *args), -divergence(t, x, args).astype(log_p.dtype)

    start = x0, jnp.asarray(log_p0, flat(x0).dtype)
    found = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        diffrax.Tsit5() if solver is None else solver,
        t0,
        t1,
        None,
        start,
        args,
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
        max_steps=max_steps,
    )
    x, log_p = found.ys
    return jax.tree.map(lambda a: a[-1], x), log_p[-1]


def _require_like(v: Callable[..., Any], t0: Any, x0: Any, args: tuple[Any, ...]) -> None:
    found, wanted = jax.eval_shape(v, t0, x0, *args), jax.eval_shape(lambda x: x, x0)
    trees = [str(jax.tree.structure(a)) for a in (found, wanted)]
    shapes = [[a.shape for a in jax.tree.leaves(own)] for own in (found, wanted)]
    if trees[0] != trees[1] or shapes[0] != shapes[1]:
        raise ShapeError(
            f"integrate_density of {name_of(v)}: v(t, x) has shapes {shapes[0]} in {trees[0]}, x has {shapes[1]} in "
            f"{trees[1]}; a field is like x"
        )


Divergence = Callable[[Any, Any, tuple[Any, ...]], Any]


def _exact(v: Callable[..., Any]) -> Divergence:
    def of_x(x: Any, t: Any, *args: Any) -> Any:
        return v(t, x, *args)

    of_x.__name__ = name_of(v)
    J = jacobian(of_x)
    return lambda t, x, args: J(x, t, *args).trace()


def _signs(key: Any, x: Any) -> Any:
    """A pytree like x of random signs."""
    leaves, tree = jax.tree.flatten(x)
    keys = jax.random.split(key, len(leaves))
    own = [jax.random.rademacher(k, a.shape, a.dtype) for k, a in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, own)


def _probed(v: Callable[..., Any], probe: Any) -> Divergence:
    def divergence(t: Any, x: Any, args: tuple[Any, ...]) -> Any:
        _, along = jax.jvp(lambda x: v(t, x, *args), (x,), (probe,))
        return flat(probe) @ flat(along)

    return divergence
