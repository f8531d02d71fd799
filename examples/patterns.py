"""What Jacobians look like
========================

Twelve programs and the patterns of their Jacobians. Nobody has said what they are: the structure follows from the
chain rule, step by step, and each kind is stored, multiplied and solved with in its own way. The blue dots are all
that is stored.

Run it: ``python examples/patterns.py``
"""

import jax
import jax.numpy as jnp
import numpy as np

import chainrule as cr

jax.config.update("jax_enable_x64", True)

rng = np.random.default_rng(0)
N = 48
W, V, U = (rng.normal(size=(n, n)) for n in (6, 8, N // 2))
order = rng.permutation(N)
x0 = rng.normal(size=N)


def arrow(x):
    """Each number meets the first one, and the first one all."""
    return jnp.append(x.sum(), x[0] * x[1:] ** 2)


def coupling(x):
    """Half of the numbers scale the other half."""
    a, b = x[: N // 2], x[N // 2 :]
    return jnp.append(a, b * jnp.exp(jnp.tanh(U @ a)))


def attention(x):
    """Six tokens of eight features; each sees the ones before it."""
    x = x.reshape(6, 8)
    scores = jnp.where(jnp.tril(jnp.ones((6, 6), bool)), x @ x.T, -jnp.inf)
    return jax.nn.softmax(scores) @ x


def grid(x):
    """A step of diffusion on a 6 × 8 grid."""
    u = jnp.pad(x.reshape(6, 8), 1)
    return jnp.tanh(u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2] - 4 * u[1:-1, 1:-1])


PROGRAMS = {
    "tanh(x)": jnp.tanh,
    "x[order]": lambda x: x[order],
    "x[1:] x[:-1]": lambda x: x[1:] * x[:-1],
    "cumsum(x)": jnp.cumsum,
    "x, in sixes, @ W": lambda x: jnp.sin(x.reshape(8, 6) @ W),
    "V @ x, in sixes": lambda x: jnp.sin(V @ x.reshape(8, 6)),
    "causal attention": attention,
    "convolve": lambda x: jnp.convolve(x, jnp.ones(5), "same"),
    "a hub": arrow,
    "coupling layer": coupling,
    "diffusion": grid,
    "two steps of it": lambda x: grid(grid(x).ravel()),
}


def main():
    """The structure in words, and how much is stored."""
    found = {name: cr.jacobian(f)(x0) for name, f in PROGRAMS.items()}
    for name, J in found.items():
        print(f"{name:18}{J.nnz:5} of {J.shape[0] * J.shape[1]}  {J.structure}")
    return found


def figure(found):
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(3, 4, figsize=(10, 8), layout="constrained")
    for ax, (name, J) in zip(axes.flat, found.items(), strict=True):
        rows, columns, _ = J.coo()
        ax.scatter(columns, rows, s=3, marker="s", color="#3b6ea5")
        ax.set(xlim=(-1, N), ylim=(N, -1), aspect="equal", xticks=[], yticks=[])
        ax.set_title(f"{name}\n{J.structure.kind}", fontsize=10)
    return fig


if __name__ == "__main__":
    figure(main())
