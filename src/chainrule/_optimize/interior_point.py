"""The callbacks of an interior-point solver: structure once, values at each point."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._api import hessian, jacobian
from chainrule._optimize.unknowns import Unknowns, as_float64, flat_value, remembering, weighted
from chainrule._space import flat


class InteriorPoint:
    """Minimise f(x) where cl ≤ g(x) ≤ cu: what cyipopt's `Problem(n, m, problem_obj=…)` calls.

    Vectors are flat NumPy arrays of float64. The structures are those of the programs, found once without running
    them, and hold whatever x is; values are always in their order. `n`, `m` are the numbers of unknowns and of
    constraints, `x0` is the flat start, `unflatten` brings a flat x back into its form.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import chainrule.scipy as crs
    >>> p = crs.interior_point(lambda x: x[0] * x[1] ** 2, jnp.ones(2), constraints=lambda x: x[0] ** 2 + x[1])
    >>> p.n, p.m, [rows.tolist() for rows in p.hessianstructure()]
    (2, 1, [[0, 1, 1], [0, 0, 1]])
    >>> p.hessian(p.x0, [10.0], 1.0).tolist()
    [20.0, 2.0, 2.0]
    """

    def __init__(self, f: Callable[[Any], Any], x0: Any, constraints: Callable[[Any], Any] | None = None):
        g = constraints or _no_constraints
        self._unknowns = own = Unknowns("scipy.interior_point", f, x0)
        self.n, self.x0 = own.size, own.start
        x = own.tree(self.x0)
        derivative, second = jacobian(g), hessian(_lagrangian(f, g))
        J = derivative.trace(x).out_info
        self.m = J.shape[0]
        self._places = J._positions()
        self._both = own.value_and_gradient()
        values = flat_value(own.what, g)
        self._g = remembering(lambda x: values(own.tree(x)))
        self._J = remembering(lambda x: derivative(own.tree(x)))
        self._H = lambda x, v, factor: second(own.tree(x), v, factor)
        rows, cols = second.trace(x, np.zeros(self.m), 1.0).out_info._positions()
        self._lower = rows >= cols
        self._lower_places = rows[self._lower], cols[self._lower]

    def unflatten(self, x: Any) -> Any:
        """[n] -> a pytree like the x0 that was given."""
        return self._unknowns.unflatten(x)

    def objective(self, x: Any) -> float:
        """Give f(x)."""
        return float(self._both(x)[0])

    def gradient(self, x: Any) -> np.ndarray:
        """Give the gradient of f, [n]; from the same run as `objective`."""
        return as_float64(self._both(x)[1])

    def constraints(self, x: Any) -> np.ndarray:
        """Give g(x), [m]."""
        return as_float64(self._g(x))

    def jacobianstructure(self) -> tuple[np.ndarray, np.ndarray]:
        """Give the rows and columns of the entries of the Jacobian of g, row-major."""
        return self._places[0].copy(), self._places[1].copy()

    def jacobian(self, x: Any) -> np.ndarray:
        """Give the values of these entries."""
        return as_float64(self._J(x).coo()[2])

    def hessianstructure(self) -> tuple[np.ndarray, np.ndarray]:
        """Give the rows and columns of the entries of the Lagrangian's Hessian, of its lower triangle, row-major."""
        return self._lower_places[0].copy(), self._lower_places[1].copy()

    def hessian(self, x: Any, lagrange: Any, obj_factor: float) -> np.ndarray:
        """Give the values of these entries: of the Hessian of obj_factor · f(x) + lagrange · g(x)."""
        H = self._H(x, as_float64(lagrange), float(obj_factor))
        return as_float64(H.coo()[2])[self._lower]


def _no_constraints(x: Any) -> Any:
    return jnp.zeros(0, flat(x).dtype)


def _lagrangian(f: Callable[[Any], Any], g: Callable[[Any], Any]) -> Callable[..., Any]:
    along = weighted(g)

    @functools.wraps(f)
    def own(x: Any, v: Any, factor: Any) -> Any:
        value = jax.tree.leaves(f(x))[0]
        return factor * value + along(x, v).astype(value.dtype)

    return own
