"""Random programs: each step takes arrays from a pool and puts its result back."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from jax import lax

LIMIT = 24  # elements of one array


@jax.custom_jvp
def bent(x):
    return x**2


bent.defjvp(lambda p, t: (bent(*p), 3.0 * p[0] * t[0]))


def constant(shape, seed):
    return np.random.default_rng(seed).normal(size=shape)


def index(n, count, seed):
    return np.random.default_rng(seed).integers(-n, n, count)


def last(f):
    """A step that needs an axis which is not empty."""
    return lambda a, k: f(a, k) if a.ndim and a.size else a


def fit(a, shape):
    """The elements of any array in another shape, repeated or cut off."""
    return jnp.resize(a.ravel(), shape) if a.size else jnp.zeros(shape)


def square(a, k):
    """[n, n] that can be solved with, out of any array."""
    v = jnp.resize(jnp.tanh(a.ravel()), 3) if a.size else jnp.ones(3)
    return 3.0 * jnp.eye(3) + jnp.outer(v, constant(3, k))


def squares(a, k):
    """A batch of two such matrices."""
    return jnp.stack([square(a, k), square(0.5 * a, k + 1)])


def positive(a, k):
    """A batch of symmetric matrices with distinct positive eigenvalues."""
    m = squares(a, k)
    return jnp.einsum("bij,bkj->bik", m, m) + jnp.diag(jnp.arange(1.0, 4.0))[None]


def distinct(n, count, seed):
    return np.random.default_rng(seed).permutation(n)[:count]


def custom(f):
    """A function whose derivative rule is not its derivative."""
    g = jax.custom_jvp(f)
    g.defjvp(lambda p, t: (f(*p), 1.5 * jax.jvp(f, p, t)[1]))
    return g


def custom_backwards(f):
    """The same with a rule for the reverse direction only."""
    g = jax.custom_vjp(f)
    g.defvjp(lambda *p: (f(*p), p), lambda p, w: jax.vjp(f, *p)[1](2.5 * w))
    return g


POINTWISE = [
    lambda a, k: jnp.sin(a),
    lambda a, k: jnp.exp(jnp.tanh(a)),
    lambda a, k: a / (2.0 + jnp.cos(a)),
    lambda a, k: jnp.log1p(a**2),
    lambda a, k: jnp.sqrt(1.0 + a**2),
    lambda a, k: jax.nn.sigmoid(a) - a,
    lambda a, k: jnp.maximum(a, 0.3),
    lambda a, k: jnp.abs(a),
    lambda a, k: lax.erf(a) * lax.logistic(a),
    lambda a, k: jnp.arctan2(a, 2.0 + jnp.abs(a)),
    lambda a, k: lax.integer_pow(a, 3) * 0.1,
    lambda a, k: bent(jnp.tanh(a)),
    lambda a, k: a + lax.stop_gradient(jnp.round(a) - a),
    lambda a, k: a * constant(a.shape, k),
    lambda a, k: jnp.where(constant(a.shape, k) > 0, a, -2.0 * a),
    lambda a, k: jnp.where(a > 0.1, a, 0.5 * a),
    lambda a, k: jnp.clip(a, -0.5, 0.5),
    lambda a, k: jnp.full(a.shape, 2.0),
    lambda a, k: lax.complex(a, 0.5 * a).conj().imag + lax.complex(a, a).real,
    lambda a, k: lax.reduce_precision(1.5 * a, 11, 52),
]
STRUCTURAL = [
    lambda a, k: a.ravel(),
    lambda a, k: a.T,
    lambda a, k: jnp.flip(a),
    lambda a, k: jnp.expand_dims(a, k % (a.ndim + 1)) if a.ndim < 3 else a,
    lambda a, k: jnp.squeeze(a),
    last(lambda a, k: a[k % a.shape[0]]),
    last(lambda a, k: a[::2]),
    last(lambda a, k: a[1:]),
    last(lambda a, k: a[index(a.shape[0], 3, k)] if a.size <= LIMIT // 3 * a.shape[0] else a),
    last(lambda a, k: jnp.roll(a, k % 3, -1)),
    last(lambda a, k: jnp.pad(a, [(k % 2, 1)] + [(0, 0)] * (a.ndim - 1))),
    last(lambda a, k: lax.dynamic_slice_in_dim(a, jnp.argmax(a.ravel()[: a.shape[0]]), 1)),
    last(lambda a, k: a.at[index(a.shape[0], 2, k)].add(0.5 * a[0])),
    last(lambda a, k: a.at[k % a.shape[0]].set(a[0] * 2.0)),
    last(lambda a, k: jnp.concatenate(jnp.split(a, [1])[::-1])),
    last(lambda a, k: jnp.stack(jnp.unstack(a)[::-1], -1)),
    last(lambda a, k: jnp.tile(a, 2) if 2 * a.size <= LIMIT else a),
    last(lambda a, k: jnp.sort(a, axis=-1)),
    last(lambda a, k: jnp.take_along_axis(a, jnp.argsort(a, axis=0), axis=0)),
]
REDUCING = [
    lambda a, k: a.sum(k % a.ndim) if a.ndim else a,
    lambda a, k: a.sum(),
    last(lambda a, k: a.max(-1)),
    last(lambda a, k: jnp.tanh(a).prod(0)),
    last(lambda a, k: jax.nn.logsumexp(a, axis=0)),
    last(lambda a, k: jnp.cumsum(a, axis=-1)),
    last(lambda a, k: lax.cummax(a, axis=0)),
    last(lambda a, k: jax.nn.softmax(a, axis=-1)),
    last(lambda a, k: a / (1.0 + jnp.linalg.norm(a))),
    last(lambda a, k: jax.ops.segment_sum(a, np.abs(index(3, a.shape[0], k)), 3)),
    last(lambda a, k: lax.reduce_window(a.ravel(), 0.0, lax.add, (2,), (1,), "SAME")),
    last(lambda a, k: lax.reduce_window(a.ravel(), -jnp.inf, lax.max, (2,), (1,), "SAME")),
]
MIXING = [
    last(lambda a, k: a @ constant((a.shape[-1], 3), k)),
    last(lambda a, k: jnp.einsum("...i,...i->...", a, jnp.sin(a))),
    last(lambda a, k: jnp.outer(a.ravel()[:4], a.ravel()[:3])),
    last(lambda a, k: jnp.tril(constant((a.shape[0], a.shape[0]), k)) @ a.reshape(a.shape[0], -1)),
    last(lambda a, k: jnp.convolve(a.ravel()[:6], constant(3, k), mode="same")),
    last(lambda a, k: jnp.fft.fft(a.ravel()[:6]).real),
    lambda a, k: lax.linalg.triangular_solve(square(a, k), constant((3, 2), k), left_side=True, lower=True),
    lambda a, k: jnp.linalg.solve(square(a, k), jnp.ones(3)),
    lambda a, k: lax.cond(a.sum() > 0, jnp.sin, lambda t: t * 0.5, a),
    last(lambda a, k: lax.scan(lambda s, t: (jnp.tanh(s + t), s * t), jnp.zeros(a.shape[1:]), a)[1]),
    last(lambda a, k: lax.map(lambda t: t[::-1] * t if t.ndim else t**2, a)),
    lambda a, k: jax.checkpoint(lambda t: jnp.sin(t) * t)(a),
    lambda a, k: lax.fori_loop(0, 2, lambda i, t: jnp.sin(t) * (i + 1.0), a),
]
STEPS = POINTWISE + STRUCTURAL + REDUCING + MIXING
PAIRS = [lambda a, b: a * b, lambda a, b: a + jnp.sin(b), lambda a, b: a - b, lambda a, b: a / (1.5 + b**2)]

# what only the fuzzer draws from: dearer to compile, or with no second derivative that JAX agrees on with itself
FURTHER = [
    # pointwise
    lambda a, k: jnp.expm1(0.5 * a),
    lambda a, k: jnp.arcsinh(a) + jnp.cbrt(2.0 + a**2),
    lambda a, k: jnp.arctanh(0.9 * jnp.tanh(a)),
    lambda a, k: jnp.arccosh(1.5 + a**2),
    lambda a, k: jnp.arcsin(0.9 * jnp.sin(a)),
    lambda a, k: lax.rsqrt(1.0 + a**2),
    lambda a, k: jnp.power(1.5 + jnp.cos(a), a),
    lambda a, k: jnp.exp2(jnp.sin(a)),
    lambda a, k: lax.lgamma(1.5 + a**2),
    lambda a, k: lax.digamma(1.5 + a**2),
    lambda a, k: lax.erf_inv(0.8 * jnp.tanh(a)),
    lambda a, k: lax.bessel_i0e(a),
    lambda a, k: jnp.sinc(a),
    lambda a, k: jnp.remainder(a, 0.7),
    lambda a, k: lax.rem(a, 0.3 + jnp.abs(a)),
    lambda a, k: jnp.hypot(a, 1.0 + a),
    lambda a, k: jnp.logaddexp(a, 0.3),
    lambda a, k: jnp.where(a > 0, jnp.log(jnp.where(a > 0, a, 1.0)), 0.0),
    lambda a, k: jax.nn.gelu(a),
    lambda a, k: jax.nn.relu(a) - jax.nn.elu(-a),
    lambda a, k: jax.nn.softplus(a) * jax.nn.silu(a),
    lambda a, k: jax.nn.leaky_relu(a) + jax.nn.hard_tanh(a),
    lambda a, k: jnp.floor(a) + jnp.sign(a) * a,
    lambda a, k: lax.clamp(-jnp.abs(a), jnp.sin(3.0 * a), 0.5 * jnp.abs(a)),
    lambda a, k: jnp.interp(a, np.linspace(-2.0, 2.0, 5), constant(5, k)),
    lambda a, k: jnp.polyval(constant(3, k), jnp.tanh(a)),
    lambda a, k: jnp.nan_to_num(a) * 2.0,
    lambda a, k: jnp.select([a > 1.0, a > 0.0], [a**2, jnp.sin(a)], -a),
    lambda a, k: lax.select_n((a > 0).astype(np.int32) + (a > 0.5), a, 2.0 * a, a * a),
    lambda a, k: (a * np.float32(1.5)).astype(np.float32).astype(np.float64),
    lambda a, k: jnp.sin(a.astype(np.float32)).astype(np.float64),
    lambda a, k: (a > 0).astype(np.float64) * a + a.astype(np.int32).astype(np.float64),
    lambda a, k: jnp.angle(lax.complex(1.5 + jnp.cos(a), a)),
    lambda a, k: jnp.abs(lax.complex(a, 1.0 + a)),
    lambda a, k: jnp.exp(1j * a).real,
    lambda a, k: (lax.complex(a, 2.0 * a) * lax.complex(1.0 - a, a)).imag,
    lambda a, k: jnp.log(lax.complex(2.0 + a**2, a)).imag,
    # structural
    lambda a, k: fit(a, (2, 3)),
    lambda a, k: fit(a, (4,)),
    lambda a, k: fit(a, (2, 2, 3)),
    lambda a, k: fit(a, (1, k % 4 + 1)),
    lambda a, k: jnp.broadcast_to(a, (2, *a.shape)),
    last(lambda a, k: jnp.moveaxis(a, 0, -1)),
    last(lambda a, k: jnp.repeat(a, 2, axis=k % a.ndim)),
    last(lambda a, k: jnp.repeat(a, np.arange(a.shape[0]) % 3, axis=0)),
    last(lambda a, k: lax.pad(a, 0.0, [(1, -1, 1)] + [(0, 0, 0)] * (a.ndim - 1))),
    last(lambda a, k: lax.pad(a, jnp.sin(a.ravel()[0]), [(k % 3, 1, 0)] + [(0, 0, k % 2)] * (a.ndim - 1))),
    last(lambda a, k: jnp.pad(a, [(1, 1)] + [(0, 0)] * (a.ndim - 1), mode=("edge", "wrap", "linear_ramp")[k % 3])),
    last(lambda a, k: jnp.pad(a, 1, mode=("maximum", "mean", "empty")[k % 2])),
    last(lambda a, k: a[..., ::-1][..., k % a.shape[-1] :]),
    last(lambda a, k: a.at[..., 0].set(1.5)),
    last(lambda a, k: jnp.concatenate([a, jnp.zeros_like(a), a * a], -1)),
    last(lambda a, k: jnp.concatenate([constant(a.shape, k), a], k % a.ndim)),
    last(lambda a, k: jnp.kron(a.ravel()[:3], constant(2, k))),
    last(lambda a, k: jnp.vander(a.ravel()[:3], 3)),
    last(lambda a, k: jnp.diag(a.ravel()[:4])),
    last(lambda a, k: jnp.diagonal(fit(a, (3, 3)), k % 3 - 1)),
    last(lambda a, k: jnp.triu(fit(a, (3, 4)), k % 3 - 1)),
    last(lambda a, k: jnp.rot90(fit(a, (2, 3)), k)),
    last(lambda a, k: jnp.insert(a.ravel(), 1, a.sum())),
    last(lambda a, k: jnp.delete(a.ravel(), 0)),
    last(lambda a, k: jnp.array_split(a, 2)[k % 2]),
    last(lambda a, k: jnp.append(a.ravel(), a.ravel()[:2])),
    last(lambda a, k: jnp.stack([a, a[::-1]], k % (a.ndim + 1))),
    # gathers and scatters
    last(lambda a, k: a.at[index(2 * a.shape[0], 3, k)].get(mode="fill", fill_value=0.7)),
    last(lambda a, k: a.at[index(2 * a.shape[0], 3, k)].get(mode="clip")),
    last(lambda a, k: jnp.take(a, index(2 * a.shape[-1], 2, k), axis=-1, mode="wrap")),
    last(lambda a, k: fit(a, (3, 4))[index(3, 2, k)[:, None], np.zeros((1, 2), int)]),
    last(lambda a, k: a[constant(a.shape, k) > 0]),
    last(lambda a, k: a[jnp.argmax(a.ravel()) % a.shape[0]]),
    last(lambda a, k: jnp.take(a, jnp.argsort(a.ravel())[:2], axis=0, mode="fill", fill_value=0.0)),
    last(lambda a, k: jnp.take_along_axis(a, jnp.argmin(a, axis=-1, keepdims=True), axis=-1)),
    last(lambda a, k: lax.dynamic_slice(a.ravel(), (jnp.argmin(a.ravel()) + k % 3,), (min(2, a.size),))),
    last(lambda a, k: jax.vmap(lambda i: lax.dynamic_slice_in_dim(a, i, 1))(np.arange(3) - 1)),
    last(lambda a, k: jax.vmap(lambda i: a[i] * i)(jnp.argsort(a.ravel())[:2] % a.shape[0])),
    last(lambda a, k: lax.dynamic_update_slice(a, 2.0 * a[:1], (jnp.argmax(a.ravel()), *[0] * (a.ndim - 1)))),
    last(lambda a, k: lax.dynamic_update_slice(constant((a.size + 1,), k), a.ravel()[:2], (k % 5,))),
    last(lambda a, k: a.at[index(2 * a.shape[0], 2, k)].add(a[-1], mode="drop")),
    last(lambda a, k: a.at[distinct(a.shape[0], 2, k)].multiply(0.5 * a[0])),
    last(lambda a, k: a.at[distinct(a.shape[0], 2, k)].set(jnp.sin(a[0]), unique_indices=True)),
    last(lambda a, k: a.at[distinct(a.shape[0], 2, k)].max(0.1)),
    last(lambda a, k: a.at[distinct(a.shape[0], 2, k)].min(jnp.cos(a[0]))),
    last(lambda a, k: a.at[distinct(a.shape[0], 1, k)].divide(2.0 + a[0] ** 2)),
    last(lambda a, k: a.at[distinct(a.shape[0], 2, k)].apply(jnp.sin)),
    last(lambda a, k: a.at[..., index(a.shape[-1], 3, k)].subtract(1.5 * a[..., :1])),
    last(lambda a, k: a.at[jnp.argmax(a.ravel()) % a.shape[0]].set(a[0] ** 2)),
    last(lambda a, k: jnp.zeros(4).at[jnp.argsort(a.ravel())].add(a.ravel(), mode="drop")),
    last(lambda a, k: jnp.zeros((4, 2)).at[np.abs(index(4, a.size, k)), index(2, a.size, k)].add(a.ravel())),
    last(lambda a, k: jnp.ones(5).at[index(5, a.size, k)].set(a.ravel())),
    last(lambda a, k: jax.ops.segment_max(a, np.arange(a.shape[0]) % 2, 2)),
    last(lambda a, k: jax.nn.one_hot(jnp.argmax(a, axis=-1), 3) * a.sum()),
    # sorts and running values
    last(lambda a, k: jnp.sort(a, axis=0, descending=True)),
    last(lambda a, k: lax.sort((a, jnp.sin(a)), dimension=k % a.ndim, num_keys=1)[1]),
    last(lambda a, k: lax.top_k(a, 1 + k % a.shape[-1])[0]),
    last(lambda a, k: jnp.median(a, axis=0)),
    last(lambda a, k: jnp.quantile(a, 0.3, axis=-1)),
    last(lambda a, k: jnp.cumprod(jnp.tanh(a), axis=0)),
    last(lambda a, k: lax.cumlogsumexp(a, axis=a.ndim - 1, reverse=k % 2 == 1)),
    last(lambda a, k: lax.cummin(a, axis=0, reverse=True)),
    last(lambda a, k: lax.cumsum(a, axis=0, reverse=True)),
    last(lambda a, k: lax.associative_scan(jnp.multiply, jnp.cos(a))),
    last(lambda a, k: lax.associative_scan(jnp.maximum, a, axis=a.ndim - 1, reverse=True)),
    last(lambda a, k: jnp.diff(a, axis=-1)),
    # reductions
    last(lambda a, k: jnp.mean(a, axis=k % a.ndim, keepdims=True)),
    last(lambda a, k: jnp.var(a, axis=0) + a.min()),
    last(lambda a, k: jnp.sqrt(0.1 + jnp.var(a, axis=-1))),
    last(lambda a, k: jnp.max(a, axis=k % a.ndim, keepdims=True) - a),
    last(lambda a, k: jnp.sum(a, axis=-1, where=constant(a.shape, k) > 0)),
    last(lambda a, k: jnp.prod(a, axis=-1)),
    last(lambda a, k: jax.nn.log_softmax(a, axis=0)),
    last(lambda a, k: jnp.where((a > 0).any(axis=0), a, 2.0 * a)),
    last(lambda a, k: lax.reduce(a, 0.0, lax.add, (k % a.ndim,))),
    last(lambda a, k: lax.reduce(a, -jnp.inf, lax.max, tuple(range(a.ndim)))),
    last(lambda a, k: jnp.trace(fit(a, (2, 3, 2)), axis1=0, axis2=2)),
    # matrices, in batches
    lambda a, k: jnp.linalg.cholesky(positive(a, k)),
    lambda a, k: jnp.linalg.inv(squares(a, k))[..., 0],
    lambda a, k: jnp.linalg.det(squares(a, k)),
    lambda a, k: jnp.linalg.slogdet(squares(a, k))[1],
    lambda a, k: jnp.linalg.qr(squares(a, k))[k % 2],
    lambda a, k: jnp.linalg.eigh(positive(a, k))[0],
    lambda a, k: jnp.linalg.svd(squares(a, k), compute_uv=False),
    lambda a, k: jnp.linalg.solve(squares(a, k), constant((2, 3, 1), k)),
    lambda a, k: jnp.linalg.solve(constant((3, 3), k) + 4.0 * np.eye(3), fit(a, (3, 2))),
    lambda a, k: jax.scipy.linalg.lu(squares(a, k)[0])[1],
    lambda a, k: lax.linalg.triangular_solve(squares(a, k), fit(a, (2, 2, 3)), transpose_a=k % 2 == 0, lower=k % 3 > 0),
    lambda a, k: lax.linalg.triangular_solve(np.eye(3) + np.tril(constant((3, 3), k)) ** 2, fit(a, (3, 2)),
                                             left_side=True, lower=True, unit_diagonal=k % 2 == 0),
    lambda a, k: jax.scipy.linalg.expm(0.2 * square(a, k)),
    lambda a, k: jnp.linalg.matrix_power(0.3 * squares(a, k), 3),
    lambda a, k: jnp.cross(fit(a, (2, 3)), constant((2, 3), k)),
    lambda a, k: jnp.einsum("bij,bjk,bk->bi", fit(a, (2, 3, 2)), constant((2, 2, 3), k), fit(jnp.sin(a), (2, 3))),
    lambda a, k: jnp.einsum("ij,kj->ki", fit(a, (3, 2)), fit(jnp.cos(a), (4, 2))),
    lambda a, k: jnp.einsum("iji->ij", fit(a, (2, 3, 2))),
    lambda a, k: jnp.tensordot(fit(a, (2, 3, 2)), constant((3, 2, 2), k), axes=([1, 2], [0, 1])),
    lambda a, k: np.kron(np.eye(2), constant((2, 2), k)) @ fit(a, (4, 2)),
    lambda a, k: lax.batch_matmul(fit(a, (2, 2, 3)), jnp.sin(fit(a, (2, 3, 2)))),
    # windows and transforms
    lambda a, k: lax.conv_general_dilated(fit(a, (1, 2, 5)), constant((2, 2, 2), k), (1 + k % 2,), ((k % 3, 1),)),
    lambda a, k: lax.conv_general_dilated(fit(a, (1, 2, 4)), fit(jnp.sin(a), (2, 1, 2)), (1,), "SAME",
                                          feature_group_count=2),
    lambda a, k: lax.conv_general_dilated(fit(a, (2, 1, 4)), constant((2, 1, 2), k), (1,), "VALID",
                                          batch_group_count=2, rhs_dilation=(1 + k % 2,)),
    lambda a, k: lax.conv_general_dilated(fit(a, (1, 1, 3, 3)), constant((2, 1, 2, 2), k), (1, 1), ((1, 0), (0, 1)),
                                          lhs_dilation=(1, 1 + k % 2)),
    lambda a, k: lax.conv_transpose(fit(a, (1, 3, 2)), constant((2, 2, 1), k), (2,), "SAME"),
    lambda a, k: jnp.convolve(fit(a, (5,)), fit(jnp.cos(a), (3,)), mode=("full", "same", "valid")[k % 3]),
    lambda a, k: lax.reduce_window(fit(a, (4, 4)), -jnp.inf, lax.max, (2, 2), (2, 1 + k % 2), "VALID"),
    lambda a, k: lax.reduce_window(fit(a, (4, 3)), jnp.inf, lax.min, (2, 2), (1, 1), "SAME"),
    lambda a, k: lax.reduce_window(fit(a, (4, 3)), 0.0, lax.add, (2, 2), (1, 2), ((1, 0), (0, 1)), (1, 2), (2, 1)),
    lambda a, k: lax.reduce_window(fit(a, (5,)), 1.0, lax.mul, (2,), (1,), "VALID"),
    lambda a, k: jnp.abs(jnp.fft.fft(fit(a, (2, 3)), axis=k % 2) + 0.3),
    lambda a, k: jnp.abs(jnp.fft.rfft(fit(a, (5,)))) ** 2,
    lambda a, k: jnp.fft.irfft(jnp.fft.rfft(fit(a, (6,))) * constant(4, k)),
    lambda a, k: jnp.fft.ifft2(lax.complex(fit(a, (2, 3)), jnp.sin(fit(a, (2, 3))))).imag,
    # derivatives within
    lambda a, k: jax.grad(lambda t: jnp.sum(jnp.sin(t) ** 3))(a),
    lambda a, k: jax.jvp(jnp.tanh, (a,), (jnp.cos(a),))[1],
    lambda a, k: jax.jacfwd(lambda t: jnp.cumprod(jnp.cos(t)))(fit(a, (3,))),
    lambda a, k: jax.hessian(lambda t: jnp.prod(jnp.sin(t)))(fit(a, (3,))),
]  # fmt: skip
FURTHER_PAIRS = [
    lambda a, b: jnp.maximum(a, b) - jnp.minimum(a, 0.5 * b),
    lambda a, b: jnp.where(a > b, a * b, b),
    lambda a, b: jnp.arctan2(a, 2.0 + b**2),
    lambda a, b: jnp.power(1.0 + a**2, b),
    lambda a, b: jnp.abs(lax.complex(a, b) + 0.1),
    lambda a, b: lax.igamma(1.0 + a**2, 0.5 + b**2),
    lambda a, b: jnp.concatenate([a.ravel(), b.ravel()]),
    lambda a, b: jnp.stack([a, b], -1),
    lambda a, b: jnp.outer(a.ravel()[:4], b.ravel()[:4]),
    lambda a, b: fit(a, (3, 2)) @ fit(b, (2, 3)),
    lambda a, b: jnp.einsum("bi,bij->bj", fit(a, (2, 3)), fit(b, (2, 3, 2))),
    lambda a, b: jnp.vdot(a, b),
    lambda a, b: jnp.linalg.solve(squares(a, 1), fit(b, (2, 3, 1))),
    lambda a, b: lax.linalg.triangular_solve(square(a, 2), fit(b, (3, 2)), left_side=True, lower=True),
    lambda a, b: lax.conv_general_dilated(fit(a, (1, 2, 4)), fit(b, (2, 2, 2)), (1,), "SAME"),
    lambda a, b: lax.sort((a.ravel(), b.ravel()), num_keys=1)[1],
    lambda a, b: fit(a, (4,)).at[np.array([0, 2, 2])].add(fit(b, (3,))),
    lambda a, b: fit(a, (4,)).at[jnp.argmax(fit(b, (4,)))].set(fit(b, ())),
    lambda a, b: lax.dynamic_update_slice(fit(a, (2, 3)), fit(b, (1, 2)), (jnp.argmax(fit(b, (2,))), 1)),
    lambda a, b: lax.dynamic_slice(fit(a, (3, 3)), (jnp.argmin(fit(b, (3,))), 1), (2, 2)) * fit(b, (2, 2)),
    lambda a, b: lax.associative_scan(lambda s, t: (s[0] * t[0], s[1] * t[0] + t[1]),
                                      (fit(jnp.cos(a), (4,)), fit(b, (4,))))[1],
    lambda a, b: jnp.convolve(fit(a, (4,)), fit(b, (3,))),
    lambda a, b: jnp.interp(a, np.linspace(-1.0, 1.0, 4), fit(b, (4,))),
    lambda a, b: lax.select_n(a > 0, b, a) * lax.stop_gradient(b),
    lambda a, b: lax.clamp(-jnp.abs(b), a, jnp.abs(b)),
]  # fmt: skip

steps = st.lists(
    st.tuples(st.integers(0, len(STEPS) + len(PAIRS) - 1), st.integers(0, 9), st.integers(0, 9), st.integers(0, 99)),
    min_size=2,
    max_size=6,
)
shapes = st.lists(st.lists(st.integers(0, 3), max_size=2).map(tuple), min_size=1, max_size=2)


def run(program, *inputs):
    """Run the steps on a pool that starts with the inputs; what was made last is given back, and one more."""
    pool = list(inputs)
    for number, first, second, k in program:
        a, b = pool[-1 - first % len(pool)], pool[-1 - second % len(pool)]
        if number < len(STEPS):
            out = STEPS[number](a, k)
        else:
            b = jnp.resize(b.ravel(), a.size).reshape(a.shape) if b.size else jnp.zeros(a.shape)
            out = PAIRS[number - len(STEPS)](a, b)
        if out.size <= 2 * LIMIT and out.ndim <= 3:
            pool.append(out)
    return pool[-1], pool[len(pool) // 2]
