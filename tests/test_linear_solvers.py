"""Solves that no structure chooses: products of factors, least squares, Krylov methods, KLU, scans; and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from systems import SYSTEMS, by_jax, dense_of, jacobian_of, of_places, point, reaction_diffusion

import chainrule as cr
from chainrule._jacobians.structure import Places
from chainrule._linalg.banded import Banded, _scan_factor, _scan_solve


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


# products and matrix-free ------------------------------------------------------------------------


def layers(x):
    for k in range(3):
        x = jnp.tanh((jnp.eye(6) + 0.3 * jnp.asarray(random(6, 6, seed=k))) @ x)
    return x


def test_a_product_is_solved_factor_by_factor():
    J, A = cr.jacobian(layers, order="factored")(point(6)), np.asarray(jax.jacfwd(layers)(point(6)))
    assert len(J.factors) > 1
    b, B = random(6), random(6, 2)
    for x in (J.solve(b), J.factorize().solve(b), J.inverse() @ b, J.lstsq(b)):
        assert_allclose(x, np.linalg.solve(A, b), rtol=1e-9)
    assert_allclose(J.T.solve(B), np.linalg.solve(A.T, B), rtol=1e-9)
    assert_allclose(J.factorize().T.solve(B), np.linalg.solve(A.T, B), rtol=1e-9)
    assert_allclose(J.slogdet(), np.linalg.slogdet(A), rtol=1e-10)
    assert_allclose(J.det(), np.linalg.det(A), rtol=1e-10)
    assert_allclose(J.singular_values(), np.linalg.svd(A, compute_uv=False), rtol=1e-9)
    assert J.rank() == J.structural_rank == 6
    assert len(J.inverse().factors) == len(J.factors)


def test_a_product_with_a_waist_is_not_solved_factor_by_factor():
    def f(x):
        return jnp.tanh(jnp.asarray(random(4, 7)) @ jnp.sin(jnp.asarray(random(7, 4, seed=1)) @ x))

    J, A = cr.jacobian(f, order="factored")(point(4)), np.asarray(jax.jacfwd(f)(point(4)))
    assert any(F.shape[0] != F.shape[1] for F in J.factors)
    assert_allclose(J.solve(random(4)), np.linalg.solve(A, random(4)), rtol=1e-8)
    assert_allclose(J.slogdet(), np.linalg.slogdet(A), rtol=1e-9)
    assert_allclose(J.inverse().dense(), np.linalg.inv(A), rtol=1e-8)


def test_the_derivatives_of_a_product():
    def of(jacobian, solve, log_det):
        return lambda x: solve(jacobian(x), x**2).sum() + log_det(jacobian(x))

    ours = of(cr.jacobian(layers, order="factored"), lambda J, b: J.solve(b), lambda J: J.slogdet()[1])
    dense = of(jax.jacfwd(layers), jnp.linalg.solve, lambda A: jnp.linalg.slogdet(A)[1])
    assert_allclose(jax.jit(jax.grad(ours))(point(6)), jax.grad(dense)(point(6)), rtol=1e-8)


def test_a_matrix_free_jacobian():
    f, x, b = SYSTEMS["dense"].f, point(9), random(9)
    J, A = cr.linearize(f)(x), np.asarray(jax.jacfwd(f)(x))
    assert_allclose(J.solve(b, tolerance=1e-12), np.linalg.solve(A, b), rtol=1e-8)
    assert_allclose(J.T.solve(b, tolerance=1e-12), np.linalg.solve(A.T, b), rtol=1e-8)
    assert_allclose(J.slogdet(), np.linalg.slogdet(A), rtol=1e-9)
    assert_allclose(J.lstsq(b), np.linalg.solve(A, b), rtol=1e-8)
    got = jax.grad(lambda x: cr.linearize(f)(x).solve(b, tolerance=1e-13).sum())(x)
    want = jax.grad(lambda x: jnp.linalg.solve(jax.jacfwd(f)(x), b).sum())(x)
    assert_allclose(got, want, rtol=1e-6)
    for refused in (J.factorize, J.inverse, lambda: J.solve(b, method="klu")):
        with pytest.raises(cr.ChainruleError, match=r"needs entries.*matrix-free.*gmres"):
            refused()


# least squares and spaces ------------------------------------------------------------------------


def chain(x):
    """Differences and values, 599×300: sparse, tall, of full rank."""
    return jnp.concatenate([jnp.diff(x) * x[1:], x**2 + x])


@pytest.mark.parametrize("transposed", [False, True], ids=["tall", "wide"])
@pytest.mark.parametrize("f", [lambda x: jnp.asarray(random(8, 5)) @ jnp.sin(x), chain], ids=["dense", "sparse"])
def test_least_squares(f, transposed):
    n = 300 if f is chain else 5
    J = cr.jacobian(f)(point(n))
    A = np.asarray(jax.jacfwd(f)(point(n)))
    J, A = (J.T, A.T) if transposed else (J, A)
    b, B = random(len(A)), random(len(A), 3)
    assert_allclose(J.lstsq(b), np.linalg.lstsq(A, b)[0], atol=1e-9)
    assert_allclose(jax.jit(lambda J, B: J.lstsq(B))(J, B), np.linalg.lstsq(A, B)[0], atol=1e-9)
    assert_allclose(J.lstsq(b + 1j * B[:, 0]), np.linalg.lstsq(A, b + 1j * B[:, 0])[0], atol=1e-9)
    assert J.rank() == J.structural_rank == min(A.shape)
    assert J.is_injective() == (not transposed)
    assert J.is_surjective() == transposed
    assert not J.is_invertible()


def test_the_derivative_of_least_squares():
    b, w = random(599), random(300, seed=1)
    got = jax.jit(jax.grad(lambda x: w @ cr.jacobian(chain)(x).lstsq(b)))(point(300))

    def dense(x):
        A = jax.jacfwd(chain)(x)
        return w @ jnp.linalg.solve(A.T @ A, A.T @ b)

    assert_allclose(got, jax.jit(jax.grad(dense))(point(300)), atol=1e-8)


def test_least_squares_of_too_low_a_rank():
    def f(x):  # dense: the shortest of the best
        return jnp.stack([x[0] + x[1], 2 * x[0] + 2 * x[1], 0 * x[2]])

    J = cr.jacobian(f)(point(3))
    assert_allclose(J.lstsq(random(3)), np.linalg.lstsq(np.asarray(J.dense()), random(3))[0], atol=1e-12)

    def g(x):  # sparse: the first column occurs twice
        return chain(x[:300].at[0].add(x[300]))

    with pytest.raises(cr.SingularError, match="lstsq"):
        cr.jacobian(g)(point(301)).lstsq(random(599))


def test_null_space_and_range():
    def f(x):
        return jnp.diff(jnp.append(x, x[0]))  # sums to nothing, and constants go to 0

    J = cr.jacobian(f)(point(6))
    kernel, image = J.null_space(), J.range()
    assert J.rank() == 5
    assert J.cond() > 1e14
    assert kernel.shape == (6, 1)
    assert_allclose(kernel, np.full((6, 1), np.sign(kernel[0, 0]) / np.sqrt(6)), atol=1e-12)
    assert image.shape == (6, 5)
    assert_allclose(image.T @ image, np.eye(5), atol=1e-12)
    assert_allclose(image.sum(0), np.zeros(5), atol=1e-12)
    assert jax.jit(lambda J: J.null_space(1))(J).shape == (6, 1)
    with pytest.raises(cr.ChainruleError, match=r"null_space: inside jit.*dimension=k"):
        jax.jit(lambda J: J.null_space())(J)


# Krylov ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preconditioner", [None, "diagonal", "banded", "triangular", lambda v: v / 1.4])
@pytest.mark.parametrize("method", ["gmres", "bicgstab"])
def test_krylov(method, preconditioner):
    J, A = jacobian_of("sparse"), dense_of("sparse")
    b = random(288)
    x = J.solve(b, method=method, preconditioner=preconditioner, tolerance=1e-10)
    assert_allclose(x, np.linalg.solve(A, b), atol=1e-7)


@pytest.mark.parametrize("transform", [cr.jacobian, cr.linearize])
def test_a_krylov_method_is_compiled_once_for_all_values(transform, caplog):
    of = transform(lambda x: 4 * x + x**3 - jnp.roll(x, 1))
    first, second = of(point(5)), of(2 * point(5))
    with jax.log_compiles():
        first.solve(random(5), method="bicgstab", tolerance=1e-10)
        assert "Compiling" in caplog.text
        caplog.clear()
        x = second.solve(2 * random(5), method="bicgstab", tolerance=np.float64(1e-10))
    assert "Compiling" not in caplog.text
    assert_allclose(second @ x, 2 * random(5), atol=1e-8)


@pytest.mark.parametrize("around", [jax.jit, jax.vmap])
def test_options_of_a_krylov_method_may_be_traced(around):
    J, b = jacobian_of("dense"), random(9)

    def solved(tolerance, scale):
        return J.solve(b, method="gmres", tolerance=tolerance, preconditioner=lambda v: v / scale)

    given = jnp.full(2, 1e-10), jnp.full(2, 3.0)
    x = around(solved)(*(given if around is jax.vmap else (a[0] for a in given)))
    assert_allclose(x, np.broadcast_to(np.linalg.solve(dense_of("dense"), b), x.shape), atol=1e-7)


@pytest.mark.parametrize("around", [lambda f: f, jax.jit, jax.vmap])
def test_gmres_goes_on_only_where_bicgstab_stops_short(around, monkeypatch):
    runs, gmres = [], jax.scipy.sparse.linalg.gmres

    def counted(A, b, x, **options):
        jax.debug.callback(lambda _: runs.append(1), b)
        return gmres(A, b, x, **options)

    monkeypatch.setattr(jax.scipy.sparse.linalg, "gmres", counted)
    b = random(2, 6) if around is jax.vmap else random(6)
    turned = jnp.asarray(np.kron(np.array([[0.0, 1.0], [-1.0, 0.0]]), np.diag([1.0, 2.0, 3.0])))
    for A, some in [(jnp.eye(6) + 0.1 * turned, False), (turned, True)]:  # of the second BiCGStab breaks down
        J = cr.linearize(lambda x, A=A: A @ x)(jnp.zeros(6))
        x = around(lambda b, J=J: J.solve(b, tolerance=1e-9))(b)
        assert_allclose(x, np.linalg.solve(A, b.T).T, atol=1e-8)
        jax.effects_barrier()
        assert bool(runs) is some


def test_conjugate_gradients():
    def f(x):  # a gradient: its Jacobian is symmetric
        return x + x**3 + jnp.convolve(x, jnp.array([-0.4, 0.9, -0.4]), mode="same")

    J, b = cr.jacobian(f)(point(50)), random(50, 2)
    x = jax.jit(lambda J, b: J.solve(b, method="cg", preconditioner="diagonal", tolerance=1e-12))(J, b)
    assert_allclose(x, np.linalg.solve(jax.jacfwd(f)(point(50)), b), atol=1e-9)


def test_a_preconditioner_in_another_dtype():
    J = cr.jacobian(reaction_diffusion)(point(288, np.float32))
    x = J.solve(random(288), method="gmres", preconditioner="banded", tolerance=1e-6)
    assert x.dtype == np.float64
    assert_allclose(x, np.linalg.solve(dense_of("sparse"), random(288)), atol=1e-4)


def test_a_krylov_method_that_does_not_converge():
    J, b = jacobian_of("sparse"), random(288)
    options = {"method": "bicgstab", "tolerance": 1e-14, "max_steps": 1}
    with pytest.raises(cr.SingularError, match="Krylov method"):
        J.solve(b, **options)
    assert np.isnan(jax.jit(lambda J, b: J.solve(b, **options))(J, b)).all()


# KLU ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sparse", "blocks", "banded, swaps", "permuted triangular"])
def test_klu(name):
    pytest.importorskip("klujax")
    f, n = SYSTEMS[name][:2]
    J, A, b, B = jacobian_of(name), dense_of(name), random(n), random(n, 2)
    assert_allclose(J.solve(b, method="klu"), np.linalg.solve(A, b), atol=1e-9)
    assert_allclose(jax.jit(lambda J, B: J.T.solve(B, method="klu"))(J, B), np.linalg.solve(A.T, B), atol=1e-9)
    got = jax.grad(lambda x: b @ cr.jacobian(f)(x).solve(B[:, 0], method="klu"))(point(n))
    want = jax.grad(lambda x: b @ jnp.linalg.solve(by_jax(f)(x), B[:, 0]))(point(n))
    assert_allclose(got, want, atol=1e-8)
    x = cr.jacobian(f)(point(n, np.float32)).solve(b.astype(np.float32), method="klu")
    assert x.dtype == np.float32
    assert_allclose(x, np.linalg.solve(A, b), atol=1e-3)


def test_klu_of_a_singular_matrix():
    pytest.importorskip("klujax")
    with pytest.raises(cr.SingularError):
        cr.jacobian(lambda x: x**2)(jnp.array([1.0, 0.0, 2.0])).solve(np.ones(3), method="klu")


def test_klu_needs_float64():
    pytest.importorskip("klujax")
    with jax.enable_x64(False):
        J = cr.jacobian(lambda x: x**2)(jnp.array([1.0, 2.0]))
        with pytest.raises(cr.InputTypeError, match="float64"):
            J.solve(jnp.ones(2), method="klu")
        assert J.solve(jnp.ones(2)).dtype == np.float32
    assert jax.config.read("jax_enable_x64")


# the scans over a band ---------------------------------------------------------------------------


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    ("lower", "upper", "diagonal"), [(1, 1, 4.0), (1, 1, 0.0), (2, 1, 0.0), (1, 3, 1e-9), (3, 0, 1.0), (0, 2, 1.0)]
)
def test_the_scan_is_lu_with_pivoting(lower, upper, diagonal, transposed):
    n = 40
    A = np.triu(np.tril(random(n, n), upper), -lower)
    np.fill_diagonal(A, diagonal)
    rows, cols = np.nonzero(np.triu(np.tril(np.ones((n, n)), upper), -lower))
    method = Banded(Places(rows, cols, (n, n)))
    low = upper if transposed else lower
    factors = _scan_factor(method.band(jnp.asarray(A[rows, cols]), transposed), low)
    b, M = random(n, 2), A.T if transposed else A
    want = np.linalg.solve(M, b)
    assert_allclose(_scan_solve(factors, jnp.asarray(b), low), want, rtol=0, atol=1e-11 * np.linalg.cond(M))
    if diagonal < 1 and low:
        assert (factors[2] > 0).any()  # rows were swapped
    sign, log = np.linalg.slogdet(M)
    pivots = np.asarray(factors[0][:, 0])
    assert_allclose(np.log(np.abs(pivots)).sum(), log, atol=1e-8)
    assert np.prod(np.sign(pivots)) * (-1) ** int((factors[2] > 0).sum()) == sign


def test_the_scan_of_a_singular_band():
    rows, cols = np.nonzero(np.triu(np.tril(np.ones((9, 9)), 1), -1))
    method = Banded(Places(rows, cols, (9, 9)))
    pivots = _scan_factor(method.band(jnp.asarray(np.where(cols == 4, 0.0, random(25)))), 1)[0][:, 0]
    assert np.isfinite(pivots).all()
    assert (pivots == 0).any()


# refusals ----------------------------------------------------------------------------------------


def test_no_values_can_make_up_for_these_zeros():
    J = cr.jacobian(lambda x: jnp.stack([x[0], x[0] ** 2, x[1] * x[2]]))(point(3))
    assert J.structural_rank == 2
    for refused in (lambda: J.solve(np.ones(3)), J.factorize, J.inverse, lambda: J.solve(np.ones(3), method="gmres")):
        with pytest.raises(cr.SingularError, match="structural rank 2 < 3"):
            refused()
    assert J.det() == 0
    assert tuple(map(float, J.slogdet())) == (0, -np.inf)
    assert J.rank() == 2
    assert not J.is_invertible()
    assert_allclose(J.lstsq(np.ones(3)), np.linalg.lstsq(np.asarray(J.dense()), np.ones(3))[0], atol=1e-12)


def _with_a_row_of_zeros(name):
    """The values of a system, but in the longest row, whose values happen to be zeros."""
    n = SYSTEMS[name].n
    rows, cols, values = jacobian_of(name).coo()
    flat = rows == np.argmax(np.bincount(rows))
    return cr.jacobian(
        lambda x: jnp.zeros(n).at[rows].add(jnp.where(flat, x[cols] ** 2, values * jnp.sin(x)[cols])),
    )(jnp.zeros(n))


@pytest.mark.parametrize(
    "name",
    [
        *("diagonal", "tridiagonal", "banded", "blocks", "large blocks", "lower triangular", "sparse upper"),
        *("block-triangular", "deep block-triangular", "sparse", "dense"),
    ],
)
def test_a_row_of_zeros(name):
    J = _with_a_row_of_zeros(name)
    b = random(SYSTEMS[name].n)
    for refused in (lambda: J.solve(b), lambda: J.factorize().solve(b), lambda: J.T.solve(b), J.inverse):
        with pytest.raises(cr.SingularError, match="singular to working precision"):
            refused()
    assert np.isnan(jax.jit(lambda J, b: J.solve(b))(J, b)).any()
    assert J.slogdet()[1] == -np.inf
    assert J.det() == 0


def test_dependent_rows():
    def f(x):  # rounding keeps the pivots away from 0
        return jnp.asarray(np.outer(random(6), random(6, seed=1)) + np.outer(random(6, seed=2), random(6, seed=3))) @ x

    J = cr.jacobian(f)(point(6))
    assert J.rank() == 2
    with pytest.raises(cr.SingularError):
        J.solve(random(6, seed=4))


def test_nan_in_is_nan_out():
    J = cr.jacobian(lambda x: x**2)(jnp.array([1.0, jnp.nan]))
    assert np.isnan(J.solve(np.ones(2))).any()


def test_shapes_that_do_not_fit():
    wide = cr.jacobian(lambda x: x[1:] * x[:-1])(point(3))
    for what in ("solve", "factorize", "slogdet", "det", "inverse"):
        with pytest.raises(cr.ShapeError, match=rf"{what}: J_<lambda> : 2×3 .*is not square"):
            getattr(wide, what)(*([np.ones(2)] if what == "solve" else []))
    J = cr.jacobian(lambda x: x**2)(point(3))
    for run in (J.solve, J.lstsq, J.factorize().solve):
        with pytest.raises(cr.ShapeError, match=r"b has shapes \[\(2,\)\]\. Give the outputs' pytree, a flat \(3,\)"):
            run(np.ones(2))
    batch = jax.vmap(cr.jacobian(lambda x: x**2))(jnp.ones((4, 3)))
    with pytest.raises(cr.ShapeError, match="needs the batch of"):
        batch.solve(np.ones(3))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "magic"}, "method='magic' is none of 'auto', 'klu', 'cg', 'gmres', 'bicgstab'"),
        ({"tolerance": 1e-3}, "method='auto' is direct"),
        ({"method": "klu", "preconditioner": "diagonal"}, "method='klu' is direct"),
        ({"method": "gmres", "preconditioner": "magic"}, "preconditioner='magic' is none of"),
    ],
)
def test_options_that_do_not_fit(options, says):
    with pytest.raises(cr.InputTypeError, match=says):
        jacobian_of("diagonal").solve(np.ones(7), **options)


# any pattern -------------------------------------------------------------------------------------


@st.composite
def patterns(draw):
    """Places of full structural rank: a permutation, and others."""
    n = draw(st.integers(1, 12))
    mask = np.eye(n, dtype=bool)[draw(st.permutations(range(n)))]
    for i, j in draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=3 * n)):
        mask[i, j] = True
    return mask


@settings(max_examples=6)
@given(mask=patterns(), seed=st.integers(0, 99))
def test_any_pattern(mask, seed):
    n = len(mask)
    f = of_places(np.nonzero(mask), n, seed)
    J, A = cr.jacobian(f)(point(n)), np.asarray(jax.jacfwd(f)(point(n)))
    assert J.structural_rank == n
    if np.linalg.cond(A) < 1e8:
        b = random(n, 2)
        assert_allclose(J.solve(b), np.linalg.solve(A, b), rtol=1e-6, atol=1e-9)
        assert_allclose(J.factorize().T.solve(b), np.linalg.solve(A.T, b), rtol=1e-6, atol=1e-9)
        assert_allclose(J.slogdet(), np.linalg.slogdet(A), atol=1e-9)


@pytest.mark.parametrize("size", [60, 400])
@pytest.mark.parametrize("order", ["as it is", "turned", "permuted"])
def test_a_recursion_that_grows_is_solved_by_substitution(order, size):
    """x_{i+1} = 2 x_i + b_i: every digit of x is right, although the condition number is 2^size."""
    shuffled = np.random.default_rng(3).permutation(size)

    def f(x):
        x = x[shuffled] if order == "permuted" else x
        return x - 2 * jnp.pad(x[:-1], (1, 0))

    J = cr.jacobian(f)(jnp.ones(size))
    b = jnp.ones(size)
    expected = 2.0 ** np.arange(1, size + 1) - 1
    if order == "turned":
        assert_allclose(J.T.solve(b), expected[::-1], rtol=1e-12)
    elif order == "permuted":
        assert_allclose(J.solve(b)[shuffled], expected, rtol=1e-12)
    else:
        assert_allclose(J.solve(b), expected, rtol=1e-12)


def test_a_zero_on_the_diagonal_of_a_triangle_is_refused():
    J = cr.jacobian(lambda x: jnp.cumsum(x**2))(jnp.ones(6).at[3].set(0))
    with pytest.raises(cr.SingularError, match="singular to working precision"):
        J.solve(jnp.ones(6))
    assert np.isnan(jax.jit(lambda J, b: J.solve(b))(J, jnp.ones(6))).all()
