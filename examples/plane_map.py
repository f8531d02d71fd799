"""Where a map of the plane folds
==============================

The map f(x) = (x₁² + x₂, x₁ x₂) and its Jacobian at every point of a grid, in one call. Its determinant says by how
much f stretches areas. It is 0 on a parabola: there the plane is folded, the rank is 1, and the direction in the
kernel is flattened. The image of the parabola is the curve (3t², 2t³), with a cusp. The small squares on the left are
shown on the right as J maps them: as parallelograms, whose areas are those of the squares times det J.

Run it: ``python examples/plane_map.py``
"""

import jax
import jax.numpy as jnp
import numpy as np

import chainrule as cr

jax.config.update("jax_enable_x64", True)

POINTS = np.array([[1.0, 0.0], [0.4, 1.2], [-0.9, 0.4], [-0.6, -0.9]])
CORNERS = 0.15 * np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]])


def f(x):
    return jnp.stack([x[0] ** 2 + x[1], x[0] * x[1]])


def main():
    """Rank, determinant and kernel on and off the fold; the area of a small square and of its image."""
    on, off = jnp.array([1.0, 2.0]), jnp.array([1.0, 0.0])
    kernel = cr.jacobian(f)(on).null_space()[:, 0]
    for x in (on, off):
        J = cr.jacobian(f)(x)
        print(f"at {x}: J = {J.dense().tolist()}, rank {J.rank()}, det {J.det():.0f}")
    print(f"kernel at {on}: {np.round(kernel / kernel[0], 12)}")
    side = 1e-4
    a, b, c, d = (f(off + side * corner) for corner in jnp.array([[0.0, 0], [1, 0], [1, 1], [0, 1]]))
    area = float(jnp.linalg.det(jnp.stack([c - a, d - b]))) / 2 / side**2
    print(f"a square of side {side:g} at {off} grows by {area:.6f}")
    return {"kernel": kernel, "area": area}


def figure(found):
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    x = np.mgrid[-1.3:1.3:131j, -1.2:2.2:131j]
    det = cr.jacobian_determinant(f, batched=True)(x.reshape(2, -1).T).reshape(x.shape[1:])
    shown = left.pcolormesh(*x, det, cmap="PuOr", vmin=-3, vmax=3, alpha=0.6, rasterized=True)
    fig.colorbar(shown, ax=left, label="det J")
    t = np.linspace(-1.05, 1.05, 201)
    for ax, g, title in ((left, np.asarray, "x, and det J"), (right, lambda x: np.asarray(f(x)), "f(x)")):
        for lines in (x[:, ::10, :], x[:, :, ::10].swapaxes(1, 2)):
            ax.plot(*g(lines).transpose(0, 2, 1), color="#777777", lw=0.6)
        ax.plot(*g(np.stack([t, 2 * t**2])), color="#b5442e", lw=2.5, label="det J = 0")
        for p in POINTS:
            J = np.eye(2) if ax is left else cr.jacobian(f)(p).dense()
            ax.fill(*(g(p)[:, None] + J @ CORNERS.T), color="#3b6ea5", alpha=0.8)
        ax.set(title=title, aspect="equal" if ax is left else "auto")
        ax.legend(loc="upper center" if ax is left else "lower right")
    return fig


if __name__ == "__main__":
    figure(main())
