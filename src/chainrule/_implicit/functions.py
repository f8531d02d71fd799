"""Functions that equations define: their derivatives by the implicit function theorem, through structured solves."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._compiled import Transform
from chainrule._errors import ShapeError
from chainrule._implicit.refusals import named, refuse_singular, refuse_unsolved
from chainrule._linalg.iterative import require_method
from chainrule._optimize.newton import newton_loop
from chainrule._options import optional, require_count, require_tolerance
from chainrule._space import name_of, unit_of
from chainrule._trace import real_problem, scalar_function

_CONTRACTED = 20  # unknowns of a fixed point, beyond which it is solved by products, which converge soon
_POLISHING = 20  # steps of Newton's method after a minimiser


def implicit(g: Callable[..., Any], *, method: str = "auto") -> Callable[..., Any]:
    """The Jacobian dy/dx = -(∂g/∂y)⁻¹ ∂g/∂x of the function y(x) that g(x, y) = 0 defines near a solution.

    Parameters
    ----------
    g : callable
        g(x, y, *args): pytrees of arrays in and out, with as many outputs as y has numbers.
    method : str
        How the systems with ∂g/∂y are solved, as in `Jacobian.solve`; 'auto': by its structure, and on
        products (BiCGStab, then GMRES) where it is large and has no zeros.

    Returns
    -------
    callable
        (x, y, *args) -> `Jacobian` of shape (numbers of y, numbers of x), for a y with g(x, y, *args) = 0, which is not
        checked. It is assembled where (∂g/∂y)⁻¹ ∂g/∂x keeps zeros or is small, and else a map of products that holds
        the factors of ∂g/∂y: J @ dx and J.T @ w each take one solve.

    Raises
    ------
    ShapeError
        Where g has not as many outputs as y has numbers.
    SingularError
        Where ∂g/∂y is singular at the point, so that the theorem says nothing (inside `jit` the result is nan instead).

    Notes
    -----
    See Krantz and Parks, *The Implicit Function Theorem* (2002), chapter 3.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> circle = lambda x, y: x**2 + y**2 - 1
    >>> J = cr.implicit(circle)(jnp.array([0.6]), jnp.array([0.8]))
    >>> round(float(J[0, 0]), 4)  # -x/y
    -0.75
    """
    return implicit_of("implicit", g, method)


def implicit_of(name: str, g: Callable[..., Any], method: str) -> Callable[..., Any]:
    """`implicit`, by the name that errors give it."""
    require_method(name, method)
    what = f"{name} of {name_of(g)}"

    def body(function: Any, args: tuple[Any, ...]) -> Any:
        from chainrule._implicit.solve import implicit_jacobian

        x, y, *rest = args
        _require_as_many(what, lambda y: function(x, y, *rest), y)
        return implicit_jacobian(lambda x: function(x, y, *rest), lambda y: function(x, y, *rest), x, y, method)

    own = Transform("implicit", g, (0, 1), body, ("implicit", method), patterned=True)

    @functools.wraps(g)
    def at(x: Any, y: Any, *args: Any, **keywords: Any) -> Any:
        with named(name, what, (x, y)):
            J = own(x, y, *args, **keywords)
        refuse_singular(name, what, functools.partial(g, **keywords), x, y, args, J)
        return J

    return at


def root(
    g: Callable[..., Any],
    y0: Any,
    *,
    solver: Any = None,
    method: str = "auto",
    rtol: float | None = None,
    atol: float = 0.0,
    max_steps: int = 50,
) -> Callable[..., Any]:
    """The function x -> y that solves g(x, y) = 0, from the start y0, with the derivatives of the theorem.

    Parameters
    ----------
    g : callable
        g(x, y, *args): pytrees of arrays in and out, with as many outputs as y has numbers. It may close over arrays
        that are differentiated.
    y0 : pytree of arrays
        Where the solver starts, and what y looks like.
    solver : optimistix solver, optional
        Any that `optimistix.root_find` takes. Unless given, Newton's method with a line search, as in `newton`.
    method : str
        How the linear systems of Newton's method and of the derivatives are solved, as in `implicit`.
    rtol, atol : float
        As in `newton`; a solver of optimistix has tolerances of its own.
    max_steps : int
        Steps that are taken at most.

    Returns
    -------
    callable
        (x, *args) -> y. It works inside `jit` and `vmap`, and has derivatives of every order, forwards and backwards,
        in x, in args and in what g closes over. ∂g/∂y is factored once, at the solution, for all pushforwards and
        pullbacks there; the steps of the solver are not stored.

    Raises
    ------
    ConvergenceError
        Where the solver does not reach a solution: where it stopped, and the condition number of ∂g/∂y if it is
        singular there (inside `jit`, `vmap` and `grad` the result is nan instead).
    SingularError
        Where ∂g/∂y is singular by its zeros alone, whatever its values.
    ShapeError
        Where g has not as many outputs as y has numbers.

    Examples
    --------
    >>> import chainrule as cr, jax, jax.numpy as jnp
    >>> square_root = cr.root(lambda x, y: y**2 - x, jnp.array([1.0]))
    >>> square_root(jnp.array([4.0])).round(4).tolist()
    [2.0]
    >>> cr.jacobian(square_root)(jnp.array([4.0])).dense().round(4).tolist()  # 1 / (2 y)
    [[0.25]]
    """

    return root_of("root", g, y0, method, {"rtol": rtol, "atol": atol, "max_steps": max_steps, "solver": solver})


def root_of(name: str, g: Callable[..., Any], y0: Any, method: str, options: dict[str, Any]) -> Callable[..., Any]:
    """`root`, by the name that errors give it."""

    def find(f: Callable[[Any], Any], y0: Any) -> tuple[Any, Any]:
        if options["solver"] is None:
            return newton_loop(f, y0, _relative(y0, options["rtol"]), options["atol"], options["max_steps"], method)
        return _by_optimistix("root_find", f, options["solver"], y0, options["max_steps"])

    return _finder(name, g, lambda g: g, y0, find, method, options)


def fixed_point(
    f: Callable[..., Any],
    z0: Any,
    *,
    solver: Any = None,
    method: str = "auto",
    rtol: float | None = None,
    max_steps: int = 1000,
) -> Callable[..., Any]:
    """The function x -> z with z = f(x, z), from the start z0: a deep-equilibrium layer.

    dz/dx = (I - ∂f/∂z)⁻¹ ∂f/∂x, whatever way z was found: a pullback solves one linear system, and takes memory for one
    application of f, not for the iterations.

    Parameters
    ----------
    f : callable
        f(x, z, *args), a pytree like z. It may close over arrays that are differentiated.
    z0 : pytree of arrays
        Where the iteration starts.
    solver : optimistix solver, optional
        Any that `optimistix.fixed_point` takes (root finders too: `optimistix.Newton`). Unless given, z is replaced by
        f(x, z) until it changes by less than `rtol` relative to it, which needs a contraction.
    method : str
        How the systems with I - ∂f/∂z are solved, as in `implicit`.
    rtol : float, optional
        The rounding unit to the power 3/4 unless given.
    max_steps : int
        Steps that are taken at most.

    Returns
    -------
    callable
        (x, *args) -> z; see `root`.

    Raises
    ------
    ConvergenceError
        Where the iteration does not settle (inside `jit`, `vmap` and `grad` the result is nan instead).
    ShapeError
        Where f(x, z) is not like z.

    Notes
    -----
    See Bai, Kolter and Koltun, *Deep Equilibrium Models* (2019).

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> z = cr.fixed_point(lambda x, z: 0.5 * jnp.cos(z) + x, jnp.zeros(1))
    >>> J = cr.jacobian(z)(jnp.array([0.2]))  # 1 / (1 + sin(z) / 2)
    >>> round(float(J[0, 0]), 4)
    0.7774
    """

    def find(f: Callable[[Any], Any], z0: Any) -> tuple[Any, Any]:
        from chainrule._implicit.solve import iterated

        if solver is None:
            return iterated(f, z0, _relative(z0, rtol), max_steps)
        return _by_optimistix("fixed_point", f, solver, z0, max_steps)

    def residual(f: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def difference(x: Any, z: Any, *args: Any) -> Any:
            after = f(x, z, *args)
            found, own = (jax.tree.map(jnp.shape, v) for v in (after, z))
            if found != own:
                raise ShapeError(f"fixed_point of {name_of(f)}: f(x, z) has the shapes {found}, but z has {own}")
            return jax.tree.map(jnp.subtract, z, after)

        return difference

    return _finder(
        "fixed_point", f, residual, z0, find, method, {"rtol": rtol, "max_steps": max_steps, "solver": solver}
    )


def minimize_implicit(
    f: Callable[..., Any],
    y0: Any,
    *,
    solver: Any = None,
    method: str = "auto",
    rtol: float | None = None,
    max_steps: int = 1000,
) -> Callable[..., Any]:
    """The function x -> y that minimises f(x, y) over y, from the start y0: dy/dx = -(∂²f/∂y²)⁻¹ ∂²f/∂y∂x.

    Parameters
    ----------
    f : callable
        f(x, y, *args), one real number. It may close over arrays that are differentiated.
    y0 : pytree of arrays
        Where the solver starts, and what y looks like.
    solver : optimistix solver, optional
        Any that `optimistix.minimise` takes; BFGS unless given. Newton's method on ∂f/∂y = 0 follows, by which y is as
        exact as the arithmetic allows.
    method : str
        How the systems with the Hessian in y are solved, as in `implicit`.
    rtol : float, optional
        As in `newton`, for the steps at the end.
    max_steps : int
        Steps of the solver that are taken at most.

    Returns
    -------
    callable
        (x, *args) -> y; see `root`.

    Raises
    ------
    ConvergenceError
        Where no stationary point is found near the solver's last one, or it is a saddle point or a maximum, as far as
        a few products with the Hessian see (inside `jit`, `vmap` and `grad` the result is nan instead).
    SingularError
        Where the Hessian in y is singular by its zeros alone: f is linear in a part of y, or flat.
    ShapeError
        Where f gives anything but one real number.

    Notes
    -----
    That the Hessian at y has no negative eigenvalue is seen in 20 steps of Lanczos' method from one random direction.
    Up to 20 unknowns it sees all eigenvalues; beyond, one that is small against the largest, or few among many, may
    pass. Where the Hessian is singular it tells nothing: an inflection, as of (y - x)³ at x, is no minimum and may come
    back as one, with a derivative that is nan.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> ridge = cr.minimize_implicit(lambda x, y: ((y - x) ** 2).sum() + (y**2).sum(), jnp.zeros(2))
    >>> cr.jacobian(ridge)(jnp.array([1.0, 2.0])).diagonal().round(4).tolist()
    [0.5, 0.5]
    """
    scalar = functools.wraps(f)(scalar_function("minimize_implicit", f, False))

    def find(f: Callable[[Any], Any], y0: Any) -> tuple[Any, Any]:
        from chainrule._implicit.solve import curves_down

        tolerance = unit_of(y0) ** 0.5
        own = optional("minimize_implicit", "optimistix").BFGS(tolerance, tolerance) if solver is None else solver
        y, _ = _by_optimistix("minimise", f, own, y0, max_steps)  # whether it is a minimum, the next steps tell
        best, stationary = newton_loop(jax.grad(f), y, _relative(y0, rtol), 0.0, _POLISHING, method)
        return best, stationary & (f(best) <= f(y) + tolerance * (1 + abs(f(y)))) & ~curves_down(f, best)

    return _finder(
        "minimize_implicit",
        scalar,
        lambda f: jax.grad(f, 1),
        y0,
        find,
        method,
        {"rtol": rtol, "max_steps": max_steps, "solver": solver},
    )


def _finder(
    name: str,
    f: Callable[..., Any],
    residual: Callable[[Callable[..., Any]], Callable[..., Any]],
    y0: Any,
    find: Callable[[Any, Any], tuple[Any, Any]],
    method: str,
    options: dict[str, Any],
) -> Callable[..., Any]:
    """(x, *args) -> y: found without derivatives, which residual(f)(x, y) = 0 then gives it.

    What is compiled gives the solver's last point, too, which an error names.
    """
    what = f"{name} of {name_of(f)}"
    require_method(name, method)
    require_count(what, "max_steps", options["max_steps"])
    for own_name in ("rtol", "atol"):
        require_tolerance(what, own_name, options.get(own_name))

    def body(function: Any, args: tuple[Any, ...]) -> Any:
        from chainrule._implicit.solve import DENSE, converted, solution

        x, y0, *rest = args
        real_problem(name, lambda y: function(x, y, *rest), y0, "the start")
        own, closed_over = converted(lambda x, y: function(x, y, *rest), x, y0)
        _require_as_many(what, lambda y: residual(function)(x, y, *rest), y0)
        fixed_x, fixed, start = jax.lax.stop_gradient((x, closed_over, y0))
        with named(name, what):
            y, found = find(lambda y: own(fixed_x, y, *fixed), start)
        solved = jax.tree.map(lambda v: jnp.where(found, v, jnp.nan), y)
        dense = _CONTRACTED if name == "fixed_point" else DENSE
        return solution(residual(own), (method, dense), solved, x, closed_over), y

    own = Transform(name, f, (0, 1), body, (name, method, *options.values()), patterned=True)

    @functools.wraps(f)
    def solved(x: Any, *args: Any, **keywords: Any) -> Any:
        y, last = own(x, y0, *args, **keywords)
        refuse_unsolved(name, what, residual(functools.partial(f, **keywords)), y, last, (x, y0, args))
        return y

    return solved


def _relative(y0: Any, rtol: float | None) -> float:
    return unit_of(y0) ** 0.75 if rtol is None else rtol


def _by_optimistix(run: str, f: Callable[[Any], Any], solver: Any, y0: Any, max_steps: int) -> tuple[Any, Any]:
    """What a solver gives, and whether it says that it has converged."""
    optimistix = optional(run, "optimistix")
    found = getattr(optimistix, run)(lambda y, _: f(y), solver, y0, max_steps=max_steps, throw=False)
    return found.value, found.result == optimistix.RESULTS.successful


def _require_as_many(what: str, of_y: Callable[[Any], Any], y: Any) -> None:
    """Refuse equations that are more or fewer than the unknowns."""
    shapes = [x.shape for x in jax.tree.leaves(jax.eval_shape(of_y, y))]
    own = [tuple(np.shape(x)) for x in jax.tree.leaves(y)]
    if sum(map(math.prod, shapes)) != sum(map(math.prod, own)):
        raise ShapeError(
            f"{what}: the equations have shapes {shapes}, the unknowns {own}; give one equation for each unknown "
            "(least squares: the gradient of the sum of squares, as in minimize_implicit)"
        )
