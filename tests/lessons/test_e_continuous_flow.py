"""Continuous flows: the logarithm of a density falls with the divergence of the field."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy import linalg, stats

import chainrule as cr

pytest.importorskip("diffrax")


def test_e3_a_linear_flow_of_a_normal_density():
    """dx/dt = A x + b carries N(0, I) to N(m, E Eᵀ) with E = exp(A t)."""
    rng, t = np.random.default_rng(0), 0.8
    A, b = jnp.asarray(rng.normal(size=(3, 3)) / 2), jnp.asarray(rng.normal(size=3))
    E = linalg.expm(A * t)
    mean = jnp.linalg.solve(A, E @ b - b)
    z = jnp.asarray(rng.normal(size=(5, 3)))

    def carried(z):
        return cr.integrate_density(lambda t, x: A @ x + b, z, stats.norm.logpdf(z).sum(), 0.0, t, rtol=1e-9, atol=1e-9)

    x, log_p = jax.vmap(carried)(z)
    np.testing.assert_allclose(x, z @ E.T + mean[None], atol=1e-6)
    np.testing.assert_allclose(
        log_p, jax.vmap(lambda x: stats.multivariate_normal.logpdf(x, mean, E @ E.T))(x), atol=1e-6
    )
