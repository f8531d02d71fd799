"""A stiff equation in space and time
==================================

The Kuramoto-Sivashinsky equation u' = -u uₓ - uₓₓ - uₓₓₓₓ, of flame fronts, on a ring. Its fourth derivative makes it
stiff: an explicit method would need steps of about dx⁴. SciPy's BDF takes large ones, with the sparse Jacobian that
``chainrule.scipy`` gives it: five numbers a row. Cells of the flame merge and split for ever; the mean stays what it
was.

Run it: ``python examples/kuramoto_sivashinsky.py``
"""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.integrate

import chainrule as cr
import chainrule.scipy as crs

jax.config.update("jax_enable_x64", True)

N, LENGTH, TIME = 128, 60.0, 100.0
dx = LENGTH / N
x = dx * np.arange(N)
u0 = np.cos(2 * np.pi * x / LENGTH) * (1 + np.sin(6 * np.pi * x / LENGTH + 1))


def kuramoto(t, u):
    """The right-hand side, by central differences on a ring."""
    left, right = jnp.roll(u, 1), jnp.roll(u, -1)
    second = (left - 2 * u + right) / dx**2
    fourth = (jnp.roll(second, 1) - 2 * second + jnp.roll(second, -1)) / dx**2
    return -(right**2 - left**2) / (4 * dx) - second - fourth


def main():
    """The Jacobian, the steps that were taken, and the mean."""
    J = cr.jacobian(kuramoto, argnums=1)(0.0, u0)
    fastest = float(abs(np.linalg.eigvals(J.dense())).max())
    given = crs.solve_ivp(kuramoto, u0, method="BDF")
    run = scipy.integrate.solve_ivp(**given, t_span=(0, TIME), rtol=1e-4, atol=1e-4, t_eval=np.linspace(0, TIME, 301))
    explicit = TIME * fastest / 2
    print(J)
    print(f"{run.nfev} evaluations and {run.njev} Jacobians; Euler's explicit method would need {explicit:,.0f} steps")
    print(f"mean at the start {u0.mean():.1e}, at the end {run.y[:, -1].mean():.1e}")
    return {"J": J, "run": run, "explicit": explicit}


def figure(found):
    import matplotlib.pyplot as plt

    fig, (wide, narrow) = plt.subplots(1, 2, figsize=(11, 4.2), width_ratios=(5, 3), layout="constrained")
    run = found["run"]
    shown = wide.pcolormesh(run.t, x, run.y, cmap="PuOr", vmin=-3, vmax=3, rasterized=True)
    fig.colorbar(shown, ax=wide, label="u")
    wide.set(xlabel="time", ylabel="place", title="u: cells that merge and split")
    found["J"].spy(narrow)
    narrow.set_title("the Jacobian")
    return fig


if __name__ == "__main__":
    figure(main())
