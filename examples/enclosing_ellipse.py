"""The smallest ellipse around points
==================================

Of all ellipses ‖A p + b‖ ≤ 1 around some points the smallest has the largest log det A, whose gradient is A⁻ᵀ: a
function of a matrix has a gradient of the matrix's own shape. A barrier keeps the points inside, and Newton's method
follows it as it gets steeper. At the optimum a few points hold the ellipse.

Run it: ``python examples/enclosing_ellipse.py``
"""

import jax
import jax.numpy as jnp
import numpy as np

import chainrule as cr

jax.config.update("jax_enable_x64", True)

rng = np.random.default_rng(3)
points = rng.normal(size=(60, 2)) @ [[1.3, 0.5], [0.2, 0.5]] + [0.5, 0.2]


def log_det(A):
    return jnp.linalg.slogdet(A)[1]


def ellipse(x):
    """A, symmetric, and b of five numbers."""
    return jnp.array([[x[0], x[1]], [x[1], x[2]]]), x[3:]


def reach(x):
    """‖A p + b‖² of each point: 1 on the ellipse."""
    A, b = ellipse(x)
    return ((points @ A + b) ** 2).sum(1)


def barrier(x, weight):
    return -log_det(ellipse(x)[0]) - weight * jnp.log(1 - reach(x)).sum()


def main():
    """The gradients of log det and of a squared error; then the path of ellipses."""
    A = jnp.asarray(rng.normal(size=(3, 3)))
    error = float(abs(cr.gradient(log_det)(A) - jnp.linalg.inv(A).T).max())
    print(f"∇ log det A - A⁻ᵀ: {error:.1e}")
    x, path, steps = jnp.array([0.2, 0.0, 0.2, 0.0, 0.0]), [], 0
    for weight in np.geomspace(0.1, 1e-9, 9):
        solution = cr.newton_cg(barrier, x, weight, method="direct")
        x, steps = solution.x, steps + solution.iterations
        path.append(x)
    A, _ = ellipse(x)
    area, held = float(jnp.pi / jnp.linalg.det(A)), int((reach(x) > 1 - 1e-6).sum())
    print(f"area {area:.6f} after {steps} Newton steps; {held} points lie on the ellipse")
    return {"path": path, "area": area, "held": held, "x": x, "error": error}


def figure(found):
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(8, 5), layout="constrained")
    t = np.linspace(0, 2 * np.pi, 200)
    for k, x in enumerate(found["path"]):
        A, b = ellipse(x)
        last = k == len(found["path"]) - 1
        ax.plot(
            *np.linalg.solve(A, np.stack([np.cos(t), np.sin(t)]) - b[:, None]),
            color="#b5442e" if last else "#9dbbd8",
            lw=2 if last else 0.8,
        )
    on = np.asarray(reach(found["x"])) > 1 - 1e-6
    ax.plot(*points[~on].T, "o", color="#3b6ea5", ms=4)
    ax.plot(*points[on].T, "o", color="#b5442e", ms=7)
    ax.set(aspect="equal", title=f"the smallest ellipse, of area {found['area']:.3f}, and the path to it")
    return fig


if __name__ == "__main__":
    figure(main())
