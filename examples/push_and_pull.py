"""Pushing a vector forward, pulling a covector back
=================================================

A change of the input is pushed through a network, layer by layer; a gradient of the output is pulled back. Neither
takes a matrix. Whatever the widths, the pairing of the two is the same number in every layer: ⟨w, J v⟩ = ⟨Jᵀ w, v⟩.
So one may stop and multiply anywhere, and where is only a question of cost.

Run it: ``python examples/push_and_pull.py``
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

import chainrule as cr

jax.config.update("jax_enable_x64", True)

rng = np.random.default_rng(4)
WIDTHS = (8, 24, 40, 12, 6)
matrices = [rng.normal(size=(m, n)) / np.sqrt(n) for n, m in itertools.pairwise(WIDTHS)]
layers = [lambda x, W=W: jnp.tanh(W @ x) for W in matrices]
x0, v0, w0 = rng.normal(size=8), rng.normal(size=8), rng.normal(size=6)


def network(x):
    for layer in layers:
        x = layer(x)
    return x


def main():
    """The vector and the covector at each layer, and their pairings."""
    x, pushed, pulled = [x0], [v0], [w0]
    for layer in layers:
        pushed.append(cr.pushforward(layer)(x[-1], pushed[-1]))
        x.append(layer(x[-1]))
    for layer, at in zip(layers[::-1], x[-2::-1], strict=True):
        pulled.insert(0, cr.pullback(layer)(at, pulled[0]))
    pairings = [float(v @ w) for v, w in zip(pushed, pulled, strict=True)]
    J = cr.jacobian(network)(x0)
    print("pairings:", *(f"{p:.12f}" for p in pairings))
    print(f"⟨w, J v⟩ = {w0 @ (J @ v0):.12f}, with the Jacobian {J}")
    return {"pushed": pushed, "pulled": pulled, "pairings": pairings, "J": J}


def figure(found):
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, len(WIDTHS), figsize=(10, 4.6), sharey=True, layout="constrained")
    for k, (ax, v, w) in enumerate(zip(axes, found["pushed"], found["pulled"], strict=True)):
        rows = (len(v) - 1) / 2 - np.arange(len(v))
        ax.hlines(rows, -abs(v), 0, color=np.where(v > 0, "#3b6ea5", "#9dbbd8"), lw=4)
        ax.hlines(rows, 0, abs(w), color=np.where(w > 0, "#b5442e", "#dfa79b"), lw=4)
        ax.axvline(0, color="#444444", lw=0.8)
        ax.set(title=f"⟨w, v⟩ = {found['pairings'][k]:.4f}", xticks=[], yticks=[], xlim=(-2, 2))
        ax.set_xlabel("x" if k == 0 else "y" if k == len(layers) else f"layer {k}")
        ax.spines[:].set_visible(False)
    fig.suptitle("v pushed from x to y (left, blue), w pulled from y to x (right, red); pale: negative")
    return fig


if __name__ == "__main__":
    figure(main())
