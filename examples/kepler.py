"""Kepler's equation
=================

Where a planet is at a given time, no formula says: M = E - e sin E has to be solved for E. The implicit function
theorem gives the derivatives of the solution all the same, dE/dM = 1 / (1 - e cos E) and dE/de = sin E / (1 - e cos
E). Times do not influence each other, so that the Jacobian is diagonal. For e = 1 at E = 0 the theorem fails, and so
it is said.

Run it: ``python examples/kepler.py``
"""

import jax
import jax.numpy as jnp
import numpy as np

import chainrule as cr

jax.config.update("jax_enable_x64", True)

MEAN, ECCENTRICITY = jnp.linspace(0, 2 * jnp.pi, 25), 0.6


def kepler(M, E, e):
    return E - e * jnp.sin(E) - M


def anomaly(M, e):
    """E at the times M."""
    return cr.root(kepler, M)(M, e)


def position(E, e):
    """The place on an ellipse around a focus at the origin."""
    return jnp.stack([jnp.cos(E) - e, jnp.sqrt(1 - e**2) * jnp.sin(E)])


def main():
    """The derivatives by the theorem and by hand; equal areas in equal times; where it fails."""
    e, E = ECCENTRICITY, anomaly(MEAN, ECCENTRICITY)
    J = cr.implicit(kepler)(MEAN, E, e)
    by_time, by_shape = J.diagonal(), cr.pushforward(lambda e: anomaly(MEAN, e))(e, 1.0)
    errors = [
        float(abs(d * (1 - e * jnp.cos(E)) - by_hand).max()) for d, by_hand in ((by_time, 1), (by_shape, jnp.sin(E)))
    ]
    print(f"{J}; largest errors of dE/dM and dE/de: {errors[0]:.1e}, {errors[1]:.1e}")
    velocity = cr.pushforward(lambda M: position(anomaly(M, e), e))(MEAN, jnp.ones_like(MEAN))
    (x, y), (dx, dy) = position(E, e), velocity
    swept = (x * dy - y * dx) / 2  # the area that is swept in a unit of time
    print(f"area swept in a unit of time: from {swept.min():.12f} to {swept.max():.12f}")
    try:
        cr.implicit(kepler)(jnp.zeros(1), jnp.zeros(1), 1.0)
    except cr.SingularError as refused:
        print("e = 1, E = 0:", str(refused).splitlines()[0])
    return {"E": E, "J": J, "by_time": by_time, "by_shape": by_shape, "swept": swept}


def figure(found):
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    fine = np.asarray(anomaly(jnp.linspace(0, 2 * jnp.pi, 24 * 20 + 1), ECCENTRICITY))
    for k in range(24):
        arc = np.asarray(position(fine[20 * k : 20 * k + 21], ECCENTRICITY))
        left.fill(*np.c_[np.zeros(2), arc], color="#3b6ea5" if k % 2 else "#9dbbd8")
    left.plot(*position(found["E"], ECCENTRICITY), "o", color="#b5442e", ms=5)
    left.plot(0, 0, "o", color="#d8973c", ms=16)
    left.set(aspect="equal", title="equal areas in equal times")
    left.axis("off")
    right.plot(MEAN, found["by_time"], "o-", color="#3b6ea5", label="dE/dM = 1 / (1 - e cos E)")
    right.plot(MEAN, found["by_shape"], "o-", color="#b5442e", label="dE/de = sin E / (1 - e cos E)")
    right.set(xlabel="M", title=f"how E depends on time and shape, at e = {ECCENTRICITY}")
    right.legend(loc="lower left")
    return fig


if __name__ == "__main__":
    figure(main())
