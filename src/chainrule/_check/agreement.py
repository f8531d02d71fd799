"""What two ways to the same derivative have in common: how they are compared, reported, and refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._errors import ChainruleError
from chainrule._space import flat, name_of, space_of
from chainrule._trace import Problem

_RTOL = {"float64": 1e-9, "complex128": 1e-9, "float32": 1e-4, "complex64": 1e-4}


class DisagreementError(ChainruleError, AssertionError):
    """Two ways to the same derivative disagree; the message says which, where and by how much.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from chainrule.testing import check_jacobian
    >>> f = jax.custom_jvp(jnp.sin)
    >>> _ = f.defjvp(lambda x, dx: (jnp.sin(x[0]), dx[0]))  # forgets the cosine
    >>> check_jacobian(f, jnp.ones(2))  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    chainrule.testing.DisagreementError: ...
    """


class Check(NamedTuple):
    """One comparison: the largest deviation that was found, and the one that is allowed.

    Examples
    --------
    >>> from chainrule.testing import Check
    >>> check = Check("pullback", deviation=1e-16, tolerance=1e-9)
    >>> check.deviation <= check.tolerance
    True
    """

    name: str
    deviation: float
    tolerance: float


@dataclass(frozen=True, repr=False)
class Report:
    """What was checked, of which function; `notes` say what could not be.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from chainrule.testing import check_jacobian
    >>> report = check_jacobian(jnp.sin, jnp.ones(2), order="forward")
    >>> [check.name for check in report.checks][:2]
    ['order=forward: pushforward', 'order=forward: finite differences']
    """

    name: str
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, checks: Sequence[Check], notes: Sequence[str]) -> Report:
        """Keep the worst of the checks of the same name."""
        worst: dict[str, Check] = {}
        for check in sorted(checks, key=lambda c: c.deviation / (c.tolerance or 1.0)):
            worst[check.name] = check
        return cls(name, tuple(worst[name] for name in dict.fromkeys(c.name for c in checks)), tuple(notes))

    def __repr__(self) -> str:
        width = max((len(c.name) for c in self.checks), default=0)
        lines = [f"  {c.name:{width}}  {c.deviation:.1e} (at most {c.tolerance:.1e})" for c in self.checks]
        return "\n".join([f"{self.name}: all {len(self.checks)} checks agree", *lines, *(f"  {n}" for n in self.notes)])


def _direction(rng: np.random.Generator, like: Any) -> Any:
    imaginary = 1j * rng.normal(size=like.shape) if jnp.issubdtype(like.dtype, jnp.complexfloating) else 0.0
    return jnp.asarray(rng.normal(size=like.shape) + imaginary, like.dtype)


def _compiled(run: Callable[..., Any], *like: Any) -> Any:
    """None where JAX has no such derivative: a custom_vjp has no pushforward, a while loop no pullback."""
    jitted = jax.jit(run)
    try:
        jitted.lower(*like)  # tracing alone does not refuse everything
    except (TypeError, ValueError):
        return None
    return jitted


def entry_name(tree: Any, k: int) -> str:
    """The name of element k of a pytree laid flat."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        size = int(np.prod(leaf.shape))
        if k < size:
            index = [int(i) for i in np.unravel_index(k, leaf.shape)]
            return f"{jax.tree_util.keystr(path)}{index or ''}" or "the only one"
        k -= size
    raise IndexError(k)


def agree(name: str, what: str, got: Any, wanted: Any, rtol: float, place: Callable[[Sequence[int]], str]) -> Check:
    """Compare two arrays relative to the largest entry; numbers that are no numbers in both are the same."""
    got, wanted = np.asarray(got), np.asarray(wanted)
    if got.shape != wanted.shape:
        raise DisagreementError(f"{name}: {what}: the shapes are {got.shape} and {wanted.shape}")
    off = np.where(np.isnan(got) & np.isnan(wanted), 0.0, np.abs(got - wanted))
    off = np.where(np.isnan(off), np.inf, off)
    largest = float(off.max(initial=0.0))
    scale = float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0)) or 1.0
    if largest > rtol * scale:
        worst = np.unravel_index(off.argmax(), off.shape)
        raise DisagreementError(
            f"{name}: {what} disagrees at {place([int(k) for k in worst])}: {got[worst]:.6g} by chainrule, but "
            f"{wanted[worst]:.6g}; the deviation is {largest:.3g}, more than {rtol * scale:.3g}"
        )
    return Check(what, largest, rtol * scale)


