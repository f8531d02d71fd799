"""Continuous flows: points and their log-densities along a field."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import chainrule as cr

pytest.importorskip("diffrax")


def test_rotation_keeps_densities_and_pytrees_their_form():
    def v(t, x):
        return {"a": -x["b"], "b": x["a"]}

    x0 = {"a": jnp.ones(2), "b": jnp.zeros(2)}
    x, log_p = cr.integrate_density(v, x0, -1.0, 0.0, jnp.pi / 2, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(x["b"], 1, atol=1e-7)
    assert float(log_p) == pytest.approx(-1, abs=1e-9)


def test_there_and_back():
    def v(t, x, w):
        return jnp.sin(w @ x) + t * x

    w, x0 = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3))), jnp.array([0.3, -0.2, 0.8])
    there = cr.integrate_density(v, x0, 0.5, 0.0, 1.0, w, rtol=1e-10, atol=1e-10)
    back = cr.integrate_density(v, *there, 1.0, 0.0, w, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(back[0], x0, atol=1e-7)
    assert float(back[1]) == pytest.approx(0.5, abs=1e-7)


def test_one_probe_is_unbiased():
    A = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)))
    keys = jax.random.split(jax.random.key(0), 300)
    probed = jax.vmap(lambda key: cr.integrate_density(lambda t, x: A @ x, jnp.ones(4), 0.0, 0.0, 0.5, key=key)[1])(
        keys
    )
    error = probed.std() / np.sqrt(len(keys))
    assert error > 0
    assert abs(probed.mean() + 0.5 * jnp.trace(A)) < 5 * error


def test_gradients_by_the_field():
    def log_p(a):
        return cr.integrate_density(lambda t, x: a * x, jnp.ones(3), 0.0, 0.0, 2.0)[1]

    assert float(jax.grad(log_p)(jnp.asarray(0.5))) == pytest.approx(-6, rel=1e-6)


def test_what_is_refused():
    with pytest.raises(cr.InputTypeError, match="floating point"):
        cr.integrate_density(lambda t, x: x, jnp.arange(3), 0.0, 0.0, 1.0)
    with pytest.raises(cr.ShapeError, match="a field is like x"):
        cr.integrate_density(lambda t, x: x.sum(), jnp.ones(3), 0.0, 0.0, 1.0)


def test_the_flow_of_a_float32_point_stays_float32():
    x, log_p = cr.integrate_density(lambda t, x: -0.5 * x, jnp.ones(2, jnp.float32), 0.0, 0.0, 2.0)
    assert x.dtype == log_p.dtype == jnp.float32


def test_what_a_flow_refuses():
    with pytest.raises(cr.ChainruleError, match="in 5 steps; give more max_steps"):
        cr.integrate_density(lambda t, x: -1e6 * x, jnp.ones(2), 0.0, 0.0, 2.0, max_steps=5)
    with pytest.raises(cr.InputTypeError, match=r"jax\.random\.key"):
        cr.integrate_density(lambda t, x: x, jnp.ones(2), 0.0, 0.0, 2.0, key=3)
    with pytest.raises(cr.ShapeError, match="log_p0 is one number"):
        cr.integrate_density(lambda t, x: x, jnp.ones(2), jnp.zeros(2), 0.0, 2.0)
