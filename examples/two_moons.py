"""Two moons, drawn by a score that is learned
===========================================

A network learns the score of two moons by taking noise off; new points come from following that score down a ladder
of noise levels. The arrows show where the score points at one level: to the moons, from everywhere.

Run it: ``python examples/two_moons.py``
"""

import jax
import jax.numpy as jnp
import numpy as np

import chainrule as cr

SIGMAS, STEPS = np.geomspace(2.0, 0.02, 12), 4000  # levels of noise, steps of training


def moons(key, n):
    """Points of two half circles, a little blurred: [n, 2]."""
    where, blur = jax.random.split(key)
    turn = jax.random.uniform(where, (n,), maxval=2 * jnp.pi)
    circle = jnp.stack([jnp.cos(turn) - 0.5, jnp.sin(turn) - 0.25], 1) + 0.05 * jax.random.normal(blur, (n, 2))
    return circle + (turn > jnp.pi)[:, None] * jnp.array([1.0, 0.5])


def model(layers, x, sigma):
    """The score of moons with noise: a small network, whose output has the size of such a score."""
    y = jnp.append(x / jnp.sqrt(0.5 + sigma**2), jnp.log(sigma))
    for k, (W, b) in enumerate(layers):
        y = W @ (jax.nn.silu(y) if k else y) + b
    return y / sigma


def adam(state, given):
    """One step on new data; the state: parameters, and the means of gradients and of their squares."""
    (layers, m, v), (keys, rate) = state, given
    loss = jax.value_and_grad(cr.denoising_score_matching_loss(model, SIGMAS))
    value, g = loss(layers, moons(keys[0], 256), key=keys[1])
    m, v = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, m, g), jax.tree.map(lambda a, b: 0.99 * a + 0.01 * b**2, v, g)
    return (jax.tree.map(lambda a, m, v: a - rate * m / (jnp.sqrt(v) + 1e-7), layers, m, v), m, v), value


def main():
    """Train the network, and draw 2,000 points."""
    keys = jax.random.split(jax.random.key(0), 8)
    sizes = zip(keys, (3, 96, 96, 96), (96, 96, 96, 2), strict=False)
    layers = [(jax.random.normal(k, (m, n)) / np.sqrt(n), jnp.zeros(m)) for k, n, m in sizes]
    given = jax.random.split(keys[4], (STEPS, 2)), 3e-3 * jnp.cos(jnp.linspace(0, jnp.pi / 2, STEPS)) ** 2
    (layers, *_), losses = jax.lax.scan(adam, (layers, *[jax.tree.map(jnp.zeros_like, layers)] * 2), given)
    start, real = SIGMAS[0] * jax.random.normal(keys[5], (2000, 2)), moons(keys[6], 2000)
    drawn = cr.annealed_langevin(lambda x, s: model(layers, x, s), SIGMAS, start, keys[7], step=1e-4, steps=50).x
    print(f"loss {losses[:100].mean():.3f} -> {losses[-100:].mean():.3f}")
    print(f"mean of the data {np.round(real.mean(0), 2)}, of the samples {np.round(drawn.mean(0), 2)}")
    return {"layers": layers, "losses": losses, "real": real, "drawn": drawn}


def figure(found):
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(15, 4), layout="constrained")
    grid = np.mgrid[-2:2:25j, -1.4:1.4:18j].reshape(2, -1)
    arrows = np.array(jax.vmap(model, (None, 0, None))(found["layers"], grid.T.astype(np.float32), 0.25)).T
    shown = ("data", "real", 0.4), ("samples", "drawn", 0.4), ("data, and the score at noise 0.25", "real", 0.15)
    for ax, (title, name, alpha) in zip(axes, shown, strict=True):
        ax.set(title=title, xlim=(-2.1, 2.1), ylim=(-1.5, 1.5), aspect="equal")
        ax.scatter(*np.transpose(found[name]), s=4, color="#3b6ea5", alpha=alpha)
    axes[2].quiver(*grid, *arrows * np.minimum(1, 6 / np.hypot(*arrows)), angles="xy", color="#b5442e", width=0.003)
    return fig


if __name__ == "__main__":
    figure(main())