class Given(NamedTuple):
    """The function of flat vectors, and JAX's derivatives of it; None for those that JAX does not have."""

    name: str
    f: Any
    x: Any
    y: Any
    trees: tuple[Any, Any]  # of the outputs and of the inputs
    push: Any
    pull: Any
    whole: Any
    difference: Any
    rtol: float
    fd_rtol: float
    holomorphic: bool

    @classmethod
    def of(cls, problem: Problem, differences: bool, dense_limit: float) -> Given:
        leaves = list(problem.leaves)
        x, space = flat(leaves), space_of(jax.tree.structure(leaves), leaves, problem.f)
        complex_in = jnp.iscomplexobj(x)

        def flat_f(x: Any) -> Any:
            return flat(problem.function(*space.unflatten(x, cast=True)))

        def transposed(x: Any, w: Any) -> Any:
            back = jax.vjp(flat_f, x)[1](w)[0]
            return back if complex_in else jnp.real(back)

        y, tree = jax.eval_shape(flat_f, x), jax.eval_shape(problem.function, *problem.leaves)
        inputs = jax.tree.unflatten(problem.tree, problem.leaves)
        dtypes = [a.dtype for a in (*problem.leaves, *jax.tree.leaves(tree)) if jnp.issubdtype(a.dtype, jnp.inexact)]
        dtype = max([*dtypes, np.dtype(float)], key=lambda d: float(jnp.finfo(d).eps))
        push = _compiled(lambda x, v: jax.jvp(flat_f, (x,), (v,))[1], x, x)
        pull = _compiled(transposed, x, y)
        both = (jax.jacfwd if push else jax.jacrev)(flat_f, holomorphic=complex_in)
        return cls(
            name_of(problem.f), flat_f, x, y, (tree, inputs), push, pull,
            _compiled(both, x) if x.size * y.size <= dense_limit else None,
            jax.jit(flat_f) if differences else None,
            _RTOL.get(str(dtype), 5e-2), float(jnp.finfo(dtype).eps) ** (1 / 3), complex_in,
        )  # fmt: skip

    @property
    def reverse(self) -> bool:
        """Say whether there is a Jacobian that is accumulated from the outputs."""
        return self.pull is not None and (self.holomorphic or not jnp.issubdtype(self.y.dtype, jnp.complexfloating))

    def compared(self, J: Any, near: float, directions: int, seed: int) -> Iterator[tuple[Any, ...]]:
        """(what, got, wanted, tolerance, axis of the entries) of every check; the axis is None for whole matrices."""
        rng = np.random.default_rng(seed)
        drawn = [[_direction(rng, like) for like in (self.x, self.y)] for _ in range(directions)]
        for v, _ in drawn if self.push else []:
            yield "pushforward", flat(J @ v), self.push(self.x, v), near, 0
        for v, _ in drawn if self.difference else []:
            yield "finite differences", flat(J @ v), *self.differences(v, max(near, self.fd_rtol)), 0
        for _, w in drawn if self.pull else []:
            got = flat(J.T @ w)
            yield "pullback", got if self.holomorphic else jnp.real(got), self.pull(self.x, w), near, 1
        if self.whole:
            wanted = np.asarray(self.whole(self.x))
            rows, cols, _ = J.coo()
            held = np.zeros_like(wanted)
            held[rows, cols] = wanted[rows, cols]
            yield "pattern", held, wanted, near, None
            yield "values", J.dense(), wanted, near, None

    def differences(self, v: Any, rtol: float) -> tuple[Any, Any]:
        """The central difference along v, and the relative tolerance that its rounding asks for."""
        f, x, eps = self.difference, self.x, float(jnp.finfo(self.x.dtype).eps)
        h = eps ** (1 / 3) * max(1.0, float(np.abs(x).max(initial=0.0))) / max(1.0, float(np.abs(v).max(initial=0.0)))
        above, below = f(x + h * v), f(x - h * v)
        wanted, noise = (above - below) / (2 * h), 10 * eps * float(np.abs(above).max(initial=0.0)) / h
        return wanted, rtol + noise / (float(np.abs(wanted).max(initial=0.0)) or 1.0)

    def check(self, what: str, got: Any, wanted: Any, rtol: float, axis: int | None) -> Check:
        def place(index: Sequence[int]) -> str:
            sides = list(zip(("row", "column"), self.trees, strict=True))
            parts = sides if axis is None else [sides[axis]]
            return ", ".join(
                f"{word} {k} ({entry_name(tree, k)})" for (word, tree), k in zip(parts, index, strict=True)
            )

        return agree(self.name, what, got, wanted, rtol, place)
