"""A Jacobian that is ready to be solved with."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from chainrule._errors import ShapeError
from chainrule._mesh import within_automatic


@jax.tree_util.register_pytree_node_class
@within_automatic("solve", "det", "slogdet")
class Factorization:
    """A square Jacobian factored once, for many solves and its determinant: `J.factorize()`. It is a pytree.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> F = cr.jacobian(lambda x: x**3)(jnp.array([1.0, 2.0])).factorize()
    >>> F.solve(jnp.array([3.0, 24.0])).tolist(), F.T.solve(jnp.array([3.0, 24.0])).tolist()
    ([1.0, 2.0], [1.0, 2.0])
    """

    def __init__(self, J: Any, factors: Any, transposed: bool = False):
        self._own, self._factors, self._transposed = J, factors, transposed

    def tree_flatten(self) -> tuple[tuple[Any, Any], bool]:
        return (self._own, self._factors), self._transposed

    @classmethod
    def tree_unflatten(cls, transposed: bool, children: Any) -> Factorization:
        J, factors = children
        return cls(J, factors, transposed)

    @property
    def _rows(self) -> Any:
        return self.J._rows

    @property
    def _columns(self) -> Any:
        return self.J._columns

    @property
    def J(self) -> Any:
        """The Jacobian that `solve` solves with."""
        return self._own.T if self._transposed else self._own

    @property
    def T(self) -> Factorization:
        """The transpose, by the same factors."""
        return Factorization(self._own, self._factors, not self._transposed)

    def solve(self, b: Any) -> Any:
        """Solve J x = b; see `Jacobian.solve`."""
        J = self.J
        if J._batch:
            return J._refuse_nan("solve", batched(self, b, lambda F, b: F.solve(b)), b)
        columns, back = J._right_hand_sides("solve", b)
        return J._refuse_nan("solve", back(_factored_solve(self._own, self._factors, columns, self._transposed)), b)

    def det(self) -> Any:
        """The determinant."""
        return self._own.det()

    def slogdet(self) -> tuple[Any, Any]:
        """Sign and natural logarithm of |det J|."""
        return self._own.slogdet()

    def __repr__(self) -> str:
        return f"Factorization of {self.J!r}"


def batched(J: Any, b: Any, run: Callable[[Any, Any], Any]) -> Any:
    """Run for every member of a batch; b has the batch as its first axis."""
    own = {np.shape(a)[0] for a in jax.tree.leaves(J)}
    given = [tuple(np.shape(x)) for x in jax.tree.leaves(b)]
    if any(not shape or shape[0] not in own for shape in given):
        raise ShapeError(f"b has shapes {given}; every array needs the batch of {sorted(own)} as its first axis")
    return jax.vmap(run)(J, b)


@functools.partial(jax.jit, static_argnums=3)
def _factored_solve(J: Any, factors: Any, b: Any, transposed: bool) -> Any:
    return J._solve(factors, b, transposed)
