"""Newton's method from everywhere at once
=======================================

Newton's method for z³ = 1 in the plane, from 62,500 starts at a time. As one function of 125,000 numbers it has a
Jacobian of 125,000 × 125,000: block-diagonal, with a block of 2 × 2 a start, as chainrule finds. So ``solve`` takes a
moment. Which root is reached from where is a fractal, and no region has a boundary with another one alone.

Run it: ``python examples/newton_fractal.py``
"""

import jax
import jax.numpy as jnp
import numpy as np

import chainrule as cr

jax.config.update("jax_enable_x64", True)

SIDE, STEPS = 250, 24
ROOTS = np.array([[1, 0], [-0.5, np.sqrt(3) / 2], [-0.5, -np.sqrt(3) / 2]])
start = np.mgrid[-1.6 : 1.6 : SIDE * 1j, -1.6 : 1.6 : SIDE * 1j]


def cube(x):
    """z³ - 1 of all z = x + iy, as pairs of real numbers."""
    x, y = x
    return jnp.stack([x**3 - 3 * x * y**2 - 1, 3 * x**2 * y - y**3])


@jax.jit
def step(x):
    value, J = cr.value_and_jacobian(cube)(x)
    return x - J.solve(value)


def main():
    """The Jacobian, and how many starts have reached a root."""
    J, x, away = cr.jacobian(cube)(start), jnp.asarray(start), []
    print(J)
    for _ in range(STEPS):
        x = step(x)
        away.append(jnp.linalg.norm(x[:, None] - ROOTS.T[..., None, None], axis=0).min(0))
    root = np.linalg.norm(x[:, None] - ROOTS.T[..., None, None], axis=0).argmin(0)
    taken = (np.array(away) > 1e-3).sum(0)
    done, shares = float((away[-1] < 1e-9).mean()), np.bincount(root.ravel()) / root.size
    print(f"{done:.2%} of the starts are at a root after {STEPS} steps; the roots' shares: {np.round(shares, 4)}")
    return {"J": J, "root": root, "taken": taken, "done": done, "shares": shares}


def figure(found):
    import matplotlib.colors
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(6, 6), layout="constrained")
    colors = np.array([matplotlib.colors.to_rgb(c) for c in ("#b5442e", "#3b6ea5", "#d8973c")])[found["root"]]
    light = np.clip(found["taken"] / 16, 0, 1)[..., None] ** 0.7
    ax.imshow((colors * (1 - light) + light).swapaxes(0, 1), origin="lower", extent=(-1.6, 1.6, -1.6, 1.6))
    ax.plot(*ROOTS.T, "o", color="white", mec="black")
    ax.set(title="which root of z³ = 1 is reached; pale: after many steps", xlabel="Re z", ylabel="Im z")
    return fig


if __name__ == "__main__":
    figure(main())
