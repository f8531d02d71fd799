"""The determinant of a Jacobian as the local factor of volume."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import chainrule as cr

SQUARE = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])


def area(corners):
    """The signed area of a polygon, by the shoelace formula."""
    x, y = np.asarray(corners).T
    return 0.5 * float(x @ np.roll(y, -1) - y @ np.roll(x, -1))


def image_of_a_square(f, centre, side):
    """Corners along all edges, so that what bends is measured as well."""
    edges = [np.linspace(a, b, 50, endpoint=False) for a, b in zip(SQUARE, np.roll(SQUARE, -1, 0), strict=True)]
    return [f(jnp.asarray(p)) for p in np.asarray(centre) + side * np.concatenate(edges)]


MAPS = {
    "stretched": ([[2.0, 0.0], [0.0, 1.5]], 3.0),
    "shrunk": ([[0.5, 0.2], [0.0, 0.5]], 0.25),
    "sheared": ([[1.0, 0.7], [0.0, 1.0]], 1.0),
    "turned": ([[0.6, -0.8], [0.8, 0.6]], 1.0),
    "mirrored": ([[0.0, 1.0], [1.0, 0.0]], -1.0),
    "flattened": ([[1.0, 2.0], [2.0, 4.0]], 0.0),
}


@pytest.mark.parametrize("name", MAPS)
def test_f1_a_linear_map_scales_every_area_by_its_determinant(name):
    A, det = np.array(MAPS[name][0]), MAPS[name][1]
    J = cr.jacobian(lambda x: A @ x)(jnp.array([0.3, -0.2]))
    assert float(J.det()) == pytest.approx(det, abs=1e-14)
    sign, log = J.slogdet()
    assert float(sign * jnp.exp(log)) == pytest.approx(det, abs=1e-14)
    for side in (1.0, 7.0):  # not only a small one: there is no remainder
        measured = area(image_of_a_square(lambda x: A @ x, [0.3, -0.2], side))
        assert measured == pytest.approx(det * side**2, abs=1e-12)
    assert bool(J.is_invertible()) == (det != 0)  # where a square becomes a segment, nothing leads back


def bent(x):
    return jnp.stack([jnp.exp(x[0]) * jnp.cos(x[1]), jnp.exp(x[0]) * jnp.sin(x[1])])


@pytest.mark.parametrize(("point", "kind"), [((0.7, 0.3), ">1"), ((-0.9, 1.2), "<1"), ((0.0, -0.4), "=1")])
def test_f1_a_small_square_is_scaled_by_the_local_factor(point, kind):
    det = abs(float(cr.jacobian(bent)(jnp.array(point)).det()))
    assert det == pytest.approx(np.exp(2 * point[0]))
    assert {">1": det > 1 + 1e-9, "<1": det < 1 - 1e-9, "=1": abs(det - 1) < 1e-12}[kind]
    errors = [abs(area(image_of_a_square(bent, point, h))) / h**2 - det for h in (0.2, 0.1, 0.05)]
    assert abs(errors[2]) < 2e-3 * det
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)  # the remainder falls with the area


def test_f1_where_the_factor_is_zero_areas_vanish_faster_than_squares():
    def fold(x):
        return jnp.stack([x[0] ** 2, x[1]])

    assert float(cr.jacobian(fold)(jnp.zeros(2)).det()) == 0
    ratios = [abs(area(image_of_a_square(fold, [h, 0.0], h))) / h**2 for h in (0.1, 0.01, 0.001)]
    np.testing.assert_allclose(ratios, [0.2, 0.02, 0.002], rtol=1e-8)


def test_f1_volumes_in_many_dimensions():
    """A simplex of n + 1 corners: its volume is the determinant of its edges by n!."""
    n, rng = 6, np.random.default_rng(3)
    x, edges = jnp.asarray(rng.normal(size=n)), rng.normal(size=(n, n))

    def f(x):
        return jnp.cumsum(x) + 0.1 * jnp.sin(x[::-1])

    h = 1e-6
    moved = np.stack([(f(x + h * e) - f(x - h * e)) / (2 * h) for e in edges])
    ratio = np.linalg.det(moved) / np.linalg.det(edges)
    assert float(cr.jacobian(f)(x).det()) == pytest.approx(ratio, rel=1e-7)


def polar(p):
    r, angle = p
    return jnp.stack([r * jnp.cos(angle), r * jnp.sin(angle)])


def integral(g, edges, nodes=40):
    """Over a box of two sides, by a product of Gauss-Legendre rules; g takes points along a leading axis."""
    t, w = np.polynomial.legendre.leggauss(nodes)
    (a, b), (c, d) = edges
    x, y = (a + b + (b - a) * t) / 2, (c + d + (d - c) * t) / 2
    points = jnp.asarray(np.stack(np.meshgrid(x, y, indexing="ij"), -1).reshape(-1, 2))
    return float(np.outer(w, w).reshape(-1) @ np.asarray(g(points)) * (b - a) * (d - c) / 4)


def test_f2_polar_coordinates():
    """∫ g dx dy over a part of a disc is ∫ g(f(r, θ)) |det J| dr dθ over a box, and |det J| is r."""

    def through(g):
        factor = cr.jacobian_determinant(polar, batched=True)
        return lambda p: jax.vmap(lambda p: g(polar(p)))(p) * abs(factor(p))

    points = jnp.asarray(np.random.default_rng(8).uniform(0.1, 3, (5, 2)))
    np.testing.assert_allclose(cr.jacobian_determinant(polar, batched=True)(points), points[:, 0], rtol=1e-12)
    disc = ((0.0, 1.0), (0.0, 2 * np.pi))
    assert integral(through(lambda y: jnp.ones(())), disc) == pytest.approx(np.pi, rel=1e-12)
    assert integral(through(lambda y: y @ y), disc) == pytest.approx(np.pi / 2, rel=1e-12)
    # exp(-x² - y²) over a quarter of the plane: in x and y, and in polar coordinates, where it is elementary
    bell = lambda y: jnp.exp(-y @ y)  # noqa: E731
    straight = integral(jax.vmap(bell), ((0.0, 7.0), (0.0, 7.0)))
    round_ = integral(through(bell), ((0.0, 7.0), (0.0, np.pi / 2)))
    assert straight == pytest.approx(np.pi / 4, rel=1e-9) and round_ == pytest.approx(np.pi / 4, rel=1e-9)


def test_f2_any_one_to_one_map():
    """A bent box: g over the image, by x and y where the image is known, against the box that it comes from."""

    def f(u):
        return jnp.stack([u[0] + 0.2 * u[1] ** 2, u[1] * jnp.exp(u[0])])

    g = lambda y: jnp.cos(y[0]) * y[1] ** 2  # noqa: E731
    own = lambda u: jax.vmap(lambda u: g(f(u)))(u) * abs(cr.jacobian_determinant(f, batched=True)(u))  # noqa: E731
    by_boxes = integral(own, ((0.0, 1.0), (0.0, 0.5)))
    # the boundary's integral of a field with divergence g (Gauss's theorem): F = (0, cos(x) y³/3)
    t, w = np.polynomial.legendre.leggauss(60)
    total, corners = 0.0, np.array([[0, 0], [1, 0], [1, 0.5], [0, 0.5], [0, 0]])
    for a, b in itertools.pairwise(corners):
        along = jnp.asarray(a + np.outer((1 + t) / 2, b - a))
        y = jax.vmap(f)(along)
        ways = jnp.broadcast_to(jnp.asarray(b - a), along.shape)
        moves = cr.directional(f, batched=True)(along, ways)
        total += float((w / 2) @ (-(jnp.cos(y[:, 0]) * y[:, 1] ** 3 / 3) * moves[:, 0]))
    assert by_boxes == pytest.approx(total, rel=1e-10)
