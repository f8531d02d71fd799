"""The table of rules, keyed by primitive object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chainrule._jax import primitive

Rule = Callable[..., Any]
SCATTERED: set[Any] = set()  # primitives whose rule takes scattered blocks as they are
RULES: dict[Any, Rule] = {}


def rule(*names: str, scattered: bool = False) -> Callable[[Rule], Rule]:
    """Register a rule for the primitives of these names; a second registration raises.

    A rule takes (context, equation, values) and gives the list of the equation's results, or
    NotImplemented where it leaves this case to the fallback. One that is not marked `scattered` gets
    blocks that hold all rows.
    """

    def register(function: Rule) -> Rule:
        for name in names:
            found = primitive(name)
            if found is None:
                continue
            if RULES.setdefault(found, function) is not function:
                raise ValueError(f"a rule for {name} is already registered")
            if scattered:
                SCATTERED.add(found)
        return function

    return register
