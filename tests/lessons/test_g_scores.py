"""Scores: of a normal density, of noise, Stein's identity, and what is learned from samples alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import chainrule as cr

RNG = np.random.default_rng(5)
MEANS, SPREAD = jnp.array([[-1.2, 0.0], [1.2, 0.6]]), 0.6


def test_g1_the_score_of_a_normal_density():
    x, mean, sigma = jnp.asarray(RNG.normal(size=4)), jnp.asarray(RNG.normal(size=4)), 0.7
    found = cr.score(lambda x: -((x - mean) ** 2).sum() / (2 * sigma**2))(x)
    np.testing.assert_allclose(found, -(x - mean) / sigma**2, rtol=1e-14)
    A = RNG.normal(size=(4, 4))
    precision = jnp.asarray(A @ A.T + np.eye(4))
    correlated = cr.score(lambda x: -(x - mean) @ precision @ (x - mean) / 2)
    np.testing.assert_allclose(correlated(x), -precision @ (x - mean), rtol=1e-13)
    np.testing.assert_allclose(cr.jacobian(correlated)(x).dense(), -precision, rtol=1e-13)


def test_g1_the_score_of_noise():
    """Of x̃ = x + σ ε, given x, it is -ε/σ; and no model has a smaller denoising loss."""
    x, noise, sigma = (jnp.asarray(RNG.normal(size=3)) for _ in range(3))
    sigma = jnp.abs(sigma)
    moved = x + sigma * noise
    np.testing.assert_allclose(
        cr.score(lambda y: -(((y - x) / sigma) ** 2).sum() / 2)(moved), -noise / sigma, rtol=1e-12
    )
    loss = cr.denoising_score_matching_loss(lambda y: (x - y) / 0.25, 0.5)
    np.testing.assert_allclose(loss(jnp.tile(x, (10, 1)), key=jax.random.key(0)), 0, atol=1e-20)


@pytest.mark.parametrize("phi", [jnp.tanh, lambda x: x * (x @ x), lambda x: jnp.cos(x).sum()], ids=range(3))
def test_g2_steins_identity(phi):
    mean, L = jnp.array([1.0, -0.5]), jnp.array([[1.0, 0.0], [0.5, 0.8]])
    samples = mean[None] + jax.random.normal(jax.random.key(0), (20_000, 2)) @ L.T
    precision = jnp.linalg.inv(L @ L.T)
    e = cr.stein_residual(lambda x: -(x - mean) @ precision @ (x - mean) / 2, phi)(samples)
    assert (abs(e.value) < 4 * e.standard_error).all()
    assert (e.standard_error < 0.2).all()


def mixture(key, n):
    which, noise = jax.random.split(key)
    left = jax.random.bernoulli(which, 0.3, (n,))
    return jnp.where(left[:, None], MEANS[:1], MEANS[1:]) + SPREAD * jax.random.normal(noise, (n, 2))


def model(params, x):
    """The score of a mixture of two normal densities with unknown means, widths and weights."""

    def log_p(x):
        parts = -((x[None] - params["means"]) ** 2).sum(1) / (2 * jnp.exp(2 * params["logs"])) - 2 * params["logs"]
        return jax.nn.logsumexp(parts + params["weights"])

    return cr.score(log_p)(x)


LOSSES = {
    "exact": lambda params, x, key: cr.score_matching_loss(model)(params, x),
    "sliced": lambda params, x, key: cr.sliced_score_matching_loss(model)(params, x, key=key),
    "denoising": lambda params, x, key: cr.denoising_score_matching_loss(model, 0.2)(params, x, key=key),
}


@pytest.mark.parametrize("name", LOSSES)
def test_g3_a_mixture_is_learned_from_samples_by(name):
    data = mixture(jax.random.key(1), 4000)
    start = {"means": jnp.array([[-0.5, 0.0], [0.5, 0.0]]), "logs": jnp.zeros(2), "weights": jnp.zeros(2)}

    def step(params, key):
        batch = data[jax.random.randint(key, (500,), 0, len(data))]
        g = jax.grad(LOSSES[name])(params, batch, key)
        return jax.tree.map(lambda p, g: p - 0.15 * g, params, g), None

    params, _ = jax.jit(lambda p: jax.lax.scan(step, p, jax.random.split(jax.random.key(2), 600)))(start)
    np.testing.assert_allclose(params["means"], MEANS, atol=0.2)
    weight = jax.nn.softmax(params["weights"])[0]
    assert abs(weight - 0.3) < 0.1
    x = cr.langevin(lambda x: model(params, x), jnp.zeros((3000, 2)), jax.random.key(4), step=0.05, steps=300).x
    np.testing.assert_allclose(x.mean(0), data.mean(0), atol=0.3)
    np.testing.assert_allclose(jnp.cov(x.T), jnp.cov(data.T), atol=0.3)
    assert abs((x[:, 0] < 0).mean() - (data[:, 0] < 0).mean()) < 0.12
