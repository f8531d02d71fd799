"""Pad the rows of a block."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from chainrule._block import Block, expand


def pad_rows(block: Block, config: Any, shape: tuple[int, ...]) -> Block:
    """Pad columns with -1; values that are the same along an axis stay so."""
    moved = [k for k, c in enumerate(config) if tuple(c) != (0, 0, 0)]
    cols = pad_array(expand(block, moved).cols, config, -1)
    own = [(c if block.vals.shape[k] != 1 or (block.shape[k] == 1 and block.vals.size > 1) else (0, 0, 0))
           for k, c in enumerate(config)]  # fmt: skip
    return Block(shape, cols, pad_array(block.vals, own, 0))


def pad_array(array: Any, config: Any, filler: int) -> Any:
    """`lax.pad` of the leading axes, in NumPy where the array is known."""
    if isinstance(array, np.ndarray):
        for k, (low, high, step) in enumerate(config):
            array = _pad_axis(array, k, low, high, step, filler)
        return array
    return jax.lax.pad(array, np.asarray(filler, array.dtype), [*[tuple(c) for c in config], (0, 0, 0)])


def _pad_axis(a: np.ndarray, k: int, low: int, high: int, step: int, filler: int) -> np.ndarray:
    if (low, high, step) == (0, 0, 0):
        return a
    size = a.shape[k]
    inner = size + max(size - 1, 0) * step
    out = np.full((*a.shape[:k], inner + max(low, 0) + max(high, 0), *a.shape[k + 1 :]), filler, a.dtype)
    where = [slice(None)] * a.ndim
    where[k] = slice(max(low, 0), max(low, 0) + inner, step + 1)
    out[tuple(where)] = a
    where[k] = slice(max(-low, 0), out.shape[k] - max(-high, 0))
    return out[tuple(where)]
