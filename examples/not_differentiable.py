"""Partial derivatives, and yet no derivative
==========================================

The function x y / (x² + y²), with 0 at the origin, has both partial derivatives there, and they are 0. It is not even
continuous: along every line through the origin it has another constant value. ``check`` finds that by measuring the
remainder f(x + h) - f(x) - J h for smaller and smaller h. Where f is smooth it falls like ‖h‖², at a kink like ‖h‖,
at a jump not at all; and for an affine map there is none.

Run it: ``python examples/not_differentiable.py``
"""

import jax
import jax.numpy as jnp
import numpy as np

import chainrule as cr

jax.config.update("jax_enable_x64", True)


def saddle(x):
    """x y / (x² + y²), which is sin(2φ) / 2 at the angle φ."""
    square = x @ x
    return jnp.where(square > 0, x[0] * x[1] / jnp.where(square > 0, square, 1.0), 0.0)


def wave(x):
    return jnp.exp(x[0] + 2 * x[1])


def cone(x):
    return jnp.abs(x[0]) + x[1]


def affine(x):
    return 3 * x[0] - x[1] + 1


FUNCTIONS = {"x y / (x² + y²)": saddle, "exp(x + 2y)": wave, "|x| + y": cone, "3x - y + 1": affine}


def main():
    """What ``check`` says of four functions at the origin."""
    reports = {name: cr.check(f)(jnp.zeros(2)) for name, f in FUNCTIONS.items()}
    for name, report in reports.items():
        worst = min(report.directions, key=lambda d: d.order)
        print(f"{name:16} order of the remainder {worst.order:4.2f} along {worst.name}: {report.verdict}")
    print("partial derivatives of the first:", cr.gradient(saddle)(jnp.zeros(2)))
    return reports


def figure(reports):
    import matplotlib.pyplot as plt

    fig = plt.figure(figsize=(10, 4.4), layout="constrained")
    surface, plane = fig.add_subplot(121, projection="3d"), fig.add_subplot(122)
    r, phi = np.meshgrid(np.linspace(0.02, 1, 15), np.linspace(0, 2 * np.pi, 121))
    z = jax.vmap(saddle)(np.stack([r * np.cos(phi), r * np.sin(phi)], -1).reshape(-1, 2)).reshape(r.shape)
    surface.plot_surface(r * np.cos(phi), r * np.sin(phi), z, cmap="PuOr", rstride=1, cstride=1)
    surface.set(title="x y / (x² + y²)", xlabel="x", ylabel="y")
    for (name, report), color in zip(reports.items(), ("#b5442e", "#3b6ea5", "#d8973c", "#4c8a4a"), strict=True):
        d = min(report.directions, key=lambda d: d.order)
        rest = np.maximum(d.remainders, 1e-17)
        plane.loglog(
            d.lengths,
            rest,
            "o-",
            ms=4,
            color=color,
            label=name + (f": order {d.order:.0f}" if np.isfinite(d.order) else ": none"),
        )
    plane.set(xlabel="‖h‖", ylabel="|f(x + h) - f(x) - J h|", ylim=(1e-26, 10), title="the remainder at the origin")
    plane.legend(loc="lower left")
    return fig


if __name__ == "__main__":
    figure(main())
