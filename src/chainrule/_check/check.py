"""`check`: is f differentiable at x, and is its derivative right?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._api import Argnums, checked_argnums
from chainrule._check.report import CheckReport
from chainrule._errors import InputTypeError
from chainrule._memory import AT_FEWER, require_memory
from chainrule._options import require_count, require_tolerance
from chainrule._space import flat, name_of, place_of, space_of
from chainrule._trace import Problem, flat_output, no_forward_program, no_reverse_program, pick, require_inputs

if TYPE_CHECKING:
    from chainrule._check.remainder import Ladders, Tolerance


def check(
    f: Callable[..., Any], argnums: Argnums = 0, *, directions: int = 6, rtol: float | None = None, seed: int = 0
) -> Callable[..., CheckReport]:
    """Is `f` differentiable at a point, and is its derivative right?

    The remainder f(x + h) − f(x) − J h is measured over a ladder of ‖h‖, along random directions, coordinates and
    curves, both ways. Where f is differentiable and J its derivative, it goes to 0 faster than ‖h‖: with order 2 where
    f is smooth, with order 1 at a kink or with a wrong J, with order 0 at a jump. The program says why: each step that
    switches near x is named with its line and its distance, and so are a custom derivative rule that is wrong at its
    own inputs, rules that disagree forward and reverse, and the first step whose value or derivative is not finite.

    Parameters
    ----------
    f : callable
        A function as for `chainrule.jacobian`.
    argnums : int or sequence of int
        Which positional arguments are differentiated.
    directions : int
        How many random directions are tried; at least 3.
    rtol : float, optional
        The error of a derivative that is let pass, relative to its size; by default 1e-6 where the arithmetic is
        float64, 2e-3 in float32.
    seed : int
        What the directions are drawn from.

    Returns
    -------
    callable
        A function of the arguments of `f` that gives a `CheckReport`. It runs on concrete values, not under `jit`.

    Raises
    ------
    InputTypeError
        Inputs that are not real floating-point numbers; outputs that are whole numbers; traced arguments; an option
        that is none.
    MissingRuleError
        A step that JAX has no derivative of.

    Notes
    -----
    A verdict comes from the remainder alone: a switch at x whose two sides agree is mentioned, and no fault. An order
    between 1 and 2 says that f is differentiable and its derivative not Lipschitz. Float32 arguments are taken to
    float64 where JAX has it switched on, so that the ladder is longer. A check cannot prove: what fails only in
    directions that were not tried is missed. See Griewank and Walther, *Evaluating Derivatives* (2008), chapter 14, and
    Nocedal and Wright, *Numerical Optimization* (2006), section 8.1.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> cr.check(jnp.sin)(jnp.ones(3)).verdict
    'differentiable, and its derivative is right'
    >>> report = cr.check(jnp.abs)(jnp.array([1.0, 0.0]))
    >>> report.ok, report.findings[0].kind
    (False, 'kink')
    """
    numbers = checked_argnums("check", f, argnums, least=1)
    what = f"check of {name_of(f)}"
    require_count(what, "directions", directions, 3)
    require_count(what, "seed", seed, 0)
    require_tolerance(what, "rtol", rtol)

    def checked(*args: Any) -> CheckReport:
        return _checked(f, numbers, args, directions, rtol, seed)

    return checked


def _checked(f: Any, numbers: Any, args: tuple[Any, ...], count: int, rtol: float | None, seed: int) -> CheckReport:
    from chainrule._check.findings import compose
    from chainrule._jax import largest_value

    program, notes = _program(f, numbers, args)
    require_memory(f"check of {name_of(f)}: a value", *largest_value(program.closed.jaxpr), AT_FEWER)
    # an overflow of the narrow dtype does not show in the wide one
    narrow = _as_given(pick("check", f, numbers, args)) if program.wide else program
    ladders = None
    what = f"check of {name_of(f)}"
    with (
        jax.numpy_rank_promotion("allow"),  # f is traced, the rest is ours
        jax.numpy_dtype_promotion("standard"),
        no_forward_program(what, "a custom_jvp"),
        no_reverse_program(what),
    ):
        subject = _subject(program, rtol)
        native = _subject(narrow, rtol) if program.wide else subject
        native = native if not native.finite else subject
        if native.finite and subject.x.size and len(subject.value):
            ladders = _climbed(subject, count, seed)
    return compose(name_of(f), place_of(f), subject, native, str(narrow.x.dtype), ladders, notes)


class Program(NamedTuple):
    """The function of a flat vector, as a jaxpr; `wide` says whether x was taken to a wider dtype."""

    closed: Any
    x: Any
    trees: tuple[Any, Any]  # of the outputs and of the inputs
    sizes: list[int]
    wide: bool


def _program(f: Any, numbers: Any, args: tuple[Any, ...]) -> tuple[Program, list[str]]:
    """The function in the widest floating-point numbers that it takes, and what is to be said about it."""
    if any(isinstance(a, jax.core.Tracer) for a in jax.tree.leaves(args)):
        raise InputTypeError(f"check of {name_of(f)}: it looks at values, so call it outside of jit, vmap and grad")
    problem = pick("check", f, numbers, args)
    require_inputs(problem, False)
    widest = np.dtype(jnp.zeros(0).dtype)
    narrow = [x.dtype for x in problem.leaves if jnp.finfo(x.dtype).eps > jnp.finfo(widest).eps]
    notes = (
        [] if widest == np.float64 else ["computed in float32: JAX has float64 switched off, so the ladder is short"]
    )
    if not narrow:
        return _as_given(problem), notes
    try:
        wide = _as_given(pick("check", f, numbers, jax.tree.map(lambda a: _widened(a, widest), args)))
    except Exception as error:  # whatever a function says that asks for its own dtype
        return _as_given(problem), [
            *notes,
            f"computed in {narrow[0]}: in {widest} it fails with {type(error).__name__}",
        ]
    return wide._replace(wide=True), notes


def _widened(a: Any, widest: Any) -> Any:
    dtype = getattr(a, "dtype", None)
    narrow = dtype is not None and jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 8 * widest.itemsize
    return jnp.asarray(a).astype(widest) if narrow else a


def _as_given(problem: Problem) -> Program:
    leaves = list(problem.leaves)
    x, space = flat(leaves), space_of(jax.tree.structure(leaves), leaves, problem.f)
    function, found = flat_output(problem, False)

    def run(x: Any) -> Any:
        outs, _ = function(*space.unflatten(x, cast=True))
        parts = [part for o in outs for part in ((o.real, o.imag) if jnp.iscomplexobj(o) else (o,))]
        return flat(parts)

    closed = jax.make_jaxpr(run)(x)
    outs = jax.eval_shape(lambda *x: function(*x)[0], *leaves)
    tree = jax.tree.unflatten(found["tree"], outs)
    return Program(closed, x, (tree, jax.tree.unflatten(problem.tree, leaves)), space.sizes, False)


class Subject(NamedTuple):
    """What one walk through the program gives."""

    program: Program
    x: Any
    tol: Tolerance
    sites: Any
    readings: Any
    value: np.ndarray
    noise: np.ndarray  # rounding level of each output
    forward: np.ndarray  # J v of a random v
    back: np.ndarray | None  # Jᵀ w of a random w; None where JAX has no reverse
    disagreement: float  # of ⟨w, J v⟩ and ⟨Jᵀ w, v⟩
    nonlinear: float  # of J (−2 v) and −2 J v
    skewed: float  # of Jᵀ (−2 w) and −2 Jᵀ w
    scale: np.ndarray
    slope: Callable[[Any, Any], Any]
    run: Callable[[Any], Any]

    @property
    def finite(self) -> bool:
        """Whether the value and both products are."""
        parts = [self.value, self.forward, *([] if self.back is None else [self.back])]
        return all(bool(np.isfinite(p).all()) for p in parts)


def _subject(program: Program, rtol: float | None) -> Subject:
    from chainrule._check.flow import NOISE, Flow, forward_of, signs
    from chainrule._check.remainder import Tolerance, compiled, in_chunks, scales_of, size_of
    from chainrule._check.walk import Walker
    from chainrule._jax import as_callable

    closed, x = program.closed, program.x
    coarse = max(x.dtype, closed.out_avals[0].dtype, key=lambda d: float(jnp.finfo(d).eps))
    tol, scale = Tolerance.of(coarse), scales_of(np.asarray(x), program.sizes)
    tol = tol if rtol is None else tol._replace(relative=rtol)
    whole, seeds = as_callable(closed.jaxpr, closed.consts), _seeds(x.size)
    walker = Walker(*seeds[:2], float(jnp.finfo(x.dtype).eps))

    def run(x: Any) -> Any:
        return whole(x)[0]

    def slope(x: Any, d: Any) -> Any:
        return forward_of(whole, [x])(d)[0]

    def look(x: Any, v: Any, w: Any, seed: Any) -> Any:
        rows = jnp.concatenate([seed, jnp.abs(x) * signs(x, 5)])
        (y,), readings = walker.run(closed.jaxpr, closed.consts, [Flow(x, rows)], (), (), None)
        noise = jnp.zeros(0) if y.tangents is None else y.tangents[-NOISE:]
        ahead, twice = in_chunks(lambda d: slope(x, d), jnp.stack([v, -2 * v]), None)
        pull = jax.vjp(run, x)[1] if reversible else None
        back, turned = (None, None) if pull is None else (pull(w)[0], pull(-2 * w)[0] + 2 * pull(w)[0])
        return run(x), noise, readings, ahead, twice + 2 * ahead, back, turned

    rng = np.random.default_rng(7)
    v = jnp.asarray(rng.normal(size=x.shape) * scale, x.dtype)
    w = jnp.asarray(rng.normal(size=closed.out_avals[0].shape), closed.out_avals[0].dtype)
    reversible = _reversible(run, x, w)
    found = compiled(look, x.size)(x, v, w, jnp.asarray(seeds[2], x.dtype))
    value, noise, readings, ahead, bent, back, turned = (jax.tree.map(np.asarray, a) for a in found)
    level = _noise(value, noise, float(jnp.finfo(x.dtype).eps), tol)
    size = (size_of(ahead) or 1.0) + 1e6 * size_of(level)
    return Subject(
        program, x, tol, walker.sites, readings, value, level, ahead, back, _disagreement(ahead, back, v, w, level),
        size_of(bent) / size, 0.0 if back is None else size_of(turned) / (size_of(back) or 1.0), scale,
        slope, run,
    )  # fmt: skip


def _seeds(n: int, few: int = 8) -> tuple[int, bool, np.ndarray]:
    """Tangents of the input: all coordinates of few; of many, random ones and two that find single columns."""
    if n <= few:
        return n, True, np.eye(n)
    drawn = np.random.default_rng(3).normal(size=(few // 2, n))
    return few // 2, False, np.concatenate([drawn, [np.ones(n), np.arange(n) + 1.0]])


def _noise(value: np.ndarray, rows: np.ndarray, eps: float, tol: Tolerance) -> np.ndarray:
    carried = np.abs(np.nan_to_num(rows, posinf=0, neginf=0)).max(0) if len(rows) else 0.0
    return np.asarray(2 * eps * carried + tol.eps * np.abs(np.nan_to_num(value)), float)


def _reversible(run: Any, x: Any, w: Any) -> bool:
    from chainrule._check.flow import IRREVERSIBLE

    try:
        jax.eval_shape(lambda x, w: jax.vjp(run, x)[1](w)[0], x, w)
    except IRREVERSIBLE:
        return False
    return True


def _disagreement(ahead: np.ndarray, back: np.ndarray | None, v: Any, w: Any, noise: np.ndarray) -> float:
    """Of ⟨w, J v⟩ and ⟨Jᵀ w, v⟩, relative to what they are made of, without what rounding may do."""
    from chainrule._check.remainder import size_of

    if back is None or not (np.isfinite(ahead).all() and np.isfinite(back).all()):
        return 0.0
    v, w = (np.asarray(a, float) for a in (v, w))
    most = max(size_of(ahead), size_of(back)) or 1.0
    size = size_of(ahead / most) * size_of(w) + size_of(back / most) * size_of(v)
    off = abs(w @ (ahead / most) - (back / most) @ v)
    return max(float(off - 1e3 * size_of(w * noise) / most) / (size or 1.0), 0.0)


def _climbed(subject: Subject, count: int, seed: int) -> tuple[Any, Ladders]:
    from chainrule._check.remainder import climb, directions_of, size_of
    from chainrule._check.walk import pointed
    from chainrule._jax import walk

    size = size_of(np.asarray(subject.x)) or 1.0
    columns = pointed(subject.readings, 64 * subject.tol.eps * size)
    directions = directions_of(subject.scale, columns, count, seed)
    every = [v.aval.size for eqn in walk(subject.program.closed.jaxpr) for v in eqn.outvars if hasattr(v.aval, "size")]
    widest = max([subject.x.size, *every])

    def climbed(batched: bool) -> Ladders:
        run, slope, x, noise = subject.run, subject.slope, subject.x, subject.noise
        return climb(run, slope, x, directions, noise, widest, subject.tol, batched)

    try:
        return directions, climbed(True)
    except NotImplementedError:  # a step has no batched form
        return directions, climbed(False)
