"""The unknowns of a solver that knows flat vectors of float64 alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from chainrule._compiled import Transform
from chainrule._errors import ShapeError
from chainrule._space import flat, space_of
from chainrule._trace import real_problem, scalar_function


class Unknowns:
    """A pytree of real arrays as one flat vector of float64, and the function of it that is solved."""

    def __init__(self, what: str, f: Callable[..., Any], x0: Any):
        problem = real_problem(what, f, x0, "an input")
        self.what, self.f = what, f
        self._space = space_of(problem.tree, problem.leaves, f)
        self.size, self.dtype = self._space.size, self._space.dtype
        self._start = as_float64(flat(list(problem.leaves)))

    @property
    def start(self) -> np.ndarray:
        """The start, as an array of the caller's own."""
        return self._start.copy()

    def tree(self, x: Any) -> Any:
        """[n] -> the pytree, in the dtypes of the start."""
        return self._space.unflatten(self._checked(x, (self.size,)), cast=True)

    def unflatten(self, x: Any) -> Any:
        """[n, *rest] -> the pytree of arrays [*shape, *rest]."""
        x = self._checked(x, (self.size, *np.shape(x)[1:]))
        space, rest = self._space, x.shape[1:]
        leaves = [
            x[o : o + n].reshape((*s, *rest)) for o, n, s in zip(space.offsets, space.sizes, space.shapes, strict=True)
        ]
        return jax.tree.unflatten(space.tree, leaves)

    def _checked(self, x: Any, shape: tuple[int, ...]) -> Any:
        x = np.asarray(x)
        if x.shape != shape:
            raise ShapeError(f"{self.what}: the unknowns are a flat vector of {self.size} numbers, got {x.shape}")
        return x

    def value_and_gradient(self) -> Callable[..., Any]:
        """Of a flat x: f(x) and its flat gradient, from one run."""
        own = Transform(self.what, self.f, (0,), _value_and_gradient, ("value and gradient",), patterned=True)
        return remembering(lambda x, *args: own(self.tree(x), *args))


def _value_and_gradient(function: Any, args: tuple[Any, ...]) -> Any:
    value, gradient = jax.value_and_grad(scalar_function("gradient", function, False))(*args)
    return jax.tree.leaves(value)[0], flat(gradient)


def flat_value(what: str, f: Callable[..., Any], argnum: int = 0) -> Transform:
    """A function of the arguments of f that gives its value, laid flat."""
    return Transform(what, f, (argnum,), _flat_value, ("flat value",), patterned=True)


def _flat_value(function: Any, args: tuple[Any, ...]) -> Any:
    return flat(function(*args))


def as_float64(a: Any) -> np.ndarray:
    """An array of the caller's own: solvers scale theirs in place."""
    return np.array(a, np.float64)


def remembering(run: Callable[..., Any], finish: Callable[[Any], Any] = lambda found: found) -> Callable[..., Any]:
    """The function, with its last result kept: a solver often asks again at the same point.

    The arguments are compared by their bytes, for solvers change arrays in place. What is kept is what `run` gives,
    which must not change; `finish` makes of it what the solver may change.
    """
    last: tuple[Any, Any] = (None, None)

    def ask(*args: Any) -> Any:
        nonlocal last
        leaves, tree = jax.tree.flatten(args)
        key = (tree, [(a.shape, a.dtype, a.tobytes()) for a in map(np.asarray, leaves)])
        known, found = last
        if known != key:
            found = run(*args)
            last = key, found
        return finish(found)

    return ask


def weighted(g: Callable[..., Any]) -> Callable[..., Any]:
    """The function (x, v) -> v · g(x), of g laid flat: its Hessian is that of constraints with multipliers v."""

    @functools.wraps(g)
    def own(x: Any, v: Any) -> Any:
        y = flat(g(x))
        return y @ v.astype(y.dtype)

    return own
