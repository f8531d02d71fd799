"""The trace of a Jacobian by chance."""

import jax
import jax.numpy as jnp
import numpy as np

import chainrule as cr

RNG = np.random.default_rng(4)
W = jnp.asarray(RNG.normal(size=(50, 50)) / 7)
X = jnp.asarray(RNG.normal(size=50))


def field(x):
    return W @ jnp.tanh(W.T @ x) + 3 * jnp.outer(jnp.cos(X), jnp.sin(X)) @ x


def test_e2_hutchinson_is_unbiased_and_its_error_bars_cover():
    exact = jnp.trace(jax.jacfwd(field)(X))
    of = cr.trace_estimate(field, method="hutchinson", probes=30)
    e = jax.jit(jax.vmap(lambda key: of(X, key=key)))(jax.random.split(jax.random.key(0), 1000))
    assert abs(e.value.mean() - exact) < 4 * e.value.std() / np.sqrt(1000)
    assert 0.9 < (abs(e.value - exact) < 2 * e.standard_error).mean() < 0.99
    np.testing.assert_allclose(jnp.sqrt((e.standard_error**2).mean()), e.value.std(), rtol=0.1)


def test_e2_one_sample_is_one_probe_on_either_side():
    key = jax.random.key(5)
    probe = jax.random.rademacher(key, (1, 50), X.dtype)[0]
    e = cr.trace_estimate(field, method="hutchinson", probes=1)(X, key=key)
    np.testing.assert_allclose(e.value, probe @ cr.pushforward(field)(X, probe))


def test_e2_four_times_the_probes_halve_the_error():
    keys = jax.random.split(jax.random.key(1), 500)
    spread = [
        jax.vmap(lambda key, k=k: cr.trace_estimate(field, method="hutchinson", probes=k)(X, key=key).value)(keys).std()
        for k in (10, 40)
    ]
    np.testing.assert_allclose(spread[0] / spread[1], 2, rtol=0.15)


def test_e2_what_has_low_rank_is_no_error_any_more():
    def low(x):
        return 3 * jnp.outer(jnp.cos(X), jnp.sin(X)) @ x

    exact = 3 * (jnp.cos(X) * jnp.sin(X)).sum()
    for method in ("hutch++", "xtrace"):
        e = cr.trace_estimate(low, method=method, probes=12)(X, key=jax.random.key(2))
        np.testing.assert_allclose(e.value, exact, rtol=1e-10)
