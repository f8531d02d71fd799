"""Functions that equations define, against derivatives by hand and through unrolled iterations."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
import scipy.sparse.linalg
from hypothesis import given
from hypothesis import strategies as st

import chainrule as cr

RNG = np.random.default_rng(3)
W = RNG.normal(size=(4, 4)) / 8


def close(a, b, tolerance=1e-9):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), a, b)


def cubic(x, y):
    """Each y alone: y³ + y = x."""
    return y**3 + y - x


def steady(k, y):
    """A chain of neighbours; the indices are an array."""
    wide = jnp.pad(y, 1)
    inside = jnp.arange(y.size)
    return 3.0 * y - wide[inside + 2] - wide[:-2] + y**3 - k


def coupled(x, y):
    return jnp.tanh(W @ y) + 2.0 * y - jnp.sin(x)


def by_hand(g, x, y):
    """-(∂g/∂y)⁻¹ ∂g/∂x, dense."""
    A, B = jax.jacfwd(g, 1)(x, y), jax.jacfwd(g, 0)(x, y)
    return -jnp.linalg.solve(A.reshape(y.size, y.size), B.reshape(y.size, -1))


PROBLEMS = {
    "diagonal": (cubic, jnp.array([0.5, -1.0, 3.0, 10.0]), "diagonal"),
    "tridiagonal": (steady, jnp.linspace(-1.0, 2.0, 7), "dense"),
    "dense": (coupled, jnp.array([0.3, -0.4, 0.9, 1.2]), "dense"),
}


@pytest.mark.parametrize("name", PROBLEMS)
class TestRoot:
    def test_value_and_derivatives_of_two_orders(self, name):
        g, x, kind = PROBLEMS[name]
        y_of = cr.root(g, jnp.zeros_like(x))
        y = y_of(x)
        close(g(x, y), jnp.zeros_like(x), 1e-12)
        expected = by_hand(g, x, y)
        close(jax.jacfwd(y_of)(x), expected)
        close(jax.jacrev(y_of)(x), expected)
        close(cr.jacobian(y_of)(x).dense(), expected)
        J = cr.implicit(g)(x, y)
        assert J.structure.kind == kind
        close(J.dense(), expected)
        h = 1e-5
        near = [by_hand(g, x + h * e, y_of(x + h * e)).sum(0) for e in (-jnp.eye(x.size)[0], jnp.eye(x.size)[0])]
        close(jax.hessian(lambda x: y_of(x).sum())(x)[0], (near[1] - near[0]) / (2 * h), 1e-7)

    def test_under_jit_vmap_and_grad(self, name):
        g, x, _ = PROBLEMS[name]
        y_of = cr.root(g, jnp.zeros_like(x))
        xs = jnp.stack([x, 0.5 * x, x + 0.1])
        ys = jax.jit(jax.vmap(y_of))(xs)
        close(ys, jnp.stack([y_of(x) for x in xs]))
        gradients = jax.vmap(jax.grad(lambda x: (y_of(x) ** 2).sum()))(xs)
        close(gradients, jnp.stack([2 * y @ by_hand(g, x, y) for x, y in zip(xs, ys, strict=True)]))

    def test_a_solver_of_optimistix(self, name):
        g, x, _ = PROBLEMS[name]
        found = cr.root(g, jnp.zeros_like(x), solver=optx.Dogleg(1e-12, 1e-12), max_steps=200)
        close(found(x), cr.root(g, jnp.zeros_like(x))(x))
        close(jax.jacrev(found)(x), by_hand(g, x, found(x)))

    @pytest.mark.parametrize("method", ["gmres", "bicgstab", "klu"])
    def test_methods(self, name, method):
        g, x, _ = PROBLEMS[name]
        y_of = cr.root(g, jnp.zeros_like(x), method=method)
        close(jax.jacrev(y_of)(x), by_hand(g, x, y_of(x)), 1e-7)
        J = cr.implicit(g, method=method)(x, y_of(x))
        close(J @ jnp.ones_like(x), by_hand(g, x, y_of(x)).sum(1), 1e-7)


def test_pytrees_further_arguments_and_what_is_closed_over():
    scale = {"a": jnp.array([1.0, 2.0]), "b": jnp.array(3.0)}

    def of(scale, c, shift):
        def g(x, y, c):
            return {"u": c * y["u"] ** 3 + y["u"] - x - shift * scale["a"], "v": y["v"] - scale["b"] * y["u"].sum()}

        y = cr.root(g, {"u": jnp.zeros(2), "v": jnp.zeros(())})(jnp.array([0.5, 1.5]), c)
        return y["u"].sum() + y["v"] ** 2

    given = scale, jnp.array(0.7), jnp.array(0.2)
    gradient, h = jax.grad(of, (0, 1, 2))(*given), 1e-6
    near = [of({"a": scale["a"].at[0].add(s), "b": scale["b"]}, *given[1:]) for s in (h, -h)]
    close(gradient[0]["a"][0], (near[0] - near[1]) / (2 * h), 1e-7)
    for k in (1, 2):
        near = [of(*[v + s if i == k else v for i, v in enumerate(given)]) for s in (h, -h)]
        close(gradient[k], (near[0] - near[1]) / (2 * h), 1e-7)


def test_a_large_sparse_system_stays_sparse():
    n = 20_000
    k = jnp.linspace(0.0, 1.0, n)
    y_of = cr.root(steady, jnp.zeros(n))
    J = cr.implicit(steady)(k, y_of(k))
    assert J.structure.kind == "matrix-free"
    w = jnp.cos(jnp.arange(n))
    A = cr.jacobian(steady, 1)(k, y_of(k))
    assert A.structure.kind == "banded"
    close(J.T @ w, A.T.solve(w), 1e-12)
    close(jax.grad(lambda k: w @ y_of(k))(k), A.T.solve(w), 1e-12)


def test_the_factors_of_the_solution_serve_every_pushforward_and_pullback(monkeypatch):
    _, pull = jax.vjp(cr.root(coupled, jnp.zeros(4)), jnp.array([0.3, -0.4, 0.9, 1.2]))
    program = str(jax.make_jaxpr(pull)(jnp.ones(4)))
    assert "triangular_solve" in program and not re.search(r"= lu\b", program)

    def graph(k, y):  # neighbours without an order: SuperLU
        near = np.random.default_rng(1).integers(0, y.size, (y.size, 2))
        return 6.0 * y - y[near].sum(1) + y**3 - k

    n, made, factor = 300, [], scipy.sparse.linalg.splu
    y_of = cr.root(graph, jnp.zeros(n))
    _, pull = jax.vjp(y_of, jnp.linspace(0.0, 1.0, n))
    push = jax.linearize(y_of, jnp.linspace(0.0, 1.0, n))[1]
    jax.block_until_ready(push(jnp.ones(n)))
    monkeypatch.setattr(scipy.sparse.linalg, "splu", lambda *a, **k: made.append(1) or factor(*a, **k))
    for k in range(3):
        jax.block_until_ready((pull(jnp.full(n, 1.0 + k)), push(jnp.full(n, 2.0 + k))))
    assert not made


def test_a_large_dense_system_is_solved_by_products():
    n = 1200
    M = jnp.asarray(RNG.normal(size=(n, n)) * 0.3 / np.sqrt(n))
    z_of = cr.fixed_point(lambda x, z: jnp.tanh(M @ z + x), jnp.zeros(n))
    x = jnp.ones(n)
    z, pull = jax.vjp(z_of, x)
    s = 1 - z**2
    close(pull(jnp.ones(n))[0], s * jnp.linalg.solve(jnp.eye(n) - (s[:, None] * M).T, jnp.ones(n)), 1e-8)
    backward = jax.jit(jax.grad(lambda x: z_of(x).sum())).lower(x).as_text()
    assert f"{n}x{n}xf64" in backward and "getrf" not in backward


def unrolled(A, x):
    return jax.lax.fori_loop(0, 80, lambda _, z: jnp.sin(A @ z + x), jnp.zeros(3))


def equilibrium(A, x):
    return cr.fixed_point(lambda x, z: jnp.sin(A @ z + x), jnp.zeros(3))(x)


@functools.cache
def compiled():
    """The values, then the derivatives in both arguments: once for all examples."""
    return [jax.jit(f) for f in (equilibrium, unrolled, jax.jacrev(equilibrium, (0, 1)), jax.jacfwd(unrolled, (0, 1)))]


@given(st.integers(0, 10_000))
def test_fixed_points_of_random_contractions(seed):
    rng = np.random.default_rng(seed)
    A, x = jnp.asarray(rng.normal(size=(3, 3)) * 0.1), jnp.asarray(rng.normal(size=3))
    ours, other, derivatives, through = (f(A, x) for f in compiled())
    close(ours, other, 1e-10)
    close(derivatives, through, 1e-9)


def test_a_fixed_point_that_repels_needs_newton():
    def doubling(x, z):
        return 2.0 * z - x

    with pytest.raises(cr.ConvergenceError, match=r"fixed_point of doubling.*another solver"):
        cr.fixed_point(doubling, jnp.zeros(1))(jnp.ones(1))
    found = cr.fixed_point(doubling, jnp.zeros(1), solver=optx.Newton(1e-10, 1e-10))
    close(found(jnp.ones(1)), jnp.ones(1))
    close(jax.jacrev(found)(jnp.ones(1)), jnp.ones((1, 1)))


def ridge(x, y):
    return ((x["A"] @ y - x["b"]) ** 2).sum() + x["weight"] * (y**2).sum() + (y**4).sum() / 4


def test_minimize_implicit():
    x = {"A": jnp.asarray(RNG.normal(size=(6, 3))), "b": jnp.asarray(RNG.normal(size=6)), "weight": jnp.array(0.3)}
    y_of = cr.minimize_implicit(ridge, jnp.zeros(3))
    y = y_of(x)
    close(jax.grad(ridge, 1)(x, y), jnp.zeros(3), 1e-12)
    H, flat = jax.hessian(ridge, 1)(x, y), jax.flatten_util.ravel_pytree
    mixed = jax.jacfwd(lambda v: jax.grad(ridge, 1)(flat(x)[1](v), y))(flat(x)[0])
    expected = -jnp.linalg.solve(H, mixed)
    close(cr.jacobian(y_of)(x).dense(), expected)
    close(flat(jax.grad(lambda x: y_of(x).sum())(x))[0], expected.sum(0))
    with pytest.raises(cr.ConvergenceError, match="minimize_implicit"):
        cr.minimize_implicit(lambda x, y: (x * y**2).sum(), jnp.ones(1))(-jnp.ones(1))
    with pytest.raises(cr.ShapeError, match="one real number"):
        cr.minimize_implicit(lambda x, y: y, jnp.ones(2))(1.0)


class TestWhatIsStationaryAndNoMinimum:
    """A solver that starts where the gradient vanishes stays there."""

    @pytest.mark.parametrize(
        "f",
        [
            lambda x, y: y[0] ** 2 - x * y[1] ** 2 + y[1] ** 4,  # a saddle point
            lambda x, y: -x * (y**2).sum(),  # a maximum, of equal curvatures
            lambda x, y: -1e-20 * x * (y**2).sum(),
        ],
    )
    def test_is_refused(self, f):
        y_of = cr.minimize_implicit(f, jnp.zeros(2))
        with pytest.raises(cr.ConvergenceError, match="saddle point"):
            y_of(1.0)
        assert np.isnan(jax.jit(y_of)(1.0)).all()

    def test_one_direction_down_among_many(self):
        down = jnp.ones(200).at[77].set(-1.0)
        with pytest.raises(cr.ConvergenceError, match="saddle point"):
            cr.minimize_implicit(lambda x, y: x * (down * y**2).sum(), jnp.zeros(200))(1.0)

    def test_a_valley_is_none_of_them(self):
        y = cr.minimize_implicit(lambda x, y: (y.sum() - x) ** 2, jnp.zeros(2))(1.0)
        close(y.sum(), 1.0)


class TestRefusals:
    def test_a_singular_system_is_named_with_its_condition_and_point(self):
        def g(x, y):
            return jnp.stack([y[0] + y[1] - x[0], 2 * y[0] + 2 * y[1] - 2 * x[0]])

        with pytest.raises(
            cr.SingularError, match=r"implicit of g: .*condition number .*at y = \[0.5, 0.25\], x = \[0.75\]"
        ):
            cr.implicit(g)(jnp.array([0.75]), jnp.array([0.5, 0.25]))
        assert np.isnan(
            jax.jit(lambda x, y: cr.implicit(g)(x, y).dense())(jnp.array([0.75]), jnp.array([0.5, 0.25]))
        ).all()

    def test_a_system_that_is_singular_by_its_zeros_is_named_by_its_function(self):
        def g(x, y):
            return jnp.stack([y[0] + x[0], y[0] ** 2])

        def linear(x, y):
            return x * y

        with pytest.raises(
            cr.SingularError, match=r"implicit of g: ∂g/∂y .*zeros alone .*number inf.* at y = \[0, 1\], x = \[1\]"
        ):
            cr.implicit(g)(jnp.ones(1), jnp.array([0.0, 1.0]))
        with pytest.raises(cr.SingularError, match=r"root of g: ∂g/∂y is singular by its zeros alone:"):
            cr.root(g, jnp.zeros(2))(jnp.ones(1))
        with pytest.raises(cr.SingularError, match=r"minimize_implicit of linear: the Hessian in y is singular"):
            cr.minimize_implicit(linear, 0.0)(1.0)

    def test_what_to_do_where_nothing_is_found(self):
        with pytest.raises(cr.ConvergenceError, match=r"inverse of sin: .*point that is nearer"):
            cr.inverse(jnp.sin, jnp.array([0.1]))(jnp.array([1.9]))
        with pytest.raises(cr.ConvergenceError, match="needs no contraction"):
            cr.fixed_point(lambda x, z: 2.0 * z + x, jnp.zeros(2))(jnp.ones(2))

    def test_where_the_solver_stopped_and_that_it_is_singular_there(self):
        A = jnp.array([[1.0, 2.0], [3.0, 6.0]])

        def g(x, y):
            return A @ y - x

        with pytest.raises(cr.ConvergenceError, match=r"at y = \[0, 0\], x = \[1, 3\], where ∂g/∂y is singular .cond"):
            cr.root(g, jnp.zeros(2))(jnp.array([1.0, 3.0]))
        with pytest.raises(cr.ConvergenceError, match=r"at x = \[0\], y = \[1\], where J is singular .*number inf"):
            cr.inverse(lambda x: x**2, jnp.zeros(1))(jnp.ones(1))
        with pytest.raises(cr.ConvergenceError, match=r"at z = \[1024\], x = \[1\]\. Start"):
            cr.fixed_point(lambda x, z: 2.0 * z, jnp.ones(1), max_steps=10)(jnp.ones(1))

    def test_equations_that_are_too_few(self):
        for make in (cr.root, lambda g, y0: lambda x: cr.implicit(g)(x, y0)):
            with pytest.raises(cr.ShapeError, match=r"\[\(1,\)\], the unknowns \[\(2,\)\]"):
                make(lambda x, y: y[:1] - x, jnp.zeros(2))(1.0)

    def test_no_root(self):
        def above(x, y):
            return y**2 + x

        with pytest.raises(cr.ConvergenceError, match=r"root of above: the solver stopped"):
            cr.root(above, jnp.ones(1))(jnp.ones(1))
        assert np.isnan(jax.jit(cr.root(above, jnp.ones(1)))(jnp.ones(1))).all()
        assert np.isnan(cr.root(above, jnp.ones(1))(jnp.array([jnp.nan]))).all()  # nan in, nan out

    def test_an_unknown_method(self):
        for make in (cr.root, cr.fixed_point, cr.minimize_implicit):
            with pytest.raises(cr.InputTypeError, match="method='lu'"):
                make(cubic, jnp.ones(1), method="lu")


def polar(p):
    return jnp.stack([p[0] * jnp.cos(p[1]), p[0] * jnp.sin(p[1])])


class TestInverse:
    def test_of_a_map_with_many_inverses_the_near_one(self):
        for turns in (0, 1):
            inv = cr.inverse(polar, jnp.array([1.0, 0.5 + 2 * jnp.pi * turns]))
            close(inv(jnp.array([0.0, 2.0])), jnp.array([2.0, jnp.pi / 2 + 2 * jnp.pi * turns]))

    def test_derivatives(self):
        inv, y = cr.inverse(polar, jnp.array([1.0, 0.5])), jnp.array([0.3, 1.1])
        expected = jnp.linalg.inv(jax.jacfwd(polar)(inv(y)))
        close(cr.jacobian(inv)(y).dense(), expected)
        close(jax.jacrev(inv)(y), expected)
        close(inv.jacobian.dense(), jnp.linalg.inv(jax.jacfwd(polar)(inv.x0)))

    def test_structure(self):
        inv = cr.inverse(lambda x: x**3 + x, jnp.linspace(0.0, 1.0, 5000))
        assert inv.jacobian.structure.kind == "diagonal"
        assert cr.jacobian(inv)(inv.y0).structure.kind == "diagonal"

    def test_the_radius_is_that_of_a_parabola(self):
        inv = cr.inverse(lambda x: x**2, jnp.array([3.0]))  # from 9 down to the vertex at 0
        assert inv.radius == pytest.approx(9.0, rel=1e-6)
        assert "trusted within 9 " in repr(inv)
        assert cr.inverse(lambda x: 2.0 * x, jnp.ones(3)).radius == np.inf

    @pytest.mark.parametrize("at", [0.0, 1e-6, 0.1, 0.5])
    def test_the_radius_at_a_point_where_the_curvature_vanishes(self, at):
        radius = cr.inverse(jnp.sin, jnp.array([at])).radius
        assert 0.4 < radius < 1 - np.sin(at)  # from sin(at) to the top of the wave

    def test_the_radius_ends_where_a_derivative_jumps(self):
        radius = cr.inverse(lambda x: jnp.where(x > 0, x, -x), jnp.ones(1)).radius
        assert 0.4 < radius <= 1.0

    def test_the_jacobian_of_many_unknowns_is_a_map_of_products(self):
        def f(x):
            return x + 0.1 * jnp.sin(jnp.roll(x, 1))

        x0, v = jnp.linspace(0.0, 1.0, 20_000), jnp.linspace(1.0, 2.0, 20_000)
        J = cr.inverse(f, x0).jacobian  # its entries would take 3 GB
        close(cr.pushforward(f)(x0, J @ v), v)
        close(J.T @ cr.pullback(f)(x0, v), v)

    def test_refusals(self):
        with pytest.raises(cr.ShapeError, match=r"3 numbers to 1; .*minimize_implicit"):
            cr.inverse(lambda x: x[:1], jnp.ones(3))
        with pytest.raises(cr.ShapeError, match=r"y has shapes \[\(3,\)\]"):
            cr.inverse(polar, jnp.ones(2))(jnp.ones(3))
        singular = cr.inverse(lambda x: x**2 + 1, jnp.zeros(1))
        for asked in ("radius", "jacobian"):
            with pytest.raises(
                cr.SingularError, match=r"inverse of .*: J, .*number inf\) at x = \[0\], y = \[1\]: there"
            ):
                getattr(singular, asked)
        with pytest.raises(cr.InputTypeError, match="must be a function"):
            cr.inverse(3, jnp.zeros(1))
        seen = []
        jax.make_jaxpr(lambda x0: seen.append(repr(cr.inverse(polar, x0))))(jnp.ones(2))
        assert "traced" in seen[0] and "J is singular" in repr(singular)  # to print it is no error
        with pytest.raises(cr.InputTypeError, match="ask for the radius outside"):
            jax.jit(lambda x0: cr.inverse(polar, x0).radius)(jnp.ones(2))


def test_whole_numbers_that_are_mapped_around_a_solution():
    x, places = jnp.array([1.0, 4.0, 9.0]), jnp.array([0, 2])

    def slope(i):
        return jax.grad(lambda x: cr.root(lambda x, y: y**2 - x[i], jnp.ones(()))(x))(x)

    np.testing.assert_allclose(jax.vmap(slope)(places), [[0.5, 0, 0], [0, 0, 1 / 6]], rtol=1e-9)
    np.testing.assert_allclose(jax.jit(slope)(places[1]), [0, 0, 1 / 6], rtol=1e-9)


def test_a_fixed_point_in_single_precision_takes_keywords():
    z = cr.fixed_point(lambda x, z, s: s * jnp.cos(z) + x, jnp.zeros(1, jnp.float32))
    found = z(jnp.array([0.2], jnp.float32), s=jnp.float32(0.5))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, 0.5 * jnp.cos(found) + 0.2, rtol=1e-5)


@pytest.mark.parametrize("method", ["auto", "gmres"])
def test_unknowns_of_two_precisions_are_as_exact_as_the_coarser(method):
    def g(x, y):
        return {"a": y["a"] ** 3 + y["a"] - x, "b": y["b"] * 3 - y["a"].sum().astype(jnp.float32)}

    y_of = cr.root(g, {"a": jnp.zeros(2), "b": jnp.zeros((), jnp.float32)}, method=method)
    y, slope = y_of(jnp.ones(2)), jax.grad(lambda x: y_of(x)["b"])(jnp.ones(2))
    assert y["b"].dtype == jnp.float32
    np.testing.assert_allclose(y["b"], np.asarray(y["a"]).sum() / 3, rtol=1e-6)
    np.testing.assert_allclose(slope, 1 / (1 + 3 * np.asarray(y["a"]) ** 2) / 3, rtol=1e-5)


def test_starts_and_forms_that_are_refused():
    with pytest.raises(cr.InputTypeError, match="floating point"):
        cr.root(lambda x, y: y**2 - x, jnp.ones(1, int))(jnp.ones(1))
    with pytest.raises(cr.ShapeError, match=r"fixed_point of .*: f"):
        cr.fixed_point(lambda x, z: z[None], jnp.ones(2))(jnp.ones(2))
    with pytest.raises(cr.InputTypeError, match="max_steps='a'"):
        cr.root(lambda x, y: y - x, jnp.ones(1), max_steps="a")
