"""The Laplacian is the divergence of the gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import chainrule as cr

RNG = np.random.default_rng(4)

HARMONIC = {
    "x² − y²": (lambda x: x[0] ** 2 - x[1] ** 2, 2),
    "1/r": (lambda x: 1 / jnp.linalg.norm(x), 3),
    "eˣ cos y": (lambda x: jnp.exp(x[0]) * jnp.cos(x[1]), 2),
    "log r": (lambda x: jnp.log(x @ x), 2),
}


@pytest.mark.parametrize("name", HARMONIC)
def test_e4_harmonic_functions_give_zero(name):
    f, n = HARMONIC[name]
    points = jnp.asarray(RNG.normal(size=(50, n)))
    np.testing.assert_allclose(cr.laplacian(f, batched=True)(points), 0, atol=1e-11)


def test_e4_laplacian_is_the_divergence_of_the_gradient_and_the_trace_of_the_hessian():
    def f(x):
        return jnp.sin(x).prod() + (x[1:] * x[:-1] ** 2).sum()

    x = jnp.asarray(RNG.normal(size=5))
    np.testing.assert_allclose(cr.laplacian(f)(x), cr.jacobian(jax.grad(f))(x).trace(), atol=1e-13)
    np.testing.assert_allclose(cr.laplacian(f)(x), cr.hessian(f)(x).trace(), atol=1e-13)


@pytest.mark.parametrize("sign", [1, -1])
def test_e4_sign_says_whether_f_is_below_its_local_average(sign):
    """On a sphere of radius r around x, the average of f − f(x) is r² Δf / 2n, up to r⁴."""

    def f(x):
        return sign * (jnp.exp(x[0]) + x[1] ** 2 + x[0] * x[1] ** 3)

    x, r, k = jnp.array([0.3, 0.4]), 1e-2, 64
    angles = 2 * np.pi * np.arange(k) / k
    circle = x[None] + r * jnp.stack([jnp.cos(angles), jnp.sin(angles)], 1)
    above = jax.vmap(f)(circle).mean() - f(x)
    laplacian = cr.laplacian(f)(x)
    assert jnp.sign(above) == jnp.sign(laplacian) == sign
    np.testing.assert_allclose(above, r**2 * laplacian / 4, rtol=1e-3)


def test_e4_of_a_vector_field_each_component_has_its_own():
    def v(x):
        return jnp.stack([x[0] ** 3, x[0] * x[1] ** 2, x[0] ** 2 - x[1] ** 2])

    np.testing.assert_allclose(cr.laplacian(v)(jnp.array([2.0, 5.0])), [12, 4, 0])
