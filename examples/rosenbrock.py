"""Newton's method in a curved valley
==================================

The chained Rosenbrock function of a thousand numbers has a tridiagonal Hessian, found by itself: a Newton step costs
no more than a few evaluations. In two dimensions one sees why it pays: gradient descent crawls along the valley that
Newton's method follows in some twenty steps.

Run it: ``python examples/rosenbrock.py``
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


def main():
    """The Hessian, its products, and the way to the minimum."""
    H, v = cr.hessian(rosenbrock)(x0), np.random.default_rng(0).normal(size=x0.shape)
    error = float(abs(cr.hvp(rosenbrock)(x0, v) - H @ v).max() / abs(H @ v).max())
    print(H)
    print(f"Hessian-vector product without the matrix, relative difference: {error:.1e}")
    x, steps = newton(x0)
    print(f"f = {rosenbrock(x):.3e} after {steps} Newton steps")
    return {"H": H, "x": x, "steps": steps, "error": error}


def figure(found):
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), width_ratios=(3, 2), layout="constrained")
    x, start = np.mgrid[-1.6:1.4:120j, -0.6:2:120j], np.array([-1.2, 1.0])
    left.contour(*x, np.log10(1e-3 + 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2), 14, cmap="Greys", alpha=0.6)
    descent, gradient = [start], cr.gradient(rosenbrock)
    for _ in range(500):
        descent.append(descent[-1] - 1e-3 * np.asarray(gradient(descent[-1])))
    steps = [newton(start, k)[0] for k in range(25)]
    left.plot(*np.transpose(descent), ".-", ms=3, color="#b5442e", label="gradient descent, 500 steps")
    left.plot(*np.transpose(steps), "o-", ms=5, color="#3b6ea5", label="Newton's method")
    left.plot(1, 1, "*", ms=16, color="#d8973c", label="the minimum")
    left.legend(loc="upper center")
    rows, columns, values = found["H"].coo()
    shown = right.scatter(columns, rows, c=values, s=22, marker="s", cmap="PuOr", vmin=-1500, vmax=1500)
    fig.colorbar(shown, ax=right)
    right.set(title="a corner of the Hessian", xlim=(-1, 30), ylim=(30, -1), aspect="equal")
    return fig


if __name__ == "__main__":
    figure(main())
