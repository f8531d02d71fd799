"""Every refusal of the library, as an exception type that says what to do instead."""


class ChainruleError(Exception):
    """Base of all errors raised on purpose by chainrule."""


class ShapeError(ChainruleError, ValueError):
    """Two shapes that must agree do not."""


class InputTypeError(ChainruleError, TypeError):
    """An argument or an output has a type that has no derivative."""


class SingularError(ChainruleError, ArithmeticError):
    """A linear system has no solution, or no only one, to working precision."""


class ConvergenceError(ChainruleError, ArithmeticError):
    """An iteration stopped without a solution."""


class NotConservativeError(ChainruleError, ArithmeticError):
    """A field that has to be a gradient is none."""


class MissingRuleError(ChainruleError, NotImplementedError):
    """A step of the program is not a linear map that can be propagated."""


class NotReversibleError(MissingRuleError):
    """A step of the program has no transpose in JAX: it can only be differentiated forwards."""


class MemoryLimitError(ChainruleError, MemoryError):
    """A dense result would not fit in memory; nothing was allocated."""


class CheckError(ChainruleError, AssertionError):
    """A function that `check` found not to be differentiable, or whose derivative is not right."""
