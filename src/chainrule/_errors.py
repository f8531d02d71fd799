"""Every refusal of the library, as an exception type that says what to do instead."""

import math


class ChainruleError(Exception):
    """Base of all errors raised on purpose by chainrule."""


class ShapeError(ChainruleError, ValueError):
    """Two shapes that must agree do not."""


class InputTypeError(ChainruleError, TypeError):
    """An argument or an output has a type that has no derivative."""


class MissingRuleError(ChainruleError, NotImplementedError):
    """A step of the program is not a linear map that can be propagated."""


class NotReversibleError(MissingRuleError):
    """A step of the program has no transpose in JAX: it can only be differentiated forwards."""


class MemoryLimitError(ChainruleError, MemoryError):
    """A dense result would not fit in memory; nothing was allocated."""


_LIMIT = 2**34  # bytes of one array that are asked for without a word


def require_memory(what: str, shape: tuple[int, ...], itemsize: int, way_out: str) -> None:
    """Refuse an array that would not fit, before it is allocated."""
    size = math.prod(shape) * itemsize
    if size > _LIMIT:
        text = "×".join(str(s) for s in shape)
        raise MemoryLimitError(f"{what}: an array of {text} entries takes {size / 2**30:.0f} GiB. {way_out}")
