"""Where linear algebra by structure could go wrong without a word."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import chainrule as cr


def test_a_product_that_loses_its_structural_rank_between_the_factors():
    A = cr.jacobian(lambda x: jnp.stack([x[0] ** 2, x[1] ** 2, x[2] ** 2, jnp.sin(x[2])]), order="factored")
    B = cr.jacobian(lambda y: jnp.stack([y[2] ** 2, y[3] ** 2, y[0] ** 2]), order="factored")
    J = B(jnp.arange(1.0, 5)) @ A(jnp.arange(1.0, 4))
    for refused in (lambda: J.solve(jnp.ones(3)), J.inverse, J.factorize):
        with pytest.raises(cr.SingularError, match="structural rank"):
            refused()


def test_a_real_factor_takes_both_parts_of_a_complex_right_hand_side():
    J = 1j * cr.jacobian(lambda x: jnp.cumsum(jnp.sin(jnp.cumsum(x))) ** 2, order="factored")(jnp.arange(1.0, 5))
    b = jax.lax.complex(jnp.ones(4), jnp.full(4, 2.0))
    assert_allclose(J.solve(b), np.linalg.solve(J.dense(), b), rtol=1e-12)


def test_a_zero_in_one_of_several_triangles_is_not_filled_by_pivots():
    def f(x):
        parts = [(0.7 * a, 0.1 * a + b**2 / 2, 3 * a + 5 * b + 7 * c) for a, b, c in (x[:3], x[3:])]
        return jnp.stack([v for part in parts for v in part])

    with pytest.raises(cr.SingularError):
        cr.jacobian(f)(jnp.array([1.0, 0, 1, 1, 1, 1])).solve(jnp.arange(1.0, 7))


@pytest.mark.parametrize("seed", range(6))
def test_a_zero_in_a_one_sided_band_makes_its_determinant_vanish(seed):
    rng = np.random.default_rng(seed)
    diagonal, first, second = rng.uniform(1, 2, 150), 1.5 * rng.normal(size=150), 1.5 * rng.normal(size=150)
    diagonal[50] = 0

    def f(x):
        later = first * jnp.pad(x[:-1], (1, 0)) + second * jnp.pad(x[:-2], (2, 0))
        return x**2 / 2 + later

    J = cr.jacobian(f)(jnp.asarray(diagonal))
    assert J.det() == 0
    with pytest.raises(cr.SingularError):
        J.solve(jnp.ones(150))


def test_the_phase_of_a_complex_determinant_has_a_derivative():
    def log_det(t):
        main = jax.lax.complex(jnp.full(120, 3.0), jnp.full(120, t))

        def f(x):
            side = jnp.pad(x[:-1], (1, 0)) + jnp.pad(x[1:], (0, 1))
            return main * x + side * jax.lax.complex(t, 0.0)

        return cr.jacobian(f, holomorphic=True)(jnp.ones(120, complex)).slogdet()

    t, h = jnp.asarray(0.3), 1e-6
    (sign, _), (dsign, dlog) = jax.jvp(log_det, (t,), (jnp.ones(()),))
    (s1, l1), (s0, l0) = log_det(t + h), log_det(t - h)
    assert_allclose(dlog, (l1 - l0) / (2 * h), rtol=1e-6)
    assert_allclose(dsign, (s1 - s0) / (2 * h), rtol=1e-5)
    assert_allclose(abs(sign), 1)


def test_where_a_solve_is_nan_its_gradient_is_too():
    M = jnp.array([[0.1, 0.2, 0.7], [0.3, 0.6, 0.9], [0.4, 0.8, 1.6]])
    gradient = jax.grad(lambda b: cr.jacobian(lambda x: M @ x)(jnp.ones(3)).solve(b).sum())(jnp.ones(3))
    assert np.isnan(gradient).all()


def test_the_preconditioner_of_a_transposed_solve_is_transposed():
    M = jnp.asarray(np.tril(np.random.default_rng(0).normal(size=(60, 60)), -1) / 8 + 2 * np.eye(60))

    def through(x, **options):
        return jnp.sum(cr.jacobian(lambda x: M @ (x**3))(x).solve(jnp.ones(60), **options) ** 2)

    x = jnp.linspace(1, 2, 60)
    own = jax.grad(lambda x: through(x, method="gmres", preconditioner="triangular", max_steps=2, tolerance=1e-9))(x)
    assert_allclose(own, jax.grad(through)(x), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("tiny", [1e-20, 1e-14, 1e-9, 1e-3])
def test_the_determinant_of_an_update_that_a_small_pivot_hides(tiny):
    first, second = jnp.asarray(np.random.default_rng(1).normal(size=(2, 40)))
    d = jnp.ones(40).at[0].set(tiny)

    def f(x):
        return d * x + first * jnp.sum(second * x) + jnp.cos(first) * jnp.sum(jnp.sin(second) * x)

    J = cr.jacobian(f, order="factored")(jnp.ones(40))
    assert J.factors[0].structure.kind == "diagonal + low rank"
    assert_allclose(J.slogdet(), np.linalg.slogdet(jax.jacfwd(f)(jnp.ones(40))), rtol=1e-9)


def test_small_things():
    assert cr.jacobian(lambda x: jnp.sin(x))(jnp.ones(3)).solve(jnp.zeros((3, 0))).shape == (3, 0)
    assert np.isinf(cr.jacobian(lambda x: 0 * x)(jnp.ones(3)).cond())
    a = np.arange(1.0, 100)
    J = cr.jacobian(lambda x: jnp.concatenate([a * x[:-1], x[:1] ** 2]))(jnp.ones(100))
    assert J.nnz == 100
    assert J[99, 0] == 2


# least squares -----------------------------------------------------------------------------------

TOWARDS = jnp.asarray(np.random.default_rng(2).normal(size=(4, 6, 6)))


@pytest.mark.parametrize("shape", [(4, 4), (6, 3), (3, 6)], ids=["square", "tall", "wide"])
def test_least_squares_has_a_derivative_where_singular_values_coincide(shape):
    m, n = shape
    base = jnp.tile(jnp.eye(min(shape)), (m // min(shape), n // min(shape)))
    b, w = np.arange(1.0, m + 1), np.cos(np.arange(n))

    def matrix(t):
        return base + jnp.tensordot(t, TOWARDS[:, :m, :n], 1)

    def ours(t):
        return w @ cr.jacobian(lambda x: matrix(t) @ x)(jnp.ones(n)).lstsq(b)

    def plain(t):
        A = matrix(t)
        return w @ (jnp.linalg.solve(A.T @ A, A.T @ b) if m >= n else A.T @ jnp.linalg.solve(A @ A.T, b))

    t = jnp.zeros(4)
    assert_allclose(jax.grad(ours)(t), jax.grad(plain)(t), rtol=1e-9)


# half precision ----------------------------------------------------------------------------------


def _half_precision():
    M = np.random.default_rng(0).normal(size=(6, 6)) + 4 * np.eye(6)

    def mix(x):
        return jnp.asarray(M, x.dtype) @ x

    def apart(x):
        return (x.reshape(3, 2) @ jnp.asarray(M[:2, :2], x.dtype)).reshape(-1)

    return {"dense": mix, "diagonal": lambda x: x**2, "blocks": apart, "tall": lambda x: jnp.concatenate([mix(x), x])}


HALF = _half_precision()


@jax.jit
def _numbers(J, b):
    return {"lstsq": J.lstsq(b), "stretch": J.singular_values(), "range": J.range(6), "kernel": J.null_space(0)}


@pytest.mark.parametrize(("name", "dtype"), [("dense", "float16"), *((name, "bfloat16") for name in HALF)])
def test_what_lapack_has_no_half_precision_for(name, dtype):
    x = jnp.linspace(0.5, 1, 6).astype(dtype)
    J = cr.jacobian(HALF[name])(x)
    A, b = np.asarray(J.dense()).astype(float), np.arange(1.0, J.shape[0] + 1)
    got = _numbers(J, jnp.asarray(b, dtype))
    assert {a.dtype for a in got.values()} == {np.dtype(dtype)}
    got = {key: np.asarray(a).astype(float) for key, a in got.items()}
    assert_allclose(got["lstsq"], np.linalg.lstsq(A, b)[0], rtol=0.05, atol=0.01)
    assert_allclose(got["stretch"], np.linalg.svd(A)[1], rtol=0.02)
    assert_allclose(got["range"] @ got["range"].T @ A, A, rtol=0.05, atol=0.05)
    assert J.rank() == 6
    if len(A) == 6:
        assert J.slogdet()[1].dtype == np.float32


@pytest.mark.parametrize("transform", [cr.jacobian, cr.linearize])
def test_a_krylov_method_in_half_precision(transform):
    J, b = transform(HALF["dense"])(jnp.ones(6, "float16")), np.arange(1.0, 7)
    x = J.solve(jnp.asarray(b, "float16"), method="gmres")
    assert x.dtype == np.float16
    assert_allclose(x.astype(float), np.linalg.solve(np.asarray(J.dense()).astype(float), b), rtol=0.05, atol=0.01)


def test_sparse_least_squares_in_half_precision():
    x = jnp.linspace(1, 2, 150).astype("bfloat16")
    J = cr.jacobian(lambda x: jnp.concatenate([x**2, x[1:] - x[:-1]]))(x)
    b = np.ones(299)
    wanted = np.linalg.lstsq(np.asarray(J.dense()).astype(float), b)[0]
    assert_allclose(J.lstsq(jnp.asarray(b, "bfloat16")).astype(float), wanted, rtol=0.02, atol=0.01)


# what is given -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda J: J.solve(np.array(["a", "b", "c"])), r"solve: b holds a ndarray of <U1, not an array of numbers"),
        (lambda J: J.lstsq(np.array([1, None, 2], object)), "lstsq: b holds a ndarray of object"),
        (lambda J: J.factorize().solve("abc"), "solve: b holds a str"),
        (lambda J: J.solve(np.ones(3), method="gmres", tolerance=np.nan), "tolerance=nan is no number from 0 on"),
        (lambda J: J.solve(np.ones(3), method="cg", tolerance="a"), "tolerance='a' is no number from 0 on"),
        (lambda J: J.solve(np.ones(3), method="cg", tolerance=-1.0), "tolerance=-1.0 is no number from 0 on"),
        (lambda J: J.solve(np.ones(3), method="cg", max_steps=0), "max_steps=0 is no number of steps"),
        (lambda J: J.solve(np.ones(3), method="cg", max_steps="a"), "max_steps='a' is no number of steps"),
        (lambda J: J.solve(np.ones(3), method="cg", preconditioner=[1]), r"preconditioner=\[1\] is none of 'diagonal'"),
        (lambda J: J.rank("a"), "rank: tolerance='a' is no number from 0 on"),
        (lambda J: J.null_space(4), "null_space: dimension=4 is no count from 0 to 3"),
        (lambda J: J.null_space(-1), "null_space: dimension=-1 is no count from 0 to 3"),
        (lambda J: J.range(1.0), "range: dimension=1.0 is no count from 0 to 3"),
        (lambda J: J.lineax("symmetric"), "lineax: 'symmetric' is a string, no tag"),
        (lambda _: cr.StructuredSolver(tolerance=1e-3), "StructuredSolver: method='auto' is direct"),
        (lambda _: cr.StructuredSolver(method="cg", preconditioner="lu"), "preconditioner='lu' is none of 'diagonal'"),
    ],
)
def test_what_is_no_number_and_no_option_is_refused(ask, says):
    J = cr.jacobian(lambda x: x**3 + jnp.cumsum(x))(jnp.arange(1.0, 4))
    with pytest.raises(cr.InputTypeError, match=says):
        ask(J)


@pytest.mark.parametrize("method", ["gmres", "cg", "bicgstab", "klu"])
def test_no_unknowns_by_any_method(method):
    J = cr.jacobian(jnp.sin)(jnp.ones(0))
    assert J.solve(jnp.ones(0), method=method).shape == (0,)
    assert J.solve(jnp.ones((0, 2)), method=method).shape == (0, 2)
    assert cr.linearize(jnp.sin)(jnp.ones(0)).solve(jnp.ones(0)).shape == (0,)
