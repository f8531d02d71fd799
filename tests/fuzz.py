"""Random programs as source text, against JAX: `python tests/fuzz.py --seconds 120`.

A program is drawn statement by statement out of the grammar in `programs.py`, with loops, branches and calls around
further statements. Its Jacobian in every order, eagerly and inside `jit`, is compared with `jax.jacfwd` and
`jax.jacrev` at two random points; where these two have no number, or do not agree with each other, the point is drawn
again. A program that fails is made as small as it still fails, and written as a script that shows both matrices.
Exit codes: 0; 1 where something was found.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import programs
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

import chainrule as cr
from chainrule._jax import walk

EXTRA: list[list[tuple[str, str]]] = [[("auto", "eager")], [("forward", "jit")], [("reverse", "jit")], [], [], []]
DEPTH = 2  # functions within functions
SIZES = (1, 2, 2, 3, 3, 4)
QUICK = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1 --xla_cpu_max_isa=SSE4_2"
SAME = 2  # scripts that are written of one exception; further ones are counted
CLEAR = 100  # programs between two clearings of JAX's caches
TREE = ast.parse(Path(programs.__file__).read_text())


# the grammar, as text ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """An expression in a and k, or in a and b; `axis`: the operand must have an axis and elements."""

    text: str
    axis: bool

    def of(self, **names: str) -> str:
        tree = ast.parse(self.text, mode="eval")
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id in names:
                node.id = names[node.id]
        return ast.unparse(tree)


def steps_of(*lists: str) -> list[Step]:
    """The lambdas that stand in lists of `programs.py`, as text."""
    values = {
        t.id: n.value for n in TREE.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)
    }
    found = []
    for name in lists:
        for element in values[name].elts:  # type: ignore[attr-defined]
            axis = isinstance(element, ast.Call)
            found.append(Step(ast.unparse((element.args[0] if axis else element).body), axis))
    return found


def helpers(text: str) -> str:
    """The source of the functions of `programs.py` that a text calls, and of those that they call."""
    own = {n.name: n for n in TREE.body if isinstance(n, ast.FunctionDef)}
    extra = {"bent": [n for n in TREE.body if isinstance(n, ast.Expr) and "bent.defjvp" in ast.unparse(n)]}
    wanted: set[str] = set()

    def add(source: str) -> None:
        for name in own.keys() - wanted:
            if re.search(rf"\b{name}\b", source):
                wanted.add(name)
                add(ast.unparse(own[name]))

    add(text)
    chosen = [part for name in own if name in wanted for part in [own[name], *extra.get(name, [])]]
    return "\n\n\n".join(ast.unparse(part) for part in chosen)


UNARY = steps_of("POINTWISE", "STRUCTURAL", "REDUCING", "MIXING", "FURTHER")
BINARY = steps_of("PAIRS", "FURTHER_PAIRS")


# programs ----------------------------------------------------------------------------------------


@dataclass
class Statement:
    """`target = text`, after the functions that the text calls."""

    target: str
    text: str
    shape: tuple[int, ...]
    operands: list[str]
    bodies: dict[str, Body] = field(default_factory=dict)

    def lines(self) -> list[str]:
        inner = [line for name, body in self.bodies.items() for line in body.lines(name)]
        return [*inner, f"{self.target} = {self.text}"]


@dataclass
class Body:
    """A function: its parameters, its statements and its result, an expression in the last names."""

    parameters: list[str]
    statements: list[Statement]
    result: str

    def lines(self, name: str) -> list[str]:
        own = [line for s in self.statements for line in s.lines()]
        return [f"def {name}({', '.join(self.parameters)}):", *[f"    {t}" for t in [*own, f"return {self.result}"]]]

    def without_dead(self) -> Body:
        """The same without statements that nothing uses."""
        alive, kept = self.result, []
        for s in reversed(self.statements):
            if uses(alive, s.target):
                bodies = {name: body.without_dead() for name, body in s.bodies.items() if uses(s.text, name)}
                kept.append(Statement(s.target, s.text, s.shape, s.operands, bodies))
                alive += "\n" + "\n".join(kept[-1].lines())
        return Body(self.parameters, kept[::-1], self.result)


def uses(text: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", text) is not None


def renamed(text: str, name: str, other: str) -> str:
    return re.sub(rf"\b{name}\b", other, text)


@dataclass
class Program:
    """A function f of arrays of the given shapes."""

    body: Body
    shapes: list[tuple[int, ...]]

    @property
    def source(self) -> str:
        return "\n".join(self.body.lines("f"))


def compiled(source: str, name: str = "f") -> Callable[..., Any]:
    space = dict(vars(programs))
    exec(compile(source, "<program>", "exec"), space)
    return space[name]


# drawing -----------------------------------------------------------------------------------------

Pool = dict[str, tuple[int, ...]]  # names and shapes of float64 arrays


class Grammar:
    """Draws programs; every statement is traced as it is drawn, so that its shape is known."""

    def __init__(self, rng: np.random.Generator):
        self.rng, self.count = rng, 0

    def program(self) -> Program:
        self.count = 0
        inputs: Pool = {f"x{k}": self.shape() for k in range(self.rng.choice([1, 1, 2, 3]))}
        statements, pool = self.statements(inputs, {}, int(self.rng.integers(2, 6)), 0)
        made = [s.target for s in statements] or list(inputs)
        others = [str(n) for n in self.rng.choice(list(pool), size=self.rng.choice([0, 0, 1, 2]))]
        result = "".join(f"{n}, " for n in dict.fromkeys([made[-1], *others])).strip()
        return Program(Body(list(inputs), statements, result).without_dead(), list(inputs.values()))

    def shape(self) -> tuple[int, ...]:
        while True:
            shape = tuple(int(n) for n in self.rng.choice(SIZES, size=self.rng.choice([0, 1, 1, 2, 2, 3])))
            if self.rng.random() < 0.02 and shape:
                shape = (0, *shape[1:])
            if np.prod(shape) <= programs.LIMIT:
                return shape

    def fresh(self, letter: str) -> str:
        self.count += 1
        return f"{letter}{self.count}"

    def statements(self, own: Pool, outer: Pool, count: int, depth: int) -> tuple[list[Statement], Pool]:
        """Statements on the pool `own`; `outer` are arrays of the functions around."""
        made: list[Statement] = []
        pool = dict(own)
        for _ in range(4 * count):
            if len(made) == count:
                break
            drawn = self.statement(pool, outer, depth)
            if drawn is not None:
                made.append(drawn)
                pool[drawn.target] = drawn.shape
        return made, pool

    def statement(self, pool: Pool, outer: Pool, depth: int) -> Statement | None:
        everything = {**outer, **pool}
        kind = self.rng.random()
        target = self.fresh("v")
        if kind < 0.2 and depth < DEPTH:
            text, operands, bodies = self.control(pool, outer, depth)
        elif kind < 0.4:
            a, b = self.operand(pool), self.operand(everything)
            step = BINARY[self.rng.integers(len(BINARY))]
            fitted = b if everything[b] == pool[a] else f"fit({b}, {literal(pool[a])})"
            text, operands, bodies = renamed(step.of(a=a, b="B_B"), "B_B", fitted), [a, b], {}
        else:
            a, step = self.operand(pool), UNARY[self.rng.integers(len(UNARY))]
            if step.axis and (0 in pool[a] or not pool[a]):
                return None
            text, operands, bodies = step.of(a=a, k=str(self.rng.integers(100))), [a], {}
        s = Statement(target, text, (), operands, bodies)
        shape = shape_of(s, everything)
        return None if shape is None else Statement(target, text, shape, operands, bodies)

    def operand(self, pool: Pool) -> str:
        """A name, of the last ones more often."""
        names = list(pool)
        weights = 1.6 ** np.arange(len(names))
        return str(self.rng.choice(names, p=weights / weights.sum()))

    def body(self, parameters: Pool, outer: Pool, depth: int, result: tuple[int, ...] | None, plain: str = "") -> Body:
        """A function of some arrays (and of a whole number `plain`), with a result of the given shape."""
        statements, pool = self.statements(parameters, outer, int(self.rng.integers(1, 3)), depth + 1)
        last = list(pool)[-1]
        if plain and self.rng.random() < 0.7:
            last = f"({last} * (0.5 + {plain}))"
        found = pool[list(pool)[-1]]
        text = last if result is None or found == result else f"fit({last}, {literal(result)})"
        names = ([plain] if plain else []) + list(parameters)
        return Body(names, statements, text if result is None else f"jnp.tanh({text})")

    def control(self, pool: Pool, outer: Pool, depth: int) -> tuple[str, list[str], dict[str, Body]]:
        """A loop, a branch or a call, as (text, operands, the functions that it calls)."""
        everything = {**outer, **pool}
        names = list(CONTROL)
        return CONTROL[names[self.rng.integers(len(names))]](self, self.operand(pool), everything, depth)

    # one kind of control flow after the other

    def carried(self, a: str, everything: Pool, depth: int, templates: list[str], plain: bool = False) -> Any:
        """Text around one function g from the shape of a to itself."""
        g, t = self.fresh("g"), self.fresh("t")
        body = self.body({t: everything[a]}, everything, depth, everything[a], self.fresh("i") if plain else "")
        other = self.operand(everything)
        text = templates[self.rng.integers(len(templates))].format(a=a, g=g, b=other, s=literal(everything[a]))
        return text, [a, other] if uses(text, other) else [a], {g: body}

    def branches(self, a: str, everything: Pool, depth: int, templates: list[str]) -> Any:
        bodies = {}
        for _ in range(3):
            bodies[self.fresh("g")] = self.body({self.fresh("t"): everything[a]}, everything, depth, everything[a])
        g, h, j = bodies
        other = self.operand(everything)
        text = templates[self.rng.integers(len(templates))].format(a=a, b=other, g=g, h=h, j=j)
        return text, [a, other] if uses(text, other) else [a], {n: f for n, f in bodies.items() if uses(text, n)}

    def mapped(self, a: str, everything: Pool, depth: int, templates: list[str]) -> Any:
        """Text around one function of the rows of a."""
        a, shape = self.with_rows(a, everything)
        g, t = self.fresh("g"), self.fresh("t")
        body = self.body({t: shape[1:]}, everything, depth, None)
        return templates[self.rng.integers(len(templates))].format(a=a, g=g), [a], {g: body}

    def with_rows(self, a: str, everything: Pool) -> tuple[str, tuple[int, ...]]:
        shape = everything[a]
        if shape and 0 not in shape:
            return a, shape
        return f"fit({a}, (2, 2))", (2, 2)

    def paired(self, a: str, everything: Pool, depth: int, templates: list[str]) -> Any:
        """Text around a function of a row of a and of another array."""
        a, shape = self.with_rows(a, everything)
        b = self.operand(everything)
        g, t, u = self.fresh("g"), self.fresh("t"), self.fresh("t")
        body = self.body({u: everything[b], t: shape[1:]}, everything, depth, None)
        return templates[self.rng.integers(len(templates))].format(a=a, b=b, g=g), [a, b], {g: body}

    def scanned(self, a: str, everything: Pool, depth: int, templates: list[str]) -> Any:
        """Text around a function of (carry, row) that gives (carry, output)."""
        a, shape = self.with_rows(a, everything)
        b = self.operand(everything)
        g, c, t = self.fresh("g"), self.fresh("c"), self.fresh("t")
        body = self.body({t: shape[1:], c: everything[b]}, everything, depth, everything[b])
        made = [c, t, *[s.target for s in body.statements]]
        body.result = f"{body.result}, {self.rng.choice(made)}"
        body.parameters = [c, t]
        return templates[self.rng.integers(len(templates))].format(a=a, b=b, g=g), [a, b], {g: body}


def literal(shape: tuple[int, ...]) -> str:
    return repr(tuple(int(n) for n in shape))


def shape_of(s: Statement, pool: Pool) -> tuple[int, ...] | None:
    """The shape of the statement's result; None where it is no small float64 array, or no program at all."""
    lines = [f"def f({', '.join(pool)}):", *[f"    {line}" for line in [*s.lines(), f"return {s.target}"]]]
    structs = [jax.ShapeDtypeStruct(shape, np.float64) for shape in pool.values()]
    try:
        out = jax.eval_shape(compiled("\n".join(lines)), *structs)
    except Exception:
        return None
    right = getattr(out, "dtype", None) == np.float64 and out.ndim <= 4 and out.size <= programs.LIMIT
    return tuple(out.shape) if right else None


