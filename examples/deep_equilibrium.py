"""A deep-equilibrium layer learns two spirals; its gradient is that of the unrolled iteration, without its memory.

The hidden state z of a point x is the fixed point of z = tanh(W z + U x + b). The gradient comes from one linear system
with I - ∂f/∂z, whatever number of iterations the state took (Bai, Kolter and Koltun 2019).

    python examples/deep_equilibrium.py [picture.png]
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

import chainrule as cr

jax.config.update("jax_enable_x64", True)
HIDDEN, POINTS, STEPS = 24, 300, 400


def spirals(points, seed=0):
    """Two interleaved spirals with a little noise: points [n, 2], and which spiral they are on [n]."""
    rng = np.random.default_rng(seed)
    t = np.sqrt(rng.uniform(0.05, 1, points)) * 2.2 * np.pi
    label = np.arange(points) % 2
    angle = t + np.pi * label
    x = np.stack([t * np.cos(angle), t * np.sin(angle)], axis=1) / 5 + rng.normal(size=(points, 2)) * 0.03
    return jnp.asarray(x), jnp.asarray(label.astype(float))


def start(seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"W": (HIDDEN, HIDDEN), "U": (HIDDEN, 2), "b": (HIDDEN,), "out": (HIDDEN,), "bias": ()}
    scales = {"W": 0.3 / np.sqrt(HIDDEN), "U": 2.0, "b": 1.0, "out": 0.3, "bias": 0.0}
    return {name: jnp.asarray(rng.normal(size=shape) * scales[name]) for name, shape in shapes.items()}


def layer(given, z):
    p, x = given
    W = p["W"] * jnp.minimum(1.0, 0.95 / jnp.linalg.norm(p["W"], 2))  # a contraction
    return jnp.tanh(W @ z + p["U"] @ x + p["b"])


equilibrium = cr.fixed_point(layer, jnp.zeros(HIDDEN), rtol=1e-10)


def unrolled(given, iterations=400):
    """The same state by plain iteration, through which JAX differentiates."""
    return jax.lax.scan(lambda z, _: (layer(given, z), None), jnp.zeros(HIDDEN), length=iterations)[0]


def loss(p, x, label, state=equilibrium):
    """Cross-entropy of a logistic read-out of the state."""
    logits = jax.vmap(lambda x: p["out"] @ state((p, x)) + p["bias"])(x)
    return jnp.mean(jnp.logaddexp(0.0, logits) - label * logits), logits


def adam(p, x, label, steps, rate=0.02):
    """Adam (Kingma and Ba 2015), as one loop: the trained parameters and the losses."""
    zeros = jax.tree.map(jnp.zeros_like, p)

    def step(state, k):
        p, m, v = state
        (value, _), g = jax.value_and_grad(loss, has_aux=True)(p, x, label)
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.99 * v + 0.01 * g**2, v, g)
        scale = rate * jnp.sqrt(1 - 0.99 ** (k + 1)) / (1 - 0.9 ** (k + 1))
        p = jax.tree.map(lambda p, m, v: p - scale * m / (jnp.sqrt(v) + 1e-8), p, m, v)
        return (p, m, v), value

    (p, _, _), values = jax.lax.scan(step, (p, zeros, zeros), jnp.arange(float(steps)))
    return p, values


x, label = spirals(POINTS)
parameters, losses = jax.jit(adam, static_argnums=3)(start(), x, label, STEPS)
value, logits = loss(parameters, x, label)
accuracy = float(jnp.mean((logits > 0) == (label > 0.5)))
print(f"loss {losses[0]:.3f} -> {value:.3f}, {accuracy:.1%} of {POINTS} points right")

few = x[:5], label[:5]
ours = jax.grad(loss, has_aux=True)(parameters, *few)[0]
other = jax.grad(lambda p: loss(p, *few, unrolled)[0])(parameters)
difference = max(float(abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (ours, other)), strict=True))
print(f"gradient against the unrolled iteration: largest difference {difference:.1e}")


def temporaries(state):
    program = jax.jit(jax.grad(lambda p: loss(p, *few, state)[0])).lower(parameters).compile()
    return program.memory_analysis().temp_size_in_bytes


memory = {
    "equilibrium, at most 100 iterations": temporaries(cr.fixed_point(layer, jnp.zeros(HIDDEN), max_steps=100)),
    "equilibrium, at most 1000 iterations": temporaries(cr.fixed_point(layer, jnp.zeros(HIDDEN), max_steps=1000)),
    "unrolled, 100 iterations": temporaries(lambda given: unrolled(given, 100)),
    "unrolled, 1000 iterations": temporaries(lambda given: unrolled(given, 1000)),
}
for name, size in memory.items():
    print(f"{name:40}{size:>12,} bytes")

if len(sys.argv) > 1:
    import matplotlib.pyplot as plt

    axis = jnp.linspace(-1.7, 1.7, 120)
    grid = jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 2)
    _, surface = jax.jit(loss)(parameters, grid, jnp.zeros(len(grid)))
    figure, plot = plt.subplots(figsize=(5, 5), layout="constrained")
    plot.contourf(axis, axis, jax.nn.sigmoid(surface).reshape(120, 120), levels=20, cmap="RdBu_r", alpha=0.6)
    for k, colour in ((0, "tab:blue"), (1, "tab:red")):
        plot.scatter(*x[label == k].T, s=12, color=colour, edgecolor="white", linewidth=0.4)
    plot.set(title=f"two spirals, {accuracy:.1%} right", aspect="equal")
    figure.savefig(sys.argv[1], dpi=120)
