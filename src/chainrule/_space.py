"""Pytrees of arrays seen as one flat axis: the rows and the columns of a Jacobian."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True, eq=False)
class Space:
    """A pytree of arrays, laid flat one leaf after the other; `name` is the function it belongs to."""

    tree: Any
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[Any, ...]
    name: str = ""
    place: str = ""  # file:line of that function
    shardings: tuple[Any, ...] = ()  # on a mesh with explicit axes: the types of the arrays

    @cached_property
    def sizes(self) -> list[int]:
        return [math.prod(s) for s in self.shapes]

    @cached_property
    def offsets(self) -> list[int]:
        return [0, *itertools.accumulate(self.sizes)][: len(self.sizes)]

    @cached_property
    def size(self) -> int:
        return sum(self.sizes)

    @cached_property
    def key(self) -> Any:
        return (self.tree, self.shapes, tuple(str(d) for d in self.dtypes))

    @property
    def dtype(self) -> Any:
        return promoted(*self.dtypes)

    def part(self, size: int) -> Space:
        """The space of so many numbers of it, laid flat."""
        return Space(jax.tree.structure(0), ((size,),), (self.dtype,), self.name, self.place)

    def unflatten(self, flat: Any, cast: bool = False) -> Any:
        """[size] -> the pytree; with `cast` in the leaves' own dtypes."""
        pieces = [flat[o : o + n].reshape(s) for o, n, s in zip(self.offsets, self.sizes, self.shapes, strict=True)]
        if cast:
            pieces = [converted(p, d) for p, d in zip(pieces, self.dtypes, strict=True)]
        return jax.tree.unflatten(self.tree, pieces)

    def holds(self, value: Any) -> bool:
        """Say whether `value` is a pytree of these shapes."""
        leaves, tree = jax.tree.flatten(value)
        return tree == self.tree and tuple(tuple(jnp.shape(x)) for x in leaves) == self.shapes


def space_of(tree: Any, arrays: Sequence[Any], f: Any) -> Space:
    shapes, dtypes = tuple(tuple(a.shape) for a in arrays), tuple(a.dtype for a in arrays)
    return Space(tree, shapes, dtypes, name_of(f), place_of(f))


def name_of(f: Any) -> str:
    return getattr(f, "__name__", type(f).__name__)


def unit_of(tree: Any) -> float:
    """The rounding unit of the coarsest of the numbers: what holds to within it, all of them can show."""
    dtypes = [jnp.result_type(x) for x in jax.tree.leaves(tree)]
    return max((float(jnp.finfo(d).eps) for d in dtypes if jnp.issubdtype(d, jnp.inexact)), default=0.0)


def place_of(f: Any) -> str:
    code = getattr(inspect.unwrap(f), "__code__", None)
    return f"{Path(code.co_filename).name}:{code.co_firstlineno}" if code else ""


def flat(value: Any) -> Any:
    """The pytree -> [size]."""
    leaves = [jnp.ravel(jnp.asarray(x)) for x in jax.tree.leaves(value)]
    dtype = promoted(*[x.dtype for x in leaves])
    return jnp.concatenate([x.astype(dtype) for x in leaves]) if leaves else jnp.zeros(0)


def converted(array: Any, dtype: Any) -> Any:
    """The values in another dtype; the real part where a complex one becomes real."""
    real = array.dtype.kind == "c" and not jnp.issubdtype(dtype, jnp.complexfloating)
    return (array.real if real else array).astype(dtype)


def promoted(*dtypes: Any) -> Any:
    """The dtype that holds values of all of them (float32 for none), whatever JAX's setting for promotion is."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*dtypes) if dtypes else jnp.dtype("float32")


def shown(value: Any) -> str:
    """A number by its digits, an array by its dtype and shape."""
    if isinstance(value, (jax.Array, np.ndarray)) and not isinstance(value, jax.core.Tracer) and value.ndim == 0:
        if jnp.iscomplexobj(value):
            return f"{complex(value):.6g}"
        return f"{float(value):.6g}" if value % 1 else str(float(value))
    return f"{value.dtype}{list(value.shape)}" if hasattr(value, "shape") else str(value)