def kind(method: Callable[..., Any], *templates: str, **options: Any) -> Callable[..., Any]:
    return lambda grammar, a, everything, depth: method(grammar, a, everything, depth, list(templates), **options)


CONTROL = {
    "scan": kind(
        Grammar.scanned,
        *("lax.scan({g}, {b}, {a})[0]", "lax.scan({g}, {b}, {a})[1]", "lax.scan({g}, {b}, {a}, reverse=True)[1]"),
        *("lax.scan({g}, {b}, {a}, unroll=2)[1]", "lax.scan({g}, jnp.zeros_like({b}), {a})[0]"),
    ),
    "fori_loop": kind(
        Grammar.carried,
        *("lax.fori_loop(0, 3, {g}, {a})", "lax.fori_loop(1, 2, {g}, {a})"),
        "lax.fori_loop(0, 1 + ({b}.sum() > 0).astype(int), {g}, {a})",
        plain=True,
    ),
    "while_loop": kind(
        Grammar.carried,
        "lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, {g}(s[1])), (0, {a}))[1]",
        "lax.while_loop(lambda s: (s[0] < 3) & (s[1].sum() < 0.5), lambda s: (s[0] + 1, {g}(s[1])), (0, {a}))[1]",
    ),
    "cond": kind(
        Grammar.branches,
        *("lax.cond({b}.sum() > 0.1, {g}, {h}, {a})", "lax.cond({b}.size > 2, {g}, {h}, {a})"),
        "jax.vmap(lambda p: lax.cond(p > 0, {g}, {h}, {a}))({b}.ravel()[:2])",
    ),
    "switch": kind(
        Grammar.branches,
        *(  # one unknown, one known
            "lax.switch(jnp.floor({b}.sum()).astype(int) % 3, [{g}, {h}, {j}], {a})",
            "lax.switch(1, [{g}, {h}, {j}], {a})",
        ),
        "lax.platform_dependent({a}, cpu={g}, default={h})",
    ),
    "map": kind(Grammar.mapped, "lax.map({g}, {a})", "lax.map({g}, {a}, batch_size=2)"),
    "vmap": kind(
        Grammar.mapped, "jax.vmap({g})({a})", "jax.vmap({g}, out_axes=-1)({a})", "jax.vmap(jax.checkpoint({g}))({a})"
    ),
    "vmap of two": kind(
        Grammar.paired,
        *("jax.vmap({g}, in_axes=(None, 0))({b}, {a})", "lax.map(lambda r: {g}({b}, r), {a})"),
        "jax.jit(jax.vmap(lambda r: {g}({b}, r)))({a})",
    ),
    "call": kind(
        Grammar.carried,
        *("jax.jit({g})({a})", "jax.checkpoint({g})({a})", "custom({g})({a})", "jax.grad(lambda r: {g}(r).sum())({a})"),
        *("jax.checkpoint({g}, policy=jax.checkpoint_policies.dots_saveable)({a})", "jax.jvp({g}, ({a},), ({a},))[1]"),
        *("custom(jax.jit({g}))({a})", "jax.vjp({g}, {a})[1](fit({b}, {s}))[0]", "jax.linearize({g}, {a})[1]({a})"),
        *("{a} + lax.stop_gradient({g}({a}) - {a})", "cr.pushforward({g})({a}, {a})", "cr.jacobian({g})({a}) @ {a}"),
    ),
    "custom_vjp": kind(Grammar.carried, "custom({g})({a})", "jax.jit({g})({a})", "custom_backwards({g})({a})"),
}


