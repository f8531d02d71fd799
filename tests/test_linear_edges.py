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
