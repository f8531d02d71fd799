"""A Jacobian as a linear operator of lineax: `J.lineax()`. Imports lineax, so it is imported when asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np

from chainrule._errors import InputTypeError
from chainrule._jacobians.structure import bandwidth


class JacobianOperator(lx.AbstractLinearOperator):  # type: ignore[misc]
    """A `Jacobian` with the face of lineax; its tags are what its pattern shows, and what the caller promises."""

    J: Any
    tags: frozenset[object] = eqx.field(static=True)

    def mv(self, vector: Any) -> Any:
        """The product with a pytree like the inputs."""
        return self.J @ vector

    def as_matrix(self) -> Any:
        """The dense matrix."""
        return self.J.dense()

    def transpose(self) -> JacobianOperator:
        """The operator of J.T."""
        return self if lx.is_symmetric(self) else JacobianOperator(self.J.T, lx.transpose_tags(self.tags))

    def in_structure(self) -> Any:
        """Shapes and dtypes of the inputs."""
        return _shapes(self.J._columns)

    def out_structure(self) -> Any:
        """Shapes and dtypes of the outputs."""
        return _shapes(self.J._rows)


def operator(J: Any, tags: object) -> JacobianOperator:
    """Tag by the pattern; what is diagonal or tridiagonal maps a space to itself, as lineax has it."""
    promised = frozenset(tags if isinstance(tags, Iterable) and not isinstance(tags, str) else [tags])
    if words := [tag for tag in promised if isinstance(tag, str)]:
        raise InputTypeError(f"lineax: {words[0]!r} is a string, no tag; give lineax.symmetric_tag and the like")
    return JacobianOperator(J, promised | _seen(J))


def _shapes(space: Any) -> Any:
    leaves = [jax.ShapeDtypeStruct(s, d) for s, d in zip(space.shapes, space.dtypes, strict=True)]
    return jax.tree.unflatten(space.tree, leaves)


def _seen(J: Any) -> frozenset[object]:
    if J._products_only or J.shape[0] != J.shape[1]:
        return frozenset()
    lower, upper = bandwidth(*J._positions())
    found = {lx.lower_triangular_tag} if upper == 0 else set()
    found |= {lx.upper_triangular_tag} if lower == 0 else set()
    if J._rows.key == J._columns.key:
        found |= {lx.tridiagonal_tag} if max(lower, upper) <= 1 else set()
        found |= {lx.diagonal_tag, lx.symmetric_tag} if max(lower, upper) == 0 else set()
        found |= {lx.unit_diagonal_tag, lx.positive_semidefinite_tag} if J.structure.kind == "identity" else set()
    return frozenset(found)


def _is_symmetric(operator: JacobianOperator) -> bool:
    definite = {lx.positive_semidefinite_tag, lx.negative_semidefinite_tag} & operator.tags  # Hermitian, where complex
    return lx.symmetric_tag in operator.tags or bool(definite and not _is_complex(operator))


def _is_complex(operator: JacobianOperator) -> bool:
    return bool(jnp.issubdtype(operator.J.dtype, jnp.complexfloating))


def _linearise(operator: JacobianOperator) -> JacobianOperator:
    return operator


def _materialise(operator: JacobianOperator) -> lx.AbstractLinearOperator:
    if not operator.J._products_only:
        return operator
    return lx.PyTreeLinearOperator(operator.J.tree(), operator.out_structure(), operator.tags)


def _diagonal(operator: JacobianOperator) -> Any:
    return operator.J.diagonal()


def _tridiagonal(operator: JacobianOperator) -> tuple[Any, Any, Any]:
    """The main, the lower and the upper diagonal: entries (i, i), (i + 1, i), (i, i + 1)."""
    rows, cols, values = operator.J.coo()

    def along(offset: int) -> Any:
        mine = np.flatnonzero(cols.astype(np.int64) - rows == offset)
        first = np.minimum(rows, cols)[mine]
        zeros = jnp.zeros(operator.J.shape[0] - abs(offset), values.dtype)
        return zeros.at[first].set(values[mine])

    return along(0), along(-1), along(1)


def _conj(operator: JacobianOperator) -> lx.AbstractLinearOperator:
    if not _is_complex(operator):
        return operator

    def mv(vector: Any) -> Any:
        return jax.tree.map(jnp.conj, operator.mv(jax.tree.map(jnp.conj, vector)))

    return lx.FunctionLinearOperator(mv, operator.in_structure(), operator.tags)


for _check, _tag in (
    (lx.is_diagonal, lx.diagonal_tag),
    (lx.is_tridiagonal, lx.tridiagonal_tag),
    (lx.has_unit_diagonal, lx.unit_diagonal_tag),
    (lx.is_lower_triangular, lx.lower_triangular_tag),
    (lx.is_upper_triangular, lx.upper_triangular_tag),
    (lx.is_positive_semidefinite, lx.positive_semidefinite_tag),
    (lx.is_negative_semidefinite, lx.negative_semidefinite_tag),
):
    _check.register(JacobianOperator, lambda operator, tag=_tag: tag in operator.tags)

for _function, _own in (
    (lx.is_symmetric, _is_symmetric),
    (lx.linearise, _linearise),
    (lx.materialise, _materialise),
    (lx.diagonal, _diagonal),
    (lx.tridiagonal, _tridiagonal),
    (lx.conj, _conj),
):
    _function.register(JacobianOperator, _own)
