"""Traces, diagonals and log-determinants of a Jacobian: exact where that is cheaper, by random probes elsewhere."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._api import Argnums, checked_argnums, places
from chainrule._compiled import Transform
from chainrule._errors import InputTypeError, MemoryLimitError
from chainrule._fields.field import accumulated
from chainrule._jacobians.jacobian import Jacobian
from chainrule._options import ANY_J, require_count
from chainrule._space import name_of
from chainrule._stochastic.expense import exact_cost
from chainrule._stochastic.keyed import Keyed, require_key
from chainrule._stochastic.lanczos import log_dets, split_log_det
from chainrule._stochastic.probing import Estimate, averaged, diagonal, drawn, trace
from chainrule._trace import pick, require_inputs

_LEAST = {"hutchinson": 1, "hutch++": 3, "xtrace": 2}  # products that each needs
_METHODS = {
    "trace": ("auto", "exact", *_LEAST),
    "diagonal": ("auto", "exact", *_LEAST),
    "log_det": ("auto", "exact", "lanczos", "normal", "series"),
}
_WAYS_OUT = {
    "trace": "only a square J has a trace",
    "diagonal": "J.diagonal() is that of any J",
    "log_det": ANY_J,
}
_AUTO = {"trace": "xtrace", "diagonal": "hutchinson", "log_det": "normal"}


@dataclass(frozen=True)
class _Wanted:
    """What is estimated, and how."""

    what: str
    method: str
    probes: int
    distribution: str | None
    terms: int = 0
    estimator: str = "hutchinson"  # of the trace of a logarithm

    @property
    def name(self) -> str:
        return f"{self.what}_estimate"

    @property
    def products(self) -> int:
        """With J or its transpose."""
        both = 2 if self.what == "log_det" and self.method in ("auto", "normal") else 1
        return self.probes * max(self.terms, 1) * both


def trace_estimate(
    f: Callable[..., Any] | Jacobian,
    argnums: Argnums = 0,
    *,
    method: str = "auto",
    probes: int = 32,
    distribution: str | None = None,
) -> Any:
    """The trace of the Jacobian: the divergence of a field, the Laplacian of what it is the gradient of.

    Parameters
    ----------
    f : callable or Jacobian
        A function as for `jacobian`, with as many outputs as inputs; or its Jacobian, of `linearize` too.
    argnums : int or sequence of int
        As for `jacobian`.
    method : {'auto', 'exact', 'hutchinson', 'hutch++', 'xtrace'}
        'auto' is 'exact' where that takes no more multiply-adds than the products, counted from shapes, and fits in
        memory; else 'xtrace'. Which one it was stands in the result.
    probes : int
        Products with J in all. Hutch++ spends a third of them on a sketch of the image of J, a third on its part of the
        trace, the rest on what is left; XTrace a half on probes and a half on their images, or where half of them are
        n or more, n on the unit vectors: the standard error is 0 then.
    distribution : {'rademacher', 'normal'}, optional
        Of the probes ε. Signs unless given: they make no error on the diagonal; for XTrace normal numbers, whose
        direction alone is used.

    Returns
    -------
    callable
        A function of the arguments of `f` and `key=`, or of `key=` alone where a Jacobian was given, that gives an
        `Estimate`. No key is needed where it is exact. It is compiled once for each shape, works inside `jit`, `vmap`
        and `grad`, and is unbiased, as are its derivatives.

    Raises
    ------
    ShapeError
        Where J is not square.
    InputTypeError
        An unknown method or distribution, no probes, fewer than the method needs; no key where one is needed; as
        `jacobian`; complex numbers, unless they are the entries of a Jacobian whose exact trace is taken.

    Notes
    -----
    Hutchinson: tr J = E[εᵀ J ε], where E[ε εᵀ] = I. With an orthonormal basis Q of the image of a sketch, Hutch++ takes
    tr(Qᵀ J Q) + E[gᵀ J g], g = (I - Q Qᵀ) ε, and XTrace does so with every probe in the second part by turns. Their
    errors fall faster than 1/√probes where singular values decay. XTrace's standard error is that of the jackknife: too
    large rather than too small, up to a few times where its error falls fast. M. F. Hutchinson (1989), *Commun. Stat.
    Simul. Comput.* 18; Meyer, Musco, Musco and Woodruff (2021), *Hutch++*, SOSA; Epperly, Tropp and Webber (2024),
    *XTrace*, SIAM J. Matrix Anal. Appl. 45.

    Examples
    --------
    >>> import chainrule as cr, jax, jax.numpy as jnp
    >>> def rotated(x):
    ...     return jnp.cumsum(jnp.sin(x[::-1]))
    >>> cr.trace_estimate(rotated)(jnp.zeros(5)).value.item()  # it costs less than 32 products
    3.0
    >>> e = cr.trace_estimate(rotated, method="hutchinson", probes=1000)(jnp.zeros(5), key=jax.random.key(0))
    >>> e.exact, bool(abs(e.value - 3) < 3 * e.standard_error)
    (False, True)
    """
    return _transform(_Wanted("trace", method, probes, distribution), f, argnums)


def diagonal_estimate(
    f: Callable[..., Any] | Jacobian,
    argnums: Argnums = 0,
    *,
    method: str = "auto",
    probes: int = 32,
    distribution: str | None = None,
) -> Any:
    """The diagonal of the Jacobian, an (n,) array, with a standard error for each entry; see `trace_estimate`.

    Parameters
    ----------
    f, argnums, probes
        As for `trace_estimate`.
    method : {'auto', 'exact', 'hutchinson', 'hutch++', 'xtrace'}
        'auto' is 'exact' where that takes no more multiply-adds than the products and fits in memory; else
        'hutchinson'. 'hutch++' (Diag++) and 'xtrace' (XDiag) take products with Jᵀ too.
    distribution : {'rademacher', 'normal'}, optional
        Of the probes; signs unless given, which have the least variance.

    Returns
    -------
    callable
        As for `trace_estimate`; the `Estimate`'s value and standard error are (n,) arrays like `J.diagonal()`.

    Raises
    ------
    ShapeError, InputTypeError
        As `trace_estimate`.
    MissingRuleError
        'hutch++' and 'xtrace', where JAX cannot transpose J.

    Notes
    -----
    diag J = E[ε ∘ J ε]; with a basis Q of the image of a sketch, diag(Q Qᵀ J) + E[ε ∘ (I - Q Qᵀ) J ε]. Bekas,
    Kokiopoulou and Saad (2007), *Appl. Numer. Math.* 57; Baston and Nakatsukasa (2022), arXiv:2201.10684; Epperly,
    Tropp and Webber (2024), section 2.4.

    Examples
    --------
    >>> import chainrule as cr, jax, jax.numpy as jnp
    >>> cr.diagonal_estimate(lambda x: x**3)(jnp.array([1.0, 2.0])).value.tolist()
    [3.0, 12.0]
    """
    return _transform(_Wanted("diagonal", method, probes, distribution), f, argnums)


def log_det_estimate(
    f: Callable[..., Any] | Jacobian,
    argnums: Argnums = 0,
    *,
    method: str = "auto",
    probes: int = 16,
    terms: int = 20,
    estimator: str = "hutchinson",
    distribution: str | None = None,
) -> Any:
    """log |det J|, the logarithm of the local volume factor.

    Parameters
    ----------
    f, argnums
        As for `trace_estimate`.
    method : {'auto', 'exact', 'lanczos', 'normal', 'series'}
        'auto' is 'exact' where the entries of J and its elimination take no more multiply-adds than the products,
        counted from shapes and the pattern, and fit in memory; else 'normal'. 'lanczos': J is symmetric positive
        definite, as the Hessian of a convex function is (nothing checks the symmetry). 'normal': any invertible J.
        'series': J = I + G with a contraction G (‖G‖ < 0.9), as of a residual flow; unbiased by Russian roulette.
    probes : int
        Random vectors.
    terms : int
        Steps of Lanczos' method for each of them, or terms of the power series before chance decides on more.
    estimator : {'hutchinson', 'hutch++', 'xtrace'}
        Of the trace of the logarithm, as the methods of `trace_estimate`: the last two are far more accurate where the
        logarithm has few large eigenvalues, as that of I + a matrix of low rank; not for 'series'.
    distribution : {'rademacher', 'normal'}, optional
        Of the probes; signs unless given.

    Returns
    -------
    callable
        As for `trace_estimate`. The derivative is the estimate of tr(J⁻¹ dJ) by the same probes, with a solve by
        conjugate gradients for each; inside `grad` and of any order.

    Raises
    ------
    ShapeError, InputTypeError
        As `trace_estimate`; terms that are no count from 1 on.
    MissingRuleError
        'normal', where JAX cannot transpose J.

    Notes
    -----
    log det A = tr log A = E[εᵀ log(A) ε]. 'lanczos' takes εᵀ log(A) ε by the Gauss quadrature of Lanczos' tridiagonal
    matrix, 'normal' that of JᵀJ, halved; the quadrature's own error falls geometrically with the terms (at a rate of
    about (√κ - 1)²/(√κ + 1)², for the condition number κ of A) and is no part of the standard error. It is nan where a
    Ritz value is negative. 'series' sums (-1)^(k+1) εᵀ Gᵏ ε / k. Ubaru, Chen and Saad (2017), *SIAM J. Matrix Anal.
    Appl.* 38; Chen, Behrmann, Duvenaud and Jacobsen (2019), *Residual flows*, NeurIPS.

    Examples
    --------
    >>> import chainrule as cr, jax, jax.numpy as jnp
    >>> e = cr.log_det_estimate(lambda x: jnp.exp(x))(jnp.array([1.0, 2.0]))
    >>> e.value.item(), e.method
    (3.0, 'exact')
    """
    return _transform(_Wanted("log_det", method, probes, distribution, terms, estimator), f, argnums)


def _transform(wanted: _Wanted, f: Any, argnums: Argnums) -> Any:
    _require_wanted(wanted, f)
    if isinstance(f, Jacobian):
        f._require_square(wanted.name, _WAYS_OUT[wanted.what])
        return functools.partial(_of_jacobian, f, wanted)
    numbers = checked_argnums(wanted.name, f, argnums, least=1)
    shifted = tuple(k + 1 if k >= 0 else k for k in places(numbers))  # the key comes first

    def body(function: Any, args: tuple[Any, ...]) -> Any:
        from chainrule._jacobians.matrix_free import linearized

        key, *rest = args
        problem = pick(wanted.name, function, numbers, rest)
        require_inputs(problem, False)
        free = linearized(problem, False)[0]
        free._require_square(wanted.name, _WAYS_OUT[wanted.what])
        order = "factored" if wanted.what == "log_det" else "auto"
        return _chosen(wanted, free, lambda: accumulated(problem, order), key)

    return Keyed(Transform(wanted.name, f, (0, *shifted), body, wanted, patterned=True))


def _require_wanted(wanted: _Wanted, f: Any) -> None:
    what, known = f"{wanted.name} of {name_of(f)}", _METHODS[wanted.what]
    if wanted.method not in known:
        raise InputTypeError(f"{what}: method={wanted.method!r} is none of {', '.join(map(repr, known))}")
    if wanted.distribution not in (None, "rademacher", "normal"):
        raise InputTypeError(f"{what}: distribution={wanted.distribution!r} is none of 'rademacher', 'normal'")
    if wanted.estimator not in _LEAST:
        raise InputTypeError(f"{what}: estimator={wanted.estimator!r} is none of {', '.join(map(repr, _LEAST))}")
    if wanted.method == "series" and wanted.estimator != "hutchinson":
        raise InputTypeError(
            f"{what}: the power series is cut at random for each probe, which estimator={wanted.estimator!r} cannot "
            "take; give estimator='hutchinson', or method='normal'"
        )
    method = _AUTO[wanted.what] if wanted.method == "auto" else wanted.method
    least = _LEAST.get(wanted.estimator if wanted.what == "log_det" else method, 1)
    counts = {"probes": (wanted.probes, least)} | ({"terms": (wanted.terms, 1)} if wanted.what == "log_det" else {})
    for name, (count, fewest) in counts.items():
        require_count(what, name, count, fewest)


@functools.partial(jax.jit, static_argnums=1)
def _of_one(J: Any, wanted: _Wanted, key: Any) -> Estimate:
    return _chosen(wanted, J, lambda: J, key)


def _of_jacobian(J: Any, wanted: _Wanted, *, key: Any = None) -> Estimate:
    if not J._batch:
        return _of_one(J, wanted, key)
    if key is None:
        return jax.vmap(lambda J: _of_jacobian(J, wanted))(J)
    require_key(wanted.name, key)
    count = np.shape(jax.tree.leaves(J)[-1])[0]
    return jax.vmap(lambda J, key: _of_jacobian(J, wanted, key=key))(J, jax.random.split(key, count))


# the choice ----------------------------------------------------------------------------------------


def _chosen(wanted: _Wanted, J: Any, assembled: Callable[[], Any], key: Any) -> Estimate:
    """J: the map that products are taken with; assembled: the one whose entries are known, made where it may serve."""
    products, takes = wanted.products, _times(wanted.products, J)
    reason = f"{products:,} products take {takes:,} multiply-adds"
    if wanted.method in ("auto", "exact") or not J.shape[0]:
        try:
            whole = assembled()
            cost = exact_cost(wanted.what, whole, stored=whole is J)
            if wanted.method == "exact" or cost <= takes:
                return _exact(wanted, whole, cost, takes)
            reason += f", the exact way {cost:,}"
        except MemoryLimitError:
            if wanted.method == "exact":
                raise
            reason += ", the exact way does not fit in memory"
    require_key(f"{wanted.name} of {J._columns.name or 'f'}", key, f"{reason}, so it is estimated: ")
    return _estimated(wanted, J, key, reason)


def _times(products: int, J: Any) -> int:
    """Multiply-adds of so many products with J."""
    return products * (J.cost if J._products_only else max(J.nnz, 1))


def _estimated(wanted: _Wanted, J: Any, key: Any, reason: str) -> Estimate:
    method = _AUTO[wanted.what] if wanted.method == "auto" else wanted.method
    dtype, n = J._columns.dtype, J.shape[0]
    if jnp.issubdtype(J.dtype, jnp.complexfloating):
        raise InputTypeError(f"{wanted.name}: {J._says('J')} is complex; only method='exact' takes it")
    trace_of = wanted.estimator if wanted.what == "log_det" else method
    resphered = trace_of == "xtrace" and wanted.what != "diagonal"
    distribution = wanted.distribution or ("normal" if resphered else "rademacher")
    push, pull = _rows_through(lambda: J), _rows_through(lambda: J.T)
    if wanted.what == "trace":
        value, error = trace(method, push, key, n, wanted.probes, distribution, dtype)
    elif wanted.what == "diagonal":
        value, error = diagonal(method, push, pull, key, n, wanted.probes, distribution, dtype)
    elif trace_of != "hutchinson":
        value, error = split_log_det(J, key, method, wanted.terms, trace_of, n, wanted.probes, distribution)
        method = f"{method}, {trace_of}"
    else:
        first, second = jax.random.split(key)
        x = drawn(first, (wanted.probes, n), dtype, distribution)
        value, error = averaged(log_dets(J, x, second, method, wanted.terms))
    taken = n if trace_of == "xtrace" and wanted.probes >= 2 * n else wanted.probes  # one for each unit vector
    return Estimate(value, error, taken, method, False, reason)


def _rows_through(J: Callable[[], Any]) -> Callable[[Any], Any]:
    """[k, n] -> [k, n]; the map is made when it is first used: not each has a transpose."""
    return lambda x: jax.vmap(J()._apply)(x)


def _exact(wanted: _Wanted, J: Any, cost: int, takes: int) -> Estimate:
    of = {"trace": J.trace, "diagonal": J.diagonal, "log_det": lambda: J.slogdet()[1]}
    value = of[wanted.what]()
    reason = f"J is {J.structure} and takes {cost:,} multiply-adds, {wanted.products:,} products {takes:,}"
    return Estimate(value, jnp.zeros_like(jnp.abs(value)), 0, "exact", True, reason)
