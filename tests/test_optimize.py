"""`newton` and `newton_cg`: that they arrive, that they say how, and that they never claim what they have not."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import chainrule as cr


def rosenbrock(x):
    return jnp.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def boundary_value(x, load):
    wide = jnp.pad(x, 1)
    return 3 * x - wide[2:] - wide[:-2] + x**3 - load


# newton --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [3, 2000])
@pytest.mark.parametrize("method", ["auto", "gmres"])
def test_newton_converges_quadratically(n, method):
    s = cr.newton(boundary_value, jnp.zeros(n), jnp.ones(n), method=method)
    assert s.converged and s.iterations < 15 and s.norm < 1e-8 * np.sqrt(n)
    np.testing.assert_allclose(boundary_value(s.x, jnp.ones(n)), 0, atol=1e-9)
    np.testing.assert_allclose(s.value, boundary_value(s.x, jnp.ones(n)), atol=1e-14)
    norms = [row.norm for row in s.history]
    assert len(norms) == s.iterations + 1 and norms == sorted(norms, reverse=True)
    if method == "auto":
        assert norms[-1] < 1e-3 * norms[-2] < 1e-6 * norms[-3]
    assert not n > 100 or "banded(1, 1)" in str(s)


def test_newton_of_pytrees_in_their_own_dtypes():
    def f(x):
        return x["a"] ** 2 - 2.0, (x["b"] * jnp.sum(x["a"]).astype(jnp.float32) - 3.0)

    x0 = {"a": jnp.ones((2, 1)), "b": jnp.ones(2, jnp.float32)}
    s = cr.newton(f, x0, rtol=1e-5)
    assert s.converged
    assert jax.tree.map(lambda a: (a.shape, a.dtype), s.x) == jax.tree.map(lambda a: (a.shape, a.dtype), x0)
    np.testing.assert_allclose(s.x["a"], np.sqrt(2), rtol=1e-5)
    np.testing.assert_allclose(s.x["b"], 3 / np.sqrt(8), rtol=1e-5)


def test_newton_in_float32():
    s = cr.newton(boundary_value, jnp.zeros(50, jnp.float32), jnp.ones(50, jnp.float32))
    assert s.converged and s.x.dtype == jnp.float32


def test_newton_backtracks():
    s = cr.newton(jnp.arctan, jnp.array([3.0]))  # full steps diverge from there
    assert s.converged and abs(float(s.x[0])) < 1e-8
    assert min(row.fraction for row in s.history[:-1]) < 1


def test_newton_at_a_root_takes_no_step():
    s = cr.newton(lambda x: x**2 - 2.0, jnp.array([np.sqrt(2.0)]))
    assert s.converged and s.iterations == 0 and s.norm > 0  # zero but for rounding


def test_newton_does_not_mind_scales():
    """A small residual of one equation is no root if its own numbers are small, nor hidden by the others'."""
    scales, units = jnp.array([1e-14, 1.0, 1e14]), jnp.array([1e8, 1.0, 1e-8])
    s = cr.newton(lambda x: scales * ((x / units) ** 3 - 8.0), units)
    assert s.converged
    np.testing.assert_allclose(s.x, 2 * units, rtol=1e-11)
    far = cr.newton(lambda x: jnp.exp(x) - 1.0, jnp.array([100.0]), max_iterations=60)
    assert not far.converged  # 1e-24 of what it was, and yet no root


def test_newton_compiles_once_for_all_values():
    traces = []

    def f(x, a):
        traces.append(1)
        return x**3 - a

    cr.newton(f, jnp.ones(3), jnp.full(3, 8.0))
    traces.clear()
    s = cr.newton(f, jnp.full(3, 2.0), jnp.full(3, 27.0))
    assert not traces
    np.testing.assert_allclose(s.x, 3)


