"""Per-sample Jacobians of a two-layer network: one block a sample, and what each says of the map there.

python examples/mlp_per_sample.py
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


if __name__ == "__main__":
    # the samples are not coupled, and the Jacobian of the whole batch shows it
    J = cr.jacobian(network)(x0)
    print(J)
    print(J.spy_text(40, 16))
    blocks = J.coo()[2].reshape(32, 4, 8)
    np.testing.assert_allclose(blocks, by_hand(x0), atol=1e-12)
    gains = np.linalg.svd(blocks, compute_uv=False)[:, 0]
    print(f"largest gain of a sample: {gains.max():.3f}, smallest: {gains.min():.3f}")
