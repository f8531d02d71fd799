"""What J = A + U V does not see, and its shortest solution of least squares, without a matrix.

With A invertible, J z = 0 needs z = -A⁻¹ U V z: the kernel lies in the image of A⁻¹ U, of r dimensions. Take an
orthonormal basis N of it, and M of the kernel of Jᵀ in the same way. Then J + c M Nᵀ is invertible, and of b without
its part in M it gives a solution without a part in N, the shortest one: J⁺ = (J + c M Nᵀ)⁻¹ (I - M Mᵀ). See Ben-Israel
and Greville, *Generalized Inverses* (2003), chapter 2.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._jacobians.assembled import from_coo
from chainrule._linalg.differentiable import lost
from chainrule._linalg.host import working

_UNITS = 10  # rounding units, times √n


def rounding(n: int, dtype: Any) -> float:
    """What a sum of n terms may be wrong by, beside the sum of their sizes."""
    return float(min(_UNITS * np.sqrt(n), n) * jnp.finfo(dtype).eps)


class Kernel(NamedTuple):
    """Of J = A + U V: an orthonormal basis in the first columns, zeros in the others.

    basis : [n, r]. dimension : how many columns count. scale : how large J is beside it. alone : [n], where a row and
    a column of J vanish, which is not in the basis. sound : whether A without these is invertible.
    """

    basis: Any
    dimension: Any
    scale: Any
    alone: Any
    sound: Any


def kernel(J: Any) -> Kernel:
    """The kernel of J, to working precision, without derivatives."""
    J, alone = _without_lone_zeros(jax.lax.stop_gradient(J))
    A, dtype = J._A, working(J.dtype)
    W = A._by_factors(A._eliminated(), J._U.T.astype(dtype), False).T
    sound = jnp.isfinite(W).all()
    Z = jnp.linalg.qr(jnp.where(sound, W, 0))[0]
    _, sizes, turn = jnp.linalg.svd(J._products(Z.T, False).T, full_matrices=False)
    basis, sizes = Z @ turn[::-1].T, sizes[::-1]  # the least first
    scale = jnp.linalg.norm(J._magnitudes()._products(abs(basis).T, False), axis=1).max(initial=0)
    small = sizes <= rounding(len(basis), dtype) * scale
    return Kernel(jnp.where(small, basis, 0), small.sum(), scale, alone, sound)


def _without_lone_zeros(J: Any) -> tuple[Any, Any]:
    """J with a 1 on the diagonal wherever its row and its column vanish, as where a softmax underflows; and where."""
    n, alone = J.shape[0], jnp.zeros(J.shape[0], bool)
    rows, cols = J._A._positions()
    if len(rows) != n or not (rows == cols).all():
        return J, alone
    a = J._A.coo()[2]
    alone = (a == 0) & (J._U == 0).all(1) & (J._V == 0).all(0)
    A = from_coo(J._A._layout, np.arange(n), np.arange(n), jnp.where(alone, 1, a))
    return type(J)(A, J._U, J._V), alone


def shortest(J: Any, b: Any) -> tuple[Any, Any]:
    """[r, n] -> [r, n]: the shortest x of least squares, and whether it can be trusted.

    Differentiable in J and b, to every order, where the rank of J does not change: with M and N held, the solutions of
    (J + c M Nᵀ) Y = c M stay in the kernel of J as it moves.
    """
    right, left = kernel(J), kernel(J.T)
    own, alone = _without_lone_zeros(J)
    scale = jnp.where(right.scale > 0, right.scale, 1)
    U = jnp.concatenate([own._U.astype(scale.dtype), scale * left.basis], axis=1)
    V = jnp.concatenate([own._V.astype(scale.dtype), right.basis.T])
    K = type(J)(own._A, U, V)
    factors = K._eliminated()
    Y, X = (K._by_factors(factors, scale * N.basis.T, turned) for N, turned in ((left, False), (right, True)))
    given = _without(jnp.where(alone, 0, b.astype(scale.dtype)), X, left.dimension)
    x = _without(K._by_factors(factors, given, False), Y, right.dimension)
    sound = right.sound & left.sound & (right.dimension == left.dimension)
    near = ~lost(*jax.lax.stop_gradient((x, given)), jax.lax.stop_gradient(K)._magnitudes()._apply).any()
    return jnp.where(alone, 0, x).astype(b.dtype), sound & near


def _without(v: Any, basis: Any, dimension: Any) -> Any:
    """v less its part in the span of the first rows of `basis`, the others of which are zeros."""
    others = jnp.diag((jnp.arange(len(basis)) >= dimension).astype(basis.dtype))
    return v - jnp.linalg.solve(basis @ basis.T + others, basis @ v.T).T @ basis
