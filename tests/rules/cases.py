"""One line a case: the primitive's name, a linear function of lax, the shapes of its operands.

To add a rule's test, add a line. The coefficients that stand in the functions are fixed random numbers.
"""

import jax
import jax.ad_checkpoint
import jax.numpy as jnp
import numpy as np
from jax import lax

rng = np.random.default_rng(3)


def c(*shape):
    return rng.normal(size=shape)


CONV = lax.conv_general_dilated
WIDE = {"window_dimensions": (2, 1), "window_strides": (2, 1), "padding": ((1, 0), (0, 0))}
C34, C4, C33, C435 = c(3, 4), c(4), c(3, 3) + 3 * np.eye(3), c(4, 3, 5)
KERNEL1, KERNEL2 = c(2, 3, 2), c(3, 2, 2, 3)
HERE = np.array([[0], [2], [2]])
MASK = np.array([True, False, True, True])


def ascending(a):
    """An operand whose windows have no ties."""
    return jnp.asarray(np.random.default_rng(0).permutation(a.size).reshape(a.shape), a.dtype)


def pooled(a, pick, wide):
    return jax.linearize(lambda t: lax.reduce_window(t, -jnp.inf, lax.max, *wide), ascending(a))[1](a) if pick else None


def unpooled(a):
    y, pull = jax.vjp(
        lambda t: lax.reduce_window(t, -jnp.inf, lax.max, (2, 1), (2, 1), "VALID"),
        ascending(jnp.zeros((4, 3), a.dtype)),
    )
    return pull(a)[0]


def solved(b):
    return lax.custom_linear_solve(
        lambda x: C33 @ x, b, lambda _, r: jnp.linalg.inv(C33) @ r, lambda _, r: jnp.linalg.inv(C33).T @ r
    )


def branches(t, index):
    return lax.switch(index, [lambda a: a * 2.0, lambda a: jnp.cumsum(a, 0), lambda a: jnp.zeros_like(a)], t)


def at_unknown(g):
    """Hide a whole number from the trace, so that the rule has to do without it."""
    return lambda *a: g(*a, lax.optimization_barrier(jnp.array(1)))


def scatter_dims(a, updates, op):
    numbers = lax.ScatterDimensionNumbers(
        update_window_dims=(1,), inserted_window_dims=(0,), scatter_dims_to_operand_dims=(0,)
    )
    return op(a, HERE, updates, numbers)


