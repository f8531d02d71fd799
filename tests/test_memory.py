"""What would not fit is refused before it is compiled; dense Jacobians in parts are the whole ones."""

import resource
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import chainrule as cr
from chainrule import _memory
from chainrule._jax import primitive
from chainrule._rules import RULES

rng = np.random.default_rng(0)
A, B = rng.normal(size=(300, 200)), rng.normal(size=(250, 300))


def net(x):
    return jnp.tanh(B @ jnp.tanh(A @ x))


def tree(x):
    return {"a": jnp.tanh(x["u"]) * x["v"].sum(), "b": jnp.outer(x["u"][:3], x["v"])}


def crossing(x):
    """Few outputs of few inputs through an array that is large however it is swept."""
    y = jnp.tanh(jnp.outer(jnp.arange(1.0, 101.0), x) * x.sum())
    return jnp.sort(jnp.sort(y, axis=0), axis=1)[::40, 0]


POINT = jnp.asarray(rng.normal(size=200))
LEAVES = {"u": jnp.asarray(rng.normal(size=5)), "v": jnp.asarray(rng.normal(size=2))}


@pytest.mark.parametrize("chunk_size", [7, "auto"])
def test_of_a_j_that_does_not_fit_the_parts_it_is_computed_in_are_no_way_out(chunk_size):
    with pytest.raises(cr.MemoryLimitError, match=r"J: an array of .*jacobian_chunks") as error:
        cr.jacobian(net, chunk_size=chunk_size, memory_limit=300_000).trace(POINT)
    assert "chunk_size" not in str(error.value)


@pytest.mark.parametrize("order", ["forward", "reverse"])
def test_the_error_says_how_much_which_step_and_the_ways_out(order):
    with pytest.raises(cr.MemoryLimitError) as error:
        cr.jacobian(net, order=order, memory_limit=100_000).trace(POINT)
    for said in ("jacobian", "GiB", "more than the limit of", "chunk_size", "chainrule.linearize", "order="):
        assert said in str(error.value)


def test_the_step_is_named():
    with pytest.raises(cr.MemoryLimitError, match=r"the step `(gather|mul|sort)`"):
        cr.jacobian(crossing, order="forward", memory_limit=4_000_000)(jnp.arange(1.0, 81.0))


def test_a_jacobian_that_fits_is_not_refused():
    assert cr.jacobian(net, memory_limit=10_000_000)(POINT).shape == (250, 200)
    assert cr.jacobian(lambda x: x**2, memory_limit=200_000)(jnp.ones(10_000)).nnz == 10_000


@pytest.mark.parametrize("limit", [0, -1, "1 GB", True])
def test_a_limit_is_a_number_of_bytes(limit):
    with pytest.raises(cr.InputTypeError, match="memory_limit"):
        cr.jacobian(net, memory_limit=limit)(POINT)


@pytest.mark.parametrize("size", [0, -3, 2.5, "all", True])
def test_a_chunk_is_a_number_of_columns(size):
    with pytest.raises(cr.InputTypeError, match="chunk_size"):
        cr.jacobian(net, chunk_size=size)(POINT)


def test_chunks_are_refused_what_the_whole_is():
    with pytest.raises(cr.InputTypeError, match="is not one of"):
        cr.jacobian(net, order="sideways", chunk_size=2)(POINT)
    with pytest.raises(cr.InputTypeError, match="complex outputs"):
        cr.jacobian(lambda x: jnp.exp(jax.lax.complex(x, x)), order="reverse", chunk_size=2)(POINT)


def test_chunks_of_complex_outputs_go_forwards():
    def f(x):
        z = jnp.exp(jax.lax.complex(x, x))
        return z[:1] * z[1:2]  # fewer outputs than inputs

    J = cr.jacobian(f, chunk_size=2)(jnp.ones(3))
    np.testing.assert_allclose(J.dense(), cr.jacobian(f)(jnp.ones(3)).dense(), rtol=1e-13)


