"""What is known of the zeros of a weight that is an argument, such as W * mask, after further steps.

A zero that is claimed must be one whatever the weights are, of either sign: products with them are left out.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import chainrule as cr

M = np.tril(np.ones((4, 4)))
INSIDE = M > 0

# functions of w, and how many of the 16 entries of a diagonal or a matrix may be nonzero
KEPT = {
    "rounded and clipped": (lambda w: jnp.round(jnp.clip(w * M, -1.0, 1.0) * 8) / 8, 10),
    "rectified": (lambda w: jnp.maximum(w * M, 0.0), 10),
    "greater of two": (lambda w: jnp.maximum(w * M, (w * M) ** 3), 10),
    "expm1": (lambda w: jnp.expm1(w * M), 10),
    "erf": (lambda w: lax.erf(w * M), 10),
    "to a power": (lambda w: lax.pow(jnp.abs(w * M), 1.5), 10),
    "compared": (lambda w: (w * M > 0.0).astype(float), 10),
    "not compared": (lambda w: (~(w * M > 0.0)).astype(float), 16),
    "mask and a comparison": (lambda w: jnp.where(INSIDE & (w > 0), w, 0.0), 10),
    "neither mask nor a comparison": (lambda w: jnp.where(~INSIDE & ~(w > 0), w, 0.0), 6),
    "mask or a comparison": (lambda w: jnp.where(~INSIDE | (w > 0), 0.0, w), 10),
    "one of three by a masked number": (
        lambda w: lax.select_n((w > 0).astype(int) * M.astype(int), jnp.zeros((4, 4)), w, w**2),
        10,
    ),
    "one of two as a whole": (lambda w: lax.select_n(jnp.array(True), w, w * M), 10),
    "halves exchanged": (lambda w: jnp.concatenate(jnp.split(w * M, 2)[::-1]), 10),
    "rows exchanged": (lambda w: jnp.stack(jnp.unstack(w * M)[::-1]), 10),
    "sums of two neighbours": (lambda w: lax.reduce_window(w * M, 0.0, lax.add, (1, 2), (1, 1), "VALID"), 9),
    "softmax of masked scores": (lambda w: jax.nn.softmax(jnp.where(INSIDE & (w > -9.0), w, -jnp.inf)), 10),
}
LOST = {
    "to the power 0": lambda w: lax.integer_pow(w * M, 0),
    "to a power of the same zeros": lambda w: lax.pow(jnp.abs(w * M), jnp.abs(w * M)),
    "cosine": lambda w: jnp.cos(w * M),
    "angle of zeros with signs": lambda w: jnp.arctan2(w * M, w * M),
    "clipped away from zero": lambda w: jnp.clip(w * M, 0.2, 0.5),
    "greater than zeros": lambda w: jnp.maximum(w * M, -w * M) + jnp.maximum(w.T * M.T, 0.1),
    "gathered out of range": lambda w: (
        jnp.zeros((4, 4)).at[(w[:, 0] > 0.0).astype(int) * 9].get(mode="fill", fill_value=7.0)
    ),
    "either is chosen": lambda w: jnp.where((w > 0) & INSIDE.T, w * M, 1.0),
}


@pytest.mark.parametrize("name", [*KEPT, *LOST])
def test_a_zero_is_known_only_where_it_is_one(name: str) -> None:
    weight, most = KEPT[name] if name in KEPT else (LOST[name], 16)
    rng = np.random.default_rng(0)
    jacobian = cr.jacobian(lambda x, w: weight(w) * x)
    for _ in range(3):
        w = jnp.asarray(rng.normal(size=(4, 4)))
        J = jacobian(jnp.ones_like(weight(w)), w)
        np.testing.assert_array_equal(J.dense(), np.diag(np.ravel(weight(w))))
        assert J.nnz == most


def test_an_inverse_of_a_masked_weight_is_infinite() -> None:
    w = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)))
    J = cr.jacobian(lambda x, w: lax.integer_pow(w * M, -2) * x)(jnp.ones((4, 4)), w)
    assert np.isinf(J.diagonal()).sum() == 6


def test_a_mask_and_a_padding_that_is_an_argument() -> None:
    """Causal attention over sequences of unknown length is block-triangular, whatever the length."""

    def attention(x: jax.Array, length: jax.Array) -> jax.Array:
        seen = INSIDE & (jnp.arange(4.0)[None] < length)
        return jax.nn.softmax(jnp.where(seen, x @ x.T, -jnp.inf), axis=-1) @ x

    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)))
    for order in ("forward", "reverse"):
        for length in (2.0, 4.0):
            J = jax.jit(cr.jacobian(attention, order=order))(x, jnp.asarray(length))
            np.testing.assert_allclose(J.dense(), jax.jacrev(attention)(x, length).reshape(8, 8), atol=1e-12)
            assert J.nnz == 40
