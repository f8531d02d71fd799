"""The Jacobian as a sparse map and a few rank-one ones: J = A + U V."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import jax.scipy.linalg
import numpy as np

from chainrule._jacobians.assembled import Assembled, whole
from chainrule._jacobians.factored import Factored
from chainrule._jacobians.jacobian import Jacobian
from chainrule._jacobians.null_space import kernel, rounding, shortest
from chainrule._jacobians.structure import Structure
from chainrule._linalg.differentiable import implicit_solve, lost, spoiled
from chainrule._linalg.host import Sparse, working
from chainrule._space import promoted

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Inexact, Int


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
    def _rows(self) -> Any:
        return self._A._rows

    @property
    def _columns(self) -> Any:
        return self._A._columns

    @property
    def _batch(self) -> int:
        return self._A._batch

    @property
    def dtype(self) -> Any:
        """The dtype of the entries."""
        return promoted(self._A.dtype, self._U.dtype, self._V.dtype)

    @property
    def cost(self) -> int:
        """Multiply-adds of the accumulation, counted from shapes."""
        return self._A.cost

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """The primitives of the function that no rule covered."""
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
            return other._before(self)
        return Factored([self, *other.factors])

    def _before(self, other: Jacobian) -> Factored:
        return Factored([*other.factors, self])

    # linear algebra ------------------------------------------------------------------------------

    def _eliminated(self, for_many: bool = False) -> Any:
        """Of A; A⁻¹ U; and of I + V A⁻¹ U."""
        if not self._nonsingular:
            return None
        J = jax.lax.stop_gradient(self)
        own = J._A._eliminated(for_many)
        W = J._A._by_factors(own, J._U.T.astype(working(J.dtype)), False).T
        lu, swaps, _ = jax.lax.linalg.lu(jnp.eye(J._rank, dtype=W.dtype) + J._V.astype(W.dtype) @ W)
        return own, W, (lu, swaps)

    @property
    def _nonsingular(self) -> bool:
        return self._A.structural_rank == self.shape[0]

    def _solve(self, factors: Any, b: Any, transposed: bool) -> Any:
        return self._by_factors(factors, b.astype(working(self.dtype)), transposed, judged=True).astype(b.dtype)

    def _by_factors(self, factors: Any, b: Any, transposed: bool, judged: bool = False) -> Any:
        """[r, n] -> [r, n]; unless judged, whatever a singular J gives."""
        fixed = jax.lax.stop_gradient(self)
        run = functools.partial(_by_parts, fixed, factors)
        wrong = functools.partial(fixed._wrong, factors) if judged else None
        return implicit_solve(self._products, run, b, transposed, wrong)

    def _wrong(self, factors: Any, x: Any, b: Any, transposed: bool) -> Any:
        """[r, 1]: where x has no digit to trust, or is one of many solutions."""
        unsolved = lost(x, b, (self.T if transposed else self)._magnitudes()._apply)
        if factors is None:
            return unsolved
        # what lies in the image of a singular J has solutions, which no residual tells apart
        small = _suspicious(self, *factors[1:])
        return unsolved | jax.lax.cond(small, lambda J: kernel(J).dimension > 0, lambda _: jnp.array(False), self)

    def _magnitudes(self) -> LowRankUpdate:
        """|A| + |U| |V|"""
        return LowRankUpdate(self._A._magnitudes(), abs(self._U), abs(self._V))

    def _slogdet(self) -> Any:
        def bordered(J: LowRankUpdate) -> Any:
            method, entries = _border(J)
            sign, log = method.slogdet(entries)
            return sign * (-1) ** J._rank, log

        def lemma(J: LowRankUpdate) -> Any:
            (s, log), (t, more) = J._A._slogdet(), jnp.linalg.slogdet(J._capacitance())
            return s * t, log + more

        return self._by_lemma(lemma, bordered)

    def _det(self) -> Any:
        def bordered(J: LowRankUpdate) -> Any:
            method, entries = _border(J)
            return method.det(entries) * (-1) ** J._rank

        def lemma(J: LowRankUpdate) -> Any:
            return J._A._det() * jnp.linalg.det(J._capacitance())

        return self._by_lemma(lemma, bordered)

    def _by_lemma(self, lemma: Callable[[Any], Any], bordered: Callable[[Any], Any]) -> Any:
        """The determinant from those of A and of I + V A⁻¹ U where these keep its digits, else of a wider system."""
        if not self._nonsingular:
            return bordered(self)
        known = self._A._layout.places.values
        if known is not None and (abs(known) == 1).all():  # such an A⁻¹ cancels nothing; `vmap` would run both ways
            return lemma(self)
        return jax.lax.cond(self._keeps_digits(), lemma, bordered, self)

    def _capacitance(self) -> Any:
        """I + V A⁻¹ U"""
        W = self._A._by_factors(self._A._eliminated(), self._U.T.astype(self.dtype), False).T
        return jnp.eye(self._rank, dtype=self.dtype) + self._V @ W

    def _keeps_digits(self) -> Any:
        """Whether the determinants of A and of I + V A⁻¹ U give that of J."""
        J = jax.lax.stop_gradient(self)
        growth = abs(J._V).max() * abs(J._eliminated()[1]).max()  # digits of det(I + V A⁻¹ U) that cancel
        return jnp.isfinite(J._A._slogdet()[1]) & (growth < _GROWTH)

    @property
    def _has_kernel(self) -> bool:
        """Whether what J does not see follows from a small matrix: A has places for an inverse."""
        m, n = self.shape
        return m == n and self._nonsingular and not jnp.issubdtype(self.dtype, jnp.complexfloating)

    def _lstsq(self, b: Any) -> Any:
        if not self._has_kernel:
            return super()._lstsq(b)
        x, sound = shortest(self, b)
        if self.shape[0] > _DENSE:
            return spoiled(x, ~sound)
        return jax.lax.cond(sound, lambda J, b, x: x, lambda J, b, x: Jacobian._lstsq(J, b), self, b, x)

    def rank(self, tolerance: float | None = None) -> Int[Array, "*batch"]:
        """The dimension of the image: n less that of the kernel, which takes no matrix where A is invertible.

        Entries of a diagonal A count however small they are beside others, which singular values would not tell from 0.
        Inside `jit`, -1 where a large A turns out singular.

        tolerance : as for any Jacobian, and then by the singular values.
        """
        if tolerance is not None or not self._has_kernel:
            return super().rank(tolerance)
        rank = _rank(self)
        return super().rank() if _seen(rank < 0) else rank

    def null_space(self, dimension: int | None = None) -> Inexact[Array, "*batch n k"]:
        """An orthonormal basis of the kernel, (n, n - rank), which takes no matrix where A is invertible.

        dimension : how many columns; needed inside `jit`, where the rank is no number yet.
        """
        kept = self._dimension("null_space", dimension, self.shape[1], lambda rank: self.shape[1] - rank)
        if not self._has_kernel or kept > self._rank:
            return super().null_space(kept)
        basis = _null_space(self, kept)
        return super().null_space(kept) if _seen(jnp.isnan(basis)) else basis

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


_DENSE = 2000  # inputs, up to which the SVD stands by where A turns out singular in a program
_GROWTH = 1e4  # of V A⁻¹ U, up to which the determinant keeps its digits
_NEAR = 1e3  # rounding units of the right-hand side that may be left
_FAR = 1e-3  # of the right-hand side, that is left where elimination without pivots between A and the update fails


def _suspicious(J: LowRankUpdate, W: Any, small: Any) -> Any:
    """Whether I + V A⁻¹ U is singular within its rounding, as it is of a singular J, or of an A that is nearly so."""
    one = jnp.eye(J._rank, dtype=W.dtype)
    wrong = rounding(len(W), W.dtype) * (one + abs(J._V).astype(W.dtype) @ abs(W))
    return ~((abs(jax.scipy.linalg.lu_solve(small, one)) @ wrong).sum(1).max(initial=0) < 1)


def _woodbury(J: LowRankUpdate, factors: Any, b: Any, turned: bool) -> Any:
    """A⁻¹ b - A⁻¹ U (I + V A⁻¹ U)⁻¹ V A⁻¹ b; or (A⁻¹ b)ᵀ and so on of the transpose."""
    own, W, small = factors
    if not turned:
        y = J._A._by_factors(own, b, False)
        return y - jax.scipy.linalg.lu_solve(small, J._V @ y.T).T @ W.T
    return J._A._by_factors(own, b - jax.scipy.linalg.lu_solve(small, W.T @ b.T, trans=1).T @ J._V, True)


def _seen(where: Any) -> bool:
    """Whether it is so somewhere; inside a trace nothing can be seen."""
    return not isinstance(where, jax.core.Tracer) and bool(where.any())


@jax.jit
def _rank(J: LowRankUpdate) -> Any:
    """-1 where A turns out singular, and J is not small."""
    if J._batch:
        return jax.vmap(_rank)(J)
    found = kernel(J)
    n, lost_ones = J.shape[0], found.dimension + found.alone.sum()
    return _either(n, found.sound, n - lost_ones, lambda: Jacobian.rank(J), -1)


@functools.partial(jax.jit, static_argnums=1)
def _null_space(J: LowRankUpdate, kept: int) -> Any:
    """[n, kept]; nan where that is not the kernel, and J is not small."""
    if J._batch:
        return jax.vmap(lambda J: _null_space(J, kept))(J)
    found = kernel(J)
    whole_of_it = found.sound & ~found.alone.any() & (found.dimension >= kept)
    return _either(J.shape[0], whole_of_it, found.basis[:, :kept], lambda: Jacobian.null_space(J, kept), jnp.nan)


def _either(n: int, sound: Any, found: Any, dense: Callable[[], Any], otherwise: Any) -> Any:
    if n > _DENSE:
        return jnp.where(sound, found, otherwise)
    return jax.lax.cond(sound, lambda: found, lambda: dense().astype(found.dtype))


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
