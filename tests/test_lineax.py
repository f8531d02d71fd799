"""A Jacobian as an operator of lineax, and the solver that finds structure, with the real libraries."""

import builtins
import functools

import diffrax
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx
import pytest

import chainrule as cr

SOLVER = cr.StructuredSolver()
DENSE = lx.AutoLinearSolver(well_posed=None)


@pytest.fixture(autouse=True)
def _promotion_of_users():
    """These libraries promote dtypes and ranks as JAX does where nothing is set."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def vector(n, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=n))


def diffusion(x, size):
    """The five-point stencil on a grid of size² points, 0 outside."""
    u = x.reshape(size, size)
    p = jnp.pad(u, 1)
    return (p[2:, 1:-1] + p[:-2, 1:-1] + p[1:-1, 2:] + p[1:-1, :-2] - 4 * u).reshape(-1)


def reaction(x, k, size):
    """A reaction and diffusion with a flow: 0 at its steady state."""
    u = x.reshape(size, size)
    flow = (u - jnp.pad(u, 1)[:-2, 1:-1]).reshape(-1)
    return diffusion(x, size) - 0.3 * flow - k * x**3 + 1.0


def per_sample(x):
    u = x.reshape(40, 3)
    return (u * u.sum(1, keepdims=True) + 0.1 * u[:, ::-1] + 5.0 * u).reshape(-1)


def narrow(x):
    """The identity and a map through two numbers."""
    w = vector((2, 60), 5)
    return x + w.T @ jnp.tanh(w @ x)


MIXING = vector((30, 30), 3) + 8.0 * jnp.eye(30)
FUNCTIONS = {
    "diagonal": (lambda x: x**3 + x, 50, "diagonal"),
    "tridiagonal": (lambda x: 4 * x + x**2 - jnp.pad(x[1:], (0, 1)) - 2 * jnp.pad(x[:-1], (1, 0)), 150, "banded"),
    "banded": (lambda x: 9 * x + sum(jnp.pad(0.5 * x[:-k] ** 2, (k, 0)) for k in (1, 2)), 150, "banded"),
    "block-diagonal": (per_sample, 120, "block-diagonal"),
    "sparse": (lambda x: reaction(x, 1.0, 13), 169, "banded"),
    "dense": (lambda x: MIXING @ x + x**2, 30, "dense"),
    "low-dimensional": (narrow, 60, "dense"),
}


@pytest.mark.parametrize(("f", "n", "kind"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_structures_against_the_matrix(f, n, kind):
    """Values, and derivatives in the point and in the right-hand side, under jit and vmap."""
    x, b = 0.3 + 0.1 * vector(n), vector(n, 1)

    def through(x, b):
        return lx.linear_solve(lx.JacobianLinearOperator(lambda x, _: f(x), x), b, SOLVER).value

    def plain(x, b):
        return jnp.linalg.solve(jax.jacfwd(f)(x), b)

    def both(x, b, solve):
        found = solve(x, b)
        return jnp.sum(jnp.sin(found)), found

    xs, bs = jnp.stack([x, 1.5 * x]), jnp.stack([b, -b])
    ours, wanted = (
        jax.jit(jax.vmap(jax.value_and_grad(functools.partial(both, solve=solve), (0, 1), has_aux=True)))(xs, bs)
        for solve in (through, plain)
    )
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(through(x, bs[0]), wanted[0][1][0], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(("f", "n", "kind"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_the_structure_is_found_in_a_trace(f, n, kind):
    found = []

    @jax.jit
    def run(x):
        found.append(SOLVER.init(lx.linearise(lx.JacobianLinearOperator(lambda x, _: f(x), x)), {}).J)
        return x

    run(vector(n))
    assert str(found[0].structure).startswith(kind)
    if kind != "dense":
        assert found[0].nnz < 0.1 * n * n


A, B = vector((4, 4), 1) + 3 * jnp.eye(4), vector((4, 4), 2)
FLAT = jax.ShapeDtypeStruct((4,), jnp.float64)
OPERATORS = {
    "matrix": lx.MatrixLinearOperator(A),
    "sum": lx.MatrixLinearOperator(A) + lx.IdentityLinearOperator(FLAT),
    "difference": lx.MatrixLinearOperator(A) - lx.MatrixLinearOperator(B),
    "composition": lx.MatrixLinearOperator(A) @ lx.DiagonalLinearOperator(B[0]),
    "quotient": lx.MatrixLinearOperator(A) / 3.0,
    "multiple": -lx.MatrixLinearOperator(A) * 2.0,
    "tagged": lx.TaggedLinearOperator(lx.MatrixLinearOperator(A + A.T), lx.symmetric_tag),
    "tridiagonal": lx.TridiagonalLinearOperator(A[0] + 9, A[1, 1:], A[2, 1:]),
    "diagonal": lx.DiagonalLinearOperator(A[0]),
    "function": lx.FunctionLinearOperator(lambda v: A @ v + v, FLAT),
    "transposed": lx.FunctionLinearOperator(lambda v: A @ v + v, FLAT).T,
    "backwards": lx.JacobianLinearOperator(lambda x, _: A @ x**2, B[0], jac="bwd"),
    "pytree": lx.PyTreeLinearOperator({"a": A, "b": B}, {"a": FLAT, "b": FLAT}).T,
    "ours": cr.jacobian(lambda x: A @ x + x**2)(B[0]).lineax(),
    "matrix-free": cr.linearize(lambda x: A @ x + x**2)(B[0]).lineax(),
    "ours in others": cr.jacobian(jnp.sin)(B[0]).lineax() @ lx.MatrixLinearOperator(A)
    + lx.IdentityLinearOperator(FLAT),
}


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_every_kind_of_operator(operator):
    b = jax.tree.map(lambda s: vector(s.shape, 7), operator.out_structure())
    matrix, flat = operator.as_matrix(), jnp.concatenate([x.ravel() for x in jax.tree.leaves(b)])
    expected = jnp.linalg.lstsq(matrix, flat)[0]
    got = lx.linear_solve(operator, b, SOLVER)
    assert got.result == lx.RESULTS.successful
    assert jax.tree.structure(got.value) == jax.tree.structure(operator.in_structure())
    np.testing.assert_allclose(jnp.concatenate(jax.tree.leaves(got.value)), expected, rtol=1e-11)
    state, _ = SOLVER.transpose(SOLVER.init(operator, {}), {})
    c = jax.tree.map(lambda s: vector(s.shape, 8), operator.in_structure())
    y = jax.tree.leaves(SOLVER.compute(state, c, {})[0])
    wanted = jnp.linalg.lstsq(matrix.T, jnp.concatenate([x.ravel() for x in jax.tree.leaves(c)]))[0]
    np.testing.assert_allclose(jnp.concatenate(y), wanted, rtol=1e-11)


@pytest.mark.parametrize("tag", ["diagonal", "tridiagonal", "lower_triangular", "upper_triangular"])
def test_tags_shape_the_pattern(tag):
    keep = {"diagonal": jnp.eye(30), "tridiagonal": jnp.triu(jnp.tril(jnp.ones((30, 30)), 1), -1)}
    keep |= {"lower_triangular": jnp.tril(jnp.ones((30, 30))), "upper_triangular": jnp.triu(jnp.ones((30, 30)))}
    matrix = MIXING * keep[tag]
    operator = lx.MatrixLinearOperator(matrix, getattr(lx, f"{tag}_tag"))
    assert SOLVER.init(operator, {}).J.nnz == int(keep[tag].sum())
    b = vector(30)
    np.testing.assert_allclose(lx.linear_solve(operator, b, SOLVER).value, jnp.linalg.solve(matrix, b), rtol=1e-11)


def test_a_closure_over_tracers():
    """As in diffrax: the operator is made in a loop, of a function that closes over what is traced."""

    @jax.jit
    def run(k, b):
        def step(x, scale):
            A = lx.JacobianLinearOperator(lambda y, _: reaction(y, k, 11) * scale, x)
            return x - lx.linear_solve(A, A.mv(x) + b, SOLVER).value, None

        return jax.lax.scan(step, b, jnp.array([1.0, 2.0]))[0]

    def plain(k, b):
        x = b
        for scale in (1.0, 2.0):
            J = jax.jacfwd(lambda y, scale=scale: reaction(y, k, 11) * scale)(x)
            x = x - jnp.linalg.solve(J, J @ x + b)
        return x

    k, b = jnp.array(0.7), vector(121)
    np.testing.assert_allclose(run(k, b), plain(k, b), rtol=1e-10)
    np.testing.assert_allclose(
        jax.grad(lambda k: run(k, b).sum())(k), jax.jacfwd(lambda k: plain(k, b).sum())(k), rtol=1e-9
    )
    np.testing.assert_allclose(jax.vmap(run)(k * jnp.ones(2), jnp.stack([b, b]))[1], plain(k, b), rtol=1e-10)


@pytest.mark.parametrize("shape", [(9, 4), (4, 9), (300, 150), (150, 300)])
def test_least_squares(shape):
    """The best x of more equations than unknowns, the shortest of fewer; with derivatives."""
    m, n = shape
    big = max(shape) > 100

    def f(x):
        if not big:
            return vector(shape, 4) @ x + jnp.resize(x, (m,)) ** 2
        return jnp.concatenate([x**2 + 3 * x, 2 * x - jnp.roll(x, 1)]) if m > n else (3 * x + x**2)[:m] - x[m:]

    x, b = 0.2 * vector(n), vector(m, 1)

    def through(x):
        return lx.linear_solve(lx.JacobianLinearOperator(lambda x, _: f(x), x), b, SOLVER).value

    def plain(x):
        A = jax.jacfwd(f)(x)
        return jnp.linalg.solve(A.T @ A, A.T @ b) if m > n else A.T @ jnp.linalg.solve(A @ A.T, b)

    def both(x, solve):
        found = solve(x)
        return jnp.sum(found**2), found

    (ours, got), (theirs, _) = (
        jax.jit(jax.grad(functools.partial(both, solve=solve), has_aux=True))(x) for solve in (through, plain)
    )
    np.testing.assert_allclose(got, np.linalg.lstsq(jax.jacfwd(f)(x), b)[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x * jnp.where(jnp.arange(150) == 3, 0.0, 1.0),  # 0 in the pattern or in a value
        lambda x: x * x,
        lambda x: jnp.broadcast_to(x.sum(), x.shape),
        lambda x: diffusion(x[:144], 12)[jnp.arange(150) % 144],
        lambda x: x - jnp.roll(x, 1),
        lambda x: jnp.concatenate([x[:75] * x[75:], x[:75] * x[75:]]),
        lambda x: jnp.concatenate([x, x])[:, None].sum(1) * 0.0,
        lambda x: jnp.stack([x.sum(), 2 * x.sum(), 3 * x.sum()]),
        lambda x: jnp.concatenate([x - jnp.roll(x, 1), jnp.roll(x, 1) - x]),
    ],
)
def test_what_is_singular_says_so(f):
    x = vector(150).at[7].set(0.0)
    b = vector(f(x).size, 2)

    @jax.jit
    def refused(x, b):
        A = lx.JacobianLinearOperator(lambda x, _: f(x), x)
        return lx.linear_solve(A, b, SOLVER, throw=False).result == lx.RESULTS.singular

    assert refused(x, b)


def test_what_is_singular_raises():
    with pytest.raises(Exception, match="singular"):
        lx.linear_solve(lx.DiagonalLinearOperator(jnp.array([1.0, 0.0])), jnp.ones(2), SOLVER)


def test_complex_operators():
    matrix = MIXING + 1j * vector((30, 30), 9)
    b = vector(30) + 1j * vector(30, 1)
    operator = lx.MatrixLinearOperator(matrix)
    state = SOLVER.init(operator, {})
    np.testing.assert_allclose(SOLVER.compute(state, b, {})[0], jnp.linalg.solve(matrix, b), rtol=1e-10)
    for turned, wanted in ((SOLVER.conj, matrix.conj()), (SOLVER.transpose, matrix.T)):
        np.testing.assert_allclose(
            SOLVER.compute(turned(state, {})[0], b, {})[0], jnp.linalg.solve(wanted, b), rtol=1e-10
        )
    J = cr.jacobian(lambda z: matrix @ z**2, holomorphic=True)(b)
    np.testing.assert_allclose(lx.conj(J.lineax()).as_matrix(), J.dense().conj(), rtol=1e-12)
    got = lx.linear_solve(lx.conj(J.lineax()), b, SOLVER).value
    np.testing.assert_allclose(got, jnp.linalg.solve(J.dense().conj(), b), rtol=1e-9)


@pytest.mark.parametrize("method", ["gmres", "bicgstab", "klu"])
def test_methods(method):
    solver = cr.StructuredSolver(method=method, **({} if method == "klu" else {"tolerance": 1e-12}))
    A = lx.JacobianLinearOperator(lambda x, _: reaction(x, 1.0, 13), 0.1 * vector(169))
    b = vector(169, 1)
    got = jax.grad(lambda b: lx.linear_solve(A, b, solver).value[3])(b)
    np.testing.assert_allclose(got, jnp.linalg.inv(A.as_matrix())[3], rtol=1e-8, atol=1e-12)


def test_a_krylov_method_that_gives_up_says_so():
    solver = cr.StructuredSolver(method="bicgstab", tolerance=1e-12, max_steps=1)
    A = lx.JacobianLinearOperator(lambda x, _: reaction(x, 1.0, 13), 0.1 * vector(169))
    assert lx.linear_solve(A, vector(169), solver, throw=False).result != lx.RESULTS.successful
    assert solver.compute(solver.init(A, {}), vector(169), {})[1] == lx.RESULTS.max_steps_reached


def test_an_unknown_method_is_refused():
    with pytest.raises(cr.InputTypeError, match="method='lu' is none of 'auto', 'klu', 'cg'"):
        cr.StructuredSolver(method="lu")


# the operator ------------------------------------------------------------------------------------


def registered():
    """The functions of lineax that an operator provides."""
    return {n: f for n, f in vars(lx).items() if callable(f) and hasattr(f, "registry")}


def test_every_function_of_lineax_is_registered():
    kind = type(cr.jacobian(jnp.sin)(jnp.ones(3)).lineax())
    assert len(registered()) == 13
    assert [n for n, f in registered().items() if kind not in f.registry] == []


CASES = {
    "diagonal": (jnp.sin, 4),
    "identity": (lambda x: x, 4),
    "tridiagonal": (lambda x: jnp.convolve(x, jnp.array([1.0, -2.0, 1.0]), "same"), 5),
    "lower": (jnp.cumsum, 4),
    "upper": (lambda x: jnp.cumsum(x[::-1])[::-1], 4),
    "dense": (lambda x: x * x.sum(), 4),
    "wide": (lambda x: x[1:] * x[0], 5),
}


@pytest.mark.parametrize(("f", "n"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("transform", [cr.jacobian, cr.linearize])
def test_the_operator(transform, f, n):
    x = vector(n)
    J = transform(f)(x)
    A, dense = J.lineax(), jax.jacfwd(f)(x)
    assert isinstance(A, lx.AbstractLinearOperator)
    v, w = vector(n, 1), vector(len(dense), 2)
    np.testing.assert_allclose(A.mv(v), dense @ v, rtol=1e-12)
    np.testing.assert_allclose(A.T.mv(w), dense.T @ w, rtol=1e-12)
    for same in (A, lx.linearise(A), lx.materialise(A), lx.conj(A), A.T.T):
        np.testing.assert_allclose(same.as_matrix(), dense, rtol=1e-12)
    assert A.in_structure() == jax.ShapeDtypeStruct((n,), x.dtype)
    assert A.out_structure() == jax.ShapeDtypeStruct((len(dense),), x.dtype)
    if len(dense) != n:
        return
    np.testing.assert_allclose(lx.diagonal(A), jnp.diagonal(dense), rtol=1e-12)
    for got, offset in zip(lx.tridiagonal(A), (0, -1, 1), strict=True):
        np.testing.assert_allclose(got, jnp.diagonal(dense, offset), rtol=1e-12)
    np.testing.assert_allclose(lx.linear_solve(A, w, SOLVER).value, jnp.linalg.solve(dense, w), rtol=1e-10)


CHECKS = {
    "diagonal": {"symmetric", "diagonal", "tridiagonal", "lower_triangular", "upper_triangular"},
    "tridiagonal": {"tridiagonal"},
    "lower": {"lower_triangular"},
    "upper": {"upper_triangular"},
    "dense": set(),
    "wide": set(),
}
CHECKS["identity"] = CHECKS["diagonal"] | {"unit_diagonal", "positive_semidefinite"}


@pytest.mark.parametrize("name", CHECKS)
def test_tags_come_from_the_structure(name):
    f, n = CASES[name]
    A = cr.jacobian(f)(vector(n)).lineax()
    checks = {c.removeprefix("is_").removeprefix("has_"): g for c, g in registered().items() if c[:3] in ("is_", "has")}
    turned = {"lower_triangular": "upper_triangular", "upper_triangular": "lower_triangular"}
    assert {c for c, g in checks.items() if g(A)} == CHECKS[name]
    both = {"lower_triangular", "upper_triangular"} <= CHECKS[name]
    assert {c for c, g in checks.items() if g(A.T)} == {c if both else turned.get(c, c) for c in CHECKS[name]}
    assert not cr.linearize(f)(vector(n)).lineax().tags


def test_tags_are_the_callers_too():
    H = cr.hessian(lambda x: jnp.sum(x**2) ** 2)(vector(4))
    A = H.lineax(lx.positive_semidefinite_tag)
    assert lx.is_positive_semidefinite(A) and lx.is_symmetric(A) and A.T is A
    np.testing.assert_allclose(lx.linear_solve(A, vector(4, 1), lx.Cholesky()).value, H.solve(vector(4, 1)), rtol=1e-10)
    assert lx.is_symmetric(H.lineax([lx.symmetric_tag]))


def test_pytrees_keep_their_structure():
    """Spaces of different names: not diagonal in lineax's sense, for that has one space."""
    x = {"a": vector(3), "b": vector(2)}
    J = cr.jacobian(lambda x: (jnp.sin(x["a"]), x["b"] ** 2))(x)
    A = J.lineax()
    assert A.in_structure() == jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), x)
    assert not lx.is_diagonal(A) and lx.is_lower_triangular(A)
    got = lx.linear_solve(A, A.mv(x), SOLVER).value
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), got, x)
    total = lx.linear_solve(A + A, A.mv(x), SOLVER).value
    jax.tree.map(lambda a, b: np.testing.assert_allclose(2 * a, b, rtol=1e-12), total, x)


