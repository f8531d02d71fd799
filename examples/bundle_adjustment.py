"""Bundle adjustment: Levenberg-Marquardt with the sparse Jacobian of reprojection residuals.

python examples/bundle_adjustment.py
"""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from jax.flatten_util import ravel_pytree

import chainrule as cr

jax.config.update("jax_enable_x64", True)

rng = np.random.default_rng(0)
CAMERAS, POINTS = 6, 60
camera, point = (a.reshape(-1) for a in np.indices((CAMERAS, POINTS)))  # every camera sees every point


def project(cameras, points):
    """Pinhole projections of points [k, 3] by cameras [k, 7]: rotation vector, translation, focal length."""
    w = cameras[:, :3]
    angle = jnp.sqrt((w**2).sum(1, keepdims=True) + 1e-12)
    k = w / angle
    turned = points * jnp.cos(angle) + jnp.cross(k, points) * jnp.sin(angle)
    turned += k * (k * points).sum(1, keepdims=True) * (1 - jnp.cos(angle))
    seen = turned + cameras[:, 3:6]
    return -cameras[:, 6:] * seen[:, :2] / seen[:, 2:]


true = {
    "cameras": np.c_[
        rng.normal(size=(CAMERAS, 3)) / 10, rng.normal(size=(CAMERAS, 3)) / 5 - [0, 0, 6], np.full(CAMERAS, 2)
    ],
    "points": rng.normal(size=(POINTS, 3)),
}
observed = project(true["cameras"][camera], true["points"][point])


def residual(x):
    return project(x["cameras"][camera], x["points"][point]) - observed


x0 = {name: a + 0.02 * rng.normal(size=a.shape) for name, a in true.items()}

if __name__ == "__main__":
    print(cr.jacobian(residual)(x0))
    value_and_jacobian, x, damping = cr.value_and_jacobian(residual), x0, 1e-3
    for step in range(8):
        r, J = value_and_jacobian(x)
        A, r = J.scipy(), np.ravel(r)
        print(f"step {step}: rms {np.sqrt((r**2).mean()):.2e}")
        normal = A.T @ A + damping * scipy.sparse.eye_array(A.shape[1])
        flat, unflatten = ravel_pytree(x)
        x, damping = unflatten(flat - scipy.sparse.linalg.spsolve(normal.tocsc(), A.T @ r)), damping / 5
    np.testing.assert_allclose(residual(x), 0, atol=1e-10)
    print("every observation is met")
