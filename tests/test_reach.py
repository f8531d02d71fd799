"""Patterns of loops: exact where they stay sparse, filled at once where they fill, refused where they would not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
from jax import lax

import chainrule as cr
from chainrule._memory import limited
from chainrule._rules import reach

N, HALF = 1000, 40
TAPS = np.random.default_rng(0).normal(size=2 * HALF + 1)


def blurred(u):
    return jnp.convolve(jnp.pad(u, HALF, mode="wrap"), TAPS, mode="valid") - jnp.sin(u)


def test_a_loop_over_wide_stencils_stays_banded():
    """The second power of the pattern of a step takes longer here than to write down all that is connected."""

    def f(u):
        return lax.fori_loop(0, 3, lambda _, u: blurred(u), u)

    J = cr.jacobian(f, order="forward").trace(jnp.zeros(N)).out_info
    assert J.nnz == N * (2 * HALF * 3 + 1)


def band(n, half):
    return scipy.sparse.csr_array(
        scipy.sparse.diags_array(np.ones(2 * half + 1), offsets=range(-half, half + 1), shape=(n, n))
    )


@pytest.mark.parametrize(("n", "half", "steps"), [(60, 1, 7), (60, 3, 5), (800, 60, 3), (2000, 60, 6)])
def test_the_columns_after_some_steps_are_those_of_the_power(n, half, steps):
    found = reach.filled(band(n, half), scipy.sparse.csr_array(scipy.sparse.eye_array(n)), steps)
    np.testing.assert_array_equal(found.toarray() != 0, band(n, half * steps).toarray() != 0)


@pytest.mark.parametrize("steps", [None, 10**6])
def test_what_is_connected_fills_in(steps):
    apart = scipy.sparse.csr_array(scipy.sparse.block_diag([band(300, 60), band(200, 60)]))
    found = reach.filled(apart, scipy.sparse.csr_array(scipy.sparse.eye_array(500)), steps)
    wanted = scipy.linalg.block_diag(np.ones((300, 300)), np.ones((200, 200)))
    np.testing.assert_array_equal(found.toarray() != 0, wanted != 0)


def test_products_part_by_part_are_the_products(monkeypatch):
    monkeypatch.setattr(reach, "_PART", 1000)
    a = scipy.sparse.random_array((70, 50), density=0.2, rng=np.random.default_rng(0), format="csr")
    b = scipy.sparse.random_array((50, 90), density=0.2, rng=np.random.default_rng(1), format="csr")
    np.testing.assert_array_equal(reach.product(a, b).toarray() != 0, (a @ b).toarray() != 0)
    with limited(1000), pytest.raises(cr.MemoryLimitError, match="a loop"):
        reach.product(a, b)


def test_the_states_of_a_loop_that_would_not_fit_are_refused_before_they_are_laid_out():
    W = np.random.default_rng(0).normal(size=(20, 20))

    def states(x):
        return lax.scan(lambda h, a: (jnp.tanh(W @ h + a), h), jnp.zeros(20), x)[1]

    with pytest.raises(cr.MemoryLimitError, match=r"the outputs of a loop: an array of 500×800000 entries.*chunk_size"):
        cr.jacobian(states, memory_limit=2**28).trace(jax.ShapeDtypeStruct((2000, 20), float))
