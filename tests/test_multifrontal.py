"""Sparse LU on a tree of dense fronts, against NumPy's dense solves, and what StructuredSolver makes of it."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx
import pytest
from numpy.testing import assert_allclose

import chainrule as cr
from chainrule._linalg import multifrontal
from chainrule._linalg.dissection import Dissection
from chainrule._linalg.host import Sparse
from chainrule._linalg.multifrontal import Multifrontal

RNG = np.random.default_rng(0)


def dominant(mask, rng=RNG, dtype=float):
    """A matrix with these places and a diagonal that needs no pivoting."""
    n = len(mask)
    A = np.where(mask, rng.normal(size=(n, n)), 0).astype(dtype)
    if np.iscomplexobj(A):
        A = A * np.exp(1j * rng.normal(size=(n, n)))
    return A + np.diag(abs(A).sum(1) + 1).astype(dtype)


def grid(size, cells=1, coupled=True):
    """The places of a five-point stencil on size² points, with some unknowns in each cell."""
    line = abs(np.subtract.outer(np.arange(size), np.arange(size))) <= 1
    eye = np.eye(size, dtype=bool)
    points = np.kron(line, eye) | np.kron(eye, line)
    return np.kron(points, np.ones((cells, cells), bool) if coupled else np.eye(cells, dtype=bool))


def hub(n):
    mask = np.eye(n, dtype=bool)
    mask[0] = mask[:, 0] = True
    return mask


def chain(n):
    own = RNG.permutation(n)
    return abs(np.subtract.outer(own, own)) <= 1


def one_way(size):
    """A grid on which each unknown takes from two neighbours, and gives to others."""
    mask = grid(size)
    return np.triu(mask) | np.roll(np.eye(len(mask), dtype=bool), -2 * size, axis=1)


PATTERNS = {
    **{f"{n} unknowns": np.tri(n, dtype=bool) | (RNG.random((n, n)) < 0.5) for n in (1, 2, 3, 4, 5)},
    "diagonal": np.eye(40, dtype=bool),
    "full": np.ones((70, 70), bool),
    "grid": grid(13),
    "grid of 2": grid(8, 2),
    "grid of 3": grid(7, 3),
    "two grids": grid(8, 2, coupled=False),
    "hub": hub(120),
    "chain": chain(150),
    "one-way": one_way(11),
    "random": (RNG.random((110, 110)) < 0.02) | np.eye(110, dtype=bool),
}


def fronts(mask):
    rows, cols = np.nonzero(mask)
    return Dissection(rows, cols, len(mask)).fronts


@pytest.fixture
def always(monkeypatch):
    """Fronts for every pattern with a full diagonal."""
    monkeypatch.setattr(multifrontal, "_LONGEST", np.inf)


@pytest.fixture
def asked(monkeypatch):
    """The number of solves that SuperLU was asked for."""
    found, run = [], Sparse._solved
    monkeypatch.setattr(Sparse, "_solved", lambda self, *given: (found.append(1), run(self, *given))[1])
    return found


OTHER_DTYPES = [(name, dtype) for name in ("grid of 2", "random") for dtype in (np.float32, np.complex128)]


@pytest.mark.parametrize(("name", "dtype"), [*((name, np.float64) for name in PATTERNS), *OTHER_DTYPES])
def test_the_fronts_alone_solve(name, dtype):
    A, tree = dominant(PATTERNS[name]).astype(dtype), fronts(PATTERNS[name])
    if dtype == np.complex128:
        A = dominant(PATTERNS[name], dtype=dtype)
    b = RNG.normal(size=(3, len(A))).astype(dtype)
    factors = jax.jit(functools.partial(multifrontal._factored, tree))(jnp.asarray(A[np.nonzero(PATTERNS[name])]))
    close = functools.partial(assert_allclose, rtol=1e-9, atol=1e-4 if dtype == np.float32 else 1e-12)
    for transposed in (False, True):
        x = multifrontal._solved(tree, factors, jnp.asarray(b), transposed)
        assert x.dtype == dtype
        close(x, np.linalg.solve(A.T if transposed else A, b.T).T)


@hypothesis.given(st.integers(1, 60), st.floats(0, 0.2), st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=25)
def test_random_patterns(n, density, seed):
    rng = np.random.default_rng(seed)
    mask = (rng.random((n, n)) < density) | np.eye(n, dtype=bool)
    A, b, tree = dominant(mask, rng), rng.normal(size=(1, n)), fronts(mask)
    with jax.disable_jit():
        factors = multifrontal._factored(tree, jnp.asarray(A[np.nonzero(mask)]))
        x = multifrontal._solved(tree, factors, jnp.asarray(b), False)
    assert_allclose(x, np.linalg.solve(A, b.T).T, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", PATTERNS)
def test_every_entry_and_every_unknown_has_one_place(name):
    mask, tree = PATTERNS[name], fronts(PATTERNS[name])
    pivots = np.concatenate([level.pivots.ravel() for level in tree])
    assert (np.sort(pivots[pivots < len(mask)]) == np.arange(len(mask))).all()
    entries = np.concatenate([which for level in tree for which in (level.rows[0], level.columns[0])])
    assert (np.sort(entries[entries < mask.sum()]) == np.arange(mask.sum())).all()


def test_separators_are_small():
    assert fronts(grid(32))[0].pivots.shape[1] <= 2 * 32  # one or two lines of the grid
    assert all(level.boundary <= 1 for level in fronts(hub(300)))
    assert all(level.boundary <= 2 for level in fronts(chain(1000)))


@pytest.mark.parametrize("transposed", [False, True])
def test_no_call_of_the_host_where_no_pivot_is_needed(transposed, always, asked):
    A = dominant(grid(13))
    method, b = Multifrontal(*np.nonzero(A), len(A)), RNG.normal(size=(2, len(A)))
    x = method.solve(method.factor_for_many(jnp.asarray(A[A != 0])), jnp.asarray(b), transposed)
    assert_allclose(x, np.linalg.solve(A.T if transposed else A, b.T).T, rtol=1e-10)
    assert not asked


@pytest.mark.parametrize("tiny", [0.0, 1e-30, 1e-13])
def test_what_needs_pivots_from_elsewhere_is_right(tiny, always, asked):
    """The large entry of each row is far off the diagonal: within a front every pivot is tiny."""
    n = 200
    partner = np.roll(np.arange(n), n // 2)
    A = np.diag(np.full(n, tiny)) + 0.0
    A[np.arange(n), partner] = 1 + RNG.random(n)
    mask = (A != 0) | np.eye(n, dtype=bool) | chain(n)
    A = A + np.where(chain(n) & mask, 1e-3, 0) * (1 - np.eye(n))
    rows, cols = np.nonzero(mask)
    method, b = Multifrontal(rows, cols, n), RNG.normal(size=(1, n))
    factors = method.factor_for_many(jnp.asarray(A[rows, cols]))
    assert len(factors) > 1
    for transposed in (False, True):
        x = method.solve(factors, jnp.asarray(b), transposed)
        assert_allclose(x, np.linalg.solve(A.T if transposed else A, b.T).T, rtol=1e-9)


def test_an_indefinite_matrix_is_refined(always, asked):
    """The waves of a grid: with pivots of their own the fronts lose digits, and one correction brings them back."""
    mask = grid(24)
    A = np.where(mask, 1.0, 0) - 1.4 * np.eye(len(mask))
    rows, cols = np.nonzero(mask)
    method, b = Multifrontal(rows, cols, len(A)), RNG.normal(size=(1, len(A)))
    factors = method.factor_for_many(jnp.asarray(A[rows, cols]))

    def lost(x):
        x = np.asarray(x)[0]
        return (abs(b[0] - A @ x) / (abs(A) @ abs(x) + abs(b[0]))).max() / np.finfo(float).eps

    assert lost(multifrontal._solved(method.tree, factors[1:], jnp.asarray(b), False)) > 100
    assert lost(method.solve(factors, jnp.asarray(b), False)) < 5
    assert not asked


def test_singular_matrices_give_nan(always):
    A = dominant(grid(12))
    A[7] = A[8] = 0
    rows, cols = np.nonzero(grid(12))
    method = Multifrontal(rows, cols, len(A))
    factors = method.factor_for_many(jnp.asarray(A[rows, cols]))
    assert np.isnan(method.solve(factors, jnp.ones((1, len(A))), False)).all()
    with_nan = method.factor_for_many(jnp.full(len(rows), jnp.nan))
    assert np.isnan(method.solve(with_nan, jnp.ones((1, len(A))), False)).all()


def test_in_a_batch_only_those_that_need_it_are_left_to_superlu(always, asked):
    mask = grid(12)
    rows, cols = np.nonzero(mask)
    method = Multifrontal(rows, cols, len(mask))
    A = np.stack([dominant(mask, np.random.default_rng(k)) for k in range(3)])
    b = jnp.asarray(RNG.normal(size=(3, 1, len(mask))))

    @jax.vmap
    def solve(values, b):
        return method.solve(method.factor_for_many(values), b, False)

    expected = np.linalg.solve(A, np.asarray(b)[:, 0, :, None])[..., 0]
    assert_allclose(solve(jnp.asarray(A[:, rows, cols]), b)[:, 0], expected, rtol=1e-10)
    assert not asked
    A[1][5] = A[1][6] = 0
    x = solve(jnp.asarray(A[:, rows, cols]), b)[:, 0]
    assert np.isnan(x[1]).all()
    assert_allclose(x[::2], expected[::2], rtol=1e-10)


def test_which_patterns_have_fronts():
    def has(mask):
        return bool(Multifrontal(*np.nonzero(mask), len(mask)).tree)

    assert has(grid(32))
    assert not has(grid(12) & ~np.eye(144, dtype=bool))  # no diagonal
    assert not has((RNG.random((1000, 1000)) < 0.004) | np.eye(1000, dtype=bool))  # large separators


# StructuredSolver -----------------------------------------------------------------------------------------------------

SIZE = 12


@pytest.fixture
def _promotion_of_users():
    """These libraries promote dtypes and ranks as JAX does where nothing is set."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def reaction(x, k):
    u = x.reshape(SIZE, SIZE)
    p = jnp.pad(u, 1)
    spread = p[2:, 1:-1] + p[:-2, 1:-1] + p[1:-1, 2:] + p[1:-1, :-2] - 4 * u
    return (spread - 0.3 * (u - p[:-2, 1:-1]) - k * u**3 + 1.0).reshape(-1)


