"""Ready arguments for SciPy: its own solvers run on them, and every derivative is compared with JAX's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.sparse
from scipy.sparse.linalg import LinearOperator

import chainrule as cr
import chainrule.scipy as crs

RNG = np.random.default_rng(5)
N = 300  # unknowns that make a sparse matrix worth its overhead


def tridiagonal(x):
    """A discrete boundary value problem."""
    wide = jnp.pad(x, 1)
    return 2 * x - wide[2:] - wide[:-2] + 0.1 * x**3 - 0.1


def chain(x):
    return jnp.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def small(x):
    """Two equations of a pytree."""
    return {"sum": x["a"] + x["b"].sum() - 3.0, "product": x["a"] * x["b"] - 1.0}


SMALL = {"a": np.array(0.7), "b": np.array([1.2])}


@pytest.mark.parametrize("method", ["hybr", "lm"])
def test_root_of_a_pytree(method):
    given = crs.root(small, SMALL, method=method)
    found = scipy.optimize.root(**given)
    assert found.success
    x = given.unflatten(found.x)
    assert x["a"].shape == () and x["b"].shape == (1,)
    np.testing.assert_allclose([*given["fun"](found.x)], 0, atol=1e-9)
    np.testing.assert_array_equal(given["x0"], [0.7, 1.2])
    expected = np.stack([np.concatenate([np.ravel(p) for p in row.values()]) for row in jax.jacfwd(small)(x).values()])
    # jax sorts the keys: product, sum
    np.testing.assert_allclose(given["jac"](found.x), expected)


def test_root_leaves_out_what_a_method_does_not_take():
    given = crs.root(tridiagonal, np.zeros(5), method="krylov")
    assert "jac" not in given
    assert scipy.optimize.root(**given).success


@pytest.mark.parametrize(
    ("form", "method", "kind"),
    [
        ("auto", "trf", scipy.sparse.csr_array),
        ("sparse", "dogbox", scipy.sparse.csr_array),
        ("dense", "trf", np.ndarray),
        ("product", "trf", LinearOperator),
        ("auto", "lm", np.ndarray),
    ],
)
def test_least_squares(form, method, kind):
    n = 40 if kind is np.ndarray else N
    given = crs.least_squares(tridiagonal, np.zeros(n), method=method, jac=form)
    x = RNG.normal(size=n)
    J = given["jac"](x)
    assert isinstance(J, kind)
    expected = jax.jacfwd(tridiagonal)(x)
    dense = J.toarray() if scipy.sparse.issparse(J) else J @ np.eye(n)
    np.testing.assert_allclose(dense, expected, atol=1e-14)
    if kind is LinearOperator:
        np.testing.assert_allclose(J.T @ x, expected.T @ x, atol=1e-12)
        np.testing.assert_allclose(J @ x[:, None], (expected @ x)[:, None], atol=1e-12)
    found = scipy.optimize.least_squares(**given, xtol=1e-12, ftol=1e-12, gtol=1e-10)
    assert found.success
    np.testing.assert_allclose(tridiagonal(found.x), 0, atol=1e-6)


def test_a_small_jacobian_is_an_array():
    assert isinstance(crs.least_squares(tridiagonal, np.zeros(5))["jac"](np.ones(5)), np.ndarray)


def test_a_robust_loss_may_scale_in_place():
    """SciPy multiplies J and f by weights where they lie; what is remembered must stay as it is."""
    given = crs.least_squares(tridiagonal, np.zeros(N))
    x = RNG.normal(size=N)
    f, J = given["fun"](x), given["jac"](x)
    f *= 0
    J.data *= 0
    J.indices[:] = 0
    np.testing.assert_allclose(given["fun"](x), tridiagonal(x))
    np.testing.assert_allclose(given["jac"](x).toarray(), jax.jacfwd(tridiagonal)(x), atol=1e-14)
    assert scipy.optimize.least_squares(**given, loss="soft_l1").success


def test_arrays_that_change_in_place_are_seen():
    calls = []

    def f(x):
        jax.debug.callback(lambda: calls.append(1))
        return x**2

    given, x = crs.root(f, np.ones(2)), np.ones(2)
    given["fun"](x)
    given["fun"](x)
    jax.effects_barrier()
    assert len(calls) == 1  # the second answer is the first one, remembered
    x *= 2
    np.testing.assert_array_equal(given["fun"](x), [4, 4])
    np.testing.assert_array_equal(crs.root(lambda x: 1 / x, x)["fun"](np.array([0.0, -0.0])), [np.inf, -np.inf])


def test_value_and_gradient_come_from_one_run():
    calls = []

    def f(x):
        jax.debug.callback(lambda: calls.append(1))
        return (x**2).sum()

    given = crs.minimize(f, np.ones(3), method="BFGS")
    assert given["fun"](np.full(3, 2.0)) == 12
    np.testing.assert_array_equal(given["jac"](np.full(3, 2.0)), [4, 4, 4])
    jax.effects_barrier()
    assert len(calls) == 1


def test_nothing_is_traced_again():
    traces = []

    class Model:
        def residual(self, x, data):
            traces.append(1)
            return tridiagonal(x) - data

        def energy(self, x, data):
            traces.append(1)
            return chain(x - data)

        def rate(self, t, y):
            traces.append(1)
            return -y * t

    given = crs.least_squares(Model().residual, np.zeros(N))
    energies = [crs.minimize(Model().energy, np.zeros(N), method=m) for m in ("trust-constr", "trust-ncg")]
    ivp = crs.solve_ivp(Model().rate, np.ones(3))
    for run in range(3):
        if run == 1:
            traces.clear()
        x, data = RNG.normal(size=N), RNG.normal(size=N)
        given["fun"](x, data), given["jac"](x, data)
        for e in energies:
            e["fun"](x, data), e["jac"](x, data)
        energies[0]["hess"](x, data), energies[1]["hessp"](x, data, data)
        ivp["fun"](float(run), np.ones(3)), ivp["jac"](float(run), np.ones(3))
    assert not traces


@pytest.mark.parametrize("method", ["BFGS", "L-BFGS-B", "Newton-CG", "trust-ncg", "trust-krylov", "trust-constr", None])
def test_minimize(method):
    given = crs.minimize(chain, np.full(4, 1.2), method=method)
    found = scipy.optimize.minimize(**given, options={} if method != "trust-constr" else {"gtol": 1e-9})
    np.testing.assert_allclose(found.x, 1, atol=1e-4)


@pytest.mark.parametrize("method", ["dogleg", "trust-exact"])
def test_minimize_by_an_array(method):
    given = crs.minimize(lambda x: ((x - 1.0) ** 4 + x**2).sum() + x[0] * x[1], np.zeros(3), method=method)
    found = scipy.optimize.minimize(**given)
    assert isinstance(given["hess"](found.x), np.ndarray) and found.success
    np.testing.assert_allclose(given["jac"](found.x), 0, atol=1e-4)


@pytest.mark.parametrize("method", ["trust-constr", "Newton-CG"])
def test_minimize_by_a_sparse_hessian(method):
    given = crs.minimize(chain, np.full(N, 0.9), method=method, hess="sparse")
    x = RNG.normal(size=N)
    H = given["hess"](x)
    assert scipy.sparse.issparse(H) and H.nnz == 3 * N - 2
    np.testing.assert_allclose(H.toarray(), jax.hessian(chain)(x), atol=1e-10)
    assert scipy.optimize.minimize(**given, tol=1e-9).fun < 1e-6


def test_hessian_products():
    given, x, p = crs.minimize(chain, np.ones(N), method="trust-krylov"), RNG.normal(size=N), RNG.normal(size=N)
    np.testing.assert_allclose(given["hessp"](x, p), jax.hessian(chain)(x) @ p, rtol=1e-9, atol=1e-9)


def test_extra_arguments_are_those_of_scipy():
    def misfit(p, t, y):
        return p["a"] * jnp.exp(-p["k"] * t) - y

    t = np.linspace(0, 3, 20)
    given = crs.least_squares(misfit, {"a": jnp.ones(()), "k": jnp.ones(())})
    for a, k in ((2.0, 0.5), (3.0, 1.5)):
        fit = scipy.optimize.least_squares(**given, args=(t, a * np.exp(-k * t)))
        np.testing.assert_allclose(fit.x, [a, k], rtol=1e-6)
    energy = crs.minimize(lambda x, c: ((x - c) ** 2).sum(), np.zeros(2), method="trust-ncg")
    np.testing.assert_allclose(scipy.optimize.minimize(**energy, args=(np.array([3.0, 4.0]),)).x, [3, 4])


def test_constraints_for_trust_constr_and_slsqp():
    def g(x):
        return {"disc": (x**2).sum(), "line": x[:1] - x[1:]}

    x, v = np.array([0.3, -0.4]), np.array([2.0, -3.0])
    for method, form in (("trust-constr", "sparse"), ("SLSQP", "dense")):
        inside = crs.nonlinear_constraint(
            g, x, -np.inf, [1.0, 0.0], method=method, jac=form if form == "sparse" else "auto"
        )
        J = inside.jac(x)
        assert scipy.sparse.issparse(J) == (form == "sparse")
        np.testing.assert_allclose(J @ np.eye(2), [2 * x, [1, -1]])
        if method == "trust-constr":
            np.testing.assert_allclose(inside.hess(x, v) @ np.eye(2), 2 * v[0] * np.eye(2))
        given = crs.minimize(lambda x: x.sum(), x, method=method)
        found = scipy.optimize.minimize(**given, constraints=inside)
        np.testing.assert_allclose(found.x, -np.sqrt(0.5), atol=2e-3)


def brusselator(t, y, feed):
    """On a periodic grid; y is a dict of two fields."""
    u, v = y["u"], y["v"]
    cells = u.shape[0]

    def spread(w):
        return 0.02 * cells**2 * (sum(jnp.roll(w, s, a) for s in (-1, 1) for a in (0, 1)) - 4 * w)

    return {"u": feed + u**2 * v - 4.4 * u + spread(u), "v": 3.4 * u - u**2 * v + spread(v)}


@pytest.mark.parametrize("method", ["BDF", "Radau", "LSODA", "RK45"])
def test_solve_ivp_on_a_brusselator(method):
    cells = 8 if method in ("LSODA", "RK45") else 12
    grid = np.arange(cells) / cells
    y0 = {"u": np.add.outer(np.sin(2 * np.pi * grid), 0 * grid) + 1.0, "v": np.add.outer(0 * grid, grid) + 3.0}
    given = crs.solve_ivp(brusselator, y0, method=method)
    found = scipy.integrate.solve_ivp(**given, t_span=(0, 0.5), args=(1.0,), rtol=1e-6, atol=1e-8)
    assert found.success
    if method in ("BDF", "Radau"):
        J = given["jac"](0.0, given["y0"], 1.0)
        assert scipy.sparse.issparse(J) and J.nnz == 6 * 2 * cells**2
        assert found.nfev < 2000  # no differences
    else:
        assert ("jac" in given) == (method == "LSODA")
    fields = given.unflatten(found.y)
    assert fields["u"].shape == (cells, cells, len(found.t))
    np.testing.assert_array_equal(fields["v"][..., 0], y0["v"])
    exact = scipy.integrate.solve_ivp(
        lambda t, y: given["fun"](t, y, 1.0), (0, 0.5), given["y0"], method="DOP853", rtol=1e-10, atol=1e-10
    )
    np.testing.assert_allclose(found.y[:, -1], exact.y[:, -1], rtol=1e-4, atol=1e-5)


def test_time_is_no_constant():
    given = crs.solve_ivp(lambda t, y: -y * t, np.ones(2))
    np.testing.assert_allclose(given["jac"](2.0, np.ones(2)), -2 * np.eye(2))
    np.testing.assert_allclose(given["jac"](np.float64(3.0), np.ones(2)), -3 * np.eye(2))


# interior point ------------------------------------------------------------------------------------


def objective(x):
    return x["a"] * x["b"][0] * (x["b"] ** 2).sum() + jnp.sin(x["a"])


def constraints(x):
    return {"p": jnp.prod(x["b"]) * x["a"], "s": x["b"][1:] ** 2 - x["b"][:-1]}


POINT = {"a": np.array(1.0), "b": np.array([1.0, 5.0, 5.0, 1.0])}


def dense(structure, values, shape):
    full = np.zeros(shape)
    np.add.at(full, structure, values)
    return full


def test_interior_point_callbacks_are_those_of_dense_derivatives():
    p = crs.interior_point(objective, POINT, constraints)
    assert (p.n, p.m) == (5, 4)

    def tree(x):
        return {"a": x[0], "b": x[1:]}

    def g(x):
        return jnp.concatenate([jnp.ravel(v) for v in constraints(tree(x)).values()])

    J_places, H_places = p.jacobianstructure(), p.hessianstructure()
    assert all((a >= b).all() for a, b in [H_places])  # the lower triangle
    assert len(J_places[0]) == 5 + 3 * 2
    derivative = jax.jit(jax.jacfwd(g))
    second = jax.jit(jax.hessian(lambda x, v, factor: factor * objective(tree(x)) + v @ g(x)))
    for _ in range(3):
        x, v, factor = RNG.normal(size=5), RNG.normal(size=4), float(RNG.normal())
        np.testing.assert_allclose(p.objective(x), objective(tree(x)))
        np.testing.assert_allclose(p.gradient(x), jax.grad(lambda x: objective(tree(x)))(x))
        np.testing.assert_allclose(p.constraints(x), g(x))
        np.testing.assert_allclose(dense(J_places, p.jacobian(x), (4, 5)), derivative(x), atol=1e-14)
        np.testing.assert_allclose(
            dense(H_places, p.hessian(x, v, factor), (5, 5)), np.tril(second(x, v, factor)), atol=1e-12
        )
    assert isinstance(p.objective(x), float)
    for places, values in ((J_places, p.jacobian(x)), (H_places, p.hessian(x, v, 1.0))):
        assert len(places[0]) == len(places[1]) == len(values)
        assert len({*zip(*map(np.ndarray.tolist, places), strict=True)}) == len(values)  # each place once
    places = p.jacobianstructure()
    places[0][:] = 0
    assert p.jacobianstructure()[0].any()  # the caller's own
    assert p.unflatten(x)["b"].shape == (4,)


def test_interior_point_solves_by_newton_on_the_kkt_conditions():
    """Hock and Schittkowski's problem 71, equality-constrained: Lagrange's conditions by Newton's method."""

    def f(x):
        return x[0] * x[3] * (x[0] + x[1] + x[2]) + x[2]

    def g(x):
        return jnp.stack([x[0] * x[1] * x[2] * x[3] - 25.0, (x**2).sum() - 40.0, x[0] - 1.0])

    p = crs.interior_point(f, np.array([1.0, 4.7, 3.8, 1.4]), g)
    x, v = p.x0, np.zeros(3)
    lower, places = p.hessianstructure(), p.jacobianstructure()
    for _ in range(15):
        L, J = dense(lower, p.hessian(x, v, 1.0), (4, 4)), dense(places, p.jacobian(x), (3, 4))
        K = np.block([[L + np.tril(L, -1).T, J.T], [J, np.zeros((3, 3))]])
        step = np.linalg.solve(K, -np.concatenate([p.gradient(x) + J.T @ v, p.constraints(x)]))
        x, v = x + step[:4], v + step[4:]
    np.testing.assert_allclose(x, [1.0, 4.743, 3.82115, 1.379408], rtol=1e-4)
    assert p.objective(x) == pytest.approx(17.0140173, rel=1e-7)


