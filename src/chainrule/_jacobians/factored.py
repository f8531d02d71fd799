"""The Jacobian as a product of Jacobians that is not multiplied out."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._jacobians.jacobian import Jacobian
from chainrule._jacobians.structure import Structure
from chainrule._space import promoted

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Inexact


@jax.tree_util.register_pytree_node_class
class Factored(Jacobian):
    """A Jacobian that stays a product of links: J = L_k … L_1, each assembled or a low-rank update of such a one.

    Products go link by link; what needs the entries multiplies out (`.assemble()`). The factors of its determinant,
    of a solve or of a rank bound are those of the links.
    """

    def __init__(self, factors: Sequence[Any], order: str = "factored"):
        self.__dict__.update(_links=tuple(factors), order=order)

    @property
    def factors(self) -> tuple[Any, ...]:
        """The links, the last one first."""
        return self._links

    _links: tuple[Any, ...]

    def tree_flatten(self) -> tuple[tuple[Any, ...], str]:
        return self.factors, self.order

    @classmethod
    def tree_unflatten(cls, order: str, factors: Any) -> Factored:
        return cls(factors, order)

    @property
    def _rows(self) -> Any:
        return self.factors[0]._rows

    @property
    def _columns(self) -> Any:
        return self.factors[-1]._columns

    @property
    def _batch(self) -> int:
        return self.factors[0]._batch

    @property
    def dtype(self) -> Any:
        """The dtype of the entries."""
        return promoted(*[J.dtype for J in self.factors])

    @property
    def cost(self) -> int:
        """Multiply-adds of the accumulation of all links, counted from shapes."""
        return sum(J.cost for J in self.factors)

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """The primitives of the function that no rule covered."""
        return tuple(dict.fromkeys(name for J in self.factors for name in J.fallbacks))

    @property
    def nnz(self) -> int:
        """Number of entries that are stored: those of all factors."""
        return sum(J.nnz for J in self.factors)

    @property
    def structure(self) -> Structure:
        """A product of Jacobians, with the sizes that they have between them; of a single one, its own."""
        if len(self.factors) == 1:
            return self.factors[0].structure
        return Structure("product", (self.shape[0], *(J.shape[1] for J in self.factors)))

    @property
    def T(self) -> Factored:
        """The transpose: the transposed factors in the opposite order."""
        return Factored([J.T for J in reversed(self.factors)], self.order)

    def assemble(self) -> Any:
        """Multiply out, the pair that takes least first."""
        if self._batch:
            return jax.vmap(Factored.assemble)(self)
        factors: list[Any] = [J.assemble() for J in self.factors]
        while len(factors) > 1:
            counts = [a.shape[0] * a.shape[1] * b.shape[1] for a, b in pairwise(factors)]
            k = int(np.argmin(counts))
            factors[k : k + 2] = [factors[k]._after(factors[k + 1])]
        return factors[0]

    def dense(self) -> Inexact[Array, "*batch m n"]:
        """Give the (m, n) array. Raises MemoryLimitError before it allocates what would not fit."""
        self._require_memory("dense")
        return self.assemble().dense()

    def coo(self) -> tuple[np.ndarray, np.ndarray, Any]:
        """Give (rows, cols, values) of the product, unique and row-major."""
        return self.assemble().coo()

    @property
    def structural_rank(self) -> int:
        """An upper bound of the rank: the smallest of the factors' structural ranks, a number known while tracing."""
        return min(J.structural_rank for J in self.factors)

    @property
    def _square(self) -> bool:
        return all(J.shape[0] == J.shape[1] for J in self.factors)

    def _eliminated(self, for_many: bool = False) -> Any:
        if not self._square:
            return self.assemble()._eliminated(for_many)
        return tuple(J._eliminated(for_many) for J in self.factors)

    def _solve(self, factors: Any, b: Any, transposed: bool) -> Any:
        if not self._square:
            return self.assemble()._solve(factors, b, transposed)
        pairs = list(zip(self.factors, factors, strict=True))
        for J, own in reversed(pairs) if transposed else pairs:
            if jnp.iscomplexobj(b) and not jnp.issubdtype(J.dtype, jnp.complexfloating):
                x = J._solve(own, jnp.concatenate([b.real, b.imag]), transposed)  # a real link takes both parts
                b = jax.lax.complex(x[: len(b)], x[len(b) :])
            else:
                b = J._solve(own, b, transposed)
        return b

    def _solve_klu(self, b: Any) -> Any:
        return self.assemble()._solve_klu(b)

    def _slogdet(self) -> Any:
        if not self._square:
            return self.assemble()._slogdet()
        signs, logs = zip(*(J._slogdet() for J in self.factors), strict=True)
        return math.prod(signs), sum(logs)

    def _det(self) -> Any:
        return math.prod(J._det() for J in self.factors) if self._square else self.assemble()._det()

    def _inverse(self) -> Any:
        if not self._square:
            return self.assemble()._inverse()
        return Factored([J._inverse() for J in reversed(self.factors)], self.order)

    def _lstsq(self, b: Any) -> Any:
        return self.assemble()._lstsq(b)

    def _apply(self, v: Inexact[Array, " n"]) -> Inexact[Array, " m"]:
        return functools.reduce(lambda x, J: J._apply(x), reversed(self.factors), v)

    def _times(self, scalar: Any) -> Factored:
        first, *rest = self.factors
        return Factored([first._times(scalar), *rest], self.order)

    def _plus(self, other: Jacobian) -> Jacobian:
        return self.assemble()._plus(other.assemble())

    def _after(self, other: Jacobian) -> Jacobian:
        if other._products_only:
            return other._before(self)
        return Factored([*self.factors, *other.factors], self.order)

    def _before(self, other: Jacobian) -> Factored:
        return Factored([*other.factors, *self.factors], self.order)
