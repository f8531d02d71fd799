"""What test_sharded.py asserts on eight devices: run as a process of its own, `python sharded.py auto` or `explicit`.

JAX takes the number of devices of a CPU when it starts, so that these functions cannot run beside other tests.
"""

import re
import sys
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, auto_axes
from jax.sharding import PartitionSpec as P

import chainrule as cr

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

rng = np.random.default_rng(0)
SAMPLES, POINT, LINE, GRID = (rng.normal(size=s) for s in ((16, 6), (5,), (2, 32), (2, 8, 8)))
W1, W2, TARGETS, DATA = (rng.normal(size=s) for s in ((6, 9), (9, 3), (64,), (64, 5)))


def brusselator(x):
    u, v = x
    around = [(k, by) for k in range(u.ndim) for by in (1, -1)]
    lu, lv = (sum(jnp.roll(w, by, k) for k, by in around) - len(around) * w for w in (u, v))
    return jnp.stack([1.0 + u**2 * v - 4.4 * u + lu, 3.4 * u - u**2 * v + lv])


def network(x, w1, w2):
    return jax.nn.softplus(x @ w1) @ w2


def square(x, w1):
    return 2.0 * x + jnp.tanh(jnp.tanh(x @ w1) @ w1.T)


def residuals(p, X, y):
    return jnp.tanh(X @ p) - y


def mesh(kind, *sizes):
    return jax.make_mesh(sizes, ("a", "b")[: len(sizes)], axis_types=(kind,) * len(sizes))


def put(mesh, array, *spec):
    return jax.device_put(array, NamedSharding(mesh, P(*spec)))


def collectives(compiled):
    """How many of each the program has."""
    names = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter|collective-broadcast|ragged-all-to-all"
    return Counter(re.findall(rf"\b({names})(?:-start)?\(", compiled.as_text()))


def specs(J):
    return [tuple(v.sharding.spec) + (None,) * (v.ndim - len(v.sharding.spec)) for v in jax.tree.leaves(J)]


def close(ours, theirs, rtol=1e-12):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=rtol, atol=rtol)


def same(ours, theirs):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def problems(kind):
    """name: function, its arguments over devices, how its output is split, collectives of f itself."""
    one, two = mesh(kind, 8), mesh(kind, 4, 2)
    halo = Counter({"collective-permute": 4})
    weights = put(one, W1), put(one, W2)
    return {
        "1-D stencil": (brusselator, (put(one, LINE, None, "a"),), (None, "a"), halo),
        "2-D stencil": (brusselator, (put(one, GRID, None, "a"),), (None, "a"), halo),
        "2-D stencil, both axes": (brusselator, (put(two, GRID, None, "a", "b"),), (None, "a", "b"), None),
        "per sample": (network, (put(one, SAMPLES, "a"), *weights), ("a",), Counter()),
        "least squares": (
            residuals,
            (put(one, POINT), put(one, DATA, "a"), put(one, TARGETS, "a")),
            ("a",),
            Counter(),
        ),
    }


def with_types_of_outputs(f, x):
    """A stencil reads beyond its own part, which explicit axes leave to the compiler: say how its output is split."""
    return auto_axes(f, out_sharding=jax.typeof(x).sharding) if f is brusselator else f


def values_of(kind):
    """The values are split as the primal's output, bit for bit those of one device, and take no collective at all."""
    for name, (f, args, split, of_primal) in problems(kind).items():
        on_mesh = with_types_of_outputs(f, args[0]) if kind == AxisType.Explicit else f
        J, alone = cr.jacobian(on_mesh)(*args), cr.jacobian(f)(*map(np.asarray, args))
        assert all(spec[: len(split)] == split and not any(spec[len(split) :]) for spec in specs(J)), (name, specs(J))
        same(J, alone)
        assert J.structure == alone.structure and J.nnz == alone.nnz, name
        of_values = collectives(cr.jacobian(on_mesh).trace(*args).lower().compile())
        assert not of_values, (name, of_values)
        primal = collectives(jax.jit(on_mesh).lower(*args).compile())
        assert primal == of_primal if of_primal is not None else primal, (name, primal)
        if name == "1-D stencil":
            products(J, alone, args[0])


