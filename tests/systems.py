"""Square systems of every structure that a method of elimination is chosen by."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import chainrule as cr


class System(NamedTuple):
    """A function of n numbers with n outputs, the kind of its Jacobian's structure, and how that is solved."""

    f: Callable
    n: int
    kind: str
    method: str


def of_places(places, n, seed=0, dominant=3.0):
    """A function whose Jacobian has these places, with moderate values that depend on x."""
    rows, cols = places
    rng = np.random.default_rng(seed)
    weight = rng.uniform(0.5, 1.5, len(rows)) * rng.choice([-1.0, 1.0], len(rows))
    weight[rows == cols] += np.sign(weight[rows == cols]) * dominant

    def f(x):
        return jnp.zeros(n, x.dtype).at[rows].add(jnp.asarray(weight, x.dtype) * (x[cols] + 0.1 * x[cols] ** 2))

    return f


def band(n, lower, upper):
    i, j = np.indices((n, n))
    return np.nonzero((i - j <= lower) & (j - i <= upper))


def triangle(n, density):
    mask = np.tril(np.random.default_rng(2).random((n, n)) < density)
    return np.nonzero(mask | np.eye(n, dtype=bool))


def blocks(sizes, below=()):
    """Full blocks along the diagonal, and one entry in each pair (i, j) of blocks below it."""
    starts = np.cumsum([0, *sizes])
    mask = np.zeros((starts[-1], starts[-1]), bool)
    for a, b in itertools.pairwise(starts):
        mask[a:b, a:b] = True
    for i, j in below:
        mask[starts[i], starts[j]] = True
    return np.nonzero(mask)


def permuted(places, n):
    rng = np.random.default_rng(1)
    rows, cols = rng.permutation(n)[places[0]], rng.permutation(n)[places[1]]
    order = np.lexsort((cols, rows))
    return rows[order], cols[order]


def reaction_diffusion(x):
    """One implicit step of the Brusselator on 12×12 points: general sparse."""
    u, v = x.reshape(2, 12, 12)

    def laplacian(a):
        return sum(jnp.roll(a, shift, axis) for shift in (1, -1) for axis in (0, 1)) - 4 * a

    rates = laplacian(u) + 1 + u * u * v - 4.4 * u, laplacian(v) + 3.4 * u - u * u * v
    return jnp.stack([u - 0.1 * rates[0], v - 0.1 * rates[1]]).reshape(-1)


def _matrix(p, dtype):
    return jnp.asarray(2 * np.eye(p) + 0.4 * np.cos(np.arange(p * p).reshape(p, p)), dtype)


def _deep(count):
    return [(i, i - 1) for i in range(1, count)]


SYSTEMS = {
    "identity": System(lambda x: x, 5, "identity", "ScaledPermutation"),
    "scaled identity": System(lambda x: 3.0 * x, 5, "scaled identity", "ScaledPermutation"),
    "diagonal": System(lambda x: x**3 + x, 7, "diagonal", "ScaledPermutation"),
    "permutation": System(
        lambda x: (x**2 + 2 * x)[np.array([3, 0, 4, 1, 2])], 5, "scaled permutation", "ScaledPermutation"
    ),
    "tridiagonal": System(of_places(band(130, 1, 1), 130), 130, "banded", "Tridiagonal"),
    "tridiagonal, swaps": System(of_places(band(130, 1, 1), 130, dominant=-0.9), 130, "banded", "Tridiagonal"),
    "banded": System(of_places(band(130, 2, 1), 130), 130, "banded", "Banded"),
    "banded, swaps": System(of_places(band(130, 3, 4), 130, dominant=0), 130, "banded", "Banded"),
    "small band": System(of_places(band(8, 1, 1), 8), 8, "banded", "Blocks"),
    "Kronecker right": System(lambda x: x.reshape(5, 3) @ _matrix(3, x.dtype), 15, "Kronecker", "Blocks"),
    "Kronecker left": System(lambda x: _matrix(6, x.dtype) @ x.reshape(6, 4), 24, "Kronecker", "Blocks"),
    "blocks": System(of_places(blocks([3] * 4), 12), 12, "block-diagonal", "Blocks"),
    "large blocks": System(of_places(blocks([7] * 4), 28), 28, "block-diagonal", "Blocks"),
    "unequal blocks": System(of_places(blocks([2, 3, 7, 1]), 13), 13, "block-diagonal", "Blocks"),
    "permuted blocks": System(
        of_places(permuted(blocks([3, 2, 7, 1, 3]), 16), 16), 16, "permuted block-diagonal", "Blocks"
    ),
    "lower triangular": System(of_places(np.nonzero(np.tri(6)), 6), 6, "lower triangular", "Triangular"),
    "upper triangular": System(of_places(np.nonzero(np.tri(6).T), 6), 6, "upper triangular", "Triangular"),
    "permuted triangular": System(
        of_places(permuted(np.nonzero(np.tri(6)), 6), 6), 6, "permuted triangular", "Triangular"
    ),
    "sparse lower": System(of_places(triangle(150, 0.02), 150), 150, "lower triangular", "Triangular"),
    "sparse upper": System(of_places(triangle(150, 0.02)[::-1], 150), 150, "upper triangular", "Triangular"),
    "sparse permuted triangular": System(
        of_places(permuted(triangle(200, 0.03), 200), 200), 200, "permuted triangular", "Triangular"
    ),
    "block-triangular": System(
        of_places(permuted(blocks([3, 4, 2, 7], [(1, 0), (3, 2), (2, 0)]), 16), 16),
        *(16, "block-triangular", "BlockTriangular"),
    ),
    "deep block-triangular": System(
        of_places(permuted(blocks([2] * 12, _deep(12)), 24), 24), 24, "block-triangular", "BlockTriangular"
    ),
    "sparse": System(reaction_diffusion, 288, "sparse", "Multifrontal"),
    "dense": System(of_places(np.nonzero(np.ones((9, 9))), 9), 9, "dense", "Blocks"),
}


def point(n, dtype=np.float64):
    return jnp.asarray(np.random.default_rng(5).uniform(0.2, 1.2, n), dtype)


def jacobian_of(name):
    system = SYSTEMS[name]
    return cr.jacobian(system.f)(point(system.n))


def by_jax(f, **options):
    """The function that gives the matrix [n, n]."""
    return jax.jacfwd(lambda x: f(x).reshape(-1), **options)


def dense_of(name):
    system = SYSTEMS[name]
    return np.asarray(by_jax(system.f)(point(system.n)))
