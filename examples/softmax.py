"""Softmax: a diagonal less a rank-one matrix
==========================================

The Jacobian of softmax is diag(s) - s sᵀ. Adding one number to all logits changes nothing, so that (1, …, 1) spans
its kernel; its columns sum to 0. Its eigenvalues lie between the probabilities, one in each gap, as those of a
diagonal less a rank-one matrix do. chainrule keeps both parts apart: of 100,000 logits, whose Jacobian would take 80
GB, the products, the rank and the kernel take a moment.

Run it: ``python examples/softmax.py``
"""

import jax
import jax.numpy as jnp
import numpy as np

import chainrule as cr

jax.config.update("jax_enable_x64", True)

logits = jnp.array([2.0, 1.2, 0.9, 0.0, -0.4, -1.5])
many = jnp.sin(jnp.arange(100_000.0))


def main():
    """The matrix of six logits, and products with that of a hundred thousand."""
    s, J = jax.nn.softmax(logits), cr.jacobian(jax.nn.softmax)(logits)
    error = float(abs(J.dense() - jnp.diag(s) + jnp.outer(s, s)).max())
    kernel = J.null_space()[:, 0]
    print(f"J - (diag(s) - s sᵀ): {error:.1e}; sums of columns: {float(abs(J.dense().sum(0)).max()):.1e}")
    print(f"rank {J.rank()} of 6; kernel {np.round(kernel / kernel[0], 12)}")
    eigenvalues = np.linalg.eigvalsh(J.dense())
    print("probabilities", np.round(np.sort(s), 4), "and eigenvalues", np.round(eigenvalues, 4))
    large = cr.jacobian(jax.nn.softmax, order="factored")(many)
    print(large)
    g = jnp.cos(many)
    p = jax.nn.softmax(many)
    pulled = float(abs(large.T @ g - p * (g - p @ g)).max())
    print(f"pullback of {len(many):,} logits against s (g - s·g): {pulled:.1e}; rank {large.rank()}")
    return {"J": J, "s": s, "eigenvalues": eigenvalues, "kernel": kernel, "pulled": pulled, "rank": large.rank()}


def figure(found):
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    shown = left.imshow(found["J"].dense(), cmap="PuOr", vmin=-0.25, vmax=0.25)
    fig.colorbar(shown, ax=left, label="∂s/∂z")
    left.set(title="J = diag(s) - s sᵀ", xlabel="logit", ylabel="probability")
    shifts = np.linspace(-3, 5, 161)
    s = jax.vmap(lambda t: jax.nn.softmax(logits.at[0].set(t)))(shifts)
    inside = np.linalg.eigvalsh(jax.vmap(lambda s: jnp.diag(s) - jnp.outer(s, s))(s))
    lines = right.plot(shifts, s, color="#3b6ea5", lw=1.2), right.plot(shifts, inside, "--", color="#b5442e", lw=1.2)
    right.legend([line[0] for line in lines], ["probabilities", "eigenvalues of J"])
    right.set(title="an eigenvalue in each gap", xlabel="first logit", ylim=(0, 1))
    right.set_yscale("function", functions=(lambda y: np.sqrt(abs(y)), np.square))
    return fig


if __name__ == "__main__":
    figure(main())
