"""How tight the patterns are: the detected entries against the nonzeros that dense differentiation finds.

Soundness is asserted of every function: no nonzero is missed, every value is right, and the pattern of the
first point holds at every other. Tightness is measured: `looser` counts the entries that are detected but
vanish at every point, and `why` says where they come from. A change that makes a pattern tighter lowers a
figure here.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import sparse
from jax.experimental.ode import odeint

import chainrule as cr


def c(*shape: int) -> np.ndarray:
    """A constant without zeros, the same one in every trace."""
    return np.random.default_rng(shape).normal(size=shape)


class Case(NamedTuple):
    """A function of float64 arrays of these `shapes`; `looser` is the number of entries too many."""

    name: str
    f: Callable[..., Any]
    shapes: list[tuple[int, ...]]
    looser: int = 0
    why: str = ""
    rtol: float = 1e-9
    argnums: tuple[int, ...] | None = None  # all of them
    count: int = 6  # points: more of them where a choice is made by the values
    draw: Callable[[np.random.Generator, tuple[int, ...]], Any] = lambda rng, shape: rng.normal(size=shape)
    mode: str = "forward"  # how JAX differentiates it


# what is compiled here runs a few times on a few numbers: optimizing it would take most of the time
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}

# why a pattern is looser: these could be seen
LOOP = "the carry of a loop is dense where it changes"
MASK = "a product with something that is not diagonal forgets which coefficients vanish"
AXIS = "a slice at an unknown place forgets the axes that it takes whole"
RANGE = "the places that a slice can begin at are not counted"
TRIANGLE = "a triangular solve is dense within each matrix"
EXACT = "a multiple by a known zero is kept"
# these depend on the values: nothing to gain
CANCEL = "terms that cancel"
UNDERFLOW = "weights that underflow to zero"
FACTOR = "the factor of a matrix made of others: each row sees fewer of them than its block"

MANY = 60  # enough points for every choice that a function makes to be made


def spd(a: jax.Array) -> jax.Array:
    """Symmetric and positive definite matrices."""
    return a @ a.mT + 3.0 * jnp.broadcast_to(jnp.eye(a.shape[-1]), a.shape)


def uniform(low: float, high: float) -> Callable[..., Any]:
    return lambda rng, shape: rng.uniform(low, high, size=shape)


ELEMENTWISE = [
    Case("tanh", lambda x: jnp.tanh(x) * x, [(6,)]),
    Case("two inputs", lambda x, y: x * y + jnp.arctan2(x, y), [(5,), (5,)]),
    Case("power", lambda x: jnp.abs(x) ** 1.5 + x**3, [(5,)]),
    Case("clip", lambda x: jnp.clip(x, -0.5, 0.5), [(5,)], count=MANY),
    Case("relu", jax.nn.relu, [(5,)], count=MANY),
    Case("gelu of a matrix", jax.nn.gelu, [(2, 3)]),
    Case("minimum", jnp.minimum, [(4,), (4,)], count=MANY),
    Case("select by a constant", lambda x: jnp.where(np.arange(6) % 2 == 0, x, 0.0), [(6,)]),
    Case("select by the input", lambda x: jnp.where(x > 0, x, x[::-1]), [(6,)], count=MANY),
    Case("sign", lambda x: jnp.sign(x) + jnp.floor(x), [(5,)]),
    Case("times zero", lambda x: 0.0 * x + x[0], [(5,)], looser=4, why=EXACT),
    Case("times a mask", lambda x: np.array([1.0, 0.0, 1.0, 0.0, 2.0]) * x, [(5,)]),
    Case(
        "erf and gamma",
        lambda x: jax.scipy.special.erf(x) + jax.scipy.special.gammaln(x),
        [(4,)],
        draw=uniform(0.5, 2.0),
    ),
    Case("broadcast", lambda x, y: x[:, None] * y[None, :], [(3,), (4,)]),
    Case("polynomial", lambda x: jnp.polyval(jnp.array([1.0, -2.0, 3.0]), x), [(5,)]),
]

STENCILS = [
    Case("roll", lambda x: jnp.roll(x, 1) * x, [(6,)]),
    Case("pad and slice", lambda x: jnp.pad(x, (1, 1))[2:] * x + jnp.pad(x, (1, 1))[:-2], [(6,)]),
    Case("diff", lambda x: jnp.diff(x, n=2), [(7,)]),
    Case("gradient", lambda x: jnp.gradient(x), [(6,)]),
    Case("gradient of an image", lambda x: jnp.stack(jnp.gradient(x)), [(4, 4)]),
    Case("upwind", lambda x: jnp.where(x > 0, x - jnp.roll(x, 1), jnp.roll(x, -1) - x), [(6,)], count=MANY),
    Case("laplacian", lambda u: sum(jnp.roll(u, s, a) for s in (1, -1) for a in (0, 1)) - 4.0 * u**2, [(4, 4)]),
    Case("convolve", lambda x: jnp.convolve(x, np.array([1.0, -2.0, 1.0]), mode="same"), [(7,)]),
    Case("padded by edge values", lambda x: jnp.diff(jnp.pad(x, 1, mode="edge")), [(5,)], looser=2, why=CANCEL),
    Case("padded by reflection", lambda x: jnp.convolve(jnp.pad(x, 2, mode="reflect"), c(3), mode="valid"), [(5,)]),
    Case("interleaved", lambda x: jnp.stack([x[::2], x[1::2] ** 2], 1).ravel(), [(6,)]),
    Case("tiled", lambda x: jnp.tile(x, 2) * jnp.repeat(x, 2), [(4,)]),
]


def conv(x: Any, k: Any, stride: Any, padding: Any = "SAME", **options: Any) -> Any:
    return lax.conv_general_dilated(x, k, stride, padding, **options)


def hole(*shape: int) -> np.ndarray:
    """A kernel that is zero from its centre on, as in a PixelCNN."""
    k = c(*shape)
    k.reshape(*shape[:2], -1)[..., np.prod(shape[2:]) // 2 :] = 0.0
    return k


CONVOLUTIONS = [
    Case("1-D", lambda x: conv(x, c(2, 2, 3), (1,)), [(1, 2, 6)]),
    Case("1-D strided", lambda x: conv(x, c(2, 1, 3), (2,)), [(1, 1, 7)]),
    Case("1-D dilated", lambda x: conv(x, c(1, 1, 3), (1,), rhs_dilation=(2,)), [(1, 1, 8)]),
    Case("1-D transposed", lambda x: conv(x, c(1, 1, 3), (1,), [(1, 1)], lhs_dilation=(2,)), [(1, 1, 5)]),
    Case(
        "1-D circular",
        lambda x: conv(jnp.pad(x, ((0, 0), (0, 0), (1, 1)), mode="wrap"), c(1, 1, 3), (1,), "VALID"),
        [(1, 1, 6)],
    ),
    Case(
        "conv_transpose", lambda x: lax.conv_transpose(x, c(3, 2, 1), (2,), "SAME", dimension_numbers=None), [(1, 4, 2)]
    ),
    Case("grouped", lambda x: conv(x, c(4, 2, 3), (1,), feature_group_count=2), [(1, 4, 5)]),
    Case(
        "depthwise",
        lambda x: conv(x, c(3, 1, 2, 2), (1, 1), "VALID", feature_group_count=3),
        [(1, 3, 3, 3)],
    ),
    Case(
        "batch groups",
        lambda x: conv(x, c(2, 1, 2), (1,), "VALID", batch_group_count=2),
        [(2, 1, 4)],
    ),
    Case("2-D of a batch", lambda x: conv(x, c(2, 1, 3, 3), (1, 1)), [(2, 1, 3, 4)]),
    Case("2-D strided", lambda x: conv(x, c(1, 2, 3, 3), (2, 2)), [(1, 2, 4, 4)]),
    Case("3-D", lambda x: conv(x, c(1, 1, 2, 2, 2), (1, 1, 1), "VALID"), [(1, 1, 3, 3, 3)]),
    Case("kernel with a hole", lambda x: conv(x, hole(1, 1, 3, 3), (1, 1)), [(1, 1, 4, 4)]),
    Case("kernel unknown", lambda x, k: conv(x, k, (1,)), [(1, 2, 5), (1, 2, 3)], argnums=(0,)),
    Case(
        "kernel unknown, masked",
        lambda x, k: conv(x, k * np.array([[[1.0, 1.0, 0.0]]]), (1,)),
        [(1, 1, 5), (1, 1, 3)],
        argnums=(0,),
    ),
    Case("kernel and image", lambda x, k: conv(x, k, (1,)), [(1, 1, 5), (1, 1, 3)], looser=2, why=EXACT),
    Case(
        "kernel of a transposed one",
        lambda x, k: lax.conv_transpose(x, k, (2, 2), "VALID"),
        [(2, 2, 2, 1), (3, 3, 1, 2)],
    ),
    Case(
        "kernel of few pixels",
        lambda k: conv(np.pad(c(1, 1, 2, 1), ((0, 0), (0, 0), (3, 3), (0, 0))), k, (1, 1)),
        [(1, 1, 3, 1)],
    ),
    Case("kernel over one pixel", lambda x, k: conv(x, k, (1, 1), [(2, 2), (2, 2)]), [(1, 1, 1, 1), (2, 1, 3, 3)]),
    Case(
        "flax layout",
        lambda x: conv(x, c(2, 2, 1, 2), (1, 1), dimension_numbers=("NHWC", "HWIO", "NHWC")),
        [(1, 3, 3, 1)],
    ),
]


def window(
    x: Any, op: Any, start: float, size: tuple[int, ...], stride: tuple[int, ...], padding: str = "VALID"
) -> Any:
    return lax.reduce_window(x, start, op, size, stride, padding)


POOLS = [
    Case("max_pool", lambda x: window(x, lax.max, -jnp.inf, (2,), (2,)), [(8,)], count=MANY),
    Case("max_pool overlapping", lambda x: window(x, lax.max, -jnp.inf, (3,), (1,), "SAME"), [(6,)], count=MANY),
    Case("max_pool of an image", lambda x: window(x, lax.max, -jnp.inf, (2, 2), (2, 2)), [(4, 4)], count=MANY),
    Case("min_pool", lambda x: window(x, lax.min, jnp.inf, (2,), (1,)), [(6,)], count=MANY),
    Case("avg_pool", lambda x: window(x, lax.add, 0.0, (3,), (1,), "SAME") / 3.0, [(6,)]),
    Case("avg_pool of an image", lambda x: window(x, lax.add, 0.0, (2, 2), (2, 2)) / 4.0, [(4, 4)]),
    Case("max_pool by reshape", lambda x: x.reshape(4, 2).max(1), [(8,)], count=MANY),
]


def recurrence(x: Any, a: Any) -> Any:
    """y[k] = a[k] y[k-1] + x[k]."""

    def combine(left: Any, right: Any) -> Any:
        return left[0] * right[0], right[0] * left[1] + right[1]

    return lax.associative_scan(combine, (a, x))[1]


CUMULATIVE = [
    Case("cumsum", jnp.cumsum, [(6,)]),
    Case("cumsum from the end", lambda x: lax.cumsum(x, reverse=True), [(6,)]),
    Case("cumsum of rows", lambda x: jnp.cumsum(x, axis=1), [(3, 4)]),
    Case("cumprod", jnp.cumprod, [(6,)]),
    Case("cummax", lambda x: lax.cummax(x), [(5,)], count=MANY),
    Case("cummax of rows", lambda x: lax.cummax(x, axis=1), [(3, 4)], count=MANY),
    Case("cummin", lambda x: lax.cummin(x), [(5,)], count=MANY),
    Case("cumlogsumexp", lambda x: lax.cumlogsumexp(x), [(5,)]),
    Case("associative sum", lambda x: lax.associative_scan(jnp.add, x), [(7,)]),
    Case("associative product", lambda x: lax.associative_scan(jnp.multiply, x), [(7,)]),
    Case("associative recurrence", recurrence, [(6,), (6,)]),
    Case("diagonal recurrences", recurrence, [(5, 2), (5, 2)], argnums=(0,)),
]

SORTING = [
    Case("sort", jnp.sort, [(5,)], count=MANY),
    Case("sort of rows", lambda x: jnp.sort(x, axis=1), [(3, 4)], count=MANY),
    Case("argsort, gather", lambda x: x[jnp.argsort(x)], [(5,)], count=MANY),
    Case(
        "argsort of rows, gather",
        lambda x: jnp.take_along_axis(x, jnp.argsort(x, 1), 1),
        [(3, 3)],
        count=MANY,
    ),
    Case("sorted by a known key", lambda x: x[jnp.argsort(jnp.array([3, 1, 2, 0]))] ** 2, [(4,)]),
    Case(
        "carried by a known key",
        lambda x: lax.sort((jnp.array([3, 1, 2, 0]), x), num_keys=1)[1],
        [(4,)],
    ),
    Case(
        "carried by an unknown key",
        lambda x, k: lax.sort((k, x), num_keys=1)[1],
        [(4,), (4,)],
        count=MANY,
        argnums=(0,),
    ),
    Case("top_k", lambda x: lax.top_k(x, 2)[0], [(5,)], count=MANY),
    Case("top_k of rows", lambda x: lax.top_k(x, 2)[0], [(3, 4)], count=MANY),
    Case("max", jnp.max, [(5,)], count=MANY),
    Case("max of rows", lambda x: x.max(1), [(3, 4)], count=MANY),
    Case("median of rows", lambda x: jnp.median(x, axis=1), [(2, 3)], count=MANY),
    Case("argmax, gather", lambda x: x[jnp.argmax(x)] * x, [(4,)], count=MANY),
]

AT = np.array([0, 3, -1, 3])
OUT = np.array([0, 9, -9, 2])


def start_of(x: Any) -> Any:
    return jnp.abs(x[0] * 3.0).astype(int)


def row(x: Any) -> Any:
    """One of five."""
    return jnp.floor(jnp.abs(x) * 3.0).astype(int) % 5


INDEXING = [
    Case("gather", lambda x: x[AT] * x[1], [(5,)]),
    Case("gather, clip", lambda x: x.at[OUT].get(mode="clip"), [(5,)]),
    Case("gather, fill", lambda x: x.at[OUT].get(mode="fill", fill_value=7.0), [(5,)]),
    Case("gather, wrap", lambda x: jnp.take(x, OUT, mode="wrap"), [(5,)]),
    Case("gather of rows", lambda x: x[np.array([2, 0]), :][:, np.array([1, 1])], [(3, 4)]),
    Case("gather by pairs", lambda x: x[np.array([2, 0]), np.array([1, 3])], [(3, 4)]),
    Case("gather by a mask", lambda x: x[np.array([True, False, True, True])], [(4,)]),
    Case("gather by the input", lambda x: x[start_of(x)], [(4,)], count=MANY, draw=uniform(0.0, 1.33)),
    Case("take_along_axis", lambda x: jnp.take_along_axis(x, np.array([[0, 2], [1, 1]]), 1), [(2, 3)]),
    Case("add", lambda x: jnp.zeros(4).at[AT].add(x**2), [(4,)]),
    Case("add, drop", lambda x: jnp.zeros(4).at[OUT].add(x, mode="drop"), [(4,)]),
    Case("add, clip", lambda x: jnp.zeros(4).at[OUT].add(x, mode="clip"), [(4,)]),
    Case("add to itself", lambda x: x.at[AT].add(x[:4]), [(5,)]),
    Case("set", lambda x: x.at[np.array([0, 2])].set(x[3:] ** 2), [(5,)]),
    Case("set to zero", lambda x: x.at[1:3].set(0.0), [(5,)]),
    Case("set, drop", lambda x: x.at[np.array([0, 9])].set(x[3:], mode="drop"), [(5,)]),
    Case("multiply", lambda x: x.at[np.array([0, 3])].mul(x[1:3], unique_indices=True), [(5,)]),
    Case("maximum", lambda x: x.at[np.array([0, 2])].max(x[3:]), [(5,)], count=MANY),
    Case("minimum of duplicates", lambda x: jnp.zeros(3).at[np.array([0, 0, 2])].min(x), [(3,)], count=MANY),
    Case("divide and power", lambda x: x.at[0].divide(x[1]).at[2].power(2.0), [(4,)], draw=uniform(0.5, 2.0)),
    Case(
        "set at the input",
        lambda x: x.at[start_of(x)].set(x[1] ** 2),
        [(4,)],
        count=MANY,
        draw=uniform(0.0, 1.33),
    ),
    Case("segment_sum", lambda x: jax.ops.segment_sum(x, np.array([0, 0, 2, 1, 2]), 4), [(5,)]),
    Case("segment_max", lambda x: jax.ops.segment_max(x, np.array([0, 0, 2, 1, 2]), 3), [(5,)], count=MANY),
    Case("bincount", lambda x: jnp.bincount(np.array([0, 2, 2, 1]), weights=x, length=3), [(4,)]),
    Case("dynamic_slice", lambda x: lax.dynamic_slice(x, (3,), (2,)) * lax.dynamic_slice(x, (9,), (2,)), [(6,)]),
    Case(
        "dynamic_slice at the input",
        lambda x: lax.dynamic_slice(x, (start_of(x),), (2,)),
        [(5,)],
        count=MANY,
        draw=uniform(0.0, 1.33),
        looser=2,
        why=RANGE,
    ),
    Case(
        "dynamic_slice of rows at the input",
        lambda x: lax.dynamic_slice(x, (0, start_of(x[0])), (3, 2)),
        [(3, 4)],
        count=MANY,
        draw=uniform(0.0, 1.0),
        looser=6,
        why=AXIS,
    ),
    Case("a column at the input", lambda i, y: y[row(i), 2], [(3,), (5, 4)], argnums=(1,), count=MANY),
    Case("part of a row at the input", lambda i, y: y[row(i), 1:3], [(), (5, 4)], argnums=(1,), count=MANY),
    Case("part of a column at the input", lambda i, y: y[2, row(i)], [(3,), (4, 5)], argnums=(1,), count=MANY),
    Case(
        "columns under vmap at the input",
        lambda i, y: jax.vmap(lambda i: y[i, 0] - y[i, 3])(row(i)),
        [(3,), (5, 4)],
        argnums=(1,),
        count=MANY,
    ),
    Case(
        "a window at the input on one axis",
        lambda i, y: lax.dynamic_slice(y, (row(i), 1), (2, 2)),
        [(), (6, 4)],
        argnums=(1,),
        count=MANY,
        looser=4,
        why=RANGE,
    ),
    Case(
        "a window updated at the input on one axis",
        lambda i, y: lax.dynamic_update_slice(y, y[:2, :2] ** 2, (row(i), 9)),
        [(), (6, 4)],
        argnums=(1,),
        count=MANY,
        looser=4,
        why=RANGE,
    ),
    Case(
        "set in a column at the input",
        lambda i, y: jnp.zeros((5, 4)).at[row(i), 2].set(y**2),
        [(3,), (3,)],
        argnums=(1,),
        count=MANY,
    ),
    Case(
        "added to a column at the input",
        lambda i, y: y.at[row(i), -1].add(y[0, :3] ** 2),
        [(3,), (5, 4)],
        argnums=(1,),
        count=MANY,
    ),
    Case("dynamic update", lambda x: lax.dynamic_update_slice(x, x[:2] ** 2, (3,)), [(6,)]),
    Case(
        "interp at the input",
        lambda x: jnp.interp(x, np.arange(4.0), np.array([0.0, 2.0, 1.0, 5.0])),
        [(4,)],
        count=MANY,
        draw=uniform(0.1, 2.9),
    ),
    Case("interp of the input", lambda y: jnp.interp(np.array([0.5, 1.5, 2.2]), np.arange(4.0), y), [(4,)]),
    Case(
        "interp of both",
        lambda x, y: jnp.interp(x, np.arange(4.0), y),
        [(3,), (4,)],
        count=MANY,
        draw=uniform(-0.5, 3.5),
    ),
    Case("one_hot", lambda x: jax.nn.one_hot(np.array([2, 0]), 3, dtype=float) @ x, [(3,)]),
    Case("triangle of a matrix", lambda x: jnp.zeros((3, 3)).at[np.tril_indices(3)].set(x), [(6,)]),
    Case("diagonal and trace", lambda x: jnp.diag(x) * jnp.trace(x), [(3, 3)]),
]

FOURIER = [
    Case("fft", lambda x: jnp.fft.fft(x).real, [(5,)]),
    Case("abs of an fft", lambda x: jnp.abs(jnp.fft.fft(x)), [(5,)]),
    Case("fft of rows", lambda x: jnp.abs(jnp.fft.fft(x, axis=1)) ** 2, [(3, 4)]),
    Case("fft of columns", lambda x: jnp.fft.fft(x, axis=0).real, [(3, 2)]),
    Case("rfft of rows", lambda x: jnp.abs(jnp.fft.rfft(x)), [(2, 5)]),
    Case("irfft of rows", lambda x: jnp.fft.irfft(lax.complex(x, x**2), n=4), [(2, 3)]),
    Case("fft2 of a batch", lambda x: jnp.abs(jnp.fft.fft2(x)), [(2, 3, 3)]),
    Case("there and back", lambda x: jnp.fft.ifft(jnp.fft.fft(x)).real, [(4,)], looser=12, why=CANCEL),
    Case("complex inside", lambda x: jnp.abs(lax.complex(x, 2.0 * x[::-1])), [(5,)]),
    Case("phase", lambda x, y: jnp.angle(lax.complex(x, y)), [(3,), (3,)]),
]

B = (2, 3, 3)


def triangle(a: Any) -> Any:
    return jnp.tril(a) + 3.0 * jnp.broadcast_to(jnp.eye(3), a.shape)


LINEAR_ALGEBRA = [
    Case("cholesky", lambda a: jnp.linalg.cholesky(spd(a)), [B], looser=30, why=FACTOR),
    Case("solve", lambda a, b: jnp.linalg.solve(spd(a), b[..., None])[..., 0], [B, (2, 3)]),
    Case(
        "solve, matrices unknown",
        lambda a, b: jnp.linalg.solve(spd(a), b[..., None]),
        [B, (2, 3)],
        argnums=(1,),
    ),
    Case("solve, matrices known", lambda b: jnp.linalg.solve(c(2, 3, 3), b[..., None]), [(2, 3)]),
    Case(
        "solve, one matrix",
        lambda b: jax.vmap(lambda b: jnp.linalg.solve(c(3, 3), b))(b),
        [(4, 3)],
    ),
    Case(
        "cho_solve",
        lambda a, b: jax.vmap(lambda a, b: jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(a), b))(spd(a), b),
        [B, (2, 3)],
    ),
    Case("inv", lambda a: jnp.linalg.inv(spd(a)), [B]),
    Case("det", lambda a: jnp.linalg.det(spd(a)), [B]),
    Case("det of 4×4", lambda a: jnp.linalg.det(a), [(2, 4, 4)]),
    Case("slogdet", lambda a: jnp.linalg.slogdet(spd(a))[1], [B]),
    Case("qr", lambda a: jnp.linalg.qr(spd(a))[0], [B]),
    Case("svd", lambda a: jnp.linalg.svd(spd(a), compute_uv=False), [B]),
    Case("svd with vectors", lambda a: jnp.abs(jnp.linalg.svd(spd(a))[0]), [B]),
    Case("eigh", lambda a: jnp.linalg.eigh(spd(a))[0], [B]),
    Case("eigh with vectors", lambda a: jnp.abs(jnp.linalg.eigh(spd(a))[1]), [B]),
    Case("lu", lambda a: lax.linalg.lu(spd(a))[0], [B], looser=42, why=FACTOR),
    Case(
        "triangular_solve",
        lambda a, b: lax.linalg.triangular_solve(triangle(a), b, left_side=True, lower=True),
        [B, (2, 3, 1)],
        looser=22,
        why=TRIANGLE,
    ),
    Case(
        "triangular_solve, unknown",
        lambda a, b: lax.linalg.triangular_solve(a, b, left_side=True, lower=True),
        [B, (2, 3, 1)],
        argnums=(1,),
        looser=6,
        why=TRIANGLE,
    ),
    Case(
        "tridiagonal_solve",
        lambda d, b: lax.linalg.tridiagonal_solve(
            jnp.ones((2, 3)).at[:, 0].set(0.0), d**2 + 3.0, jnp.ones((2, 3)).at[:, -1].set(0.0), b[..., None]
        ),
        [(2, 3), (2, 3)],
    ),
    Case(
        "expm",
        lambda a: jax.vmap(lambda a: jax.scipy.linalg.expm(a, max_squarings=1))(a / 9.0),
        [(2, 2, 2)],
    ),
    Case("pinv of one", lambda a: jnp.linalg.pinv(a), [(3, 2)]),
    Case("matrix_power", lambda a: jnp.linalg.matrix_power(a, 3), [B]),
    Case("norm per row", lambda a: jnp.linalg.norm(a, axis=1), [(3, 4)]),
    Case("cross", lambda a, b: jnp.cross(a, b), [(2, 3), (2, 3)]),
]


def rnn(h: Any, x: Any) -> tuple[Any, Any]:
    h = jnp.tanh(c(2, 2) @ h + x)
    return h, h


def diagonal_rnn(h: Any, x: Any) -> tuple[Any, Any]:
    h = jnp.tanh(0.5 * h + x)
    return h, h


def diffusion(u: Any) -> Any:
    return u + 0.1 * (jnp.roll(u, 1) - 2.0 * u + jnp.roll(u, -1)) - u**3


def halved(x: Any) -> Any:
    """Halve until it is small: the number of turns depends on the input."""
    return lax.while_loop(lambda x: jnp.sum(x**2) > 0.1, lambda x: jnp.sin(0.5 * x), x)


def accumulated(x: Any) -> Any:
    """A loop that writes one element a turn."""
    return lax.fori_loop(0, 5, lambda i, y: y.at[i].set(x[i] ** 2), jnp.zeros(5))


LOOPS = [
    Case("RNN", lambda x: lax.scan(rnn, jnp.zeros(2), x)[1], [(4, 2)], looser=8, why=LOOP),
    Case("RNN, start too", lambda h, x: lax.scan(rnn, h, x)[1], [(2,), (3, 2)], looser=6, why=LOOP),
    Case("RNN, last state", lambda x: lax.scan(rnn, jnp.zeros(2), x)[0], [(4, 2)], looser=2, why=LOOP),
    Case("RNN backwards", lambda x: lax.scan(rnn, jnp.zeros(2), x, reverse=True)[1], [(4, 2)], looser=8, why=LOOP),
    Case("diagonal RNN", lambda x: lax.scan(diagonal_rnn, jnp.zeros(2), x)[1], [(4, 2)]),
    Case("diagonal RNN, last state", lambda x: lax.scan(diagonal_rnn, jnp.zeros(2), x)[0], [(4, 2)]),
    Case("running sum", lambda x: lax.scan(lambda s, a: (s + a, s * a), 0.0, x)[1], [(5,)], looser=1, why=LOOP),
    Case("step by step", lambda x: lax.scan(lambda n, a: (n + 1, a**2), 0, x)[1], [(5,)]),
    Case("step by step, rows", lambda x: lax.scan(lambda n, a: (n, a * a.sum()), 0, x)[1], [(3, 2)]),
    Case("carry that is known", lambda x: lax.scan(lambda k, a: (0.5 * k, k * a), 1.0, x)[1], [(5,)]),
    Case("carry moved on", lambda x: lax.scan(lambda p, a: (a, a - p), 0.0, x)[1], [(6,)], looser=10, why=LOOP),
    Case(
        "elementwise carry",
        lambda x: lax.scan(lambda y, _: (jnp.sin(y), None), x, None, length=3)[0],
        [(5,)],
    ),
    Case(
        "stencil, 2 steps",
        lambda u: lax.scan(lambda u, _: (diffusion(u), None), u, None, length=2)[0],
        [(9,)],
    ),
    Case(
        "stencil, 2 steps kept",
        lambda u: lax.scan(lambda u, _: (diffusion(u), u), u, None, length=2)[1],
        [(9,)],
        looser=36,
        why=LOOP,
    ),
    Case(
        "unrolled",
        lambda u: lax.scan(lambda u, _: (diffusion(u), None), u, None, length=2, unroll=2)[0],
        [(9,)],
    ),
    Case(
        "triangular carry",
        lambda x: lax.scan(lambda y, _: (jnp.tril(c(4, 4)) @ y, None), x, None, length=3)[0],
        [(4,)],
    ),
    Case(
        "layers with weights of each",
        lambda x: lax.scan(lambda y, w: (jnp.tanh(w * y), None), x, c(3, 4))[0],
        [(4,)],
    ),
    Case(
        "masked layers with weights of each",
        lambda x: lax.scan(lambda y, w: (jnp.tanh(w @ y), None), x, np.tril(c(3, 4, 4)))[0],
        [(4,)],
    ),
    Case(
        "masked layers, weights unknown",
        lambda w, x: lax.scan(lambda y, w: (jnp.tanh((w * LOWER) @ y), None), x, w)[0],
        [(3, 4, 4), (4,)],
        argnums=(1,),
    ),
    Case(
        "one masked layer, weights a carry",
        lambda w, x: lax.scan(lambda s, _: ((s[0] * LOWER, (s[0] * LOWER) @ s[1]), None), (w, x), None, length=40)[0][
            1
        ],
        [(4, 4), (4,)],
        argnums=(1,),
        draw=uniform(0.9, 1.1),
    ),
    Case(
        "weights that lose their mask after a step",
        lambda w, x: lax.scan(lambda s, _: ((w, s[0] @ s[1]), None), (w * LOWER, x), None, length=2)[0][1],
        [(4, 4), (4,)],
        argnums=(1,),
    ),
    Case(
        "Euler of a diagonal system",
        lambda y: lax.scan(lambda y, t: (y + 0.1 * t * jnp.sin(y), y), y, np.arange(4.0))[1],
        [(3,)],
    ),
    Case("fori_loop, elementwise", lambda x: lax.fori_loop(0, 3, lambda i, y: jnp.sin(y), x), [(5,)]),
    Case("fori_loop, stencil", lambda u: lax.fori_loop(0, 2, lambda i, u: diffusion(u), u), [(9,)]),
    Case("fori_loop, one element a turn", accumulated, [(5,)], looser=20, why=LOOP),
    Case("while_loop, elementwise", halved, [(4,)]),
    Case(
        "while_loop, never dependent", lambda x: x * lax.while_loop(lambda k: k < 10.0, lambda k: 2.0 * k, 1.0), [(4,)]
    ),
    Case("while_loop for each", jax.vmap(halved), [(4,)]),
    Case("map", lambda x: lax.map(lambda r: r * r.sum(), x), [(3, 2)]),
    Case("map in batches", lambda x: lax.map(jnp.sin, x, batch_size=2), [(5,)]),
    Case(
        "scan in a scan",
        lambda x: lax.scan(lambda n, r: (n, lax.scan(lambda s, a: (s + a, s + a), 0.0, r)[1]), 0, x)[1],
        [(3, 3)],
    ),
    Case(
        "scan under vmap",
        jax.vmap(lambda x: lax.scan(lambda s, a: (s * a, s * a), 1.0, x)[1]),
        [(2, 4)],
    ),
    Case(
        "bisection",
        lambda a: lax.fori_loop(0, 4, lambda i, s: jnp.where(jnp.sin(s) < a, s + 0.5 * a, s - 0.25 * a), a),
        [(4,)],
    ),
]

CONTROL = [
    Case("cond, known", lambda x: lax.cond(True, lambda x: x**2, jnp.cumsum, x), [(5,)]),
    Case(
        "cond, traced",
        lambda x, t: lax.cond(t > 0, lambda x: x**2, lambda x: x[::-1], x),
        [(5,), ()],
        count=20,
        argnums=(0,),
    ),
    Case("cond, by the input", lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.cos, x), [(5,)]),
    Case("cond for each", jax.vmap(lambda x: lax.cond(x > 0, jnp.sin, jnp.cos, x)), [(5,)]),
    Case("cond for each row", jax.vmap(lambda x: lax.cond(x[0] > 0, jnp.cumsum, jnp.sin, x)), [(3, 3)], count=MANY),
    Case("cond, a branch constant", lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.zeros_like, x), [(5,)], count=20),
    Case("switch, known", lambda x: lax.switch(1, [jnp.cumsum, jnp.sin, jnp.flip], x), [(5,)]),
    Case(
        "switch, by the input",
        lambda x: lax.switch(start_of(x), [jnp.sin, jnp.flip, lambda x: jnp.roll(x, 1)], x),
        [(5,)],
        count=MANY,
        draw=uniform(0.0, 1.0),
    ),
    Case("select_n", lambda x: lax.select_n(jnp.array([0, 1, 2, 1]), x, x[::-1], jnp.zeros(4)), [(4,)]),
    Case("select_n, by the input", lambda x: lax.select_n((x > 0).astype(jnp.int32), x, x[::-1]), [(4,)], count=MANY),
    Case(
        "piecewise",
        lambda x: jnp.piecewise(x, [x < 0, x >= 0], [lambda x: x**2, lambda x: 0.0 * x]),
        [(4,)],
        count=MANY,
    ),
    Case("jnp.select", lambda x: jnp.select([x < -0.5, x < 0.5], [x, x**2], 0.0), [(4,)], count=MANY),
    Case("platform dependent", lambda x: lax.platform_dependent(x, cpu=jnp.sin, default=jnp.cos), [(4,)]),
]


@jax.custom_jvp
def softplus(x: Any) -> Any:
    return jnp.log1p(jnp.exp(x))


softplus.defjvp(lambda p, t: (softplus(p[0]), jax.nn.sigmoid(p[0]) * t[0]))


@jax.custom_vjp
def clipped(x: Any) -> Any:
    return x**2


clipped.defvjp(lambda x: (x**2, x), lambda x, g: (2.0 * x * g,))


def cube_roots(a: Any) -> Any:
    """Solve y**3 = a for each element."""
    return lax.custom_root(
        lambda y: y**3 - a,
        jnp.ones_like(a),
        lambda f, y: lax.fori_loop(0, 30, lambda i, y: y - (y**3 - a) / (3.0 * y**2), y),
        lambda g, b: b / g(jnp.ones_like(b)),
    )


def scaled(d: Any, b: Any) -> Any:
    """Solve diag(d) x = b."""
    return lax.custom_linear_solve(lambda v: d * v, b, lambda _, b: b / d, symmetric=True)


def cg(matvec: Any, b: Any) -> Any:
    return jax.scipy.sparse.linalg.cg(matvec, b, tol=1e-14)[0]


def rows_summed(x: Any) -> Any:
    return jax.named_call(lambda x: jax.jit(lambda x: x.sum(1))(x), name="rows")(x)


KEY = jax.random.key(0)

WRAPPERS = [
    Case("remat", jax.checkpoint(lambda x: jnp.sin(jnp.sin(x))), [(5,)]),
    Case(
        "remat with a policy",
        jax.checkpoint(lambda x: jnp.sin(jnp.diff(x)) ** 2, policy=jax.checkpoint_policies.dots_saveable),
        [(5,)],
    ),
    Case("named_call and jit", rows_summed, [(3, 2)]),
    Case("jit in jit", jax.jit(lambda x: jax.jit(jnp.roll, static_argnums=1)(x, 1) * x), [(5,)]),
    Case("custom_jvp", lambda x: softplus(x)[1:], [(5,)]),
    Case("custom_vjp", clipped, [(5,)], mode="reverse"),
    Case(
        "custom_root",
        cube_roots,
        [(4,)],
        why="a custom rule is called with one constant twice",
        draw=uniform(0.5, 2.0),
    ),
    Case("custom_linear_solve", scaled, [(4,), (4,)], draw=uniform(0.5, 2.0)),
    Case(
        "cg, diagonal",
        lambda b: cg(lambda v: np.arange(1.0, 5.0) * v, b),
        [(4,)],
    ),
    Case(
        "cg, tridiagonal",
        lambda b: cg(lambda v: 3.0 * v - jnp.roll(v, 1) - jnp.roll(v, -1), b),
        [(5,)],
    ),
    Case(
        "cg for each sample",
        jax.vmap(lambda b: cg(lambda v: spd(c(3, 3)) @ v, b)),
        [(2, 3)],
    ),
    Case("random factors", lambda x: jax.random.normal(KEY, (5,)) * x, [(5,)]),
    Case("random choice", lambda x: jax.random.permutation(KEY, x), [(5,)]),
    Case("random mask", lambda x: x * (jax.random.uniform(KEY, (8,)) < 0.5).astype(float), [(8,)]),
    Case("dropout", lambda x: jnp.where(jax.random.bernoulli(KEY, 0.5, (8,)), 2.0 * x, 0.0), [(8,)]),
    Case("reparametrized", lambda m, s: m + jnp.exp(s) * jax.random.normal(KEY, (4,)), [(4,), (4,)]),
    Case("optimization_barrier", lambda x: lax.optimization_barrier(jnp.sin(x)), [(5,)]),
    Case("barrier of two", lambda x, y: lax.optimization_barrier((jnp.sin(x), y**2)), [(3,), (3,)]),
    Case("callback for its effect", lambda x: [jax.debug.callback(lambda v: None, x), jnp.sin(x)][1], [(4,)]),
    Case("stop_gradient", lambda x: x * lax.stop_gradient(x[::-1]), [(5,)]),
    Case("reduce_precision", lambda x: lax.reduce_precision(x, 11, 52) ** 2, [(4,)]),
    Case("cast to float32 and back", lambda x: 2.0 * x.astype(jnp.float32).astype(float), [(4,)]),
    Case("integers and back", lambda x: x.astype(int).astype(float) + jnp.sin(x), [(4,)]),
    Case("integers and back alone", lambda x: x.astype(int).astype(float), [(4,)]),
    Case(
        "ode of a diagonal system",
        lambda y: odeint(lambda y, t: -y * np.arange(1.0, 4.0), y, jnp.array([0.0, 0.5])),
        [(3,)],
        mode="reverse",
        looser=12,
        why=LOOP,
    ),
    Case("linearize inside", lambda x: jax.jvp(jnp.sin, (x,), (x**2,))[1], [(4,)]),
    Case("gradient inside", jax.grad(lambda x: jnp.sum(jnp.sin(x[1:] * x[:-1]))), [(5,)]),
    Case(
        "hessian product inside", lambda x: jax.jvp(jax.grad(lambda x: jnp.sum(x**4)), (x,), (jnp.ones(4),))[1], [(4,)]
    ),
]

LOWER = np.tril(np.ones((4, 4)))
BAND = np.eye(6) + np.eye(6, k=1) - 2.0 * np.eye(6, k=-1)
BLOCKS = np.kron(np.eye(2), c(3, 3))


PLACES = np.array([[0, 1], [1, 0], [1, 2], [2, 3]])


def coo(values: Any) -> Any:
    return sparse.BCOO((values, PLACES), shape=(3, 4), indices_sorted=True, unique_indices=True)


def csr(values: Any) -> Any:
    return sparse.BCSR((values, np.array([1, 0, 2, 3]), np.array([0, 1, 3, 4])), shape=(3, 4))


def sparse_batch(values: Any, x: Any) -> Any:
    matrices = sparse.BCOO((values, np.stack([PLACES] * 2)), shape=(2, 3, 4))
    return sparse.bcoo_dot_general(matrices, x, dimension_numbers=(((2,), (1,)), ((0,), (0,))))


def batch(values: Any) -> Any:
    return sparse.BCOO((values, np.stack([PLACES] * 2)), shape=(2, 3, 4))


def sparse_products(values: Any, others: Any) -> Any:
    numbers = (((2,), (2,)), ((0,), (0,)))
    return sparse.bcoo_dot_general(batch(values), batch(others), dimension_numbers=numbers).todense()


def blocks(values: Any) -> Any:
    return sparse.BCOO((values, PLACES), shape=(3, 4, 2))


def vectors_of(values: Any, x: Any) -> Any:
    return sparse.bcoo_dot_general(blocks(values), x, dimension_numbers=(((1,), (0,)), ((), ())))


def spot(values: Any) -> Any:
    return sparse.BCOO((values, np.array([[0], [2]])), shape=(4,))


def double(values: Any) -> Any:
    return sparse.BCOO((values, np.array([[0, 1], [0, 1], [1, 2], [2, 3]])), shape=(3, 4))


def csr_batch(values: Any) -> Any:
    return sparse.BCSR((values, np.array([[1, 0, 2, 3]] * 2), np.array([[0, 1, 3, 4]] * 2)), shape=(2, 3, 4))


def csr_products(values: Any, x: Any) -> Any:
    return sparse.bcsr_dot_general(csr_batch(values), x, dimension_numbers=(((2,), (1,)), ((0,), (0,))))


def repeated(matrix: Any) -> Any:
    return sparse.bcsr_broadcast_in_dim(matrix, shape=(2, 3, 4), broadcast_dimensions=(1, 2))


def square(values: Any) -> Any:
    return sparse.BCOO((values, SQUARE.indices), shape=(4, 4), unique_indices=True)


SQUARE = sparse.BCOO(
    (np.arange(1.0, 5.0), np.array([[0, 1], [1, 0], [2, 2], [3, 2]])), shape=(4, 4), unique_indices=True
)

MATRICES = [
    Case("dense", lambda x: c(3, 5) @ x, [(5,)]),
    Case("banded", lambda x: jnp.tanh(BAND @ x), [(6,)]),
    Case("block-diagonal", lambda x: BLOCKS @ x, [(6,)]),
    Case("kron of the input", lambda x: jnp.kron(np.eye(2), x), [(2, 2)]),
    Case("kron times a vector", lambda x: jnp.kron(np.eye(3), c(2, 2)) @ x, [(6,)]),
    Case("block_diag of the input", lambda x, y: jax.scipy.linalg.block_diag(x, y), [(2, 2), (1, 3)]),
    Case("permutation", lambda x: np.eye(5)[::-1] @ x, [(5,)]),
    Case("W * mask", lambda w, x: (w * LOWER) @ x, [(4, 4), (4,)]),
    Case("where(mask, W, 0)", lambda w, x: jnp.where(LOWER > 0, w, 0.0) @ x, [(4, 4), (4,)]),
    Case("tril(W)", lambda w, x: jnp.tril(w) @ x, [(4, 4), (4,)]),
    Case("W.at[].set(0)", lambda w, x: w.at[np.triu_indices(4, 1)].set(0.0) @ x, [(4, 4), (4,)]),
    Case("W.at[].mul(0)", lambda w, x: w.at[np.triu_indices(4, 1)].mul(0.0) @ x, [(4, 4), (4,)]),
    Case("W * mask, W fixed", lambda w, x: (w * LOWER) @ x, [(4, 4), (4,)], argnums=(1,)),
    Case("where(mask, W, 0), W fixed", lambda w, x: jnp.where(LOWER > 0, w, 0.0) @ x, [(4, 4), (4,)], argnums=(1,)),
    Case("tril(W), W fixed", lambda w, x: jnp.tril(w) @ x, [(4, 4), (4,)], argnums=(1,)),
    Case(
        "W.at[].set(0), W fixed",
        lambda w, x: w.at[np.triu_indices(4, 1)].set(0.0) @ x,
        [(4, 4), (4,)],
        argnums=(1,),
    ),
    Case(
        "W.at[].mul(0), W fixed",
        lambda w, x: w.at[np.triu_indices(4, 1)].mul(0.0) @ x,
        [(4, 4), (4,)],
        argnums=(1,),
    ),
    Case("exp(W) * mask, W fixed", lambda w, x: (jnp.exp(w) * LOWER) @ x, [(4, 4), (4,)], argnums=(1,)),
    Case(
        "set into zeros, W fixed",
        lambda w, x: jnp.zeros((4, 4)).at[np.tril_indices(4)].set(w) @ x,
        [(10,), (4,)],
        argnums=(1,),
    ),
    Case("diag(W), W fixed", lambda w, x: jnp.diag(w) @ x, [(4,), (4,)], argnums=(1,)),
    Case("W constant * mask", lambda x: (c(4, 4) * LOWER) @ x, [(4,)]),
    Case("W constant where(mask, W, 0)", lambda x: jnp.where(LOWER > 0, c(4, 4), 0.0) @ x, [(4,)]),
    Case("W constant tril", lambda x: jnp.tril(c(4, 4)) @ x, [(4,)]),
    Case("W constant .at[].set(0)", lambda x: jnp.array(c(4, 4)).at[np.triu_indices(4, 1)].set(0.0) @ x, [(4,)]),
    Case("mask a batch", lambda w, x: x @ (w * LOWER), [(4, 4), (2, 4)], argnums=(1,)),
    Case("mask under vmap", lambda w, x: jax.vmap(lambda x: jnp.tril(w) @ x)(x), [(4, 4), (2, 4)], argnums=(1,)),
    Case("mask squared", lambda w, x: jnp.tril(w) @ (jnp.tril(w) @ x), [(4, 4), (4,)], argnums=(1,)),
    Case(
        "masks multiplied first",
        lambda w, x: (jnp.tril(w) @ jnp.tril(w)) @ x,
        [(4, 4), (4,)],
        argnums=(1,),
    ),
    Case("mask in an einsum", lambda w, x: jnp.einsum("ij,bj->bi", w * LOWER, x), [(4, 4), (2, 4)], argnums=(1,)),
    Case("quadratic form", lambda x: x @ BAND @ x, [(6,)]),
    Case("sparse matrix", lambda x: coo(jnp.arange(1.0, 5.0)) @ x, [(4,)]),
    Case("sparse matrix, values unknown", lambda d, x: coo(d) @ x, [(4,), (4,)]),
    Case("sparse matrix, transposed", lambda d, x: coo(d).T @ x, [(4,), (3,)]),
    Case("sparse matrix on the right", lambda d, x: x @ coo(d), [(4,), (2, 3)]),
    Case(
        "sparse matrix with padding",
        lambda d, x: sparse.BCOO((d, np.array([[0, 0], [2, 9], [1, 1]])), shape=(2, 2)) @ x,
        [(3,), (2,)],
    ),
    Case("sparse matrix from a dense one", lambda x: sparse.BCOO.fromdense(BAND, nse=16) @ x, [(6,)]),
    Case("sparse matrix made dense", lambda d: coo(d).todense(), [(4,)]),
    Case("sparse matrices of a batch", sparse_batch, [(2, 4), (2, 4)]),
    Case("sparse matrix by rows", lambda d, x: csr(d) @ x, [(4,), (4,)]),
    Case("sparse matrix by rows, made dense", lambda d: csr(d).todense(), [(4,)]),
    Case("sparse matrix in a loop", lambda x: lax.fori_loop(0, 2, lambda _, x: SQUARE @ jnp.sin(x), x), [(4,)]),
    Case("sparse matrix, rows summed", lambda d: sparse.bcoo_reduce_sum(coo(d), axes=(1,)).todense(), [(4,)]),
    Case("sparsify", sparse.sparsify(lambda x: coo(jnp.ones(4)) @ x), [(4,)]),
    Case(
        "sparse matrix times a sparse one",
        lambda d: (coo(d) @ coo(jnp.arange(1.0, 5.0)).T).todense(),
        [(4,)],
    ),
    Case("sparse matrix times a sparse vector", lambda d: (coo(d) @ spot(d[:2])).todense(), [(4,)]),
    Case("sparse matrix squared, times a vector", lambda d, x: (square(d) @ square(d)) @ x, [(4,), (4,)]),
    Case("sparse matrix squared, its numbers", lambda d: (square(d) @ square(d)).data, [(4,)]),
    Case("sparse matrices of a batch, multiplied", sparse_products, [(2, 4), (2, 4)]),
    Case("sparse matrices of a batch, transposed", lambda d: batch(d).transpose((0, 2, 1)).todense(), [(2, 4)]),
    Case("sparse matrix of vectors times a vector", lambda d, x: vectors_of(d, x), [(4, 2), (4,)]),
    Case("sparse matrix of vectors, transposed", lambda d: blocks(d).transpose((1, 0, 2)).todense(), [(4, 2)]),
    Case("sparse matrices by rows of a batch", lambda d: csr_batch(d).todense(), [(2, 4)]),
    Case("sparse matrices by rows of a batch times vectors", csr_products, [(2, 4), (2, 4)]),
    Case("sparse matrix by rows, repeated", lambda d: repeated(csr(d)).todense(), [(4,)]),
    Case("sparse numbers of equal places added", lambda d: sparse.bcoo_sum_duplicates(double(d), nse=3).data, [(4,)]),
    Case(
        "sparse numbers of equal places added, zeros left out",
        lambda d: double(d).sum_duplicates(nse=3).data,
        [(4,)],
        looser=8,
        why="which numbers are zeros, and so which places stay, depends on the values",
    ),
    Case(
        "dense sampled by a sparse one",
        lambda a, b: sparse.bcoo_dot_general_sampled(
            a, b, np.array([[0, 1], [2, 0]]), dimension_numbers=(((1,), (0,)), ((), ()))
        ),
        [(3, 2), (2, 3)],
    ),
]


def standard(f: Callable[..., Any]) -> Callable[..., Any]:
    """A function of JAX that needs its silent promotions."""

    def promoting(*args: Any, **keywords: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return f(*args, **keywords)

    return promoting


def attention(x: Any, mask: Callable[[Any], Any]) -> Any:
    scores = x @ x.T
    return jax.nn.softmax(mask(scores), axis=-1) @ x


def causal_by_where(scores: Any) -> Any:
    """Weights of the past alone, as one writes it without an infinity."""
    weights = jnp.where(LOWER > 0, jnp.exp(scores), 0.0)
    return weights / weights.sum(1, keepdims=True)


def made(parameters: list[Any], x: Any) -> Any:
    """A masked autoencoder: output i sees the inputs before i alone."""
    degrees = [np.arange(4), np.arange(8) % 3, np.arange(8) % 3]
    masks = [(after[:, None] >= before[None, :]) for before, after in itertools.pairwise(degrees)]
    last = np.arange(4)[:, None] > degrees[-1][None, :]
    for w, mask in zip(parameters, masks, strict=False):
        x = jnp.tanh((w * mask.astype(float)) @ x)
    return (parameters[-1] * last.astype(float)) @ x


MADE = [c(8, 4), c(8, 8), c(4, 8)]
MADE_SHAPES = [w.shape for w in MADE]


def layer_norm(x: Any) -> Any:
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)


def net(x: Any) -> Any:
    return c(2, 4) @ jnp.tanh(c(4, 3) @ x)


def message_passing(x: Any) -> Any:
    senders, receivers = np.array([0, 1, 2, 3, 0]), np.array([1, 2, 3, 0, 2])
    return jax.ops.segment_sum(jnp.tanh(x[senders] - x[receivers]), receivers, 5)


NETWORKS = [
    Case(
        "causal attention by -inf",
        lambda x: attention(x, lambda s: jnp.where(LOWER > 0, s, -jnp.inf)),
        [(4, 2)],
        looser=2,
        why=MASK,
    ),
    Case(
        "causal attention by -1e30",
        lambda x: attention(x, lambda s: jnp.where(LOWER > 0, s, -1e30)),
        [(4, 2)],
        looser=14,
        why=UNDERFLOW,
    ),
    Case(
        "causal attention by adding -inf",
        lambda x: attention(x, lambda s: s + np.where(LOWER > 0, 0.0, -np.inf)),
        [(4, 2)],
        looser=2,
        why=MASK,
    ),
    Case("causal attention by where", lambda x: causal_by_where(x @ x.T) @ x, [(4, 2)], looser=2, why=CANCEL),
    Case(
        "causal attention by softmax(where=)",
        lambda x: jax.nn.softmax(x @ x.T, axis=-1, where=LOWER > 0) @ x,
        [(4, 2)],
        looser=2,
        why=CANCEL,
    ),
    Case(
        "attention of JAX, causal",
        lambda x: standard(jax.nn.dot_product_attention)(x, x, x, is_causal=True),
        [(1, 3, 1, 2)],
        rtol=1e-5,
        looser=8,
        why=UNDERFLOW,
    ),
    Case("linear attention", lambda x: jnp.cumsum(x[:, :, None] * x[:, None, :], 0), [(3, 2)]),
    Case("MADE", lambda x: made(MADE, x), [(4,)]),
    Case("MADE, weights unknown", lambda x, *w: made(list(w), x), [(4,), *MADE_SHAPES], argnums=(0,)),
    Case("attention of everything", lambda x: attention(x, lambda s: s), [(3, 2)]),
    Case("softmax of rows", lambda x: jax.nn.softmax(x, axis=1), [(3, 3)]),
    Case("log_softmax of columns", lambda x: jax.nn.log_softmax(x, axis=0), [(3, 2)]),
    Case("layer norm", layer_norm, [(2, 4)]),
    Case("batch norm", lambda x: layer_norm(x.T).T, [(3, 2)]),
    Case("logsumexp of rows", lambda x: jax.nn.logsumexp(x, axis=1), [(3, 3)]),
    Case("net under vmap", jax.vmap(net), [(2, 3)]),
    Case("net under vmap, weights unknown", lambda w, x: jax.vmap(lambda x: jnp.tanh(w @ x))(x), [(3, 3), (2, 3)]),
    Case("nets, one for each", lambda w, x: jax.vmap(lambda w, x: jnp.tanh(w @ x))(w, x), [(2, 3, 3), (2, 3)]),
    Case("einsum of a batch", lambda x, y: jnp.einsum("bij,bjk->bik", x, y), [(2, 2, 3), (2, 3, 2)]),
    Case("einsum with a diagonal", lambda x: jnp.einsum("ii->i", x), [(3, 3)]),
    Case("einsum of three", lambda x, y, z: jnp.einsum("i,ij,j->i", x, y, z), [(3,), (3, 2), (2,)]),
    Case("outer", lambda x, y: jnp.outer(x, y), [(3,), (3,)]),
    Case("outer with itself", lambda x: jnp.outer(x, x), [(4,)]),
    Case("tensordot", lambda x: jnp.tensordot(x, c(3, 2), axes=(1, 0)), [(2, 3)]),
    Case("distances", lambda x: jnp.sum((x[:, None] - x[None, :]) ** 2, -1), [(3, 2)], looser=6, why=CANCEL),
    Case("graph", message_passing, [(5,)]),
    Case(
        "mixture of experts by a known route",
        lambda x: jnp.where(np.array([True, False, True])[:, None], jnp.tanh(x @ c(2, 2)), x),
        [(3, 2)],
    ),
    Case("residual blocks of samples", lambda x: x + jnp.tanh(layer_norm(x) @ c(3, 3)), [(2, 3)]),
    Case("coupling layer", lambda x: jnp.concatenate([x[:2], x[2:] * jnp.exp(c(2, 2) @ x[:2])]), [(4,)]),
    Case("mean and variance", lambda x: (x.mean(), x.var(), x), [(4,)]),
    Case("arrowhead", lambda x: jnp.concatenate([x.sum()[None], x[0] * x[1:]]), [(5,)]),
    Case("separable sum", lambda x: jnp.stack([jnp.prod(x[:2]), jnp.prod(x[2:])]), [(4,)]),
    Case("product of rows", lambda x: jnp.prod(x, axis=1), [(3, 3)]),
    Case("constant", lambda x: jnp.ones(3), [(4,)]),
    Case("one input only", lambda x, y: x**2, [(3,), (2,)]),
]

CASES = {
    f"{group}: {case.name}": case
    for group, cases in {
        "elementwise": ELEMENTWISE,
        "stencil": STENCILS,
        "convolution": CONVOLUTIONS,
        "pool": POOLS,
        "cumulative": CUMULATIVE,
        "sorting": SORTING,
        "indexing": INDEXING,
        "Fourier": FOURIER,
        "linear algebra": LINEAR_ALGEBRA,
        "loop": LOOPS,
        "control": CONTROL,
        "wrapper": WRAPPERS,
        "matrix": MATRICES,
        "network": NETWORKS,
    }.items()
    for case in cases
}


def flat(outputs: Any) -> jax.Array:
    return jnp.concatenate([jnp.ravel(y) for y in jax.tree.leaves(outputs)])


def columns_of(case: Case) -> tuple[int, ...]:
    return case.argnums or tuple(range(len(case.shapes)))


def points(case: Case) -> list[tuple[jax.Array, ...]]:
    rng = np.random.default_rng(1)
    return [tuple(jnp.asarray(case.draw(rng, s)) for s in case.shapes) for _ in range(case.count)]


def truth(case: Case) -> Callable[..., np.ndarray]:
    """The Jacobian as JAX computes it, one dense array."""
    differentiate = {"forward": jax.jacfwd, "reverse": jax.jacrev}[case.mode]
    dense = jax.jit(differentiate(lambda *x: flat(case.f(*x)), argnums=columns_of(case)), compiler_options=QUICK)

    def stacked(*x: jax.Array) -> np.ndarray:
        return np.concatenate([np.asarray(j).reshape(j.shape[0], -1) for j in dense(*x)], axis=1)

    return stacked


def measured(case: Case, order: str = "auto") -> tuple[np.ndarray, np.ndarray]:
    """Which entries are detected, and which are nonzero anywhere; values and patterns are compared at every point."""
    jacobian = jax.jit(cr.jacobian(case.f, argnums=columns_of(case), order=order), compiler_options=QUICK)
    dense = truth(case)
    patterns, union = [], False
    for x in points(case):
        J, expected = jacobian(*x), dense(*x)
        rows, cols, values = J.coo()
        ours, pattern = np.zeros(J.shape), np.zeros(J.shape, bool)
        ours[rows, cols], pattern[rows, cols] = values, True
        np.testing.assert_allclose(ours, expected, rtol=case.rtol, atol=case.rtol * np.abs(expected).max(initial=1.0))
        patterns.append(pattern)
        union = union | (np.abs(expected) > 1e-12)
    assert all(np.array_equal(pattern, patterns[0]) for pattern in patterns), "the pattern depends on the point"
    return patterns[0], np.asarray(union)


@pytest.mark.parametrize("name", list(CASES))
def test_no_more_entries_than_looser_says(name: str) -> None:
    case = CASES[name]
    detected, union = measured(case)
    assert not (union & ~detected).any(), f"missed: {np.argwhere(union & ~detected).tolist()}"
    extra = np.argwhere(detected & ~union).tolist()
    assert len(extra) == case.looser, f"extra ({case.why or 'no reason known'}): {extra}"


@pytest.mark.parametrize("order", ["forward", "reverse"])
@pytest.mark.parametrize("places", [[2, 2, 2, 2], [3, 3, 3, 3], [0, 0, 2, 2]])
def test_few_rows_of_a_masked_matrix_under_a_matrix_with_rows_of_zeros(places: list[int], order: str) -> None:
    A = np.random.default_rng(0).normal(size=(7, 4)) * np.array([1, 0, 0, 1, 0, 0, 1])[:, None]
    B = np.triu(np.ones((4, 6)), 1)
    at = np.asarray(places)

    def f(x: jax.Array) -> jax.Array:
        return A @ jnp.tanh((B @ jnp.sin(x))[at])

    x = jnp.linspace(0.1, 0.6, 6)
    J, expected = cr.jacobian(f, order=order)(x), np.asarray(jax.jacfwd(f)(x))
    np.testing.assert_allclose(J.dense(), expected, rtol=1e-12)
    assert J.nnz == np.count_nonzero(expected)


@pytest.mark.parametrize("order", ["forward", "reverse"])
def test_rows_of_zeros_of_a_matrix_over_dense_columns(order: str) -> None:
    A = c(5, 4) * np.array([1, 0, 1, 0, 1])[:, None]
    for f, shape in (
        (lambda x: A @ jnp.sin(c(4, 6) @ x), (6,)),  # the sum runs over an axis of equal columns
        (lambda x: jnp.einsum("bi,bk->bik", x, np.array([[1.0, 0, 0, 2], [0, 1, 0, 1]])), (2, 3)),  # there is none
    ):
        x = c(*shape)
        J, expected = cr.jacobian(f, order=order)(x), np.asarray(jax.jacfwd(f)(x)).reshape(-1, x.size)
        np.testing.assert_allclose(J.dense(), expected, rtol=1e-12, atol=1e-12)
        assert J.nnz == np.count_nonzero(expected)


def test_a_product_that_is_only_summed_is_not_made():
    """As many multiply-adds as W has entries for W x, and as many for the sum."""
    W = np.random.default_rng(0).normal(size=(8, 4))
    assert cr.jacobian(lambda x: jnp.sum(jnp.sin(W @ x)), order="forward")(jnp.ones(4)).cost == 2 * W.size


def test_long_chains_of_products_do_not_nest():
    def f(x):
        factor = jnp.cos(jax.lax.stop_gradient(x))
        for _ in range(400):
            x = x * factor
        return x

    assert cr.jacobian(f, order="forward").trace(jnp.zeros(2)).out_info.shape == (2, 2)
