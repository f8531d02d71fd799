"""Control flow. Loops take the fallback, which runs them once for all columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule._program import Coefficient, Context, Value
from chainrule._rules._registry import rule


@rule("cond")
def cond(context: Context, eqn: Any, values: list[Value]) -> Any:
    """A branch that is known while tracing is taken alone; otherwise both run on every dense column."""
    index, *operands = values
    branches = eqn.params["branches"]
    if not isinstance(index, Coefficient) or not index.static:
        return NotImplemented
    taken = branches[int(np.clip(int(index.value), 0, len(branches) - 1))]
    return context.propagate(taken.jaxpr, taken.consts, operands)
