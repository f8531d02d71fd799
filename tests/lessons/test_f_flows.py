"""Normalizing flows: densities by a change of variables, whose triangular determinant is found by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy import stats

import chainrule as cr


def normal(z):
    return stats.norm.logpdf(z).sum()


def bent(x):
    """Autoregressive: each number is moved and stretched by those before it."""
    return jnp.stack([x[0] * 1.5 - 0.3, (x[1] - jnp.sin(2 * x[0])) * jnp.exp(-0.4 * jnp.tanh(x[0]))])


def turned(x):
    """Couplings with the two numbers swapped between them: the product of the layers is dense."""
    for k in range(3):
        x = bent(x)[::-1] + 0.1 * k
    return x


@pytest.mark.parametrize("g", [bent, turned])
def test_f3_the_density_integrates_to_one(g):
    log_p, axis = cr.transform_log_density(normal, g, batched=True), np.linspace(-14, 14, 801)
    grid = jnp.asarray(np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2))
    total = float(jnp.exp(log_p(grid)).sum() * (axis[1] - axis[0]) ** 2)  # the rule of trapezia: zero at the border
    assert total == pytest.approx(1, abs=1e-6)


def test_f3_samples_through_the_inverse_have_that_density():
    """The share of the samples in a box is the integral of the density over it."""
    z = jax.random.normal(jax.random.key(0), (20_000, 2))
    x = cr.triangular_inverse(bent, batched=True)(z)
    log_p, axis = cr.transform_log_density(normal, bent, batched=True), np.linspace(0, 1, 101)
    grid = jnp.asarray(np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2))
    weights = np.outer(*[np.r_[0.5, np.ones(99), 0.5]] * 2).reshape(-1) / 1e4
    inside = ((x > 0) & (x < 1)).all(1).mean()
    share = float(jnp.exp(log_p(grid)) @ weights)
    assert abs(float(inside) - share) < 4 * np.sqrt(share / len(z))


def test_f3_cost_is_linear_in_the_numbers():
    """Beside g itself, some operations for each number, whatever it is that conditions them."""

    def more(n):
        rng = np.random.default_rng(0)
        A, B = (jnp.asarray(np.tril(rng.normal(size=(n, n)), -1) / n) for _ in range(2))

        def g(x):
            return (x - A @ jnp.tanh(x)) * jnp.exp(-jnp.tanh(B @ x))

        def count(f):
            return jax.jit(f).lower(jnp.ones(n)).compile().cost_analysis()["flops"]

        return count(lambda x: cr.log_abs_det(g)(x)) - count(g)

    assert more(256) <= 40 * 256
    assert more(256) <= 8.5 * max(more(32), 32)
