"""The local inverse of a function, and how far it is to be trusted."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._api import jacobian, linearize
from chainrule._errors import InputTypeError, ShapeError, SingularError
from chainrule._implicit.functions import implicit_of, root_of
from chainrule._space import flat, name_of, space_of

_DIRECTIONS = 16  # along which the change of J is looked at
_POWERS = 20  # steps of the power iteration for a norm
_HALVINGS = 20  # of the size of x0: the smallest ball that is looked at; the largest is as many times doubled
_BISECTIONS = 20  # of its radius


def inverse(f: Callable[..., Any], x0: Any, *, solver: Any = None, method: str = "auto", max_steps: int = 50) -> Any:
    """The local inverse of f near x0: y -> x with f(x) = y, whose Jacobian is J_f(x)⁻¹.

    Parameters
    ----------
    f : callable
        A function of one pytree of arrays with as many outputs as inputs.
    x0 : pytree of arrays
        The point around which f is inverted: of all x with f(x) = y, the one that Newton's method reaches from x0.
    solver, method, max_steps
        As in `root`.

    Returns
    -------
    LocalInverse
        Call it with y. `.x0`, `.y0` = f(x0); `.jacobian`, J_f(x0)⁻¹; `.radius`, an estimate of how far from y0 there is
        one inverse only.

    Raises
    ------
    ShapeError
        Where f has not as many outputs as inputs.
    SingularError
        From `.jacobian` and `.radius`, where J_f(x0) is singular: the theorem promises no inverse.
    ConvergenceError
        From a call, where no x is found for y.

    Notes
    -----
    The inverse function theorem; see Krantz and Parks, *The Implicit Function Theorem* (2002), section 3.3.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> polar = lambda p: jnp.stack([p[0] * jnp.cos(p[1]), p[0] * jnp.sin(p[1])])
    >>> from_cartesian = cr.inverse(polar, jnp.array([1.0, 0.5]))
    >>> from_cartesian(jnp.array([0.0, 2.0])).round(3).tolist()  # r, and the angle π/2
    [2.0, 1.571]
    >>> cr.jacobian(from_cartesian)(jnp.array([0.0, 2.0])).det().round(3).item()  # 1/r
    0.5
    """
    return LocalInverse(f, x0, solver, method, max_steps)


class LocalInverse:
    """The function y -> x with f(x) = y near x0; made by `inverse`.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> back = cr.inverse(lambda x: x**2, jnp.array([1.0, 2.0]))
    >>> back.jacobian.diagonal().tolist()  # 1 / 2x
    [0.5, 0.25]
    """

    def __init__(self, f: Callable[..., Any], x0: Any, solver: Any, method: str, max_steps: int):
        if not callable(f):
            raise InputTypeError(f"inverse: the first argument must be a function, got {type(f).__name__}: {f!r}")
        self.f, self.x0 = f, x0
        self.__name__ = f"inverse of {name_of(f)}"
        self._tree: Any
        leaves, self._tree = jax.tree.flatten(jax.eval_shape(f, x0))
        sizes = [sum(math.prod(np.shape(x)) for x in jax.tree.leaves(a)) for a in (leaves, x0)]
        if sizes[0] != sizes[1]:
            raise ShapeError(
                f"inverse of {name_of(f)}: it takes {sizes[1]} numbers to {sizes[0]}; a local inverse needs as many "
                "outputs as inputs (chainrule.minimize_implicit finds the x that fits best)"
            )
        self._shapes = [x.shape for x in leaves]
        options = {"rtol": None, "atol": 0.0, "max_steps": max_steps, "solver": solver}

        def residual(y: Any, x: Any) -> Any:
            return jax.tree.map(jnp.subtract, f(x), y)

        residual.__name__ = name_of(f)  # that errors give
        self._solve = root_of("inverse", residual, x0, method, options)
        self._implicit = implicit_of("inverse", residual, "auto")

    def __call__(self, y: Any) -> Any:
        """The x near x0 with f(x) = y; y is like the outputs of f."""
        shapes = [tuple(np.shape(v)) for v in jax.tree.leaves(y)]
        if jax.tree.structure(y) != self._tree or shapes != self._shapes:
            raise ShapeError(
                f"{self.__name__}: y has shapes {shapes} in {jax.tree.structure(y)}, but f gives "
                f"{self._shapes} in {self._tree}"
            )
        return self._solve(y)

    @cached_property
    def y0(self) -> Any:
        """f(x0)."""
        return self.f(self.x0)

    @cached_property
    def jacobian(self) -> Any:
        """The Jacobian of the inverse at y0: J_f(x0)⁻¹; a map of products where its entries would be too many."""
        return self._implicit(self.y0, self.x0)

    @cached_property
    def radius(self) -> float:
        """An estimate of the ball around y0 in which f has one inverse near x0: 1 / (2 β² L).

        β = ‖J(x0)⁻¹‖, and L bounds ‖J(x) - J(x0)‖ / ‖x - x0‖ for ‖x - x0‖ ≤ 1 / (β L), where f is injective (Krantz and
        Parks 2002, section 3.3, by the contraction x -> x - J(x0)⁻¹ (f(x) - y)). L is the largest that is seen along
        random directions, so that this is an estimate and no proof; inf where J does not change. It needs an x0
        that is not traced.
        """
        if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(self.x0)):
            raise InputTypeError(
                f"{self.__name__}: x0 is traced (inside jit, vmap or grad); ask for the radius outside"
            )
        J = jacobian(self.f)(self.x0)
        F, n, dtype = J.factorize(), J.shape[1], flat(self.x0).dtype
        try:
            F.solve(jnp.ones(n, J.dtype))
        except SingularError:
            _ = self.jacobian  # refuses it too, with its condition number and the point
            raise
        b = float(_norm(F.solve, F.T.solve, n, dtype))
        steepest, size = self._steepest(n, dtype), 1 + float(jnp.linalg.norm(flat(self.x0)))
        # from the largest ball, of those that double, in which f is injective: what lies beyond has no part in L
        r, L = size * 2.0**-_HALVINGS, 0.0
        for _ in range(2 * _HALVINGS):
            seen = max(L, float(steepest(jnp.asarray(r, dtype))))
            if not b * seen * r < 1:
                break
            r, L = 2 * r, seen
        else:
            return math.inf
        low, high = r / 2, r
        for _ in range(_BISECTIONS):
            r = (low + high) / 2
            seen = max(L, float(steepest(jnp.asarray(r, dtype))))
            low, high, L = (r, high, seen) if b * seen * r < 1 else (low, r, L)
        return min(high, 1 / (b * L) if L else math.inf) / (2 * b)

    def _steepest(self, n: int, dtype: Any) -> Callable[[Any], Any]:
        """The largest ‖J(x0 + r u) - J(x0)‖ / r over some random directions u, as a function of r."""
        space = space_of(jax.tree.structure(self.x0), jax.tree.leaves(self.x0), self.f)
        keys = jax.random.split(jax.random.key(0), _DIRECTIONS)
        units = jax.vmap(lambda key: jax.random.normal(key, (n,), dtype))(keys)
        units /= jnp.linalg.norm(units, axis=1, keepdims=True)

        @jax.jit
        def steepest(r: Any) -> Any:
            def along(u: Any) -> Any:
                x = jax.tree.map(jnp.add, self.x0, space.unflatten(r * u, cast=True))
                D = linearize(self.f)(x) - linearize(self.f)(self.x0)
                return _norm(lambda v: D @ v, lambda w: D.T @ w, n, dtype) / r

            return jax.lax.map(along, units).max()

        return steepest

    def __repr__(self) -> str:
        try:
            return f"{self.__name__} near x0, trusted within {self.radius:.3g} of f(x0)"
        except SingularError:
            return f"{self.__name__} near x0, where J is singular"
        except InputTypeError:
            return f"{self.__name__} near an x0 that is traced"


def _norm(product: Callable[[Any], Any], transposed: Callable[[Any], Any], n: int, dtype: Any) -> Any:
    """The largest singular value of a linear map, by the power iteration on AᵀA."""
    v = jax.random.normal(jax.random.key(1), (n,), dtype)

    def step(_: int, v: Any) -> Any:
        w = transposed(product(v / jnp.maximum(jnp.linalg.norm(v), jnp.finfo(dtype).tiny)))
        return w.astype(dtype)

    return jnp.sqrt(jnp.linalg.norm(jax.lax.fori_loop(0, _POWERS, step, v)))
