"""Jacobians in pieces: the pieces together are the whole, entry for entry and place for place; equal ones share."""

from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from jax import lax
from programs import PAIRS, STEPS, run

import chainrule as cr
from chainrule._stored import pieces as _pieces

RNG = np.random.default_rng(3)
W, V = RNG.normal(size=(12, 7)), RNG.normal(size=(7, 9))
PLACES = RNG.integers(0, 24, size=30)


def diffusion(x):
    return jnp.roll(x, 1) + jnp.roll(x, -1) - 2 * x + x**3


def twice(x):
    return diffusion(diffusion(x))


def brusselator(x):
    u, v = x

    def laplacian(u):
        return jnp.roll(u, 1, 0) + jnp.roll(u, -1, 0) + jnp.roll(u, 1, 1) + jnp.roll(u, -1, 1) - 4 * u

    return jnp.stack([u * u * v - 2 * u + laplacian(u), u - u * u * v + laplacian(v)])


def tree(x):
    return {"a": x["p"][:2] * x["q"], "b": [jnp.sin(x["q"]) + x["p"].sum(), x["p"] ** 2]}


FUNCTIONS = {
    "identity": (lambda x: x, jnp.ones(5)),
    "periodic": (twice, RNG.normal(size=40)),
    "Brusselator": (brusselator, RNG.normal(size=(2, 6, 8))),
    "batched MLP": (lambda x: jnp.tanh(x @ W) @ V, RNG.normal(size=(8, 12))),
    "attention": (lambda x: jax.nn.softmax(x @ x.T) @ x, RNG.normal(size=(6, 3))),
    "queries": (lambda x: jax.nn.softmax(x @ KEYS.T) @ KEYS, RNG.normal(size=(6, 3))),
    "causal": (
        lambda x: jax.nn.softmax(jnp.where(np.tri(6, dtype=bool), x @ x.T, -jnp.inf)) @ x,
        RNG.normal(size=(6, 3)),
    ),
    "gather": (lambda x: jnp.sin(x)[PLACES] * x[0], RNG.normal(size=24)),
    "scatter": (lambda x: jnp.zeros(24).at[PLACES].add(x**2), RNG.normal(size=30)),
    "convolution": (
        lambda x: lax.conv_general_dilated(x, KERNEL, (2, 1), ((1, 1), (0, 2)), rhs_dilation=(1, 2)) ** 2,
        RNG.normal(size=(2, 2, 9, 7)),
    ),
    "image's transpose": (
        lambda x: lax.conv_general_dilated(x, KERNEL, (1, 1), ((1, 1), (0, 1)), lhs_dilation=(2, 1)),
        RNG.normal(size=(2, 2, 4, 3)),
    ),
    "shapes": (
        lambda x: jnp.concatenate([x.T.reshape(2, -1)[:, ::2], jnp.flip(x, 0).reshape(2, -1)], 1)[:, 1:, None],
        RNG.normal(size=(4, 6)),
    ),
    "pads": (
        lambda x: lax.pad(x, 0.0, ((2, -1, 0), (1, 1, 1))) ** 2 + lax.pad(x, 0.0, ((0, 1, 0), (3, 4, 0))) [:, :13],
        RNG.normal(size=(4, 6)),
    ),
    "sums": (lambda x: jnp.cumsum(x, 0).sum(1, keepdims=True) * x + jnp.tile(x[:1], (5, 1)), RNG.normal(size=(5, 4))),
    "mask": (lambda x: (jnp.tril(jnp.outer(x, x)) @ x) * 2, RNG.normal(size=9)),
    "sorted rows": (lambda x: jnp.sort(x, 1), RNG.normal(size=(6, 4))),
    "loop": (lambda x: lax.fori_loop(0, 3, lambda _, y: diffusion(y) / 9, x), RNG.normal(size=16)),
    "branch": (
        lambda x: lax.cond(x[0] > 0, lambda x: x**2, lambda x: jnp.zeros_like(x), x) + lax.cond(
            x[1] > 0, jnp.sin, jnp.cos, x), RNG.normal(size=10),
    ),
    "a custom rule": (lambda x: jax.nn.relu(x[1:] * x[:-1]), RNG.normal(size=20)),
    "constant rows": (lambda x: jnp.concatenate([jnp.ones(3), x**2, jnp.zeros(2)]), RNG.normal(size=6)),
    "single precision": (lambda x: x[1:] * x[:-1], RNG.normal(size=20).astype(np.float32)),
    "one number": (lambda x: x**2, 3.0),
    "nothing": (lambda x: x, jnp.zeros(0)),
    "no elements on the way": (
        lambda x: (x[:0] ** 2).reshape(0, 3).sum(0) + (x**2)[:0].reshape(3, 0) @ x[3:3] + x[:3] ** 2,
        RNG.normal(size=7),
    ),
    "blocks of zeros": (
        lambda x: jnp.zeros((6, 6)).at[:3, :3].set(x.reshape(3, 3) ** 2).at[3:, 3:].set(x.reshape(3, 3)),
        RNG.normal(size=9),
    ),
    "a solve": (lambda x: jnp.linalg.solve(x.reshape(3, 3) + 5 * jnp.eye(3), jnp.arange(3.0)), RNG.normal(size=9)),
    "pytrees": (tree, {"p": jnp.arange(1.0, 5.0), "q": jnp.ones(2)}),
    "reals to complex": (lambda x: jnp.exp(lax.complex(x, x))[:3], RNG.normal(size=6)),
}  # fmt: skip
SIZES = {
    "Brusselator": 16,
    "convolution": 40,
    "gather": 8,
    "scatter": 8,
    "attention": 6,
    "queries": 6,
    "causal": 6,
    "loop": 8,
}
SIZES |= {"periodic": 10, "shapes": 8, "batched MLP": 24, "image's transpose": 24, "pads": 20}
KEYS = np.random.default_rng(5).normal(size=(7, 3))
KERNEL = np.random.default_rng(4).normal(size=(3, 2, 3, 2))