@pytest.mark.parametrize(
    ("f", "x0", "options", "said"),
    [
        (lambda x: jnp.stack([x.sum(), 2 * x.sum()]) - 1.0, [1.0, 2.0], {}, "J at iteration 0 is singular"),
        (lambda x: x**2 + 1.0, [0.7], {}, "lowers|singular"),
        (lambda x: x**3 - 8.0, [100.0], {"max_iterations": 3}, "the 3 iterations that were allowed are used up"),
        (lambda x: jnp.log(x), [-1.0], {}, r"f\(x0\) is not finite"),
        (lambda x: jnp.sqrt(x), [0.0], {"atol": -0.0}, ""),
    ],
    ids=["singular", "no root", "too few", "nan", "a root where J is infinite"],
)
def test_newton_says_why_it_stopped(f, x0, options, said):
    s = cr.newton(f, jnp.array(x0), **options)
    assert s.converged == (not said)
    if said:
        assert re.search(said, s.message)
        assert f"NOT converged after {s.iterations} iterations: {s.message}" in str(s)
        assert np.isfinite(np.asarray(s.x)).all()


def test_newton_by_klu_says_what_is_singular():
    pytest.importorskip("klujax")
    s = cr.newton(lambda x: jnp.stack([x.sum(), 2 * x.sum()]) - 1.0, jnp.ones(2), method="klu")
    assert not s.converged and "J at iteration 0 is singular" in s.message


def test_newton_refuses():
    with pytest.raises(cr.ShapeError, match="is not square"):
        cr.newton(lambda x: x[:1], jnp.ones(2))
    with pytest.raises(cr.InputTypeError, match=r"newton of <lambda>: f\(x\) is complex"):
        cr.newton(lambda x: jax.lax.complex(x, x), jnp.ones(2))
    with pytest.raises(cr.SingularError, match="structural rank 1 < 2"):
        cr.newton(lambda x: jnp.stack([x[0], 2 * x[0]]) + 1.0, jnp.ones(2))
    with pytest.raises(cr.InputTypeError, match="x0 is complex; give real and imaginary"):
        cr.newton(lambda x: x, jnp.ones(2, complex))
    with pytest.raises(cr.InputTypeError, match="a loop of the host: call it outside"):
        jax.jit(lambda x: cr.newton(jnp.sin, x).x)(jnp.ones(2))
    for wrong in ({"method": "cholesky"}, {"rtol": -1.0}, {"atol": "small"}, {"max_iterations": True}):
        with pytest.raises(cr.InputTypeError, match=next(iter(wrong))):
            cr.newton(jnp.sin, jnp.ones(2), **wrong)
        with pytest.raises(cr.InputTypeError, match=next(iter(wrong))):
            cr.newton_cg(lambda x: x.sum(), jnp.ones(2), **wrong)


# newton_cg -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["cg", "direct"])
def test_newton_cg_in_two_dimensions(method):
    s = cr.newton_cg(rosenbrock, jnp.array([-1.2, 1.0]), method=method)
    assert s.converged and s.iterations <= 40
    np.testing.assert_allclose(s.x, 1, atol=1e-12)
    assert s.norm < 1e-8 and s.value < 1e-20
    values = [row.value for row in s.history]
    assert values == sorted(values, reverse=True)


def test_newton_cg_takes_the_sparse_hessian_where_there_is_one():
    sparse, full = jnp.full(500, 0.5), jnp.ones(500) / 500
    assert "structure of H" in cr.newton_cg(rosenbrock, sparse).what
    s = cr.newton_cg(lambda x: jnp.exp(x.sum()) + (x**2).sum(), full)
    assert "conjugate gradients" in s.what and s.converged
    total = 500 * float(s.x[0])
    assert np.exp(total) + 2 * total / 500 == pytest.approx(0, abs=1e-8)


def test_newton_cg_stores_nothing_of_the_size_of_a_dense_hessian():
    n = 200_000  # a Hessian of 320 GB
    s = cr.newton_cg(lambda x: (x.sum() - 1.0) ** 2 + ((x - 1.0) ** 2).sum(), jnp.zeros(n))
    assert s.converged
    np.testing.assert_allclose(s.x, 2 / (n + 1), rtol=1e-6)


def test_newton_cg_of_pytrees_with_data():
    def loss(p, t, y):
        return ((p["a"] * jnp.exp(-p["k"] * t) - y) ** 2).sum()

    t = jnp.linspace(0.0, 3.0, 20)
    p0 = {"a": jnp.ones(()), "k": jnp.ones(1)}
    for method in ("cg", "direct"):
        s = cr.newton_cg(loss, p0, t, 2 * jnp.exp(-0.5 * t), method=method)
        assert s.converged and s.x["k"].shape == (1,)
        np.testing.assert_allclose([s.x["a"], s.x["k"][0]], [2.0, 0.5], rtol=1e-6)


