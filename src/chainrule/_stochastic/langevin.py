"""Samples by following a score: Langevin's dynamics, and a ladder of noise levels to walk down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._compiled import Transform
from chainrule._errors import InputTypeError
from chainrule._options import require_count, require_tolerance
from chainrule._space import name_of, shown
from chainrule._stochastic.keyed import require_key
from chainrule._stochastic.score import levels_of, like_point, points
from chainrule._trace import scalar_function


class Particles(NamedTuple):
    """Where a sampler stopped.

    x : [particles, *shape]. accepted : the part of all proposals that were taken, 1 without a Metropolis test.

    Examples
    --------
    >>> import chainrule as cr, jax, jax.numpy as jnp
    >>> drawn = cr.langevin(lambda x: -x, jnp.zeros((10, 2)), jax.random.key(0), step=0.1, steps=5)
    >>> drawn.x.shape, float(drawn.accepted)
    ((10, 2), 1.0)
    """

    x: Any
    accepted: Any

    def __repr__(self) -> str:
        return f"Particles {shown(self.x)} · {shown(self.accepted)} of the proposals accepted"


def langevin(
    score: Callable[[Any], Any],
    x0: Any,
    key: Any,
    *,
    step: float,
    steps: int,
    log_p: Callable[[Any], Any] | None = None,
) -> Particles:
    """Walk x ← x + h s(x) + √(2h) ξ with fresh normal ξ: samples of the density whose score is s, after many steps.

    Parameters
    ----------
    score : callable
        s(x) of one point, an array like x; see `chainrule.score`.
    x0 : array [particles, *shape]
        Where the particles start; each walks by itself.
    key : random key
    step : float
        h, the time of one step of dx = s dt + √2 dW.
    steps : int
        How many are taken.
    log_p : callable, optional
        The log-density of one point: each step is then a proposal that is taken with the probability of Metropolis and
        Hastings (MALA), which takes away the error of the step. Without it that error stays, of the order of h (ULA).

    Returns
    -------
    Particles
        With `x` like x0 and `accepted`. Inside `jit`, `vmap` and `grad` too.

    Raises
    ------
    ShapeError
        Where x0 has no leading axis, the score is not like a point, or `log_p` is not one real number.
    InputTypeError
        Where x0 is no real array, `steps` is no count, `step` no number from 0 on, or the key none.

    Notes
    -----
    One compiled loop for each score function and shape; a new `lambda` at every call is compiled anew. Roberts and
    Tweedie (1996), *Exponential convergence of Langevin distributions*, Bernoulli 2.

    Examples
    --------
    >>> import chainrule as cr, jax, jax.numpy as jnp
    >>> x = cr.langevin(lambda x: 3.0 - x, jnp.zeros((1000, 1)), jax.random.key(0), step=0.1, steps=100).x
    >>> bool(abs(x.mean() - 3.0) < 0.2)
    True
    """
    _require("langevin", score, x0, key, step, steps)
    scalar = None if log_p is None else scalar_function("langevin", log_p, False)

    def body(function: Any, args: tuple[Any, ...]) -> Any:
        x, key, h = args
        drift = _drift("langevin", function)
        move = _proposal(drift, h)
        return _walked(move if scalar is None else _metropolis(drift, scalar, move, h), x, key, steps)

    h = jnp.asarray(step, jnp.asarray(x0).dtype)
    return Transform("langevin", score, (0, 1, 2), body, ("langevin", steps, log_p))(x0, key, h)


def annealed_langevin(
    score: Callable[[Any, Any], Any],
    sigmas: Sequence[float],
    x0: Any,
    key: Any,
    *,
    step: float,
    steps: int,
    denoise: bool = True,
) -> Particles:
    """Langevin's walk at each of some levels of noise by turns, the largest first: modes far apart are found so.

    Parameters
    ----------
    score : callable
        s(x, sigma) of one point: the score of the density smoothed by normal noise of standard deviation sigma, such as
        `denoising_score_matching_loss` learns.
    sigmas : sequence of float
        The levels; the smallest says how sharp the samples are.
    x0 : array [particles, *shape]
        Where the particles start: noise of the largest level.
    key : random key
    step : float
        h at the smallest level; at level σ it is h σ²/σ_min².
    steps : int
        How many are taken at each level.
    denoise : bool
        Whether the noise of the smallest level is taken off in the end by Tweedie's formula, x + σ² s(x, σ).

    Returns
    -------
    Particles
        With `x` like x0. Inside `jit`, `vmap` and `grad` too.

    Raises
    ------
    ShapeError, InputTypeError
        As `langevin`; or where a level is not positive.

    Notes
    -----
    Song and Ermon (2019), *Generative modeling by estimating gradients of the data distribution*, NeurIPS, algorithm 1,
    whose α is 2h; the last step is that of Jolicoeur-Martineau et al. (2021), ICLR.

    Examples
    --------
    >>> import chainrule as cr, jax, jax.numpy as jnp
    >>> smoothed = lambda x, sigma: (3.0 - x) / (1.0 + sigma**2)  # data of mean 3 and variance 1
    >>> x0 = 10.0 * jax.random.normal(jax.random.key(0), (1000, 1))
    >>> x = cr.annealed_langevin(smoothed, [10.0, 3.0, 1.0, 0.5], x0, jax.random.key(1), step=0.05, steps=50).x
    >>> bool(abs(x.mean() - 3.0) < 0.2)
    True
    """
    levels = np.sort(levels_of(f"annealed_langevin of {name_of(score)}", sigmas).reshape(-1))[::-1]
    _require("annealed_langevin", score, x0, key, step, steps)

    def body(function: Any, args: tuple[Any, ...]) -> Any:
        x, key, h = args
        own = jnp.asarray(levels, x.dtype)

        def level(x: Any, given: Any) -> Any:
            sigma, key = given
            drift = _drift("annealed_langevin", function, sigma)
            return _walked(_proposal(drift, h * (sigma / own[-1]) ** 2), x, key, steps).x, None

        x, _ = jax.lax.scan(level, x, (own, jax.random.split(key, levels.size)))
        if denoise:
            drift = _drift("annealed_langevin", function, own[-1])
            x = jax.vmap(lambda x: x + own[-1] ** 2 * drift(x))(x)
        return Particles(x, jnp.ones((), x.dtype))

    h = jnp.asarray(step, jnp.asarray(x0).dtype)
    options = ("annealed_langevin", levels.tobytes(), steps, denoise)
    return Transform("annealed_langevin", score, (0, 1, 2), body, options)(x0, key, h)


def _require(what: str, score: Any, x0: Any, key: Any, step: Any, steps: Any) -> None:
    points(what, score, (x0,))
    own = f"{what} of {name_of(score)}"
    if not hasattr(x0, "shape"):
        raise InputTypeError(f"{own}: x0 is a {type(x0).__name__}; the particles are one array [particles, *shape]")
    require_key(own, key)
    require_count(own, "steps", steps, 0)
    require_tolerance(own, "step", step)


def _walked(take: Callable[..., Any], x: Any, key: Any, steps: int) -> Particles:
    """Steps of all particles [p, ...]; take: (x, key) -> (x, accepted) of one."""

    def step(x: Any, key: Any) -> Any:
        x, accepted = jax.vmap(take)(x, jax.random.split(key, len(x)))
        return x, accepted.mean()

    x, accepted = jax.lax.scan(step, x, jax.random.split(key, steps))
    return Particles(x, accepted.mean() if steps else jnp.ones((), x.dtype))


def _drift(what: str, score: Callable[..., Any], *level: Any) -> Callable[[Any], Any]:
    """The score at x, in the form of x."""
    return lambda x: like_point(what, score, score(x, *level), x).reshape(x.shape).astype(x.dtype)


def _proposal(drift: Callable[[Any], Any], h: Any) -> Callable[..., Any]:
    def move(x: Any, key: Any) -> Any:
        noise = jax.random.normal(key, x.shape, x.dtype)
        return x + h * drift(x) + jnp.sqrt(2 * h) * noise, jnp.ones((), x.dtype)

    return move


def _metropolis(drift: Callable[[Any], Any], log_p: Any, move: Callable[..., Any], h: Any) -> Callable[..., Any]:
    """Take a proposal y of x with probability min(1, p(y) q(x | y) / (p(x) q(y | x)))."""

    def log_q(y: Any, x: Any) -> Any:
        return -((y - x - h * drift(x)) ** 2).sum() / (4 * h)

    def take(x: Any, key: Any) -> Any:
        proposing, testing = jax.random.split(key)
        y, _ = move(x, proposing)
        ratio = log_p(y) - log_p(x) + log_q(x, y) - log_q(y, x)
        accepted = jnp.log(jax.random.uniform(testing, (), x.dtype)) < ratio
        return jnp.where(accepted, y, x), accepted.astype(x.dtype)

    return take
