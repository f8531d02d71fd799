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


def square(a, k):
    """[n, n] that can be solved with, out of any array."""
    v = jnp.resize(jnp.tanh(a.ravel()), 3) if a.size else jnp.ones(3)
    return 3.0 * jnp.eye(3) + jnp.outer(v, constant(3, k))


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
