"""A density carried by a field
============================

Along a flow dx/dt = v(x) the logarithm of a density changes at the rate -div v. So a field that is free of divergence
stirs a blob and keeps its density, and one that flows inwards makes it denser: the mass stays 1 in both.

Run it: ``python examples/continuous_flow.py``
"""

import jax
import jax.numpy as jnp
import numpy as np

import chainrule as cr

jax.config.update("jax_enable_x64", True)

grid = np.mgrid[-3:3:81j, -3:3:81j]
AREA = (6 / 80) ** 2


def stir(t, x, sink):
    """A vortex that turns faster within, and a pull towards the origin."""
    return 3 * jnp.stack([-x[1], x[0]]) * jnp.exp(-(x @ x) / 2) - sink * x


def log_p0(x):
    """A long normal blob beside the origin."""
    d = (x - jnp.array([0.5, 0.0])) / jnp.array([0.8, 0.25])
    return -(d @ d) / 2 - jnp.log(2 * jnp.pi * 0.2)


@jax.jit
def density(t, sink):
    """The density at the time t on the grid: each point is carried back to where it was."""

    def at(x):
        z, change = cr.integrate_density(stir, x, 0.0, t, 0.0, sink, rtol=1e-5, atol=1e-7)
        return jnp.exp(log_p0(z) - change)

    return jax.vmap(at)(grid.reshape(2, -1).T).reshape(grid.shape[1:])


def main():
    """Mass and largest density, with and without a sink."""
    found = {}
    for sink, name in ((0.0, "stirred"), (0.3, "stirred, with a sink")):
        found[name] = {t: np.asarray(density(t, sink)) for t in (0.0, 1.0, 2.0)}
        for t, p in found[name].items():
            print(f"{name:21} t = {t:.0f}: mass {p.sum() * AREA:.4f}, largest density {p.max():.4f}")
    return found


def figure(found):
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(2, 3, figsize=(10, 6.6), sharex=True, sharey=True, layout="constrained")
    arrows = np.mgrid[-2.6:2.6:14j, -2.6:2.6:14j]
    for row, sink, (name, densities) in zip(axes, (0.0, 0.3), found.items(), strict=True):
        v = jax.vmap(lambda x, sink=sink: stir(0.0, x, sink))(arrows.reshape(2, -1).T).T
        for ax, (t, p) in zip(row, densities.items(), strict=True):
            shown = ax.pcolormesh(*grid, p, cmap="magma_r", vmin=0, vmax=2, rasterized=True)
            ax.quiver(*arrows.reshape(2, -1), *v, color="#3b6ea5", alpha=0.5, width=0.005)
            ax.set(title=f"{name}: t = {t:.0f}", aspect="equal")
    fig.colorbar(shown, ax=axes, shrink=0.7, label="density")
    return fig


if __name__ == "__main__":
    figure(main())
