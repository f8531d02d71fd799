"""Sparse LU inside the compiled program: the multifrontal method (Duff and Reid 1983) on a nested dissection."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._linalg.dissection import Dissection, Fronts
from chainrule._linalg.host import Sparse, working

_LARGEST = 5000  # unknowns, beyond which no tree is planned
_LONGEST = 2.6e6  # ns to factor the fronts, up to which a dozen solves gain more than SuperLU's factors do
_ACCURATE = 100  # rounding units of the terms of A x, up to which a residual is rounding
_ONE_THREAD = 31  # rows that LAPACK inverts without threads, which wait for each other where other programs run
_REFINED = 2  # corrections before SuperLU is asked


class Multifrontal(Sparse):
    """A x = b by SuperLU on the host; or, for many solves, by dense fronts without a call of it (`factor_for_many`).

    Each level of a tree of fronts is a batch of small matrices. A front is assembled from entries of the matrix and
    from what its children hand on; its pivots are inverted, with pivoting among themselves, and the Schur complement on
    its boundary is handed on. As no pivot comes from outside a front, every solution is judged by its residual, refined
    where that is more than rounding, and at last found by SuperLU. A program with fronts takes seconds longer to
    compile. Davis, *Direct Methods for Sparse Linear Systems* (2006), chapters 4 and 7.
    """

    @cached_property
    def tree(self) -> list[Fronts]:
        """The levels, the root first; none where SuperLU is faster, or the diagonal is no place to look for pivots."""
        if self._n > _LARGEST or np.count_nonzero(self._rows == self._cols) < self._n:
            return []
        found = Dissection(self._rows, self._cols, self._n)
        return found.fronts if found.ns <= _LONGEST else []

    def factor_for_many(self, values: Any) -> Any:
        """[nnz] -> (values, and for each level the blocks that solves multiply by)."""
        values = values.astype(working(values.dtype))
        return (values, *_factored(self.tree, values)) if self.tree else (values,)

    def solve(self, factors: Any, b: Any, transposed: bool) -> Any:
        """[r, n] -> [r, n]."""
        values, *blocks = factors
        if not blocks:
            return super().solve(factors, b, transposed)
        wide, tolerance = b.astype(values.dtype), _ACCURATE * float(jnp.finfo(values.dtype).eps)

        def refine(state: Any) -> Any:
            x, rest, step, _ = state
            x = x + _solved(self.tree, blocks, rest, transposed)
            rest = wide - self.product(values, x, transposed)
            terms = self.product(abs(values), abs(x), transposed) + abs(wide)
            return x, rest, step + 1, ~(abs(rest) <= tolerance * terms).all()

        start = jnp.zeros_like(wide), wide, 0, jnp.array(True)
        x, _, _, wrong = jax.lax.while_loop(lambda state: state[3] & (state[2] <= _REFINED), refine, start)

        def elsewhere(state: Any) -> Any:
            _, wrong = state  # read, or XLA would take the call out of the loop
            return super(Multifrontal, self).solve((values,), jnp.where(wrong, wide, 0), transposed), wrong & False

        # a loop of one step at most: under vmap, other than a condition, it is skipped where no member needs it
        return jax.lax.while_loop(lambda state: state[1], elsewhere, (x, wrong))[0].astype(b.dtype)


def _factored(tree: list[Fronts], values: Any) -> tuple[Any, ...]:
    """For each level [P; F₂₁ P] and P F₁₂ of its fronts F, with P = F₁₁⁻¹: [k, s + b, s] and [k, s, b].

    F = [[F₁₁, F₁₂], [F₂₁, F₂₂]], the pivots first; F₂₂ - F₂₁ P F₁₂ is handed on to the parent. Of F₂₂ there is
    only what the children have handed on.
    """
    entries, handed, found = jnp.append(values, jnp.ones(1, values.dtype)), jnp.zeros((0, 0, 0), values.dtype), []
    for level in reversed(tree):
        s = level.pivots.shape[1]
        own, boundary = (level.children[..., :s], level.children[..., s:])
        upper = _with_entries(_sum_of_children(handed, own, level.children), entries, *level.rows)
        lower = _with_entries(_sum_of_children(handed, boundary, own), entries, *level.columns)
        P = _inverse(upper[..., :s])
        left = jnp.concatenate([P, _product(lower, P)], axis=1)
        right = _product(left, upper[..., s:])
        handed = _sum_of_children(handed, boundary, boundary) - right[:, s:]
        found.append((left, right[:, :s]))
    return tuple(reversed(found))


def _sum_of_children(handed: Any, rows: np.ndarray, cols: np.ndarray) -> Any:
    """[a, k, p] and [a, k, q] places on the boundaries of children -> [k, p, q]."""
    wide, found = handed.shape[-1] + 1, jnp.zeros((rows.shape[1], rows.shape[2], cols.shape[2]), handed.dtype)
    for row, col in zip(rows, cols, strict=True):
        index = (row * wide)[:, :, None] + (col % wide)[:, None]  # too many to be written down
        found = found + _taken(_padded(handed, 2), index, 3)
    return found


def _with_entries(x: Any, entries: Any, which: np.ndarray, places: np.ndarray) -> Any:
    return x.reshape(-1).at[places].add(entries[which], unique_indices=True).reshape(x.shape)


def _inverse(A: Any) -> Any:
    """Of each matrix [k, s, s], by LU with partial pivoting, in halves where it is large; inf or nan where singular."""
    s = A.shape[-1]
    if s <= _ONE_THREAD:
        wide = jnp.concatenate([A, jnp.broadcast_to(jnp.eye(s, dtype=A.dtype), A.shape)], axis=-1)
        lu = jax.lax.linalg.lu(wide)[0]  # [A, 1] = P⁻¹ L [U, L⁻¹ P]: nobody has to know the permutation
        return jax.lax.linalg.triangular_solve(lu[..., :s], lu[..., s:], left_side=True, lower=False)
    h = s // 2
    first = _inverse(A[:, :h, :h])
    before, after = _product(A[:, h:, :h], first), _product(first, A[:, :h, h:])
    last = _inverse(A[:, h:, h:] - _product(before, A[:, :h, h:]))
    right, lower = -_product(after, last), -_product(last, before)
    return jnp.block([[first - _product(right, before), right], [lower, last]])


def _product(A: Any, B: Any) -> Any:
    return jnp.matmul(A, B, precision="highest")


def _solved(tree: list[Fronts], blocks: Any, b: Any, transposed: bool) -> Any:
    """A x = b for b [r, n]: up the tree by [P; F₂₁ P] of each front, and down by P F₁₂; for Aᵀ, by their transposes."""
    handed, kept, padded = jnp.zeros((len(b), 0, 0), b.dtype), list[Any](), _padded(b, 1)
    for level, (left, right) in zip(reversed(tree), reversed(blocks), strict=True):
        s = level.pivots.shape[1]
        given = jnp.pad(padded[:, level.pivots], [(0, 0), (0, 0), (0, level.boundary)])
        given = given + _taken(_padded(handed, 1), level.children, 2).sum(1)
        first, rest = given[..., :s], given[..., s:]
        if transposed:
            kept.append(first)
            handed = rest - _einsum("ksb,rks->rkb", right, first)
        else:
            done = _einsum("kfs,rks->rkf", left, first)
            kept.append(done[..., :s])
            handed = rest - done[..., s:]

    found, whole = [], None
    for level, (left, right) in zip(tree, blocks, strict=True):
        own = kept.pop()
        known = own[..., :0] if whole is None else _taken(_padded(whole, 1), level.parent, 2)
        if transposed:
            own = _einsum("kfs,rkf->rks", left, jnp.concatenate([own, -known], axis=-1))
        else:
            own = own - _einsum("ksb,rkb->rks", right, known)
        whole = jnp.concatenate([own, known], axis=-1)
        found.append(own.reshape(len(b), -1))
    places = np.argsort(np.concatenate([level.pivots.reshape(-1) for level in tree]), kind="stable")[: b.shape[1]]
    return jnp.concatenate(found, axis=1)[:, places]


def _padded(x: Any, axes: int) -> Any:
    """One more place of zeros at the end of the last axes."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - axes) + [(0, 1)] * axes)


def _taken(x: Any, index: Any, axes: int) -> Any:
    """x at places in its last axes, flattened."""
    return x.reshape(*x.shape[: x.ndim - axes], -1).at[..., index].get(mode="promise_in_bounds")


def _einsum(spec: str, *arrays: Any) -> Any:
    return jnp.einsum(spec, *arrays, precision="highest")
