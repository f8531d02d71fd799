"""From a function and its arguments to linear programs: flatten, linearize or transpose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._errors import ChainruleError, InputTypeError
from chainrule._jacobian import Space


@dataclass(frozen=True)
class Problem:
    """A function of the differentiated leaves alone, and the spaces it maps between."""

    function: Callable[..., Any]
    name: str
    leaves: tuple[Any, ...]
    tree: Any


def name_of(f: Any) -> str:
    return getattr(f, "__name__", type(f).__name__)


def pick(f: Callable[..., Any], argnums: int | tuple[int, ...], args: Sequence[Any]) -> Problem:
    """Fix all arguments but those of `argnums`, and flatten these."""
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    for k in numbers:
        if not -len(args) <= k < len(args):
            raise InputTypeError(f"{name_of(f)}: argnums={argnums} but only {len(args)} positional arguments were given")
    numbers = tuple(k % len(args) for k in numbers)
    chosen = args[numbers[0]] if isinstance(argnums, int) else tuple(args[k] for k in numbers)
    leaves, tree = jax.tree.flatten(chosen)

    def function(*flat: Any) -> Any:
        value = jax.tree.unflatten(tree, flat)
        full = list(args)
        for k, v in zip(numbers, (value,) if isinstance(argnums, int) else value, strict=True):
            full[k] = v
        return f(*full)

    return Problem(function, name_of(f), tuple(jnp.asarray(x) for x in leaves), tree)


def require_inputs(problem: Problem, holomorphic: bool) -> None:
    """Refuse inputs that have no derivative, or whose convention is not said."""
    for x in problem.leaves:
        kind = np.dtype(x.dtype).kind if not jnp.issubdtype(x.dtype, jnp.floating) else "f"
        if holomorphic and not jnp.issubdtype(x.dtype, jnp.complexfloating):
            raise InputTypeError(f"jacobian of {problem.name}: holomorphic=True needs complex inputs, got {x.dtype}")
        if not holomorphic and kind == "c":
            raise InputTypeError(
                f"jacobian of {problem.name}: the input is {x.dtype}; a complex-differentiable function needs "
                "holomorphic=True, any other one real and imaginary parts as separate real inputs"
            )
        if kind not in "fc":
            raise InputTypeError(
                f"jacobian of {problem.name}: inputs must be floating point, got {x.dtype} of shape {x.shape}; "
                "convert with x.astype(float), or choose other arguments with argnums"
            )


def flat_output(problem: Problem, has_aux: bool) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The function with a flat list of arrays for output; what else it returns is left in the dict."""
    found: dict[str, Any] = {}

    def function(*leaves: Any) -> tuple[list[Any], Any]:
        out = problem.function(*leaves)
        aux = None
        if has_aux:
            if not (isinstance(out, tuple) and len(out) == 2):
                raise InputTypeError(f"jacobian of {problem.name}: has_aux=True needs a pair (output, aux)")
            out, aux = out
        outs, found["tree"] = jax.tree.flatten(out)
        _require_outputs(problem, outs)
        return [jnp.asarray(o) for o in outs], aux

    return function, found


def _require_outputs(problem: Problem, outs: list[Any]) -> None:
    for o in outs:
        try:
            dtype = jnp.result_type(o)
        except TypeError as error:
            raise InputTypeError(f"jacobian of {problem.name}: an output is a {type(o).__name__}, not an array") from error
        if not jnp.issubdtype(dtype, jnp.inexact):
            raise InputTypeError(
                f"jacobian of {problem.name}: outputs must be floating point, got {dtype}; "
                "return what is not differentiated as aux with has_aux=True"
            )


def linear_jaxpr(function: Callable[..., Any], leaves: Sequence[Any], reverse: bool) -> tuple[Any, Any]:
    """One jaxpr (x, tangents) -> (y, aux, J tangents), or with cotangents and the transpose of J.

    The value, the coefficients and the linear steps stand side by side, so that constants fold and
    known zeros travel from the primal into the coefficients.
    """

    def outputs(*x: Any) -> tuple[Any, Any]:
        return function(*x)

    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves]
    outs = jax.eval_shape(lambda *x: function(*x)[0], *shapes) if reverse else None

    def both(x: Any, t: Any) -> Any:
        if reverse:
            y, pull, aux = jax.vjp(outputs, *x, has_aux=True)
            return y, aux, pull(list(t))
        (y, push, aux) = jax.linearize(lambda *a: outputs(*a), *x, has_aux=True)
        return y, aux, push(*t)

    seeds = outs if reverse else shapes
    try:
        return jax.make_jaxpr(both, return_shape=True)(list(shapes), list(seeds))  # type: ignore[arg-type]
    except (ChainruleError, jax.errors.JAXTypeError):
        raise


def space_of(tree: Any, arrays: Sequence[Any], name: str) -> Space:
    return Space(tree, tuple(tuple(a.shape) for a in arrays), tuple(a.dtype for a in arrays), name)
