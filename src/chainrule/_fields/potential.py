"""The potential of a conservative field, by a line integral that is checked."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._api import Argnums, checked_argnums, converted_like, problem_and_last, with_last
from chainrule._compiled import Transform
from chainrule._errors import NotConservativeError
from chainrule._fields.field import at_points, require_field
from chainrule._options import require_count
from chainrule._space import flat, name_of, space_of
from chainrule._trace import Problem, require_inputs

_LADDER = (8, 32, 128)  # nodes, until two of these agree
_AT_ONCE = 16  # nodes


def potential(
    f: Callable[..., Any],
    argnums: Argnums = 0,
    *,
    order: int | None = None,
    check: bool = True,
    batched: bool = False,
) -> Transform:
    """The potential φ of a conservative field, ∇φ = f with φ(x0) = 0: call with the arguments of f, then x0.

    φ(x) = ∫₀¹ f(x0 + t (x - x0)) · (x - x0) dt, along the segment from x0 to x. A force that is -∇V has V = -φ.

    Parameters
    ----------
    f, argnums, batched
        As for `divergence`. With `batched`, x0 is one point for all, or has their leading axis.
    order : int, optional
        Nodes of the Gauss-Legendre rule, which is exact for polynomials of degree 2 · order - 1. Unless given, 8, 32
        and 128 of them are taken until two results agree to the rounding unit to the power 3/4.
    check : bool
        Compare ∇φ(x) with f(x), to the square root of the rounding unit times the largest entry of f at the ends.

    Returns
    -------
    Transform
        A function of (*arguments, x0), with x0 a pytree like the point, that gives one number, an array of shape (),
        or (k,) with `batched`. Its gradient in x is f(x).

    Raises
    ------
    NotConservativeError
        Where `check` finds a difference: f is no gradient along the segment, or not smooth enough there for the
        rule. Inside `jit`, `vmap` and `grad` the result is nan there instead.
    ShapeError
        Where the values of f, or x0, are not like the point.
    InputTypeError
        Where `order` is no positive whole number, or the point is not real.

    Notes
    -----
    See Marsden and Tromba, *Vector Calculus* (2012), section 8.3. The check is made at x, where ∇φ(x) - f(x) is the
    integral of t (J - Jᵀ)ᵀ (x - x0) over the segment; `is_conservative` looks at one point for all directions.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> field = lambda x: jnp.stack([2 * x[0] * x[1], x[0] ** 2])  # the gradient of x² y
    >>> round(cr.potential(field)(jnp.array([1.0, 3.0]), jnp.zeros(2)).item(), 4)
    3.0
    """
    if order is not None:
        require_count(f"potential of {name_of(f)}", "order", order)
    numbers = checked_argnums("potential", f, argnums, least=1)

    def made(kind: Any, finish: Callable[..., Any]) -> Any:
        def body(function: Any, args: tuple[Any, ...]) -> Any:
            problem, x0 = problem_and_last("potential", function, numbers, args, "x0, where the potential is 0")
            require_inputs(problem, False)
            found = finish(*_segments(problem, x0, batched), order)
            return found if batched else jax.tree.map(lambda v: v[0], found)

        return kind("potential", f, with_last(numbers), body, ("potential", numbers, order, batched, finish))

    own = made(_Checked, _judged if check else _integral)
    own.details = made(Transform, _details)
    return own


class _Checked(Transform):
    """A transform whose nan is an error, where there is something to say."""

    details: Transform

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Apply the transform to the arguments of the function, and then to x0."""
        found = super().__call__(*args, **keywords)
        if isinstance(found, jax.core.Tracer) or bool(jnp.isfinite(found).all()):
            return found
        every, slope, field, far = map(np.asarray, self.details(*args, **keywords))
        bad = np.argwhere(np.isfinite(every) & far)
        if not len(bad):
            return found  # nan in, nan out
        at = tuple(bad[0])
        where = f" at point {at[0]}" if at else ""
        raise NotConservativeError(
            f"{self._what}: the gradient of the line integral{where} is {_shown(slope[at])}, but the field is "
            f"{_shown(field[at])}: it is no gradient between x0 and x (see chainrule.is_conservative and "
            "chainrule.antisymmetric_part), or not smooth there (give more nodes with order=); check=False leaves "
            "this out"
        )


