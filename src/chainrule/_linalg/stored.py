"""Linear algebra on stored entries, by the method that their places call for."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._linalg.differentiable import implicit_solve, log_of_zero, lost
from chainrule._linalg.host import Sparse, working
from chainrule._linalg.interface import LinearAlgebra
from chainrule._linalg.methods import factor_for_many, is_sparse
from chainrule._memory import require_memory


class StoredEntries(LinearAlgebra):
    """What `Assembled` adds to `LinearAlgebra`: its layout knows the places, and the method for them."""

    _layout: Any

    if TYPE_CHECKING:  # what `Assembled` has

        def _inverted(self, table: np.ndarray, vals: Any) -> Any: ...
        def _magnitudes(self) -> Any: ...

    @property
    def structural_rank(self) -> int:
        """The largest rank that a matrix with these places can have: a number, known while tracing."""
        return int(self._layout.straight.places.structural_rank)

    @property
    def _upright(self) -> Any:
        """J, or Jᵀ where the blocks are those of the transpose: both have the same factors."""
        return self.T if self._layout.flipped else self

    def _eliminated(self, for_many: bool = False) -> Any:
        self._require_structural_rank("solve")  # of a product, only its entries tell
        J = self._upright
        method, values = J._layout.method, jax.lax.stop_gradient(J.coo()[2])
        return factor_for_many(method, values) if for_many else method.factor(values)

    def _solve(self, factors: Any, b: Any, transposed: bool) -> Any:
        own = b.astype(working(self.dtype))  # J has been factored in this one
        return self._by_factors(factors, own, transposed, judged=True).astype(b.dtype)

    def _by_factors(self, factors: Any, b: Any, transposed: bool, judged: bool = False) -> Any:
        """[r, n] -> [r, n]; unless judged, whatever a singular J gives."""
        J = self._upright
        solve = functools.partial(J._layout.method.solve, factors)
        return implicit_solve(J._products, solve, b, transposed != self._layout.flipped, J._wrong if judged else None)

    def _wrong(self, x: Any, b: Any, transposed: bool) -> Any:
        """[r, 1]: where x has no digit to trust; what substitution gives is right for a matrix next to J."""
        if self._layout.straight.places.triangular:
            return ~jnp.isfinite(x).all(1, keepdims=True)
        A = jax.lax.stop_gradient(self.T if transposed else self)
        return lost(x, b, A._magnitudes()._apply)

    def _solve_klu(self, b: Any) -> Any:
        from chainrule._linalg.klu import Klu

        J = self._upright
        rows, cols, values = J.coo()
        method = Klu(rows, cols, J.shape[0])
        solve = functools.partial(method.solve, method.factor(jax.lax.stop_gradient(values)))
        own = b.astype(working(self.dtype))
        return implicit_solve(J._products, solve, own, self._layout.flipped, J._wrong).astype(b.dtype)

    def _slogdet(self) -> Any:
        J = self._upright
        if self.structural_rank < self.shape[0]:
            dtype = working(self.dtype)
            return jnp.zeros((), dtype), log_of_zero([J.coo()[2].astype(dtype)])
        return J._layout.method.slogdet(J.coo()[2])

    def _det(self) -> Any:
        if self.structural_rank < self.shape[0]:
            return jnp.zeros((), self.dtype)
        J = self._upright
        return J._layout.method.det(J.coo()[2]).astype(self.dtype)

    def _singular_values(self) -> Any:
        kind, parameters = self.structure.kind, self.structure.parameters
        k = min(self.shape)
        if kind in ("diagonal", "identity", "scaled identity", "permutation", "scaled permutation"):
            found = jnp.abs(self.coo()[2])
            found = jnp.concatenate([found, jnp.zeros(k - len(found), found.dtype)])
            return jnp.sort(found, descending=True)
        if kind == "block-diagonal" and len(parameters) == 3 and parameters[1] == parameters[2]:
            blocks = self.coo()[2].reshape(parameters)
            found = jnp.linalg.svdvals(blocks.astype(working(self.dtype))).astype(jnp.finfo(self.dtype).dtype)
            return jnp.sort(found.ravel(), descending=True)
        return super()._singular_values()

    def _inverse(self) -> Any:
        """One solve for all parts at once: right-hand side j holds a 1 in row j of every part."""
        count, row_labels, col_labels = self._layout.places.components
        sizes = np.bincount(row_labels)
        place, members = np.empty(len(row_labels), np.int64), np.full((count, int(sizes.max(initial=0))), -1, np.int32)
        order = np.argsort(row_labels, kind="stable")
        place[order] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        members[row_labels, place] = np.arange(len(row_labels))
        size = len(place), members.shape[1]
        require_memory(f"inverse of {self._says('J')}", size, np.dtype(self.dtype).itemsize, "Use factorize().solve.")
        units = jnp.zeros(size[::-1], self.dtype).at[place, np.arange(len(place))].set(1)
        table = members[col_labels]  # row c of J⁻¹ belongs to column c of J, its columns to the rows of that part
        x = self._solve(self._eliminated(), units, False)
        return self._inverted(table, x.T)

    def _lstsq(self, b: Any) -> Any:
        m, n = self.shape
        rows, cols, values = self.coo()
        if not is_sparse(min(m, n), len(rows)):
            return super()._lstsq(b)
        tall, values = m >= n, values.astype(b.dtype)
        A = (rows, cols, values) if tall else (cols, rows, values.conj())
        method, entries = _augmented(*A, max(m, n), min(m, n))
        factors = method.factor(jax.lax.stop_gradient(entries))
        rest = jnp.zeros((len(b), n), b.dtype)
        given = jnp.concatenate([b, rest] if tall else [rest, b], axis=1)
        product = functools.partial(method.product, entries)
        size = functools.partial(method.product, jax.lax.stop_gradient(abs(entries)))
        x = implicit_solve(
            product,
            functools.partial(method.solve, factors),
            given,
            False,
            lambda x, c, transposed: lost(x, c, lambda v: size(v[None], transposed)[0]),
        )
        return x[:, m:] if tall else x[:, :n]


def _augmented(rows: np.ndarray, cols: np.ndarray, values: Any, tall: int, wide: int) -> tuple[Sparse, Any]:
    """[[I, A], [Aᴴ, 0]] of a tall A: its solution holds the residual and the x of least squares (Björck 1996, 7.1)."""
    own = np.arange(tall)
    parts = (own, own, jnp.ones(tall, values.dtype)), (rows, cols + tall, values), (cols + tall, rows, values.conj())
    return Sparse.of(parts, tall + wide, judged=True)
