"""One line a case: the primitive's name, a function of `lax`, the shapes of its operands, its coefficients.

To add a rule's test, add a line. The function takes the operands (it is linear in them) and then the coefficients;
these are known numbers in the eager test, traced ones under `jit` and `vmap`. Coefficients that a line must know
(shapes of windows, branches) stand in the function itself.
"""

from typing import Any

import jax
import jax.ad_checkpoint
import jax.numpy as jnp
import numpy as np
from jax import lax

from chainrule._check.rule import Case

rng = np.random.default_rng(3)


def c(*shape: int) -> np.ndarray:
    """Coefficients: fixed random numbers, none of them near zero."""
    return rng.uniform(0.5, 2.0, size=shape) * rng.choice([-1.0, 1.0], size=shape)


SHAPES = [(), (1, 3), (0, 2), (3, 4)]
SQUARE = c(3, 3) + 3 * np.eye(3)
TRIANGLE = np.tril(SQUARE)
PLACES = np.array([[0], [2], [2]])
BEYOND = np.array([1, 1, 8, 20])
MASK = np.array([True, False, True, True])
CONV, UPDATE = lax.conv_general_dilated, lax.dynamic_update_slice
ROWS = lax.ScatterDimensionNumbers(
    update_window_dims=(1,), inserted_window_dims=(0,), scatter_dims_to_operand_dims=(0,)
)


def window_sums(a: Any, *window: Any) -> Any:
    return lax.reduce_window(a, a.dtype.type(0), lax.add, *window)


def without_ties(like: Any) -> Any:
    """Numbers to choose a greatest one among: every window has one."""
    return jnp.asarray(np.random.default_rng(0).permutation(like.size).reshape(like.shape), like.dtype)


def pooled(a: Any, dims: Any, strides: Any, padding: Any) -> Any:
    """The derivative of max pooling."""
    return jax.linearize(lambda t: lax.reduce_window(t, -jnp.inf, lax.max, dims, strides, padding), without_ties(a))[1](
        a
    )


def unpooled(cotangent: Any, shape: tuple[int, ...], window: tuple[int, ...]) -> Any:
    """The transposed derivative of max pooling."""
    at = without_ties(jnp.zeros(shape, cotangent.dtype))
    return jax.vjp(lambda t: lax.reduce_window(t, -jnp.inf, lax.max, window, window, "VALID"), at)[1](cotangent)[0]


def solved(b: Any, matrix: Any) -> Any:
    inverse = jnp.linalg.inv(matrix)
    return lax.custom_linear_solve(lambda x: matrix @ x, b, lambda _, r: inverse @ r, lambda _, r: inverse.T @ r)


def branches(t: Any, index: Any) -> Any:
    return lax.switch(index, [lambda a: a * 2.0, lambda a: jnp.cumsum(a, 0), jnp.zeros_like], t)


def recurrence(a: Any, decay: Any) -> Any:
    return lax.scan(lambda s, t: (decay * s + t, s), jnp.zeros(a.shape[1:], a.dtype), a)


def added_twice(a: Any, b: Any) -> Any:
    """`add_any` stands where cotangents of one value meet."""
    return jax.vjp(lambda t: (t, t), a)[1]((a, b))[0]


def placed(a: Any) -> Any:
    return lax.with_sharding_constraint(a, jax.sharding.SingleDeviceSharding(jax.devices()[0]))