# checking ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failure:
    """What differs: in which order, in which way of use, at which point."""

    kind: str  # 'values', 'pattern' or the name of an exception
    order: str
    way: str
    message: str
    point: tuple[np.ndarray, ...] = ()


def flat(tree: Any) -> Any:
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def jax_jacobian(f: Callable[..., Any], transform: Callable[..., Any], shapes: list[tuple[int, ...]]) -> Any:
    """A compiled function of the inputs that gives the (m, n) array of JAX; None where JAX has none."""
    structs = [jax.ShapeDtypeStruct(s, np.float64) for s in shapes]

    def dense(*x: Any) -> Any:
        blocks = transform(lambda *a: flat(f(*a)), argnums=tuple(range(len(x))))(*x)
        return jnp.concatenate([b.reshape(b.shape[0], a.size) for b, a in zip(blocks, x, strict=True)], axis=1)

    run = jax.jit(dense)
    try:
        run.lower(*structs)  # tracing alone does not refuse everything
    except (TypeError, ValueError, NotImplementedError):
        return None
    return run


@dataclass
class Reference:
    """JAX's answer, in both directions where both exist."""

    forward: Any
    reverse: Any
    single: bool  # some steps are in float32

    @classmethod
    def of(cls, f: Callable[..., Any], shapes: list[tuple[int, ...]]) -> Reference:
        closed = jax.make_jaxpr(f)(*[jax.ShapeDtypeStruct(s, np.float64) for s in shapes])
        single = any(getattr(v.aval, "dtype", None) == np.float32 for e in walk(closed.jaxpr) for v in e.outvars)
        return cls(jax_jacobian(f, jax.jacfwd, shapes), jax_jacobian(f, jax.jacrev, shapes), single)

    def at(self, x: tuple[np.ndarray, ...]) -> tuple[np.ndarray, float] | None:
        """The matrix and how far another one may be from it; None where it is not to be trusted."""
        answers = [np.asarray(run(*x)) for run in (self.forward, self.reverse) if run is not None]
        if not all(np.isfinite(a).all() for a in answers):
            return None
        near = (1e-4 if self.single else 1e-9) * max(1.0, float(np.abs(answers[0]).max(initial=0.0)))
        apart = float(np.abs(answers[0] - answers[-1]).max(initial=0.0))
        return None if apart > near else (answers[0], 10.0 * near)


