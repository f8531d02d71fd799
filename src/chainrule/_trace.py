"""From a function and its arguments to linear programs: flatten, linearize or transpose."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._errors import InputTypeError, MissingRuleError, ShapeError
from chainrule._space import name_of


@dataclass(frozen=True)
class Problem:
    """A function of the differentiated leaves alone; `what` is said in errors: 'jacobian of f'."""

    function: Callable[..., Any]
    f: Any
    what: str
    leaves: tuple[Any, ...]
    tree: Any


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
    return Problem(function, f, what, tuple(jnp.asarray(x) for x in leaves), tree)


def require_arrays(what: str, leaves: Sequence[Any]) -> None:
    """Refuse inputs that are no arrays and no numbers."""
    for x in leaves:
        if not _is_array(x):
            raise InputTypeError(f"{what}: an input is a {type(x).__name__}, not an array; choose others with argnums")


def _is_array(x: Any) -> bool:
    return hasattr(x, "dtype") or isinstance(x, (bool, int, float, complex))


def require_inputs(problem: Problem, holomorphic: bool, complex_too: bool = False) -> None:
    """Refuse inputs that have no derivative, or whose convention is not said."""
    for x in problem.leaves:
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            raise InputTypeError(
                f"{problem.what}: inputs must be floating point, got {x.dtype} of shape {x.shape}; "
                "convert with x.astype(float), or choose other arguments with argnums"
            )
        is_complex = jnp.issubdtype(x.dtype, jnp.complexfloating)
        if holomorphic and not is_complex:
            raise InputTypeError(
                f"{problem.what}: holomorphic=True needs complex inputs, got {x.dtype} of shape {x.shape}; "
                "convert with x.astype(complex), or leave holomorphic out"
            )
        if is_complex and not (holomorphic or complex_too):
            raise InputTypeError(
                f"{problem.what}: the input of shape {x.shape} is {x.dtype}; a complex-differentiable function needs "
                "holomorphic=True, any other one real and imaginary parts as separate real inputs"
            )


def flat_output(problem: Problem, has_aux: bool) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The function with a flat list of arrays for output; what else it returns is left in the dict."""
    found: dict[str, Any] = {}

    def function(*leaves: Any) -> tuple[list[Any], Any]:
        out, aux = split_aux(problem.function(*leaves), problem.what, has_aux)
        outs, found["tree"] = jax.tree.flatten(out)
        _require_outputs(problem, outs)
        return [jnp.asarray(o) for o in outs], aux

    return function, found


def split_aux(out: Any, what: str, has_aux: bool) -> tuple[Any, Any]:
    """Take the pair (output, aux) apart."""
    if not has_aux:
        return out, None
    if not (isinstance(out, tuple) and len(out) == 2):
        raise InputTypeError(f"{what}: has_aux=True needs a pair (output, aux), got {type(out).__name__}")
    return out


def _require_outputs(problem: Problem, outs: list[Any]) -> None:
    for o in outs:
        if not _is_array(o):
            raise InputTypeError(f"{problem.what}: an output is a {type(o).__name__}, not an array")
        dtype = jnp.asarray(o).dtype
        if not jnp.issubdtype(dtype, jnp.inexact):
            raise InputTypeError(
                f"{problem.what}: outputs must be floating point, got {dtype} of shape {np.shape(o)}; "
                "return what is not differentiated as aux with has_aux=True"
            )


def scalar_function(transform: str, f: Callable[..., Any], has_aux: bool) -> Callable[..., Any]:
    """The function, with a clear refusal where it does not give one real number."""
    what = f"{transform} of {name_of(f)}"

    def scalar(*args: Any) -> Any:
        out = f(*args)
        value, _ = split_aux(out, what, has_aux)
        leaves = jax.tree.leaves(value)
        if (
            len(leaves) != 1
            or np.shape(leaves[0]) != ()
            or not jnp.issubdtype(jnp.result_type(leaves[0]), jnp.floating)
        ):
            got = [f"{jnp.result_type(x)} of shape {np.shape(x)}" for x in leaves]
            raise ShapeError(f"{what}: the output must be one real number, got {got}; use chainrule.jacobian")
        return out

    scalar.__name__ = name_of(f)
    return scalar


@contextlib.contextmanager
def no_forward_program(what: str, way_out: str) -> Iterator[None]:
    """Say in the user's terms that a custom_vjp can only be differentiated backwards."""
    try:
        yield
    except TypeError as error:
        if "custom_vjp" not in str(error):
            raise
        raise MissingRuleError(f"{what}: a custom_vjp in it has no forward program; use {way_out}") from error


def linear_jaxpr(function: Callable[..., Any], leaves: Sequence[Any], reverse: bool) -> tuple[Any, Any]:
    """One jaxpr (x, tangents) -> (y, aux, J tangents), or with cotangents and the transpose of J.

    The value, the coefficients and the linear steps stand side by side, so that constants fold and
    known zeros travel from the primal into the coefficients.
    """
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves]

    def both(x: Any, t: Any) -> Any:
        if reverse:
            y, pull, aux = jax.vjp(function, *x, has_aux=True)
            return y, aux, pull(list(t))
        y, push, aux = jax.linearize(function, *x, has_aux=True)
        return y, aux, push(*t)

    seeds = jax.eval_shape(lambda *x: function(*x)[0], *shapes) if reverse else shapes
    return jax.make_jaxpr(both, return_shape=True)(list(shapes), list(seeds))