CASES = [
    # pointwise
    *[Case("mul", lax.mul, [s], [c(*s)]) for s in SHAPES],
    Case("mul", lambda a, k: lax.mul(k, a), [(2, 3)], [c(2, 3)]),
    Case("mul", lambda a, k: a * jnp.tril(k), [(3, 3)], [SQUARE]),
    *[Case("div", lax.div, [s], [c(*s)]) for s in SHAPES],
    *[Case("neg", lax.neg, [s]) for s in SHAPES],
    *[Case("add", lax.add, [s, s]) for s in SHAPES],
    *[Case("sub", lax.sub, [s, s]) for s in SHAPES],
    Case("sub", lambda a: lax.sub(jnp.zeros_like(a), a), [(2, 3)]),
    *[Case("add_any", added_twice, [s, s]) for s in SHAPES],
    *[Case("copy", jnp.copy, [s]) for s in SHAPES],
    Case("convert_element_type", lambda a: lax.convert_element_type(a, complex), [(3, 4)], (), "f"),
    Case("convert_element_type", lambda a: lax.convert_element_type(a, np.float32), [(3, 1)], (), "f"),
    Case("real", lax.real, [(2, 3)], (), "c"),
    Case("imag", lax.imag, [(2, 3)], (), "c"),
    Case("conj", lax.conj, [(2, 3)], (), "c"),
    Case("real", lambda a: lax.real(lax.complex(a, 2.0 * a)), [()], (), "f"),
    Case("imag", lambda a: lax.imag(lax.complex(a, 2.0 * a)), [(1, 2)], (), "f"),
    Case("conj", lambda a: lax.conj(lax.complex(a, a)), [(3,)], (), "f"),
    *[Case("complex", lax.complex, [s, s], (), "f") for s in SHAPES],
    Case("complex", lambda a, b: jax.vmap(lax.complex, in_axes=(0, None))(a, b), [(3,), ()], (), "f"),
    Case("reduce_precision", lambda a: lax.reduce_precision(a, 11, 52), [(3,)], (), "f"),
    Case("select_n", lambda a, b, m: lax.select_n(m, a, b), [(4,), (4,)], [MASK]),
    Case("select_n", lambda a, b, m: lax.select_n(m, a, b), [(2, 1), (2, 1)], [np.array(True)]),
    Case("select_n", lambda a, b, d, m: lax.select_n(m, a, b, d), [(4,)] * 3, [np.array([2, 0, 1, 2], np.int32)]),
    Case("select_n", lambda a, m: jnp.where(m, a, jnp.zeros_like(a)), [(3, 4)], [np.tile(MASK, (3, 1))]),
    *[Case("optimization_barrier", lambda a, b: lax.optimization_barrier((a, b)), [s, (2, 2)]) for s in SHAPES[:2]],
    Case("stop_gradient", lax.stop_gradient, [(2, 3)]),
    Case("name", lambda a: jax.ad_checkpoint.checkpoint_name(a, "here"), [(1, 3)]),
    Case("device_put", lambda a: jax.device_put(a, jax.devices()[0]), [(3, 1)]),
    Case("sharding_constraint", placed, [(3,)]),
    # structural
    Case("broadcast_in_dim", lambda a: lax.broadcast_in_dim(a, (2, 3, 4), (1, 2)), [(3, 4)]),
    Case("broadcast_in_dim", lambda a: lax.broadcast_in_dim(a, (3, 4), (0, 1)), [(1, 4)]),
    Case("broadcast_in_dim", lambda a: lax.broadcast_in_dim(a, (3, 1), ()), [()]),
    Case("broadcast_in_dim", lambda a: lax.broadcast_in_dim(a, (0, 4), (1,)), [(4,)]),
    Case("reshape", lambda a: lax.reshape(a, (2, 6)), [(3, 4)]),
    Case("reshape", lambda a: lax.reshape(a, (1, 3, 2, 2)), [(3, 4)]),
    Case("reshape", lambda a: lax.reshape(a, (2, 6), (1, 0)), [(3, 4)]),
    Case("reshape", lambda a: lax.reshape(a, (12,)), [(3, 1, 4)]),
    Case("reshape", lambda a: lax.reshape(a, ()), [(1, 1)]),
    Case("reshape", lambda a: lax.reshape(a, (1,)), [()]),
    Case("reshape", lambda a: lax.reshape(a, (6, 0)), [(0, 2)]),
    Case("squeeze", lambda a: lax.squeeze(a, (1,)), [(3, 1, 4)]),
    Case("squeeze", lambda a: lax.squeeze(a, (0, 1)), [(1, 1)]),
    Case("expand_dims", lambda a: lax.expand_dims(a, (0, 2)), [(3, 4)]),
    Case("expand_dims", lambda a: lax.expand_dims(a, (0,)), [()]),
    Case("transpose", lambda a: lax.transpose(a, (2, 0, 1)), [(2, 3, 4)]),
    Case("transpose", lambda a: lax.transpose(a, (1, 0)), [(1, 3)]),
    Case("transpose", lambda a: lax.transpose(a, (1, 0)), [(0, 3)]),
    Case("rev", lambda a: lax.rev(a, (0,)), [(3, 4)]),
    Case("rev", lambda a: lax.rev(a, (0, 1)), [(1, 3)]),
    Case("slice", lambda a: lax.slice(a, (1, 0), (3, 4), (1, 3)), [(3, 4)]),
    Case("slice", lambda a: lax.slice(a, (0, 2), (3, 2)), [(3, 4)]),
    Case("slice", lambda a: lax.slice(a, (0, 1), (1, 3)), [(1, 3)]),
    Case("pad", lambda a: lax.pad(a, a.dtype.type(0), ((1, 2, 1), (0, -1, 0))), [(3, 4)]),
    Case("pad", lambda a: lax.pad(a, a.dtype.type(0), ((0, 9, 0),)), [(1,)]),
    Case("pad", lambda a: lax.pad(a, a.dtype.type(0), ((1, 1, 0), (0, 0, 0))), [(0, 2)]),
    Case("pad", lambda a, z: lax.pad(a, z, ((2, 0, 0),)), [(3,), ()]),
    Case("concatenate", lambda a, b: lax.concatenate([a, b, a], 1), [(3, 4), (3, 2)]),
    Case("concatenate", lambda a, b: lax.concatenate([a, b], 0), [(1, 3), (0, 3)]),
    Case("concatenate", lambda a: lax.concatenate([jnp.zeros((9, 2), a.dtype), a], 0), [(2, 2)]),
    Case("stack", lambda a, b: jnp.stack([a, b], 1), [(3, 4), (3, 4)]),
    Case("stack", lambda a, b: jnp.stack([a, b, a]), [(), ()]),
    Case("unstack", lambda a: jnp.unstack(a, axis=1), [(3, 4)]),
    Case("unstack", jnp.unstack, [(2,)]),
    Case("split", lambda a: lax.split(a, (1, 3), 1), [(3, 4)]),
    Case("split", lambda a: lax.split(a, (1, 0, 2), 0), [(3, 1)]),
    Case("tile", lambda a: jnp.tile(a, (2, 3)), [(3, 4)]),
    Case("tile", lambda a: jnp.tile(a, (1, 3)), [(3, 1)]),
    # indexing: the positions are known in the eager test, unknown under jit
    Case("dynamic_slice", lambda a, i: lax.dynamic_slice(a, (i, 1), (2, 2)), [(3, 4)], [np.array(1)]),
    Case("dynamic_slice", lambda a, i: lax.dynamic_slice(a, (0, i), (1, 2)), [(1, 3)], [np.array(9)]),
    Case("dynamic_update_slice", lambda a, b, i: UPDATE(a, b, (i, 2)), [(3, 4), (2, 2)], [np.array(1)]),
    Case("dynamic_update_slice", lambda b, i: UPDATE(jnp.zeros((5,), b.dtype), b, (i,)), [(2,)], [np.array(7)]),
    Case("gather", lambda a, i: a[i], [(3, 4)], [np.array([0, 2, 2, -1])]),
    Case("gather", lambda a, i: a.at[i].get(mode="fill", fill_value=0), [(3, 4)], [np.array([0, 9])]),
    Case("gather", lambda a, i: a[:, i], [(3, 1)], [np.array([[0, 0]])]),
    Case("gather", lambda a, i: a[i], [(3,)], [np.array([[1]])]),
    Case("scatter-add", lambda a, b, i: lax.scatter_add(a, i, b, ROWS), [(3, 4), (3, 4)], [PLACES]),
    Case("scatter-add", lambda b, i: jnp.zeros((9,), b.dtype).at[i].add(b, mode="drop"), [(4,)], [BEYOND]),
    Case("scatter-add", lambda a, b, i: a.at[i].add(b), [(3, 4), (4,)], [np.array(1)]),
    Case("scatter-sub", lambda a, b, i: lax.scatter_sub(a, i, b, ROWS), [(3, 4), (3, 4)], [PLACES]),
    Case("gather", lambda a, i: jnp.take_along_axis(a, i, axis=1), [(3, 4)], [np.array([[0, 2], [3, 3], [1, 0]])]),
    Case("gather", lambda a, i: jax.vmap(lambda t, j: t[:, j])(a, i), [(2, 2, 3)], [np.array([2, 0])]),
    Case("gather", lambda a, i: a[np.arange(3)[:, None], i], [(3, 4)], [np.array([[0, 2], [3, 3], [1, 0]])]),
    Case("dynamic_slice", lambda a, i: lax.dynamic_slice(a, (0, i[0]), (2, 2)), [(2, 4)], [np.array([1])]),
    Case("dynamic_update_slice", lambda a, b, i: lax.dynamic_update_slice(a, b, (i[0], 0)), [(3, 2), (1, 2)],
         [np.array([1])]),
    Case("scatter", lambda a, b, i: jax.vmap(lambda t, s, j: t.at[j].set(s))(a, b, i), [(3, 4), (3, 2)],
         [np.array([[0, 2], [3, 1], [1, 0]])]),
    Case("scatter-add", lambda a, b, i: jax.vmap(lambda t, s, j: t.at[j].add(s))(a, b, i), [(3, 4), (3, 2)],
         [np.array([[0, 2], [3, 3], [1, 0]])]),
    Case("scatter-add", lambda a, b, i: a.at[np.arange(3)[:, None], i].add(b), [(3, 4), (3, 2)],
         [np.array([[0, 2], [3, 3], [1, 0]])]),
    Case("scatter-mul", lambda a, k, i: a.at[i].mul(k, unique_indices=True), [(3,)], [c(2), np.array([0, 1])]),
    Case("scatter", lambda a, b, i: a.at[i].set(b, unique_indices=True), [(3, 4), (2, 4)], [np.array([2, 0])]),
    Case("scatter", lambda a, b, i: a.at[i].set(b), [(3, 1), (1,)], [np.array(1)]),
    # sums
    Case("reduce_sum", lambda a: a.sum(1), [(3, 4)]),
    Case("reduce_sum", lambda a: a.sum(), [(2, 3, 2)]),
    Case("reduce_sum", lambda a: a.sum((0, 2)), [(2, 3, 2)]),
    Case("reduce_sum", lambda a: a.sum(0), [(0, 4)]),
    Case("reduce_sum", lambda a: a.sum(0), [(1, 3)]),
    Case("cumsum", lambda a: lax.cumsum(a, 1), [(3, 4)]),
    Case("cumsum", lambda a: lax.cumsum(a, 0, reverse=True), [(3, 4)]),
    Case("cumsum", lambda a: lax.cumsum(a, 0), [(1, 3)]),
    Case("reduce_window_sum", lambda a: window_sums(a, (2, 1), (2, 1), ((1, 0), (0, 0))), [(4, 3)]),
    Case("reduce_window_sum", lambda a: window_sums(a, (1, 2), (2, 1), ((0, 1), (0, 0))), [(3, 4)]),
    Case("reduce_window_sum", lambda a: window_sums(a, (2,), (1,), ((1, 2),), (2,), (3,)), [(4,)]),
    Case("reduce_window_sum", lambda a: window_sums(a, (1, 2), (1, 2), "VALID"), [(1, 4)]),
    Case("select_and_gather_add", lambda a: pooled(a, (2, 2), (1, 1), "SAME"), [(4, 3)], (), "f"),
    Case("select_and_gather_add", lambda a: pooled(a, (1, 2), (1, 2), "VALID"), [(1, 5)], (), "f"),
    Case("select_and_scatter_add", lambda a: unpooled(a, (4, 3), (2, 1)), [(2, 3)], (), "f"),
    Case("select_and_scatter_add", lambda a: unpooled(a, (5, 1), (2, 1)), [(2, 1)], (), "f"),
    # contractions
    Case("dot_general", lambda a, k: a @ k, [(3, 4)], [c(4)]),
    Case("dot_general", lambda a, k: k @ a, [(4, 2)], [c(3, 4)]),
    Case("dot_general", lambda a, k: jnp.einsum("bij,bjk->bik", a, k), [(4, 2, 3)], [c(4, 3, 5)]),
    Case("dot_general", lambda a, k: jnp.einsum("ij,kl->ijkl", a, k), [(2, 1)], [c(3, 2)]),
    Case("dot_general", lambda a, k: jnp.einsum("ij,ij->i", a, k), [(3, 3)], [SQUARE]),
    Case("dot_general", lambda a, k: jnp.tril(k) @ a, [(3, 2)], [SQUARE]),
    Case("dot_general", lambda a, k: a @ k, [(1, 3)], [c(3, 2)]),
    Case("dot_general", lambda a, k: a @ k, [(2, 0)], [c(0, 4)]),
    Case("conv_general_dilated", lambda a, k: CONV(a, k, (2,), ((1, 2),), rhs_dilation=(2,)), [(1, 3, 6)],
         [c(2, 3, 2)]),
    Case("conv_general_dilated", lambda a, k: CONV(a, k, (1, 2), ((1, 0), (2, 1)), lhs_dilation=(2, 1)), [(2, 2, 3, 4)],
         [c(3, 2, 2, 3)]),
    Case("conv_general_dilated", lambda a, k: CONV(a, k, (1, 1), "SAME", feature_group_count=3), [(1, 3, 3, 3)],
         [c(3, 1, 2, 3)]),
    Case("conv_general_dilated", lambda a, k: CONV(a, k, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")),
         [(2, 4, 1)], [c(3, 1, 2)]),
    Case("conv_general_dilated", lambda k, a: CONV(a, k, (1,), "VALID"), [(2, 3, 2)], [c(1, 3, 5)]),
    Case("conv_general_dilated", lambda k, a: CONV(a, k, (1,), "SAME"), [(2, 1, 3)], [c(1, 1, 1)]),
    Case("conv_general_dilated", lambda k, a: CONV(a, k, (1,), ((2, 2),), lhs_dilation=(3,)), [(2, 1, 3)],
         [c(2, 1, 3)]),
    # solves, transforms
    Case("triangular_solve", lambda b, k: lax.linalg.triangular_solve(k, b, left_side=True, lower=True), [(3, 2)],
         [TRIANGLE]),
    Case("triangular_solve", lambda b, k: lax.linalg.triangular_solve(k, b, transpose_a=True, lower=True), [(2, 3)],
         [TRIANGLE]),
    Case("triangular_solve", lambda b, k: lax.linalg.triangular_solve(k, b, left_side=True, unit_diagonal=True),
         [(2, 3, 1)], [np.stack([TRIANGLE.T, 2 * TRIANGLE.T])]),
    Case("triangular_solve", lambda b, k: lax.linalg.triangular_solve(k, b), [(2, 4, 3)],
         [np.stack([TRIANGLE.T, 2 * TRIANGLE.T])]),
    Case("triangular_solve", lambda b, k: lax.linalg.triangular_solve(lax.complex(k, 2 * k), lax.complex(b, b),
         left_side=True, lower=True, transpose_a=True, conjugate_a=True), [(3, 2)], [TRIANGLE], "f"),
    Case("triangular_solve", lambda b, k: lax.linalg.triangular_solve(k, b, left_side=True, lower=True), [(9, 2)],
         [np.tri(9) + np.eye(9)]),
    Case("tridiagonal_solve", lambda b, k, d, u: lax.linalg.tridiagonal_solve(k, d + 4.0, u, b),
         [(2, 3, 2)], [c(2, 3), c(2, 3), c(2, 3)]),
    Case("custom_linear_solve", lambda b, k: jax.vmap(lambda r: solved(r, k))(b), [(2, 3)], [SQUARE]),
    Case("custom_linear_solve", solved, [(3,)], [SQUARE]),
    Case("fft", lambda a: jnp.fft.fft(a, axis=0), [(3, 4)]),
    Case("fft", lambda a: jnp.fft.ifft2(a), [(2, 3, 1)]),
    Case("fft", jnp.fft.rfft, [(3, 4)], (), "f"),
    Case("fft", lambda a: jnp.fft.irfft(lax.complex(a, a), 4), [(2, 3)], (), "f"),
    # calls, branches, loops
    Case("jit", lambda a, k: jax.jit(lambda t: k * t)(a), [(3, 4)], [c(3, 4)]),
    Case("remat", lambda a, k: jax.checkpoint(lambda t: k * t)(a), [(1, 4)], [c(1, 4)]),
    Case("cond", branches, [(3, 4)], [np.array(1)]),
    Case("cond", branches, [(1, 2)], [np.array(7)]),
    Case("cond", lambda a, b, p: lax.cond(p, lambda: (a, 2.0 * b), lambda: (b, jnp.zeros_like(b))), [(2,), (2,)],
         [np.array(False)]),
    Case("scan", lambda a, k: lax.map(lambda t: t[::-1] * k, a), [(3, 4)], [c(4)]),
    Case("scan", recurrence, [(3, 4)], [c()]),
    Case("scan", recurrence, [(1, 2)], [c()]),
    Case("scan", lambda a: lax.scan(lambda s, t: (s + 1, t * s.astype(t.dtype)), jnp.int32(1), a)[1], [(3,)]),
    Case("scan", lambda a: lax.scan(lambda s, t: (s, s + t), a, jnp.zeros((3, 2), a.dtype), reverse=True), [(2,)]),
    Case("while", lambda a: lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, 0.5 * s[1]), (0, a))[1], [(3,)]),
]  # fmt: skip
