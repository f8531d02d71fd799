"""A solve whose derivative is a solve: by the implicit function theorem, not through the elimination."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def implicit_solve(product: Callable[..., Any], solve: Callable[..., Any], b: Any, transposed: bool) -> Any:
    """A x = b, or Aᵀ x = b, for b [n, r]: differentiable in A and b, forwards and backwards, to every order.

    A dx = db - dA x. `product(x, transposed)` is A x and carries the derivative in A; `solve(b, transposed)` needs
    none.
    """
    return jax.lax.custom_linear_solve(
        lambda x: product(x, transposed),
        b,
        solve=lambda _, c: solve(c, transposed),
        transpose_solve=lambda _, c: solve(c, not transposed),
    )


def lost(x: Any, b: Any, magnitude: Callable[[Any], Any]) -> Any:
    """[r]: where rounding has taken the right-hand side of A x = b, so that A is singular to working precision.

    Row i of A x is a sum of terms of size (|A| |x|)_i, `magnitude(|x|)`, each with a rounding error; once these are
    as large as a hundredth of b, with the rows scaled by their sums, x has no digit to trust.
    """
    eps = jax.numpy.finfo(x.dtype).eps
    found = magnitude(jax.numpy.concatenate([abs(x), jax.numpy.ones_like(x[:, :1], dtype=abs(x).dtype)], axis=1))
    scale = jax.numpy.where(found[:, -1:] > 0, found[:, -1:], 1)
    terms, given = (found[:, :-1] / scale).max(0, initial=0), (abs(b) / scale).max(0, initial=0)
    return (eps * terms > _LOST * given) | ~jax.numpy.isfinite(terms)


_LOST = 0.01
