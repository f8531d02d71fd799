"""The transform `plan`: what each order costs, counted or measured."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax

from chainrule._api import Argnums, checked_argnums, jacobian, places
from chainrule._compiled import Known, Transform
from chainrule._errors import InputTypeError, MemoryLimitError, NotReversibleError
from chainrule._options import require_count
from chainrule._plan.plan import Plan, PlanCache, measured
from chainrule._space import name_of
from chainrule._trace import pick


class Planning:
    """`plan(f)`: call it with the arguments of `f`, or with `jax.ShapeDtypeStruct`s of their shapes."""

    def __init__(self, transform: Transform, timed: Callable[..., Plan] | None, cache: PlanCache | None):
        self._transform, self._timed, self._cache = transform, timed, cache

    def __call__(self, *args: Any, **keywords: Any) -> Plan:
        """The plan for arguments of these shapes; f is traced, and run only where orders are measured."""
        found: Plan = self._transform.trace(*args, **keywords).out_info.value
        if self._timed is None:
            return found
        known = self._cache.get(found.digest, _backend()) if self._cache is not None else None
        plan = known or self._timed(found, *args, **keywords)
        if self._cache is not None:
            self._cache.add(plan)
        return plan


def plan(
    f: Callable[..., Any],
    argnums: Argnums = 0,
    *,
    has_aux: bool = False,
    holomorphic: bool = False,
    effort: int = 0,
    measure: bool = False,
    cache: PlanCache | None = None,
) -> Planning:
    """Count what each order of the chain-rule product costs, without running `f`.

    Parameters
    ----------
    f, argnums, has_aux, holomorphic
        As for `jacobian`.
    effort : int
        Trials of simulated annealing that improve the order of elimination of wide links; none unless given.
    measure : bool
        Time the orders on the arguments, and choose the fastest, in place of the cheapest by count.
    cache : PlanCache, optional
        Where measured plans are looked up, and kept.

    Returns
    -------
    Planning
        A function of the arguments of `f` (arrays, or `jax.ShapeDtypeStruct`s where nothing is measured) that gives a
        `Plan`: printable; `jacobian(f, order=plan)` replays it.

    Raises
    ------
    InputTypeError
        As `jacobian`; or where `effort` is no count.

    Notes
    -----
    Costs are multiply-adds of products of Jacobians, from shapes and patterns; see Griewank and Walther, *Evaluating
    Derivatives* (2008), chapters 9 and 10. The mixed order brackets the chain that dominators of the program make by
    dynamic programming, after Naumann, and eliminates wide links array by array.

    Examples
    --------
    >>> import chainrule as cr, jax, jax.numpy as jnp
    >>> W, V = jnp.ones((4, 1000)), jnp.ones((1000, 4))
    >>> p = cr.plan(lambda x: V @ jnp.sin(W @ x))(jax.ShapeDtypeStruct((1000,), W.dtype))
    >>> p.shape, p.chosen, p["forward"].multiply_adds
    ((1000, 1000), 'forward', 4004000)
    """
    numbers = checked_argnums("plan", f, argnums)
    require_count(f"plan of {name_of(f)}", "effort", effort, 0)
    if cache is not None and not measure:
        raise InputTypeError(f"plan of {name_of(f)}: a cache keeps measured plans; give measure=True with it")

    def body(function: Any, args: tuple[Any, ...]) -> Any:
        from chainrule._accumulate.accumulate import plan_of

        return Known(plan_of(pick("plan", function, numbers, args), has_aux, holomorphic, effort))

    def timed(found: Plan, *args: Any, **keywords: Any) -> Plan:
        times = {}
        for order in found.orders:
            own = jacobian(
                f, argnums, has_aux=has_aux, holomorphic=holomorphic, order=replace(found, chosen=order.name)
            )
            with contextlib.suppress(MemoryLimitError, NotReversibleError):
                times[order.name] = _median_seconds(own, args, keywords)
        return measured(found, times, _backend())

    key = ("plan", numbers, has_aux, holomorphic, effort)
    transform = Transform("plan", f, places(numbers), body, key, patterned=True)
    return Planning(transform, timed if measure else None, cache)


def _backend() -> str:
    return f"{jax.default_backend()}, JAX {jax.__version__}"


def _median_seconds(function: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]) -> float:
    jax.block_until_ready(function(*args, **keywords))
    runs: list[float] = []
    while len(runs) < 5 or (sum(runs) < 0.2 and len(runs) < 50):
        start = time.perf_counter()
        jax.block_until_ready(function(*args, **keywords))
        runs.append(time.perf_counter() - start)
    return statistics.median(runs)
