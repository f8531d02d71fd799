"""What is known of a coefficient while tracing: its value, or where it vanishes whatever the inputs are."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._blocks.block import once
from chainrule._jax import as_function, evaluate_now, is_static, run_equation
from chainrule._program import Coefficient, Value, as_jax, zero_coefficient
from chainrule._substitution import with_substitution

_FOLD_LIMIT = 2**24  # elements; a larger known value is left to the compiled program
_DRAW_LIMIT = 2**18  # random numbers of a known key: they rarely shape a pattern
# they move or add elements: a result is nonzero only where one of the elements that it is made of is
_MOVES = {"broadcast_in_dim", "reshape", "transpose", "squeeze", "slice", "rev", "concatenate", "stack", "tile"}
# linear in these operands together, or in all: of zeros they make zeros
_LINEAR_IN = {
    "dynamic_slice": (0,),
    "gather": (0,),
    "triangular_solve": (1,),
    "select_and_scatter_add": (0,),
    "select_and_gather_add": (0,),
    "dynamic_update_slice": (0, 1),
    "pad": (0, 1),
    **{f"scatter{kind}": (0, 2) for kind in ("", "-add", "-sub")},
}
_INDEXED = {"gather", "scatter", "scatter-add", "scatter-mul", "dynamic_slice", "dynamic_update_slice", "pad"}
_PARTED = {"split", "unstack"}  # the same with several results
_LINEAR = {"fft", "real", "imag", "complex", "conj"}
_SUMS = {"reduce_sum", "reduce_window_sum", "cumsum", "dot_general"}
_KEEP_ZEROS = (
    _MOVES | _PARTED | _LINEAR | _SUMS | {"add", "add_any", "sub", "mul", "neg", "convert_element_type", "copy"}
)
_COMPARES = {"lt", "ge", "gt", "le", "max", "min", "clamp"}
# element by element
_OF_EACH = {"add", "sub", "mul", "select_n", "convert_element_type", "copy", "and", "or", "not", *_COMPARES}
# element by element, too: of zeros of either sign, and of what is known beside them, they may make zeros
_ODD = {"neg", "sin", "tan", "asin", "atan", "sinh", "asinh", "tanh", "atanh", "expm1", "log1p", "erf", "erf_inv"}
_ROUNDED = {"sign", "floor", "ceil", "round", "reduce_precision", "convert_element_type", "copy"}
_POWERS = {"abs", "sqrt", "cbrt", "square", "integer_pow", "pow", "rem"}
_OF_NUMBERS = {*_ODD, *_ROUNDED, *_POWERS, *_COMPARES, "eq", "ne", "or", "not", "xor"}


def known(value: Any) -> Coefficient:
    """A coefficient: in NumPy where it is known while tracing."""
    if not is_static(value) or _is_key(value):
        return Coefficient(value)
    array = np.asarray(value)
    if isinstance(value, jax.Array) and array.dtype.kind in "fcV" and not value.is_fully_replicated:
        # numbers that are split over devices stay so; what shapes a pattern is where they vanish
        support = array != 0
        return Coefficient(jax.lax.with_sharding_constraint(array, value.sharding), None if support.all() else support)
    return Coefficient(array)


def evaluate(eqn: Any, values: list[Any]) -> list[Value]:
    """One equation on coefficients: folded where all are known, else with what is known of its zeros."""
    if eqn.primitive.name.startswith("empty"):  # it may hold anything, so also zeros: nobody reads it
        return [zero_coefficient(v.aval) for v in eqn.outvars]
    sizes = [int(np.prod(v.aval.shape)) for v in eqn.outvars if hasattr(v.aval, "shape")]
    plain = not any(_is_key(v.aval) for v in (*eqn.invars, *eqn.outvars))
    foldable = not eqn.effects and sum(sizes) <= (_FOLD_LIMIT if plain else _DRAW_LIMIT)
    foldable = foldable and not any(map(_too_large, values))
    if foldable and all(is_static(v.value) for v in values):
        return [known(o) for o in _fold(eqn, [v.value for v in values])]
    if eqn.primitive.name in _KEEP_ZEROS and all(v.zero for v in values):
        return [zero_coefficient(v.aval) for v in eqn.outvars]
    operands, small = [as_jax(v.value) for v in values], with_substitution(eqn)
    within = all(v.static or math.prod(v.shape) <= _FOLD_LIMIT for v in values)  # of what is larger nothing is known
    if plain and foldable and within and len(eqn.outvars) == 1:
        support, drowned, places = _support(eqn, values), _drowned(eqn, values), _places_known(eqn, values)
        aval = eqn.outvars[0].aval
        if support is not None and not support.any():
            return [zero_coefficient(aval)]
        support = None if support is None or support.all() else support
        product = _sparse_product(eqn, values)
        if product is not None:
            return [Coefficient(product, support)]
        return [Coefficient(run_equation(small, operands)[0], support, drowned, places)]
    outs = [Coefficient(o) for o in run_equation(small, operands)]
    if foldable and eqn.primitive.name in _PARTED and values[0].nonzero is not None:
        found = evaluate_now(as_function(eqn), _places(values[0]))
        return [
            Coefficient(o.value, n != 0) if n.any() else zero_coefficient(o) for o, n in zip(outs, found, strict=True)
        ]
    if foldable and eqn.primitive.name == "sort":
        return _sorted_by_known(eqn, values, outs)
    return [*outs]


def _too_large(v: Coefficient) -> bool:
    """Whether a value is known that would only be written out by what is made of it."""
    return v.static and v.value.size > _FOLD_LIMIT and once(v.value).size < v.value.size


_SPARSE, _LARGE = 16, 2**14  # a matrix of so many elements is sparse where no row has more than a part in 16 of them


def _sparse_product(eqn: Any, values: list[Coefficient]) -> Any:
    """A matrix with few known nonzeros times a vector or a matrix, by these alone; else None."""
    if eqn.primitive.name != "dot_general" or any(v.value.dtype.kind != "f" for v in values):
        return None
    (summed, (batch, _)), shapes = eqn.params["dimension_numbers"], [v.shape for v in values]
    if batch or [len(k) for k in summed] != [1, 1] or max(map(len, shapes)) > 2:
        return None
    for k, (matrix, other) in enumerate((values, values[::-1])):
        if len(matrix.shape) != 2 or matrix.nonzero is None or math.prod(matrix.shape) < _LARGE:
            continue
        turned = summed[k][0] == 0
        lines = matrix.nonzero.T if turned else matrix.nonzero
        width = int(lines.sum(axis=1).max())
        if width * _SPARSE > lines.shape[1]:
            continue
        at = np.argsort(~lines, axis=1, kind="stable")[:, :width]
        row = np.arange(len(at))[:, None]
        factor = as_jax(matrix.value)[(at, row) if turned else (row, at)]
        factor = jnp.where(np.take_along_axis(lines, at, 1), factor, jnp.zeros((), factor.dtype))
        right = jnp.moveaxis(as_jax(other.value), summed[1 - k][0], 0)[at]  # [rows, width, ...]
        out = jnp.einsum("fw,fw...->f...", factor, right)
        return (out if k == 0 or out.ndim == 1 else out.T).astype(eqn.outvars[0].aval.dtype)
    return None


def _sorted_by_known(eqn: Any, values: list[Coefficient], outs: list[Coefficient]) -> list[Value]:
    """What is carried along by known keys is known where it was."""
    keys = values[: eqn.params["num_keys"]]
    if not eqn.params["is_stable"] or not all(v.static for v in keys):
        return [*outs]
    found = _fold(eqn, [v.value if v.static else np.zeros(v.shape, v.dtype) for v in values])
    return [known(o) if v.static else out for v, o, out in zip(values, found, outs, strict=True)]


def _is_key(aval: Any) -> bool:
    return jax.dtypes.issubdtype(getattr(aval, "dtype", None), jax.dtypes.extended)


def _fold(eqn: Any, operands: list[Any]) -> list[np.ndarray]:
    if eqn.primitive.name == "broadcast_in_dim" and len(operands) == 1 and isinstance(operands[0], np.ndarray):
        shape, where = eqn.params["shape"], eqn.params["broadcast_dimensions"]
        sizes = [1] * len(shape)
        for k, axis in enumerate(where):
            sizes[axis] = operands[0].shape[k]
        return [np.broadcast_to(operands[0].reshape(sizes), shape)]
    with jax.ensure_compile_time_eval():
        return run_equation(eqn, operands)


def _support(eqn: Any, values: list[Coefficient]) -> np.ndarray | None:
    """False where the result is known to vanish (W * mask, where(mask, W, 0), tril(W), exp(−∞))."""
    name, nonzero = eqn.primitive.name, [v.nonzero for v in values]
    shape = tuple(eqn.outvars[0].aval.shape)
    if name in ("exp", "exp2", "logistic") and values[0].minus_infinity is not None:
        return ~values[0].minus_infinity
    if all(n is None for n in nonzero):
        return None
    linear = _linear_operands(name, eqn, values)
    if linear and all(v.zero for v in linear):
        return np.zeros(shape, bool)
    if name == "conv_general_dilated":
        return np.zeros(shape, bool) if any(v.zero for v in values) else None
    if name in ("mul", "and"):
        return np.logical_and.reduce([np.broadcast_to(n, shape) for n in nonzero if n is not None])
    if name == "div":
        return nonzero[0] if nonzero[0] is None or nonzero[0].shape == shape else None
    if name in _OF_NUMBERS:
        return _of_numbers(eqn, values, shape)
    if name == "select_n":
        return _chosen(values[0], [np.ones(shape, bool) if n is None else n for n in nonzero[1:]], np.logical_or)
    if name in ("add", "add_any", "sub"):
        return np.logical_or.reduce(np.broadcast_arrays(*[_places(v).astype(bool) for v in values]))
    return _moved(name, eqn, values)


def _linear_operands(name: str, eqn: Any, values: list[Coefficient]) -> list[Coefficient]:
    """The operands that an equation is linear in, all together."""
    if name == "custom_linear_solve":  # the right-hand sides come after the constants of the matrix
        return values[sum(eqn.params["const_lengths"]) :]
    if name == "gather" and eqn.params["fill_value"] not in (None, 0):  # not what is out of range
        return []
    return [values[k] for k in _LINEAR_IN.get(name, ())]


def _of_numbers(eqn: Any, values: list[Coefficient], shape: tuple[int, ...]) -> np.ndarray | None:
    """False where a function of each element vanishes: of the zeros that are known, and of known numbers."""
    if len(values) == 1:  # one number tells of all: what is unknown is a number like others
        zero = evaluate_now(as_function(eqn), np.zeros((), values[0].dtype))[0] == 0
        return np.broadcast_to(_places(values[0]).astype(bool) | ~np.asarray(zero), shape)
    if any(v.nonzero is None and not v.static for v in values):
        return None
    unknown = [np.zeros(v.shape, bool) if v.static else _places(v).astype(bool) for v in values]
    out = evaluate_now(as_function(eqn), *[v.value if v.static else np.zeros(v.shape, v.dtype) for v in values])[0]
    return np.logical_or.reduce(np.broadcast_arrays(np.asarray(out) != 0, *unknown))


def _moved(name: str, eqn: Any, values: list[Coefficient]) -> np.ndarray | None:
    if name in _INDEXED and all(v.static or v.value.dtype.kind == "f" for v in values):
        numbers = [_places(v) if v.value.dtype.kind == "f" else v.value for v in values]
        return np.asarray(evaluate_now(as_function(eqn), *numbers)[0]) != 0
    if name not in _MOVES | _SUMS or not all(v.value.dtype.kind in "fc" for v in values):
        return None
    out = evaluate_now(as_function(eqn), *[_places(v) for v in values])
    return np.asarray(out[0]) != 0


def _places(v: Coefficient) -> np.ndarray:
    """1 where the value may differ from zero."""
    return np.ones(v.shape, v.dtype) if v.nonzero is None else np.broadcast_to(v.nonzero, v.shape).astype(v.dtype)


def _drowned(eqn: Any, values: list[Coefficient]) -> np.ndarray | None:
    """True where the result is known to be −∞: a masked score, whatever finite number is added to it."""
    name, low = eqn.primitive.name, [v.minus_infinity for v in values]
    shape = tuple(eqn.outvars[0].aval.shape)
    if all(n is None for n in low):
        return None
    full = [np.zeros(v.shape, bool) if n is None else n for n, v in zip(low, values, strict=True)]
    if name == "select_n":
        return _chosen(values[0], full[1:], np.logical_and)
    if name in ("add", "add_any", "min"):
        return np.logical_or(*full)
    if name == "max":
        return np.logical_and(*full)
    if name in ("sub", "convert_element_type", "copy"):
        return np.broadcast_to(full[0], shape)
    if name in ("mul", "div"):
        positive = [v.static and bool((v.value > 0).all()) for v in values]
        return np.logical_or(*full) if positive[1] or (name == "mul" and positive[0]) else None
    if name in _MOVES and all(v.value.dtype.kind == "f" for v in values):
        moved = evaluate_now(as_function(eqn), *[f.astype(v.dtype) for f, v in zip(full, values, strict=True)])
        return np.asarray(moved[0]) != 0
    return None


def _chosen(predicate: Coefficient, cases: list[np.ndarray], either: np.ufunc) -> np.ndarray:
    """The case that is chosen where that is known, else all of them together."""
    together = either.reduce(cases)
    if predicate.partly is None:
        return together
    known, which = predicate.partly
    return np.where(known, np.choose(which.astype(int), cases), together)


def _places_known(eqn: Any, values: list[Coefficient]) -> tuple[np.ndarray, np.ndarray] | None:
    """What is known of whole numbers, such as the positions in a batch that stand beside a permutation."""
    name, partly = eqn.primitive.name, [v.partly for v in values]
    if eqn.outvars[0].aval.dtype.kind not in "iub" or name not in _MOVES | _OF_EACH or all(p is None for p in partly):
        return None
    if any(v.value.dtype.kind not in "iub" for v in values):
        return None
    full = [(np.zeros(v.shape, bool), np.zeros(v.shape, v.dtype)) if p is None else p
            for v, p in zip(values, partly, strict=True)]  # fmt: skip
    if name in _OF_EACH:
        there = np.logical_and.reduce(np.broadcast_arrays(*[k for k, _ in full]))
        if name in ("and", "or"):  # one side may tell
            final = np.array(-1 if name == "or" else 0)
            for k, v in full:
                there = there | (k & (v == final.astype(v.dtype)))
    else:
        there = np.asarray(evaluate_now(as_function(eqn), *[k.astype(v.dtype) for k, v in full])[0]) != 0
    if not there.any():
        return None
    return there, evaluate_now(as_function(eqn), *[v for _, v in full])[0]
