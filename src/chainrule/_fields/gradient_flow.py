"""Gradient flow, and how fast a loss falls along it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from chainrule._compiled import Transform
from chainrule._errors import ChainruleError
from chainrule._fields.ode import integrated, settled
from chainrule._options import count_of_points, optional, require_count, require_tolerance
from chainrule._space import flat, name_of, shown
from chainrule._trace import real_problem, scalar_function

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float


class GradientFlow(NamedTuple):
    """The path of a gradient flow at k times.

    times : (k,) from 0 to t1. points : a pytree like x0 with a leading axis of k. losses : (k,), f at the points.
    squared_norms : (k,), ‖∇f‖² at the points: the rate at which the loss falls.
    """

    times: Float[Array, " k"]
    points: Any
    losses: Float[Array, " k"]
    squared_norms: Float[Array, " k"]

    def __repr__(self) -> str:
        points = ", ".join(shown(x) for x in jax.tree.leaves(self.points))
        paths = self.times, self.losses, self.squared_norms
        last = [shown(v[..., -1] if getattr(v, "ndim", 0) else v) for v in paths]  # a pytree may hold anything
        return "GradientFlow {} to time {} · loss {}, squared norm {} there".format(points, *last)


def gradient_flow(
    f: Callable[..., Any],
    x0: Any,
    t1: Any,
    *args: Any,
    points: int = 101,
    stiff: bool = False,
    rtol: float | None = None,
    atol: float | None = None,
    max_steps: int = 4096,
) -> GradientFlow:
    """Follow dx/dt = -∇f(x, *args) from x0 for a time t1: the path that gradient descent takes with small steps.

    Along it df/dt = -‖∇f‖². Gradient descent with the rate h, x - h ∇f(x), is its explicit Euler step: it follows the
    flow where h is small, and may go up where h is more than 2 by the largest curvature.

    Parameters
    ----------
    f : callable
        A real function of x and of `args`, as for `gradient`.
    x0 : pytree of arrays
        Where to start.
    t1 : number
        How long, from 0 on.
    *args
        Whatever else f takes. New values of these need no new compilation.
    points : int
        At how many times, evenly from 0 to t1, the path is given.
    stiff : bool
        Whether curvatures differ so much that an explicit method would take many small steps. False takes Tsit5, True
        Kvaerno5, whose linear systems are solved by the structure of the Hessian (`StructuredSolver`).
    rtol, atol : float, optional
        Errors that are allowed in a step, relative and absolute; 1e-8 for float64 and 1e-5 for float32 unless given.
    max_steps : int
        Steps that are taken at most.

    Returns
    -------
    GradientFlow
        With `times` (k,), `points` (a pytree like x0, with a leading axis of k), `losses` (k,) and `squared_norms`
        (k,), for k = `points`.

    Raises
    ------
    ChainruleError
        Where diffrax is not installed; or where the steps are used up before t1, or a step fails (inside `jit`,
        `vmap` and `grad` the points are nan instead).
    ShapeError
        Where f gives anything but one real number.
    InputTypeError
        Where x0 is not real and floating point, or an option is none.

    Notes
    -----
    By diffrax. See Santambrogio, *{Euclidean, metric, and Wasserstein} gradient flows: an overview* (2017), section 2.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> flow = cr.gradient_flow(lambda x: x @ x / 2, jnp.array([1.0, 2.0]), 1.0, points=3)
    >>> flow.times.tolist(), (flow.points[-1] * jnp.e).round(3).tolist()
    ([0.0, 0.5, 1.0], [1.0, 2.0])
    """
    options = _options(f, t1, points, stiff, rtol, atol, max_steps)
    run = Transform("gradient_flow", f, (0, 1), _body(options), ("gradient_flow", *options.items()))
    found, done = run(x0, t1, *args)
    if isinstance(done, jax.core.Tracer) or bool(done):
        return found
    raise ChainruleError(
        f"gradient_flow of {name_of(f)}: the flow was not followed to t1={t1} in {max_steps} steps; "
        + ("give more max_steps" if stiff else "give stiff=True, more max_steps")
        + " or a shorter time, and see that f and its gradient are finite"
    )


def _options(f: Any, t1: Any, points: Any, stiff: Any, rtol: Any, atol: Any, max_steps: Any) -> dict[str, Any]:
    what = f"gradient_flow of {name_of(f)}"
    require_count(what, "points", points, 2)
    require_count(what, "max_steps", max_steps)
    for name, given in (("t1", t1), ("rtol", rtol), ("atol", atol)):
        require_tolerance(what, name, given)
    return {"points": points, "stiff": bool(stiff), "rtol": rtol, "atol": atol, "max_steps": max_steps}


def _body(options: dict[str, Any]) -> Callable[..., Any]:
    def body(function: Any, args: tuple[Any, ...]) -> Any:
        x0, t1, *rest = args
        real_problem("gradient_flow", lambda x: function(x, *rest), x0, "x0")
        loss = scalar_function("gradient_flow", function, False)
        x0, dtype = settled(x0)
        times = jnp.linspace(jnp.zeros((), dtype), jnp.asarray(t1, dtype), options["points"])
        usual = 1e-5 if jnp.finfo(dtype).eps > 1e-10 else 1e-8
        rtol, atol = (usual if options[name] is None else options[name] for name in ("rtol", "atol"))
        solver = _solver(options["stiff"], rtol, atol)

        def downhill(t: Any, x: Any) -> Any:
            return jax.tree.map(jnp.negative, jax.grad(loss)(x, *rest))

        points, done = integrated("gradient_flow", downhill, x0, times, solver, rtol, atol, options["max_steps"])

        def at(x: Any) -> Any:
            value, slope = jax.value_and_grad(loss)(x, *rest)
            return value, (flat(slope) ** 2).sum()

        return GradientFlow(times, points, *jax.vmap(at)(points)), done

    return body


def _solver(stiff: bool, rtol: float, atol: float) -> Any:
    diffrax = optional("gradient_flow", "diffrax")
    if not stiff:
        return diffrax.Tsit5()
    from chainrule._solver import StructuredSolver

    return diffrax.Kvaerno5(root_finder=diffrax.VeryChord(rtol, atol, linear_solver=StructuredSolver()))


def polyak_lojasiewicz(f: Callable[..., Any], path: Any, *args: Any, minimum: Any) -> Float[Array, ""]:
    """The Polyak-Łojasiewicz constant of f along a path: the least of ½ ‖∇f(x)‖² / (f(x) - f*) over its points.

    With μ for it, f - f* ≤ (f(x0) - f*) exp(-2 μ t) along a gradient flow, as long as no point between those that are
    given has a smaller ratio. On a quadratic, μ lies between the least and the largest curvature.

    Parameters
    ----------
    f : callable
        A real function of x and of `args`, as for `gradient`.
    path : GradientFlow or pytree of arrays
        What `gradient_flow` gives, or points x along a leading axis of k in every leaf.
    *args
        Whatever else f takes.
    minimum : number
        f*, the least value of f.

    Returns
    -------
    array of shape ()
        μ; inf where f is f* at all points. Points where f is f* but for rounding are left out, for their ratio is
        0 / 0.

    Raises
    ------
    ChainruleError
        Where f is below `minimum` at a point, by more than rounding (inside `jit`, `vmap` and `grad` the result is
        nan instead).
    ShapeError
        Where f gives anything but one real number, or the path has no leading axis.
    InputTypeError
        Where the path is not real and floating point.

    Notes
    -----
    See Karimi, Nutini and Schmidt, *Linear convergence of gradient and proximal-gradient methods under the
    Polyak-Łojasiewicz condition* (2016), section 2.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> f = lambda x: (2 * x[0] ** 2 + 6 * x[1] ** 2) / 2
    >>> cr.polyak_lojasiewicz(f, jnp.array([[1.0, 0.0], [0.0, 1.0]]), minimum=0.0).item()
    2.0
    """
    points = path.points if isinstance(path, GradientFlow) else path
    what = f"polyak_lojasiewicz of {name_of(f)}"
    count_of_points(what, "a path has its", points)
    run = Transform("polyak_lojasiewicz", f, (0, 1), _least_ratio, ("polyak_lojasiewicz",))
    mu, below = run(points, minimum, *args)
    if not isinstance(below, jax.core.Tracer) and bool(below > 0):
        raise ChainruleError(f"{what}: f is below minimum={minimum} by {float(below):.3g} at a point of the path")
    return mu


def _least_ratio(function: Any, args: tuple[Any, ...]) -> Any:
    points, minimum, *rest = args
    real_problem("polyak_lojasiewicz", function, points, "the path")
    loss = scalar_function("polyak_lojasiewicz", function, False)
    values, slopes = jax.vmap(lambda x: jax.value_and_grad(loss)(x, *rest))(points)
    squares = jax.vmap(lambda g: (flat(g) ** 2).sum())(slopes)
    least = jnp.asarray(minimum, values.dtype)
    above, rounding = values - least, _UNITS * jnp.finfo(values.dtype).eps * jnp.maximum(abs(values), abs(least))
    known = above > rounding
    ratios = jnp.where(known, squares / (2 * jnp.where(known, above, 1)), jnp.inf)
    below = jnp.where(above < -rounding, -above, 0).max(initial=0)
    unsound = (below > 0) | ~jnp.isfinite(values).all()
    return jnp.where(unsound, jnp.nan, ratios.min(initial=jnp.inf)), below


_UNITS = 100  # rounding units, up to which f is f*
