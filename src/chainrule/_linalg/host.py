"""Factors that live on the host: LAPACK's banded LU and SuperLU, called out of a compiled program.

A factor is kept next to the values that it was made of, so that whoever asks again with the same values (a transposed
solve, the next right-hand side, a derivative) does not factor again, in this call or a later one.
"""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._linalg.differentiable import implicit_solve
from chainrule._space import promoted

_KEPT = 4  # factors of each pattern


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
    """

    def __init__(self, rows: np.ndarray, cols: np.ndarray, n: int, ordered: bool = False):
        self._rows, self._cols, self._n, self._ordered = rows, cols, n, ordered
        self._kept = _Kept(self._factor)

    @cached_property
    def _by_column(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(which entry, its row, first entry of each column): compressed columns."""
        order = np.lexsort((self._rows, self._cols))
        return order, self._rows[order].astype(np.int32), np.searchsorted(self._cols[order], np.arange(self._n + 1))

    def _factor(self, values: np.ndarray) -> Any:
        import scipy.sparse.linalg

        order, rows, starts = self._by_column
        A = scipy.sparse.csc_array((values[order], rows, starts.astype(np.int32)), shape=(self._n, self._n))
        options: dict[str, Any] = {"permc_spec": "NATURAL", "diag_pivot_thresh": 0.0} if self._ordered else {}
        try:
            return scipy.sparse.linalg.splu(A, **options)
        except RuntimeError:  # exactly singular
            return None

    def _on_host(self, transposed: bool, values: Any, b: Any) -> np.ndarray:
        values, b = np.asarray(values), np.asarray(b)
        if not (np.isfinite(values).all() and np.isfinite(b).all()):
            return np.full_like(b, np.nan)
        factor = self._kept(values)
        return np.full_like(b, np.nan) if factor is None else factor.solve(b, "T" if transposed else "N")

    def _determinant(self, values: Any) -> tuple[np.ndarray, np.ndarray]:
        values = np.asarray(values)
        factor = self._kept(values) if np.isfinite(values).all() else None
        real = np.zeros((), values.dtype).real.dtype
        if factor is None:
            sign, log = (0, -np.inf) if np.isfinite(values).all() else (np.nan, np.nan)
            return np.asarray(sign, values.dtype), np.asarray(log, real)
        pivots = factor.U.diagonal()
        sign = np.prod(pivots / np.abs(pivots)) * parity(factor.perm_r) * parity(factor.perm_c)
        return np.asarray(sign, values.dtype), np.asarray(np.log(np.abs(pivots)).sum(), real)

    def factor(self, values: Any) -> Any:
        """[nnz] -> what `solve` needs."""
        return (values.astype(working(values.dtype)),)

    def solve(self, factors: Any, b: Any, transposed: bool) -> Any:
        """[n, r] -> [n, r]."""
        return jax.pure_callback(
            lambda v, b: self._on_host(transposed, v, b),
            jax.ShapeDtypeStruct(b.shape, b.dtype),
            factors[0],
            b,
            vmap_method="sequential",
        )

    def slogdet(self, values: Any) -> tuple[Any, Any]:
        """Sign and logarithm; the derivative by Jacobi's formula d log det A = tr(A⁻¹ dA), a solve for each column."""
        values = values.astype(working(values.dtype))
        real = jnp.zeros((), values.dtype).real.dtype

        @jax.custom_jvp
        def found(values: Any) -> tuple[Any, Any]:
            shapes = jax.ShapeDtypeStruct((), values.dtype), jax.ShapeDtypeStruct((), real)
            return jax.pure_callback(self._determinant, shapes, values, vmap_method="sequential")

        @found.defjvp
        def derivative(primals: Any, tangents: Any) -> Any:
            (v,), (dv,) = primals, tangents
            sign, log = found(v)
            change = (self._entries_of_inverse(v) * dv).sum()
            turned = sign * 1j * change.imag if jnp.iscomplexobj(v) else jnp.zeros_like(sign)
            return (sign, log), (turned, change.real)

        return found(values)

    def _entries_of_inverse(self, values: Any) -> Any:
        """[nnz]: A⁻¹ at the transposed places, columns of it at a time."""
        count, width = self._n, max(1, min(self._n, _AT_ONCE // self._n))
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
            unit = (jnp.arange(count)[:, None] == which[None]).astype(values.dtype)
            X = implicit_solve(functools.partial(self.product, values), solve, unit, False)
            return X[jnp.asarray(cols)[which % count], jnp.arange(width)[:, None]]

        table = jax.lax.map(of, jnp.asarray(starts)).reshape(-1, most)[:count]
        return table[jnp.asarray(self._rows), np.arange(len(self._rows)) - place[self._rows]]

    def product(self, values: Any, x: Any, transposed: bool) -> Any:
        """A x, or Aᵀ x, for x [n, r]."""
        rows, cols = (self._cols, self._rows) if transposed else (self._rows, self._cols)
        return jnp.zeros_like(x).at[rows].add(values[:, None] * x[cols])


_AT_ONCE = 2**24  # entries of the inverse that are held at a time


def parity(order: np.ndarray) -> int:
    """+1 for an even permutation, -1 for an odd one."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    n = len(order)
    graph = csr_array((np.ones(n, np.int8), order, np.arange(n + 1)), shape=(n, n))
    cycles = connected_components(graph, directed=False)[0]
    return 1 if (n - cycles) % 2 == 0 else -1
