"""A part of a carry with an axis of size 0 is no reason to forget the structure of the others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import chainrule as cr

T = 40  # more steps than are written out


def scanned(step, start, x):
    return lax.scan(lambda c, _: (step(*c), None), (x, start(x)), None, length=T)[0][0]


def first(x):
    return x[:0]


def narrow(x):
    return jnp.zeros((5, 0))


FUNCTIONS = {
    "handed on": lambda x: scanned(lambda a, b: (jnp.sin(a), b), first, x),
    "summed": lambda x: scanned(lambda a, b: (jnp.sin(a) + b.sum(), b), first, x),
    "times what changes": lambda x: scanned(lambda a, b: (a + jnp.tanh(a) * b.sum(), b * a.sum()), first, x),
    "concatenated": lambda x: scanned(lambda a, b: (jnp.concatenate([jnp.sin(a), b]), b), first, x),
    "a product": lambda x: scanned(lambda a, b: (jnp.sin(a) + (b @ b.T) @ a, jnp.sin(b)), narrow, x),
    "all steps": lambda x: lax.scan(
        lambda c, _: ((jnp.sin(c[0]), c[1] * c[0][:, None]), (c[0], c[1])), (x, narrow(x)), None, length=T
    )[1][0],
    "an input": lambda x: lax.scan(
        lambda c, t: (jnp.sin(c) + t.sum(), t), x, jnp.stack([x[:0]] * T)
    )[0],
    "a fori_loop": lambda x: lax.fori_loop(
        0, T, lambda i, c: (jnp.sin(c[0]) + c[1].sum(), c[1] * c[0].sum()), (x, x[:0])
    )[0],
    "a while_loop": lambda x: lax.while_loop(
        lambda c: c[2] < 5, lambda c: (jnp.sin(c[0]) + c[1].sum(), c[1] * c[0].sum(), c[2] + 1), (x, x[:0], 0)
    )[0],
}  # fmt: skip


@pytest.mark.parametrize("order", ["auto", "forward", "reverse"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_other_parts_keep_their_structure(name, order):
    if (name, order) == ("a while_loop", "reverse"):
        order = "auto"  # JAX has no reverse of it
    f, x = FUNCTIONS[name], jnp.arange(1.0, 6.0)
    J, D = cr.jacobian(f, order=order)(x), jax.jacfwd(f)(x).reshape(-1, 5)
    assert (J.nnz, J.fallbacks) == (len(D), ())
    np.testing.assert_allclose(J.dense(), D, rtol=1e-12, atol=1e-14)


def test_an_empty_array_of_keys_is_carried_on():
    keys = jax.random.split(jax.random.key(0), 0)
    J = cr.jacobian(lambda x: lax.scan(lambda c, _: ((jnp.sin(c[0]), c[1]), None), (x, keys), None, length=T)[0][0])
    assert J(jnp.ones(3)).nnz == 3
