"""From a function and its arguments to linear programs: flatten, linearize or transpose."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._errors import ChainruleError, InputTypeError, MissingRuleError, NotReversibleError, ShapeError
from chainrule._mesh import mesh_of
from chainrule._space import name_of


@dataclass(frozen=True)
class Problem:
    """A function of the differentiated leaves alone; `what` is said in errors: 'jacobian of f'."""

    function: Callable[..., Any]
    f: Any
    what: str
    leaves: tuple[Any, ...]
    tree: Any
    mesh: Any = None  # that arguments lie on, or that is in force


def pick(transform: str, f: Callable[..., Any], argnums: int | tuple[int, ...], args: Sequence[Any]) -> Problem:
    """Fix all arguments but those of `argnums`, and flatten these."""
    what = f"{transform} of {name_of(f)}"
    numbers = (argnums,) if not isinstance(argnums, tuple) else tuple(argnums)
    for k in numbers:
        if not -len(args) <= k < len(args):
            raise InputTypeError(f"{what}: argnums={argnums}, but only {len(args)} positional arguments were given")
    numbers = tuple(k % len(args) for k in numbers)
    if len(set(numbers)) != len(numbers):
        raise InputTypeError(f"{what}: argnums={argnums} names an argument twice")
    chosen = args[numbers[0]] if not isinstance(argnums, tuple) else tuple(args[k] for k in numbers)
    leaves, tree = jax.tree.flatten(chosen)

    def function(*flat: Any) -> Any:
        value = jax.tree.unflatten(tree, flat)
        full = list(args)
        for k, v in zip(numbers, (value,) if not isinstance(argnums, tuple) else value, strict=True):
            full[k] = v
        return f(*full)

    require_arrays(what, leaves)
    mesh = mesh_of(jax.tree.leaves(args))
    return Problem(function, f, what, tuple(jnp.asarray(x) for x in leaves), tree, mesh)


def require_arrays(what: str, leaves: Sequence[Any]) -> None:
    """Refuse inputs that are no arrays and no numbers."""
    for x in leaves:
        if not _is_array(x):
            raise InputTypeError(
                f"{what}: an input is a {_kind(x)}, not an array of numbers that JAX knows; "
                f"convert it with jnp.asarray{_or_others(what)}"
            )


def _kind(x: Any) -> str:
    """What stands in the place of an array."""
    return f"{type(x).__name__} of {x.dtype}" if hasattr(x, "dtype") else type(x).__name__


def _offers(what: str, option: str) -> bool:
    """Whether the public function that an error speaks of, as 'jacobian of f', takes an option."""
    public = getattr(sys.modules[__name__.partition(".")[0]], what.partition(" of ")[0], None)
    return callable(public) and option in inspect.signature(public).parameters


def _or_others(what: str) -> str:
    return ", or choose other arguments with argnums" if _offers(what, "argnums") else ""


def require_numbers(what: str, name: str, leaves: Sequence[Any]) -> None:
    """Refuse a right-hand side that is no numbers."""
    for x in leaves:
        if not _is_array(x):
            raise InputTypeError(f"{what}: {name} holds a {_kind(x)}, not an array of numbers that JAX knows")


def _is_array(x: Any) -> bool:
    if isinstance(x, (jax.core.Tracer, jax.Array)):
        return True
    if isinstance(x, (str, bytes)):
        return False
    try:
        return jnp.asarray(x).dtype.kind in "biufcV"
    except (TypeError, ValueError, OverflowError):
        return False


def _is_real_number(x: Any) -> bool:
    return _is_array(x) and np.shape(x) == () and jnp.issubdtype(jnp.result_type(x), jnp.floating)


def require_inputs(problem: Problem, holomorphic: bool, complex_too: bool = False) -> None:
    """Refuse inputs that have no derivative, or whose convention is not said."""
    for x in problem.leaves:
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            raise InputTypeError(
                f"{problem.what}: inputs must be floating point, got {x.dtype} of shape {x.shape}; "
                f"convert with x.astype(float){_or_others(problem.what)}"
            )
        is_complex = jnp.issubdtype(x.dtype, jnp.complexfloating)
        if holomorphic and not is_complex:
            raise InputTypeError(
                f"{problem.what}: holomorphic=True needs complex inputs, got {x.dtype} of shape {x.shape}; "
                "convert with x.astype(complex), or leave holomorphic out"
            )
        if is_complex and not (holomorphic or complex_too):
            parts = "real and imaginary parts as separate real inputs"
            promise = f"a complex-differentiable function needs holomorphic=True, any other one {parts}"
            way_out = promise if _offers(problem.what, "holomorphic") else f"give {parts}"
            raise InputTypeError(f"{problem.what}: the input of shape {x.shape} is {x.dtype}; {way_out}")


def real_problem(what: str, f: Any, x0: Any, name: str) -> Problem:
    """The problem of a function of unknowns that must be real; `name`: what they are called."""
    problem = pick(what, f, 0, (x0,))
    require_inputs(problem, False, complex_too=True)
    if any(jnp.iscomplexobj(x) for x in problem.leaves):
        raise InputTypeError(
            f"{problem.what}: {name} is complex; give real and imaginary parts as separate real leaves"
        )
    return problem


def flat_output(problem: Problem, has_aux: bool) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The function with a flat list of arrays for output; what else it returns is left in the dict."""
    found: dict[str, Any] = {}

    def function(*leaves: Any) -> tuple[list[Any], Any]:
        out, aux = split_aux(problem.function(*leaves), problem.what, has_aux)
        outs, found["tree"] = jax.tree.flatten(out)
        _require_outputs(problem, outs)
        return [jnp.asarray(o) for o in outs], aux

    return named_as(problem.f, function), found


