"""A solve whose derivative is a solve: by the implicit function theorem, not through the elimination."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def implicit_solve(
    product: Callable[..., Any],
    solve: Callable[..., Any],
    b: Any,
    transposed: bool,
    wrong: Callable[[Any, Any, bool], Any] | None = None,
) -> Any:
    """A x = b, or Aᵀ x = b, for b [r, n]: differentiable in A and b, forwards and backwards, to every order.

    A dx = db - dA x. `product(x, transposed)` is A x and carries the derivative in A; `solve(b, transposed)` needs
    none. Where `wrong(x, b, transposed)` [r, 1], x is nan: seen from outside the solve stays linear in b.
    """

    def judged(c: Any, transposed: bool) -> Any:
        x = solve(c, transposed)
        return x if wrong is None else spoiled(x, wrong(x, c, transposed))

    return jax.lax.custom_linear_solve(
        lambda x: product(x, transposed),
        b,
        solve=lambda _, c: judged(c, transposed),
        transpose_solve=lambda _, c: judged(c, not transposed),
    )


def each(run: Callable[..., Any], *rows: Any) -> Any:
    """[r, n] -> [r, m]: a function of vectors, on each row."""
    return run(*(x[0] for x in rows))[None] if len(rows[0]) == 1 else jax.vmap(run)(*rows)


def spoiled(x: Any, where: Any) -> Any:
    """x, or nan where that is so: by a product, so that its derivative is nan there too."""
    return x * jnp.where(where, jnp.nan, 1).astype(x.dtype)


def sign_and_log(pivots: Any, flips: Any = 1) -> tuple[Any, Any]:
    """Sign (of a complex number, the phase) and log |·| of the product of the pivots and of the signs `flips`."""
    size, signs = jnp.abs(pivots), jnp.sign(pivots)
    if jnp.iscomplexobj(pivots):  # JAX gives the sign of a complex number no derivative
        signs = pivots / jnp.where(size == 0, 1, size).astype(pivots.dtype)
    return jnp.prod(signs * flips), jnp.log(size).sum()


def exponential(sign: Any, log: Any) -> Any:
    """The number of which these are the sign and the logarithm; where it is 0, its derivative is nan."""
    return sign * jnp.exp(log).astype(sign.dtype)


def log_of_zero(given: Any) -> Any:
    """-inf; its derivatives in the arrays that are given are nan: a gradient of 0 would tell of a value that stays."""
    finite = [jnp.where(jnp.isfinite(v), v, 0).real for v in jax.tree.leaves(given)]
    return jnp.log(sum(((0 * v).sum() for v in finite), jnp.zeros((), jnp.result_type(*finite))))


def lost(x: Any, b: Any, magnitude: Callable[[Any], Any]) -> Any:
    """[r, 1]: where rounding has taken the right-hand side of A x = b, so that A is singular to working precision.

    Row i of A x is a sum of terms of size (|A| |x|)_i, `magnitude(|x|)` of a vector, each with a rounding error; once
    these are as large as a hundredth of b, with the rows scaled by their sums, x has no digit to trust.
    """
    sizes = magnitude(jnp.ones(x.shape[1], abs(x).dtype))
    scale = 1 / jnp.where(sizes > 0, sizes, 1)

    def one(x: Any, b: Any) -> Any:
        # side by side: XLA on the CPU takes long for a maximum of numbers that it makes in the same loop
        terms, given = jnp.stack([scale * magnitude(abs(x)), scale * abs(b)]).max(1, initial=0)
        return (jnp.finfo(x.dtype).eps * terms > _LOST * given) | ~jnp.isfinite(terms)

    return each(one, x, b)[:, None]


_LOST = 0.01
