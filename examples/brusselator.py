"""A sparse Jacobian for a stiff equation
======================================

The Brusselator: two substances react and spread on a periodic plane. Each number depends on its four neighbours and
on the other substance, so that the Jacobian of 8,192 unknowns has six numbers a row. With it, implicit Euler takes
steps that an explicit method could not, by Newton's method and a sparse direct solver.

Run it: ``python examples/brusselator.py``, or ``chainrule jacobian examples/brusselator.py:residual --check``
"""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
import scipy.sparse.linalg

import chainrule as cr

jax.config.update("jax_enable_x64", True)

N = 64  # points along each side of the periodic unit square
A, B, ALPHA = 1.0, 3.4, 10.0 / 1000 * N**2


def laplacian(u):
    return jnp.roll(u, 1, 0) + jnp.roll(u, -1, 0) + jnp.roll(u, 1, 1) + jnp.roll(u, -1, 1) - 4 * u


def residual(x):
    """dx/dt for x of shape (2, N, N): the concentrations u and v."""
    u, v = x
    reaction = u**2 * v - B * u
    return jnp.stack([A + reaction - u + ALPHA * laplacian(u), -reaction + ALPHA * laplacian(v)])


grid = np.linspace(0, 1, N, endpoint=False)
X, Y = np.meshgrid(grid, grid, indexing="ij")
x0 = np.stack([22 * (Y * (1 - Y)) ** 1.5, 27 * (X * (1 - X)) ** 1.5])


def implicit_euler(x, dt, newton_steps=4):
    """Solve y = x + dt * residual(y) by Newton's method with a sparse direct solver."""
    jacobian = cr.jacobian(residual)  # traced and compiled once
    y, errors = x, []
    for _ in range(newton_steps):
        F = y - x - dt * residual(y)
        J = scipy.sparse.eye_array(x.size) - dt * jacobian(y).scipy()
        y = y - scipy.sparse.linalg.spsolve(J.tocsc(), np.ravel(F)).reshape(x.shape)
        errors.append(float(np.linalg.norm(F)))
    return y, errors


def main():
    """The Jacobian, and a step of implicit Euler with it."""
    print(cr.jacobian(residual)(x0))
    y, errors = implicit_euler(jnp.asarray(x0), dt=0.01)
    print("|F| by Newton's steps:", *(f"{error:.1e}" for error in errors))
    print(f"after one step: u in [{y[0].min():.3f}, {y[0].max():.3f}], v in [{y[1].min():.3f}, {y[1].max():.3f}]")
    return {"y": y, "errors": errors}


def figure(found):
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 4, figsize=(13, 3.4), layout="constrained")
    shown = {"u at the start": x0[0], "u after a step of 0.01": found["y"][0], "v after it": found["y"][1]}
    for ax, (title, a) in zip(axes, shown.items(), strict=False):
        fig.colorbar(
            ax.imshow(np.asarray(a).T, origin="lower", extent=(0, 1, 0, 1), cmap="viridis"), ax=ax, shrink=0.75
        )
        ax.set(title=title)
    rows, columns, _ = cr.jacobian(residual)(x0).coo()
    axes[3].plot(columns, rows, ",", color="#3b6ea5")
    axes[3].set(title="J: six numbers a row", xlim=(0, x0.size), ylim=(x0.size, 0), aspect="equal")
    return fig


if __name__ == "__main__":
    figure(main())
