"""Scores: the gradient of a log-density, losses that fit one to samples, and what holds for every pair of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._api import Argnums, checked_argnums, places, value_and_jacobian
from chainrule._compiled import Transform
from chainrule._errors import InputTypeError, ShapeError
from chainrule._options import count_of_points, require_count
from chainrule._space import flat, name_of
from chainrule._stochastic.keyed import Keyed, require_key
from chainrule._stochastic.probing import Estimate, averaged, drawn_like
from chainrule._trace import pick, require_inputs, scalar_function


def score(log_p: Callable[..., Any], argnums: Argnums = 0) -> Transform:
    """The score of a density: s(x) = ∇ₓ log p(x), a pytree like x. An unknown factor of p has no part in it.

    Parameters
    ----------
    log_p : callable
        The logarithm of a density, up to a constant: one real number for one point x. Points in a batch: `jax.vmap`.
    argnums : int or sequence of int
        Which argument the point is, as for `gradient`.

    Returns
    -------
    Transform
        A function of the same arguments; compiled once for each shape, inside `jit`, `vmap` and `grad` too.

    Raises
    ------
    ShapeError
        Where `log_p` gives anything but one real number.
    InputTypeError
        As `gradient`; or complex points.

    Notes
    -----
    Of a normal density it is -(x - μ)/σ²; of a point x̃ = x + σ ε that noise has moved, given x, it is -ε/σ. Hyvärinen
    (2005), *Estimation of non-normalized statistical models by score matching*, JMLR 6.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> cr.score(lambda x, mean: -(((x - mean) / 2.0) ** 2).sum() / 2)(jnp.array([2.0, 3.0]), 1.0).tolist()
    [-0.25, -0.5]
    """
    numbers = checked_argnums("score", log_p, argnums, least=1)

    def body(function: Any, args: tuple[Any, ...]) -> Any:
        require_inputs(pick("score", function, numbers, args), False)
        return jax.grad(scalar_function("score", function, False), numbers)(*args)

    return Transform("score", log_p, places(numbers), body, ("score", numbers))


def stein_residual(log_p: Callable[[Any], Any], phi: Callable[[Any], Any]) -> Transform:
    """Stein's identity on samples of p: the mean of φ(x) s(x)ᵀ + ∇φ(x), which is 0 in expectation.

    Parameters
    ----------
    log_p : callable
        As for `score`, of one point x of n numbers.
    phi : callable
        A test function of one point with m outputs; a pytree of arrays.

    Returns
    -------
    Transform
        A function of samples (arrays or pytrees with a leading axis of N points) that gives an `Estimate`. Its value
        and standard error are (m, n) arrays: rows are outputs of φ, columns numbers of x, as in its Jacobian ∇φ. The
        samples are taken as independent.

    Raises
    ------
    ShapeError
        Where `log_p` gives anything but one real number, or the samples have no common leading axis.

    Notes
    -----
    E_p[φ sᵀ + ∇φ] = 0, s = ∇ log p, wherever p φ vanishes far out. A residual of many standard errors says that the
    samples are not of p (or that the score is wrong), in the direction that φ sees. Stein (1972); Gorham and Mackey
    (2015), *Measuring sample quality with Stein's method*, NeurIPS.

    Examples
    --------
    >>> import chainrule as cr, jax, jax.numpy as jnp
    >>> x = jax.random.normal(jax.random.key(0), (10_000, 2))
    >>> e = cr.stein_residual(lambda x: -(x**2).sum() / 2, jnp.tanh)(x)
    >>> e.value.shape, bool((abs(e.value) < 4 * e.standard_error).all())
    ((2, 2), True)
    """
    s = jax.grad(scalar_function("stein_residual", log_p, False))

    def body(function: Any, args: tuple[Any, ...]) -> Any:
        (samples,) = args
        count = points("stein_residual", function, args)

        def one(x: Any) -> Any:
            value, J = value_and_jacobian(function)(x)
            return jnp.outer(flat(value), flat(s(x))) + J.dense()

        value, error = averaged(jax.vmap(one)(samples))
        return Estimate(value, error, count, "mean of samples", False, "")

    return Transform("stein_residual", phi, (0,), body, ("stein_residual", log_p))


def score_matching_loss(s: Callable[..., Any]) -> Transform:
    """Hyvärinen's loss of a model s of the score: the mean of ½‖s(x)‖² + tr ∇s(x), with the exact trace.

    Parameters
    ----------
    s : callable
        A model of the score at one point: s(x), s(params, x) or s(anything, …, x), the point last. It gives as many
        numbers as x has.

    Returns
    -------
    Transform
        The loss as a function of the same arguments, with the points as a leading axis of the last: loss(params, x)
        gives one number. `jax.grad(loss)` is its gradient in the parameters.

    Raises
    ------
    ShapeError
        Where s has not as many outputs as x has numbers, or the points have no common leading axis.

    Notes
    -----
    Up to a constant of the data it is ½ E‖s(x) - ∇ log p(x)‖², which cannot be computed, by partial integration:
    the trace stands in for E[s ∇ log p]. The trace is that of the structured Jacobian. Hyvärinen (2005), JMLR 6, eq. 4.

    Examples
    --------
    >>> import chainrule as cr, jax, jax.numpy as jnp
    >>> x = jnp.array([[1.0], [2.0], [3.0]])
    >>> loss = cr.score_matching_loss(lambda mean, x: mean - x)
    >>> jax.grad(loss)(0.0, x).item()  # least at the mean of the data
    -2.0
    """

    def body(function: Any, args: tuple[Any, ...]) -> Any:
        def one(x: Any) -> Any:
            value, J = value_and_jacobian(_of_point(function, args))(x)
            like_point("score_matching_loss", function, value, x)
            return (flat(value) ** 2).sum() / 2 + J.trace()

        return _mean("score_matching_loss", function, one, args)

    return Transform("score_matching_loss", s, (-1,), body, ("score_matching_loss",))


def sliced_score_matching_loss(s: Callable[..., Any], *, probes: int = 1) -> Keyed:
    """Score matching whose trace is seen along random directions: ½‖s‖² + εᵀ ∇s ε, of one product each.

    Parameters
    ----------
    s : callable
        As for `score_matching_loss`.
    probes : int
        Directions ε of random signs for each point.

    Returns
    -------
    callable
        As `score_matching_loss`, with `key=` beside the arguments: loss(params, x, key=key).

    Raises
    ------
    ShapeError
        As `score_matching_loss`.
    InputTypeError
        Where `probes` is no count, or the key none.

    Notes
    -----
    Its expectation is `score_matching_loss`, its cost that of a few products with ∇s whatever n is. Song, Garg, Shi and
    Ermon (2019), *Sliced score matching*, UAI, eq. 8 (SSM-VR).

    Examples
    --------
    >>> import chainrule as cr, jax, jax.numpy as jnp
    >>> loss = cr.sliced_score_matching_loss(lambda mean, x: mean - x)
    >>> loss(4.0, jnp.array([[1.0], [2.0], [3.0], [4.0]]), key=jax.random.key(0)).item()  # 14/8 - 1
    0.75
    """
    require_count("sliced_score_matching_loss", "probes", probes)

    def body(function: Any, args: tuple[Any, ...]) -> Any:
        key, *rest = args
        require_key(f"sliced_score_matching_loss of {name_of(function)}", key)

        def one(x: Any, key: Any) -> Any:
            own = _of_point(function, rest)
            value, push = jax.linearize(lambda x: like_point("sliced_score_matching_loss", function, own(x), x), x)

            def slope(key: Any) -> Any:
                e = drawn_like(key, x, "rademacher")
                return flat(e) @ flat(push(e))

            return (flat(value) ** 2).sum() / 2 + jax.vmap(slope)(jax.random.split(key, probes)).mean()

        return _mean("sliced_score_matching_loss", function, one, rest, key)

    return Keyed(Transform("sliced_score_matching_loss", s, (0, -1), body, ("sliced_score_matching_loss", probes)))


def denoising_score_matching_loss(
    s: Callable[..., Any], sigmas: float | Sequence[float], *, weights: Callable[[Any], Any] | None = None
) -> Keyed:
    """Denoising score matching: the mean of λ(σ) ½‖s(x + σ ε) + ε/σ‖², with normal noise ε.

    Parameters
    ----------
    s : callable
        As for `score_matching_loss`, where one number is given as `sigmas`: s(params, x). With a sequence of levels the
        model knows the level: s(params, x, sigma).
    sigmas : number or sequence of numbers
        Standard deviations of the noise. Of several levels each point is given one at random.
    weights : callable, optional
        λ(σ); σ² unless given, by which all levels count about equally.

    Returns
    -------
    callable
        As `score_matching_loss`, with `key=` beside the arguments: loss(params, x, key=key); no level is among them.

    Raises
    ------
    ShapeError
        As `score_matching_loss`.
    InputTypeError
        Where a level is not positive, or the key none.

    Notes
    -----
    -ε/σ is the score of x̃ = x + σ ε given x; its mean given x̃ is the score of the density of x̃, that of the data
    smoothed by the noise: this is what the model learns. No derivative of s in x is taken. Vincent (2011), *A
    connection between score matching and denoising autoencoders*, Neural Comput. 23; Song and Ermon (2019), NeurIPS,
    eqs. 5 and 6.

    Examples
    --------
    >>> import chainrule as cr, jax, jax.numpy as jnp
    >>> loss = cr.denoising_score_matching_loss(lambda mean, x: (mean - x) / 0.25, 0.5)
    >>> loss(0.0, jnp.zeros((4, 2)), key=jax.random.key(0)).round(3).item()  # of zeros with this noise
    0.0
    """
    levels = levels_of("denoising_score_matching_loss", sigmas)

    def body(function: Any, args: tuple[Any, ...]) -> Any:
        key, *rest = args
        require_key(f"denoising_score_matching_loss of {name_of(function)}", key)

        def one(x: Any, key: Any) -> Any:
            which, noise = jax.random.split(key)
            sigma = jnp.asarray(levels.reshape(-1), flat(x).dtype)[jax.random.randint(which, (), 0, levels.size)]
            e = drawn_like(noise, x, "normal")
            moved = jax.tree.map(lambda v, n: v + sigma.astype(v.dtype) * n, x, e)
            found = _of_point(function, rest)(moved, *[sigma] * levels.ndim)
            miss = flat(like_point("denoising_score_matching_loss", function, found, x)) + flat(e) / sigma
            return (sigma**2 if weights is None else weights(sigma)) * (miss**2).sum() / 2

        return _mean("denoising_score_matching_loss", function, one, rest, key)

    options = ("denoising_score_matching_loss", levels.tobytes(), levels.shape, weights)
    return Keyed(Transform("denoising_score_matching_loss", s, (0, -1), body, options))


def points(what: str, f: Any, args: Sequence[Any]) -> int:
    """How many points the last argument holds."""
    problem = pick(what, f, -1, args)
    require_inputs(problem, False)
    count = count_of_points(problem.what, "samples are", problem.leaves, "; give one point x as x[None]")
    if not count:
        raise ShapeError(f"{problem.what}: no samples, which have no mean")
    return count


def levels_of(what: str, sigmas: Any) -> np.ndarray:
    """Levels of noise in float64, known while tracing."""
    try:
        levels = np.asarray(sigmas, float)
    except (TypeError, ValueError, jax.errors.TracerArrayConversionError):
        levels = np.zeros(0)
    if levels.ndim > 1 or not levels.size or not (levels > 0).all():
        raise InputTypeError(f"{what}: sigmas={sigmas!r} is neither a positive number nor a sequence of these")
    return levels


def _of_point(function: Callable[..., Any], args: Sequence[Any]) -> Callable[..., Any]:
    return lambda x, *level: function(*args[:-1], x, *level)


def like_point(what: str, f: Any, value: Any, x: Any) -> Any:
    """The value, where it has as many numbers as x."""
    m, n = (sum(np.size(a) for a in jax.tree.leaves(v)) for v in (value, x))
    if m != n:
        raise ShapeError(f"{what} of {name_of(f)}: a score has as many numbers as the point, got {m} outputs for {n}")
    return value


def _mean(what: str, f: Any, one: Callable[..., Any], args: Sequence[Any], key: Any = None) -> Any:
    count = points(what, f, args)
    return jax.vmap(one)(args[-1], *([] if key is None else [jax.random.split(key, count)])).mean()
