"""Banded LU with partial pivoting: LAPACK's on the CPU, a scan over the rows elsewhere."""

from __future__ import annotations

import functools
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._jacobians.structure import Places, bandwidth
from chainrule._linalg.differentiable import exponential, sign_and_log
from chainrule._linalg.host import on_host, working


class Tridiagonal:
    """Three diagonals, by `jax.lax.linalg.tridiagonal_solve`: on every device, with pivoting on CPU and GPU."""

    def __init__(self, p: Places):
        self._banded = Banded(p)

    def factor(self, values: Any) -> Any:
        values = values.astype(working(values.dtype))
        return tuple(self._banded.diagonal(values, offset) for offset in (-1, 0, 1))

    def solve(self, factors: Any, b: Any, transposed: bool) -> Any:
        low, main, up = factors  # [n] each: entries (i, i-1), (i, i), (i, i+1)
        if transposed:
            low, up = jnp.roll(up, 1), jnp.roll(low, -1)
        return jax.lax.linalg.tridiagonal_solve(low, main, up, b.T.astype(main.dtype)).T.astype(b.dtype)

    def slogdet(self, values: Any) -> tuple[Any, Any]:
        return self._banded.slogdet(values)

    def det(self, values: Any) -> Any:
        return self._banded.det(values)


class Banded:
    """l diagonals below the main one and u above it: O(n l (l + u)).

    Golub and Van Loan, *Matrix Computations* (2013), section 4.3.
    """

    def __init__(self, p: Places):
        self._n = p.shape[0]
        self._rows, self._cols = p.rows, p.cols
        self._lower, self._upper = bandwidth(p.rows, p.cols)

    def diagonal(self, values: Any, offset: int) -> Any:
        """[n]: the entries (i, i + offset), 0 where there is none."""
        mine = np.flatnonzero(self._cols.astype(np.int64) - self._rows == offset)
        if not len(mine):
            return jnp.zeros(self._n, values.dtype)
        first, last = int(self._rows[mine[0]]), int(self._rows[mine[-1]]) + 1
        if last - first == len(mine) > 1 and len(set(np.diff(mine))) == 1:  # no gaps: no gather and no scatter
            found = values[int(mine[0]) : int(mine[-1]) + 1 : int(mine[1] - mine[0])]
            return jnp.pad(found, (first, self._n - last))
        return jnp.zeros(self._n, values.dtype).at[self._rows[mine]].set(values[mine])

    @cached_property
    def _width(self) -> int:
        return self._lower + self._upper + 1

    def band(self, values: Any, transposed: bool = False) -> Any:
        """[n, l + u + 1]: row i holds the entries (i, i - l) … (i, i + u), of the transpose if so."""
        rows, cols = (self._cols, self._rows) if transposed else (self._rows, self._cols)
        lower = self._upper if transposed else self._lower
        wide = values.astype(working(values.dtype))
        shift = cols.astype(np.int64) - rows + lower
        return jnp.zeros((self._n, self._width), wide.dtype).at[rows, shift].set(wide, unique_indices=True)

    def factor(self, values: Any) -> Any:
        """(values, LAPACK's factors and swaps on the CPU)."""
        values = values.astype(working(values.dtype))
        return jax.lax.platform_dependent(values, cpu=self._host_factor, default=self._no_factor)

    def _shapes(self, dtype: Any) -> tuple[Any, Any]:
        height = 2 * self._lower + self._upper + 1
        return jax.ShapeDtypeStruct((self._n, height), dtype), jax.ShapeDtypeStruct((self._n,), np.int32)

    def _no_factor(self, values: Any) -> Any:
        return (values, *(jnp.zeros(s.shape, s.dtype) for s in self._shapes(values.dtype)))

    def _host_factor(self, values: Any) -> Any:
        made = on_host(self._lapack, self._shapes(values.dtype), values)
        return (values, *made)

    def _lapack(self, values: Any) -> tuple[np.ndarray, np.ndarray]:
        from scipy.linalg import get_lapack_funcs

        (gbtrf,) = get_lapack_funcs(("gbtrf",), dtype=values.dtype)
        columns = np.zeros((self._n, 2 * self._lower + self._upper + 1), values.dtype)
        columns[self._cols, self._rows.astype(np.int64) - self._cols + self._lower + self._upper] = values
        lu, swaps, _ = gbtrf(columns.T, self._lower, self._upper, overwrite_ab=True)
        if not np.isfinite(values).all():
            lu = np.full_like(lu, np.nan)
        return np.ascontiguousarray(lu.T), swaps.astype(np.int32)

    def solve(self, factors: Any, b: Any, transposed: bool) -> Any:
        values, lu, swaps = factors

        def by_lapack(_: Any, lu: Any, swaps: Any, b: Any) -> Any:
            shape = jax.ShapeDtypeStruct(b.shape, b.dtype)
            return on_host(functools.partial(self._lapack_solve, int(transposed)), shape, lu, swaps, b)

        def scanned(values: Any, lu: Any, swaps: Any, b: Any) -> Any:
            lower = self._upper if transposed else self._lower
            return _scan_solve(_scan_factor(self.band(values, transposed), lower), b.T, lower).T

        return jax.lax.platform_dependent(values, lu, swaps, b, cpu=by_lapack, default=scanned)

    def _lapack_solve(self, trans: int, lu: Any, swaps: Any, b: Any) -> np.ndarray:
        from scipy.linalg import get_lapack_funcs

        (gbtrs,) = get_lapack_funcs(("gbtrs",), dtype=lu.dtype)
        return np.ascontiguousarray(gbtrs(lu.T, self._lower, self._upper, b.T, swaps, trans=trans)[0].T)

    def slogdet(self, values: Any) -> tuple[Any, Any]:
        """Of LAPACK's pivots on the CPU; the derivative is that of the scan over the rows."""
        values = values.astype(working(values.dtype))

        def scanned(values: Any) -> tuple[Any, Any]:
            pivots, _, swapped = _scan_factor(self.band(values), self._lower)
            return sign_and_log(pivots[:, 0], _flips(swapped > 0, values.dtype))

        def by_lapack(values: Any) -> tuple[Any, Any]:
            _, lu, swaps = self._host_factor(values)
            swapped = swaps != np.arange(self._n, dtype=np.int32)
            return sign_and_log(lu[:, self._lower + self._upper], _flips(swapped, values.dtype))

        @jax.custom_jvp
        def found(values: Any) -> tuple[Any, Any]:
            return jax.lax.platform_dependent(values, cpu=by_lapack, default=scanned)

        @found.defjvp
        def derivative(primals: Any, tangents: Any) -> Any:
            return jax.jvp(scanned, primals, tangents)

        return found(values)

    def det(self, values: Any) -> Any:
        return exponential(*self.slogdet(values))


