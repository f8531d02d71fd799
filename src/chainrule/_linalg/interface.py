"""What a linear map can be asked for beyond products: solves, determinants, ranks. `Jacobian` inherits it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._errors import ChainruleError, InputTypeError, ShapeError, SingularError
from chainrule._linalg.differentiable import each
from chainrule._linalg.factorization import Factorization, batched
from chainrule._linalg.host import working
from chainrule._linalg.iterative import KRYLOV, krylov, require_method, require_options
from chainrule._mesh import within_automatic
from chainrule._options import ANY_J, require_tolerance
from chainrule._space import flat, promoted
from chainrule._trace import require_numbers

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Bool, Inexact, Int

    from chainrule._jacobians.structure import Structure


@within_automatic("solve", "factorize", "slogdet", "det", "inverse", "singular_values", "null_space", "range", "lstsq")
class LinearAlgebra:
    """Linear algebra that uses the structure; a kind of Jacobian provides `_eliminated`, `_solve` and `_slogdet`.

    Everything works inside `jit`, `vmap` and `grad`. Where a matrix turns out singular there, the result is nan;
    outside, SingularError is raised.
    """

    if TYPE_CHECKING:  # what `Jacobian` has
        dtype: Any
        _rows: Any
        _columns: Any

        @property
        def _batch(self) -> int: ...
        @property
        def shape(self) -> tuple[int, int]: ...
        @property
        def T(self) -> Any: ...
        @property
        def structure(self) -> Structure: ...
        def dense(self) -> Any: ...
        def coo(self) -> tuple[np.ndarray, np.ndarray, Any]: ...
        def _apply(self, v: Any) -> Any: ...
        def _positions(self) -> tuple[np.ndarray, np.ndarray]: ...
        def _says(self, letter: str) -> str: ...
        def _require_memory(self, what: str) -> None: ...

    # what a kind of Jacobian provides ------------------------------------------------------------

    def _eliminated(self, for_many: bool = False) -> Any:
        """Arrays that a solve needs, without derivatives; `for_many` solves, though they take longer to compile."""
        raise self._no_entries("a factorization")

    def _solve(self, factors: Any, b: Any, transposed: bool) -> Any:
        """[r, n] -> [r, n], nan where J is singular to working precision."""
        raise self._no_entries("a direct solve")

    def _solve_klu(self, b: Any) -> Any:
        """[r, n] -> [r, n]."""
        raise self._no_entries("method='klu'")

    def _inverse(self) -> Any:
        raise self._no_entries("an inverse")

    def _matrix(self) -> Any:
        """The dense matrix, in a dtype that LAPACK computes in."""
        return self.dense().astype(working(self.dtype))

    def _slogdet(self) -> tuple[Any, Any]:
        """Sign and log |det J|."""
        return jnp.linalg.slogdet(self._matrix())

    def _det(self) -> Any:
        return jnp.linalg.det(self._matrix()).astype(self.dtype)

    def _products(self, x: Any, transposed: bool) -> Any:
        """[r, n] -> [r, m]: J, or Jᵀ, on each row."""
        return each((self.T if transposed else self)._apply, x)

    def _singular_values(self) -> Any:
        """[min(m, n)], the largest first."""
        self._require_memory("singular_values")
        return jnp.linalg.svdvals(self._matrix()).astype(jnp.finfo(self.dtype).dtype)

    def _no_entries(self, what: str) -> ChainruleError:
        return ChainruleError(
            f"{what} needs entries, and {self._says('J')} is matrix-free: chainrule.jacobian gives one that has them; "
            "solve(b, method='gmres') needs products only"
        )

    @property
    def structural_rank(self) -> int:
        """The largest rank that a matrix with these places can have: a number, known while tracing."""
        return min(self.shape)

    # what all of them share ----------------------------------------------------------------------

    def solve(
        self,
        b: Any,
        *,
        method: str = "auto",
        preconditioner: Any = None,
        tolerance: float | None = None,
        max_steps: int | None = None,
    ) -> Any:
        """Solve J x = b.

        Parameters
        ----------
        b : pytree or array
            Like the outputs; or a flat (m,) vector; or an (m, k) matrix of k right-hand sides.
        method : str
            'auto': by the structure: division (diagonal, permutation), substitution (triangular, after a permutation
            too), batched LU (block-diagonal), block by block (block-triangular), banded LU, SuperLU on the host
            (sparse), LU (dense), factor by factor (a product); a matrix-free J by 'bicgstab', and by 'gmres' from where
            that stops short. 'klu': KLU on the host (the extra `klu`; inside `jit` a singular J is an error of the
            compiled program there, not nan). 'cg', 'gmres', 'bicgstab': Krylov methods on products with J.
        preconditioner : str or callable, optional
            For Krylov methods: 'diagonal', 'banded' (the three middle diagonals) or 'triangular' (the lower triangle)
            of J; or a function v -> M⁻¹ v of flat vectors.
        tolerance : float, optional
            For Krylov methods: ‖J x - b‖ relative to ‖b‖; the square root of the rounding unit where left out.
        max_steps : int, optional
            For Krylov methods.

        Returns
        -------
        pytree or array
            Like the inputs where b is like the outputs; else (n,) or (n, k).

        Raises
        ------
        ShapeError
            Where J is not square, or b does not fit.
        SingularError
            Where no matrix with these places can be invertible; or where J is singular to working precision, or a
            Krylov method does not converge (inside `jit`, `vmap` and `grad` the result is nan instead).

        Examples
        --------
        >>> import chainrule as cr, jax.numpy as jnp
        >>> J = cr.jacobian(lambda x: x**3)(jnp.array([1.0, 2.0]))
        >>> J.solve(jnp.array([3.0, 24.0])).tolist()
        [1.0, 2.0]
        """
        require_method("solve", method)
        iterative = method in KRYLOV or (method == "auto" and self._products_only)
        require_options("solve", method, iterative, preconditioner, tolerance, max_steps)
        if iterative:
            return self._solved(b, krylov(method, preconditioner, tolerance, max_steps))
        return self._solved(b, _by_klu if method == "klu" else _direct)

    _products_only = False  # whether products are all that there is

    def _solved(self, b: Any, run: Callable[[Any, Any], Any]) -> Any:
        """Bring b to [r, n], run, bring back; refuse what is singular where that can be seen."""
        self._require_square("solve")
        if self._batch:
            x = batched(self, b, lambda J, b: J._solved(b, run))
        else:
            self._require_structural_rank("solve")
            columns, back = self._right_hand_sides("solve", b)
            x = back(run(self, columns))
        return self._refuse_nan("solve", x, b)

    def _right_hand_sides(self, what: str, b: Any) -> tuple[Any, Callable[[Any], Any]]:
        """[r, n], and how to bring a solution [r, n] into the form of the inputs."""
        n, dtype, leaves = self.shape[0], self.dtype, jax.tree.leaves(b)
        require_numbers(what, "b", leaves)
        if self._rows.holds(b):
            b, back = flat(b)[None], lambda x: self._columns.unflatten(x[0])
        elif hasattr(b, "shape") and tuple(np.shape(b)) == (n,):
            b, back = jnp.asarray(b)[None], lambda x: x[0]
        elif hasattr(b, "shape") and np.ndim(b) == 2 and np.shape(b)[0] == n:
            b, back = jnp.asarray(b).T, lambda x: x.T
        else:
            raise ShapeError(
                f"{what}: {self._says('J')} gives outputs of shapes {list(self._rows.shapes)}, b has shapes "
                f"{[tuple(np.shape(x)) for x in leaves]}. Give the outputs' pytree, a flat ({n},) vector or an "
                f"({n}, k) matrix."
            )
        if jnp.iscomplexobj(b) and not jnp.issubdtype(dtype, jnp.complexfloating):
            r, both = len(b), jnp.concatenate([b.real, b.imag])  # a real map: both parts side by side
            return both.astype(promoted(dtype, both.dtype)), lambda x: back(jax.lax.complex(x[:r], x[r:]))
        return b.astype(promoted(dtype, b.dtype)), back

    def _require_square(self, what: str, way_out: str = "lstsq(b) gives the best x") -> None:
        if self.shape[0] != self.shape[1]:
            raise ShapeError(f"{what}: {self._says('J')} is not square; {way_out}.")

    def _require_structural_rank(self, what: str) -> None:
        n = self.shape[0]
        if self.structural_rank < n:
            raise SingularError(
                f"{what}: {self._says('J')} has structural rank {self.structural_rank} < {n}: with these zeros it is "
                "singular whatever its values. lstsq(b) gives the best x, null_space() what is lost."
            )

    def _refuse_nan(self, what: str, x: Any, *given: Any) -> Any:
        """Raise SingularError where numbers went in and nan came out; inside a trace nothing can be seen."""
        arrays, found = jax.tree.leaves((self, given)), jax.tree.leaves(x)
        if any(isinstance(a, jax.core.Tracer) for a in (*arrays, *found)):
            return x
        if all(bool(jnp.isfinite(a).all()) for a in found):
            return x
        if not all(bool(jnp.isfinite(a).all()) for a in arrays):
            return x  # nan in, nan out
        way_out = "lstsq(b)" if what != "lstsq" else "jnp.linalg.lstsq(J.dense(), b)[0]"
        raise SingularError(
            f"{what}: {self._says('J')} is singular to working precision ({np.dtype(self.dtype)}), or a Krylov method "
            f"did not converge. rank() and cond() say how far; {way_out} gives the best x."
        )

    def factorize(self) -> Factorization:
        """Factor once, for many solves.

        Returns
        -------
        Factorization
            With `solve(b)`, `T`, `det()`, `slogdet()`; a pytree like J itself.

        Raises
        ------
        ShapeError
            Where J is not square.
        SingularError
            Where no matrix with these places can be invertible.
        """
        self._require_square("factorize")
        self._require_structural_rank("factorize")
        return Factorization(self, _factorized(self))

    def slogdet(self) -> tuple[Inexact[Array, "*batch"], Inexact[Array, "*batch"]]:
        """Sign and natural logarithm of |det J|, the local volume factor; (0, -inf) where J is singular.

        Raises ShapeError where J is not square.
        """
        self._require_square("slogdet", ANY_J)
        return _slogdet(self)

    def det(self) -> Inexact[Array, "*batch"]:
        """The determinant: the signed factor by which J scales volumes. Raises ShapeError where J is not square.

        Where J is singular, its derivative is nan if J is banded or sparse, else that of `jax.numpy.linalg.det`.
        """
        self._require_square("det", ANY_J)
        return _det(self)

    def inverse(self) -> Any:
        """J⁻¹ as a Jacobian from the outputs to the inputs: as many blocks as J has parts.

        Raises ShapeError where J is not square, SingularError where it is singular, MemoryLimitError where the inverse
        would not fit: `factorize().solve` needs none.
        """
        self._require_square("inverse")
        self._require_structural_rank("inverse")
        found = jax.vmap(lambda J: J._inverse())(self) if self._batch else _inverse(self)
        return self._refuse_nan("inverse", found)

    def singular_values(self) -> Inexact[Array, "*batch k"]:
        """The min(m, n) singular values, the largest first: how far J stretches."""
        return _singular_values(self)

    def cond(self) -> Inexact[Array, "*batch"]:
        """The condition number: the largest singular value by the smallest; inf where J is singular."""
        s = self.singular_values()
        if not s.shape[-1]:
            return jnp.ones(s.shape[:-1], s.dtype)
        least = s[..., -1]
        return jnp.where(least == 0, jnp.inf, s[..., 0] / jnp.where(least == 0, 1, least))

    def rank(self, tolerance: float | None = None) -> Int[Array, "*batch"]:
        """The dimension of the image: singular values above `tolerance` times the largest (max(m, n) · eps)."""
        require_tolerance("rank", "tolerance", tolerance)
        s = self.singular_values()
        if not s.shape[-1]:
            return jnp.zeros(s.shape[:-1], int)
        relative = max(self.shape) * float(jnp.finfo(s.dtype).eps) if tolerance is None else tolerance
        return (s > relative * s[..., :1]).sum(-1)

    def is_injective(self) -> Bool[Array, "*batch"]:
        """Whether J dx = 0 only for dx = 0: rank n."""
        return self.rank() == self.shape[1]

    def is_surjective(self) -> Bool[Array, "*batch"]:
        """Whether every dy is J dx for some dx: rank m."""
        return self.rank() == self.shape[0]

    def is_invertible(self) -> Bool[Array, "*batch"]:
        """Whether f has a local inverse here (the inverse function theorem): square, and of full rank."""
        return (self.rank() == self.shape[0]) & (self.shape[0] == self.shape[1])

    def null_space(self, dimension: int | None = None) -> Inexact[Array, "*batch n k"]:
        """An orthonormal basis of the kernel, (n, n - rank): the directions that J does not see.

        dimension : how many columns; needed inside `jit`, where the rank is no number yet.
        """
        n = self.shape[1]
        kept = self._dimension("null_space", dimension, n, lambda rank: n - rank)
        V = jnp.conj(jnp.swapaxes(jnp.linalg.svd(self._matrix(), full_matrices=True)[2], -1, -2))
        return V[..., n - kept :].astype(self.dtype)

    def range(self, dimension: int | None = None) -> Inexact[Array, "*batch m k"]:
        """An orthonormal basis of the image, (m, rank).

        dimension : how many columns; needed inside `jit`, where the rank is no number yet.
        """
        kept = self._dimension("range", dimension, min(self.shape), lambda rank: rank)
        return jnp.linalg.svd(self._matrix(), full_matrices=False)[0][..., :kept].astype(self.dtype)

    def _dimension(self, what: str, given: int | None, most: int, of_rank: Callable[[int], int]) -> int:
        if given is not None:
            if not (isinstance(given, (int, np.integer)) and 0 <= given <= most):
                raise InputTypeError(f"{what}: dimension={given!r} is no count from 0 to {most}")
            return int(given)
        rank = self.rank()
        if isinstance(rank, jax.core.Tracer):
            raise ChainruleError(
                f"{what}: inside jit, vmap or grad the rank is no number yet; say dimension=k, or call it outside"
            )
        if rank.size and (rank != rank.reshape(-1)[0]).any():
            raise ShapeError(f"{what}: the ranks of this batch differ: {np.unique(rank)}; take its members one by one")
        return of_rank(int(rank.reshape(-1)[0]))

    def lstsq(self, b: Any) -> Any:
        """The x that makes ‖J x - b‖ least, and of these the shortest.

        b : as in `solve`. A sparse J of full rank is solved by SuperLU on [[I, J], [Jᴴ, 0]], a dense one by its SVD;
        one plus a map of low rank, J = A + U V, of any rank by the kernels of J and Jᵀ, in O(n) where A is diagonal.
        Raises ShapeError where b does not fit, SingularError where a sparse J has not full rank.
        """
        if self._batch:
            return batched(self, b, lambda J, b: J.lstsq(b))
        columns, back = self._right_hand_sides("lstsq", b)
        return self._refuse_nan("lstsq", back(_lstsq(self, columns)), b)

    def _lstsq(self, b: Any) -> Any:
        """[r, m] -> [r, n]: the pseudoinverse, unlike its factors, has a derivative where singular values coincide."""
        A = self.dense().astype(b.dtype)
        inverse = jnp.linalg.pinv(A, rtol=max(A.shape) * float(jnp.finfo(A.dtype).eps))
        return jnp.matmul(inverse, b.T, precision="highest").T


@jax.jit
def _direct(J: Any, b: Any) -> Any:
    return J._solve(J._eliminated(), b, False)


_klu = jax.jit(lambda J, b: J._solve_klu(b))


def _by_klu(J: Any, b: Any) -> Any:
    """Where the matrix is singular, nan for the error that KLU makes of the compiled program."""
    try:
        return jax.block_until_ready(_klu(J, b))
    except jax.errors.JaxRuntimeError as error:
        if "singular" not in str(error):
            raise
        return jnp.full_like(b, jnp.nan)


@jax.jit
def _factorized(J: Any) -> Any:
    return jax.vmap(_factorized)(J) if J._batch else J._eliminated()


@jax.jit
def _slogdet(J: Any) -> Any:
    return jax.vmap(_slogdet)(J) if J._batch else J._slogdet()


@jax.jit
def _det(J: Any) -> Any:
    return jax.vmap(_det)(J) if J._batch else J._det()


@jax.jit
def _inverse(J: Any) -> Any:
    return J._inverse()


@jax.jit
def _singular_values(J: Any) -> Any:
    return jax.vmap(_singular_values)(J) if J._batch else J._singular_values()


@jax.jit
def _lstsq(J: Any, b: Any) -> Any:
    return J._lstsq(b.astype(working(b.dtype))).astype(b.dtype)
