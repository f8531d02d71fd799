"""What is compared: ours, by hand, and the other ways to get the same Jacobian, each compiled ahead of time."""

from __future__ import annotations

import contextlib
import importlib
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
import scipy.sparse
from jax.flatten_util import ravel_pytree
from problem import Problem

import chainrule as cr

RIVALS = ("jacfwd", "jacrev", "asdex", "sparsejac")


@dataclass(frozen=True)
class Candidate:
    """A compiled program, the argument that it is called with, and what it took to get there.

    trace_s : of the first trace, with everything that is found out during it.
    pattern_s : detection of the pattern and colouring, where they are not a part of the trace.
    """

    program: Any
    argument: Any
    trace_s: float
    compile_s: float
    pattern_s: float = 0.0

    def __call__(self) -> Any:
        return jax.block_until_ready(self.program(self.argument))

    @property
    def peak_bytes(self) -> int | None:
        """Temporary and output memory of the compiled program, where the device tells."""
        memory = self.program.memory_analysis()
        return memory.temp_size_in_bytes + memory.output_size_in_bytes if memory else None


@dataclass(frozen=True)
class Limits:
    """How far a run goes: what is too large or too slow for it is left out, and the report says so."""

    turns: int
    candidate_s: float  # a candidate takes no more turns once it has run for so long
    quick_s: float  # quick problems take turns for so long at least
    dense_bytes: int
    coloured_pairs: int  # largest conflict graph that sparsejac's colouring is given
    compiles: int  # compile times are medians of so many
    coo: bool  # whether the values of `.coo()` are timed too
    all_orders: bool = False  # whether the orders that were not chosen are timed too
    setup_s: float = 90.0  # a rival whose pattern is not found by then is left out


def timed(action: Callable[[], Any]) -> tuple[Any, float]:
    """The result of an action, and the seconds that it took."""
    start = time.perf_counter()
    result = action()
    return result, time.perf_counter() - start


def compiled(f: Any, x: Any) -> Candidate:
    """Trace and compile ahead of time, both timed."""
    traced, trace_s = timed(lambda: (f if hasattr(f, "trace") else jax.jit(f)).trace(x))
    program, compile_s = timed(lambda: traced.lower().compile())
    return Candidate(program, x, trace_s, compile_s)


