"""Gradient flow, its Euler steps, and how fast a loss falls."""

import jax
import jax.numpy as jnp
import numpy as np

import chainrule as cr

CURVATURES = jnp.array([1.0, 4.0, 9.0])
TURN = jnp.linalg.qr(jnp.asarray(np.random.default_rng(7).normal(size=(3, 3))))[0]
S = TURN @ jnp.diag(CURVATURES) @ TURN.T
X0 = jnp.array([1.0, -2.0, 0.5])


def quadratic(x):
    return x @ S @ x / 2


def valley(x):  # that of Rosenbrock
    return 5 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2


def test_g4_the_loss_falls_at_the_rate_of_the_squared_gradient():
    flow = cr.gradient_flow(valley, jnp.array([-1.0, 1.5]), 2.0, points=2001)
    assert (np.diff(flow.losses) < 0).all()
    rates = (flow.losses[2:] - flow.losses[:-2]) / (flow.times[2:] - flow.times[:-2])
    np.testing.assert_allclose(rates, -flow.squared_norms[1:-1], rtol=2e-2, atol=1e-4)
    # and the whole of the fall is the integral of the rate
    fall = jnp.trapezoid(flow.squared_norms, flow.times)
    np.testing.assert_allclose(flow.losses[0] - flow.losses[-1], fall, rtol=1e-3)
    slope = cr.directional(valley)(flow.points[7], -cr.gradient(valley)(flow.points[7]))
    np.testing.assert_allclose(slope, -flow.squared_norms[7], rtol=1e-10)


def test_g4_gradient_descent_is_its_euler_step():
    end = cr.gradient_flow(quadratic, X0, 0.5, points=2).points[-1]

    def descended(steps):
        h = 0.5 / steps
        return jax.lax.fori_loop(0, steps, lambda _, x: x - h * jax.grad(quadratic)(x), X0)

    errors = [float(jnp.linalg.norm(descended(k) - end)) for k in (100, 200, 400)]
    np.testing.assert_allclose([errors[0] / errors[1], errors[1] / errors[2]], 2, rtol=0.05)  # of the first order


def test_g4_too_large_a_step_goes_up():
    x = TURN[:, 2]  # along the largest curvature, 9

    def after(h):
        return float(quadratic(x - h * cr.gradient(quadratic)(x)))

    assert after(0.9 * 2 / 9) < float(quadratic(x)) < after(1.1 * 2 / 9)
    losses = cr.gradient_flow(quadratic, x, 1.0).losses  # the flow itself never does
    assert (np.diff(losses) < 0).all()


def test_g5_the_bound_of_polyak_and_lojasiewicz():
    flow = cr.gradient_flow(quadratic, X0, 1.5, points=151)
    mu = float(cr.polyak_lojasiewicz(quadratic, flow, minimum=0.0))
    assert 1 <= mu <= 9
    for rate in (1.0, mu):  # the least curvature holds everywhere, what was estimated along this path
        bound = flow.losses[0] * np.exp(-2 * rate * flow.times)
        assert (flow.losses <= bound * (1 + 1e-6)).all()
    too_fast = flow.losses[0] * np.exp(-2 * 1.5 * mu * flow.times)
    assert (flow.losses > too_fast)[1:].any()
    # along the least curvature it is that, and the bound an equality
    slow = cr.gradient_flow(quadratic, TURN[:, 0], 1.0)
    np.testing.assert_allclose(cr.polyak_lojasiewicz(quadratic, slow, minimum=0.0), 1.0, rtol=1e-6)
    np.testing.assert_allclose(slow.losses, slow.losses[0] * np.exp(-2 * slow.times), rtol=1e-5)
