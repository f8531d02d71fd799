"""Minimize the chained Rosenbrock function by Newton's method with its tridiagonal Hessian.

python examples/rosenbrock.py
"""

import jax
import numpy as np
import scipy.linalg

import chainrule as cr

jax.config.update("jax_enable_x64", True)


def rosenbrock(x):
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


x0 = 1 + 0.3 * np.sin(np.arange(1000.0))


def banded(H):
    """The three diagonals of a tridiagonal Jacobian, as `scipy.linalg.solve_banded` takes them."""
    S = H.scipy()
    return np.stack([np.r_[0, S.diagonal(1)], S.diagonal(0), np.r_[S.diagonal(-1), 0]])


def newton(x, steps=200, tolerance=1e-10):
    """Newton's method, damped until the function decreases; a step that is no descent follows the gradient."""
    f, gradient, hessian = jax.jit(rosenbrock), cr.gradient(rosenbrock), cr.hessian(rosenbrock)
    for step in range(steps):
        g = np.asarray(gradient(x))
        if np.linalg.norm(g) < tolerance:
            return x, step
        d = -scipy.linalg.solve_banded((1, 1), banded(hessian(x)), g)
        d = d if g @ d < 0 else -g
        t = 1.0
        while f(x + t * d) > f(x) + 1e-4 * t * (g @ d) and t > 1e-12:
            t /= 2
        x = x + t * d
    return x, steps


if __name__ == "__main__":
    print(cr.hessian(rosenbrock)(x0))
    v = np.random.default_rng(0).normal(size=x0.shape)
    np.testing.assert_allclose(cr.hvp(rosenbrock)(x0, v), cr.hessian(rosenbrock)(x0) @ v, rtol=1e-9)
    x, steps = newton(x0)
    np.testing.assert_allclose(x, 1, atol=1e-8)  # the minimum
    print(f"f = {rosenbrock(x):.3e} after {steps} Newton steps")
