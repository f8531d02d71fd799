"""Sparse Jacobian of a PDE: the 2-D Brusselator, and a step of implicit Euler with it.

chainrule jacobian examples/brusselator.py:residual --check
python examples/brusselator.py
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
    return jnp.stack(
        [
            A + u**2 * v - (B + 1) * u + ALPHA * laplacian(u),
            B * u - u**2 * v + ALPHA * laplacian(v),
        ]
    )


grid = np.linspace(0, 1, N, endpoint=False)
X, Y = np.meshgrid(grid, grid, indexing="ij")
x0 = np.stack([22 * (Y * (1 - Y)) ** 1.5, 27 * (X * (1 - X)) ** 1.5])


def implicit_euler(x, dt, newton_steps=4):
    """Solve y = x + dt * residual(y) by Newton's method with a sparse direct solver."""
    jacobian = cr.jacobian(residual)  # traced and compiled once
    y = x
    for _ in range(newton_steps):
        F = y - x - dt * residual(y)
        J = scipy.sparse.eye_array(x.size) - dt * jacobian(y).scipy()
        y = y - scipy.sparse.linalg.spsolve(J.tocsc(), np.ravel(F)).reshape(x.shape)
        print(f"|F| = {np.linalg.norm(F):.3e}")
    return y


if __name__ == "__main__":
    print(cr.jacobian(residual)(x0))
    y = implicit_euler(jnp.asarray(x0), dt=0.01)
    np.testing.assert_allclose(y, x0 + 0.01 * residual(y), atol=1e-10)
    print(f"after one step: u in [{y[0].min():.3f}, {y[0].max():.3f}], v in [{y[1].min():.3f}, {y[1].max():.3f}]")
