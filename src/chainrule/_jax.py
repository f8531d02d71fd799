"""The only module that touches `jax.extend`: primitives, jaxprs and how one equation is run."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import jaxlib
import numpy as np
from jax import lax
from jax.experimental import sparse
from jax.extend.core import primitives

ClosedJaxpr = jex.ClosedJaxpr
Literal = jex.Literal
Primitive = Any
Equation = Any
Jaxpr = Any


# parameters that cannot change the mathematics
IGNORED_PARAMETERS = frozenset(
    {
        *("accuracy", "precision", "preferred_element_type", "weak_type", "unique_indices", "indices_are_sorted"),
        *("out_sharding", "sharding", "shardings", "context_mesh", "unconstrained_dims", "layout"),
        *("devices", "srcs", "copy_semantics"),
    }
)

HANDED_ON = ("optimization_barrier", "device_put")  # each operand is a result of its own, and no other's

_OTHER_NAMES = {"add_any": "add_jaxvals", "custom_linear_solve": "linear_solve"}


def primitive(name: str) -> Primitive | None:
    """Find the primitive object called `name`, or None where this JAX has none."""
    name = _OTHER_NAMES.get(name, name)
    return getattr(primitives, f"{name}_p", None) or getattr(lax, f"{name}_p", None) or _unlisted().get(name)


@functools.cache
def _unlisted() -> dict[str, Primitive]:
    """Primitives that no public module lists, taken from the jaxprs of functions that use them."""

    def uses(a: Any) -> Any:
        return jnp.stack([a, a]), jnp.unstack(a), jnp.tile(a, 2), jnp.copy(a), jnp.split(a, 2)

    used = [eqn.primitive for eqn in walk(jax.make_jaxpr(uses)(np.zeros(2, np.float32)).jaxpr)]
    sparse_ones = [p for name, p in vars(sparse).items() if name.endswith("_p")]
    return {p.name: p for p in (*used, *sparse_ones)}


def inner_jaxpr(eqn: Equation) -> tuple[Jaxpr, Sequence[Any]] | None:
    """Give the jaxpr and constants of a call that can be inlined (jit, remat, closed calls)."""
    if eqn.primitive not in _INLINED:
        return None
    inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
    return (inner.jaxpr, inner.consts) if isinstance(inner, jex.ClosedJaxpr) else (inner, ())


def custom_call(eqn: Equation) -> tuple[Jaxpr, Sequence[Any], bool] | None:
    """The jaxpr and constants of a function with a derivative rule of its own, and whether that rule is reverse."""
    if eqn.primitive.name not in ("custom_jvp_call", "custom_vjp_call"):
        return None
    inner = eqn.params["call_jaxpr"]
    reverse = eqn.primitive.name == "custom_vjp_call"
    return (inner.jaxpr, inner.consts, reverse) if isinstance(inner, jex.ClosedJaxpr) else (inner, (), reverse)


def written_at(eqn: Equation) -> tuple[str, int] | None:
    """The file and line of the user's code that wrote an equation; None within JAX's own compiled functions."""
    traceback = getattr(eqn.source_info, "traceback", None)
    for frame in traceback.frames if traceback is not None else ():
        if not frame.file_name.startswith(_OWN) and not frame.file_name.startswith("<"):
            return frame.file_name, frame.line_num
    return None


def defined_at(jaxpr: Jaxpr) -> str:
    """'name at file:line' of the function that a jaxpr was traced from; '' where JAX does not say."""
    return getattr(getattr(jaxpr, "debug_info", None), "func_src_info", None) or ""


def scan_counts(eqn: Equation) -> tuple[int, int]:
    """The numbers of constants and of carried values of a scan: what has no time axis of its own."""
    body = eqn.params["jaxpr"]
    sliced = sum(v.aval.ndim > b.ndim for v, b in zip(eqn.invars, body.in_avals, strict=True))
    stacked = sum(v.aval.ndim > b.ndim for v, b in zip(eqn.outvars, body.out_avals, strict=True))
    carry = len(eqn.outvars) - stacked
    return len(eqn.invars) - sliced - carry, carry


class Inner(NamedTuple):
    """A jaxpr within an equation: a branch, a called function, or the body of a loop.

    marked : which of its inputs depend on the marked operands. operands : the operand that each input is, or None where
    it changes from step to step.
    """

    jaxpr: Jaxpr
    consts: Sequence[Any]
    marked: list[bool]
    operands: Sequence[int | None]


def bodies(eqn: Equation, marked: Sequence[bool]) -> list[Inner]:
    """The jaxprs within an equation of which some operands are marked."""
    name, params = eqn.primitive.name, eqn.params
    if name == "scan":
        return [_of_loop(params["jaxpr"], 0, *scan_counts(eqn), marked)]
    if name == "while":
        return [
            _of_loop(params["body_jaxpr"], params["cond_nconsts"], params["body_nconsts"], len(eqn.outvars), marked)
        ]
    if name == "cond":
        return [Inner(b.jaxpr, b.consts, list(marked[1:]), range(1, len(marked))) for b in params["branches"]]
    inner = inner_jaxpr(eqn)
    return [Inner(*inner, list(marked), range(len(marked)))] if inner else []


def dependent(eqn: Equation, marked: Sequence[bool]) -> list[bool]:
    """Which results of an equation depend on the marked operands: loops and branches may hand on others beside them."""
    if eqn.primitive.name in HANDED_ON:
        return list(marked)
    found = bodies(eqn, marked)
    if not found:
        return [any(marked)] * len(eqn.outvars)
    outs = [any(own) for own in zip(*[_marks(b.jaxpr, b.marked) for b in found], strict=True)]
    if eqn.primitive.name not in ("scan", "while"):
        return outs
    a, b = scan_counts(eqn) if eqn.primitive.name == "scan" else (eqn.params["body_nconsts"], len(outs))
    return [*found[0].marked[a : a + b], *outs[b:]]  # it may take no step


def _of_loop(body: Any, skipped: int, constants: int, carried: int, marked: Sequence[bool]) -> Inner:
    """The body of a loop, with the marks that the carry has in the end."""
    marked, own = list(marked[skipped:]), slice(constants, constants + carried)
    while True:
        grown = [a or b for a, b in zip(marked[own], _marks(body.jaxpr, marked), strict=False)]
        if grown == marked[own]:
            same = range(skipped, skipped + constants)
            return Inner(body.jaxpr, body.consts, marked, [*same, *[None] * (len(marked) - constants)])
        marked[own] = grown


def _marks(jaxpr: Jaxpr, marked: Sequence[bool]) -> list[bool]:
    found = {v for v, own in zip(jaxpr.invars, marked, strict=True) if own}
    for eqn in jaxpr.eqns:
        operands = [not isinstance(v, jex.Literal) and v in found for v in eqn.invars]
        if any(operands):
            found.update(v for v, own in zip(eqn.outvars, dependent(eqn, operands), strict=True) if own)
    return [not isinstance(v, jex.Literal) and v in found for v in jaxpr.outvars]


def taken_branch(eqn: Equation, index: Any) -> Any:
    """The branch of a cond whose index is known while tracing, as a closed jaxpr; else None."""
    if eqn.primitive is not _COND or not isinstance(index, np.ndarray):
        return None
    branches = eqn.params["branches"]
    return branches[int(np.clip(int(index), 0, len(branches) - 1))]


def as_callable(jaxpr: Jaxpr, consts: Sequence[Any]) -> Callable[..., list[Any]]:
    """A jaxpr with its constants as a function of its inputs."""
    return jex.jaxpr_as_fun(jex.ClosedJaxpr(jaxpr, list(consts)))


def count_equations(jaxpr: Jaxpr) -> int:
    """The number of equations of a jaxpr, inner ones included."""
    return sum(1 for _ in walk(jaxpr))


def largest_value(jaxpr: Jaxpr) -> tuple[tuple[int, ...], int]:
    """The shape of the largest array that an equation of a jaxpr gives, and the bytes of an element."""
    arrays = [v.aval for eqn in walk(jaxpr) for v in eqn.outvars if isinstance(v.aval, jax.core.ShapedArray)]
    sizes = [(tuple(a.shape), getattr(a.dtype, "itemsize", 4)) for a in arrays]
    return max(sizes, key=lambda s: math.prod(s[0]) * s[1], default=((), 0))


def count_operations(jaxpr: Jaxpr) -> int:
    """Multiply-adds of a jaxpr, from shapes alone; a loop counts one pass."""
    return sum(operations_of(eqn) for eqn in walk(jaxpr))


def count_every_pass(jaxpr: Jaxpr) -> int:
    """Multiply-adds of a jaxpr as above, but all passes of a `scan` (of a `while`, which nobody knows, one)."""
    return sum(
        operations_of(eqn) + int(eqn.params.get("length", 1)) * sum(map(count_every_pass, _inner(eqn)))
        for eqn in jaxpr.eqns
    )


def operations_of(eqn: Equation) -> int:
    """Multiply-adds of one equation, without those of inner jaxprs; a contraction counts its summed axes."""
    size = sum(math.prod(v.aval.shape) for v in eqn.outvars if hasattr(v.aval, "shape"))
    if eqn.primitive is primitive("dot_general"):
        (summed, _), _ = eqn.params["dimension_numbers"]
        size *= math.prod(eqn.invars[0].aval.shape[k] for k in summed)
    return size


def run_equation(eqn: Equation, operands: Sequence[Any]) -> list[Any]:
    """Run one equation on concrete or traced operands."""
    return as_function(eqn)(*operands)


def _debug_info() -> Any:
    return jex.DebugInfo("equation", "chainrule", None, None) if hasattr(jex, "DebugInfo") else None


def as_function(eqn: Equation) -> Callable[..., list[Any]]:
    """Wrap one equation in a jaxpr of its own; takes every operand, literals included."""
    # each operand has a variable of its own, so that `mul a a` can be linear in one of them only
    invars: list[Any] = [v if isinstance(v, jex.Literal) else jex.Var(v.aval) for v in eqn.invars]
    outvars = [jex.Var(v.aval) for v in eqn.outvars]
    kept = [k for k, v in enumerate(invars) if not isinstance(v, jex.Literal)]
    alone = eqn.replace(invars=invars, outvars=outvars)
    jaxpr = jex.Jaxpr(
        constvars=(), invars=[invars[k] for k in kept], outvars=outvars, eqns=[alone], debug_info=_debug_info()
    )
    run = jex.jaxpr_as_fun(jex.ClosedJaxpr(jaxpr, ()))
    return lambda *operands: run(*[operands[k] for k in kept])


def needed(jaxpr: Jaxpr) -> list[Equation]:
    """The equations that an output depends on, and those with effects, in order."""
    return _needed(jaxpr.eqns, jaxpr.outvars, effects=True)


def _needed(eqns: Sequence[Equation], outvars: Sequence[Any], effects: bool, given: Sequence[Any] = ()) -> list[Any]:
    wanted = {v for v in outvars if not isinstance(v, jex.Literal)}
    kept = []
    for eqn in reversed(eqns):
        wanted.difference_update(given)
        if (effects and eqn.effects) or not wanted.isdisjoint(eqn.outvars):
            kept.append(eqn)
            wanted.update(v for v in eqn.invars if not isinstance(v, jex.Literal))
    return kept[::-1]


def live_sizes(jaxpr: Jaxpr) -> list[int]:
    """Before each equation that is needed: the elements of the arrays made of inputs that it or a later one takes."""
    eqns, made = needed(jaxpr), set(jaxpr.invars)
    for eqn in eqns:
        if any(not isinstance(v, jex.Literal) and v in made for v in eqn.invars):
            made.update(eqn.outvars)
    live, sizes = {v for v in jaxpr.outvars if not isinstance(v, jex.Literal)}, []
    for eqn in reversed(eqns):
        live.difference_update(eqn.outvars)
        live.update(v for v in eqn.invars if not isinstance(v, jex.Literal))
        sizes.append(sum(math.prod(v.aval.shape) for v in live & made))
    return sizes[::-1]


def part_of(jaxpr: Jaxpr, invars: Sequence[Any], outvars: Sequence[Any]) -> Jaxpr:
    """The equations of a jaxpr that lead from some of its variables to others, as a jaxpr with the same constants."""
    eqns = _needed(jaxpr.eqns, outvars, False, invars)
    return jex.Jaxpr(jaxpr.constvars, list(invars), list(outvars), eqns, debug_info=_debug_info())


def without_types(eqn: Equation, inner: Callable[[Jaxpr, Sequence[Any]], Any]) -> Equation:
    """The equation for the axes of the mesh that is in force, on values without explicit shardings.

    How it would split its result is left to the compiler. inner : does the same for a jaxpr and its constants.
    """

    def own(v: Any) -> Any:
        if isinstance(v, jex.Literal) or not isinstance(v.aval, jax.core.ShapedArray):
            return v
        return jex.Var(jax.core.ShapedArray(v.aval.shape, v.aval.dtype, weak_type=v.aval.weak_type))

    def bare(name: str, value: Any) -> Any:
        if isinstance(value, jex.ClosedJaxpr):
            return inner(value.jaxpr, value.consts)
        if isinstance(value, jex.Jaxpr):
            return inner(value, ()).jaxpr
        if isinstance(value, (tuple, list)) and any(isinstance(v, (jex.Jaxpr, jex.ClosedJaxpr)) for v in value):
            return type(value)(bare(name, v) for v in value)
        return None if name in ("out_sharding", "sharding") else value

    params = {name: bare(name, value) for name, value in eqn.params.items()}
    here = jax.make_jaxpr(lax.neg)(0.0).jaxpr.eqns[0].ctx
    return eqn.replace(invars=[*map(own, eqn.invars)], outvars=[*map(own, eqn.outvars)], params=params, ctx=here)


def variable(like: Any) -> Any:
    """A new variable for values like those of another one."""
    return jex.Var(like.aval)


def resized(like: Any, axis: int, size: int) -> Any:
    """A new variable for values like those of another one, with so many elements along an axis."""
    shape = (*like.aval.shape[:axis], size, *like.aval.shape[axis + 1 :])
    return jex.Var(jax.core.ShapedArray(shape, like.aval.dtype, weak_type=like.aval.weak_type))


def straight_line(
    constants: Sequence[Any], invars: Sequence[Any], outvars: Sequence[Any], eqns: Sequence[Any]
) -> Jaxpr:
    """A jaxpr of these equations."""
    return jex.Jaxpr(list(constants), list(invars), list(outvars), list(eqns), debug_info=_debug_info())


def walk(jaxpr: Jaxpr) -> Iterator[Equation]:
    """Go through every equation of a jaxpr, nested ones included."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in _inner(eqn):
            yield from walk(inner)


