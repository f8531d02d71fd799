"""Assertions on what `chainrule._check.rule` compares: a rule, and its primitive on every dense column."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from chainrule._check.rule import COMPILED, EAGER, Case, Comparison, eagerly

KINDS = tuple(dict.fromkeys([*EAGER, *COMPILED]))


def agree(pairs: Iterable[Comparison], **tolerance: float) -> None:
    """Assert that the two of every pair are equal, in their dtypes too."""
    for what, got, wanted in pairs:
        assert got.shape == wanted.shape and got.dtype == wanted.dtype, what
        eps = 200 * float(np.finfo(wanted.dtype).eps)
        np.testing.assert_allclose(got, wanted, **({"rtol": eps, "atol": eps} | tolerance), err_msg=what)


def compare(case: Case, dtype: Any = np.float64, kinds: Sequence[str] = KINDS) -> None:
    """Assert that propagation gives what the primitive gives, for some kinds of blocks."""
    agree(eagerly(case, dtype, kinds))
