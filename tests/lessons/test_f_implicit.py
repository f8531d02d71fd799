"""Functions that are only given by an equation: local inverses, implicit functions, equilibria."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import chainrule as cr


def squeezed(x):
    return jnp.stack([x[0] + 0.5 * jnp.sin(x[1]), x[1] + 0.25 * x[0] ** 2])


def test_f4_a_local_inverse_has_the_inverse_jacobian():
    x0 = jnp.array([0.4, -0.3])
    inv = cr.inverse(squeezed, x0)
    for y in (inv.y0, inv.y0 + 0.1):
        x = inv(y)
        np.testing.assert_allclose(squeezed(x), y, atol=1e-12)
        np.testing.assert_allclose(
            cr.jacobian(inv)(y).dense() @ cr.jacobian(squeezed)(x).dense(), np.eye(2), atol=1e-12
        )
    np.testing.assert_allclose(inv(inv.y0), x0, atol=1e-12)


def circle(x, y):
    return x**2 + y**2 - 1.0


@pytest.mark.parametrize("angle", [0.3, 1.0, 2.5, -2.0])
def test_f5_the_unit_circle_gives_minus_x_by_y(angle):
    x, y = jnp.cos(angle), jnp.sin(angle)
    assert float(cr.implicit(circle)(x, y)[0, 0]) == pytest.approx(float(-x / y), rel=1e-12)
    y_of = cr.root(circle, jnp.sign(y))
    assert float(y_of(x)) == pytest.approx(float(y), abs=1e-12)
    assert float(jax.grad(y_of)(x)) == pytest.approx(float(-x / y), rel=1e-10)


def test_f5_where_the_circle_is_vertical_the_theorem_says_nothing():
    with pytest.raises(cr.SingularError, match=r"∂g/∂y.*singular.*condition number inf.*y = \[0\], x = \[1\]"):
        cr.implicit(circle)(jnp.array(1.0), jnp.array(0.0))


def layer(parameters, z):
    W, U, b, x = parameters
    return jnp.tanh(W @ z + U @ x + b)


def equilibrium_problem(n, seed=0):
    rng = np.random.default_rng(seed)
    W = jnp.asarray(rng.normal(size=(n, n)) * 0.4 / np.sqrt(n))
    return W, jnp.asarray(rng.normal(size=(n, 3))), jnp.zeros(n), jnp.asarray(rng.normal(size=3))


def unrolled(parameters, steps=200):
    return jax.lax.scan(lambda z, _: (layer(parameters, z), None), jnp.zeros_like(parameters[2]), length=steps)[0]


def test_f6_an_equilibrium_layer_has_the_gradient_of_its_unrolled_iteration():
    parameters = equilibrium_problem(8)
    z_of = cr.fixed_point(layer, jnp.zeros(8))
    ours = jax.grad(lambda p: (z_of(p) ** 2).sum())(parameters)
    other = jax.grad(lambda p: (unrolled(p) ** 2).sum())(parameters)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), ours, other)
    W, _, _, x = parameters
    z = z_of(parameters)
    J_f = (1 - z**2)[:, None] * W
    dz_dx = np.linalg.solve(np.eye(8) - J_f, (1 - z**2)[:, None] * parameters[1])
    np.testing.assert_allclose(jax.jacfwd(lambda x: z_of((*parameters[:3], x)))(x), dz_dx, atol=1e-10)


def test_f6_its_memory_does_not_grow_with_the_iterations():
    def temporaries(f):
        return jax.jit(jax.grad(f)).lower(parameters).compile().memory_analysis().temp_size_in_bytes

    parameters = equilibrium_problem(64)
    ours = {
        steps: temporaries(lambda p, s=steps: cr.fixed_point(layer, jnp.zeros(64), max_steps=s)(p).sum())
        for steps in (100, 1000)
    }
    assert ours[100] == ours[1000]
    stored = {steps: temporaries(lambda p, s=steps: unrolled(p, s).sum()) for steps in (100, 1000)}
    assert stored[1000] > stored[100] + 900 * 64 * 8 > ours[1000]
