"""What runs on the host out of a compiled program: calls of it, and SuperLU with its factors.

A factor is kept next to the values that it was made of, so that whoever asks again with the same values (a transposed
solve, the next right-hand side, a derivative) does not factor again, in this call or a later one.
"""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._linalg.differentiable import exponential, implicit_solve
from chainrule._space import promoted

_ROUNDING = 10  # rounding units of the largest pivot, up to which another one is none
_KEPT = 4  # factors of each pattern
_HELD = 2**24  # entries of the inverse that are held at a time
_AT_ONCE = 96 * 1024  # bytes of one argument


def on_host(run: Callable[..., Any], shapes: Any, *arrays: Any) -> Any:
    """Call `run` with NumPy arrays, out of a compiled program.

    JAX copies a large argument of a callback by a task of its own, which waits for ever where all threads are in
    callbacks, as on a machine with one core; small ones it copies at once. So large ones go over in pieces.
    """
    pieces, owner = list[Any](), list[int]()
    for k, a in enumerate(arrays):
        width = max(_AT_ONCE // a.dtype.itemsize, 1)
        flat = a.reshape(-1)
        parts = [flat[i : i + width] for i in range(0, max(a.size, 1), width)]
        pieces, owner = pieces + parts, owner + [k] * len(parts)

    def call(*given: Any) -> Any:
        own = [[np.asarray(g) for g, k in zip(given, owner, strict=True) if k == j] for j in range(len(arrays))]
        return run(*(np.concatenate(parts).reshape(a.shape) for parts, a in zip(own, arrays, strict=True)))

    return jax.pure_callback(call, shapes, *pieces, vmap_method="sequential")


class _Kept:
    """The last few factors, by the values that they were made of."""

    def __init__(self, make: Callable[[np.ndarray], Any]):
        self._make, self._found, self._lock = make, OrderedDict[int, tuple[np.ndarray, Any]](), threading.Lock()
        self._next = 0

    def __call__(self, values: np.ndarray) -> Any:
        with self._lock:
            for key, (known, factor) in reversed(self._found.items()):
                if known.dtype == values.dtype and np.array_equal(known, values):
                    self._found.move_to_end(key)
                    return factor
        factor = self._make(values)
        with self._lock:
            self._next += 1
            self._found[self._next] = (values.copy(), factor)
            while len(self._found) > _KEPT:
                self._found.popitem(last=False)
        return factor


def working(dtype: Any) -> Any:
    """The dtype that LAPACK and SuperLU compute in."""
    return promoted(dtype, jnp.float32)


class Sparse:
    """A x = b by SuperLU (Li 2005): columns in an order of little fill, rows by partial pivoting.

    `ordered`: the matrix is triangular in the order given, and is taken as it is: no fill, nothing to pivot.
    `judged`: a pivot that is all rounding counts as 0, for systems that have solutions though they are singular.
    """

    def __init__(self, rows: np.ndarray, cols: np.ndarray, n: int, ordered: bool = False, judged: bool = False):
        self._rows, self._cols, self._n, self._ordered, self._judged = rows, cols, n, ordered, judged
        self._kept = _Kept(self._factor)

    @classmethod
    def of(
        cls, parts: Sequence[tuple[np.ndarray, np.ndarray, Any]], n: int, judged: bool = False
    ) -> tuple[Sparse, Any]:
        """The n×n matrix of parts (rows, columns, values) that do not overlap, and its entries in row-major order."""
        rows, cols = (np.concatenate([part[k] for part in parts]) for k in (0, 1))
        order = np.lexsort((cols, rows))
        entries = jnp.concatenate([values for _, _, values in parts])[order]
        return cls(rows[order], cols[order], n, judged=judged), entries

    @cached_property
    def _symmetric(self) -> bool:
        by_column = np.lexsort((self._rows, self._cols))
        return np.array_equal(self._rows[by_column], self._cols) and np.array_equal(self._cols[by_column], self._rows)

    @cached_property
    def _order(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows and the columns in an order of little fill: SuperLU takes as long to find it as to eliminate.

        A symmetric pattern takes minimum degree on A + Aᵀ, with two thirds of COLAMD's fill on a grid.
        """
        import scipy.sparse.linalg

        own = np.arange(self._n)
        if self._ordered:
            return own, own
        sizes = np.random.default_rng(0).uniform(0.5, 1, len(self._rows))
        sizes[self._rows == self._cols] = self._n  # nothing to pivot, where a diagonal is there
        A = scipy.sparse.csc_array((sizes, (self._rows, self._cols)), shape=(self._n, self._n))
        found = {"permc_spec": "MMD_AT_PLUS_A", "options": {"SymmetricMode": True}} if self._symmetric else {}
        try:
            columns = np.argsort(scipy.sparse.linalg.splu(A, **found).perm_c)
        except RuntimeError:  # singular whatever the values
            return own, own
        return columns if self._symmetric else own, columns

    @cached_property
    def _by_column(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(which entry, its row, first entry of each column), in that order: compressed columns."""
        rows, cols = (np.argsort(own)[at] for own, at in zip(self._order, (self._rows, self._cols), strict=True))
        order = np.lexsort((rows, cols))
        starts = np.searchsorted(cols[order], np.arange(self._n + 1))
        return order, rows[order].astype(np.int32), starts.astype(np.int32)

    @cached_property
    def _options(self) -> dict[str, Any]:
        if self._ordered:
            return {"permc_spec": "NATURAL", "diag_pivot_thresh": 0.0}
        # a few columns at a time, as SuperLU takes them by default, cost more than they gain where the fill is little
        return {"permc_spec": "NATURAL", "relax": 1, "panel_size": 1, "options": {"SymmetricMode": self._symmetric}}

    def _factor(self, values: np.ndarray) -> Any:
        import scipy.sparse.linalg

        order, rows, starts = self._by_column
        A = scipy.sparse.csc_array((values[order], rows, starts), shape=(self._n, self._n))
        try:
            factor = scipy.sparse.linalg.splu(A, **self._options)
        except RuntimeError:  # exactly singular
            return None
        if self._judged:
            pivots = np.abs(factor.U.diagonal())
            if pivots.min() <= _ROUNDING * np.finfo(values.dtype).eps * pivots.max():
                return None
        return factor

    def _solved(self, transposed: bool, both: np.ndarray) -> np.ndarray:
        values, b = np.split(both, [len(self._rows)])
        b = b.reshape(-1, self._n)
        if not (np.isfinite(values).all() and np.isfinite(b).all()):
            return np.full_like(b, np.nan)
        factor = self._kept(values)
        if factor is None:
            return np.full_like(b, np.nan)
        given, found = self._order[::-1] if transposed else self._order
        x = np.empty_like(b)
        x[:, found] = factor.solve(b[:, given].T, "T" if transposed else "N").T
        return x

    def _determinant(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        factor = self._kept(values) if np.isfinite(values).all() else None
        real = np.zeros((), values.dtype).real.dtype
        if factor is None:
            sign, log = (0, -np.inf) if np.isfinite(values).all() else (np.nan, np.nan)
            return np.asarray(sign, values.dtype), np.asarray(log, real)
        pivots = factor.U.diagonal()
        sign = np.prod(pivots / np.abs(pivots)) * np.prod(
            [parity(p) for p in (factor.perm_r, factor.perm_c, *self._order)]
        )
        return np.asarray(sign, values.dtype), np.asarray(np.log(np.abs(pivots)).sum(), real)

    def factor(self, values: Any) -> Any:
        """[nnz] -> what `solve` needs."""
        return (values.astype(working(values.dtype)),)

    def solve(self, factors: Any, b: Any, transposed: bool) -> Any:
        """[r, n] -> [r, n]."""
        wide = b.astype(factors[0].dtype)
        both = jnp.concatenate([factors[0], wide.reshape(-1)])  # each argument of a callback takes a while of its own
        shape = jax.ShapeDtypeStruct(b.shape, wide.dtype)
        x = on_host(functools.partial(self._solved, transposed), shape, both)
        return x.astype(b.dtype)

    def slogdet(self, values: Any) -> tuple[Any, Any]:
        """Sign and logarithm; the derivative by Jacobi's formula d log det A = tr(A⁻¹ dA), a solve for each column."""
        values = values.astype(working(values.dtype))
        real = jnp.zeros((), values.dtype).real.dtype

        @jax.custom_jvp
        def found(values: Any) -> tuple[Any, Any]:
            shapes = jax.ShapeDtypeStruct((), values.dtype), jax.ShapeDtypeStruct((), real)
            return on_host(self._determinant, shapes, values)

        @found.defjvp
        def derivative(primals: Any, tangents: Any) -> Any:
            (v,), (dv,) = primals, tangents
            sign, log = found(v)
            change = (self._entries_of_inverse(v) * dv).sum()
            turned = sign * 1j * change.imag if jnp.iscomplexobj(v) else jnp.zeros_like(sign)
            return (sign, log), (turned, change.real)

        return found(values)

    def det(self, values: Any) -> Any:
        """[nnz] -> det."""
        return exponential(*self.slogdet(values))

    def _entries_of_inverse(self, values: Any) -> Any:
        """[nnz]: A⁻¹ at the transposed places, columns of it at a time."""
        count, width = self._n, max(1, min(self._n, _HELD // self._n))
        starts = np.arange(0, count, width)
        place = np.searchsorted(self._rows, np.arange(count + 1))
        most = int(np.diff(place).max())
        entry = place[:-1, None] + np.arange(most)  # the entries of row i lie from place[i] to place[i + 1]
        inside = entry < place[1:, None]
        cols = np.where(inside, self._cols[np.minimum(entry, len(self._cols) - 1)], 0)

        factors = self.factor(jax.lax.stop_gradient(values))
        solve = functools.partial(self.solve, factors)

        def of(start: Any) -> Any:  # columns start … of A⁻¹, read where A has entries in rows start …
            which = start + jnp.arange(width)
            unit = (jnp.arange(count)[None] == which[:, None]).astype(values.dtype)
            X = implicit_solve(functools.partial(self.product, values), solve, unit, False)
            return X[jnp.arange(width)[:, None], jnp.asarray(cols)[which % count]]

        table = jax.lax.map(of, jnp.asarray(starts)).reshape(-1, most)[:count]
        return table[jnp.asarray(self._rows), np.arange(len(self._rows)) - place[self._rows]]

    def product(self, values: Any, x: Any, transposed: bool) -> Any:
        """A x, or Aᵀ x, for x [r, n]."""
        rows, cols = (self._cols, self._rows) if transposed else (self._rows, self._cols)
        return jnp.zeros_like(x).at[:, rows].add(values[None] * x[:, cols])


def parity(order: np.ndarray) -> int:
    """+1 for an even permutation, -1 for an odd one."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    n = len(order)
    graph = csr_array((np.ones(n, np.int8), order, np.arange(n + 1)), shape=(n, n))
    cycles = connected_components(graph, directed=False)[0]
    return 1 if (n - cycles) % 2 == 0 else -1
