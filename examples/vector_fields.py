"""Divergence and curl
===================

The trace of a field's Jacobian says how it spreads, its antisymmetric part how it turns. A source spreads and does
not turn, a vortex turns and does not spread, a saddle does neither: it is the gradient of a harmonic function. A
field that does not turn is a gradient, and ``potential`` finds of what; of one that does it refuses.

Run it: ``python examples/vector_fields.py``
"""

import jax
import jax.numpy as jnp
import numpy as np

import chainrule as cr

jax.config.update("jax_enable_x64", True)


def source(x):
    return x * jnp.exp(-x @ x)


def vortex(x):
    return jnp.stack([-x[1], x[0]]) * jnp.exp(-x @ x)


def saddle(x):
    return jnp.stack([x[0], -x[1]]) / 3


def wavy(x):
    return jnp.stack([jnp.sin(2 * x[1]), jnp.sin(2 * x[0] + x[1])]) / 2


FIELDS = {"source": source, "vortex": vortex, "saddle": saddle, "wavy": wavy}


def main():
    """Which fields are gradients, and of what; and the two identities in space."""
    x = jnp.array([0.6, -0.3])
    kinds = {}
    for name, f in FIELDS.items():
        kinds[name] = bool(cr.is_conservative(f)(x)), bool(cr.is_incompressible(f)(x))
        print(
            f"{name:7} div {cr.divergence(f)(x):8.5f}  curl {cr.curl(f)(x):8.5f}  "
            f"conservative {kinds[name][0]}, incompressible {kinds[name][1]}"
        )
    found = float(cr.potential(source, order=16)(x, jnp.zeros(2)))
    print(f"potential of the source: {found:.12f}, by hand {(1 - jnp.exp(-x @ x)) / 2:.12f}")
    try:
        cr.potential(vortex, order=16)(x, jnp.zeros(2))
    except cr.NotConservativeError as refused:
        print("of the vortex:", refused)
    p = jnp.array([0.3, -0.7, 1.1])
    zero = cr.curl(cr.gradient(lambda p: jnp.sin(p[0] * p[1]) + p[2] ** 3))(p)
    none = cr.divergence(cr.curl(lambda p: jnp.sin(jnp.roll(p, 1)) * p**2))(p)
    print(f"curl of a gradient {abs(zero).max():.1e}, divergence of a curl {none:.1e}")
    return {"kinds": kinds, "potential": found, "curl grad": zero, "div curl": none}


def figure(found):
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(2, 4, figsize=(12, 6), sharex=True, sharey=True, layout="constrained")
    fine, coarse = np.mgrid[-2:2:101j, -2:2:101j], np.mgrid[-1.8:1.8:13j, -1.8:1.8:13j]
    for column, (name, f) in zip(axes.T, FIELDS.items(), strict=True):
        arrows = jax.vmap(f)(coarse.reshape(2, -1).T).T
        for ax, kind, d in zip(column, ("div", "curl"), (cr.divergence, cr.curl), strict=True):
            value = d(f, batched=True)(fine.reshape(2, -1).T).reshape(101, 101)
            shown = ax.pcolormesh(*fine, value, cmap="PuOr", vmin=-2, vmax=2, rasterized=True)
            ax.quiver(*coarse.reshape(2, -1), *arrows, color="#333333", width=0.006)
            ax.set(title=f"{kind} of the {name} field" if name == "wavy" else f"{kind} of the {name}", aspect="equal")
    fig.colorbar(shown, ax=axes, shrink=0.7)
    return fig


if __name__ == "__main__":
    figure(main())
