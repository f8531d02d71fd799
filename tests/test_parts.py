"""Products of independent rows part by part, and what is broadcast taken once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import chainrule as cr
import chainrule._accumulate.parts as parts
import chainrule._blocks.block as block
from chainrule._accumulate.once import repeated

rng = np.random.default_rng(0)
W = [jnp.asarray(rng.normal(size=s) / np.sqrt(s[0])) for s in ((32, 64), (64, 64), (64, 16))]
ROWS = 1024


def network(x):
    return jnp.tanh(jnp.tanh(x @ W[0]) @ W[1]) @ W[2]


@pytest.fixture
def every_size(monkeypatch):
    """Whatever is of several rows is worth a loop."""
    for name, value in {"_LARGE": 1, "_WORTH": 1, "_PART": 256, "_LEAST": 2}.items():
        monkeypatch.setattr(parts, name, value)


def loops(jaxpr):
    return [e for e in jaxpr.eqns if e.primitive.name == "scan"]


def test_a_batch_leaves_little_behind():
    x = jnp.asarray(rng.normal(size=(ROWS, 32)))
    traced = cr.jacobian(lambda x: network(x)).trace(x)
    assert len(loops(traced.jaxpr.jaxpr)) == 1
    compiled = traced.lower().compile()
    J = compiled(x)
    dx = jnp.asarray(rng.normal(size=x.shape))
    y, dy = jax.jvp(network, (x,), (dx,))
    np.testing.assert_allclose((J @ dx).reshape(y.shape), dy, rtol=0, atol=1e-12)
    assert J.nnz == ROWS * 16 * 32
    assert compiled.memory_analysis().temp_size_in_bytes < parts._PART * 4 < ROWS * 64 * 16 * 8 * 3


def test_a_small_batch_is_one_product():
    traced = cr.jacobian(lambda x: network(x)).trace(jnp.ones((16, 32)))
    assert not loops(traced.jaxpr.jaxpr)


def test_several_devices_keep_their_rows(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    traced = cr.jacobian(lambda x: network(x)).trace(jnp.ones((ROWS, 32)))
    assert not loops(traced.jaxpr.jaxpr)


A, B, C = (jnp.asarray(rng.normal(size=s)) for s in ((12, 5, 7), (7, 6), (12, 6, 4)))
ONE = jnp.asarray(rng.normal(size=(1, 5, 7)))


def batch(a, b, c):
    return jnp.einsum("nik,nkj->nij", (a * ONE) @ b, c)


def free_on_the_right(a, b, c):
    return (b.T @ jnp.moveaxis(a, 0, -1).reshape(7, 60)).reshape(6, 5, 12).transpose(2, 1, 0) @ c


def summed(a, b, c):
    return (jnp.exp(a) @ b).sum(1) / (2 + jnp.sin((c * 2).sum(-1)))


def joined(a, b, c):
    return jnp.concatenate([jnp.tanh(a @ b), a @ b], axis=1) @ c


def selected(a, b, c):
    return jax.lax.select_n(a @ b > 0, a @ b, jnp.broadcast_to(b[:5], (12, 5, 6))) @ c


def shaped(a, b, c):
    return ((a @ b).reshape(12, 5, 2, 3)[..., None].squeeze(-1).reshape(12, 10, 3)) @ c.reshape(12, 3, 8)


@pytest.mark.parametrize("f", [batch, free_on_the_right, summed, joined, selected, shaped], ids=lambda f: f.__name__)
def test_parts_are_what_the_whole_is(f, every_size):
    closed = jax.make_jaxpr(f)(A, B, C)
    found = parts.regions(closed.jaxpr)
    assert found
    assert parts.part_size(found[0]) < len(A)
    (whole,) = parts.run(closed.jaxpr, closed.consts, (A, B, C))
    np.testing.assert_allclose(whole, f(A, B, C), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    "f",
    [
        lambda a, b, c: jnp.cumsum(a @ b, axis=0) * 2,
        lambda a, b, c: (a @ b)[::-1] + 1,
        lambda a, b, c: jnp.concatenate([a @ b, a @ b])[:12] * 3,
        lambda a, b, c: jnp.sort(a @ b, axis=0),
        lambda a, b, c: (a @ b).reshape(4, 3, 5, 6).transpose(1, 0, 2, 3),
    ],
    ids=["cumsum", "rev", "concatenate", "sort", "reshape"],
)
def test_rows_that_meet_are_not_taken_apart(f, every_size):
    closed = jax.make_jaxpr(f)(A, B, C)
    (whole,) = parts.run(closed.jaxpr, closed.consts, (A, B, C))
    np.testing.assert_array_equal(whole, f(A, B, C))


def test_what_something_else_uses_is_made_once(every_size):
    def f(a, b, c):
        shared = a @ b
        return shared @ c, shared.sum(0)

    closed = jax.make_jaxpr(f)(A, B, C)
    made = [e.outvars[0].aval.shape for region in parts.regions(closed.jaxpr) for e in region.equations]
    assert made.count((12, 5, 6)) <= 1
    for own, wanted in zip(parts.run(closed.jaxpr, closed.consts, (A, B, C)), f(A, B, C), strict=True):
        np.testing.assert_allclose(own, wanted, rtol=1e-13)


def test_rows_that_no_number_divides_stay_together(every_size, monkeypatch):
    monkeypatch.setattr(parts, "_PART", 2**12)
    a, c = A[:11], C[:11]
    assert not parts.regions(jax.make_jaxpr(batch)(a, B, c).jaxpr)


def test_effects_stay_in_order(every_size):
    seen = []

    def f(a, b, c):
        jax.debug.callback(lambda v: seen.append(float(v)), a[0, 0, 0], ordered=True)
        y = batch(a, b, c)
        jax.debug.callback(lambda v: seen.append(float(v)), y[0, 0, 0], ordered=True)
        return y

    closed = jax.make_jaxpr(f)(A, B, C)
    (whole,) = parts.run(closed.jaxpr, closed.consts, (A, B, C))
    jax.effects_barrier()
    assert seen == [float(A[0, 0, 0]), float(whole[0, 0, 0])]


def test_transforms_go_through(every_size):
    x = jnp.asarray(rng.normal(size=(8, 32)))

    def norm(jacobian):
        return lambda x: (jacobian(network)(x) ** 2).sum()

    ours = norm(lambda f: lambda x: cr.jacobian(f)(x).dense())
    np.testing.assert_allclose(jax.grad(ours)(x), jax.grad(norm(jax.jacfwd))(x), rtol=1e-9, atol=1e-12)
    twice = jnp.stack([x, -x])
    np.testing.assert_allclose(jax.vmap(ours)(twice), jax.vmap(norm(jax.jacfwd))(twice), rtol=1e-12)


def test_known_arguments_stay_known(every_size):
    def f(x, power, kind):
        return network(x) ** power if kind == "power" else x

    x = jnp.asarray(rng.normal(size=(8, 32)))
    J = cr.jacobian(f)(x, 2, "power")
    np.testing.assert_allclose(J.tree(), jax.jacfwd(lambda x: f(x, 2, "power"))(x), rtol=1e-12, atol=1e-13)


def taken_once(f, x):
    return [e for e in cr.jacobian(f).trace(x).jaxpr.jaxpr.eqns if e.primitive.name == "optimization_barrier"]


def rotated(x):
    angle, points = x[:, :1], x[:, 1:]
    return points * jnp.cos(angle) + jnp.roll(points, 1, axis=1) * jnp.sin(angle)


@pytest.mark.parametrize("f", [rotated, lambda x: jnp.sin(x).sum() * x], ids=["rotated", "scaled by a sum"])
def test_a_sine_is_not_taken_for_each_element_of_a_larger_array(f):
    x = jnp.asarray(rng.normal(size=(5, 4)))
    assert taken_once(lambda x: f(x), x)
    np.testing.assert_array_equal(cr.jacobian(f)(x).tree(), jax.jacfwd(f)(x))

    def norm(jacobian):
        return lambda x: (jacobian(x) ** 2).sum()

    ours = norm(lambda x: cr.jacobian(f)(x).dense())
    np.testing.assert_allclose(jax.grad(ours)(x), jax.grad(norm(jax.jacfwd(f)))(x), rtol=1e-12, atol=1e-12)


def test_a_sine_that_is_not_finite_stays_so():
    x = jnp.array([0.0, jnp.inf, 1.0])
    J = cr.jacobian(lambda x: jnp.cumsum(jnp.sin(x)))(x).dense()
    np.testing.assert_array_equal(J, [[1, 0, 0], [1, np.nan, 0], [1, np.nan, np.cos(1.0)]])


@pytest.mark.parametrize(
    ("f", "dtype"),
    [(jnp.sin, float), (lambda x: jnp.sin(jnp.sin(x)) * x, float), (lambda x: jnp.exp(x) * x[:1], float)],
    ids=["element by element", "in a chain", "no sine"],
)
def test_other_sines_are_left_as_they_are(f, dtype):
    assert not taken_once(lambda x: f(x), jnp.arange(1, 5, dtype=dtype))


def outer(rows, columns=lambda x: x):
    """Its Jacobian is broadcast from vectors of several terms: those of its rows, or of its columns."""
    return lambda x: jnp.sum(columns(x)) * rows(x)


def several_terms(x):
    return x * x * x - 2.0 * x * x


@pytest.mark.parametrize(
    ("f", "count"),
    [
        (outer(several_terms), 0),
        (outer(jnp.exp, several_terms), 1),
        (outer(jnp.exp, jnp.exp), 0),
        (lambda x: several_terms(x) * x[:1], 0),
    ],
    ids=["along the rows", "along the columns", "dear by itself", "element by element"],
)
def test_terms_that_are_broadcast_along_the_innermost_axis_are_added_once(f, count):
    x = jnp.asarray(rng.normal(size=256))
    assert len(taken_once(lambda x: f(x), x)) == count
    np.testing.assert_allclose(cr.jacobian(f)(x).dense(), jax.jacfwd(f)(x), rtol=1e-12, atol=1e-13)
    assert not taken_once(lambda x: f(x), x[:8])  # too few to be worth a kernel


@pytest.mark.parametrize(
    ("column", "count"),
    [
        (lambda a: jnp.concatenate([a, a + 1.0]), 1),
        (lambda a: jax.lax.pad(a, 0.0, [(0, 3, 0)]), 1),
        (lambda a: jnp.exp(jnp.concatenate([a, a])), 0),
        (lambda a: a * a * a + a, 0),
    ],
    ids=["concatenated", "padded", "dear by itself", "kept in a register"],
)
def test_what_is_chosen_by_branches_is_written_before_it_is_broadcast(column, count):
    """Along the innermost axis, too: XLA does not take a branch out of a loop."""
    program = jax.make_jaxpr(lambda a, b: jnp.expand_dims(column(a), 1) * b)(jnp.arange(64.0), jnp.ones((1, 512)))
    assert len(repeated(program.jaxpr)) == count


def test_what_is_taken_once_stays_what_it_is():
    x = jnp.array([0.0, -0.0, jnp.inf, -jnp.inf, jnp.nan, 3e-308, 1e308, 1 / 3])
    np.testing.assert_array_equal(jax.jit(block.taken_once)(x), x)
    np.testing.assert_array_equal(jnp.signbit(jax.jit(block.taken_once)(x[:4])), [False, True, False, True])


def test_an_equation_of_several_results_ends_a_region(every_size):
    """Of which only the second is taken."""

    def f(x, handed_on=jax.lax.optimization_barrier):
        _, y = handed_on((x.sum(0), x @ W[0]))
        return jnp.sin(y) @ W[1]

    x = jnp.asarray(rng.normal(size=(64, 32)))
    np.testing.assert_allclose(cr.jacobian(f)(x).tree(), jax.jacfwd(lambda x: f(x, lambda y: y))(x), atol=1e-12)


@pytest.mark.parametrize(
    "position",
    [[0, 1, 2], [2, 3, 0], [-1, 0, 1], [1, -1, 1], [3, -1, -1], [-1, -1, -1], [2, 2, 2], [-1, 3, -1]],
    ids=str,
)
@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
def test_slots_that_are_placed_alike_in_all_rows(position, known):
    vals = np.arange(1.0, 13.0).reshape(4, 3)
    expected = np.zeros((4, 4))
    for slot, to in enumerate(position):
        if to >= 0:
            expected[:, to] += vals[:, slot]
    placed = block.place(vals if known else jnp.asarray(vals), np.array([position]), 3, 4, (4,))
    assert isinstance(placed, np.ndarray) == known
    np.testing.assert_array_equal(placed, expected)
