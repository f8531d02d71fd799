"""Attention sees the past alone
=============================

The local Jacobian of attention, block by block: how the output of each token depends on each token before it. Of its
queries alone it is block-diagonal; of all tokens under a causal mask it is block-triangular: the zeros of the mask
are seen through the softmax, and not stored. A cotangent is pulled back without any matrix.

Run it: ``python examples/attention.py``
"""

import jax
import jax.numpy as jnp
import numpy as np

import chainrule as cr

jax.config.update("jax_enable_x64", True)

rng = np.random.default_rng(0)
T, D = 8, 4  # tokens, features
keys, values = rng.normal(size=(T, D)), rng.normal(size=(T, D))
causal = np.tril(np.ones((T, T), bool))
x0 = rng.normal(size=(T, D))


def attention(queries):
    """Each query reads all values, weighed by the keys."""
    return jax.nn.softmax(queries @ keys.T / np.sqrt(D), axis=-1) @ values


def self_attention(x):
    """Every token looks at all tokens up to itself."""
    scores = jnp.where(causal, x @ x.T / np.sqrt(D), -jnp.inf)
    return jax.nn.softmax(scores, axis=-1) @ x


def main():
    """The Jacobians; what is not there; and a pullback."""
    of_queries, J = cr.jacobian(attention)(x0), cr.jacobian(self_attention)(x0)
    print("of the queries:", of_queries)
    print("self-attention:", J)
    print(J.spy_text(32, 8))
    blocks = J.dense().reshape(T, D, T, D)
    sizes = np.linalg.norm(blocks, axis=(1, 3))  # [token of the output, token of the input]
    print(f"largest block above the diagonal: {abs(sizes[~causal]).max()}")
    w = rng.normal(size=x0.shape)
    error = float(abs(np.ravel(cr.pullback(self_attention)(x0, w) - J.T @ w)).max())
    print(f"pullback without a matrix against Jᵀ w: {error:.1e}")
    return {"of_queries": of_queries, "J": J, "sizes": sizes, "error": error}


def figure(found):
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
    scores = np.where(causal, x0 @ x0.T / np.sqrt(D), -np.inf)
    weights, sizes = np.asarray(jax.nn.softmax(scores, axis=-1)), np.where(causal, found["sizes"], np.nan)
    shown = {"attention weights": np.where(causal, weights, np.nan), "size of ∂ output / ∂ token": sizes}
    for ax, (title, a) in zip(axes, shown.items(), strict=False):
        fig.colorbar(ax.imshow(a, cmap="viridis", vmin=0), ax=ax, shrink=0.8)
        ax.set(title=title, xlabel="token that is read", ylabel="token that reads")
    found["J"].spy(axes[2])
    axes[2].set_title("what is stored of J")
    return fig


if __name__ == "__main__":
    figure(main())
