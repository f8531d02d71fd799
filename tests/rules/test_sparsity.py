"""Rules keep sparse what is sparse: as many entries, and as few slots, as the function has."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from rules.cases import CONV, c

import chainrule as cr
from chainrule._blocks.block import identity
from chainrule._check.rule import Case, propagate

SPARSE: list[tuple[str, Callable[..., Any], int]] = [
    ("slice", lambda x: x[2:7], 5),
    ("strided slice", lambda x: x[::3], 4),
    ("roll", lambda x: jnp.roll(x, 3), 12),
    ("reversal", lambda x: x[::-1], 12),
    ("pad", lambda x: jnp.pad(x, (2, 1)), 12),
    ("gather", lambda x: x[np.array([3, 3, 1])], 3),
    ("dynamic slice", lambda x: lax.dynamic_slice(x, (4,), (3,)), 3),
    ("dynamic update", lambda x: lax.dynamic_update_slice(x, 2.0 * x[:3], (4,)), 12),
    ("transpose", lambda x: x.reshape(3, 4).T, 12),
    ("reshape in another order of axes", lambda x: lax.reshape(x.reshape(3, 4), (2, 6), (1, 0)), 12),
    ("split", lambda x: x[:5] * 2.0 - x[5:10], 10),
    ("mask", lambda x: jnp.where(np.arange(12) % 2 == 0, x, 0.0), 6),
    ("sum", lambda x: x.sum(), 12),
    ("sum of rows", lambda x: x.reshape(3, 4).sum(1), 12),
    ("matrix per sample", lambda x: x.reshape(3, 4) @ c(4, 4), 48),
    ("matrices per sample", lambda x: jnp.einsum("bi,bij->bj", x.reshape(3, 4), c(3, 4, 2)), 24),
    ("convolution", lambda x: jnp.convolve(x, np.array([1.0, 2.0, 3.0])), 36),
    ("image", lambda x: lax.conv(x.reshape(1, 1, 3, 4), c(1, 1, 2, 2), (1, 1), "VALID"), 24),
    ("dilated taps", lambda x: CONV(x[:5].reshape(1, 1, 5), c(1, 1, 3), (1,), "VALID", rhs_dilation=(2,)), 3),
    ("triangle", lambda x: jnp.cumsum(x), 78),
    ("stencil", lambda x: x[2:] - 2.0 * x[1:-1] + x[:-2], 30),
    ("segments", lambda x: jax.ops.segment_sum(x, np.arange(12) // 5, 3), 12),
    ("sum at places", lambda x: jnp.zeros(9).at[np.arange(12) // 2].add(x), 12),
    ("difference at places", lambda x: x[:4].at[np.array([1, 3, 3])].subtract(x[4:7]), 7),
    ("concatenation", lambda x: jnp.concatenate([x.sum()[None], 2.0 * x[1:]]), 23),
    ("window", lambda x: lax.reduce_window(x, 0.0, lax.add, (3,), (3,), "VALID"), 12),
    ("solves per sample", lambda x: lax.linalg.triangular_solve(np.tril(c(2, 2)), x.reshape(6, 2), lower=True), 24),
    ("transforms per sample", lambda x: jnp.fft.fft(x.reshape(4, 3)).real, 36),
    ("map", lambda x: lax.map(lambda r: r * r.sum(), x.reshape(6, 2)), 24),
]


@pytest.mark.parametrize("order", ["forward", "reverse"])
@pytest.mark.parametrize(("f", "nnz"), [case[1:] for case in SPARSE], ids=[name for name, *_ in SPARSE])
def test_no_entry_more_than_the_function_has(f: Callable[..., Any], nnz: int, order: str) -> None:
    assert cr.jacobian(f, order=order)(jnp.arange(12.0)).nnz == nnz


def test_copies_of_a_filler_have_its_row() -> None:
    f, x = lambda x: lax.pad(np.ones(3), x[0] * x[1], ((1, -1, 1),)), jnp.arange(1.0, 4.0)
    J = cr.jacobian(f)(x)
    assert J.nnz == 6 and not J._layout.fallbacks
    np.testing.assert_array_equal(J.dense(), jax.jacfwd(f)(x))


def test_general_solves_of_a_batch_keep_it() -> None:
    """The matrix of the solver is asked along which axes it is not diagonal."""
    matrix = c(2, 2)
    solve = jax.vmap(lambda b: jnp.linalg.solve(matrix, b))
    assert cr.jacobian(lambda x: solve(x.reshape(6, 2)))(jnp.arange(12.0)).nnz == 24


MOVES: list[tuple[str, Callable[..., Any], tuple[int, ...]]] = [
    ("slice", lambda a: a[1:, ::2], (3, 4)),
    ("roll", lambda a: jnp.roll(a, 1, 0), (3, 4)),
    ("pad", lambda a: jnp.pad(a, 1), (3, 4)),
    ("gather", lambda a: a[np.array([2, 2, 0, -1])], (3, 4)),
    ("transpose", lambda a: a.transpose(2, 0, 1), (2, 3, 4)),
    ("reshape", lambda a: a.reshape(6, 2), (3, 4)),
    ("reversal", lambda a: jnp.flip(a), (3, 4)),
    ("broadcast", lambda a: jnp.broadcast_to(a[:, None], (3, 5, 4)), (3, 4)),
    ("tile", lambda a: jnp.tile(a, (2, 1)), (3, 4)),
    ("permutation", lambda a: jnp.zeros((3, 4)).at[np.array([2, 0, 1])].set(a, unique_indices=True), (3, 4)),
    ("update", lambda a: lax.dynamic_update_slice(jnp.zeros((5, 4)), a, (1, 0)), (3, 4)),
]


@pytest.mark.parametrize(("g", "shape"), [case[1:] for case in MOVES], ids=[name for name, *_ in MOVES])
def test_moved_rows_keep_their_one_slot_and_number(g: Callable[..., Any], shape: tuple[int, ...]) -> None:
    """The identity stays one slot a row, all of whose values are one number: nothing is computed or stored."""
    (out,) = propagate(Case("", g, [shape]), [[identity(shape, 0, np.float64)]], np.float64, [])
    assert {b.slots for b in out.blocks} == {1}
    assert all(b.static and b.vals.size == 1 for b in out.blocks)


def test_a_batch_shares_the_weights() -> None:
    """One layer on a batch: the values have no batch axis, the weights are not even copied."""
    case = Case("", lambda a, k: a @ k, [(5, 4)])
    (out,) = propagate(case, [[identity((5, 4), 0, np.float64)]], np.float64, [c(4, 3)])
    (block,) = out.blocks
    assert block.slots == 4 and block.vals.shape == (1, 3, 4) and block.cols.shape == (5, 1, 4)


@pytest.mark.parametrize(("below", "stored"), [(1.0, 12), (-3.0, 12), (np.tri(12) + np.eye(12), 144)])
def test_one_number_for_each_column_of_a_triangle(below: Any, stored: int) -> None:
    """Where all that a column holds is one number, this is not written out; an entry that is not finite stays apart."""

    def f(x: Any) -> Any:
        return jnp.tril(jnp.full((12, 12), below)) @ jnp.sin(x)

    x = jnp.asarray(c(12)).at[5].set(jnp.inf)
    J = cr.jacobian(f, order="forward")(x)
    assert sum(v.size for v in jax.tree.leaves(J)) == stored and J.nnz == 78
    expected = np.where(np.tri(12) > 0, np.broadcast_to(below, (12, 12)) * np.asarray(jnp.cos(x)), 0.0)
    np.testing.assert_allclose(J.dense(), expected, rtol=1e-12)


def test_parts_of_a_concatenation_meet_their_own_rows_of_a_matrix() -> None:
    """As if each were multiplied by itself; but for laying the numbers of the context beside the others."""
    A, P, Q, x = c(3, 4), c(3, 5), c(4, 5), jnp.asarray(c(20, 3))

    def parts(x: Any) -> Any:
        return x, jnp.broadcast_to(jnp.mean(jnp.tanh(x @ A), 0), (20, 4))

    def whole(x: Any) -> Any:
        return jnp.sin(jnp.concatenate(parts(x), 1) @ np.concatenate([P, Q]))

    def apart(x: Any) -> Any:
        own, context = parts(x)
        return jnp.sin(own @ P + context @ Q)

    J, K = (cr.jacobian(f, order="forward")(x) for f in (whole, apart))
    assert J.cost == K.cost + 4 * x.size
    np.testing.assert_allclose(J.tree(), jax.jacfwd(whole)(x), rtol=1e-12, atol=1e-13)


BAND = np.tri(160) - np.tri(160, k=-3)
PRODUCTS: dict[str, Callable[..., Any]] = {
    "matrix and vector": lambda x, w: (w * BAND) @ x,
    "vector and matrix": lambda x, w: x @ (w * BAND),
    "matrix and matrix": lambda x, w: (w * BAND) @ jnp.outer(x, x[:2]),
    "transposed": lambda x, w: jnp.outer(x[:2], x) @ (w * BAND).T,
    "known": lambda x, w: BAND @ x + jnp.tril(BAND).T @ x,
}


@pytest.mark.parametrize("order", ["forward", "reverse"])
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_a_large_sparse_matrix(name: str, order: Any) -> None:
    """The value and the coefficients are computed by its nonzeros alone."""

    def f(x: Any, w: Any) -> Any:
        return jnp.tanh(PRODUCTS[name](x, w))

    x, w = jnp.asarray(c(160)), jnp.asarray(c(160, 160))
    y, J = cr.value_and_jacobian(f, order=order)(x, w)
    np.testing.assert_allclose(y, f(x, w), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(J.tree(), jax.jacfwd(f)(x, w), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("sizes", [(40, 3, 2, 5), (40, 8, 4, 4), (40, 1, 3, 3), (40, 9, 3, 3), (20, 3, 2, 5)])
@pytest.mark.parametrize("order", ["forward", "reverse"])
def test_a_batch_of_small_products_is_added_up(sizes: Any, order: Any) -> None:
    """A routine that is called for each of them takes longer than the sums, of up to eight terms."""
    n, k, p, q = sizes
    R, B = c(2, k * p), jnp.asarray(c(n, k, q))

    def f(a: Any) -> Any:
        return jnp.einsum("nkp,nkq->npq", jnp.sin(a @ R).reshape(n, k, p), jnp.tanh(B * a[:, :1, None]))

    a = jnp.asarray(c(n, 2))
    made = cr.jacobian(f, order="forward").trace(a).jaxpr.jaxpr
    np.testing.assert_allclose(cr.jacobian(f, order=order)(a).tree(), jax.jacfwd(f)(a), rtol=1e-12, atol=1e-13)
    batched = [e for e in made.eqns if e.primitive.name == "dot_general" and e.params["dimension_numbers"][1][0]]
    assert (not batched) == (n >= 32 and k <= 8)
