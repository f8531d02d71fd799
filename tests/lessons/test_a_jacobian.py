"""What a Jacobian is: shapes, entries, the best linear map, the structure of elementary maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from largest import largest_array

import chainrule as cr

RNG = np.random.default_rng(0)


def f(x):
    return jnp.stack([x[0] ** 2 + x[1], x[0] * x[1]])


@pytest.mark.parametrize(
    ("point", "J", "rank", "det"), [((1.0, 2.0), [[2, 1], [2, 1]], 1, 0), ((1.0, 0.0), [[2, 1], [0, 1]], 2, 2)]
)
def test_a1_stacked_scalar_functions(point, J, rank, det):
    got = cr.jacobian(f)(jnp.array(point))
    np.testing.assert_array_equal(got.dense(), J)
    assert np.linalg.matrix_rank(got.dense()) == rank
    assert np.linalg.det(got.dense()) == pytest.approx(det)
    for i in range(2):  # row i is the gradient of output i, column j the effect of input j
        np.testing.assert_array_equal(got.row(i), cr.gradient(lambda x, i=i: f(x)[i])(jnp.array(point)))
        np.testing.assert_array_equal(got.col(i), cr.pushforward(f)(jnp.array(point), jnp.eye(2)[i]))
    assert got[1, 0] == J[1][0]


def test_a2_scalar_output_is_one_row_scalar_in_and_out_a_number():
    row = cr.jacobian(lambda x: (x**2).sum())(jnp.arange(3.0))
    assert row.shape == (1, 3)
    np.testing.assert_array_equal(row.row(0), cr.gradient(lambda x: (x**2).sum())(jnp.arange(3.0)))
    number = cr.jacobian(jnp.sin)(jnp.array(0.5))
    assert number.shape == (1, 1)
    assert number[0, 0] == jnp.cos(0.5)


def test_a3_linear_map_is_its_matrix_and_affine_has_no_remainder():
    A, b = RNG.normal(size=(4, 3)), RNG.normal(size=4)
    for x in RNG.normal(size=(3, 3)):
        J = cr.jacobian(lambda x: A @ x + b)(x)
        np.testing.assert_array_equal(J.dense(), A)
        d = RNG.normal(size=3)
        np.testing.assert_allclose(A @ (x + d) + b - (A @ x + b) - J @ d, 0, atol=1e-14)


def test_a4_remainder_falls_faster_than_the_step():
    def g(x):
        return jnp.exp(x[:2]) * jnp.sin(x[1:])

    x, d = jnp.asarray(RNG.normal(size=3)), jnp.asarray(RNG.normal(size=3))
    J = cr.jacobian(g)(x)
    ratios = [float(jnp.linalg.norm(g(x + h * d) - g(x) - J @ (h * d)) / h) for h in (1e-2, 1e-3, 1e-4)]
    assert ratios[0] / ratios[1] == pytest.approx(10, rel=0.2)
    assert ratios[1] / ratios[2] == pytest.approx(10, rel=0.2)


def test_a5_partials_may_exist_where_f_is_not_differentiable():
    def g(v):
        below = v[0] ** 2 + v[1] ** 2
        return jnp.where(below > 0, v[0] * v[1] / jnp.where(below > 0, below, 1.0), 0.0)

    report = cr.check(g)(jnp.zeros(2))
    named = {d.name: d for d in report.directions}
    assert [named[f"coordinate {j}"].status for j in (0, 1)] == ["smooth", "smooth"]  # both partials exist
    assert not report.ok and report.findings[0].kind == "jump"
    assert "along random direction" in report.findings[0].message and "order 0.00" in report.findings[0].message


@pytest.mark.parametrize("g", [jax.nn.sigmoid, jnp.tanh, jax.nn.relu])
def test_a6_elementwise_is_diagonal_and_stored_as_n_numbers(g):
    x = jnp.asarray(RNG.normal(size=50))
    J = cr.jacobian(g)(x)
    assert str(J.structure) == "diagonal"
    assert J.nnz == 50 and sum(leaf.size for leaf in jax.tree.leaves(J)) <= 50
    np.testing.assert_allclose(J.diagonal(), jax.vmap(jax.grad(g))(x))


@pytest.mark.parametrize("n", [2, 5, 1000])
def test_a7_softmax(n):
    z, g = jnp.asarray(RNG.normal(size=n)), jnp.asarray(RNG.normal(size=n))
    s, J = jax.nn.softmax(z), cr.jacobian(jax.nn.softmax)(z)
    np.testing.assert_allclose(J.dense(), jnp.diag(s) - jnp.outer(s, s), atol=1e-15)
    np.testing.assert_allclose(J.dense().sum(0), 0, atol=1e-14)
    np.testing.assert_allclose(J @ jnp.ones(n), 0, atol=1e-14)
    assert np.linalg.matrix_rank(J.dense()) == n - 1  # the kernel is spanned by (1, …, 1)
    # the pullback costs O(n): no array of n² elements is in its program
    pulled = cr.pullback(jax.nn.softmax)
    np.testing.assert_allclose(pulled(z, g), s * g - s * (s @ g), atol=1e-14)
    assert largest_array(pulled, z, g) <= n
    assert largest_array(lambda z: cr.jacobian(jax.nn.softmax)(z).dense(), z) >= n * n  # what the count would see


def test_a8_relu_layer_has_zero_rows_where_units_are_dead():
    W, b, x = RNG.normal(size=(6, 4)), RNG.normal(size=6), jnp.asarray(RNG.normal(size=4))
    z = W @ x + b
    J = cr.jacobian(lambda x: jax.nn.relu(W @ x + b))(x)
    np.testing.assert_allclose(J.dense(), np.diag((z > 0).astype(float)) @ W)
    assert [i for i in range(6) if not J.row(i).any()] == list(np.flatnonzero(z <= 0))
    # dead for a known reason: the structure itself has no entries there
    masked = cr.jacobian(lambda x: jnp.where(np.arange(6) < 2, W @ x, 0.0))(x)
    assert set(masked.coo()[0]) == {0, 1}


@pytest.mark.parametrize(
    ("point", "rank", "det", "kernel", "image"),
    [((1.0, 2.0), 1, 0.0, [[1.0, -2.0]], [[1.0, 1.0]]), ((1.0, 0.0), 2, 2.0, [], [[1.0, 0.0], [0.0, 1.0]])],
    ids=["where it folds", "where it is a local diffeomorphism"],
)
def test_a9_rank_kernel_and_image_at_the_two_points_of_a1(point, rank, det, kernel, image):
    J = cr.jacobian(f)(jnp.array(point))
    assert J.rank() == rank and float(J.det()) == pytest.approx(det, abs=1e-12)
    assert bool(J.is_injective()) == bool(J.is_surjective()) == bool(J.is_invertible()) == (rank == 2)
    assert spans_equal(J.null_space(), kernel, 2) and spans_equal(J.range(), image, 2)


def spans_equal(basis, vectors, size):
    """Whether an orthonormal basis [size, k] spans what the vectors do: equal projections."""
    Q = np.linalg.qr(np.reshape(vectors, (-1, size)).T)[0]
    return basis.shape == Q.shape and np.allclose(basis @ basis.T, Q @ Q.T, atol=1e-12)


@pytest.mark.parametrize(
    ("m", "n", "rank"),
    [(5, 3, 3), (3, 5, 3), (4, 4, 4), (4, 4, 2), (5, 3, 1), (3, 5, 2)],
    ids=["tall", "wide", "square", "singular", "tall and deficient", "wide and deficient"],
)
def test_a9_full_rank_is_the_smaller_size(m, n, rank):
    A = RNG.normal(size=(m, rank)) @ RNG.normal(size=(rank, n))
    J = cr.jacobian(lambda x: A @ jnp.sin(x))(jnp.zeros(n))
    assert J.rank() == rank <= min(m, n)
    assert bool(J.is_injective()) == (rank == n)  # full column rank: never where m < n
    assert bool(J.is_surjective()) == (rank == m)  # full row rank: never where m > n
    assert bool(J.is_invertible()) == (rank == m == n)
    kernel, image = J.null_space(), J.range()
    assert kernel.shape == (n, n - rank) and image.shape == (m, rank)  # the dimensions add up to n
    np.testing.assert_allclose(J @ kernel, 0, atol=1e-12)
    np.testing.assert_allclose(image @ (image.T @ A), A, atol=1e-12)
    for basis in (kernel, image):
        np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-12)


def test_a9_where_j_is_invertible_so_is_f_nearby():
    x = jnp.array([1.0, 0.0])
    for change in 0.05 * RNG.normal(size=(5, 2)):
        target = f(x) + change
        found = cr.newton(lambda x, y: f(x) - y, x, target)
        assert found.converged
        np.testing.assert_allclose(f(found.x), target, atol=1e-10)
        assert jnp.linalg.norm(found.x - x) < 0.5
    with pytest.raises(cr.SingularError, match="singular to working precision"):
        cr.jacobian(f)(jnp.array([1.0, 2.0])).solve(jnp.array([1.0, 0.0]))


def test_a10_shapes_compose_and_a_clash_names_both():
    def inner(x):
        return x[:2] * x[2]

    def outer(u):
        return jnp.outer(u, u).ravel()

    x = jnp.asarray(RNG.normal(size=3))
    assert (cr.jacobian(outer)(inner(x)) @ cr.jacobian(inner)(x)).shape == (4, 3)
    with pytest.raises(cr.ShapeError, match=r"outer takes 3 inputs, inner gives 2 outputs") as caught:
        cr.jacobian(outer)(x) @ cr.jacobian(inner)(x)
    for part in ("J_outer : 9×3", "J_inner : 2×3", "test_a_jacobian.py:", "f's outputs"):
        assert part in str(caught.value)


def test_a11_a_quadratic_after_a_product_map():
    for x in jnp.asarray(RNG.normal(size=(5, 2))):
        g = cr.jacobian(lambda x: jnp.stack([x[0], x[0] * x[1], x[1] ** 2]))(x)
        outer = cr.jacobian(lambda u: 2 * u[0] - u[1] + u[2])(jnp.zeros(3))
        np.testing.assert_allclose((outer @ g).row(0), [2 - x[1], -x[0] + 2 * x[1]], atol=1e-14)


def test_a12_a_product_after_an_elementwise_map():
    def u(x):
        return jnp.stack([x[0] ** 2, jnp.sin(x[1])])

    for x in jnp.asarray(RNG.normal(size=(5, 2))):
        expected = [2 * x[0] * jnp.sin(x[1]), x[0] ** 2 * jnp.cos(x[1])]
        np.testing.assert_allclose(cr.gradient(lambda x: jnp.prod(u(x)))(x), expected)
        np.testing.assert_allclose((cr.jacobian(jnp.prod)(u(x)) @ cr.jacobian(u)(x)).row(0), expected)
