"""A solver of lineax that finds the structure of its operator. Imports lineax, so it is imported when asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy.linalg
import lineax as lx
import numpy as np

from chainrule._api import jacobian
from chainrule._jacobians.assembled import Assembled, from_coo
from chainrule._linalg.host import working
from chainrule._linalg.iterative import KRYLOV, krylov, require_method, require_options
from chainrule._linalg.lineax_operator import JacobianOperator
from chainrule._linalg.methods import is_sparse
from chainrule._options import Order
from chainrule._space import flat, promoted


class _State(eqx.Module):
    """J, of at least as many rows as columns, with what its solves need; the operator is J, Jᵀ or a conjugate."""

    J: Any
    factors: Any
    transposed: bool = eqx.field(static=True)
    conjugated: bool = eqx.field(static=True, default=False)

    @property
    def operator(self) -> Any:
        return self.J.T if self.transposed else self.J


class StructuredSolver(lx.AbstractLinearSolver[_State]):  # type: ignore[misc]
    """A linear solver for lineax, optimistix and diffrax that finds the structure of any operator.

    The Jacobian of `operator.mv` is accumulated, sparse where it is sparse, and solved by the method that its pattern
    calls for (see `Jacobian.solve`). An operator with more or fewer rows than columns gives least squares, or the
    shortest solution, by QR or sparse LU; it must have full rank, as for `lineax.QR`.

    Parameters
    ----------
    method : str
        As for `Jacobian.solve`: 'auto', 'klu', 'cg', 'gmres', 'bicgstab'.
    order : {'auto', 'forward', 'reverse', 'factored'} or Plan
        In which order the Jacobian is accumulated; see `chainrule.jacobian`.
    preconditioner, tolerance, max_steps
        For Krylov methods; see `Jacobian.solve`.

    Notes
    -----
    Sparse LU is done inside the compiled program where that makes a dozen solves with the same factors faster (up to
    some 2,000 unknowns on a grid), with dense blocks on a tree of separators and pivots within them. Each solution is
    judged by its residual, and where that is more than rounding, SuperLU on the host takes its place.

    A singular operator gives `lineax.RESULTS.singular`; a Krylov method that does not converge
    `lineax.RESULTS.max_steps_reached`. Arrays of indices, those of `x.at[1:].add` included, are no constants any more
    where lineax, optimistix or diffrax trace the function: what they choose from comes out dense along that axis.
    Slices, shifts, padding, stacks and joins keep their structure.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp, lineax as lx
    >>> A = lx.JacobianLinearOperator(lambda x, _: x**3, jnp.array([1.0, 2.0]))
    >>> lx.linear_solve(A, jnp.array([3.0, 24.0]), cr.StructuredSolver()).value.tolist()
    [1.0, 2.0]
    """

    method: str = eqx.field(static=True, default="auto")
    order: Order | Any = eqx.field(static=True, default="auto")
    preconditioner: str | Callable[[Any], Any] | None = eqx.field(static=True, default=None)
    tolerance: float | None = eqx.field(static=True, default=None)
    max_steps: int | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        require_method("StructuredSolver", self.method)
        options = self.preconditioner, self.tolerance, self.max_steps
        require_options("StructuredSolver", self.method, self.method in KRYLOV, *options)

    def init(self, operator: lx.AbstractLinearOperator, options: dict[str, Any]) -> _State:
        """Find the structure, and factor."""
        J = jax.lax.stop_gradient(_structured(operator, self.order))
        wide = J.shape[0] < J.shape[1]
        J = J.T if wide else J
        return _State(J, self._factored(J), wide)

    def _factored(self, J: Any) -> Any:
        (m, n), rows_and_cols = J.shape, J._positions()
        if m > n:
            return None if is_sparse(n, len(rows_and_cols[0])) else jnp.linalg.qr(J._matrix())
        return J._eliminated(for_many=True) if self.method == "auto" and J.structural_rank == n else None

    def compute(self, state: _State, vector: Any, options: dict[str, Any]) -> tuple[Any, lx.RESULTS, dict[str, Any]]:
        """Solve, by the factors that there are."""
        b = flat(vector)[None]
        b = b.astype(working(promoted(state.J.dtype, b.dtype)))
        x = self._solved(state, b.conj()).conj() if state.conjugated else self._solved(state, b)
        failed = lx.RESULTS.max_steps_reached if self.method in KRYLOV else lx.RESULTS.singular
        result = lx.RESULTS.where(jnp.isfinite(x).all(), lx.RESULTS.successful, failed)
        return state.operator._columns.unflatten(x[0], cast=True), result, {}

    def _solved(self, state: _State, b: Any) -> Any:
        """[1, m] -> [1, n], nan where there is no solution."""
        A = state.operator
        m, n = A.shape
        if A.structural_rank < min(m, n):
            return jnp.full((1, n), jnp.nan, b.dtype)
        if m != n:
            return A._lstsq(b) if state.factors is None else _by_qr(state.factors, b, state.transposed)
        if self.method in KRYLOV:
            return krylov(self.method, self.preconditioner, self.tolerance, self.max_steps)(A, b)
        return A._solve_klu(b) if self.method == "klu" else state.J._solve(state.factors, b, state.transposed)

    def transpose(self, state: _State, options: dict[str, Any]) -> tuple[_State, dict[str, Any]]:
        """The same factors, for the transpose."""
        return _State(state.J, state.factors, not state.transposed, state.conjugated), options

    def conj(self, state: _State, options: dict[str, Any]) -> tuple[_State, dict[str, Any]]:
        """The same factors, for the conjugate."""
        return _State(state.J, state.factors, state.transposed, not state.conjugated), options

    def assume_full_rank(self) -> bool:
        """What has not full rank is refused, so that derivatives need not provide for it."""
        return True


def _structured(operator: lx.AbstractLinearOperator, order: Any) -> Any:
    """The Jacobian of the operator, without the entries that its tags promise to vanish."""
    if isinstance(operator, JacobianOperator) and not operator.J._products_only:
        return operator.J

    def mv(vector: Any) -> Any:
        return operator.mv(vector)

    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), operator.in_structure())
    holomorphic = any(jnp.iscomplexobj(x) for x in jax.tree.leaves(zeros))
    return _promised(operator, jacobian(mv, holomorphic=holomorphic, order=order)(zeros))


def _promised(operator: lx.AbstractLinearOperator, J: Any) -> Any:
    if not isinstance(J, Assembled):
        return J
    above = np.subtract(*J._positions()[::-1], dtype=np.int64)  # how far right of the diagonal an entry lies
    if lx.is_diagonal(operator):
        kept = above == 0
    elif lx.is_tridiagonal(operator):
        kept = abs(above) <= 1
    elif lx.is_lower_triangular(operator):
        kept = above <= 0
    elif lx.is_upper_triangular(operator):
        kept = above >= 0
    else:
        return J
    rows, cols, values = J.coo()
    return J if kept.all() else from_coo(J._layout, rows[kept], cols[kept], values[kept])


def _by_qr(factors: tuple[Any, Any], b: Any, transposed: bool) -> Any:
    """Q R x = b in the sense of least squares, or the shortest x of Rᵀ Qᵀ x = b; nan where the rank is not full."""
    Q, R = factors
    if transposed:
        x = Q.conj() @ jax.scipy.linalg.solve_triangular(R, b.T, trans=1)
    else:
        x = jax.scipy.linalg.solve_triangular(R, Q.conj().T @ b.T)
    pivots = jnp.abs(jnp.diagonal(R))
    least = max(Q.shape) * float(jnp.finfo(R.dtype).eps) * pivots.max(initial=0)
    return jnp.where((pivots > least).all(), x.T, jnp.nan)
