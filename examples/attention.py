"""The local Jacobians of attention: softmax is diag(s) - s sᵀ, and a row's output sees its own query only.

python examples/attention.py
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


if __name__ == "__main__":
    z = x0[0]
    s = jax.nn.softmax(z)
    np.testing.assert_allclose(cr.jacobian(jax.nn.softmax)(z).dense(), jnp.diag(s) - jnp.outer(s, s), atol=1e-14)
    print("softmax:           J = diag(s) - s sᵀ")
    print("wrt the queries:  ", cr.jacobian(attention)(x0))
    J = cr.jacobian(self_attention)(x0)
    print("self-attention:   ", J)
    print(J.spy_text(32, 8))
    future = np.kron(~causal, np.ones((D, D)))  # blocks where the input comes after the output
    np.testing.assert_array_equal(J.dense() * future, 0)
    w = rng.normal(size=x0.shape)  # a cotangent of the output, pulled back without a matrix
    np.testing.assert_allclose(cr.pullback(self_attention)(x0, w), J.T @ w, atol=1e-12)
    print("no token depends on a later one; pullback agrees with the transposed Jacobian")
