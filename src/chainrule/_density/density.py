"""Log-determinants of Jacobians, and the densities that change with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from chainrule._api import Argnums
from chainrule._compiled import Transform
from chainrule._errors import ShapeError
from chainrule._fields.field import of_jacobian
from chainrule._trace import Problem, no_reverse_program, require_inputs, scalar_function


def log_abs_det(f: Callable[..., Any], argnums: Argnums = 0, *, batched: bool = False) -> Transform:
    """The logarithm of the volume factor, log |det J_f(x)|, at the cost that the structure of f leaves.

    Parameters
    ----------
    f : callable
        A function as for `jacobian`, with as many outputs as inputs.
    argnums : int or sequence of int
        Which positional arguments x stands for; the others are parameters.
    batched : bool
        Whether the arrays of x have a leading axis of points, each of which f takes by itself.

    Returns
    -------
    Transform
        A function of the arguments of f that gives a real number, or with `batched` an array [points]; where J is
        singular it is -inf, or the logarithm of what rounding leaves of 0 (-37, say); the gradient is nan where the
        zeros of J alone make it so. It is compiled once for each shape of the arguments, and differentiable in all of
        them and in whatever f closes over.

    Raises
    ------
    ShapeError
        Where f has not as many outputs as inputs; where arrays of a batch differ in their leading axis.
    InputTypeError
        As `jacobian`; complex inputs are refused.

    Notes
    -----
    The program of J is cut wherever the arrays that are alive hold as many numbers as x: log |det| is the sum over the
    links, and their product is never formed. Of a link only the diagonal blocks of its block-triangular form are
    computed. So the networks that condition a coupling or an autoregressive layer are run, but not differentiated:
    RealNVP (Dinh, Sohl-Dickstein and Bengio 2017), Glow with its 1×1 convolutions (Kingma and Dhariwal 2018) and masked
    autoregressive flows (Papamakarios et al. 2021, section 3) take O(n). What passes through few numbers (planar and
    Householder layers) takes the matrix determinant lemma. A `scan` over layers is a sum over its steps.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> def coupling(x):
    ...     a, b = jnp.split(x, 2)
    ...     return jnp.concatenate([a, b * jnp.exp(a)])
    >>> float(cr.log_abs_det(coupling)(jnp.array([1.0, 2.0, 3.0, 4.0])))
    3.0
    """
    return _transform("log_abs_det", f, argnums, batched, _log, ())


def slogdet(f: Callable[..., Any], argnums: Argnums = 0, *, batched: bool = False) -> Transform:
    """The sign of det J_f(x), and log |det J_f(x)|: (0, -inf) where J is singular; see `log_abs_det`.

    The sign is 1 where f keeps orientation, -1 where it mirrors.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> sign, log = cr.slogdet(lambda x: x[::-1])(jnp.ones(2))
    >>> float(sign), float(log)
    (-1.0, 0.0)
    """
    return _transform("slogdet", f, argnums, batched, _sign_and_log, ())


def value_and_log_abs_det(f: Callable[..., Any], argnums: Argnums = 0, *, batched: bool = False) -> Transform:
    """Give (f(x), log |det J_f(x)|) from one run; see `log_abs_det`.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> y, log = cr.value_and_log_abs_det(jnp.exp)(jnp.array([0.0, 2.0]))
    >>> bool(jnp.allclose(y, jnp.exp(jnp.array([0.0, 2.0])))), float(log)
    (True, 2.0)
    """
    return _transform("value_and_log_abs_det", f, argnums, batched, _value_and_log, ())


def transform_log_density(
    log_p_z: Callable[[Any], Any], g: Callable[..., Any], argnums: Argnums = 0, *, batched: bool = False
) -> Transform:
    """The log-density of x whose image z = g(x) has the log-density `log_p_z`.

        log p_X(x) = log p_Z(g(x)) + log |det J_g(x)|

    Parameters
    ----------
    log_p_z : callable
        The base: z -> log p_Z(z), a real number.
    g : callable
        The normalizing direction, from data x to noise z; one-to-one. Further arguments are its parameters.
    argnums, batched
        As for `log_abs_det`; with `batched` the result is [points].

    Returns
    -------
    Transform
        A function of the arguments of g: log p_X(x). It is differentiable in x and in the parameters, so that the mean
        over data is a log-likelihood to be maximised.

    Raises
    ------
    ShapeError
        As `log_abs_det`; or where `log_p_z` gives anything but one real number.

    Notes
    -----
    g maps from x: where a flow is written from z to x, its inverse belongs here (`triangular_inverse`), or, for
    samples, use `transform_samples`. See Papamakarios et al., *Normalizing flows for probabilistic modeling and
    inference* (2021), equation 6.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp, jax.scipy.stats as stats
    >>> log_p = cr.transform_log_density(lambda z: stats.norm.logpdf(z).sum(), lambda x, s: x / s)
    >>> x, s = jnp.array([0.5, 1.0]), 2.0
    >>> bool(jnp.isclose(log_p(x, s), stats.norm.logpdf(x, scale=s).sum()))
    True
    """
    base = scalar_function("transform_log_density", log_p_z, False)

    def finish(found: Any) -> Any:
        z, _, log = found
        return base(z) + log

    return _transform("transform_log_density", g, argnums, batched, finish, (log_p_z,))


def transform_samples(
    log_p_z: Callable[[Any], Any], f: Callable[..., Any], argnums: Argnums = 0, *, batched: bool = False
) -> Transform:
    """Give (x, log p_X(x)) of x = f(z), for samples z of a density `log_p_z`.

        log p_X(f(z)) = log p_Z(z) - log |det J_f(z)|

    Parameters
    ----------
    log_p_z : callable
        The base: z -> log p_Z(z), a real number.
    f : callable
        The generating direction, from noise z to data x; one-to-one. Of a flow that is written from x to z,
        `triangular_inverse` gives it.
    argnums, batched
        As for `log_abs_det`.

    Returns
    -------
    Transform
        A function of the arguments of f that gives (x, log p_X(x)).

    Raises
    ------
    ShapeError
        As `transform_log_density`.

    Examples
    --------
    >>> import chainrule as cr, jax, jax.numpy as jnp, jax.scipy.stats as stats
    >>> z = jax.random.normal(jax.random.key(0), (5, 2))
    >>> draw = cr.transform_samples(lambda z: stats.norm.logpdf(z).sum(), lambda z: 3.0 * z, batched=True)
    >>> x, log_p = draw(z)
    >>> bool(jnp.allclose(log_p, stats.norm.logpdf(x, scale=3.0).sum(1)))
    True
    """
    base = scalar_function("transform_samples", log_p_z, False)

    def drawn(problem: Problem) -> Any:
        x, _, log = _found(problem)
        return x, base(jax.tree.unflatten(problem.tree, problem.leaves)) - log

    return of_jacobian("transform_samples", f, argnums, batched, drawn, (log_p_z,))


def _log(found: Any) -> Any:
    return found[2]


def _sign_and_log(found: Any) -> Any:
    return found[1:]


def _value_and_log(found: Any) -> Any:
    return found[0], found[2]


def _transform(
    name: str, f: Any, argnums: Argnums, batched: bool, finish: Callable[[Any], Any], own: tuple[Any, ...]
) -> Transform:
    return of_jacobian(name, f, argnums, batched, lambda problem: finish(_found(problem)), own)


def _found(problem: Problem) -> tuple[Any, Any, Any]:
    """(f(x), sign, log |det J|)."""
    from chainrule._accumulate.accumulate import only_order
    from chainrule._accumulate.recorded import recorded_program
    from chainrule._density.determinant import slogdet_of
    from chainrule._linalg.differentiable import log_of_zero

    require_inputs(problem, False)
    backwards = only_order(problem, False, False).backwards
    with no_reverse_program(problem.what):
        recorded = recorded_program(problem, False, backwards)
    m, n = recorded.rows.size, recorded.columns.size
    if m != n:
        raise ShapeError(
            f"{problem.what}: {m} outputs of {n} inputs; only a square Jacobian has a determinant. The volume factor "
            "of another one is sqrt(det(JᵀJ)), the product of chainrule.jacobian(f)(x).singular_values()."
        )
    found = slogdet_of(recorded.program)
    if found is None:
        log = log_of_zero((problem.leaves, recorded.value))
        return recorded.value, jnp.zeros((), recorded.columns.dtype), log
    return recorded.value, *found