@pytest.mark.parametrize("method", ["cg", "direct"])
def test_a_saddle_is_no_minimum(method):
    def double_well(x):
        return x[0] ** 2 - x[1] ** 2 + x[1] ** 4

    for x0 in ([0.0, 0.0], [1.0, 0.0]):  # the second start runs into the saddle
        s = cr.newton_cg(double_well, jnp.array(x0), method=method)
        assert s.converged
        assert any("negative curvature of a stationary point" in row.direction for row in s.history)
        np.testing.assert_allclose(jnp.abs(s.x), [0, np.sqrt(0.5)], atol=1e-7)


@pytest.mark.parametrize("method", ["cg", "direct"])
@pytest.mark.parametrize(
    ("f", "x0", "options", "said"),
    [
        (lambda x: x[0] ** 2 - x[1] ** 2, [0.3, 0.1], {"max_iterations": 30}, "used up"),  # unbounded below
        (lambda x: x.sum(), [0.0, 0.0], {"max_iterations": 30}, "used up"),
        (lambda x: jnp.log(x).sum(), [-1.0, 1.0], {}, "not finite"),
        (rosenbrock, [-1.2, 1.0], {"max_iterations": 4}, "the 4 iterations that were allowed are used up"),
        (lambda x: jnp.abs(x - 1.0).sum() + 1e-3 * (x**2).sum(), [0.3, 0.4], {}, "no part of the step|used up"),
    ],
    ids=["unbounded", "linear", "nan", "too few", "a kink"],
)
def test_newton_cg_says_why_it_stopped(f, x0, options, said, method):
    s = cr.newton_cg(f, jnp.array(x0), method=method, **options)
    assert not s.converged and s.history[-1].norm == s.norm
    assert re.search(said, s.message)


def test_flat_directions_and_unused_unknowns_are_no_obstacle():
    for method in ("cg", "direct"):
        s = cr.newton_cg(lambda x: (x[0] + x[1] - 1.0) ** 2, jnp.zeros(3), method=method)
        assert s.converged
        np.testing.assert_allclose(s.x, [0.5, 0.5, 0], atol=1e-8)


def test_at_a_minimum_no_step_is_taken():
    s = cr.newton_cg(rosenbrock, jnp.ones(4))
    assert s.converged and s.iterations == 0


def test_a_number_of_python_is_a_value():
    s = cr.newton_cg(lambda x: 1.0, jnp.ones(2))
    assert s.converged and s.value == 1


def test_newton_cg_needs_one_number():
    with pytest.raises(cr.ShapeError, match="must be one real number"):
        cr.newton_cg(jnp.sin, jnp.ones(2))


# the report ----------------------------------------------------------------------------------------


def test_the_report_is_the_table(capsys):
    s = cr.newton_cg(rosenbrock, jnp.array([-1.2, 1.0]), report=True)
    printed = capsys.readouterr().out
    assert printed.strip("\n") in str(s)
    assert len(printed.splitlines()) == s.iterations + 2
    cr.newton(lambda x: x**2 - 2.0, jnp.ones(1))
    assert not capsys.readouterr().out


def test_a_long_table_shows_its_ends():
    s = cr.newton_cg(lambda x: x.sum(), jnp.zeros(1), max_iterations=100)
    assert len(s.history) == 101 and len(str(s).splitlines()) == 46
    assert "…" in str(s) and "\n      100 " in str(s)


def test_unknowns_of_two_precisions_converge_to_the_coarser():
    def f(y):
        return {"a": y["a"] ** 3 + y["a"] - 1.0, "b": y["b"] * 3 - y["a"].sum().astype(jnp.float32)}

    s = cr.newton(f, {"a": jnp.zeros(2), "b": jnp.zeros((), jnp.float32)})
    assert s.converged and s.iterations < 10
    np.testing.assert_allclose(s.x["b"], np.asarray(s.x["a"]).sum() / 3, rtol=1e-6)
