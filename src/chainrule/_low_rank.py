"""The Jacobian as a sparse map and a few rank-one ones: J = A + U V."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._assembled import Assembled, whole
from chainrule._factored import Factored
from chainrule._jacobian import Jacobian
from chainrule._linalg.differentiable import implicit_solve, lost, spoiled
from chainrule._linalg.host import Sparse, working
from chainrule._space import promoted
from chainrule._structure import Structure

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Inexact


@jax.tree_util.register_pytree_node_class
class LowRankUpdate(Jacobian):
    """J = A + U V with an assembled A, U [m, r] and V [r, n]: what passes through r numbers has rank r.

    Solves and determinants take those of A and of an r×r matrix (Woodbury's formula, the matrix determinant lemma;
    Golub and Van Loan, *Matrix Computations* (2013), section 2.1.4). Where A is singular and J is not, the matrix
    [[A, U], [V, -I]] is factored instead.
    """

    _A: Assembled
    _U: Any
    _V: Any
    order = "factored"

    def __init__(self, A: Assembled, U: Any, V: Any):
        self.__dict__.update(_A=A, _U=U, _V=V)

    def tree_flatten(self) -> tuple[tuple[Any, ...], None]:
        return (self._A, self._U, self._V), None

    @classmethod
    def tree_unflatten(cls, _: None, children: Any) -> LowRankUpdate:
        A, U, V = children
        return cls(A, U, V)

    @property
    def _rows(self) -> Any:  # type: ignore[override]
        return self._A._rows

    @property
    def _columns(self) -> Any:  # type: ignore[override]
        return self._A._columns

    @property
    def _batch(self) -> int:
        return self._A._batch

    @property
    def dtype(self) -> Any:
        """The dtype of the entries."""
        return promoted(self._A.dtype, self._U.dtype, self._V.dtype)

    @property
    def cost(self) -> int:  # type: ignore[override]
        """Multiply-adds of the accumulation, counted from shapes."""
        return self._A.cost

    @property
    def fallbacks(self) -> tuple[str, ...]:  # type: ignore[override]
        """The primitives that no rule covered."""
        return self._A.fallbacks

    @property
    def parts(self) -> tuple[Assembled, Inexact[Array, "*batch m r"], Inexact[Array, "*batch r n"]]:
        """(A, U, V) of J = A + U V."""
        return self._A, self._U, self._V

    @property
    def nnz(self) -> int:
        """Number of entries that are stored: those of A, U and V."""
        return self._A.nnz + sum(self.shape) * self._rank

    @property
    def _rank(self) -> int:
        return int(self._U.shape[-1])

    @property
    def structure(self) -> Structure:
        """A diagonal or sparse map and the rank of what is added to it."""
        plain = self._A.structure.kind in ("zero", "identity", "scaled identity", "diagonal")
        return Structure("diagonal + low rank" if plain else "sparse + low rank", (self._rank,))

    @property
    def structural_rank(self) -> int:
        """An upper bound of the rank: that of A's places and of the update, a number known while tracing."""
        return min(*self.shape, self._A.structural_rank + self._rank)

    @property
    def T(self) -> LowRankUpdate:
        """The transpose: Aᵀ + Vᵀ Uᵀ."""
        return LowRankUpdate(self._A.T, jnp.swapaxes(self._V, -1, -2), jnp.swapaxes(self._U, -1, -2))

    def assemble(self) -> Any:
        """The same map with its entries stored."""
        if self._batch:
            return jax.vmap(LowRankUpdate.assemble)(self)
        self._require_memory("assemble")
        return whole(self._A._layout, self._A.dense() + self._U @ self._V)

    def dense(self) -> Inexact[Array, "*batch m n"]:
        """Give the (m, n) array. Raises MemoryLimitError before it allocates what would not fit."""
        self._require_memory("dense")
        return self._A.dense() + self._U @ self._V

    def coo(self) -> tuple[np.ndarray, np.ndarray, Any]:
        """Give (rows, cols, values), unique and row-major: all places."""
        return self.assemble().coo()

    def diagonal(self) -> Inexact[Array, "*batch k"]:
        """The entries J[i, i], a (min(m, n),) array."""
        k = min(self.shape)
        return self._A.diagonal() + jnp.einsum("...ir,...ri->...i", self._U[..., :k, :], self._V[..., :k])

    def _apply(self, v: Inexact[Array, " n"]) -> Inexact[Array, " m"]:
        return self._A._apply(v) + self._U @ (self._V @ v)

    def _times(self, scalar: Any) -> LowRankUpdate:
        A = self._A._times(scalar)
        by = jnp.asarray(scalar, A.dtype)
        return LowRankUpdate(
            A, self._U.astype(A.dtype) * by.reshape((*by.shape, *[1] * (self._U.ndim - by.ndim))), self._V
        )

    def _plus(self, other: Jacobian) -> Jacobian:
        if isinstance(other, Assembled):
            return LowRankUpdate(self._A._plus(other), self._U, self._V)  # type: ignore[arg-type]
        if isinstance(other, LowRankUpdate):
            U, V = jnp.concatenate([self._U, other._U], axis=-1), jnp.concatenate([self._V, other._V], axis=-2)
            return LowRankUpdate(self._A._plus(other._A), U, V)  # type: ignore[arg-type]
        return other._plus(self)

    def _after(self, other: Jacobian) -> Jacobian:
        if other._products_only:
            return other._before(self)  # type: ignore[attr-defined]
        return Factored([self, *other.factors])

    def _before(self, other: Jacobian) -> Factored:
        return Factored([*other.factors, self])

    # linear algebra ------------------------------------------------------------------------------

    def _eliminated(self) -> Any:
        """Of A; A⁻¹ U; and of I + V A⁻¹ U."""
        if not self._nonsingular:
            return None
        J = jax.lax.stop_gradient(self)
        own = J._A._eliminated()
        W = J._A._unchecked_solve(own, J._U.T.astype(working(J.dtype)), False).T
        lu, swaps, _ = jax.lax.linalg.lu(jnp.eye(J._rank, dtype=W.dtype) + J._V.astype(W.dtype) @ W)
        return own, W, (lu, swaps)

    @property
    def _nonsingular(self) -> bool:
        return self._A.structural_rank == self.shape[0]

    def _solve(self, factors: Any, b: Any, transposed: bool) -> Any:
        fixed, own = jax.lax.stop_gradient(self), b.astype(working(self.dtype))
        x = implicit_solve(self._products, functools.partial(_by_parts, fixed, factors), own, transposed)
        J = fixed.T if transposed else fixed
        terms = LowRankUpdate(J._A._magnitudes(), abs(J._U), abs(J._V))
        return spoiled(x, lost(*jax.lax.stop_gradient((x, own)), terms._apply)).astype(b.dtype)

    def _slogdet(self) -> Any:
        def bordered(J: LowRankUpdate) -> Any:
            method, entries = _border(J)
            sign, log = method.slogdet(entries)
            return sign * (-1) ** J._rank, log

        if not self._nonsingular:
            return bordered(self)

        def lemma(J: LowRankUpdate) -> Any:
            W = J._A._unchecked_solve(J._A._eliminated(), J._U.T.astype(J.dtype), False).T
            (s, log), (t, more) = J._A._slogdet(), jnp.linalg.slogdet(jnp.eye(J._rank, dtype=J.dtype) + J._V @ W)
            return s * t, log + more

        known = self._A._layout.places.values
        if known is not None and (abs(known) == 1).all():  # such an A⁻¹ cancels nothing; `vmap` would run both ways
            return lemma(self)
        J = jax.lax.stop_gradient(self)
        growth = abs(J._V).max() * abs(J._eliminated()[1]).max()  # digits of det(I + V A⁻¹ U) that cancel
        return jax.lax.cond(jnp.isfinite(J._A._slogdet()[1]) & (growth < _GROWTH), lemma, bordered, self)

    def _inverse(self) -> Any:
        return self.assemble()._inverse()

    def _solve_klu(self, b: Any) -> Any:
        return self.assemble()._solve_klu(b)


