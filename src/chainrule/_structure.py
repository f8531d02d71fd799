"""Temporary stand-in; its owner overwrites this file."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Structure:
    kind: str
    def __str__(self) -> str:
        return self.kind

def classify(rows: Any, cols: Any, shape: Any, unit_values: Any = None) -> Structure:
    m, n = shape
    if not len(rows):
        return Structure("zero")
    if m == n == len(rows) and np.array_equal(rows, cols):
        return Structure("diagonal")
    return Structure("dense" if len(rows) == m * n else "sparse")