def products(J, alone, x):
    """Products with pytrees, flat vectors and matrices give the numbers of one device."""
    m, n = J.shape
    v, w = np.linspace(-1.0, 1.0, n), np.linspace(0.0, 2.0, m)
    like = jax.device_put(v.reshape(x.shape), x.sharding)
    close((J @ like, J @ v, J.T @ w), (alone @ v.reshape(x.shape), alone @ v, alone.T @ w))
    close(J @ np.stack([v, 2 * v], 1), alone @ np.stack([v, 2 * v], 1))
    same(
        (J.coo()[2], J.diagonal(), J.row(1), J.dense()), (alone.coo()[2], alone.diagonal(), alone.row(1), alone.dense())
    )
    close(jax.jit(lambda J, v: (2.0 * J - J) @ v)(J, v), alone @ v)
    if m == n:
        close((J.trace(), J.solve(w), J.slogdet()), (alone.trace(), alone.solve(w), alone.slogdet()), 1e-9)


def blocks(kind):
    """A solve and a determinant of diagonal blocks stay on their devices: sums over these, no entries gathered."""
    one = mesh(kind, 8)
    args, b = (put(one, SAMPLES, "a"), put(one, W1)), put(one, np.ones_like(SAMPLES), "a")
    J, alone = cr.jacobian(square)(*args), cr.jacobian(square)(SAMPLES, W1)
    assert specs(J) == [("a", None, None)] and str(J.structure) == "block-diagonal (16 blocks 6×6)"
    close(J.solve(b), alone.solve(np.asarray(b)))
    close((J.slogdet(), J.det(), J.trace()), (alone.slogdet(), alone.det(), alone.trace()))
    close(J.inverse().dense(), alone.inverse().dense())
    close(J.factorize().solve(b), alone.solve(np.asarray(b)))
    for what in (lambda J: J.slogdet(), lambda J: J.trace(), lambda J: J.solve(b)):
        assert set(collectives(jax.jit(what).lower(J).compile())) <= {"all-reduce"}
    assert J.solve(b).sharding.spec[0] == "a" and (J @ b).sharding.spec[0] == "a"


