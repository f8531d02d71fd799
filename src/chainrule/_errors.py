"""Every refusal of the library, as an exception type that says what to do instead."""


class ChainruleError(Exception):
    """Base of all errors raised on purpose by chainrule.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> try:
    ...     cr.jacobian(jnp.sin)(jnp.arange(3))
    ... except cr.ChainruleError as error:
    ...     print(type(error).__name__)
    InputTypeError
    """


class ShapeError(ChainruleError, ValueError):
    """Two shapes that must agree do not.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> cr.jacobian(jnp.sin)(jnp.ones(3)) @ jnp.ones(2)  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    chainrule.ShapeError: ...
    """


class InputTypeError(ChainruleError, TypeError):
    """An argument or an output has a type that has no derivative.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> cr.jacobian(jnp.sin)(jnp.arange(3))  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    chainrule.InputTypeError: ...
    """


class SingularError(ChainruleError, ArithmeticError):
    """A linear system has no solution, or no only one, to working precision.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> cr.jacobian(lambda x: 0.0 * x)(jnp.ones(3)).solve(jnp.ones(3))  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    chainrule.SingularError: ...
    """


class ConvergenceError(ChainruleError, ArithmeticError):
    """An iteration stopped without a solution.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> cr.root(lambda x, y: y**2 + x, 1.0)(1.0)  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    chainrule.ConvergenceError: ...
    """


class NotConservativeError(ChainruleError, ArithmeticError):
    """A field that has to be a gradient is none.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> rotation = lambda x: x[::-1] * jnp.array([1.0, -1.0])
    >>> cr.potential(rotation)(jnp.ones(2), jnp.zeros(2))  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    chainrule.NotConservativeError: ...
    """


class MissingRuleError(ChainruleError, NotImplementedError):
    """A step of the program is not a linear map that can be propagated.

    Examples
    --------
    >>> import chainrule as cr, jax, jax.numpy as jnp
    >>> f = jax.custom_jvp(lambda x: x)
    >>> _ = f.defjvp(lambda x, dx: (x[0], dx[0] ** 2))  # not linear in dx
    >>> cr.jacobian(f)(jnp.ones(2))  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    chainrule.MissingRuleError: ...
    """


class NotReversibleError(MissingRuleError):
    """A step of the program has no transpose in JAX: it can only be differentiated forwards."""


class MemoryLimitError(ChainruleError, MemoryError):
    """A dense result would not fit in memory; nothing was allocated.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> cr.jacobian(jnp.cumsum, memory_limit=10**6)(jnp.ones(10**5))  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    chainrule.MemoryLimitError: ...
    """


class CheckError(ChainruleError, AssertionError):
    """A function that `check` found not to be differentiable, or whose derivative is not right.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> cr.check(jnp.abs)(jnp.zeros(1)).assert_ok()  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    chainrule.CheckError: ...
    """
