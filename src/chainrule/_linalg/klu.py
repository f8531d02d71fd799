"""Sparse LU by KLU (Davis and Palamadai Natarajan 2010), through klujax: the extra `klu`."""

from __future__ import annotations

import importlib
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._errors import ChainruleError, InputTypeError
from chainrule._space import promoted


def _library() -> Any:
    """klujax; imported in a thread of its own, where no `with jax.enable_x64(...)` hides what holds for all."""
    if "klujax" not in sys.modules:
        with ThreadPoolExecutor(1) as thread:
            thread.submit(_imported).result()
    return sys.modules["klujax"]


def _imported() -> None:
    """Import klujax, which sets two options of JAX, and set these back."""
    before = jax.config.read("jax_enable_x64"), jax.config.read("jax_platform_name")
    try:
        importlib.import_module("klujax")
    except ImportError as error:
        raise ChainruleError("solve: method='klu' needs klujax: pip install 'chainrule[klu]'") from error
    finally:
        jax.config.update("jax_enable_x64", before[0])
        jax.config.update("jax_platform_name", before[1])


# of patterns; compiled programs hold their addresses, so that none is ever freed
_ANALYSES: dict[Any, Any] = {}


class Klu:
    """A x = b by KLU on the host: the pattern is analysed once, blocks along the diagonal are factored one by one."""

    def __init__(self, rows: np.ndarray, cols: np.ndarray, n: int):
        self._library = _library()
        self._rows, self._cols, self._n = rows.astype(np.int32), cols.astype(np.int32), n

    @cached_property
    def _symbolic(self) -> Any:
        key = (self._n, self._rows.tobytes(), self._cols.tobytes())
        if key not in _ANALYSES:
            with jax.ensure_compile_time_eval():
                _ANALYSES[key] = self._library.analyze(jnp.asarray(self._rows), jnp.asarray(self._cols), self._n)
        return _ANALYSES[key]

    def factor(self, values: Any) -> Any:
        if not jax.config.read("jax_enable_x64"):
            raise InputTypeError("solve: KLU computes in float64; set jax_enable_x64")
        return (values.astype(promoted(values.dtype, jnp.float64)),)

    def solve(self, factors: Any, b: Any, transposed: bool) -> Any:
        if not b.size:
            return b
        run = self._library.tsolve_with_symbol if transposed else self._library.solve_with_symbol
        wide = b.T.astype(factors[0].dtype)
        return run(self._rows, self._cols, factors[0], wide, self._symbolic).T.astype(b.dtype)
