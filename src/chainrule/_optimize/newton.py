"""Newton's method for equations, by the structure of their Jacobian."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._api import value_and_jacobian
from chainrule._compiled import Known, Transform
from chainrule._errors import InputTypeError, ShapeError
from chainrule._linalg.iterative import KRYLOV, require_method
from chainrule._optimize.descent import ARMIJO, moved, search, start
from chainrule._optimize.solution import Iteration, Report, Solution
from chainrule._space import flat, name_of, unit_of


def newton(
    f: Callable[..., Any],
    x0: Any,
    *args: Any,
    method: str = "auto",
    rtol: float | None = None,
    atol: float = 0.0,
    max_iterations: int = 50,
    report: bool = False,
) -> Solution:
    """Solve f(x, *args) = 0 by Newton's method: J d = -f(x), by the structure of J, and a backtracking line search.

    Parameters
    ----------
    f : callable
        A function as for `jacobian`, of x and of `args`, with as many outputs as unknowns.
    x0 : pytree of arrays
        Where to start.
    *args
        Whatever else f takes. New values of these need no new compilation.
    method : str
        How J d = -f is solved, as in `Jacobian.solve`.
    rtol : float, optional
        The relative error of x that is allowed for: every |f(x)_i| is to be at most `rtol` · Σ_j |J_ij| max(|x_j|,
        |x0_j|), which is what such an error of x would change it by; the rounding unit to the power 3/4 unless given.
        So neither the scale of an equation nor that of an unknown matters.
    atol : float
        Converged as well where ‖f(x)‖ is at most this.
    max_iterations : int
        Steps that are taken at most.
    report : bool
        Print a line for each iteration as it runs.

    Returns
    -------
    Solution
        With `x`, `value` (f(x)), `norm` (‖f(x)‖), `iterations`, `converged`, `message`, `history`; `print` it for a
        table. Where J is singular to working precision, where no part of a step lowers ‖f(x)‖, where f is not finite
        or the iterations are used up, `converged` is False, `message` says why, and x is the best point so far.

    Raises
    ------
    InputTypeError
        As `jacobian`; or inside `jit`, `vmap` and `grad`: this is a loop of the host.
    ShapeError
        Where f has not as many outputs as inputs.
    SingularError
        Where the pattern of J alone makes it singular, whatever x is.

    Notes
    -----
    Each iteration is one compiled program, compiled once. See Dennis and Schnabel, *Numerical Methods for Unconstrained
    Optimization and Nonlinear Equations* (1983), chapter 6.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> s = cr.newton(lambda x, a: x**3 - a, jnp.array([1.0, 1.0]), jnp.array([8.0, 27.0]))
    >>> s.converged, s.x.round(3).tolist()
    (True, [2.0, 3.0])
    """
    require_method("newton", method)
    x, _ = start("newton", f, x0, {"rtol": rtol, "atol": atol}, max_iterations)
    relative = unit_of(x) ** 0.75 if rtol is None else rtol
    step = _transform(f, method)
    log, first = Report(report, minimised=False), x
    for k in range(max_iterations + 1):
        value, following, found = _run(step, f, x, first, relative, atol, *args)
        norm, d, t = (float(found[name]) for name in ("norm", "step", "fraction"))
        stop = _why_it_stops(found, norm, k, k == max_iterations, method)
        log.add(Iteration(np.nan, norm, *((np.nan, 0.0, "") if stop else (d, t, "Newton"))))
        if stop:
            break
        x = following
    what = f"newton of {name_of(f)}: J is {found['words'].value}"
    return Solution(what, x, value, norm, k, bool(found["done"]), stop, tuple(log.rows))


def _run(step: Transform, f: Any, *args: Any) -> Any:
    """One iteration; where KLU makes an error of the compiled program of a singular matrix, by the structure."""
    try:
        return jax.block_until_ready(step(*args))
    except jax.errors.JaxRuntimeError as error:
        if "singular" not in str(error):
            raise
        return _transform(f, "auto")(*args)


def _transform(f: Any, method: str) -> Transform:
    return Transform("newton", f, tuple(range(4)), _step(method), ("newton", method), patterned=True)


def _why_it_stops(found: Any, norm: float, k: int, last: bool, method: str) -> str:
    if found["done"]:
        return f"‖f(x)‖ = {norm:.3e}"
    if not np.isfinite(norm):
        return f"f(x{k}) is not finite"
    if last:
        return f"the {k} iterations that were allowed are used up, at ‖f(x)‖ = {norm:.3e}"
    if not found["solved"]:
        reason = "is singular to working precision" if method not in KRYLOV else f"is not solved with by {method}"
        return f"J at iteration {k} {reason}, or not finite, at ‖f(x)‖ = {norm:.3e}"
    if not found["lower"]:
        return f"no part of the Newton step lowers ‖f(x)‖ = {norm:.3e}: a minimum of it that is no root, or rounding"
    return ""


def _step(method: str) -> Callable[..., Any]:
    def body(function: Any, args: tuple[Any, ...]) -> Any:
        x, first, rtol, atol, *rest = args
        y, J = value_and_jacobian(function)(x, *rest)
        if J.shape[0] != J.shape[1]:
            raise ShapeError(
                f"newton: {J._says('J')} is not square; chainrule.scipy.least_squares takes any number of equations."
            )
        if jnp.issubdtype(J.dtype, jnp.complexfloating):
            raise InputTypeError(f"newton of {name_of(function)}: f(x) is complex; give its real and imaginary parts")
        rows, cols, entries = J.coo()
        residual, size = flat(y), jnp.maximum(abs(flat(x)), abs(flat(first)))
        reach = jnp.zeros_like(residual).at[rows].add((abs(entries) * size[cols]).astype(residual.dtype))
        norm = jnp.linalg.norm(residual)
        done = jnp.all(abs(residual) <= rtol * reach) | (norm <= atol)

        def move(x: Any) -> Any:
            d = J.solve(jax.tree.map(jnp.negative, y), method=method)
            t, found = search(
                lambda t: jnp.linalg.norm(flat(function(moved(x, t, d), *rest))),
                lambda t, new: new <= (1 - ARMIJO * t) * norm,
                norm.dtype,
            )
            solved = jnp.isfinite(flat(d)).all()
            return moved(x, jnp.where(found, t, 0), d), jnp.linalg.norm(flat(d)).astype(norm.dtype), t, found, solved

        def stay(x: Any) -> Any:
            nothing = jnp.zeros_like(norm)
            return x, nothing, nothing, jnp.array(True), jnp.array(True)

        following, step, t, lower, solved = jax.lax.cond(done | ~jnp.isfinite(norm), stay, move, x)
        found = {"norm": norm, "step": step, "fraction": t, "done": done, "lower": lower, "solved": solved}
        return y, following, {**found, "words": Known(str(J.structure))}

    return body


def newton_loop(
    f: Callable[..., Any], x0: Any, rtol: float, atol: float, max_iterations: int, method: str
) -> tuple[Any, Any]:
    """The same iterations as one loop that can be traced: x, and whether f(x) = 0 to the tolerance."""
    step = _step(method)

    def once(state: Any) -> Any:
        x, k, *_ = state
        _, x, found = step(f, (x, x0, rtol, atol))
        goes_on = found["solved"] & found["lower"] & jnp.isfinite(found["norm"])
        return x, k + 1, found["done"], goes_on

    x, _, done, _ = jax.lax.while_loop(
        lambda state: (state[1] <= max_iterations) & ~state[2] & state[3],
        once,
        (x0, 0, jnp.array(False), jnp.array(True)),
    )
    return x, done