@jax.custom_vjp
def backwards_only(x):
    return x[:-1] * x[1:]


backwards_only.defvjp(
    lambda x: (backwards_only(x), x),
    lambda x, w: (jnp.pad(w * x[1:], (0, 1)) + jnp.pad(w * x[:-1], (1, 0)),),
)


def put_together(f, x, **options):
    whole, pieces = cr.jacobian(f)(x), list(cr.jacobian_chunks(f, **options)(x))
    by_rows = "columns" not in options
    ranges = [p.rows if by_rows else p.columns for p in pieces]
    assert [k for r in ranges for k in r] == list(range(whole.shape[not by_rows]))
    for p in pieces:
        assert p.jacobian.shape == (len(p.rows), len(p.columns)) and p.jacobian.nnz == p.jacobian.scipy().nnz
    return whole, pieces, (sp.vstack if by_rows else sp.hstack)([p.jacobian.scipy() for p in pieces] or [whole.scipy()])


@pytest.mark.parametrize("cut", ["rows", "columns"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_pieces_are_the_whole(name, cut):
    f, x = FUNCTIONS[name]
    whole, pieces, together = put_together(f, x, **{cut: SIZES.get(name, 5)})
    np.testing.assert_allclose(
        together.toarray(), whole.dense(), rtol=1e-6 if name == "single precision" else 1e-12, atol=1e-12
    )
    assert together.nnz <= whole.nnz
    assert {p.jacobian.dtype for p in pieces} <= {whole.dtype}


@pytest.mark.parametrize("cut", ["rows", "columns"])
def test_of_a_function_with_one_direction(cut):
    x = RNG.normal(size=11)
    whole, _, together = put_together(backwards_only, x, **{cut: 4})
    np.testing.assert_allclose(together.toarray(), whole.dense(), rtol=1e-13)
    assert together.nnz == whole.nnz == 20

    def f(x):  # a loop of unknown length has no reverse sweep
        return lax.while_loop(lambda c: c[1].sum() < 40, lambda c: (c[0] + 1, c[1] * 2), (0, x**2))[1]

    whole, _, together = put_together(f, jnp.abs(x), **{cut: 4})
    np.testing.assert_allclose(together.toarray(), whole.dense(), rtol=1e-13)


@pytest.mark.parametrize("seed", range(4))
def test_of_random_programs(seed):
    """Values alone: a piece may find less to be zero, or more, than the order that the whole is accumulated in."""
    rng = np.random.default_rng(seed)
    steps = [(int(rng.integers(len(STEPS) + len(PAIRS))), *map(int, rng.integers(0, 9, 3))) for _ in range(3)]
    x = rng.normal(size=(3, 3))
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        dense = cr.jacobian(lambda x: run(steps, x))(x).dense()
        for cut in ("rows", "columns"):
            pieces = list(cr.jacobian_chunks(lambda x: run(steps, x), **{cut: 4})(x))
            together = np.concatenate([p.jacobian.dense() for p in pieces], int(cut == "columns"))
            np.testing.assert_allclose(together, dense, rtol=1e-9, atol=1e-9)


def programs_of(chunks, *args):
    return len(chunks._transform(*args)[1].value.compiled)


@pytest.mark.parametrize(
    ("name", "options", "most"),
    [
        ("Brusselator", {"rows": 8}, 6),
        ("Brusselator", {"columns": 8}, 6),
        ("batched MLP", {"rows": 9}, 1),
        ("queries", {"rows": 3}, 1),
        ("periodic", {"rows": 4}, 3),
    ],
)
def test_equal_pieces_share_a_program(name, options, most):
    own, x = FUNCTIONS[name]
    f = lambda x: own(x)  # noqa: E731  # a new function: what other tests compiled belongs to the old one
    chunks = cr.jacobian_chunks(f, **options)
    pieces = list(chunks(x))
    assert len(pieces) >= 6 and programs_of(chunks, x) <= most
    again = list(chunks(jnp.asarray(x) + 1))  # another point: nothing is linearized or compiled anew
    assert programs_of(chunks, x) <= most
    together = np.concatenate([p.jacobian.dense() for p in again], 0 if "rows" in options else 1)
    np.testing.assert_allclose(together, cr.jacobian(f)(jnp.asarray(x) + 1).dense(), rtol=1e-12, atol=1e-12)


def test_a_piece_costs_what_it_takes():
    """The multiply-adds and the compiled memory of a piece of a stencil do not grow with the grid."""
    found = []
    for n in (10_000, 40_000):
        piece = list(cr.jacobian_chunks(twice, rows=1000)(jnp.ones(n)))[3].jacobian
        found.append((piece.cost, sum(v.nbytes for v in jax.tree.leaves(piece)), piece.nnz))
    assert found[0] == found[1] and found[0][2] == 5000


def test_pieces_by_memory():
    x = RNG.normal(size=(2, 40, 50))
    pieces = list(cr.jacobian_chunks(brusselator, by_memory=200_000)(x))
    assert max(p.jacobian.nnz for p in pieces) * 56 <= 200_000 and len(pieces) <= 12
    dense = list(cr.jacobian_chunks(lambda x: jnp.tanh(np.linspace(1, 2, 2500) * x.sum()), by_memory=500_000)(x[0, 0]))
    assert max(p.jacobian.nnz for p in dense) * 56 <= 500_000 and len(dense) <= 25
    assert sum(p.jacobian.nnz for p in dense) == 2500 * 50
    assert len(list(cr.jacobian_chunks(brusselator)(x))) == 1


def test_a_row_that_does_not_fit_is_refused():
    with pytest.raises(cr.MemoryLimitError):
        list(cr.jacobian_chunks(lambda x: x * x.sum(), by_memory=1000)(jnp.ones(500)))


def test_of_several_arguments_and_whole_numbers():
    index = jnp.array([2, 0, 1, 2, 1])
    f = lambda a, k, b: a[k] * b  # noqa: E731
    pieces = list(cr.jacobian_chunks(f, (0, 2), rows=2)(jnp.arange(3.0), index, jnp.ones(5)))
    together = np.concatenate([p.jacobian.dense() for p in pieces])
    np.testing.assert_allclose(together, cr.jacobian(f, (0, 2))(jnp.arange(3.0), index, jnp.ones(5)).dense())
    assert sum(p.jacobian.nnz for p in pieces) == 10


def test_pieces_are_jacobians():
    (first, *_) = cr.jacobian_chunks(diffusion, rows=5)(jnp.arange(20.0))
    J, v = first.jacobian, RNG.normal(size=20)
    dense = jax.jacfwd(diffusion)(jnp.arange(20.0))[:5]
    np.testing.assert_allclose(J @ v, dense @ v, rtol=1e-12)
    np.testing.assert_allclose(J.T @ v[:5], dense.T @ v[:5], rtol=1e-12)
    np.testing.assert_allclose((2 * J).row(0), 2 * dense[0])
    assert isinstance(J, cr.Jacobian) and jax.jit(lambda J: J.dense())(J).shape == (5, 20)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rows": 2, "columns": 2}, "one of rows, columns and by_memory, got rows and columns"),
        ({"rows": 0}, "rows=0"),
        ({"columns": True}, "columns=True"),
        ({"by_memory": 1.5}, "by_memory=1.5"),
        ({"argnums": "x"}, "argnums"),
    ],
)
def test_refusals(options, said):
    with pytest.raises(cr.InputTypeError, match=said):
        cr.jacobian_chunks(diffusion, **options)


