"""Where primitives switch or are singular: the margin of each, a differentiable function of its operands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax


class Switch(NamedTuple):
    """What a primitive does where its margin vanishes; `margin` takes the operands to the distances, element-wise.

    An effect is 'kink' (the value goes on, its slope does not), 'jump', or 'singular' (a value or slope is infinite).
    """

    kind: str
    effect: str
    margin: Callable[..., Any]


def switch_of(eqn: Any) -> Switch | None:
    """The switch of an equation, or None for a primitive that is smooth wherever it is defined."""
    table = _OF_COMPLEX if jnp.issubdtype(eqn.invars[0].aval.dtype, jnp.complexfloating) else _TABLE
    make = table.get(eqn.primitive.name)
    return make(eqn) if make else None


def is_comparison(eqn: Any) -> bool:
    """Say whether the result is the outcome of a comparison, which something else turns into a switch."""
    return eqn.primitive.name in _COMPARISONS


def _always(kind: str, effect: str, margin: Callable[..., Any]) -> Callable[[Any], Switch]:
    return lambda eqn: Switch(kind, effect, margin)


def _difference(a: Any, b: Any) -> Any:
    return jnp.subtract(a, b)


def _first(a: Any, *_: Any) -> Any:
    return a


def _to_integer(a: Any, *_: Any) -> Any:
    return a - jnp.round(a)


def _to_half(a: Any, *_: Any) -> Any:
    return a - jnp.floor(a) - 0.5


def _to_truncation(a: Any, *_: Any) -> Any:
    """The distance to the next whole number but 0, at which truncation does not switch."""
    return jnp.where(jnp.abs(a) < 0.5, jnp.abs(a) - 1, a - jnp.round(a))


def _to_multiple(a: Any, b: Any) -> Any:
    return _to_truncation(a / b) * b


def _to_bounds(low: Any, a: Any, high: Any) -> Any:
    return jnp.where(jnp.abs(a - low) < jnp.abs(a - high), a - low, a - high)


def _to_cut(a: Any, b: Any) -> Any:
    """The distance to where arctan2 jumps by 2π, a = 0 > b, which ends at 0."""
    return jnp.where(b < 0, a, jnp.sqrt(jnp.where(b < 0, 1.0, a**2 + b**2)))


def _to_branch_cut(z: Any, *_: Any) -> Any:
    return _to_cut(z.imag, z.real)


def _to_one(a: Any, *_: Any) -> Any:
    return 1 - jnp.abs(a)


def _comparison(eqn: Any) -> Switch | None:
    a, b = eqn.invars
    return None if a is b else Switch("comparison", "jump", _difference)  # x != x asks for NaN


def _integer_conversion(eqn: Any) -> Switch | None:
    whole = jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.integer)
    return Switch("conversion to integers", "jump", _to_truncation) if whole else None


def _power(eqn: Any) -> Switch | None:
    if eqn.primitive.name == "integer_pow" and eqn.params["y"] >= 0:
        return None
    return Switch("power", "singular", _first)


def _top_two(a: Any, axes: Sequence[int], sign: int) -> Any:
    """The gap between the two largest (sign 1) or smallest entries along some axes."""
    moved = jnp.moveaxis(sign * a, axes, tuple(range(-len(axes), 0)))
    rows = moved.reshape((*moved.shape[: moved.ndim - len(axes)], -1))
    if rows.shape[-1] < 2:
        return jnp.full(rows.shape[:-1], jnp.inf, rows.dtype)
    two = lax.top_k(rows, 2)[0]
    return two[..., 0] - two[..., 1]


def _reduction(kind: str, effect: str, sign: int) -> Callable[[Any], Switch]:
    return lambda eqn: Switch(kind, effect, lambda a: _top_two(a, eqn.params["axes"], sign))


def _gaps(a: Any, axis: int) -> Any:
    return jnp.diff(jnp.sort(a, axis=axis), axis=axis)


def _sort(eqn: Any) -> Switch:
    """What is sorted along with the keys (as positions are by argsort) jumps where two of them are equal."""
    effect = "kink" if len(eqn.invars) == 1 else "jump"
    return Switch("sort", effect, lambda a, *_: _gaps(a, eqn.params["dimension"]))


def _top_k(eqn: Any) -> Switch:
    axis = eqn.params.get("axis", eqn.invars[0].aval.ndim - 1)

    def margin(a: Any, *_: Any) -> Any:
        """Gaps among the k largest and to the next one."""
        gaps = jnp.flip(_gaps(a, axis), axis)
        return lax.slice_in_dim(gaps, 0, min(eqn.params["k"], gaps.shape[axis]), axis=axis)

    return Switch("top_k", "kink", margin)


def _running(kind: str) -> Callable[[Any], Switch]:
    def make(eqn: Any) -> Switch:
        axis, reverse = eqn.params["axis"], eqn.params["reverse"]
        run = lax.cummax if kind == "cummax" else lax.cummin

        def margin(a: Any) -> Any:
            a = jnp.flip(a, axis) if reverse else a
            length = a.shape[axis]
            later, before = lax.slice_in_dim(a, 1, length, axis=axis), lax.slice_in_dim(a, 0, length - 1, axis=axis)
            return later - run(before, axis=axis)

        return Switch(kind, "kink", margin)

    return make


def _pooled(eqn: Any) -> Switch:
    """The gap between the two largest entries of each window; its gradient is that of the largest entry."""
    names = ("window_dimensions", "window_strides", "padding", "base_dilation", "window_dilation")
    window = [eqn.params[name] for name in names]

    def margin(a: Any) -> Any:
        low = jnp.asarray(-jnp.inf, a.dtype)

        def two(x: Any, y: Any) -> Any:
            return jnp.maximum(x[0], y[0]), jnp.maximum(jnp.minimum(x[0], y[0]), jnp.maximum(x[1], y[1]))

        fixed = lax.stop_gradient(a)
        largest, second = lax.reduce_window((fixed, jnp.full_like(fixed, low)), (low, low), two, *window)
        return lax.reduce_window(a, low, lax.max, *window) - largest + (largest - second)

    return Switch("max-pooling", "kink", margin)


def _eigenvalue_gaps(a: Any) -> Any:
    return jnp.diff(jnp.linalg.eigvalsh(a), axis=-1)


def _singular_value_gaps(a: Any) -> Any:
    """Between neighbours, and of the smallest to 0."""
    values = jnp.linalg.svd(a, compute_uv=False)
    return values - jnp.concatenate([values[..., 1:], jnp.zeros_like(values[..., :1])], axis=-1)


_COMPARISONS = {"gt", "lt", "ge", "le", "eq", "ne", "eq_to", "le_to", "lt_to"}

_OF_COMPLEX: dict[str, Callable[[Any], Switch | None]] = {
    "abs": _always("abs", "kink", jnp.abs),
    **{name: _always(f"branch cut of {name}", "jump", _to_branch_cut) for name in ("log", "pow", "sqrt")},
}

_TABLE: dict[str, Callable[[Any], Switch | None]] = {
    **dict.fromkeys(_COMPARISONS, _comparison),
    "max": _always("max", "kink", _difference),
    "min": _always("min", "kink", _difference),
    "abs": _always("abs", "kink", _first),
    "sign": _always("sign", "jump", _first),
    "clamp": _always("clip", "kink", _to_bounds),
    "floor": _always("floor", "jump", _to_integer),
    "ceil": _always("ceil", "jump", _to_integer),
    "round": _always("round", "jump", _to_half),
    "rem": _always("remainder", "jump", _to_multiple),
    "convert_element_type": _integer_conversion,
    "reduce_max": _reduction("max", "kink", 1),
    "reduce_min": _reduction("min", "kink", -1),
    "argmax": _reduction("argmax", "jump", 1),
    "argmin": _reduction("argmin", "jump", -1),
    "sort": _sort,
    "top_k": _top_k,
    "cummax": _running("cummax"),
    "cummin": _running("cummin"),
    "reduce_window_max": _pooled,
    "eigh": _always("equal eigenvalues", "singular", _eigenvalue_gaps),
    "svd": _always("equal singular values", "singular", _singular_value_gaps),
    "sqrt": _always("sqrt", "singular", _first),
    "rsqrt": _always("1/sqrt", "singular", _first),
    "cbrt": _always("cbrt", "singular", _first),
    "log": _always("log", "singular", _first),
    "log1p": _always("log1p", "singular", lambda a: 1 + a),
    "pow": _power,
    "integer_pow": _power,
    "div": _always("division", "singular", lambda a, b: b),
    "atan2": _always("arctan2", "jump", _to_cut),
    **{name: _always(name, "singular", _to_one) for name in ("asin", "acos", "atanh", "erf_inv")},
    "acosh": _always("acosh", "singular", lambda a: a - 1),
}
