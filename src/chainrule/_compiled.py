"""Compiled transforms: traced once for each shape of the arguments, shared by equal functions."""

from __future__ import annotations

import functools
import hashlib
import weakref
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import numpy as np

from chainrule._errors import ChainruleError, InputTypeError, MemoryLimitError
from chainrule._memory import WAY_OUT
from chainrule._space import name_of
from chainrule._trace import no_forward_program, no_reverse_program, require_arrays

Body = Callable[..., Any]  # body(f, args) -> result, traced under jit
_CACHE: weakref.WeakKeyDictionary[Any, tuple[Any, dict[Any, Any]]] = weakref.WeakKeyDictionary()


@jax.tree_util.register_pytree_node_class
class Known:
    """An argument leaf that is known while tracing, as a pytree without leaves; equal by content."""

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

    def tree_flatten(self) -> tuple[tuple[()], Known]:
        return (), self

    @classmethod
    def tree_unflatten(cls, known: Known, _: Any) -> Known:
        return known


class Transform:
    """A compiled transform of a function; `.trace(*args)` gives JAX's ahead-of-time stage.

    The compiled program belongs to `f`, as with `jax.jit`: two transforms of the same function with
    equal options share it. Whatever among the arguments is no array (an option, a Python number) is known while
    tracing; with `patterned`, so are arrays of whole numbers (indices, masks) that are not differentiated: they shape
    the sparsity pattern, and new ones are traced anew.
    """

    def __init__(
        self, name: str, f: Callable[..., Any], traced: tuple[int, ...], body: Body, key: Any, patterned: bool = False
    ):
        if not callable(f):
            raise InputTypeError(f"{name}: the first argument must be a function, got {type(f).__name__}: {f!r}")
        self._patterned, self._plain = patterned, traced in ((0,), (-1,))
        self._f, self._traced, self._what = f, traced, f"{name} of {name_of(f)}"
        functools.update_wrapper(self, f, updated=())
        try:
            reference, shared = _CACHE.setdefault(f, (weakref.ref(f), {}))
            if reference() is f:
                if key not in shared:
                    shared[key] = jax.jit(functools.partial(_run, body, reference))
                self._compiled = shared[key]
            else:  # an equal object, as every look-up of a bound method makes one: the two may not live equally long
                self._compiled = jax.jit(functools.partial(_run, body, lambda: f))
        except TypeError:  # not hashable, or no weak references: nothing is shared
            self._compiled = jax.jit(functools.partial(_run, body, lambda: f))
        self._last: dict[int, tuple[Any, Known]] = {}

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Apply the transform to the arguments of the function."""
        try:  # no context manager: its two generators take as long as the call itself
            if self._plain and len(args) == 1 and not keywords:  # as `_prepared` would, without another call
                return self._compiled(None, args[0])
            return self._compiled(*self._prepared(args, keywords))
        except Exception as error:
            self._blame(error, args)

    def trace(self, *args: Any, **keywords: Any) -> Any:
        """Trace for these arguments: JAX's stage object, with `.lower().compile()`."""
        try:
            return Stage(self._compiled.trace(*self._prepared(args, keywords)), self._prepared)
        except Exception as error:
            self._blame(error, args)

    def _blame(self, error: Exception, args: tuple[Any, ...]) -> NoReturn:
        """JAX names an argument that is no array in terms of its own; say it in the user's."""
        backwards = "the reverse direction: chainrule.pullback, or order='reverse'"
        try:
            with no_forward_program(self._what, backwards), no_reverse_program(self._what):
                raise error
        except MemoryLimitError:
            raise
        except MemoryError as error:  # what no estimate foresaw
            raise MemoryLimitError(f"{self._what}: {error}. {WAY_OUT}") from error
        except (TypeError, ValueError, OverflowError) as error:
            if isinstance(error, ChainruleError):
                raise
            require_arrays(self._what, [x for k in self._traced for x in jax.tree.leaves(args[k : k + 1 or None])])
            raise

    def _prepared(self, args: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Any, ...]:
        """The keywords and the arguments, with the leaves that are known while tracing set apart."""
        known = self._marked(keywords) if keywords else None
        if self._plain and len(args) == 1:  # nothing to look through
            return known, args[0]
        chosen = {k % len(args) for k in self._traced} if args else set()
        return known, *[a if k in chosen else self._marked(a) for k, a in enumerate(args)]

    def _marked(self, value: Any) -> Any:
        if isinstance(value, jax.Array):
            return self._mark(value)
        leaves, tree = jax.tree.flatten(value)  # `jax.tree.map` would take three times as long, at every call
        return jax.tree.unflatten(tree, [self._mark(x) for x in leaves])

    def _mark(self, x: Any) -> Any:
        if not _known_while_tracing(x, self._patterned):
            return x
        if not isinstance(x, jax.Array):
            return Known(x)
        seen = self._last.get(id(x))  # JAX arrays are immutable: one that was seen need not be read again
        if seen is None or seen[0] is not x:
            if len(self._last) > 64:
                self._last = {}
            seen = self._last[id(x)] = (x, Known(x))
        return seen[1]


class Stage:
    """A stage of JAX's ahead-of-time compilation that takes the arguments as the user has them."""

    def __init__(self, stage: Any, prepared: Callable[..., tuple[Any, ...]]):
        self._stage, self._prepared = stage, prepared

    def lower(self, **options: Any) -> Stage:
        """Lower the traced program."""
        return Stage(self._stage.lower(**options), self._prepared)

    def compile(self, **options: Any) -> Stage:
        """Compile the lowered program; the result is called with the arguments of the function."""
        return Stage(self._stage.compile(**options), self._prepared)

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Run the compiled program."""
        return self._stage(*self._prepared(args, keywords))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stage, name)


def _run(body: Body, reference: Callable[[], Any], keywords: dict[str, Any] | None, *args: Any) -> Any:
    def unmark(x: Any) -> Any:
        return x.value if isinstance(x, Known) else x

    keywords, args = jax.tree.map(unmark, (keywords, args), is_leaf=lambda x: isinstance(x, Known))
    f = reference()
    if not keywords:
        return body(f, args)

    @functools.wraps(f)
    def with_keywords(*own: Any) -> Any:
        return f(*own, **keywords)

    return body(with_keywords, args)


def _known_while_tracing(x: Any, patterned: bool) -> bool:
    dtype = getattr(x, "dtype", None)
    if dtype is None:
        return not isinstance(x, (float, complex))  # a Python whole number, a string, an option
    if not patterned or not isinstance(dtype, np.dtype) or dtype.kind not in "iub":  # a random key's dtype is JAX's own
        return False
    return not isinstance(x, (jax.core.Tracer, jax.ShapeDtypeStruct))