class Skipped(Exception):
    """The program has no derivative in JAX, or none that can be trusted."""


def check(program: Program, seed: int, only: Failure | None = None) -> Failure | None:
    """Compare at two random points; `only` tries again what has failed."""
    f = compiled(program.source)
    try:
        reference = Reference.of(f, program.shapes)
    except Exception as error:
        raise Skipped from error
    if reference.forward is None and reference.reverse is None:
        raise Skipped
    try:
        points = list(trusted_points(reference, program.shapes, seed))
    except Exception as error:  # JAX refuses some custom_vjp only when they run
        raise Skipped from error
    if not points:
        raise Skipped
    orders = [o for o in ("forward", "reverse") if getattr(reference, o) is not None]
    # compiling dominates: every order in one way at least
    ways = [(o, "eager") for o in orders] + [("auto", "jit"), *EXTRA[seed % len(EXTRA)]]
    for order, way in ways if only is None else [(only.order, only.way)]:
        if order in (*orders, "auto"):
            found = compare(f, order, way, points)
            if found is not None:
                return found
    return None


def trusted_points(reference: Reference, shapes: list[tuple[int, ...]], seed: int) -> Iterator[Any]:
    """Two points where JAX agrees with itself, with its matrices and tolerances."""
    rng = np.random.default_rng(seed)
    found = 0
    for _ in range(6):
        x = tuple(rng.uniform(-2.0, 2.0, size=s) for s in shapes)
        answer = reference.at(x)
        if answer is not None:
            found += 1
            yield x, *answer
        if found == 2:
            return


