"""What would not fit is refused before it is compiled; dense Jacobians in parts are the whole ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import chainrule as cr
from chainrule import _memory

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
