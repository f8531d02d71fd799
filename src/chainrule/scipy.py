"""Ready arguments for SciPy's solvers, with exact derivatives that are sparse where they are sparse.

Each function has the name of a solver, and gives its keyword arguments, to be passed by `**`; import the module by its
name. Unknowns may be any pytree of real arrays: SciPy sees one flat vector of float64, `unflatten` brings it back. Set
`jax_enable_x64`, or float32 is what the solver's differences are made of.

Examples
--------
>>> import jax.numpy as jnp, scipy.optimize
>>> import chainrule.scipy as crs
>>> given = crs.least_squares(lambda p: p["a"] * jnp.arange(3.0) + p["b"] - 1.0, {"a": jnp.ones(()), "b": jnp.ones(())})
>>> fit = scipy.optimize.least_squares(**given, bounds=(0, 2))
>>> round(float(given.unflatten(fit.x)["b"]), 3)
1.0
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from chainrule._api import hessian, jacobian, linearize
from chainrule._compiled import Transform
from chainrule._errors import InputTypeError
from chainrule._linalg.methods import is_sparse
from chainrule._optimize.interior_point import InteriorPoint as InteriorPoint
from chainrule._optimize.unknowns import Unknowns, as_float64, flat_value, remembering, weighted
from chainrule._trace import scalar_function

_FORMS = ("auto", "sparse", "dense", "product")
_ROOT = ("hybr", "lm")  # the methods of `root` that take a Jacobian
_HESSIANS = {  # what the methods of `minimize` that take a Hessian do with it, and whether as `hess`
    "newton-cg": ("product", "sparse", "dense"),
    "trust-ncg": ("product", "dense"),
    "trust-krylov": ("product", "dense"),
    "trust-constr": ("auto", "sparse", "dense", "product"),
    "dogleg": ("dense",),
    "trust-exact": ("dense",),
}
_IMPLICIT = {"Radau": ("auto", "sparse", "dense"), "BDF": ("auto", "sparse", "dense"), "LSODA": ("dense",)}


class Arguments(dict[str, Any]):
    """The keyword arguments of a solver; `unflatten` brings a flat vector of its result into the form of x0.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import chainrule.scipy as crs
    >>> given = crs.root(lambda x: {"b": x["a"] ** 2}, {"a": jnp.ones(2)})
    >>> sorted(given)
    ['fun', 'jac', 'method', 'x0']
    >>> given.unflatten([1.0, 2.0])
    {'a': array([1., 2.])}
    """

    def __init__(self, unknowns: Unknowns, **given: Any):
        super().__init__(given)
        self._unknowns = unknowns

    def unflatten(self, x: Any) -> Any:
        """The pytree of NumPy arrays of a flat (n,) vector; of an (n, k) matrix, with k as a last axis of each."""
        return self._unknowns.unflatten(x)


def root(f: Callable[..., Any], x0: Any, *, method: str = "hybr") -> Arguments:
    """Give `scipy.optimize.root` fun, x0, method, and for 'hybr' and 'lm' jac, an (n, n) array.

    Parameters
    ----------
    f : callable
        A function of x, and of SciPy's `args` after it; a pytree of as many numbers as x has.
    x0 : pytree of arrays
        Where to start.
    method : str
        As for `root`; none of its methods takes a sparse Jacobian: see `chainrule.newton`.

    Returns
    -------
    Arguments

    Raises
    ------
    InputTypeError
        Where x0 is not real.

    Examples
    --------
    >>> import jax.numpy as jnp, scipy.optimize
    >>> import chainrule.scipy as crs
    >>> scipy.optimize.root(**crs.root(lambda x: x**2 - 4.0, jnp.ones(2))).x.round(6).tolist()
    [2.0, 2.0]
    """
    unknowns = Unknowns("scipy.root", f, x0)
    given = {"fun": _values(unknowns), "x0": unknowns.start, "method": method}
    return Arguments(unknowns, **given, **({"jac": _jacobian(unknowns, "dense")} if method.lower() in _ROOT else {}))


def least_squares(f: Callable[..., Any], x0: Any, *, method: str = "trf", jac: str = "auto") -> Arguments:
    """Give `scipy.optimize.least_squares` fun, x0, method and jac.

    Parameters
    ----------
    f : callable
        The residuals: a function of x, and of SciPy's `args` after it; a pytree.
    x0 : pytree of arrays
        Where to start.
    method : {'trf', 'dogbox', 'lm'}
        As for `least_squares`.
    jac : {'auto', 'sparse', 'dense', 'product'}
        A `csr_array`, a NumPy array (the only form for 'lm'), or a `LinearOperator` of which nothing of the size of the
        matrix is stored. 'auto' takes the first where the Jacobian is large and sparse, else the second.

    Returns
    -------
    Arguments

    Raises
    ------
    InputTypeError
        Where x0 is not real, or the method does not take this form.

    Examples
    --------
    >>> import jax.numpy as jnp, scipy.optimize
    >>> import chainrule.scipy as crs
    >>> fit = scipy.optimize.least_squares(**crs.least_squares(lambda x: x**2 - jnp.arange(1.0, 4.0), jnp.ones(3)))
    >>> (fit.x**2).round(6).tolist()
    [1.0, 2.0, 3.0]
    """
    form = _form("least_squares", method, "jac", jac, ("dense",) if method == "lm" else _FORMS)
    unknowns = Unknowns("scipy.least_squares", f, x0)
    return Arguments(unknowns, fun=_values(unknowns), x0=unknowns.start, method=method, jac=_jacobian(unknowns, form))


def minimize(f: Callable[..., Any], x0: Any, *, method: str | None = None, hess: str = "auto") -> Arguments:
    """Give `scipy.optimize.minimize` fun, x0, method, jac, and for a method of second order hess or hessp.

    Value and gradient come from one run.

    Parameters
    ----------
    f : callable
        A function of x, and of SciPy's `args` after it, that gives one real number.
    x0 : pytree of arrays
        Where to start.
    method : str, optional
        As for `minimize`.
    hess : {'auto', 'sparse', 'dense', 'product'}
        A `csr_array` ('Newton-CG', 'trust-constr'), a NumPy array, or Hessian-vector products (hessp), for which f is
        linearized once at each x. 'auto': products for 'Newton-CG', 'trust-ncg' and 'trust-krylov'; an array for
        'dogleg' and 'trust-exact'; a `csr_array` for 'trust-constr' where the Hessian is large and sparse, else an
        array; nothing for methods of first order.

    Returns
    -------
    Arguments

    Raises
    ------
    InputTypeError
        Where x0 is not real, or the method does not take this form.
    ShapeError
        Where f gives anything but one real number.

    Examples
    --------
    >>> import jax.numpy as jnp, scipy.optimize
    >>> import chainrule.scipy as crs
    >>> given = crs.minimize(lambda x: ((x - 1.0) ** 4 + x**2).sum(), jnp.zeros(3), method="trust-ncg")
    >>> sorted(given)
    ['fun', 'hessp', 'jac', 'method', 'x0']
    >>> scipy.optimize.minimize(**given).x.round(3).tolist()
    [0.41, 0.41, 0.41]
    """
    form = _form("minimize", method, "hess", hess, _HESSIANS.get((method or "").lower(), ()))
    unknowns = Unknowns("scipy.minimize", f, x0)
    both = unknowns.value_and_gradient()
    given: dict[str, Any] = {} if method is None else {"method": method}
    if form == "product":
        products = linearize(jax.grad(scalar_function("scipy.minimize", f, False)))
        at = remembering(lambda x, *args: products(unknowns.tree(x), *args))
        given["hessp"] = lambda x, p, *args: as_float64(at(x, *args)._apply(np.asarray(p, unknowns.dtype)))
    elif form:
        given["hess"] = _matrices(unknowns, hessian(f), form)
    return Arguments(
        unknowns,
        fun=lambda x, *args: float(both(x, *args)[0]),
        x0=unknowns.start,
        jac=lambda x, *args: as_float64(both(x, *args)[1]),
        **given,
    )


def solve_ivp(f: Callable[..., Any], y0: Any, *, method: str = "BDF", jac: str = "auto") -> Arguments:
    """Give `scipy.integrate.solve_ivp` fun, y0, method, and for an implicit method jac.

    Parameters
    ----------
    f : callable
        The derivative of y: a function of t and y, and of SciPy's `args` after them; a pytree like y.
    y0 : pytree of arrays
        Where to start.
    method : str
        As for `solve_ivp`.
    jac : {'auto', 'sparse', 'dense'}
        A `csr_array` or (for 'LSODA' always) a NumPy array. 'auto' takes the first where the Jacobian is large and
        sparse.

    Returns
    -------
    Arguments

    Raises
    ------
    InputTypeError
        Where y0 is not real, or the method does not take this form.

    Examples
    --------
    >>> import jax.numpy as jnp, scipy.integrate
    >>> import chainrule.scipy as crs
    >>> given = crs.solve_ivp(lambda t, y: -1000.0 * (y - jnp.cos(t)), jnp.zeros(1))
    >>> scipy.integrate.solve_ivp(**given, t_span=(0, 1)).success
    True
    """
    form = _form("solve_ivp", method, "jac", jac, _IMPLICIT.get(method, ()))
    unknowns = Unknowns("scipy.solve_ivp", f, y0)
    rate = flat_value("scipy.solve_ivp", f, 1)
    given: dict[str, Any] = {"y0": unknowns.start, "method": method}
    given["fun"] = remembering(lambda t, y, *args: rate(float(t), unknowns.tree(y), *args), as_float64)
    if form:
        derivative = jacobian(f, 1)
        J = remembering(lambda t, y, *args: derivative(float(t), unknowns.tree(y), *args))
        given["jac"] = lambda t, y, *args: _matrix(J(t, y, *args), form)
    return Arguments(unknowns, **given)


def nonlinear_constraint(
    g: Callable[[Any], Any], x0: Any, lower: Any, upper: Any, *, method: str = "trust-constr", jac: str = "auto"
) -> Any:
    """Give lower ≤ g(x) ≤ upper as a `scipy.optimize.NonlinearConstraint` with jac, and hess where it is used.

    Parameters
    ----------
    g : callable
        A function of x; a pytree.
    x0 : pytree of arrays
        Any point of the form that x has.
    lower, upper : array_like
        Bounds of each number that g gives, flat; ±inf where there is none.
    method : str
        As for `minimize`: 'trust-constr' takes the Hessian too, and both as sparse matrices; others an array jac.
    jac : {'auto', 'sparse', 'dense'}
        A `csr_array` or a NumPy array, as for `least_squares`; of the Hessian too.

    Returns
    -------
    scipy.optimize.NonlinearConstraint

    Raises
    ------
    InputTypeError
        Where x0 is not real, or the method does not take this form.

    Examples
    --------
    >>> import jax.numpy as jnp, scipy.optimize
    >>> import chainrule.scipy as crs
    >>> disc = crs.nonlinear_constraint(lambda x: (x**2).sum(), jnp.ones(2), -jnp.inf, 1.0)
    >>> given = crs.minimize(lambda x: x.sum(), jnp.ones(2), method="trust-constr")
    >>> scipy.optimize.minimize(**given, constraints=disc).x.round(3).tolist()
    [-0.707, -0.707]
    """
    from scipy.optimize import NonlinearConstraint

    newton = method.lower() == "trust-constr"
    form = _form("nonlinear_constraint", method, "jac", jac, ("auto", "sparse", "dense") if newton else ("dense",))
    unknowns = Unknowns("scipy.nonlinear_constraint", g, x0)
    second = hessian(weighted(g))
    given = {"hess": lambda x, v: _matrix(second(unknowns.tree(x), np.asarray(v)), form)} if newton else {}
    return NonlinearConstraint(
        _values(unknowns),
        *(np.asarray(bound, np.float64) for bound in (lower, upper)),
        jac=_jacobian(unknowns, form),
        **given,
    )


def interior_point(f: Callable[[Any], Any], x0: Any, constraints: Callable[[Any], Any] | None = None) -> InteriorPoint:
    """Give the callbacks of an interior-point solver, in the form that cyipopt asks for; see `InteriorPoint`.

    Parameters
    ----------
    f : callable
        What is minimised: a function of x that gives one real number.
    x0 : pytree of arrays
        Where to start.
    constraints : callable, optional
        g: a function of x; a pytree of the numbers that cl ≤ g(x) ≤ cu bound.

    Returns
    -------
    InteriorPoint

    Raises
    ------
    InputTypeError
        Where x0 is not real.
    ShapeError
        Where f gives anything but one real number.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import chainrule.scipy as crs
    >>> problem = crs.interior_point(lambda x: jnp.sum(x**4), jnp.ones(3), lambda x: x[1:] * x[:-1])
    >>> problem.n, problem.m, problem.constraints(problem.x0).tolist()
    (3, 2, [1.0, 1.0])
    """
    return InteriorPoint(f, x0, constraints)


def _form(solver: str, method: str | None, what: str, given: str, possible: tuple[str, ...]) -> str:
    """The form that is meant, '' for none; 'auto' is the first that is possible."""
    if given == "auto":
        return possible[0] if possible else ""
    if given in _FORMS and given in possible:
        return given
    takes = ", ".join(map(repr, possible)) or "no such argument"
    name = f"method={method!r}" if method else solver
    raise InputTypeError(f"{solver}: {what}={given!r}, but {name} takes {takes}")


def _values(unknowns: Unknowns) -> Callable[..., Any]:
    own = flat_value(unknowns.what, unknowns.f)
    return remembering(lambda x, *args: own(unknowns.tree(x), *args), as_float64)


def _jacobian(unknowns: Unknowns, form: str) -> Callable[..., Any]:
    return _matrices(unknowns, (linearize if form == "product" else jacobian)(unknowns.f), form)


def _matrices(unknowns: Unknowns, derivative: Transform, form: str) -> Callable[..., Any]:
    J = remembering(lambda x, *args: derivative(unknowns.tree(x), *args))
    return lambda x, *args: _matrix(J(x, *args), form)


def _matrix(J: Any, form: str) -> Any:
    """A form of SciPy's, of numbers of its own: solvers scale them in place."""
    if form == "product":
        return _operator(J)
    if form == "sparse" or (form == "auto" and is_sparse(min(J.shape), J.nnz)):
        return J.scipy().astype(np.float64, copy=False)
    return as_float64(J.dense())


def _operator(J: Any) -> Any:
    from scipy.sparse.linalg import LinearOperator

    def product(A: Any) -> Callable[[Any], Any]:
        return lambda v: as_float64(A._apply(np.ravel(v).astype(A.dtype)))

    return LinearOperator(J.shape, matvec=product(J), rmatvec=product(J.T), dtype=np.float64)