def named_as(f: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function; where it cannot be traced, errors of JAX name f and its line."""
    function.__wrapped__ = f  # type: ignore[attr-defined]
    return function


def split_aux(out: Any, what: str, has_aux: bool) -> tuple[Any, Any]:
    """Take the pair (output, aux) apart."""
    if not has_aux:
        return out, None
    if not (isinstance(out, tuple) and len(out) == 2):
        raise InputTypeError(f"{what}: has_aux=True needs a pair (output, aux), got {type(out).__name__}")
    for x in jax.tree.leaves(out[1]):
        if not _is_array(x):
            raise InputTypeError(f"{what}: a leaf of aux is a {type(x).__name__}; aux is a pytree of arrays")
    return out


def _require_outputs(problem: Problem, outs: list[Any]) -> None:
    for o in outs:
        if not _is_array(o):
            raise InputTypeError(f"{problem.what}: an output is a {type(o).__name__}, not an array")
        dtype = jnp.asarray(o).dtype
        if not jnp.issubdtype(dtype, jnp.inexact):
            aside = "return what is not differentiated as aux with has_aux=True"
            way_out = aside if _offers(problem.what, "has_aux") else "return what is differentiated alone"
            raise InputTypeError(
                f"{problem.what}: outputs must be floating point, got {dtype} of shape {np.shape(o)}; {way_out}"
            )
        # where it is offered, it was asked for: require_inputs refuses complex inputs without it
        holomorphic = any(jnp.iscomplexobj(x) for x in problem.leaves) and _offers(problem.what, "holomorphic")
        if holomorphic and not jnp.issubdtype(dtype, jnp.complexfloating):
            raise InputTypeError(
                f"{problem.what}: holomorphic=True needs complex outputs, got {dtype} of shape {np.shape(o)}; a real "
                "function of complex numbers is not complex-differentiable: give real and imaginary parts as separate "
                "real inputs"
            )


def scalar_function(transform: str, f: Callable[..., Any], has_aux: bool) -> Callable[..., Any]:
    """The function, with a clear refusal where it does not give one real number."""
    what = f"{transform} of {name_of(f)}"
    if not callable(f):
        raise InputTypeError(f"{transform}: a function is needed that gives one number, got {type(f).__name__}: {f!r}")

    def scalar(*args: Any) -> Any:
        out = f(*args)
        value, _ = split_aux(out, what, has_aux)
        leaves = jax.tree.leaves(value)
        if len(leaves) != 1 or not _is_real_number(leaves[0]):
            got = [f"{jnp.result_type(x)} of shape {np.shape(x)}" if _is_array(x) else _kind(x) for x in leaves]
            raise ShapeError(f"{what}: the output must be one real number, got {got}; use chainrule.jacobian")
        return out

    scalar.__name__ = name_of(f)
    return named_as(f, scalar)


@contextlib.contextmanager
def no_forward_program(what: str, way_out: str) -> Iterator[None]:
    """Say in the user's terms that a custom_vjp can only be differentiated backwards."""
    try:
        yield
    except TypeError as error:
        if "custom_vjp" not in str(error):
            raise
        raise MissingRuleError(f"{what}: a custom_vjp in it has no forward program; use {way_out}") from error


@contextlib.contextmanager
def no_reverse_program(what: str) -> Iterator[None]:
    """Say in the user's terms that JAX has no derivative rule for a step, or cannot transpose it."""
    try:
        yield
    except ChainruleError:
        raise
    except (ValueError, NotImplementedError) as error:
        text = str(error).partition("\n")[0]
        if any(said in text for said in ("Reverse-mode", "ranspos", "Transpose", "VJP")):
            raise NotReversibleError(
                f"{what}: JAX cannot reverse a step of it ({text}); use order='forward', or chainrule.pushforward"
            ) from error
        if any(said in text for said in ("JVP", "ifferentiation rule", "gradients are only implemented")):
            raise MissingRuleError(
                f"{what}: JAX has no derivative of a step of it ({text}); give one with jax.custom_jvp"
            ) from error
        raise


def linear_jaxpr(what: str, function: Callable[..., Any], leaves: Sequence[Any], reverse: bool) -> tuple[Any, Any]:
    """One jaxpr (x, tangents) -> (y, aux, J tangents), or with cotangents and the transpose of J.

    The value, the coefficients and the linear steps stand side by side, so that constants fold and
    known zeros travel from the primal into the coefficients.
    """
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves]

    def both(x: Any, t: Any) -> Any:
        if reverse:
            y, pull, aux = jax.vjp(function, *x, has_aux=True)
            return y, aux, pull(list(t))
        try:
            y, push, aux = jax.linearize(function, *x, has_aux=True)
            return y, aux, push(*t)
        except ValueError as error:
            if "Linearization failed" not in str(error):
                raise
            y, dy, aux = jax.jvp(function, tuple(x), tuple(t), has_aux=True)  # what has no linear program has this one
            return y, aux, dy

    seeds = jax.eval_shape(lambda *x: function(*x)[0], *shapes) if reverse else shapes
    with no_reverse_program(what):
        return jax.make_jaxpr(named_as(function, both), return_shape=True)(list(shapes), list(seeds))