@pytest.mark.parametrize("order", ["auto", "forward", "reverse"])
@pytest.mark.parametrize("size", [1, 64, 250, 10_000, "auto"])
def test_chunks_are_the_whole(order, size):
    J = cr.jacobian(net, order=order, chunk_size=size)(POINT)
    np.testing.assert_allclose(J.dense(), jax.jacfwd(net)(POINT), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(J @ POINT, jax.jvp(net, (POINT,), (POINT,))[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("order", ["forward", "reverse"])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_chunks_of_pytrees(order, size):
    J = cr.jacobian(tree, order=order, chunk_size=size)(LEAVES)
    for ours, theirs in zip(jax.tree.leaves(J.tree()), jax.tree.leaves(jax.jacfwd(tree)(LEAVES)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-13, atol=1e-13)


def test_chunks_of_everything_else():
    v, aux = cr.jacobian(lambda x: (jnp.sin(x), x[0]), has_aux=True, chunk_size=2)(jnp.ones(3))
    np.testing.assert_allclose(v.diagonal(), np.cos(np.ones(3)))
    assert aux == 1.0
    H = cr.hessian(lambda x: jnp.prod(jnp.sin(x)), chunk_size=2)(jnp.arange(1.0, 5.0))
    np.testing.assert_allclose(H.dense(), jax.hessian(lambda x: jnp.prod(jnp.sin(x)))(jnp.arange(1.0, 5.0)), rtol=1e-12)
    y, J = cr.value_and_jacobian(jnp.cumsum, chunk_size=2)(jnp.ones(3, np.float32))
    assert (y.tolist(), J.dtype) == ([1.0, 2.0, 3.0], np.float32)
    z = jnp.asarray(np.arange(3.0) + 1j)
    J = cr.jacobian(jnp.exp, holomorphic=True, chunk_size=2)(z)
    np.testing.assert_allclose(J.diagonal(), np.exp(z))
    assert cr.jacobian(lambda x: x, chunk_size=2)(jnp.ones(0)).shape == (0, 0)


def test_chunks_inside_transforms():
    J = cr.jacobian(jnp.tanh, chunk_size=2)
    x = jnp.arange(12.0).reshape(4, 3) / 7

    def norm(x):
        return (J(x).dense() ** 2).sum()

    np.testing.assert_allclose(jax.jit(jax.vmap(norm))(x), [(jax.jacfwd(jnp.tanh)(r) ** 2).sum() for r in x])
    np.testing.assert_allclose(jax.grad(norm)(x[0]), jax.grad(lambda x: (jax.jacfwd(jnp.tanh)(x) ** 2).sum())(x[0]))


def test_auto_takes_parts_only_where_the_whole_does_not_fit():
    def summed(x):
        y = jnp.tanh(jnp.outer(jnp.arange(1.0, 101.0), x) * x.sum())
        return jnp.cumsum(jnp.sort(y, axis=0) ** 2, axis=1)[::40, -1]

    x = jnp.arange(1.0, 81.0)
    whole = cr.jacobian(summed)(x)
    transform = cr.jacobian(summed, order="forward", memory_limit=1_000_000, chunk_size="auto")
    np.testing.assert_allclose(transform(x).dense(), whole.dense(), rtol=1e-12, atol=1e-12)
    peak = [t.trace(x).lower().compile().memory_analysis().temp_size_in_bytes for t in (
        transform, cr.jacobian(summed, order="forward")
    )]  # fmt: skip
    assert peak[0] < peak[1] / 4
    assert cr.jacobian(lambda x: x**2, chunk_size="auto")(x).nnz == 80


def test_a_pattern_that_would_not_fit_is_not_looked_for():
    n = 10**6
    J = cr.jacobian(lambda x: x * x.sum())(jnp.ones(n))
    assert "too large to classify" in repr(J)
    with pytest.raises(cr.MemoryLimitError, match="J @ v"):
        _ = J.nnz
    with pytest.raises(cr.MemoryLimitError, match="dense"):
        J.dense()
    np.testing.assert_allclose(J @ np.ones(n), 2.0 * n)


def test_the_limit_is_most_of_what_is_free():
    assert 0 < _memory.limit() <= _memory.free_memory()


def test_free_memory_respects_the_control_group(tmp_path, monkeypatch):
    most, used = tmp_path / "max", tmp_path / "current"
    most.write_text("1000000")
    used.write_text("400000")
    monkeypatch.setattr(_memory, "_CGROUPS", ((str(most), str(used)),))
    assert _memory.free_memory() == 600_000
    most.write_text("max")
    assert _memory.free_memory() > 600_000


N = 10**5
# functions of N numbers whose result, or a step on the way, has a pattern of some 10¹⁰ entries
EXPLODING = {
    "kron": lambda x: jnp.kron(x, x),
    "outer, laid flat": lambda x: jnp.outer(x, x).reshape(-1)[::7],
    "differences": lambda x: (x[:, None] - x[None, :]).reshape(-1) ** 2,
    "grid": lambda x: jnp.stack(jnp.meshgrid(x, x)),
    "concatenated": lambda x: jnp.concatenate([jnp.outer(x, x), x[None]]),
    "tiled": lambda x: jnp.tile(x, N),
    "repeated": lambda x: jnp.repeat(x, N),
    "padded": lambda x: jnp.pad(x, (0, N**2)),
    "padded and summed": lambda x: jnp.pad(x, (0, N**2)).sum() * x[:2],
    "padded in between": lambda x: jax.lax.pad(x, 0.0, [(0, 0, N)]),
    "gathered": lambda x: x[jnp.zeros(N**2, jnp.int32)],
    "one of many": lambda x: x[jnp.arange(N**2) % N],
    "scattered": lambda x: jnp.zeros((N, N)).at[jnp.arange(N), jnp.arange(N)].set(x),
    "summed by segments": lambda x: jax.ops.segment_sum(jnp.outer(x, x).ravel(), jnp.arange(N**2) % 7, 7),
    "convolved": lambda x: jnp.convolve(x, jnp.ones(N)),
    "windows": lambda x: jax.lax.reduce_window(jnp.outer(x, x), 0.0, jax.lax.add, (3, 3), (1, 1), "SAME"),
    "the greatest of windows": lambda x: jax.lax.reduce_window(
        jnp.outer(x, x), -jnp.inf, jax.lax.max, (3, 3), (1, 1), "SAME"
    ),
    "one hot": lambda x: jax.nn.one_hot(jnp.arange(N), N) @ x,
    "a triangle": lambda x: jnp.tril(jnp.outer(x, x)),
    "a matrix in a loop": lambda x: jax.lax.fori_loop(0, 5, lambda i, c: c * x[None] + x[:, None], jnp.ones((N, N))),
    "the states of many loops": lambda x: jax.vmap(
        lambda a: jax.lax.scan(lambda c, b: (c + a * b, c), jnp.zeros((), x.dtype), x)[1]
    )(x),
    "in a loop": lambda x: jax.lax.scan(lambda c, _: (jnp.kron(c, c)[:N], None), x, None, length=40)[0],
}


@pytest.mark.parametrize("order", ["auto", "forward", "reverse"])
@pytest.mark.parametrize("name", EXPLODING)
def test_a_pattern_that_would_not_fit_is_refused_before_it_is_there(name, order):
    """Without the estimates NumPy raises a MemoryError of its own, or the system ends the process."""
    tracemalloc.start()
    try:
        with pytest.raises(cr.MemoryLimitError, match=r"GiB, more than the limit of 1 GiB. ") as error:
            cr.jacobian(EXPLODING[name], order=order, memory_limit=2**30).trace(jax.ShapeDtypeStruct((N,), float))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * 2**30  # the limit, and a part of a product
    assert "chainrule.linearize" in str(error.value)


@pytest.mark.parametrize("order", ["auto", "forward"])
def test_a_product_of_all_pairs_fits_where_its_values_repeat(order):
    J = cr.jacobian(lambda x: jnp.outer(x, x), order=order, memory_limit=2**26)
    assert J.trace(jax.ShapeDtypeStruct((N,), float)).out_info.shape == (N**2, N)


def test_more_columns_than_have_numbers_are_refused():
    with pytest.raises(cr.MemoryLimitError, match="more than 2,147,483,647 columns"):
        cr.jacobian(jnp.sin, memory_limit=2**60).trace(jax.ShapeDtypeStruct((2**31,), np.float32))


def test_what_no_estimate_foresaw_names_the_step(monkeypatch):
    def failing(context, eqn, values):
        raise MemoryError("Unable to allocate 37 GiB")

    monkeypatch.setitem(RULES, primitive("rev"), failing)
    with pytest.raises(cr.MemoryLimitError, match=r"the step `rev`: Unable to allocate 37 GiB. Ways out"):
        cr.jacobian(lambda x: x[::-1])(jnp.ones(3))


def test_a_function_that_runs_out_of_memory_is_told_the_ways_out():
    def f(x):
        raise MemoryError("Unable to allocate 37 GiB")

    with pytest.raises(cr.MemoryLimitError, match=r"jacobian of f: Unable to allocate 37 GiB. Ways out"):
        cr.jacobian(f)(jnp.ones(3))


@pytest.mark.parametrize("transform", [cr.check, cr.explain])
def test_values_that_would_not_fit_are_refused(transform):
    with (
        _memory.limited(10**6),
        pytest.raises(cr.MemoryLimitError, match=r"(check|explain) of .*: a value: an array of 1000×1000 entries"),
    ):
        transform(lambda x: jnp.outer(x, x).sum())(jnp.ones(1000))


@pytest.mark.parametrize("f", [jnp.diag, lambda x: jnp.tril(jnp.outer(x, x)), lambda x: jnp.diag(x) @ x])
def test_zeros_of_any_size_are_known(f):
    """The zeros of a matrix of more than 2²⁴ elements were taken for unknown numbers, and the step for one that is not
    linear.
    """
    assert cr.jacobian(f).trace(jax.ShapeDtypeStruct((5000,), np.float32)).out_info.shape[1] == 5000


def test_the_address_space_of_the_process_is_respected(monkeypatch):
    used = _memory._available()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (2**50, 2**50))
    left = _memory._left_to_process()
    assert used is not None and left is not None and 0 < 2**50 - left < 2**46  # what is mapped already
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10**6, 10**6))
    assert _memory.free_memory() == 0
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    assert _memory._left_to_process() is None
