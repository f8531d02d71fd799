"""Newton's method for minima: by conjugate gradients on products with the Hessian, or by its structure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._api import hessian, linearize
from chainrule._compiled import Transform
from chainrule._errors import InputTypeError, MemoryLimitError
from chainrule._linalg.methods import is_sparse
from chainrule._optimize.descent import ARMIJO, moved, search, start
from chainrule._optimize.solution import Iteration, Report, Solution
from chainrule._space import flat, name_of, unit_of
from chainrule._trace import scalar_function

_METHODS = ("auto", "cg", "direct")


def newton_cg(
    f: Callable[..., Any],
    x0: Any,
    *args: Any,
    method: str = "auto",
    rtol: float | None = None,
    atol: float = 0.0,
    max_iterations: int = 200,
    report: bool = False,
) -> Solution:
    """Minimise f(x, *args), one real number, by Newton's method: H d = -∇f(x), and a backtracking line search.

    Parameters
    ----------
    f : callable
        A function as for `hessian`, of x and of `args`.
    x0 : pytree of arrays
        Where to start.
    *args
        Whatever else f takes. New values of these need no new compilation.
    method : {'auto', 'cg', 'direct'}
        How H d = -∇f is solved. 'cg': by conjugate gradients on Hessian-vector products, only as exactly as it pays,
        and no further than to a direction of negative curvature; nothing of the size of H is stored. 'direct': by the
        structure of H, as `Jacobian.solve`, unless a few steps of 'cg' meet negative curvature. 'auto': 'direct'
        where H is sparse.
    rtol : float, optional
        Converged where the Newton step d is at most `rtol` times the larger of ‖x‖ and ‖x0‖: the relative error of x;
        d is still taken then. The square root of the rounding unit unless given.
    atol : float
        Converged as well where ‖∇f(x)‖ is at most this.
    max_iterations : int
        Steps that are taken at most.
    report : bool
        Print a line for each iteration as it runs.

    Returns
    -------
    Solution
        With `x`, `value` (f(x)), `norm` (‖∇f(x)‖), `iterations`, `converged`, `message`, `history`; `print` it for a
        table. Where no part of a step lowers f, f is not finite, or the iterations are used up, `converged` is False,
        `message` says why, and x is the best point so far. Before a stationary point is called converged, H is
        probed from a random direction: where it has negative curvature there (a saddle, a maximum), the search goes on.

    Raises
    ------
    InputTypeError
        As `hessian`; or inside `jit`, `vmap` and `grad`: this is a loop of the host.
    ShapeError
        Where f gives anything but one real number.

    Notes
    -----
    Each iteration is one compiled program, compiled once. The probe is a Krylov method: it may miss a negative
    curvature that is very small, or that hardly any direction has a part in. See Nocedal and Wright, *Numerical
    Optimization* (2006), algorithm 7.1.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> s = cr.newton_cg(lambda x: (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2, jnp.array([-1.2, 1.0]))
    >>> s.converged, s.x.round(3).tolist()
    (True, [1.0, 1.0])
    """
    if method not in _METHODS:
        raise InputTypeError(f"newton_cg: method={method!r} is none of {', '.join(map(repr, _METHODS))}")
    x, dtype = start("newton_cg", f, x0, {"rtol": rtol, "atol": atol}, max_iterations)
    direct = method == "direct" or (method == "auto" and _has_sparse_hessian(f, x, args))
    relative = unit_of(x) ** 0.5 if rtol is None else rtol
    step = Transform("newton_cg", f, tuple(range(6)), _step(direct), ("newton_cg", direct), patterned=True)
    probe = Transform("newton_cg", f, (0,), _probe, ("newton_cg, probe",), patterned=True)
    log, first, largest, settled = Report(report, minimised=True), x, jnp.zeros((), dtype), jnp.array(False)
    for k in range(max_iterations + 1):
        following, found = step(x, first, largest, relative, atol, settled, *args)
        value, norm, d, t = (float(found[name]) for name in ("value", "norm", "step", "fraction"))
        row, settled = Iteration(value, norm, d, t, _words(found)), found["small"]
        stop, converged = _why_it_stops(found, value, norm), bool(found["stationary"])
        if converged:
            following, d, t, curved, lower = probe(x, *args)
            row = Iteration(value, norm, float(d), float(t), "negative curvature of a stationary point")
            if curved:
                converged = False
                stop = "" if lower else f"{stop}, but no minimum: H has negative curvature there"
        if not stop and k == max_iterations:
            stop = f"the {k} iterations that were allowed are used up, at ‖∇f(x)‖ = {norm:.3e}"
        log.add(Iteration(value, norm, np.nan, 0.0, "") if stop else row)
        if stop:
            break
        x, largest = following, jnp.maximum(largest, found["norm"])
    what = f"newton_cg of {name_of(f)}, by {'the structure of H' if direct else 'conjugate gradients'}"
    return Solution(what, x, value, norm, k, converged, stop, tuple(log.rows))


def _has_sparse_hessian(f: Any, x: Any, args: tuple[Any, ...]) -> bool:
    """From shapes alone: nothing is computed."""
    try:
        layout = hessian(f).trace(x, *args).out_info._layout
    except MemoryLimitError:  # dense, and large
        return False
    return is_sparse(layout.columns.size, sum(entry.places for entry in layout.entries))


def _why_it_stops(found: Any, value: float, norm: float) -> str:
    if not (np.isfinite(value) and np.isfinite(norm)):
        return f"f(x) = {value:.3e} or its gradient is not finite"
    if found["stationary"]:
        return f"‖∇f(x)‖ = {norm:.3e}"
    if not found["lower"] and not found["small"]:
        return f"no part of the step lowers f(x) = {value:.6e}, at ‖∇f(x)‖ = {norm:.3e}: a kink, or rounding"
    return ""


def _words(found: Any) -> str:
    products = int(found["products"])
    if not products:
        return "solve of H d = -∇f"
    return f"{'negative curvature' if found['curved'] else 'CG'}, {products} Hv"


class _Direction(NamedTuple):
    """d [n]; the products it took; whether it ends at negative curvature; whether H d = -g as well as asked for.

    `last`: the last conjugate direction p. `lowest`, `highest`: its curvature pᵀHp / pᵀp, the largest magnitude of all.
    """

    d: Any
    products: Any
    curved: Any
    solved: Any
    last: Any
    lowest: Any
    highest: Any


def _step(direct: bool) -> Callable[..., Any]:
    def body(function: Any, args: tuple[Any, ...]) -> Any:
        x, first, largest, rtol, atol, settled, *rest = args
        own = _of_x(function, rest)
        value, gradient = jax.value_and_grad(own)(x)
        g = flat(gradient)
        norm = jnp.linalg.norm(g)
        stationary = settled | (norm <= atol)

        def move(x: Any) -> Any:
            size = jnp.maximum(jnp.linalg.norm(flat(x)), jnp.linalg.norm(flat(first)))
            H = hessian(function)(x, *rest) if direct else linearize(jax.grad(own))(x)
            found = _direction(H, gradient, jnp.maximum(norm, largest), rtol * size, direct)
            d, slope, length = H._columns.unflatten(found.d), g @ found.d, jnp.linalg.norm(found.d)
            # close to a minimum no decrease can be seen: one to rounding is enough
            rounding = 4 / ARMIJO * float(jnp.finfo(value.dtype).eps) * abs(value)
            following, t, lower = _downhill(own, x, value, d, lambda t: t * slope + rounding)
            small = found.solved & (length <= rtol * size)
            return following, (length, t, lower, small, found.products, found.curved)

        def stay(x: Any) -> Any:
            nothing, no = jnp.zeros_like(norm), jnp.array(False)
            return x, (nothing, nothing, no, no, jnp.array(0), no)

        following, rest_of = jax.lax.cond(stationary | ~jnp.isfinite(norm), stay, move, x)
        names = ("step", "fraction", "lower", "small", "products", "curved")
        found = dict(zip(names, rest_of, strict=True))
        return following, {"value": value, "norm": norm, "stationary": stationary, **found}

    return body


def _of_x(function: Any, rest: Any) -> Callable[[Any], Any]:
    scalar = scalar_function("newton_cg", function, False)
    return lambda x: jnp.asarray(jax.tree.leaves(scalar(x, *rest))[0])


def _direction(H: Any, gradient: Any, largest: Any, small: Any, direct: bool) -> _Direction:
    """H d = -g: roughly, by conjugate gradients that stop at negative curvature; if they meet none, as well as it pays.

    By the structure of H that is always to the end. By products it is only where ‖d‖ is small: as it tells whether x
    is a minimum, it has to be small by itself, and not for want of steps.
    """
    g = flat(gradient)
    norm, most, eps = jnp.linalg.norm(g), 2 * len(g) + 20, float(jnp.finfo(g.dtype).eps)
    by_structure = direct and H.structural_rank == len(g)
    rough = 0.5 if by_structure else jnp.minimum(0.5, jnp.sqrt(norm / largest))
    found = _cg(H._apply, -g, rough * norm, most)

    def to_the_end() -> _Direction:
        if not by_structure:
            return _cg(H._apply, -g, eps**0.75 * norm, most)
        d = flat(H.solve(jax.tree.map(jnp.negative, gradient)))
        down = (d @ g < 0) & jnp.isfinite(d).all()  # not where H is singular, nor where it is indefinite after all
        solved = found._replace(d=d, products=jnp.zeros_like(found.products), solved=jnp.array(True))
        return jax.tree.map(lambda a, b: jnp.where(down, a, b), solved, found)

    pays = by_structure | (jnp.linalg.norm(found.d) <= small)
    return jax.lax.cond(pays & ~found.curved, to_the_end, lambda: found)


def _cg(product: Callable[[Any], Any], b: Any, tolerance: Any, most: int) -> _Direction:
    """H d = b until ‖H d - b‖ ≤ tolerance, or up to the first direction p in which H does not curve upwards.

    That one is followed as far as its curvature, taken as a positive one, would go: d stays a direction of descent.
    """
    eps = float(jnp.finfo(b.dtype).eps)

    def more(state: Any) -> Any:
        _, r, _, found = state
        return (jnp.linalg.norm(r) > tolerance) & (found.products < most) & ~found.curved

    def advance(state: Any) -> Any:
        rr, r, p, found = state
        Hp = product(p)
        curvature = (p @ Hp) / (p @ p)
        highest = jnp.maximum(found.highest, abs(curvature))
        curved = ~(curvature > eps * highest)
        along = jnp.where(abs(curvature) > eps * highest, rr / (p @ Hp), 1)
        d, new = found.d + abs(along) * p, r - along * Hp
        further = new @ new
        done = _Direction(d, found.products + 1, curved, jnp.linalg.norm(new) <= tolerance, p, curvature, highest)
        return further, new, new + further / rr * p, done

    zero, no = jnp.zeros((), b.dtype), jnp.array(False)
    first = _Direction(jnp.zeros_like(b), jnp.array(0), no, no, b, zero, zero)
    found = jax.lax.while_loop(more, advance, (b @ b, b, b, first))[3]
    return found._replace(solved=found.solved & ~found.curved)


def _downhill(own: Callable[[Any], Any], x: Any, value: Any, d: Any, promised: Callable[[Any], Any]) -> Any:
    """x + t d, t, and whether f is lower there, by a part of what is promised of t."""

    def accepted(t: Any, new: Any) -> Any:
        return new <= value + (ARMIJO * promised(t)).astype(value.dtype)

    t, lower = search(lambda t: own(moved(x, t, d)), accepted, value.dtype)
    t = jnp.where(lower, t, 0)
    return moved(x, t, d), t, lower


def _probe(function: Any, args: tuple[Any, ...]) -> Any:
    """Look for negative curvature at a stationary point: a lower point, ‖d‖, t, whether there is any, and it is lower.

    Conjugate gradients from a random b: as long as every curvature is positive, the residual keeps the part that b has
    in a direction of negative curvature, so they cannot converge without meeting one.
    """
    x, *rest = args
    own = _of_x(function, rest)
    value, gradient = jax.value_and_grad(own)(x)
    g, size = flat(gradient), jnp.linalg.norm(flat(x))
    n = len(g)
    b = jnp.asarray(np.random.default_rng(0).normal(size=n), g.dtype)
    tolerance = 1e-3 * jnp.linalg.norm(b) / max(n, 1) ** 0.5
    H = linearize(jax.grad(own))(x)
    found = _cg(H._apply, b, tolerance, min(2 * n + 20, 1000))
    curved = found.lowest < -(float(jnp.finfo(g.dtype).eps) ** 0.5) * found.highest
    length = jnp.where(size > 0, size, 1)
    d = found.last * jnp.where(g @ found.last > 0, -1, 1).astype(g.dtype) * (length / jnp.linalg.norm(found.last))
    promised = 0.5 * found.lowest * length**2
    following, t, lower = _downhill(own, x, value, H._columns.unflatten(d), lambda t: t**2 * promised)
    return following, length, t, curved, lower