@pytest.mark.parametrize("solver", [lx.LU(), SOLVER], ids=["LU", "ours"])
def test_derivatives_through_the_operator(solver):
    """The solvers of lineax differentiate through J as through any operator, to the second order."""

    def run(x, b):
        return lx.linear_solve(cr.jacobian(lambda x: MIXING @ x + x**3)(x).lineax(), b, solver).value.sum()

    def plain(x, b):
        return jnp.linalg.solve(MIXING + jnp.diag(3 * x**2), b).sum()

    x, b = vector(30), vector(30, 1)
    for got, wanted in zip(jax.grad(run, (0, 1))(x, b), jax.grad(plain, (0, 1))(x, b), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-8, atol=1e-11)
    if solver is SOLVER:
        H, wanted = jax.hessian(run)(x, b), jax.hessian(plain)(x, b)
        np.testing.assert_allclose(H, wanted, rtol=1e-8, atol=1e-11)


def test_the_jacobian_of_a_solve():
    """A solve of lineax inside of a function: correct whichever solver it takes."""
    b = vector(30, 1)
    for solver in (DENSE, SOLVER):

        def f(x, solver=solver):
            A = lx.JacobianLinearOperator(lambda y, _: MIXING @ y + y**3, x)
            return lx.linear_solve(A, b * x, solver).value

        def plain(x):
            return jnp.linalg.solve(MIXING + jnp.diag(3 * x**2), b * x)

        x = vector(30)
        np.testing.assert_allclose(cr.jacobian(f)(x).dense(), jax.jacfwd(plain)(x), rtol=1e-9, atol=1e-12)