def _by_parts(J: LowRankUpdate, factors: Any, b: Any, turned: bool) -> Any:
    """Woodbury's formula; one step of refinement where rounding shows; another elimination where that does not help."""
    if factors is None:
        return _bordered(J, b, turned)

    def far(x: Any, share: float) -> Any:
        return ~(abs(b - J._products(x, turned)) <= share * abs(b).max(1, keepdims=True)).all()

    def refined(x: Any) -> Any:
        x = x + _woodbury(J, factors, b - J._products(x, turned), turned)
        return jax.lax.cond(far(x, _FAR), lambda _: _bordered(J, b, turned), lambda x: x, x)

    x = _woodbury(J, factors, b, turned)
    return jax.lax.cond(far(x, _NEAR * float(jnp.finfo(b.dtype).eps)), refined, lambda x: x, x)


_GROWTH = 1e4  # of V A⁻¹ U, up to which the determinant keeps its digits
_NEAR = 1e3  # rounding units of the right-hand side that may be left
_FAR = 1e-3  # of the right-hand side, that is left where elimination without pivots between A and the update fails


def _woodbury(J: LowRankUpdate, factors: Any, b: Any, turned: bool) -> Any:
    """A⁻¹ b - A⁻¹ U (I + V A⁻¹ U)⁻¹ V A⁻¹ b; or (A⁻¹ b)ᵀ and so on of the transpose."""
    own, W, small = factors
    if not turned:
        y = J._A._unchecked_solve(own, b, False)
        return y - jax.scipy.linalg.lu_solve(small, J._V @ y.T).T @ W.T
    return J._A._unchecked_solve(own, b - jax.scipy.linalg.lu_solve(small, W.T @ b.T, trans=1).T @ J._V, True)


def _border(J: LowRankUpdate) -> tuple[Sparse, Any]:
    """[[A, U], [V, -I]]: its Schur complement is J."""
    (m, n), r = J.shape, J._rank
    i, k = (a.reshape(-1) for a in np.meshgrid(np.arange(n), np.arange(r), indexing="ij"))
    own = np.arange(r)
    parts = J._A.coo(), (i, k + n, J._U.reshape(-1)), (k + m, i, J._V.T.reshape(-1)), (own + m, own + n, -jnp.ones(r))
    return Sparse.of([(rows, cols, values.astype(J.dtype)) for rows, cols, values in parts], n + r)


def _bordered(J: LowRankUpdate, b: Any, turned: bool) -> Any:
    method, entries = _border(J)
    given = jnp.concatenate([b, jnp.zeros((len(b), J._rank), b.dtype)], axis=1)
    return method.solve(method.factor(entries), given, turned)[:, : b.shape[1]]
