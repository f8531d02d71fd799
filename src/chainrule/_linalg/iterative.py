"""Krylov methods on products with a Jacobian, and preconditioners made of its entries."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._errors import InputTypeError, MissingRuleError
from chainrule._jacobians.structure import Places
from chainrule._linalg.differentiable import implicit_solve, spoiled
from chainrule._linalg.host import working
from chainrule._linalg.methods import choose
from chainrule._options import require_tolerance
from chainrule._space import unit_of

KRYLOV = ("cg", "gmres", "bicgstab")  # of `jax.scipy.sparse.linalg`
_ENTRIES = {  # the entries that a preconditioner is made of
    "diagonal": lambda rows, cols: rows == cols,
    "banded": lambda rows, cols: abs(rows - cols) <= 1,
    "triangular": lambda rows, cols: rows >= cols,
}


def require_method(what: str, method: Any) -> None:
    """Refuse what is no way to solve."""
    if method not in ("auto", "klu", *KRYLOV):
        raise InputTypeError(f"{what}: method={method!r} is none of 'auto', 'klu', {', '.join(map(repr, KRYLOV))}")


def require_options(what: str, method: str, krylov: bool, preconditioner: Any, tolerance: Any, max_steps: Any) -> None:
    """Refuse options that are none, or that belong to another method."""
    if not krylov and not (preconditioner is None and tolerance is None and max_steps is None):
        raise InputTypeError(
            f"{what}: method={method!r} is direct; preconditioner, tolerance and max_steps belong to the Krylov "
            f"methods {', '.join(map(repr, KRYLOV))}"
        )
    named = isinstance(preconditioner, str) and preconditioner in _ENTRIES
    if not (preconditioner is None or callable(preconditioner) or named):
        raise InputTypeError(
            f"{what}: preconditioner={preconditioner!r} is none of {', '.join(map(repr, _ENTRIES))}, and no function"
        )
    require_tolerance(what, "tolerance", tolerance)
    if not (max_steps is None or (isinstance(max_steps, (int, np.integer)) and max_steps > 0)):
        raise InputTypeError(f"{what}: max_steps={max_steps!r} is no number of steps")


def krylov(method: str, preconditioner: Any, tolerance: Any, max_steps: Any) -> Callable[[Any, Any], Any]:
    """(J, b [r, n]) -> x [r, n], nan where ‖J x - b‖ stays above ten times the tolerance.

    'auto' is BiCGStab, which takes the fewest products, and then GMRES from where that stops short. It is compiled,
    as outside of jit JAX's methods would move b to one device: once for the same options, unless these are a function,
    which may hold what changes, or a number that is traced.
    """
    steps = None if max_steps is None else int(max_steps)
    if callable(preconditioner) or isinstance(tolerance, jax.core.Tracer):
        return jax.jit(_iteration(method, preconditioner, tolerance, steps))
    return _compiled(method, preconditioner, None if tolerance is None else float(tolerance), steps)


@functools.lru_cache(maxsize=64)
def _compiled(*options: Any) -> Callable[[Any, Any], Any]:
    return jax.jit(_iteration(*options))


def _iteration(method: str, preconditioner: Any, tolerance: Any, max_steps: int | None) -> Callable[[Any, Any], Any]:
    from jax.scipy.sparse import linalg  # here: it takes a third as long to import as all of this package

    options = {} if max_steps is None else {"maxiter": max_steps}

    def run(J: Any, b: Any) -> Any:
        if not b.size:
            return b
        known_to = [b.dtype, J.dtype] if J._products_only else [b.dtype]  # products round as their program does
        relative = unit_of(known_to) ** 0.5 if tolerance is None else tolerance
        fixed = jax.lax.stop_gradient(J)
        M = _inverse_like(preconditioner, fixed)

        def product(x: Any, transposed: bool) -> Any:
            return J._products(x, transposed).astype(x.dtype)

        def solve(b: Any, transposed: bool) -> Any:
            def apply(v: Any) -> Any:
                return (fixed.T if transposed else fixed)._apply(v).astype(v.dtype)

            def one(b: Any) -> Any:
                own = None if M is None else functools.partial(M, transposed=transposed)
                size = jnp.linalg.norm(b)

                def by(name: str, x: Any) -> tuple[Any, Any]:
                    closest = relative / (1 + (name == "bicgstab"))
                    x, _ = getattr(linalg, name)(apply, b, x, tol=closest, M=own, **options)
                    return x, jnp.linalg.norm(apply(x) - b)

                start = jnp.zeros_like(b)
                x, left = _in_turn(by, start, size, relative * size) if method == "auto" else by(method, start)
                return spoiled(x, left > 10 * relative * size)

            try:
                return jax.vmap(one)(b)
            except MissingRuleError:
                if not transposed:
                    raise
                return jnp.full_like(b, jnp.nan)  # of a map that JAX cannot transpose, only for a gradient

        return implicit_solve(product, solve, b.astype(working(b.dtype)), False).astype(b.dtype)

    return run


def _in_turn(by: Callable[[str, Any], tuple[Any, Any]], start: Any, size: Any, goal: Any) -> tuple[Any, Any]:
    """x and ‖b - J x‖ by BiCGStab, and by GMRES from there where that stops short.

    A loop of one turn at most: unlike `cond` it is left out under vmap, too, where BiCGStab serves for the whole batch.
    """

    def more(state: Any) -> Any:
        _, left, last = state
        return ~last & ~(left <= goal)  # nan goes on

    def turn(state: Any) -> Any:
        x, left, last = state
        return *by("gmres", jnp.where(left <= size, x, 0)), jnp.ones_like(last)

    x, left = by("bicgstab", start)
    x, left, _ = jax.lax.while_loop(more, turn, (x, left, jnp.zeros_like(left, bool)))
    return x, left


def _inverse_like(preconditioner: Any, J: Any) -> Callable[..., Any] | None:
    named = isinstance(preconditioner, str)
    return _approximate_inverse(J, preconditioner) if named else _with_transpose(preconditioner)


def _with_transpose(M: Callable[[Any], Any] | None) -> Callable[..., Any] | None:
    """v -> M⁻¹ v as a function that knows the transpose too."""
    if M is None:
        return None
    return lambda v, transposed: jax.linear_transpose(M, v)(v)[0] if transposed else M(v)


def _approximate_inverse(J: Any, name: str) -> Callable[..., Any]:
    """M⁻¹ v, for M some entries of J; an entry of the diagonal that is absent or 0 counts as 1."""
    rows, cols, values = J.coo()
    n = J.shape[0]
    kept = np.flatnonzero(_ENTRIES[name](rows.astype(np.int64), cols.astype(np.int64)) & (rows != cols))
    diagonal = J.diagonal()
    diagonal = jnp.where(diagonal == 0, 1, diagonal)
    all_rows, all_cols = (np.concatenate([a[kept], np.arange(n)]) for a in (rows, cols))
    order = np.lexsort((all_cols, all_rows))
    method = choose(Places(all_rows[order], all_cols[order], J.shape))
    factors = method.factor(jax.lax.stop_gradient(jnp.concatenate([values[kept], diagonal])[order]))
    wide = working(J.dtype)
    return lambda v, transposed: method.solve(factors, v[None].astype(wide), transposed)[0].astype(v.dtype)