def test_a_batch_is_taken_apart():
    J = jax.vmap(cr.jacobian(jnp.sin))(vector((2, 3)))
    with pytest.raises(cr.ShapeError, match="call it inside vmap"):
        J.lineax()
    got = jax.vmap(lambda J, b: lx.linear_solve(J.lineax(), b, SOLVER).value)(J, jnp.ones((2, 3)))
    np.testing.assert_allclose(got, 1 / jnp.cos(vector((2, 3))), rtol=1e-12)


def test_without_lineax(monkeypatch):
    """Both doors say what to install."""
    real = builtins.__import__

    def refusing(name, *rest):
        if name in ("chainrule._solver", "lineax"):
            raise ImportError(name)
        return real(name, *rest)

    J = cr.jacobian(jnp.sin)(jnp.ones(2))
    monkeypatch.setattr(builtins, "__import__", refusing)
    for ask in (J.lineax, lambda: cr.StructuredSolver):
        with pytest.raises(cr.ChainruleError, match=r"needs lineax: pip install 'chainrule\[solvers\]'"):
            ask()
    with pytest.raises(AttributeError, match="'chainrule' has no attribute 'nothing'"):
        _ = cr.nothing


# optimistix and diffrax, as they are -------------------------------------------------------------


@pytest.mark.parametrize("method", [optx.Newton, optx.Chord, optx.Dogleg])
def test_steady_state_and_its_implicit_gradient(method):
    """Reaction and diffusion on a grid of 20² points."""

    def steady(k, linear):
        solver = method(rtol=1e-10, atol=1e-10, linear_solver=linear)
        adjoint = optx.ImplicitAdjoint(linear_solver=linear)
        f = lambda x, k: reaction(x, k, 20)  # noqa: E731
        return optx.root_find(f, solver, jnp.ones(400), k, adjoint=adjoint, max_steps=200).value

    def total(k):
        x = steady(k, SOLVER)
        return x.sum(), x

    k = jnp.array(1.0)
    found, x = jax.jit(jax.grad(total, has_aux=True))(k)
    np.testing.assert_allclose(reaction(x, k, 20), 0.0, atol=1e-9)
    J = np.asarray(jax.jacfwd(reaction)(x, k, 20))
    np.testing.assert_allclose(found, np.linalg.solve(J.T, -np.ones(400)) @ (-(x**3)), rtol=1e-7)