def test_refusals_of_points():
    with pytest.raises(cr.InputTypeError, match="jacobian_chunks of diffusion: inputs must be floating point"):
        cr.jacobian_chunks(diffusion)(jnp.arange(4))
    with pytest.raises(cr.InputTypeError, match="holomorphic"):
        cr.jacobian_chunks(diffusion)(jnp.ones(4, complex))
    z = RNG.normal(size=5) + 1j
    (piece,) = cr.jacobian_chunks(diffusion, holomorphic=True)(z)
    np.testing.assert_allclose(piece.jacobian.dense(), jax.jacfwd(diffusion, holomorphic=True)(z), rtol=1e-12)


def test_traced_arguments_are_refused():
    for use in (lambda x: next(cr.jacobian_chunks(diffusion)(x)),
                lambda c: next(cr.jacobian_chunks(lambda x: c * x**2)(np.ones(4)))):  # fmt: skip
        with pytest.raises(cr.InputTypeError, match="outside jit, vmap and grad"):
            jax.jit(lambda x, use=use: use(x).jacobian.dense())(np.ones(4))


def test_threads_share_the_programs_of_pieces(monkeypatch):
    """More programs than are kept, asked for by threads at a time: one may be gone where another had seen it."""
    monkeypatch.setattr(_pieces, "_KEPT", 1)
    x = RNG.normal(size=12)

    def f(x):
        return x[PLACES % 12] * x[0]

    chunks, expected = cr.jacobian_chunks(f, rows=4), jax.jacfwd(f)(x)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: np.vstack([p.jacobian.dense() for p in chunks(x)]), range(4)))
    for J in found:
        np.testing.assert_allclose(J, expected, rtol=1e-14)


def test_zeros_of_a_row_are_known():
    """Rows that a mask leaves few keys, or a dilated kernel few places, are as tight as in the whole."""
    f, x = FUNCTIONS["causal"]
    pieces = cr.jacobian_chunks(f, rows=3)(x)
    assert [p.jacobian.nnz for p in pieces] == [9 * (k + 1) for k in range(6)]
    f, x = lambda x: lax.conv_general_dilated(x, KERNEL, (1, 1), "SAME", rhs_dilation=(2, 2)), jnp.ones((1, 2, 5, 4))
    for options in ({"rows": 1}, {"by_memory": 2000}):
        assert sum(p.jacobian.nnz for p in cr.jacobian_chunks(f, **options)(x)) == cr.jacobian(f)(x).nnz


def test_a_filler_of_padding():
    f, x = lambda x: lax.pad(x[1:] ** 2, x[0], ((2, 3, 0),)), RNG.normal(size=5)
    _, _, together = put_together(f, x, rows=2)
    np.testing.assert_array_equal(together.toarray(), jax.jacfwd(f)(x))
    assert together.nnz == 9