def _inner(eqn: Equation) -> Iterator[Jaxpr]:
    for value in eqn.params.values():
        for inner in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(inner, jex.ClosedJaxpr):
                yield inner.jaxpr
            elif isinstance(inner, jex.Jaxpr):
                yield inner


def transposable(eqn: Equation) -> bool:
    """Say whether JAX can take an equation from its outputs: a loop until a condition holds has no such direction."""
    if eqn.primitive.name == "while":
        return False
    # how a linear solve runs is no matter: it brings the solve of its transpose
    return eqn.primitive is _SOLVE or all(transposable(e) for inner in _inner(eqn) for e in inner.eqns)


def reversible(jaxpr: Jaxpr) -> bool:
    """Say whether JAX can take all of a function that depends on its inputs from the outputs."""
    found = set(jaxpr.invars)
    for eqn in jaxpr.eqns:
        operands = [not isinstance(v, jex.Literal) and v in found for v in eqn.invars]
        if any(operands):
            if not transposable(eqn):
                return False
            outs = zip(eqn.outvars, dependent(eqn, operands), strict=True)
            found.update(v for v, own in outs if own and jnp.issubdtype(v.aval.dtype, jnp.inexact))
    return True


def constants(closed: Any) -> Iterator[Any]:
    """Every value that stands in a jaxpr, those of nested ones included."""
    yield from closed.consts
    for eqn in closed.jaxpr.eqns:
        yield from (v.val for v in eqn.invars if isinstance(v, jex.Literal))
        for value in eqn.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                if isinstance(inner, jex.ClosedJaxpr):
                    yield from constants(inner)
                elif isinstance(inner, jex.Jaxpr):
                    yield from constants(jex.ClosedJaxpr(inner, ()))


def has_custom_vjp(jaxpr: Jaxpr) -> bool:
    """Say whether a function with a rule for the reverse direction only is called anywhere."""
    return any(eqn.primitive.name.startswith("custom_vjp") for eqn in walk(jaxpr))


def is_static(value: Any) -> bool:
    """Say whether a value is known while tracing."""
    return not isinstance(value, jax.core.Tracer)


def evaluate_now(function: Callable[..., Any], *operands: Any) -> Any:
    """Run a function on known values while an outer trace is under way."""
    with jax.ensure_compile_time_eval():
        return jax.tree.map(np.asarray, function(*operands))


# where code is not the user's: JAX, and this library
_OWN = tuple(str(Path(place).parent) + os.sep for place in (jax.__file__, jaxlib.__file__, __file__))

_COND, _SOLVE = primitive("cond"), primitive("custom_linear_solve")
_INLINED = {primitive(name) for name in ("jit", "pjit", "remat", "closed_call", "call")} - {None}