def streamed(candidate: Candidate, moved: int) -> float:
    """Seconds of a call among several that are launched one after another without waiting: what the device takes."""
    count = max(1, min(20, 2**30 // max(moved, 1)))

    def launch() -> None:
        for _ in range(count):
            result = candidate.program(candidate.argument)
        jax.block_until_ready(result)

    return min(timed(launch)[1] for _ in range(5)) / count


def copy_bandwidth(numbers: int = 2**26) -> float:
    """Bytes each second that a copy of a large array reads and writes on the device; the best of some runs."""
    x = jax.block_until_ready(jax.numpy.zeros(numbers))
    copy = jax.jit(lambda x: x + 1).lower(x).compile()
    seconds = min(timed(lambda: jax.block_until_ready(copy(x)))[1] for _ in range(7))
    return 2 * x.nbytes / seconds


def ours(p: Problem) -> Callable[[], Any]:
    """Gives a fresh transform at each call: compiled programs belong to the function, so it must be a new one."""
    return lambda: (cr.hessian if p.hessian else cr.jacobian)(lambda x: p.f(x))


ORDERS = ("forward", "reverse", "mixed")


def plan_of(p: Problem) -> cr.Plan:
    """What each order of the product takes, by count."""
    return cr.plan(jax.grad(p.f) if p.hessian else p.f)(p.x)


def orders(p: Problem, x: Any, plan: cr.Plan, chosen: str) -> dict[str, Candidate]:
    """Our Jacobian in the orders that were not chosen, as far as they compile."""
    f = jax.grad(p.f) if p.hessian else p.f
    found = {}
    for name in (o.name for o in plan.orders if o.name != chosen):
        with contextlib.suppress(cr.ChainruleError):
            found[f"{name} order"] = compiled(cr.jacobian(f, order=replace(plan, chosen=name)), x)
    return found


def dense(p: Problem, name: str) -> Callable[[], Any]:
    """Gives JAX's own transform, `jacfwd` or `jacrev`, of the function on flat vectors."""
    f = _flat(p)[0]
    g = jax.grad(f) if p.hessian else f
    return lambda: {"jacfwd": jax.jacfwd, "jacrev": jax.jacrev}[name](lambda v: g(v))


def rivals(p: Problem, J: cr.Jacobian, limits: Limits) -> tuple[dict[str, Candidate], dict[str, str]]:
    """What else gives this Jacobian, and, for what does not run, the reason."""
    makers = {
        "jacfwd": lambda: _dense(p, "jacfwd", J, limits),
        "jacrev": lambda: _dense(p, "jacrev", J, limits),
        "asdex": lambda: _asdex(p),
        "sparsejac": lambda: _sparsejac(p, J, limits),
    }
    found: dict[str, Candidate] = {}
    left_out: dict[str, str] = {}
    for name, make in makers.items():
        try:
            with at_most(limits.setup_s):
                found[name] = make()
            found[name]()
        except Exception as error:  # whatever stops a rival, the others go on
            found.pop(name, None)
            left_out[name] = str(error) if isinstance(error, LeftOut) else f"{type(error).__name__}: {error}"
    return found, left_out


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Leave out what takes longer."""

    def stop(*_: Any) -> None:
        raise LeftOut(f"set-up beyond {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class LeftOut(Exception):
    """A rival that is not tried, and why."""


def _flat(p: Problem) -> tuple[Callable[[Any], Any], Any]:
    """f on flat vectors, as the sparse rivals want it, and the point."""
    flat, unflatten = ravel_pytree(p.x)
    if p.hessian:
        return p.f, flat
    return (lambda v: ravel_pytree(p.f(unflatten(v)))[0]), flat


def _dense(p: Problem, name: str, J: cr.Jacobian, limits: Limits) -> Candidate:
    size = 8 * J.shape[0] * J.shape[1]
    if size > limits.dense_bytes:
        raise LeftOut("impossible" if size > 2**30 else "skipped")
    return compiled(dense(p, name)(), _flat(p)[1])


def _asdex(p: Problem) -> Candidate:
    asdex = _imported("asdex")
    f, x = _flat(p)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", asdex.DenseColoringWarning)
        sparse, pattern_s = timed(lambda: (asdex.hessian if p.hessian else asdex.jacobian)(f, x))
    return replace(compiled(sparse, x), pattern_s=pattern_s)


def _sparsejac(p: Problem, J: cr.Jacobian, limits: Limits) -> Candidate:
    """The quicker of its two modes; it detects no pattern and is given ours."""
    sparsejac = _imported("sparsejac")
    f, x = _flat(p)
    g, pattern = (jax.grad(f) if p.hessian else f), J.bcoo()
    rows, cols, _ = J.coo()
    ones = scipy.sparse.csr_array((np.ones(J.nnz), (rows, cols)), shape=J.shape)
    found = []
    for transform, side in ((sparsejac.jacfwd, ones.T), (sparsejac.jacrev, ones)):
        if _pairs(side) <= limits.coloured_pairs:
            sparse, pattern_s = timed(lambda: transform(g, pattern))  # noqa: B023
            found.append(replace(compiled(sparse, x), pattern_s=pattern_s))
    if not found:
        raise LeftOut("skipped")
    return min(found, key=lambda c: min(timed(c)[1] for _ in range(3)))


def _pairs(side: scipy.sparse.sparray) -> int:
    """An upper bound of the edges of the conflict graph between the rows of a pattern."""
    return int((np.bincount(side.tocoo().coords[1]).astype(np.int64) ** 2).sum())


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise LeftOut("not installed") from None