def _shown(v: np.ndarray) -> str:
    return np.array2string(v, precision=6, threshold=6)


Field = Callable[[Any], Any]  # [k, n] -> [k, n]


def _segments(problem: Problem, x0: Any, batched: bool) -> tuple[Field, Any, Any]:
    """The field of flat points, and [k, n], [k, n]: the points, and those that are 0."""
    ends = functools.partial(_ends, f"{problem.what}: x0")
    X, X0 = (jnp.atleast_2d(v) for v in at_points(problem, batched, ends, beside=x0))
    return jax.vmap(_flat_field(problem, X.dtype, batched)), X, X0


def _integral(F: Field, X: Any, X0: Any, order: int | None) -> Any:
    """[k]: the line integrals."""
    if order is not None:
        return _line_integral(F, X, X0, order)[0]
    return _refined(functools.partial(_line_integral, F, X, X0), *_LADDER)


def _details(F: Field, X: Any, X0: Any, order: int | None) -> tuple[Any, Any, Any, Any]:
    """[k], [k, n], [k, n], [k]: the integrals, their gradients, the field, and whether these two differ."""
    found, pull = jax.vjp(lambda X: _integral(F, X, X0, order), X)
    (slope,), field = pull(jnp.ones_like(found)), F(X)  # a point is in no other's integral
    gap, scale = abs(slope - field), jnp.maximum(abs(slope), jnp.maximum(abs(field), abs(F(X0))))
    far = ~(gap.max(1, initial=0) <= float(jnp.finfo(X.dtype).eps) ** 0.5 * scale.max(1, initial=0))
    return found, slope, field, far


def _judged(F: Field, X: Any, X0: Any, order: int | None) -> Any:
    """[k]: the integrals, nan where the check fails."""
    found, _, _, far = _details(F, X, X0, order)
    return jnp.where(far, jnp.nan, found)


def _ends(what: str, problem: Problem, x0: Any) -> tuple[Any, Any]:
    """[n], [n]: the point, and the one that is 0."""
    own = converted_like(what, x0, jax.tree.unflatten(problem.tree, problem.leaves))
    return flat(problem.leaves), flat(own)


def _flat_field(problem: Problem, dtype: Any, batched: bool) -> Callable[[Any], Any]:
    """[n] -> [n]"""
    one = [jax.ShapeDtypeStruct(x.shape[1:] if batched else x.shape, x.dtype) for x in problem.leaves]
    columns = space_of(problem.tree, one, problem.f)

    def field(v: Any) -> Any:
        out = problem.function(*jax.tree.leaves(columns.unflatten(v, cast=True)))
        leaves, tree = jax.tree.flatten(out)
        require_field(problem.what, space_of(tree, [jnp.asarray(y) for y in leaves], problem.f), columns)
        return flat(out).astype(dtype)

    return field


def _line_integral(F: Field, X: Any, X0: Any, nodes: int) -> tuple[Any, Any]:
    """[k], [k]: ∫ f · dx over the segments, and ∫ |f · dx|."""
    t, w = np.polynomial.legendre.leggauss(nodes)
    between = X - X0

    def term(at: Any) -> tuple[Any, Any]:
        t, w = at
        products = w * (F(X0 + t * between) * between)
        return products.sum(1), abs(products).sum(1)

    rule = jnp.asarray((1 + t) / 2, X.dtype), jnp.asarray(w / 2, X.dtype)
    return jax.tree.map(lambda a: a.sum(0), jax.lax.map(term, rule, batch_size=_AT_ONCE if len(X) else None))


def _refined(run: Callable[[int], tuple[Any, Any]], nodes: int, *more: int) -> Any:
    """The first result that agrees with the one before it at all points, or the last one."""

    def after(previous: Any, nodes: int, *more: int) -> Any:
        found, size = run(nodes)
        if not more:
            return found
        near = abs(found - previous) <= float(jnp.finfo(found.dtype).eps) ** 0.75 * jax.lax.stop_gradient(size)
        return jax.lax.cond(near.all(), lambda: found, lambda: after(found, *more))

    return after(run(nodes)[0], *more)