@pytest.mark.parametrize("method", [optx.GaussNewton, optx.LevenbergMarquardt])
def test_least_squares_of_optimistix(method):
    def residual(x, shift):
        return jnp.concatenate([10 * (x[1:] - x[:-1] ** 2), shift - x])

    def fit(shift, linear):
        solver = method(rtol=1e-10, atol=1e-10, linear_solver=linear)
        adjoint = optx.ImplicitAdjoint(linear_solver=linear)
        return optx.least_squares(residual, solver, 0.9 * jnp.ones(30), shift, adjoint=adjoint, max_steps=500).value

    def total(shift, linear):
        x = fit(shift, linear)
        return x.sum(), x

    (ours, x), (theirs, y) = (
        jax.jit(jax.grad(functools.partial(total, linear=linear), has_aux=True))(jnp.array(1.05))
        for linear in (SOLVER, DENSE)
    )
    np.testing.assert_allclose(x, y, rtol=1e-6)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("method", [diffrax.Kvaerno5, diffrax.ImplicitEuler])
def test_stiff_solvers_of_diffrax(method):
    euler = method is diffrax.ImplicitEuler
    steps = diffrax.ConstantStepSize() if euler else diffrax.PIDController(rtol=1e-5, atol=1e-7)

    def run(k, linear):
        solver = method(root_finder=diffrax.VeryChord(rtol=1e-6, atol=1e-6, linear_solver=linear))
        term = diffrax.ODETerm(lambda t, x, k: 50.0 * reaction(x, k, 11))
        first = 1e-3 if euler else 1e-4
        x = jnp.zeros(121)
        found = diffrax.diffeqsolve(term, solver, 0.0, 0.02, first, x, k, stepsize_controller=steps, max_steps=200)
        return found.ys[0]

    k = jnp.array(0.3)
    ours, theirs = (run(k, linear) for linear in (SOLVER, DENSE))
    assert jnp.abs(ours).max() > 0.5
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)
    if euler:
        ours, theirs = (jax.grad(lambda k, linear=linear: run(k, linear).sum())(k) for linear in (SOLVER, DENSE))
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
