"""The log-likelihood of each of 20 points in a mixture of four Gaussians with diagonal covariances.

With respect to means, log-scales and logits; dense.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from problem import Problem

rng = np.random.default_rng(0)
N, K, D = 20, 4, 3
points = rng.normal(size=(N, D))


def f(parameters: Any) -> Array:
    means, log_scales, logits = parameters
    z = (points[:, None] - means) / jnp.exp(log_scales)
    joint = jax.nn.log_softmax(logits) - jnp.sum(z**2 / 2 + log_scales + np.log(2 * np.pi) / 2, axis=-1)
    return jax.nn.logsumexp(joint, axis=-1)


def by_hand(parameters: Any) -> tuple[Array, ...]:
    """[n, k, d], [n, k, d] and [n, k]: the responsibilities r times z/σ, z² - 1 and, less the weights, one."""
    means, log_scales, logits = parameters
    scale = jnp.exp(-log_scales)
    z = (points[:, None] - means) * scale
    r = jax.nn.softmax(logits - jnp.sum(z**2 / 2 + log_scales, axis=-1), axis=-1)
    return r[..., None] * z * scale, r[..., None] * (z**2 - 1), r - jax.nn.softmax(logits)


def matrix(values: Any) -> Any:
    return np.concatenate([v.reshape(N, -1) for v in values], axis=1)


x0 = (rng.normal(size=(K, D)), rng.normal(size=(K, D)) / 4, rng.normal(size=K))
problems = [Problem("Gaussian mixture", f, x0, by_hand, matrix, smoke=True)]
