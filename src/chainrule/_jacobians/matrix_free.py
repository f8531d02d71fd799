"""The Jacobian as a program: products only, nothing stored but the residuals of the primal run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._errors import ChainruleError, MissingRuleError
from chainrule._jacobians.jacobian import Jacobian
from chainrule._jacobians.structure import Structure
from chainrule._jax import as_callable, count_every_pass, has_custom_vjp
from chainrule._space import Space, flat, promoted, space_of
from chainrule._trace import Problem, flat_output, named_as

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Inexact

_OTHER = {"forward": "reverse", "reverse": "forward"}


@dataclass(frozen=True, eq=False)
class Program:
    """The jaxpr of a flat linear map; `flipped`: the Jacobian is the transpose of that map."""

    rows: Space
    columns: Space
    jaxpr: Any
    order: str
    flipped: bool = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Program) and self.jaxpr is other.jaxpr and self.flipped == other.flipped

    def __hash__(self) -> int:
        return hash((id(self.jaxpr), self.flipped))

    @cached_property
    def cost(self) -> int:
        return count_every_pass(self.jaxpr)


@jax.tree_util.register_pytree_node_class
class MatrixFree(Jacobian):
    """A Jacobian of products: `J @ v` runs the linearized program, `J.T @ w` its transpose."""

    _program: Program
    _residuals: tuple[Any, ...]
    _products_only = True
    _without_matrix = "Use products (J @ v, J.T @ w, J.row(i), J.col(j)), or chainrule.jacobian where J is sparse."

    def __init__(self, program: Program, residuals: Sequence[Any]):
        self.__dict__.update(_program=program, _residuals=tuple(residuals))

    @classmethod
    def of(cls, push: Callable[[Any], Any], rows: Space, columns: Space, order: str = "forward") -> MatrixFree:
        """Trace a flat linear function [n] -> [m]."""
        closed = jax.make_jaxpr(push)(jax.ShapeDtypeStruct((columns.size,), columns.dtype))
        # one leaf at least, so that `vmap` can count a batch
        return cls(Program(rows, columns, closed.jaxpr, order), (*map(jnp.asarray, closed.consts), jnp.zeros(())))

    def tree_flatten(self) -> tuple[tuple[Any, ...], Program]:
        return self._residuals, self._program

    @classmethod
    def tree_unflatten(cls, program: Program, residuals: Any) -> MatrixFree:
        return cls(program, residuals)

    @property
    def _rows(self) -> Space:
        return self._program.rows

    @property
    def _columns(self) -> Space:
        return self._program.columns

    @property
    def dtype(self) -> Any:
        """The dtype of the entries."""
        return promoted(self._rows.dtype, self._columns.dtype, self._program.jaxpr.outvars[0].aval.dtype)

    @property
    def order(self) -> str:
        """In which direction a product runs."""
        return self._program.order

    @property
    def cost(self) -> int:
        """Operations of one product, counted from shapes."""
        return self._program.cost

    @property
    def nnz(self) -> int:
        """Number of entries that are not known to vanish: all of them, for nothing is known."""
        return self.shape[0] * self.shape[1]

    @property
    def structure(self) -> Structure:
        """Nothing is known of a map that is only multiplied with."""
        return Structure("matrix-free")

    @property
    def _batch(self) -> int:
        return int(np.ndim(self._residuals[-1]))

    @property
    def T(self) -> MatrixFree:
        """The transpose; `J.T @ w` is the pullback of w."""
        old = self._program
        turned = replace(old, rows=old.columns, columns=old.rows, order=_OTHER[old.order], flipped=not old.flipped)
        return MatrixFree(turned, self._residuals)

    def _apply(self, v: Inexact[Array, " n"]) -> Inexact[Array, " m"]:
        try:
            return _product(self, v)
        except (ValueError, NotImplementedError) as error:
            if not self._program.flipped or isinstance(error, ChainruleError):
                raise
            raise MissingRuleError(f"J.T @ w: JAX cannot transpose {self.T._says('J')}: {error}") from error

    def _entries(self) -> Any:
        """[m, n]: a product for every column, or for every row where there are fewer."""
        self._require_memory("dense")
        if self._batch:
            return jax.vmap(MatrixFree._entries)(self)
        (m, n), by_row = self.shape, self.T
        if m < n and self._rows.dtype == self._columns.dtype:
            try:
                return jax.vmap(by_row._apply)(jnp.eye(m, dtype=self._rows.dtype))
            except MissingRuleError:
                pass  # JAX cannot transpose this map
        return jax.vmap(self._apply, out_axes=1)(jnp.eye(n, dtype=self._columns.dtype))

    def dense(self) -> Inexact[Array, "*batch m n"]:
        """Give the (m, n) array: one product for every column. Raises MemoryLimitError where it would not fit."""
        return self._entries().astype(self.dtype)

    def coo(self) -> tuple[np.ndarray, np.ndarray, Inexact[Array, "*batch nnz"]]:
        """Give (rows, cols, values) of all entries: the matrix is formed."""
        dense, (m, n) = self.dense(), self.shape
        rows, cols = np.divmod(np.arange(m * n), max(n, 1))
        return rows, cols, dense.reshape((*dense.shape[:-2], m * n))

    def row(self, i: int) -> Inexact[Array, "*batch n"]:
        """Row i, an (n,) array, by one pullback."""
        return self.T.col(self._inside(i, 0))

    def col(self, j: int) -> Inexact[Array, "*batch m"]:
        """Column j, an (m,) array, by one pushforward."""
        j = self._inside(j, 1)
        if self._batch:
            return jax.vmap(lambda J: J.col(j))(self)
        return self._apply(jnp.zeros(self.shape[1], self._columns.dtype).at[j].set(1))

    def _positions(self) -> tuple[np.ndarray, np.ndarray]:
        """Of every cell that a picture can have, one entry: nothing is known, all of it is drawn."""
        m, n = (np.unique(np.linspace(0, s - 1, min(s, 1024)).astype(int)) for s in self.shape)
        rows, cols = np.meshgrid(m, n, indexing="ij")
        return rows.reshape(-1), cols.reshape(-1)

    def _times(self, scalar: Any) -> Jacobian:
        if self._batch:
            return jax.vmap(MatrixFree._times, in_axes=(0, None))(self, scalar)
        by = jnp.asarray(scalar, promoted(self.dtype, scalar))
        return _combined(lambda J, c, v: J._apply(v) * c, self, self._rows, self._columns, by)

    def _plus(self, other: Jacobian) -> Jacobian:
        return _combined(lambda J, K, v: J._apply(v) + K._apply(v), self, self._rows, self._columns, other)

    def _after(self, other: Jacobian) -> Jacobian:
        return _combined(lambda J, K, v: J._apply(K._apply(v)), self, self._rows, other._columns, other)

    def _before(self, other: Jacobian) -> Jacobian:
        return _combined(lambda J, K, v: K._apply(J._apply(v)), self, other._rows, self._columns, other)


def _combined(run: Callable[..., Any], J: MatrixFree, rows: Space, columns: Space, other: Any) -> Jacobian:
    return MatrixFree.of(lambda v: run(J, other, v), rows, columns, J.order)


@jax.jit
def _product(J: MatrixFree, v: Any) -> Any:
    """[n] -> [m]: the program, or its transpose."""
    program = J._program
    run = as_callable(program.jaxpr, J._residuals[:-1])
    if not program.flipped:
        return run(v.astype(program.columns.dtype))[0]
    shape = jax.ShapeDtypeStruct((program.rows.size,), program.rows.dtype)
    transpose = jax.linear_transpose(lambda t: run(t)[0], shape)
    v = v.astype(program.jaxpr.outvars[0].aval.dtype)
    if jnp.iscomplexobj(v) and not jnp.issubdtype(program.rows.dtype, jnp.complexfloating):
        # of a map from real to complex numbers JAX transposes the real part: Re(Jᵀ v)
        return jax.lax.complex(transpose(v)[0], -transpose(1j * v)[0])
    return transpose(v)[0]


def linearized(problem: Problem, has_aux: bool) -> tuple[MatrixFree, Any]:
    """The matrix-free Jacobian of a function, and its auxiliary output."""
    function, found = flat_output(problem, has_aux)
    columns = space_of(problem.tree, problem.leaves, problem.f)
    if has_custom_vjp(jax.make_jaxpr(named_as(problem.f, lambda *x: function(*x)[0]))(*problem.leaves).jaxpr):
        # such a function has no forward program: the transpose of its pullback is one
        y, pull, aux = jax.vjp(function, *problem.leaves, has_aux=True)
        rows = space_of(found["tree"], y, problem.f)
        return MatrixFree.of(_flat_map(lambda *w: pull(list(w)), rows, columns), columns, rows, "reverse").T, aux
    y, push, aux = jax.linearize(function, *problem.leaves, has_aux=True)
    rows = space_of(found["tree"], y, problem.f)
    return MatrixFree.of(_flat_map(push, columns, rows), rows, columns), aux


def _flat_map(run: Callable[..., Any], source: Space, target: Space) -> Callable[[Any], Any]:
    """A linear map of lists of arrays as one of flat vectors."""

    def flat_run(v: Any) -> Any:
        leaves = jax.tree.leaves(source.unflatten(v))
        outs = run(*[x.astype(d) for x, d in zip(leaves, source.dtypes, strict=True)])
        return flat([o.astype(target.dtype) for o in outs])

    return flat_run