def compare(f: Callable[..., Any], order: str, way: str, points: list[Any]) -> Failure | None:
    """The Jacobian of chainrule at the points, against what JAX gives there."""
    numbers = tuple(range(len(points[0][0])))
    transform = cr.jacobian(f, argnums=numbers, order=order)
    pattern: list[Any] = []

    def used(*x: Any) -> Any:
        J = transform(*x)
        rows, cols, values = J.coo()
        pattern[:] = [rows, cols]
        return values, {"J.dense()": J.dense(), **products(J)}

    first: list[Any] = []
    run = jax.jit(used) if way == "jit" else None
    for x, theirs, near in points:
        try:
            if run is not None:
                values, parts = run(*x)
            else:
                *pattern, values = transform(*x).coo()
                parts = {}
        except Exception as error:
            return Failure(type(error).__name__, order, way, f"{type(error).__name__}: {error}", x)
        first = first or list(pattern)
        problem = pattern_problem(*pattern, theirs, first, near)
        if problem:
            return Failure("pattern", order, way, problem, x)
        dense = np.zeros(theirs.shape, values.dtype)
        dense[tuple(pattern)] = values
        parts = {"J.coo()": dense, **parts}
        for what, wanted in {"J.coo()": theirs, "J.dense()": theirs, **products(theirs)}.items():
            if what in parts:
                off = np.abs(np.asarray(parts[what]) - wanted).max(initial=0.0)
                if not off <= near * (1 if what.endswith("()") else 10 * max(theirs.shape)):
                    return Failure("values", order, way, f"{what} differs by {off:.3g}, more than {near:.1g}", x)
    return None


