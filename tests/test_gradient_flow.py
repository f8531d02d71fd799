"""Gradient flows, against closed forms; the constant of Polyak and Łojasiewicz."""

import builtins

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import chainrule as cr

RNG = np.random.default_rng(5)
ROOT = RNG.normal(size=(4, 4))
S = jnp.asarray(ROOT @ ROOT.T + 0.5 * np.eye(4))
X0 = jnp.asarray(RNG.normal(size=4))


def quadratic(x, S=S):
    return x @ S @ x / 2


def exact(times, S=S):
    values, vectors = np.linalg.eigh(np.asarray(S))
    return np.exp(-np.outer(times, values)) * (vectors.T @ np.asarray(X0)) @ vectors.T


@pytest.mark.parametrize("stiff", [False, True])
def test_a_quadratic_against_the_exponential(stiff):
    flow = cr.gradient_flow(quadratic, X0, 2.0, points=21, stiff=stiff)
    np.testing.assert_allclose(flow.times, np.linspace(0, 2, 21))
    np.testing.assert_allclose(flow.points, exact(flow.times), atol=2e-5 if stiff else 1e-6)
    np.testing.assert_allclose(flow.losses, [quadratic(x) for x in flow.points], rtol=1e-12)
    np.testing.assert_allclose(flow.squared_norms, [jnp.sum((S @ x) ** 2) for x in flow.points], rtol=1e-12)


def test_data_time_and_derivatives_are_arguments():
    traced = []

    def f(x, k):
        traced.append(1)
        return k * (x["a"] ** 2).sum() / 2 + k * x["b"] ** 2

    x0 = {"a": jnp.ones(2), "b": jnp.array(3.0)}
    flow = cr.gradient_flow(f, x0, 1.0, 2.0, points=3)
    np.testing.assert_allclose(flow.points["a"][-1], np.exp(-2.0) * np.ones(2), rtol=1e-6)
    np.testing.assert_allclose(flow.points["b"][-1], 3 * np.exp(-4.0), rtol=1e-6)
    count = len(traced)
    np.testing.assert_allclose(cr.gradient_flow(f, x0, 2.0, 3.0, points=3).points["a"][-1], np.exp(-6.0), rtol=1e-4)
    assert len(traced) == count  # compiled once

    def last(k):
        return jax.jit(lambda k: cr.gradient_flow(f, x0, 1.0, k, points=2).points["a"][-1, 0])(k)

    np.testing.assert_allclose(jax.grad(last)(2.0), -np.exp(-2.0), rtol=1e-5)


def test_stiff_by_structure():
    """A chain of springs beside a stiff wall: an explicit method would need a million steps."""
    n = 200

    def f(x):
        return 1e6 * x[0] ** 2 / 2 + ((x[1:] - x[:-1]) ** 2).sum() / 2 + (x**4).sum() / 4

    flow = cr.gradient_flow(f, jnp.ones(n), 5.0, points=6, stiff=True, rtol=1e-6, atol=1e-6)
    assert (np.diff(flow.losses) < 0).all() and abs(float(flow.points[-1, 0])) < 1e-4
    with pytest.raises(cr.ChainruleError, match=r"was not followed to t1=5.0 in 100 steps; give stiff=True"):
        cr.gradient_flow(f, jnp.ones(n), 5.0, max_steps=100)
    given = jax.jit(lambda x: cr.gradient_flow(f, x, 5.0, points=6, max_steps=100))(jnp.ones(n))
    assert np.isnan(given.points[-1]).all() and np.isnan(given.losses[-1])


def test_float32_stays_float32():
    flow = cr.gradient_flow(lambda x: (x**2).sum() / 2, jnp.ones(2, jnp.float32), 1.0, points=2)
    assert {x.dtype for x in flow} == {jnp.dtype("float32")}
    np.testing.assert_allclose(flow.points[-1], np.exp(-1.0), rtol=1e-4)


def test_the_constant_along_a_path():
    flow = cr.gradient_flow(quadratic, X0, 3.0, points=31)
    mu = float(cr.polyak_lojasiewicz(quadratic, flow, minimum=0.0))
    curvatures = np.linalg.eigvalsh(S)
    assert curvatures[0] <= mu <= curvatures[-1]
    ratios = flow.squared_norms / (2 * flow.losses)
    np.testing.assert_allclose(mu, ratios.min())
    shifted = lambda x, c: quadratic(x) + c  # noqa: E731
    np.testing.assert_allclose(cr.polyak_lojasiewicz(shifted, flow.points, 7.0, minimum=7.0), mu, rtol=1e-9)
    own = jax.jit(lambda x: cr.polyak_lojasiewicz(quadratic, x, minimum=0.0))(flow.points)
    np.testing.assert_allclose(own, mu)


def test_points_at_the_minimum_are_left_out():
    points = jnp.stack([X0, 0 * X0])
    one = cr.polyak_lojasiewicz(quadratic, points[:1], minimum=0.0)
    np.testing.assert_allclose(cr.polyak_lojasiewicz(quadratic, points, minimum=0.0), one)
    assert float(cr.polyak_lojasiewicz(quadratic, points[1:], minimum=0.0)) == np.inf


def test_refusals(monkeypatch):
    with pytest.raises(cr.ChainruleError, match=r"below minimum=100.0 by \d+"):
        cr.polyak_lojasiewicz(quadratic, X0[None], minimum=100.0)
    with pytest.raises(cr.ShapeError, match="a path has its points along a first axis"):
        cr.polyak_lojasiewicz(lambda x: x**2, jnp.array(1.0), minimum=0.0)
    with pytest.raises(cr.ShapeError, match="one real number"):
        cr.gradient_flow(jnp.sin, X0, 1.0)
    with pytest.raises(cr.InputTypeError, match="floating point"):
        cr.gradient_flow(lambda x: x.sum(), jnp.arange(3), 1.0)
    for option in ({"points": 1}, {"max_steps": 0}, {"rtol": -1}, {"points": 2.5}):
        with pytest.raises(cr.InputTypeError, match=f"{next(iter(option))}="):
            cr.gradient_flow(quadratic, X0, 1.0, **option)
    real = builtins.__import__

    def without(name, *args, **keywords):
        if name == "diffrax":
            raise ImportError(name)
        return real(name, *args, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(cr.ChainruleError, match=r"gradient_flow needs diffrax: pip install 'chainrule\[solvers\]'"):
        cr.gradient_flow(lambda x: x @ x, X0, 1.0)


def test_a_flow_shows_in_a_line():
    flow = cr.gradient_flow(lambda x: (x["a"] ** 2).sum(), {"a": jnp.ones((2, 3))}, 1.0, points=5)
    text = repr(flow)
    assert text.startswith("GradientFlow float64[5, 2, 3] to time 1.0 · loss ") and "\n" not in text
    assert "(5,)" in repr(jax.tree.map(jnp.shape, flow))  # of whatever is in its place
    jax.jit(lambda flow: repr(flow) and flow)(flow)
