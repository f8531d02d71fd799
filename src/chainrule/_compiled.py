"""Compiled transforms: traced once for each shape of the arguments, shared by equal functions."""

from __future__ import annotations

import functools
import hashlib
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from chainrule._errors import InputTypeError

Body = Callable[..., Any]  # body(f, args) -> result, traced under jit
_CACHE: weakref.WeakKeyDictionary[Any, dict[Any, Any]] = weakref.WeakKeyDictionary()


class Known:
    """An argument leaf that is known while tracing: whole numbers, and what is not an array. Equal by content."""

    __slots__ = ("key", "value")

    def __init__(self, value: Any):
        self.value = value.copy() if isinstance(value, np.ndarray) else value  # a NumPy array may change later
        if hasattr(value, "dtype"):
            array = np.asarray(value)
            self.key: Any = (type(value), array.shape, str(array.dtype), hashlib.blake2b(array.tobytes()).digest())
        else:
            self.key = (type(value), value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Known) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


class Transform:
    """A compiled transform of a function; `.trace(*args)` gives JAX's ahead-of-time stage.

    The compiled program belongs to `f`, as with `jax.jit`: two transforms of the same function with
    equal options share it. Whole numbers among the arguments that are not differentiated (indices,
    masks) are known while tracing, and shape the sparsity pattern; new ones are traced anew.
    """

    def __init__(self, name: str, f: Callable[..., Any], traced: tuple[int, ...], body: Body, key: Any):
        if not callable(f):
            raise InputTypeError(f"{name}: the first argument must be a function, got {type(f).__name__}: {f!r}")
        self._f, self._traced, self._body = f, traced, body
        functools.update_wrapper(self, f, updated=())
        try:
            self._cache = _CACHE.setdefault(f, {}).setdefault(key, {})
            self._reference: Callable[[], Any] = weakref.ref(f)
        except TypeError:  # not hashable, or no weak references: nothing is shared
            self._cache, self._reference = {}, lambda: f
        self._last: tuple[Any, Any] = ((), ())

    def __call__(self, *args: Any) -> Any:
        """Apply the transform to the arguments of the function."""
        compiled, leaves = self._prepare(args)
        return compiled(*leaves)

    def trace(self, *args: Any) -> Any:
        """Trace for these arguments: JAX's stage object, with `.lower().compile()`."""
        compiled, leaves = self._prepare(args)
        return compiled.trace(*leaves)

    def _prepare(self, args: tuple[Any, ...]) -> tuple[Any, list[Any]]:
        chosen = {k % len(args) for k in self._traced} if args else set()
        known: list[tuple[int, Any]] = []
        leaves: list[Any] = []
        trees, place = [], 0
        for k, arg in enumerate(args):
            own, tree = jax.tree.flatten(arg)
            trees.append(tree)
            for x in own:
                if k not in chosen and _shapes_the_pattern(x):
                    known.append((place, x))
                else:
                    leaves.append(x)
                place += 1
        key = (self._key_of(known), tuple(trees))
        if key not in self._cache:
            self._cache[key] = jax.jit(functools.partial(_run, self._body, self._reference, *key))
        return self._cache[key], leaves

    def _key_of(self, known: Sequence[tuple[int, Any]]) -> tuple[tuple[int, Known], ...]:
        """The known leaves; JAX arrays are immutable, so the same objects need not be read again."""
        if not known:
            return ()
        values, key = self._last
        if len(values) == len(known) and all(a is b and isinstance(a, jax.Array) for a, (_, b) in zip(values, known, strict=True)):
            return key
        key = tuple((place, Known(x)) for place, x in known)
        self._last = (tuple(x for _, x in known), key)
        return key


def _run(body: Body, reference: Callable[[], Any], known: Any, trees: tuple[Any, ...], *leaves: Any) -> Any:
    left, fixed, place, args = iter(leaves), {k: v.value for k, v in known}, 0, []
    for tree in trees:
        numbers = range(place, place + tree.num_leaves)
        args.append(jax.tree.unflatten(tree, [fixed[k] if k in fixed else next(left) for k in numbers]))
        place += tree.num_leaves
    return body(reference(), tuple(args))


def _shapes_the_pattern(x: Any) -> bool:
    if isinstance(x, (jax.core.Tracer, float, complex)):
        return False
    if not hasattr(x, "dtype"):
        return True  # a Python whole number, a string, an option
    return not jax.dtypes.issubdtype(x.dtype, jax.dtypes.extended) and np.dtype(x.dtype).kind in "iub"