def products(J: Any) -> dict[str, Any]:
    m, n = J.shape
    v, w = np.cos(np.arange(n)), np.sin(1.0 + np.arange(m))
    both = {"J @ v": J @ v, "J.T @ w": J.T @ w}
    return {what: product if isinstance(J, np.ndarray) else flat(product) for what, product in both.items()}


def pattern_problem(rows: np.ndarray, cols: np.ndarray, theirs: np.ndarray, first: Any, near: float) -> str:
    keys = np.asarray(rows, np.int64) * max(theirs.shape[1], 1) + cols
    if (np.diff(keys) <= 0).any():
        return "the pattern is not unique and row-major"
    if not all(np.array_equal(a, b) for a, b in zip(first, (rows, cols), strict=True)):
        return "the pattern is not the same at two points"
    held = np.zeros(theirs.shape, bool)
    held[rows, cols] = True
    outside = (np.abs(theirs) > near) & ~held
    return f"the pattern lacks entries {np.argwhere(outside)[:4].tolist()}" if outside.any() else ""


# making it small ---------------------------------------------------------------------------------


def minimized(program: Program, failure: Failure, seed: int, seconds: float = 40.0) -> tuple[Program, Failure]:
    """Delete statements, outputs and inputs while the program still fails in the same way."""
    until, again = time.monotonic() + seconds, True
    while again and time.monotonic() < until:
        again = False
        for smaller in smaller_ones(program):
            if time.monotonic() > until:
                break
            found = still_fails(smaller, failure, seed)
            if found:
                program, failure, again = smaller, found, True
                break
    return program, failure


def still_fails(program: Program, failure: Failure, seed: int) -> Failure | None:
    with contextlib.suppress(Exception):
        if failure.kind not in ("values", "pattern") and not refused(program, failure):
            return None
        found = check(program, seed, failure)
        exact = failure.kind in ("values", "pattern")
        if found and found.kind == failure.kind and (exact or found.message[:40] == failure.message[:40]):
            return found
    return None


def refused(program: Program, failure: Failure) -> bool:
    """Whether tracing alone fails in the same way: this is quicker to find out."""
    f, structs = compiled(program.source), [jax.ShapeDtypeStruct(s, np.float64) for s in program.shapes]
    try:
        cr.jacobian(f, argnums=tuple(range(len(structs))), order=failure.order).trace(*structs)
    except Exception as error:
        return type(error).__name__ == failure.kind
    return False


def smaller_ones(program: Program) -> Iterator[Program]:
    """Every program that is smaller by one step, the largest steps first."""
    outputs = program.body.result.split(", ")
    if len(outputs) > 1:
        for one in outputs:
            yield finished(program, Body(program.body.parameters, program.body.statements, one.strip(",") + ","))
    for place in places(program.body):
        for change in (bypassed, inlined, fitted):
            body = copy.deepcopy(program.body)
            owner, k = at(body, place)
            if change(owner, k):
                yield finished(program, body)


def finished(program: Program, body: Body) -> Program:
    """Without dead statements and inputs that nothing uses."""
    body = body.without_dead()
    text = "\n".join(body.lines("f")[1:])
    used = [k for k, name in enumerate(body.parameters) if uses(text, name)] or [0]
    return Program(
        Body([body.parameters[k] for k in used], body.statements, body.result), [program.shapes[k] for k in used]
    )


Place = tuple[Any, ...]  # number, function, number, …: the way down to a statement


def places(body: Body, above: Place = ()) -> Iterator[Place]:
    for k, s in reversed(list(enumerate(body.statements))):
        yield (*above, k)
        for name, inner in s.bodies.items():
            yield from places(inner, (*above, k, name))


