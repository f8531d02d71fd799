"""One Jacobian for each sample
============================

The samples of a batch do not meet in a network, and the Jacobian of the whole batch shows it: one block a sample, and
no more is computed or stored. Each block is W₂ᵀ diag(1 - h²) W₁ᵀ, and its singular values say how far the network
stretches a small change at that sample.

Run it: ``python examples/mlp_per_sample.py``
"""

import jax
import jax.numpy as jnp
import numpy as np

import chainrule as cr

jax.config.update("jax_enable_x64", True)

rng = np.random.default_rng(0)
parameters = {
    "W1": rng.normal(size=(8, 16)) / np.sqrt(8),
    "b1": np.zeros(16),
    "W2": rng.normal(size=(16, 4)) / np.sqrt(16),
    "b2": np.zeros(4),
}


def network(x, p=parameters):
    """x : [batch, 8] -> [batch, 4]."""
    h = jnp.tanh(x @ p["W1"] + p["b1"])
    return h @ p["W2"] + p["b2"]


x0 = rng.normal(size=(32, 8))


def by_hand(x, p=parameters):
    """[batch, 4, 8]: W2ᵀ diag(1 - h²) W1ᵀ, sample by sample."""
    h = jnp.tanh(x @ p["W1"] + p["b1"])
    return jnp.einsum("kj,bk,ik->bji", p["W2"], 1 - h**2, p["W1"])


def main():
    """The blocks, against the formula, and the largest gain of each."""
    J = cr.jacobian(network)(x0)
    print(J)
    print(J.spy_text(40, 16))
    blocks = J.coo()[2].reshape(32, 4, 8)
    error = float(abs(blocks - by_hand(x0)).max())
    gains = np.linalg.svd(blocks, compute_uv=False)
    print(f"blocks against the formula: {error:.1e}")
    print(f"largest gain of a sample: {gains[:, 0].max():.3f}, smallest: {gains[:, 0].min():.3f}")
    return {"J": J, "blocks": blocks, "gains": gains, "error": error}


def figure(found):
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    rows, columns, values = found["J"].coo()
    shown = left.scatter(columns, rows, c=values, s=4, marker="s", cmap="PuOr", vmin=-1, vmax=1)
    fig.colorbar(shown, ax=left)
    left.set(title="J of the batch: a block a sample", xlim=(-1, 256), ylim=(128, -1), aspect="auto")
    gains = found["gains"][np.argsort(found["gains"][:, 0])]
    for k, color in enumerate(("#b5442e", "#d8973c", "#4c8a4a", "#3b6ea5")):
        right.plot(gains[:, k], "o-", ms=4, color=color, label=f"σ{'₁₂₃₄'[k]}")
    right.set(title="singular values of the blocks", xlabel="samples, by their largest gain", ylim=(0, None))
    right.legend()
    return fig


if __name__ == "__main__":
    figure(main())
