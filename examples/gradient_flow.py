"""Gradient descent follows a flow, if its steps are small
=======================================================

Along dx/dt = -∇f the loss falls at the rate ‖∇f‖². Gradient descent is Euler's method for that: with small steps it
stays near the flow, with larger ones it zigzags, and beyond 2 by the largest curvature it climbs. Where ½ ‖∇f‖² ≥ μ
(f - f*), the loss falls at least as fast as exp(-2 μ t).

Run it: ``python examples/gradient_flow.py``
"""

import jax
import jax.numpy as jnp
import numpy as np

import chainrule as cr

jax.config.update("jax_enable_x64", True)

SHARP, START, TIME = 10.0, np.array([2.0, 0.7]), 3.0
RATES = {0.02: "#4c8a4a", 0.18: "#d8973c", 0.203: "#b5442e"}


def f(x):
    """A valley with the curvatures 1 and 10."""
    return (x[0] ** 2 + SHARP * x[1] ** 2) / 2


def descent(rate, steps):
    def step(x, _):
        return x - rate * cr.gradient(f)(x), x

    return jax.lax.scan(step, jnp.asarray(START), length=steps)[1]


def main():
    """How fast the loss falls, the constant of the bound, and three rates of descent."""
    flow = cr.gradient_flow(f, START, TIME)
    slopes = np.gradient(flow.losses, flow.times, edge_order=2)
    off = float(abs(slopes + flow.squared_norms)[5:].max() / flow.squared_norms[0])
    print(f"df/dt against -‖∇f‖², by differences: {off:.1e}")
    mu = float(cr.polyak_lojasiewicz(f, flow, minimum=0.0))
    bound = flow.losses[0] * np.exp(-2 * mu * flow.times)
    print(f"μ = {mu:.4f}; the bound holds at all times: {bool((flow.losses <= bound * (1 + 1e-6)).all())}")
    paths = {rate: descent(rate, round(TIME / rate)) for rate in RATES}
    for rate, path in paths.items():
        print(f"rate {rate}: loss {f(path[0]):.3f} -> {f(path[-1]):.3f}")
    return {"flow": flow, "mu": mu, "bound": bound, "paths": paths, "off": off}


def figure(found):
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    x = np.mgrid[-0.4:2.2:80j, -1:1:80j]
    left.contour(*x, f(x), levels=12, colors="#999999", linewidths=0.6)
    flow = found["flow"]
    left.plot(*np.transpose(flow.points), color="#3b6ea5", lw=3, label="flow")
    right.semilogy(flow.times, flow.losses, color="#3b6ea5", lw=3, label="flow")
    for rate, path in found["paths"].items():
        given = {"color": RATES[rate], "label": f"rate {rate}"}
        left.plot(*path.T, "o-", ms=3, lw=1, **given)
        right.semilogy(rate * np.arange(len(path)), jax.vmap(f)(path), "o-", ms=3, lw=1, **given)
    right.semilogy(flow.times, found["bound"], "--", color="#444444", label="bound exp(-2 μ t)")
    left.set(title="paths in the valley", ylim=(-1, 1))
    right.set(title="loss", xlabel="time: steps × rate")
    right.legend(loc="lower left")
    return fig


if __name__ == "__main__":
    figure(main())