def solved(k, b, solver):
    operator = lx.JacobianLinearOperator(lambda x, _: reaction(x, k), jnp.linspace(0.5, 1.0, SIZE**2))
    return lx.linear_solve(operator, b, solver).value


@pytest.mark.usefixtures("_promotion_of_users")
@pytest.mark.parametrize(
    "transform",
    [
        lambda f: jax.jit(f),
        lambda f: jax.vmap(f, in_axes=(None, 0)),
        lambda f: jax.vmap(f),
        lambda f: jax.jit(jax.vmap(jax.grad(lambda k, b: (f(k, b) ** 2).sum()))),
        lambda f: jax.jacfwd(jax.grad(lambda k, b: (f(k, b) ** 2).sum())),
    ],
    ids=["jit", "vmap b", "vmap", "grad", "second derivative"],
)
def test_transforms_of_the_solver(transform, request):
    name = request.node.callspec.id
    k, b = jnp.array([0.5, 2.0]), jnp.asarray(RNG.normal(size=(2, SIZE**2)))
    given = (k if name in ("vmap", "grad") else k[1], b if "vmap" in name or name == "grad" else b[0])
    ours, dense = (
        transform(functools.partial(solved, solver=solver))(*given)
        for solver in (cr.StructuredSolver(), lx.AutoLinearSolver(well_posed=None))
    )
    assert_allclose(ours, dense, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("_promotion_of_users")
def test_newton_of_optimistix_calls_no_host(asked):
    def steady(k, solver):
        newton = optx.Newton(rtol=1e-10, atol=1e-10, linear_solver=solver)
        return optx.root_find(lambda x, k: reaction(x, k), newton, jnp.ones(SIZE**2), k).value

    ours, dense = (
        jax.jit(jax.value_and_grad(lambda k, s=s: (steady(k, s) ** 2).sum()))(1.5)
        for s in (cr.StructuredSolver(), lx.AutoLinearSolver(well_posed=None))
    )
    assert_allclose(ours, dense, rtol=1e-9)
    assert not asked