def at(body: Body, place: Place) -> tuple[Body, int]:
    while len(place) > 1:
        body, place = body.statements[place[0]].bodies[place[1]], place[2:]
    return body, place[0]


def bypassed(owner: Body, k: int) -> bool:
    """Its first operand stands for the statement."""
    s = owner.statements.pop(k)
    rename(owner, k, s.target, s.operands[0])
    return True


def inlined(owner: Body, k: int) -> bool:
    """The statements of a function of one array stand for its call."""
    s = owner.statements[k]
    single = [b for b in s.bodies.values() if len(b.parameters) == 1]
    if not single:
        return False
    body = single[0]
    owner.statements[k : k + 1] = body.statements
    end = Body([], [], body.result)
    for inner in [*body.statements, end]:
        rename_in(inner, body.parameters[0], s.operands[0])
    owner.statements.insert(k + len(body.statements), Statement(s.target, end.result, s.shape, s.operands))
    return True


def fitted(owner: Body, k: int) -> bool:
    """The elements of its first operand in the statement's shape stand for it."""
    s = owner.statements[k]
    text = f"fit({s.operands[0]}, {literal(s.shape)})"
    if s.text == text:
        return False
    owner.statements[k] = Statement(s.target, text, s.shape, s.operands)
    return True


def rename(owner: Body, start: int, name: str, other: str) -> None:
    for s in owner.statements[start:]:
        rename_in(s, name, other)
    owner.result = renamed(owner.result, name, other)


def rename_in(node: Statement | Body, name: str, other: str) -> None:
    if isinstance(node, Body):
        node.result = renamed(node.result, name, other)
        for s in node.statements:
            rename_in(s, name, other)
        return
    node.text = renamed(node.text, name, other)
    node.operands = [other if o == name else o for o in node.operands]
    for body in node.bodies.values():
        rename_in(body, name, other)


# the script --------------------------------------------------------------------------------------

SCRIPT = '''"""chainrule and JAX disagree: {message}

Found by tests/fuzz.py, seed {seed}, program {number}. Exit code 1: it still holds.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import chainrule as cr

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_disable_most_optimizations", True)


{helpers}


{source}


x = ({point})
numbers = tuple(range(len(x)))
n = sum(a.size for a in x)


def flat(*x):
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(f(*x))])


def theirs():
    blocks = jax.{transform}(flat, argnums=numbers)(*x)
    return np.concatenate([b.reshape(b.shape[0], a.size) for b, a in zip(blocks, x, strict=True)], axis=1)


def ours():
    J = {run}(*x)
    columns, rows = np.eye(J.shape[1]), np.eye(J.shape[0])
    by_columns = np.stack([np.concatenate([np.ravel(a) for a in jax.tree.leaves(J @ v)]) for v in columns], 1)
    by_rows = np.stack([np.concatenate([np.ravel(a) for a in jax.tree.leaves(J.T @ w)]) for w in rows])
    return {{"J.dense()": np.asarray(J.dense()), "J @ v": by_columns, "J.T @ w": by_rows}}


wanted = theirs()
print("jax.{transform}:", wanted, sep="\\n")
agreed = True
for what, got in ours().items():
    print(f"chainrule, order={order}, {{what}}:", got, sep="\\n")
    scale = max(1.0, np.abs(wanted).max(initial=0.0))
    agreed &= got.shape == wanted.shape and np.allclose(got, wanted, rtol=0.0, atol={near} * scale)
sys.exit(0 if agreed else 1)
'''


def script(program: Program, failure: Failure, seed: int, number: int) -> str:
    """A file that needs nothing of this one."""
    reference = Reference.of(compiled(program.source), program.shapes)
    run = f"cr.jacobian(f, argnums=numbers, order={failure.order!r})"
    point = "".join(f"np.array({a.tolist()!r}).reshape({literal(a.shape)}), " for a in failure.point).strip()
    return SCRIPT.format(
        message=" ".join(failure.message.split())[:300].replace('"""', "'''").replace("\\", "/"),
        seed=seed,
        number=number,
        helpers=helpers(program.source) or "# no helpers",
        source=program.source,
        point=point,
        transform="jacrev" if reference.forward is None else "jacfwd",
        run=f"jax.jit({run})" if failure.way == "jit" else run,
        order=failure.order,
        near=1e-3 if reference.single else 1e-8,
    )


