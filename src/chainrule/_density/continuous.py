"""Continuous flows: a point and the logarithm of its density along an ordinary differential equation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._api import jacobian
from chainrule._compiled import Transform
from chainrule._errors import ChainruleError, ShapeError
from chainrule._fields.ode import integrated, settled
from chainrule._options import optional, require_count, require_tolerance
from chainrule._space import flat, name_of
from chainrule._stochastic.keyed import require_key
from chainrule._stochastic.probing import drawn_like
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
        Where diffrax is not installed; or where the steps are used up before t1, or a step fails (inside `jit`, `vmap`
        and `grad` the result is nan instead).
    InputTypeError
        As `jacobian`; where the key is none, or an option.
    ShapeError
        Where v is not like x; where a time or log_p0 is more than one number.

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
    what = f"integrate_density of {name_of(v)}"
    for name, given in (("t0", t0), ("t1", t1), ("log_p0", log_p0)):
        if np.shape(given) != ():
            raise ShapeError(f"{what}: {name} is one number, got the shape {np.shape(given)}; for many see jax.vmap")
    if key is not None:
        require_key(what, key)
    require_count(what, "max_steps", max_steps)
    require_tolerance(what, "rtol", rtol)
    require_tolerance(what, "atol", atol)
    options = "integrate_density", solver, rtol, atol, max_steps
    run = Transform("integrate_density", v, (0, 1, 2, 3, 4), _body(*options[1:]), options, patterned=True)
    found, done = run(x0, log_p0, t0, t1, key, *args)
    if isinstance(done, jax.core.Tracer) or bool(done):
        return found
    raise ChainruleError(
        f"{what}: the field was not followed from t0={t0} to t1={t1} in {max_steps} steps; give more max_steps, a "
        "shorter time or another solver, and see that v and its divergence are finite"
    )


def _body(solver: Any, rtol: float, atol: float, max_steps: int) -> Callable[..., Any]:
    def body(v: Any, args: tuple[Any, ...]) -> Any:
        x0, log_p0, t0, t1, key, *rest = args
        require_inputs(pick("integrate_density", v, 1, (t0, x0, *rest)), False)
        (x0, dtype), own = settled(x0), optional("integrate_density", "diffrax").Tsit5() if solver is None else solver
        times = jnp.stack([jnp.asarray(t, dtype) for t in (t0, t1)])
        _require_like(v, times[0], x0, rest)
        divergence = _exact(v) if key is None else _probed(v, drawn_like(key, x0, "rademacher"))

        def field(t: Any, state: Any) -> Any:
            x, log_p = state
            return v(t, x, *rest), -divergence(t, x, rest).astype(log_p.dtype)

        start = x0, jnp.asarray(log_p0, dtype)
        path, done = integrated("integrate_density", field, start, times, own, rtol, atol, max_steps)
        return jax.tree.map(lambda a: a[-1], path), done

    return body


def _require_like(v: Callable[..., Any], t0: Any, x0: Any, args: Sequence[Any]) -> None:
    found, wanted = jax.eval_shape(v, t0, x0, *args), jax.eval_shape(lambda x: x, x0)
    trees = [str(jax.tree.structure(a)) for a in (found, wanted)]
    shapes = [[a.shape for a in jax.tree.leaves(own)] for own in (found, wanted)]
    if trees[0] != trees[1] or shapes[0] != shapes[1]:
        raise ShapeError(
            f"integrate_density of {name_of(v)}: v(t, x) has shapes {shapes[0]} in {trees[0]}, x has {shapes[1]} in "
            f"{trees[1]}; a field is like x"
        )


Divergence = Callable[[Any, Any, Sequence[Any]], Any]


def _exact(v: Callable[..., Any]) -> Divergence:
    def of_x(x: Any, t: Any, *args: Any) -> Any:
        return v(t, x, *args)

    of_x.__name__ = name_of(v)
    J = jacobian(of_x)
    return lambda t, x, args: J(x, t, *args).trace()


def _probed(v: Callable[..., Any], probe: Any) -> Divergence:
    def divergence(t: Any, x: Any, args: Sequence[Any]) -> Any:
        _, along = jax.jvp(lambda x: v(t, x, *args), (x,), (probe,))
        return flat(probe) @ flat(along)

    return divergence