def test_interior_point_runs_in_trust_constr():
    p = crs.interior_point(lambda x: x[0] ** 2 + (x[1] - 2.0) ** 2, np.ones(2), lambda x: x[0] * x[1])
    bound = scipy.optimize.NonlinearConstraint(
        p.constraints, 1.0, np.inf, jac=lambda x: dense(p.jacobianstructure(), p.jacobian(x), (1, 2))
    )
    found = scipy.optimize.minimize(p.objective, p.x0, jac=p.gradient, method="trust-constr", constraints=bound)
    assert found.x[0] * found.x[1] == pytest.approx(1, abs=1e-4)


def test_interior_point_of_a_linear_objective_without_constraints():
    p = crs.interior_point(lambda x: x.sum(), np.ones(3))
    assert p.m == 0 and p.constraints(p.x0).shape == (0,)
    assert [len(a) for a in (*p.jacobianstructure(), *p.hessianstructure())] == [0, 0, 0, 0]
    assert p.jacobian(p.x0).shape == p.hessian(p.x0, [], 1.0).shape == (0,)


# refusals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: crs.root(tridiagonal, np.ones(3, complex)), cr.InputTypeError, "real and imaginary parts as separate"),
        (lambda: crs.root(tridiagonal, np.arange(3)), cr.InputTypeError, r"floating point, got int64"),
        (
            lambda: crs.least_squares(tridiagonal, np.ones(3), method="lm", jac="sparse"),
            cr.InputTypeError,
            "jac='sparse', but method='lm' takes 'dense'",
        ),
        (lambda: crs.minimize(chain, np.ones(3), hess="dense"), cr.InputTypeError, "takes no such argument"),
        (
            lambda: crs.minimize(chain, np.ones(3), method="trust-ncg", hess="sparse"),
            cr.InputTypeError,
            "method='trust-ncg' takes 'product', 'dense'",
        ),
        (
            lambda: crs.solve_ivp(brusselator, np.ones(3), jac="product"),
            cr.InputTypeError,
            "takes 'auto', 'sparse', 'dense'",
        ),
        (lambda: crs.minimize(tridiagonal, np.ones(3))["fun"](np.ones(3)), cr.ShapeError, "must be one real number"),
        (lambda: crs.root(tridiagonal, np.ones(3))["fun"](np.ones(4)), cr.ShapeError, r"vector of 3 numbers, got \(4,"),
        (lambda: crs.interior_point(tridiagonal, np.ones(3)), cr.ShapeError, "must be one real number"),
    ],
)
def test_what_is_refused(make, error, said):
    with pytest.raises(error, match=said):
        make()
