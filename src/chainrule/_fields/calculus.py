"""Vector calculus: what is read off the structured Jacobian of a field at a point, or at each of many points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._api import Argnums, checked_argnums, converted_like, problem_and_last, push, with_last
from chainrule._compiled import Transform
from chainrule._errors import ShapeError
from chainrule._fields.field import accumulated, at_points, of_field, of_jacobian
from chainrule._options import ANY_J, require_tolerance
from chainrule._space import flat, name_of
from chainrule._trace import Problem


def divergence(f: Callable[..., Any], argnums: Argnums = 0, *, batched: bool = False) -> Transform:
    """The divergence of a vector field, the trace of its Jacobian: div f (x) = tr J = Σ_i ∂f_i/∂x_i.

    Positive where f flows out of a small volume around x: its volume grows at the rate div f along dx/dt = f(x).

    Parameters
    ----------
    f : callable
        A field: `f(x, ...)` gives a pytree of the structure and shapes of the point x, which has n numbers in all.
    argnums : int or sequence of int
        Which positional argument is the point, as for `jacobian`; of several, the point is the tuple of them.
    batched : bool
        Whether the point has a leading axis of k points in every leaf; f itself is a function of one of them.

    Returns
    -------
    Transform
        A function of the same arguments that gives one number, an array of shape (), or (k,) with `batched`. It is
        compiled once for each shape, and works inside `jit`, `vmap` and `grad`.

    Raises
    ------
    ShapeError
        Where the values of f are not like the point, or the points of a batch are not equally many in every leaf.
    InputTypeError
        Where the point is not floating point, or is complex; see `jacobian`.

    Notes
    -----
    Only the diagonal of J is read; that of a field without a diagonal is 0, whatever its values. See Marsden and
    Tromba, *Vector Calculus* (2012), section 4.4.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> cr.divergence(lambda x: x**2)(jnp.array([1.0, 2.0, 3.0])).item()
    12.0
    """
    return of_field("divergence", f, argnums, batched, lambda J: J.trace())


def curl(f: Callable[..., Any], argnums: Argnums = 0, *, batched: bool = False) -> Transform:
    """The curl of a vector field in two or three dimensions.

    In two, one number: ∂f_2/∂x_1 - ∂f_1/∂x_2, positive where f turns counterclockwise. In three, the vector
    (∂f_3/∂x_2 - ∂f_2/∂x_3, ∂f_1/∂x_3 - ∂f_3/∂x_1, ∂f_2/∂x_1 - ∂f_1/∂x_2), by the right-hand rule: twice the
    velocity of the rotation. For any n see `antisymmetric_part`; 2 W v = (curl f) × v in three dimensions.

    Parameters
    ----------
    f, argnums, batched
        As for `divergence`; the point has two or three numbers.

    Returns
    -------
    Transform
        A function of the same arguments that gives an array of shape () in two dimensions, and a pytree like the
        point in three; each with a leading axis (k, ...) with `batched`.

    Raises
    ------
    ShapeError
        As `divergence`; or where the point has neither two numbers nor three.

    Notes
    -----
    See Marsden and Tromba, *Vector Calculus* (2012), section 4.4.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> cr.curl(lambda x: jnp.stack([-x[1], x[0]]))(jnp.zeros(2)).item()
    2.0
    >>> cr.curl(lambda x: jnp.stack([-x[1], x[0], x[2]]))(jnp.zeros(3)).tolist()
    [0.0, 0.0, 2.0]
    """
    what = f"curl of {name_of(f)}"

    def finish(J: Any) -> Any:
        n = J.shape[0]
        if n not in (2, 3):
            raise ShapeError(
                f"{what}: the point has shapes {list(J.in_shapes)}, {n} numbers; a curl has a point of 2 or of 3. "
                "For any other see chainrule.antisymmetric_part"
            )
        D = J.dense()
        z = D[1, 0] - D[0, 1]
        return z if n == 2 else J._rows.unflatten(jnp.stack([D[2, 1] - D[1, 2], D[0, 2] - D[2, 0], z]), cast=True)

    return of_field("curl", f, argnums, batched, finish)


def antisymmetric_part(f: Callable[..., Any], argnums: Argnums = 0, *, batched: bool = False) -> Transform:
    """The antisymmetric part W = (J - Jᵀ)/2 of the Jacobian of a vector field: how it turns, in any dimension.

    W[i, j] = (∂f_i/∂x_j - ∂f_j/∂x_i)/2, the spin tensor of continuum mechanics: W v = ½ (curl f) × v for n = 3, and
    W[1, 0] = ½ curl f for n = 2. It vanishes everywhere where f is a gradient.

    Parameters
    ----------
    f, argnums, batched
        As for `divergence`.

    Returns
    -------
    Transform
        A function of the same arguments that gives an (n, n) `Jacobian`, or a batch of them with `batched`: no
        diagonal, and an entry only where J has one, or has one mirrored.

    Raises
    ------
    ShapeError
        As `divergence`.

    Notes
    -----
    See Gurtin, *An Introduction to Continuum Mechanics* (1981), section 9.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> W = cr.antisymmetric_part(lambda x: jnp.stack([x[0] - x[1], x[0] + x[1]]))(jnp.zeros(2))
    >>> W.dense().tolist(), W.nnz
    ([[0.0, -1.0], [1.0, 0.0]], 2)
    """
    return of_field("antisymmetric_part", f, argnums, batched, lambda J: _antisymmetric(J, 0.5))


def directional(
    f: Callable[..., Any], argnums: Argnums = 0, *, normalize: bool = False, batched: bool = False
) -> Transform:
    """The derivative of f along v, J v = d/dt f(x + t v) at t = 0: call with the arguments of f, then v.

    Parameters
    ----------
    f : callable
        Any function, as for `jacobian`; its values need not be like the point.
    argnums, batched
        As for `divergence`. With `batched`, v is one direction for all points, or has their leading axis.
    normalize : bool
        Divide by the Euclidean length of v: the slope along its direction, nan for v = 0. Else the length of v counts.

    Returns
    -------
    Transform
        A function of (*arguments, v), with v a pytree like the point, that gives a pytree like f(x); with a leading
        axis (k, ...) with `batched`.

    Raises
    ------
    ShapeError
        Where v is not like the point.

    Notes
    -----
    One forward sweep, as `pushforward`. See Marsden and Tromba, *Vector Calculus* (2012), section 2.6.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> x, v = jnp.array([1.0, 2.0]), jnp.array([0.0, 3.0])
    >>> cr.directional(lambda x: x @ x)(x, v).item(), cr.directional(lambda x: x @ x, normalize=True)(x, v).item()
    (12.0, 4.0)
    """
    numbers = checked_argnums("directional", f, argnums, least=1)

    def body(function: Any, args: tuple[Any, ...]) -> Any:
        problem, v = problem_and_last("directional", function, numbers, args)
        return at_points(problem, batched, lambda own, v: _along(own, v, normalize), beside=v)

    return Transform("directional", f, with_last(numbers), body, ("directional", numbers, normalize, batched))


def jacobian_determinant(f: Callable[..., Any], argnums: Argnums = 0, *, batched: bool = False) -> Transform:
    """The determinant of the Jacobian, det J: the signed factor by which f scales small volumes.

    ∫ g(y) dy over f(D) is ∫ g(f(x)) |det J| dx over D, for f one-to-one on D. Negative where f mirrors, 0 where it
    has no smooth inverse.

    Parameters
    ----------
    f : callable
        A function of n numbers to n numbers, as for `jacobian`; rows and columns are in the order of the pytrees'
        leaves, laid flat.
    argnums, batched
        As for `divergence`.

    Returns
    -------
    Transform
        A function of the same arguments that gives one number, an array of shape (), or (k,) with `batched`.

    Raises
    ------
    ShapeError
        Where f has not as many outputs as inputs.

    Notes
    -----
    By the structure of J, and link by link where all links between arrays are square. See Marsden and Tromba,
    *Vector Calculus* (2012), section 6.2.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> polar = lambda p: p[0] * jnp.stack([jnp.cos(p[1]), jnp.sin(p[1])])
    >>> cr.jacobian_determinant(polar)(jnp.array([2.0, 0.0])).item()
    2.0
    """
    return of_jacobian("jacobian_determinant", f, argnums, batched, _determinant, ())


def is_conservative(
    f: Callable[..., Any], argnums: Argnums = 0, *, rtol: float | None = None, batched: bool = False
) -> Transform:
    """Whether a vector field is conservative here: whether J is symmetric, J = Jᵀ.

    On a region without holes a field is the gradient of a potential just where this is so at all points.

    Parameters
    ----------
    f, argnums, batched
        As for `divergence`.
    rtol : float, optional
        Every |J_ij - J_ji| may be this times the largest |J_kl|; the rounding unit to the power 3/4 unless given.

    Returns
    -------
    Transform
        A function of the same arguments that gives an array of one truth value, of shape (), or (k,) with `batched`.
        False where these are not finite. Where no entry lies off the diagonal it is true, whatever the values.

    Raises
    ------
    ShapeError
        As `divergence`.

    Notes
    -----
    See Marsden and Tromba, *Vector Calculus* (2012), section 8.3.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> bool(cr.is_conservative(jnp.sin)(jnp.ones(3))), bool(cr.is_conservative(jnp.cumsum)(jnp.ones(3)))
    (True, False)
    """

    def finish(J: Any) -> Any:
        return _small(_antisymmetric(J, 1).coo()[2], J, rtol)

    return of_field("is_conservative", f, argnums, batched, finish, _tolerance("is_conservative", f, rtol))


def is_incompressible(
    f: Callable[..., Any], argnums: Argnums = 0, *, rtol: float | None = None, batched: bool = False
) -> Transform:
    """Whether a vector field is free of divergence here, Σ_i ∂f_i/∂x_i = 0: its flow keeps volumes.

    Parameters
    ----------
    f, argnums, batched
        As for `divergence`.
    rtol : float, optional
        |div f| may be this times the largest |J_kl|; the rounding unit to the power 3/4 unless given.

    Returns
    -------
    Transform
        A function of the same arguments that gives an array of one truth value, of shape (), or (k,) with `batched`.
        False where these are not finite. Where no entry lies on the diagonal it is true, whatever the values.

    Raises
    ------
    ShapeError
        As `divergence`.

    Notes
    -----
    See Marsden and Tromba, *Vector Calculus* (2012), section 4.4.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> turning = lambda x: jnp.stack([-x[1], x[0]])
    >>> bool(cr.is_incompressible(turning)(jnp.ones(2))), bool(cr.is_incompressible(jnp.sin)(jnp.ones(2)))
    (True, False)
    """

    def finish(J: Any) -> Any:
        rows, cols = J._positions()
        return _small(J.trace()[None][: int((rows == cols).any())], J, rtol)

    return of_field("is_incompressible", f, argnums, batched, finish, _tolerance("is_incompressible", f, rtol))


def _determinant(problem: Problem) -> Any:
    J = accumulated(problem, "factored")
    J._require_square("jacobian_determinant", ANY_J)
    return (J if all(a.shape[0] == a.shape[1] for a in J.factors) else accumulated(problem)).det()


def _along(problem: Problem, v: Any, normalize: bool) -> Any:
    return push(problem, _unit(problem, v) if normalize else v)


def _unit(problem: Problem, v: Any) -> Any:
    """v / ‖v‖, in two steps: the squares of its entries may be out of range where they are not."""
    v = converted_like(f"{problem.what}: the tangent", v, jax.tree.unflatten(problem.tree, problem.leaves))
    largest = jax.lax.stop_gradient(abs(flat(v)).max(initial=0))  # any number of this size would do
    v = jax.tree.map(lambda a: a / largest.astype(a.dtype), v)
    length = jnp.linalg.norm(flat(v))
    return jax.tree.map(lambda a: a / length.astype(a.dtype), v)


def _antisymmetric(J: Any, factor: float) -> Any:
    """`factor` (J - Jᵀ), without a diagonal."""
    from chainrule._jacobians.assembled import from_coo

    rows, cols, values = J.coo()
    n = J.shape[0]
    key, mirrored = rows.astype(np.int64) * n + cols, cols.astype(np.int64) * n + rows
    wanted = np.union1d(key, mirrored)
    wanted = wanted[wanted // max(n, 1) != wanted % max(n, 1)]
    i, j = wanted // max(n, 1), wanted % max(n, 1)

    def entries(places: np.ndarray) -> Any:
        """The values at these places, 0 where there is none."""
        found = np.searchsorted(key, places)
        there = key[np.minimum(found, max(len(key) - 1, 0))] == places if len(key) else np.zeros(len(places), bool)
        return values.at[np.where(there, found, len(key))].get(mode="fill", fill_value=0)

    return from_coo(J._layout, i, j, (entries(wanted) - entries(j * n + i)) * factor)


def _small(values: Any, J: Any, rtol: float | None) -> Any:
    """Whether all values are small beside the entries of J; there may be none, and then they are."""
    relative = float(jnp.finfo(J.dtype).eps) ** 0.75 if rtol is None else rtol
    return ((abs(values) <= relative * abs(J.coo()[2]).max(initial=0)) & jnp.isfinite(values)).all()


def _tolerance(name: str, f: Any, rtol: Any) -> Any:
    require_tolerance(f"{name} of {name_of(f)}", "rtol", rtol)
    return rtol