def dense_parts(kind):
    """shard_axis= splits dense columns, or rows, over devices; each computes its own, with no collective."""
    A = rng.normal(size=(24, 40))
    x = np.linspace(0.0, 1.0, 40)

    def f(x):
        return jnp.tanh(A @ x) ** 2

    want = jax.jacfwd(f)(x)
    with jax.set_mesh(mesh(kind, 8)):
        here = jax.device_put(x, P())
        for order, shape in (("forward", (24, 40)), ("reverse", (40, 24))):
            transform = cr.jacobian(f, order=order, shard_axis="a")
            J = transform(here)
            (value,) = jax.tree.leaves(J)
            assert value.shape == shape and specs(J) == [(None, "a")], (order, specs(J))
            assert value.addressable_shards[0].data.shape == (shape[0], shape[1] // 8)
            assert not collectives(transform.trace(here).lower().compile())
            close(J.dense(), want)
            size = 16 if order == "forward" else "auto"
            close(cr.jacobian(f, order=order, shard_axis="a", chunk_size=size)(here).dense(), want)
        few = cr.jacobian(lambda x: jnp.tanh(A[:, :37] @ x), order="forward", shard_axis="a")(x[:37])
        close(few.dense(), jax.jacfwd(lambda x: jnp.tanh(A[:, :37] @ x))(x[:37]))  # 37 columns on 8 devices
        H = cr.hessian(lambda x: f(x).sum(), shard_axis="a")(here)
        close(H.dense(), jax.hessian(lambda x: f(x).sum())(x))
        y, J = cr.value_and_jacobian(f, shard_axis="a")(here)
        close((y, J.dense()), (f(x), want))


def refusals():
    def f(x):
        return x**2

    def refused(fragment, x, **options):
        with pytest.raises(cr.InputTypeError, match="^jacobian of f: .*" + re.escape(fragment)):
            cr.jacobian(f, **options)(x)

    x = np.ones(8)
    refused("shard_axis='a' needs a mesh, and none is in force", x, shard_axis="a")
    with jax.set_mesh(mesh(AxisType.Auto, 4, 2)):
        refused("shard_axis='c' is not an axis of the mesh; it has 'a' (4 devices), 'b' (2 devices)", x, shard_axis="c")
        refused("chunks are parts of one sweep", x, shard_axis="a", order="factored")
        own = jax.shard_map(lambda x: cr.jacobian(f, shard_axis="a")(x).diagonal(), in_specs=P("a"), out_specs=P("a"))
        with pytest.raises(cr.InputTypeError, match="is a manual axis here"):
            own(x)
    on_mesh = put(mesh(AxisType.Auto, 8), x)  # the mesh of an argument does as well
    close(cr.jacobian(f, shard_axis="a")(on_mesh).dense(), np.diag(2 * x))


def closed_over(kind):
    """Parameters and data that a function closes over stay split; a mask among them still shapes the pattern."""
    one = mesh(kind, 8)
    X, p = put(one, DATA, "a"), put(one, POINT)
    with jax.set_mesh(one):
        J = cr.jacobian(lambda p: jnp.tanh(X @ p))(p)
        assert specs(J) == [("a", None)]
        close(J.dense(), jax.jacfwd(lambda p: jnp.tanh(DATA @ p))(POINT))
        zero = np.where(np.arange(64)[:, None] % 5 == np.arange(5), DATA, 0.0)
        Z = put(one, zero, "a")
        sparse = cr.jacobian(lambda p: jnp.tanh(Z @ p))(p)
        assert sparse.nnz == 64
        close(sparse.dense(), jax.jacfwd(lambda p: jnp.tanh(zero @ p))(POINT))


def explicit_programs():
    """What only explicit axes have, loops, branches and derivative rules of one's own, inside jit and outside."""
    ramp = jax.custom_vjp(jnp.sin)
    ramp.defvjp(lambda x: (jnp.sin(x), x), lambda x, w: (2.0 * w * jnp.cos(x),))
    one = mesh(AxisType.Explicit, 8)
    typed = {
        "out_sharding": lambda x: jnp.einsum("bi,ij->bj", x, W1, out_sharding=P(None, None)),
        "summed": lambda x: jnp.einsum("bi,bj->ij", x, jnp.tanh(x), out_sharding=P()),
        "reshard": lambda x: jnp.tanh(jax.sharding.reshard(x, P(None, None))),
    }
    plain = {
        "custom_jvp": lambda x: jax.nn.logsumexp(jax.nn.relu(x) @ W1, axis=1),
        "custom_vjp": ramp,
        "scan": lambda x: jax.lax.scan(lambda c, _: (jax.nn.silu(c) * 1.5, None), x, None, length=3)[0],
        "cond": lambda x: jax.lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x),
    }
    alone = {
        "out_sharding": lambda x: x @ W1,
        "summed": lambda x: x.T @ jnp.tanh(x),
        "reshard": jnp.tanh,
    }
    with jax.set_mesh(one):
        x = jax.device_put(SAMPLES, P("a"))
        for k, (name, f) in enumerate((typed | plain).items()):
            J = (jax.jit(cr.jacobian(f)) if k % 2 else cr.jacobian(f))(x)
            own = cr.jacobian(alone.get(name, f))(SAMPLES)
            for ours, theirs in zip(jax.tree.leaves(J), jax.tree.leaves(own), strict=True):
                close(ours, theirs)
            assert J.nnz == own.nnz and jax.typeof(J @ x) == jax.typeof(f(x)), name
        y, J = cr.value_and_jacobian(lambda x: (jnp.tanh(x), x.sum()), has_aux=True)(x)
        assert jax.typeof(y[0]).sharding.spec == P("a", None)
        close(y, (np.tanh(SAMPLES), SAMPLES.sum()))
        grad = jax.jit(jax.grad(lambda x: cr.jacobian(lambda x: jnp.tanh(x) * 2.0)(x).slogdet()[1]))(x)
        close(grad, -2.0 * np.tanh(SAMPLES))
        rows = jax.vmap(cr.jacobian(lambda r: jnp.tanh(r @ W1)))(x).dense()
    close(rows, jax.vmap(jax.jacfwd(lambda r: jnp.tanh(r @ W1)))(SAMPLES))


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 8)  # here: pytest imports this file too, for its doctests
    kind = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}[sys.argv[1]]
    values_of(kind)
    blocks(kind)
    dense_parts(kind)
    closed_over(kind)
    refusals() if kind == AxisType.Auto else explicit_programs()
