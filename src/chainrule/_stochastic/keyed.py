"""Transforms that draw random numbers, and the key that they are given."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._compiled import Transform
from chainrule._errors import InputTypeError

_OLD_KEY = (np.dtype(np.uint32), 1)  # of `jax.random.PRNGKey`


class Keyed:
    """A transform that draws random numbers: `key=` stands beside the arguments of the function."""

    def __init__(self, transform: Transform):
        self._transform = transform
        functools.update_wrapper(self, transform, updated=())

    def __call__(self, *args: Any, key: Any = None, **keywords: Any) -> Any:
        """Apply the transform to the arguments of the function, with a key of `jax.random`."""
        return self._transform(key, *args, **keywords)

    def trace(self, *args: Any, key: Any = None, **keywords: Any) -> Any:
        """Trace for these arguments: JAX's stage object; what is compiled takes the key first."""
        return self._transform.trace(key, *args, **keywords)


def require_key(what: str, key: Any, why: str = "") -> None:
    """Refuse what `jax.random` would not take."""
    dtype, axes = getattr(key, "dtype", None), np.ndim(key)
    if dtype is not None and ((jnp.issubdtype(dtype, jax.dtypes.prng_key) and not axes) or (dtype, axes) == _OLD_KEY):
        return
    got = "none" if key is None else repr(key) if dtype is None else f"{dtype} of shape {np.shape(key)}"
    raise InputTypeError(f"{what}: {why}a random key is needed, got {got}; give key=jax.random.key(0)")