CASES = [
    ("mul", lambda a: lax.mul(a, C34), [(3, 4)]),
    ("mul", lambda a: lax.mul(np.float64(2.5), a), [()]),
    ("mul", lambda a: a * jnp.tril(C33), [(3, 3)]),
    ("div", lambda a: lax.div(a, C34), [(3, 4)]),
    ("neg", lax.neg, [(3, 4)]),
    ("neg", lax.neg, [(0, 4)]),
    ("add", lax.add, [(3, 4), (3, 4)]),
    ("add_any", lambda a: jax.vjp(lambda t: (t, t), a)[1]((a, 2.0 * a))[0], [(3, 4)]),
    ("sub", lax.sub, [(4,), (4,)]),
    ("copy", jnp.copy, [(3, 4)]),
    ("convert_element_type", lambda a: lax.convert_element_type(a, np.complex128), [(3, 4)]),
    ("broadcast_in_dim", lambda a: lax.broadcast_in_dim(a, (2, 3, 4), (1, 2)), [(3, 4)]),
    ("broadcast_in_dim", lambda a: lax.broadcast_in_dim(a, (3, 4), (0, 1)), [(1, 4)]),
    ("broadcast_in_dim", lambda a: lax.broadcast_in_dim(a, (3,), ()), [()]),
    ("reshape", lambda a: lax.reshape(a, (2, 6)), [(3, 4)]),
    ("reshape", lambda a: lax.reshape(a, (1, 3, 2, 2)), [(3, 4)]),
    ("reshape", lambda a: lax.reshape(a, ()), [(1, 1)]),
    ("squeeze", lambda a: lax.squeeze(a, (1,)), [(3, 1, 4)]),
    ("expand_dims", lambda a: lax.expand_dims(a, (0, 2)), [(3, 4)]),
    ("transpose", lambda a: lax.transpose(a, (2, 0, 1)), [(2, 3, 4)]),
    ("rev", lambda a: lax.rev(a, (0,)), [(3, 4)]),
    ("slice", lambda a: lax.slice(a, (1, 0), (3, 4), (1, 3)), [(3, 4)]),
    ("slice", lambda a: lax.slice(a, (0, 2), (3, 2)), [(3, 4)]),
    ("dynamic_slice", lambda a: lax.dynamic_slice(a, (1, 1), (2, 2)), [(3, 4)]),
    ("dynamic_slice", at_unknown(lambda a, i: lax.dynamic_slice(a, (i, i), (2, 2))), [(3, 4)]),
    ("dynamic_update_slice", lambda a, b: lax.dynamic_update_slice(a, b, (1, 2)), [(3, 4), (2, 2)]),
    ("dynamic_update_slice", at_unknown(lambda a, b, i: lax.dynamic_update_slice(a, b, (i, i))), [(3, 4), (2, 2)]),
    ("pad", lambda a: lax.pad(a, 0.0, ((1, 2, 1), (0, -1, 0))), [(3, 4)]),
    ("pad", lambda a: lax.pad(a, 0.0, ((0, 9, 0),)), [(1,)]),
    ("concatenate", lambda a, b: lax.concatenate([a, b, a], 1), [(3, 4), (3, 2)]),
    ("stack", lambda a, b: jnp.stack([a, b], 1), [(3, 4), (3, 4)]),
    ("unstack", lambda a: jnp.unstack(a, axis=1), [(3, 4)]),
    ("split", lambda a: lax.split(a, (1, 3), 1), [(3, 4)]),
    ("tile", lambda a: jnp.tile(a, (2, 3)), [(3, 4)]),
    ("tile", lambda a: jnp.tile(a, (1, 3)), [(3, 1)]),
    ("select_n", lambda a, b: lax.select_n(MASK, a, b), [(4,), (4,)]),
    ("select_n", at_unknown(lambda a, i: jnp.where(i > 0, a, 0.0 * a)), [(3,)]),
    ("select_n", lambda a: jnp.where(lax.optimization_barrier(jnp.asarray(MASK)), a, jnp.zeros_like(a)), [(4,)]),
    ("gather", lambda a: a[np.array([0, 2, 2, -1])], [(3, 4)]),
    ("gather", lambda a: a.at[np.array([0, 9])].get(mode="fill", fill_value=0), [(3, 4)]),
    ("gather", at_unknown(lambda a, i: a[jnp.stack([i, i])]), [(3, 4)]),
    ("scatter-add", lambda a, b: scatter_dims(a, b, lax.scatter_add), [(3, 4), (3, 4)]),
    ("scatter-add", lambda b: jnp.zeros((9,)).at[np.array([1, 1, 8, 20])].add(b, mode="drop"), [(4,)]),
    ("scatter-add", at_unknown(lambda a, b, i: a.at[i].add(b)), [(3, 4), (4,)]),
    ("scatter", lambda a, b: a.at[np.array([2, 0])].set(b, unique_indices=True), [(3, 4), (2, 4)]),
    ("scatter", at_unknown(lambda a, b, i: a.at[i].set(b)), [(3, 4), (4,)]),
    ("scatter_sub", lambda a, b: scatter_dims(a, b, lax.scatter_sub), [(3, 4), (3, 4)]),
    ("scatter_mul", lambda a: a.at[np.array([0, 1])].mul(C4[:2], unique_indices=True), [(3,)]),
    ("reduce_sum", lambda a: a.sum(1), [(3, 4)]),
    ("reduce_sum", lambda a: a.sum(), [(2, 3, 2)]),
    ("reduce_sum", lambda a: a.sum((0, 2)), [(2, 3, 2)]),
    ("reduce_sum", lambda a: a.sum(0), [(0, 4)]),
    ("cumsum", lambda a: lax.cumsum(a, 1), [(3, 4)]),
    ("cumsum", lambda a: lax.cumsum(a, 0, reverse=True), [(3, 4)]),
    ("reduce_window_sum", lambda a: lax.reduce_window(a, 0.0, lax.add, *WIDE.values()), [(4, 3)]),
    ("reduce_window_sum", lambda a: lax.reduce_window(a, 0.0, lax.add, (2,), (1,), ((1, 2),), (2,), (3,)), [(4,)]),
    ("select_and_gather_add", lambda a: pooled(a, True, ((2, 2), (1, 1), "SAME")), [(4, 3)]),
    ("select_and_scatter_add", unpooled, [(2, 3)]),
    ("dot_general", lambda a: a @ C4, [(3, 4)]),
    ("dot_general", lambda a: C34 @ a, [(4, 2)]),
    ("dot_general", lambda a: jnp.einsum("bij,bjk->bik", a, C435), [(4, 2, 3)]),
    ("dot_general", lambda a: jnp.einsum("ij,kl->ijkl", a, C34), [(2, 2)]),
    ("dot_general", lambda a: jnp.einsum("ij,ij->i", a, C33), [(3, 3)]),
    ("dot_general", lambda a: jnp.tril(C33) @ a, [(3, 2)]),
    ("dot_general", lambda a: a @ C34[:0], [(2, 0)]),
    ("conv_general_dilated", lambda a: CONV(a, KERNEL1, (2,), ((1, 2),), rhs_dilation=(2,)), [(1, 3, 6)]),
    ("conv_general_dilated", lambda a: CONV(a, KERNEL2, (1, 2), ((1, 0), (2, 1)), lhs_dilation=(2, 1)), [(2, 2, 3, 4)]),
    ("conv_general_dilated", lambda a: CONV(a, KERNEL2[:, :1], (1, 1), "SAME", feature_group_count=3), [(1, 3, 3, 3)]),
    ("conv_general_dilated", lambda k: CONV(C435[:1], k, (1,), "VALID"), [(2, 3, 2)]),
    ("triangular_solve", lambda b: lax.linalg.triangular_solve(C33, b, left_side=True, lower=True), [(3, 2)]),
    ("triangular_solve", lambda b: lax.linalg.triangular_solve(C33, b, transpose_a=True), [(2, 3)]),
    ("custom_linear_solve", solved, [(3,)]),
    ("fft", lambda a: jnp.fft.fft(a, axis=0).real, [(3, 4)]),
    ("fft", jnp.fft.rfft, [(3, 4)]),
    ("real", lambda a: lax.real(lax.complex(a, 2.0 * a)), [(3,)]),
    ("imag", lambda a: lax.imag(lax.complex(a, 2.0 * a)), [(3,)]),
    ("complex", lambda a, b: lax.complex(a, b), [(3,), (3,)]),
    ("conj", lambda a: lax.conj(lax.complex(a, a)), [(3,)]),
    ("reduce_precision", lambda a: lax.reduce_precision(a, 11, 52), [(3,)]),
    ("optimization_barrier", lambda a, b: lax.optimization_barrier((a, b)), [(3,), (2, 2)]),
    ("jit", lambda a: jax.jit(lambda t: 3.0 * t)(a), [(3, 4)]),
    ("remat", lambda a: jax.checkpoint(lambda t: 3.0 * t)(a), [(3, 4)]),
    ("cond", lambda a: branches(a, 1), [(3, 4)]),
    ("cond", at_unknown(branches), [(3, 4)]),
    ("scan", lambda a: lax.map(lambda t: t[::-1] * 2.0, a), [(3, 4)]),
    ("scan", lambda a: lax.scan(lambda s, t: (0.5 * s + t, s), jnp.zeros(4), a), [(3, 4)]),
    ("scan", lambda a: lax.scan(lambda s, t: (s + 1, t * s.astype(float)), jnp.int32(1), a)[1], [(3,)]),
    ("while", lambda a: lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, 0.5 * s[1]), (0, a))[1], [(3,)]),
    (
        "sharding_constraint",
        lambda a: lax.with_sharding_constraint(a, jax.sharding.SingleDeviceSharding(jax.devices()[0])),
        [(3,)],
    ),
    ("device_put", lambda a: jax.device_put(a, jax.devices()[0]), [(3,)]),
    ("name", lambda a: jax.ad_checkpoint.checkpoint_name(a, "here"), [(3,)]),
]