def _flips(swapped: Any, dtype: Any) -> Any:
    return jnp.where(swapped, -1, 1).astype(dtype)


def _scan_factor(band: Any, lower: int) -> tuple[Any, Any, Any]:
    """[n, l + u + 1] -> (rows of U [n, l + u + 1], multipliers [n, l], swaps [n]).

    The window holds rows i … i + l, from column i on; each step takes its largest first entry to the top.
    """
    width = band.shape[1]
    rows = lower + 1
    # row i + k of the window at step i begins with column i - l + k: what lies left of column i is gone
    padded = jnp.concatenate([band, jnp.zeros((rows, width), band.dtype)])
    start = jnp.stack(
        [jnp.concatenate([padded[k, lower - k :], jnp.zeros(lower - k, band.dtype)]) for k in range(rows)]
    )

    def step(window: Any, new: Any) -> Any:
        chosen = jnp.argmax(jnp.abs(window[:, 0]))
        top = window[chosen]
        window = window.at[chosen].set(window[0]).at[0].set(top)
        multipliers = window[1:, 0] / jnp.where(top[0] == 0, 1, top[0])  # below a 0 there are zeros only
        window = window[1:] - multipliers[:, None] * top[None]
        shifted = jnp.concatenate([window[:, 1:], jnp.zeros((lower, 1), band.dtype)], axis=1)
        return jnp.concatenate([shifted, new[None]]), (top, multipliers, chosen)

    _, (U, L, swaps) = jax.lax.scan(step, start, padded[rows:])
    return U, L, swaps


def _scan_solve(factors: tuple[Any, Any, Any], b: Any, lower: int) -> Any:
    """[n, r] -> [n, r]."""
    U, L, swaps = factors
    width = U.shape[1]
    padded = jnp.concatenate([b, jnp.zeros((lower + 1, b.shape[1]), b.dtype)])

    def forward(window: Any, given: Any) -> Any:
        multipliers, chosen, new = given
        top = window[chosen]
        window = window.at[chosen].set(window[0]).at[0].set(top)
        return jnp.concatenate([window[1:] - multipliers[:, None] * top[None], new[None]]), top

    _, y = jax.lax.scan(forward, padded[: lower + 1], (L, swaps, padded[lower + 1 :]))

    def backward(later: Any, given: Any) -> Any:
        row, right = given
        x = (right - row[1:] @ later) / row[0]
        return jnp.concatenate([x[None], later[:-1]]), x

    _, x = jax.lax.scan(backward, jnp.zeros((width - 1, b.shape[1]), b.dtype), (U, y), reverse=True)
    return x