# the run -----------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What a run has seen."""

    seed: int
    programs: int = 0
    skipped: int = 0
    scripts: list[Path] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)  # exceptions
    primitives: Counter[str] = field(default_factory=Counter)
    start: float = field(default_factory=time.monotonic)

    @property
    def mismatches(self) -> int:
        return len(self.scripts) + sum(count - SAME for count in self.seen.values() if count > SAME)

    def __str__(self) -> str:
        rate = self.programs / max(time.monotonic() - self.start, 1e-9)
        return (
            f"seed {self.seed}: {self.programs} programs ({rate:.2f}/s), {self.mismatches} mismatches, "
            f"{self.skipped} without a derivative in JAX, {len(self.primitives)} primitives"
        )


@contextlib.contextmanager
def settings() -> Iterator[None]:
    """JAX as a user has it, in float64; programs this small take longer to optimize than to run."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        with jax.enable_x64(True), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


def primitives_of(program: Program) -> set[str]:
    """Primitives of the program and of its tangents."""
    f, structs = compiled(program.source), [jax.ShapeDtypeStruct(s, np.float64) for s in program.shapes]
    try:
        closed = jax.make_jaxpr(lambda x, t: jax.jvp(f, x, t))(tuple(structs), tuple(structs))
    except TypeError:  # a rule for the reverse direction only
        closed = jax.make_jaxpr(f)(*structs)
    return {eqn.primitive.name for eqn in walk(closed.jaxpr)}


def fuzz(seconds: float, seed: int, out: Path, console: Console, limit: int | None = None) -> Tally:
    """Draw and check programs until the time is over, or until `limit` of them have failed."""
    tally, number = Tally(seed), 0
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with settings(), np.errstate(all="ignore"), Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=None)
        while time.monotonic() - tally.start < seconds and (limit is None or len(tally.scripts) < limit):
            number += 1
            one(tally, number, out, console)
            progress.update(task, description=str(tally))
            if number % CLEAR == 0:
                jax.clear_caches()
    return tally


def one(tally: Tally, number: int, out: Path, console: Console) -> None:
    """One program: its own numbers follow from the seed and its place in the run."""
    own = int(np.random.default_rng([tally.seed, number]).integers(2**31))
    program = Grammar(np.random.default_rng(own)).program()
    try:
        failure = check(program, own)
    except Skipped:
        tally.skipped += 1
        return
    tally.programs += 1
    tally.primitives.update(primitives_of(program))
    if failure is None:
        return
    if failure.kind not in ("values", "pattern"):
        tally.seen[f"{failure.kind}: {failure.message[:80]}"] += 1
        if tally.seen[f"{failure.kind}: {failure.message[:80]}"] > SAME:
            return
    program, failure = minimized(program, failure, own)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"mismatch_{tally.seed}_{number}.py"
    path.write_text(script(program, failure, tally.seed, number))
    tally.scripts.append(path)
    console.print(f"{path}: order={failure.order}, {failure.way}: {failure.message[:300]}", markup=False)
    console.print(program.source, markup=False)


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; give the exit code."""
    parser = argparse.ArgumentParser(description="Random programs against JAX.")
    parser.add_argument("--seconds", type=float, default=120.0, help="how long to run")
    parser.add_argument("--seed", type=int, default=None, help="to repeat a run")
    parser.add_argument("--out", type=Path, default=Path("fuzz-out"), help="folder of the scripts that show mismatches")
    given = parser.parse_args(arguments)
    seed = int(np.random.default_rng().integers(2**31)) if given.seed is None else given.seed
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"seed {seed}")
    tally = fuzz(given.seconds, seed, given.out, console)
    console.print(str(tally), markup=False)
    console.print("primitives: " + " ".join(sorted(tally.primitives)), markup=False)
    return 1 if tally.scripts else 0


if __name__ == "__main__":
    # nothing is computed before here, so XLA still reads them: they make compiling four times as fast
    if jax.__version_info__ < (0, 11):  # newer ones do not know them, and end the process
        os.environ.setdefault("XLA_FLAGS", QUICK)
    sys.exit(main())
