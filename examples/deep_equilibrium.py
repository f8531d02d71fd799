"""A layer that is an equation
===========================

A deep-equilibrium layer is the z with z = tanh(W z + U x + b): it learns to tell two spirals apart. Its gradient is
that of the unrolled iteration, but comes from one linear system at the solution, so that its memory does not grow
with the number of iterations.

Run it: ``python examples/deep_equilibrium.py``
"""

import jax
import jax.numpy as jnp
import numpy as np

import chainrule as cr

jax.config.update("jax_enable_x64", True)
HIDDEN, STEPS, rng = 16, 150, np.random.default_rng(0)


def spirals(n):
    """Points on two interleaved spirals [n, 2], and which one each is on [n]."""
    label, t = np.arange(n) % 2, np.sqrt(rng.uniform(2.4, 48, n))
    points = np.stack([t * np.cos(t + np.pi * label), t * np.sin(t + np.pi * label)], axis=1) / 5
    return jnp.asarray(points + rng.normal(size=(n, 2)) * 0.03), jnp.asarray(label, float)


def layer(given, z):
    p, x = given
    W = p["W"] * jnp.minimum(1.0, 0.9 / jnp.linalg.norm(p["W"]))  # a contraction
    return jnp.tanh(W @ z + p["U"] @ x + p["b"])


def unrolled(given, iterations=200):
    return jax.lax.scan(lambda z, _: (layer(given, z), None), jnp.zeros(HIDDEN), length=iterations)[0]


def equilibrium(given, most=1000):
    return cr.fixed_point(layer, jnp.zeros(HIDDEN), max_steps=most)(given)


def loss(p, x, label, state=equilibrium):
    logits = jax.vmap(lambda x: p["out"] @ state((p, x)))(x)
    return jnp.mean(jnp.logaddexp(0.0, logits) - label * logits), jnp.mean((logits > 0) == label)


def memory(state, p):
    """Bytes that the gradient of five points takes."""
    program = jax.jit(jax.grad(lambda p: loss(p, x[:5], label[:5], state)[0])).lower(p).compile()
    return program.memory_analysis().temp_size_in_bytes


x, label = spirals(200)


def main():
    """Training; the gradient against that of 200 iterations; and the memory of both."""
    shapes = {"W": (HIDDEN, HIDDEN), "U": (HIDDEN, 2), "b": (HIDDEN,), "out": (HIDDEN,)}
    p = {name: jnp.asarray(rng.normal(size=s)) * (0.1 if name == "W" else 1.5) for name, s in shapes.items()}
    speed, step = jax.tree.map(jnp.zeros_like, p), jax.jit(jax.value_and_grad(loss, has_aux=True))
    for _ in range(STEPS):
        (value, right), slope = step(p, x, label)
        speed = {name: 0.9 * v - 0.3 * slope[name] for name, v in speed.items()}
        p = jax.tree.map(jnp.add, p, speed)
    print(f"loss {value:.3f}, {right:.1%} right")
    ours, other = (jax.grad(loss, has_aux=True)(p, x[:5], label[:5], f)[0] for f in (equilibrium, unrolled))
    error = max(float(abs(ours[name] - other[name]).max()) for name in p)
    print(f"gradient against 200 unrolled iterations: largest difference {error:.1e}")
    bytes_of = {n: [memory(lambda g, f=f, n=n: f(g, n), p) for f in (equilibrium, unrolled)] for n in (100, 1000)}
    print("bytes of the gradient (equilibrium, unrolled), by iterations:", bytes_of)
    return {"p": p, "right": right, "error": error, "bytes": bytes_of}


def figure(found):
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4.4), width_ratios=(3, 2), layout="constrained")
    grid = np.mgrid[-1.7:1.7:60j, -1.7:1.7:60j]
    logits = jax.jit(jax.vmap(lambda x: found["p"]["out"] @ equilibrium((found["p"], x))))(grid.reshape(2, -1).T)
    left.pcolormesh(*grid, jax.nn.sigmoid(logits).reshape(60, 60), cmap="PuOr", vmin=-0.3, vmax=1.3, rasterized=True)
    left.scatter(*x.T, c=label, s=14, cmap="PuOr", edgecolors="#444444", linewidths=0.5)
    left.set(title="two spirals, told apart", aspect="equal")
    sizes = np.array(list(found["bytes"].values())) / 1024
    for k, (name, color) in enumerate((("equilibrium", "#3b6ea5"), ("unrolled", "#b5442e"))):
        right.bar(np.arange(2) + 0.4 * k, sizes[:, k], width=0.4, color=color, label=name)
    right.set_xticks([0.2, 1.2], ["100 iterations", "1,000 iterations"])
    right.set(yscale="log", title="memory of the gradient in KiB")
    right.legend()
    return fig


if __name__ == "__main__":
    figure(main())
