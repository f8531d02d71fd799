"""Bundle adjustment
=================

Six cameras see sixty points; where the cameras stood and the points are is to be found from the pictures alone. Each
residual depends on one camera and one point: of the 222 columns of the Jacobian a row has nine. With it,
Levenberg-Marquardt meets every observation in a few steps.

Run it: ``python examples/bundle_adjustment.py``
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


def main():
    """The Jacobian, and Levenberg-Marquardt with it."""
    J = cr.jacobian(residual)(x0)
    print(J)
    value_and_jacobian, x, damping, rms = cr.value_and_jacobian(residual), x0, 1e-3, []
    for _ in range(8):
        r, A = value_and_jacobian(x)
        A, r = A.scipy(), np.ravel(r)
        rms.append(float(np.sqrt((r**2).mean())))
        normal = A.T @ A + damping * scipy.sparse.eye_array(A.shape[1])
        flat, unflatten = ravel_pytree(x)
        x, damping = unflatten(flat - scipy.sparse.linalg.spsolve(normal.tocsc(), A.T @ r)), damping / 5
    print("rms by steps:", *(f"{error:.1e}" for error in rms))
    return {"J": J, "x": x, "rms": rms}


def figure(found):
    import matplotlib.pyplot as plt

    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
    rows, columns, _ = found["J"].coo()
    left.plot(columns, rows, ".", ms=1, color="#3b6ea5")
    left.set(title="J: cameras, then points", xlim=(0, found["J"].shape[1]), ylim=(found["J"].shape[0], 0))
    for x, color, label in ((x0, "#d8973c", "start"), (found["x"], "#b5442e", "found")):
        seen = project(x["cameras"][:1].repeat(POINTS, 0), x["points"])
        middle.plot(*np.transpose(seen), ".", ms=5, color=color, label=label)
    middle.plot(*observed[:POINTS].T, "o", ms=9, mfc="none", color="#3b6ea5", label="observed")
    middle.set(title="the picture of one camera", aspect="equal")
    middle.legend()
    right.semilogy(found["rms"], "o-", color="#3b6ea5")
    right.set(title="root mean square residual", xlabel="step")
    return fig


if __name__ == "__main__":
    figure(main())
