"""Every method of `Jacobian` against NumPy on the dense matrix, assembled and matrix-free, one and a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import sparse

import chainrule as cr
from chainrule._blocks.block import place

RNG = np.random.default_rng(0)
W = RNG.normal(size=(4, 5))
FUNCTIONS = {
    "dense": lambda x: jnp.tanh(W @ x),
    "banded": lambda x: x[1:] * x[:-1],
    "diagonal": jnp.sin,
    "known values": lambda x: x[np.array([3, 1])] - x[0],
    "repeated places": lambda x: jnp.stack([x[0] * x[0] + x[0] * x[1], x[4]]),
    "scattered rows": lambda x: jnp.concatenate([(x**2).sum()[None], x[0] * x[1:]]),
    "zero": lambda x: jnp.ones(3),
    "scalar": jnp.prod,
}
X = jnp.asarray(RNG.normal(size=5))
close = np.testing.assert_allclose


@pytest.fixture(
    params=[(n, o) for n in FUNCTIONS for o in ("forward", "reverse", "linearize")], ids=lambda p: "-".join(p)
)
def pair(request):
    """A Jacobian, and the dense matrix that it stands for."""
    name, order = request.param
    f = FUNCTIONS[name]
    J = cr.linearize(f)(X) if order == "linearize" else cr.jacobian(f, order=order)(X)
    return J, np.asarray(jax.jacfwd(f)(X)).reshape(-1, 5)


def test_conversions(pair):
    J, D = pair
    assert J.shape == D.shape and J.dtype == jnp.float64
    close(J.dense(), D, atol=1e-14)
    close(J.T.dense(), D.T, atol=1e-14)
    close(J.T.T.dense(), D, atol=1e-14)
    close(J.tree().reshape(D.shape), D, atol=1e-14)
    close(J.bcoo().todense(), D, atol=1e-14)
    close(J.scipy().toarray(), D, atol=1e-14)
    for K in (J, J.T):
        rows, cols, values = K.coo()
        assert len(rows) == K.nnz == len(values)
        places = rows.astype(np.int64) * K.shape[1] + cols
        assert (np.diff(places) > 0).all()  # row-major, each once
    assert np.count_nonzero(D) <= J.nnz


def test_products(pair):
    J, D = pair
    m, n = D.shape
    v, w, V = RNG.normal(size=n), RNG.normal(size=m), RNG.normal(size=(n, 3))
    close(np.ravel(J @ v), D @ v, atol=1e-13)
    close(J.T @ w if m != 1 else J.T @ w[0], D.T @ w, atol=1e-13)
    close(J @ V, D @ V, atol=1e-13)
    close((J.T @ J).dense(), D.T @ D, atol=1e-13)
    close((J @ J.T).dense(), D @ D.T, atol=1e-13)


def test_arithmetic(pair):
    J, D = pair
    c = jnp.array(3.0)
    close((2.0 * J + J * c - J / 2).dense(), 4.5 * D, atol=1e-13)
    close((-J).dense(), -D, atol=1e-14)
    K = cr.jacobian(lambda x: jnp.tile(x[:1], D.shape[0]), order="reverse")(X)
    close((J + K).dense(), D + np.eye(1, 5), atol=1e-13)
    close((K.T - J.T).dense(), (np.eye(1, 5) - D).T, atol=1e-13)


def test_parts(pair):
    J, D = pair
    m, n = D.shape
    close([J[i, j] for i in range(m) for j in range(-n, 0)], D.ravel(), atol=1e-14)
    close(J[-1], D[-1], atol=1e-14)
    close(J[0, 1:3], D[0, 1:3], atol=1e-14)
    close(J[:, 1], D[:, 1], atol=1e-14)
    close(J[:1, ::2], D[:1, ::2], atol=1e-14)
    close(J.row(0), D[0], atol=1e-14)
    close(J.col(np.int64(4)), D[:, 4], atol=1e-14)
    close(J.diagonal(), np.diagonal(D), atol=1e-14)
    close((J.T @ J).trace(), np.trace(D.T @ D), atol=1e-13)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("transform", [cr.jacobian, cr.linearize])
def test_a_batch_has_leading_axes_everywhere(name, transform):
    f, batch = FUNCTIONS[name], jnp.asarray(RNG.normal(size=(3, 5)))
    J = jax.vmap(transform(f))(batch)
    D = np.asarray(jax.vmap(jax.jacfwd(f))(batch)).reshape(3, -1, 5)
    assert "a batch" in repr(J) and J.shape == D.shape[1:]
    close(J.dense(), D, atol=1e-14)
    close(J.T.dense(), D.transpose(0, 2, 1), atol=1e-14)
    close((2.0 * J + J).dense(), 3 * D, atol=1e-13)
    close((J.T @ J).dense(), D.transpose(0, 2, 1) @ D, atol=1e-13)
    close((J @ batch).reshape(3, -1), np.einsum("bij,bj->bi", D, batch), atol=1e-13)
    close(J.row(0), D[:, 0], atol=1e-14)
    close(J[0, 1], D[:, 0, 1], atol=1e-14)
    close(J.diagonal(), np.diagonal(D, axis1=1, axis2=2), atol=1e-14)
    close(J.tree().reshape(D.shape), D, atol=1e-14)
    close(J.bcoo().todense(), D, atol=1e-14)
    with pytest.raises(cr.ShapeError, match="batch"):
        J.scipy()


def test_pytrees_in_and_out():
    def f(p):
        return {"sum": p["a"].sum() * p["b"], "pair": (p["b"] ** 2, p["a"][:2])}

    p = {"a": jnp.arange(3.0), "b": jnp.array([1.0, 2.0])}
    J = cr.jacobian(f)(p)
    v = jax.tree.map(jnp.ones_like, p)
    expected = jax.jvp(f, (p,), (v,))[1]
    jax.tree.map(lambda a, b: close(a, b, atol=1e-14), J @ v, expected)
    jax.tree.map(lambda a, b: close(a, b), J.T @ expected, jax.vjp(f, p)[1](expected)[0])
    assert J.in_shapes == ((3,), (2,)) and J.out_shapes == ((2,), (2,), (2,))
    assert J.in_tree == jax.tree.structure(p) and J.out_tree == jax.tree.structure(expected)


def test_differentiation_and_jit_through_methods():
    def f(x):
        J = cr.jacobian(FUNCTIONS["dense"])(x)
        return (J @ x).sum() + J.diagonal().sum() + (J.T @ J).trace() + J[0, 1]

    def g(x):
        D = jax.jacfwd(FUNCTIONS["dense"])(x)
        return (D @ x).sum() + jnp.diagonal(D).sum() + jnp.trace(D.T @ D) + D[0, 1]

    close(jax.grad(f)(X), jax.grad(g)(X))
    close(jax.jit(f)(X), g(X))
    with pytest.raises(cr.ChainruleError, match="traced"):
        jax.jit(lambda x: cr.jacobian(jnp.sin)(x).scipy())(X)


def test_refusals():
    J = cr.jacobian(FUNCTIONS["dense"])(X)
    with pytest.raises(cr.ShapeError, match=r"4×5.*takes inputs of shapes \[\(5,\)\], v has shapes \[\(4,\)\]"):
        J @ jnp.ones(4)
    with pytest.raises(cr.ShapeError, match=r"4×5.*5×4"):
        J + J.T
    with pytest.raises(cr.ShapeError, match="not square"):
        J.trace()
    with pytest.raises(cr.ShapeError, match="out of range for the 4 rows"):
        J[4, 0]
    with pytest.raises(cr.ShapeError, match="out of range for the 5 columns"):
        J.col(-6)
    with pytest.raises(cr.ShapeError, match="one number"):
        J * jnp.ones(3)
    with pytest.raises(TypeError):
        J + 1
    with pytest.raises(cr.MemoryLimitError, match=r"300000×300000 .* 671 GiB.*linearize"):
        cr.jacobian(jnp.sin)(jnp.ones(300_000)).dense()
    loop = cr.linearize(lambda x: jax.lax.while_loop(lambda c: c.sum() < 9, lambda c: 2 * c, x))(jnp.ones(3))
    close(loop @ jnp.ones(3), 4 * np.ones(3))
    with pytest.raises(cr.MissingRuleError, match="cannot transpose"):
        loop.T @ jnp.ones(3)


def test_repr_is_one_line_that_says_what_it_is():
    assert repr(cr.jacobian(jnp.sin)(X)) == "Jacobian 5×5 float64 · diagonal · forward, 5 multiply-adds"
    assert "matrix-free" in repr(cr.linearize(jnp.sin)(X))


@pytest.mark.parametrize("transform", [cr.jacobian, cr.linearize])
def test_pictures(transform):
    import matplotlib.pyplot as plt

    plt.switch_backend("Agg")
    J = transform(jnp.sin)(X)
    assert J.spy_text().splitlines()[0].startswith("┌")
    assert "<svg" in J._repr_html_() and "5×5" in J._repr_html_()
    assert J.spy().get_xlabel() == "inputs (n = 5)"
    plt.close("all")


def banded(x):
    return x[1:] * x[:-1]


def curved(x):
    return jnp.tanh(jnp.cumsum(x))


@pytest.mark.parametrize("transform", [cr.jacobian, cr.linearize])
def test_it_cannot_be_changed(transform):
    J = transform(banded)(X)
    for name in ("shape", "T", "nnz", "dtype", "order", "cost", "structure", "in_tree", "in_shapes", "anything"):
        with pytest.raises(AttributeError):
            setattr(J, name, 1)
    with pytest.raises(TypeError):
        J[0, 0] = 1.0


def test_what_it_gives_away_cannot_change_it():
    J, D = cr.jacobian(banded)(X), jax.jacfwd(banded)(X)
    matrix = J.scipy()
    matrix.indices[:], matrix.data[:] = 0, 0.0
    for part in J.coo()[:2]:
        # it belongs to the compiled transform: writing to it would spoil every later Jacobian of this function
        assert not part.flags.writeable
    close(J.dense(), D)
    close(cr.jacobian(banded)(X).dense(), D)


@pytest.mark.parametrize("transform", [cr.jacobian, cr.linearize])
def test_equal_patterns_are_equal_pytrees(transform):
    J, K = transform(banded)(X), transform(banded)(2 * X)
    tree = jax.tree.structure(J)
    assert tree == jax.tree.structure(K) and hash(tree) == hash(jax.tree.structure(K))
    assert tree != jax.tree.structure(J.T) and tree != jax.tree.structure(transform(curved)(X))
    mean = jax.tree.map(lambda a, b: (a + b) / 2, J, K)
    close(mean.dense(), 1.5 * J.dense(), atol=1e-14)
    close(jax.jit(lambda J: J.T)(J).dense(), J.dense().T)
    for first, chosen in ((True, J), (False, K)):
        close(jax.lax.cond(first, lambda J, K: J, lambda J, K: K, J, K).dense(), chosen.dense())
    _, stacked = jax.lax.scan(lambda c, x: (c, transform(banded)(x)), 0, jnp.stack([X, 2 * X]))
    close(stacked.dense(), jnp.stack([J.dense(), K.dense()]))
    close(jax.tree.map(lambda a: a[1], stacked).dense(), K.dense())


METHODS = {
    "J @ v": (lambda J, v: J @ v, lambda D, v: D @ v),
    "J.T @ w": (lambda J, v: J.T @ v, lambda D, v: D.T @ v),
    "J @ matrix": (lambda J, v: J @ jnp.outer(v, v), lambda D, v: D @ jnp.outer(v, v)),
    "J @ K": (lambda J, v: (J @ J.T).dense(), lambda D, v: D @ D.T),
    "sum": (lambda J, v: (2.0 * J + J.T - J / 3).dense(), lambda D, v: 2.0 * D + D.T - D / 3),
    "coo": (lambda J, v: J.coo()[2].sum(), lambda D, v: D.sum()),
    "bcoo": (lambda J, v: J.bcoo().todense(), lambda D, v: D),
    "tree": (lambda J, v: J.tree(), lambda D, v: D),
    "row and column": (lambda J, v: J.row(1) + J.col(0), lambda D, v: D[1] + D[:, 0]),
    "entries": (lambda J, v: J[1, 0] * J[2, 1:], lambda D, v: D[1, 0] * D[2, 1:]),
    "diagonal": (lambda J, v: J.diagonal() * J.trace(), lambda D, v: jnp.diagonal(D) * jnp.trace(D)),
}
AROUND = {
    "jit": jax.jit,
    "vmap": lambda f: lambda x: jax.vmap(f)(jnp.stack([x, -x])),
    "jacfwd": jax.jacfwd,
    "grad": lambda f: jax.grad(lambda x: jnp.sin(f(x)).sum()),
}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("transform", [cr.jacobian, cr.linearize])
def test_every_method_within_every_transform_of_jax(transform, method, around):
    ours, theirs = METHODS[method]
    got = AROUND[around](lambda x: ours(transform(curved)(x), x))(X)
    close(got, AROUND[around](lambda x: theirs(jax.jacfwd(curved)(x), x))(X), atol=1e-12)


def test_the_gradient_by_a_jacobian_is_one():
    J = cr.jacobian(jnp.tanh)(X)
    close(jax.grad(lambda J: (J @ X).sum())(J).diagonal(), X)


KINDS = {
    "forward": cr.jacobian(curved, order="forward"),
    "reverse": cr.jacobian(curved, order="reverse"),
    "linearize": cr.linearize(curved),
}
OPERATIONS = {
    "J + K": (lambda J, K: J + K, lambda A, B: A + B),
    "J - K": (lambda J, K: J - K, lambda A, B: A - B),
    "J + K.T": (lambda J, K: J + K.T, lambda A, B: A + B.swapaxes(-1, -2)),
    "J @ K": (lambda J, K: J @ K, lambda A, B: A @ B),
    "(J.T @ K).T": (lambda J, K: (J.T @ K).T, lambda A, B: B.swapaxes(-1, -2) @ A),
    "-(2 J @ K.T)": (lambda J, K: -(2.0 * J @ K.T), lambda A, B: -2 * A @ B.swapaxes(-1, -2)),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("second", KINDS)
@pytest.mark.parametrize("first", KINDS)
def test_kinds_and_batches_go_together(first, second, operation):
    ours, theirs = OPERATIONS[operation]
    batch, w = jnp.stack([X, 2 * X]), jnp.ones(5)
    single = [k(X) for k in (KINDS[first], KINDS[second])]
    many = [jax.vmap(k)(batch) for k in (KINDS[first], KINDS[second])]
    for J, K in (single, (many[0], single[1]), (single[0], many[1]), many):
        got, D = ours(J, K), theirs(np.asarray(J.dense()), np.asarray(K.dense()))
        close(got.dense(), D, atol=1e-12)
        ones = w if D.ndim == 2 else jnp.ones((2, 5))
        close(got @ ones, D @ w, atol=1e-12)
        close(got.T @ ones, D.swapaxes(-1, -2) @ w, atol=1e-12)


@pytest.mark.parametrize("transform", [cr.jacobian, cr.linearize])
def test_a_batch_of_batches(transform):
    batch = jnp.asarray(RNG.normal(size=(3, 2, 5)))
    J = jax.vmap(jax.vmap(transform(curved)))(batch)
    D = np.asarray(jax.vmap(jax.vmap(jax.jacfwd(curved)))(batch))
    close(J.dense(), D, atol=1e-14)
    close(J.T.dense(), D.swapaxes(-1, -2), atol=1e-14)
    close(J @ batch, np.einsum("abij,abj->abi", D, batch), atol=1e-13)
    close(J[1, 2], D[..., 1, 2], atol=1e-14)
    close(J.diagonal(), np.diagonal(D, axis1=2, axis2=3), atol=1e-14)
    close((J + 2.0 * J).dense(), 3 * D, atol=1e-13)
    close((J @ J.T).dense(), D @ D.swapaxes(-1, -2), atol=1e-12)


@pytest.mark.parametrize("left", [cr.jacobian, cr.linearize])
@pytest.mark.parametrize("right", [cr.jacobian, cr.linearize])
def test_the_chain_rule_over_pytrees(left, right):
    def f(p):
        return {"u": p["a"] * p["b"][0], "v": p["b"]}

    def g(q):
        return q["u"].sum(), q["v"] ** 2

    p, w = {"a": X[:3], "b": X[3:]}, (jnp.array(2.0), X[:2])
    J = left(g)(f(p)) @ right(f)(p)
    equal = lambda a, b: jax.tree.map(lambda s, t: close(s, t, atol=1e-13), a, b)  # noqa: E731
    equal(J.tree(), jax.jacobian(lambda p: g(f(p)))(p))
    equal(J @ p, jax.jvp(lambda p: g(f(p)), (p,), (p,))[1])
    equal(J.T @ w, jax.vjp(lambda p: g(f(p)), p)[1](w)[0])
    assert J.in_tree == jax.tree.structure(p) and J.out_tree == jax.tree.structure(w)


@pytest.mark.parametrize("transform", [cr.jacobian, cr.linearize])
def test_mismatches_name_both_functions(transform):
    J, K = transform(banded)(X), cr.jacobian(curved)(X)
    with pytest.raises(cr.ShapeError, match=r"(?s)compose.*curved takes 5 inputs, banded gives 4 outputs.*5×5.*4×5"):
        K @ J
    with pytest.raises(cr.ShapeError, match=r"(?s)add.*banded.*4×5.*curved.*5×5"):
        J + K
    with pytest.raises(cr.ShapeError, match=r"subtract|add"):
        K - J
    many = jax.vmap(transform(banded))(jnp.stack([X, X]))
    with pytest.raises(cr.ShapeError, match=r"banded.*batch"):
        many @ jnp.ones(3)


def test_scalars_of_every_sort():
    J = cr.jacobian(curved)(X)
    for c in (2, 2.0, np.float64(2), np.array(2.0), jnp.array(2.0), np.int32(2)):
        for K in (c * J, J * c):
            assert isinstance(K, cr.Jacobian)
            close(K.dense(), 2 * J.dense())
    close((J * 2j).dense(), 2j * np.asarray(J.dense()))
    for wrong in ("a", None, [1.0, 2.0], np.ones(5), J):
        with pytest.raises((TypeError, cr.ShapeError)):
            J * wrong
    for call in (lambda: X @ J, lambda: 1 / J, lambda: 1 - J, lambda: J @ None):
        with pytest.raises((TypeError, cr.ShapeError)):
            call()


def test_indices_are_those_of_numpy():
    J = cr.jacobian(lambda x: jnp.outer(x, x).ravel()[:7])(X)
    D = np.asarray(J.dense())
    some = np.array([0, 2])
    for index in (3, -7, slice(-3, None), (slice(None, None, -1), 2), (0, slice(None, None, -2)),
                  Ellipsis, some, (some, some), (some, 1), (slice(1, 5, 2), slice(None, 2)),
                  (np.int64(1), jnp.array(2))):  # fmt: skip
        close(J[index], D[index])
    for index in ((7, 0), (-8, 0), (0, 5), (0, -6), 7):
        with pytest.raises(cr.ShapeError, match=r"index -?\d is out of range for the \d (rows|columns)"):
            J[index]
    for index in ((0, 0, 0), "a", 1.5):
        with pytest.raises((IndexError, TypeError, cr.ShapeError)):
            J[index]
    close(jax.jit(lambda J, k: J[k, 0])(J, 2), D[2, 0])


def test_primitives_without_a_rule_are_named():
    def somewhere(x):  # the places of the nonzeros depend on x
        return sparse.BCOO((x, jnp.argsort(x)[:, None]), shape=(2,))

    J = cr.jacobian(lambda x: (somewhere(x) @ somewhere(x)).data)(jnp.ones(2))
    assert J.fallbacks == ("bcoo_spdot_general",)
    assert cr.jacobian(jnp.sin)(jnp.ones(2)).fallbacks == ()
    assert cr.linearize(jnp.sin)(jnp.ones(2)).fallbacks == ()


def test_values_keep_the_axes_of_what_they_are_differentiated_by():
    """Laid flat, these axes would cost a division for each number in the loop that XLA fuses the values into."""
    x = jnp.asarray(RNG.normal(size=(3, 4)))
    for f, order, shape in (
        (lambda x: jnp.tanh(x).sum() * jnp.sin(x[:, 0]), "forward", (3, 3, 4)),
        (lambda x: jax.nn.softmax(x.reshape(-1)).reshape(2, 6), "reverse", (3, 4, 2, 6)),
        (lambda x: jnp.tanh(x @ W[:, :2]), "forward", (3, 2, 4)),
    ):
        J = cr.jacobian(f, order=order)(x)
        assert shape in [v.shape for v in jax.tree.leaves(J)]
        D = np.asarray(jax.jacfwd(f)(x)).reshape(J.shape)
        close(J.dense(), D, atol=1e-14)
        batch = jax.vmap(cr.jacobian(f, order=order))(jnp.stack([x, x]))
        close((batch * 2.0).dense(), np.stack([2 * D, 2 * D]), atol=1e-14)


def test_two_leaves_of_one_size_keep_their_own_axes():
    x = {"a": jnp.asarray(RNG.normal(size=(2, 6))), "b": jnp.asarray(RNG.normal(size=(3, 4)))}

    def f(x):
        return jnp.tanh(x["a"]).sum() * jnp.sin(x["b"]).sum() * jnp.arange(1.0, 4.0)

    J = cr.jacobian(f, order="reverse")(x)
    D = jax.jacrev(f)(x)
    close(J.dense(), np.concatenate([np.asarray(v).reshape(3, -1) for v in D.values()], axis=1), atol=1e-14)


def test_runs_of_columns_are_placed_at_once():
    """One selection for three columns whose place depends on the row, none for those that are in place already."""
    moved = 3 * np.arange(3)[:, None] + np.arange(3)
    inner = np.broadcast_to(np.arange(9), (3, 9))
    absent = np.array([[0, 1], [-1, -1], [4, 2]])
    for position, selections in ((np.hstack([moved, inner]), 1), (inner, 0), (np.hstack([absent, moved]), 3)):
        vals = RNG.normal(size=position.shape)
        want = np.zeros((3, 9))
        there = position >= 0
        np.add.at(want, (np.nonzero(there)[0], position[there]), vals[there])
        vals = jnp.where(there, vals, jnp.nan)
        run = lambda v, p=position: place(v, p, p.shape[1], 9, (3,))  # noqa: E731
        close(run(vals), want, atol=1e-15)
        assert sum(e.primitive.name == "select_n" for e in jax.make_jaxpr(run)(vals).eqns) == selections
