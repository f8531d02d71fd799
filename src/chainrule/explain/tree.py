"""The equations of a program as a tree: calls hold statements, statements hold steps and calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

from chainrule._jax import Literal
from chainrule.explain.flatten import Flat, Operation, kind_of
from chainrule.explain.source import Frame, Statement, repeats

# steps that only move entries, and those that only add what does not depend on the inputs
_MOVES = {"slice", "squeeze", "reshape", "transpose", "broadcast_in_dim", "convert_element_type", "copy", "expand_dims"}
_SHIFTS = _MOVES | {"add", "sub"}


@dataclass(eq=False)
class Step:
    """Equations that one operation of a statement stands for."""

    scope: Scope
    frame: Frame | None
    operations: list[Operation]

    @property
    def primitives(self) -> list[str]:
        return list(dict.fromkeys(o.eqn.primitive.name for o in self.operations))

    @property
    def signature(self) -> Any:
        shapes = tuple(kind_of(v) for o in self.operations for v in o.eqn.outvars)
        place = self.frame and (self.frame.code, self.frame.offset)
        return ("step", place, tuple(o.eqn.primitive.name for o in self.operations), shapes)


@dataclass(eq=False)
class Scope:
    """A call, a statement or a repetition with its steps and other scopes; `iteration` counts runs of a loop in it."""

    kind: str
    parent: Scope | None
    statement: Statement | None = None
    code: CodeType | None = None
    items: list[Step | Scope] = field(default_factory=list)
    iteration: int = 0
    times: int = 1
    name: str = ""

    @property
    def signature(self) -> Any:
        line = self.statement and (self.statement.file, self.statement.line)
        own = line if self.kind == "line" else self.code
        return (self.kind, own, tuple(item.signature for item in self.items))

    def steps(self) -> Iterator[Step]:
        for item in self.items:
            if isinstance(item, Step):
                yield item
            else:
                yield from item.steps()

    def around(self) -> Iterator[Scope]:
        """The scope and those that hold it, from within."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.parent


def tree_of(flat: Flat, active: set[Any]) -> Scope:
    """The tree of the operations whose results depend on the inputs."""
    root = Scope("function", None)
    builder = _Builder(root)
    for operation in flat.operations:
        builder.add(operation, any(v in active for v in operation.eqn.outvars))
    return root


@dataclass
class _Level:
    """A user's frame under way: its place in the stack, its scope, and the statement in it."""

    at: int
    frame: Frame
    call: Scope
    line: Scope


class _Builder:
    def __init__(self, root: Scope) -> None:
        self.root, self.open = root, list[_Level]()
        self.last: tuple[Frame, ...] = ()
        self.first: Any = None  # how the operation of the user's that is under way began

    def add(self, operation: Operation, active: bool) -> None:
        stack = operation.stack
        # equations of a function that is inlined share one stack: only the same one is a repetition
        own = (stack, operation.eqn.primitive, tuple(kind_of(v) for v in operation.eqn.outvars))
        alive, restart = _compared(self.last, stack, again=own == self.first)
        if restart is not None or _of_user(stack) != _of_user(self.last):
            self.first = own
        self.last = stack
        kept = [level for level in self.open if level.at < alive]
        if restart is not None and kept:
            kept[-1].call.iteration += 1
        levels: list[_Level] = []
        fresh = False
        for at, frame in enumerate(stack):
            if not frame.by_user:
                continue
            old = kept[len(levels)] if len(levels) < len(kept) and not fresh else None
            restarted = old is not None and old.at == restart
            levels.append(self._level(at, frame, old, restarted, levels, operation.branch))
            fresh = old is None or levels[-1].line is not old.line
        self.open = levels
        if active:
            self._into_step(operation, levels)

    def _level(
        self, at: int, frame: Frame, old: _Level | None, restarted: bool, outer: list[_Level], branch: str
    ) -> _Level:
        if old is not None:
            call = old.call
        elif not outer:
            call = self.root
        else:
            entry = "branch" if frame.entry == "branch" else frame.entry
            name = branch if entry == "branch" else frame.code.co_name
            call = Scope(entry, outer[-1].line, None, frame.code, name=name)
            outer[-1].line.items.append(call)
        found = frame.statement
        if old is not None and not restarted and old.line.statement == found:
            return _Level(at, frame, call, old.line)
        line = Scope("line", call, found, frame.code, iteration=call.iteration)
        call.items.append(line)
        return _Level(at, frame, call, line)

    def _into_step(self, operation: Operation, levels: list[_Level]) -> None:
        scope = levels[-1].line if levels else self.root
        frame = levels[-1].frame if levels else None
        last = scope.items[-1] if scope.items else None
        known = last.frame if isinstance(last, Step) else None
        if isinstance(last, Step) and known and frame and known.offset == frame.offset:
            last.operations.append(operation)
        else:
            scope.items.append(Step(scope, frame, [operation]))


def _of_user(stack: Sequence[Frame]) -> list[Frame]:
    return [frame for frame in stack if frame.by_user]


def _compared(last: Sequence[Frame], new: Sequence[Frame], again: bool) -> tuple[int, int | None]:
    """(how many frames of the stack are still under way, the one that began its loop anew).

    again : whether this is how the operation under way began.
    """
    shorter = min(len(last), len(new))
    pairs = zip(last, new, strict=False)
    at = next((k for k, (a, b) in enumerate(pairs) if a.code is not b.code or a.offset != b.offset), shorter)
    within = not any(frame.by_user for frame in (*last[at:], *new[at:]))  # of one operation
    if within or at == shorter:
        found = _looping(new, at) if within and again else None
        return (at, None) if found is None else (found + 1, found)
    if last[at].code is not new[at].code:
        return at, None
    if new[at].offset > last[at].offset:
        return at + 1, None
    if repeats(new[at].code, new[at].offset, last[at].offset):
        return at + 1, at if new[at].by_user else None
    found = _looping(new, at)
    return (at, None) if found is None else (found + 1, found)


def _looping(stack: Sequence[Frame], stop: int) -> int | None:
    """The innermost frame of the user's that is inside a loop."""
    inside = (k for k in range(stop - 1, -1, -1) if stack[k].by_user)
    return next((k for k in inside if repeats(stack[k].code, stack[k].offset, stack[k].offset)), None)


# merging ------------------------------------------------------------------------------------------


class Uses:
    """Which steps make and read each variable, while steps are joined; None stands for the outputs."""

    def __init__(self, root: Scope, outvars: Sequence[Any], active: set[Any]) -> None:
        self.active = active
        self.holder = {o: step for step in root.steps() for o in step.operations}
        self.maker = {v: o for o in self.holder for v in o.eqn.outvars}
        self.readers: dict[Any, list[Operation | None]] = {}
        for o in self.holder:
            for v in _variables(o.eqn.invars):
                self.readers.setdefault(v, []).append(o)
        for v in _variables(outvars):
            self.readers.setdefault(v, []).append(None)

    def made_by(self, v: Any) -> Step | None:
        return self.holder.get(self.maker.get(v))  # type: ignore[arg-type]

    def read_by(self, v: Any) -> set[Step | None]:
        return {self.holder[o] if o else None for o in self.readers.get(v, [])}

    def operands(self, step: Step) -> list[Any]:
        """The active variables that a step reads and does not make, in order."""
        read = dict.fromkeys(v for o in step.operations for v in _variables(o.eqn.invars))
        return [v for v in read if v in self.active and self.made_by(v) is not step]

    def results(self, step: Step) -> list[Any]:
        """The active variables that others read."""
        made = [v for o in step.operations for v in o.eqn.outvars if v in self.active]
        return [v for v in made if self.read_by(v) - {step}]

    def hold(self, step: Step, operations: Sequence[Operation]) -> None:
        self.holder.update(dict.fromkeys(operations, step))


def _variables(atoms: Sequence[Any]) -> list[Any]:
    return [v for v in atoms if not isinstance(v, Literal)]


def merge(root: Scope, outvars: Sequence[Any], active: set[Any], whole_lines: bool) -> Uses:
    """Join, within a statement, steps that only move entries or add a constant with their neighbours."""
    if whole_lines:
        _join_neighbours(root)
    uses = Uses(root, outvars, active)
    for step in list(root.steps()):
        operands = uses.operands(step)
        source = uses.made_by(operands[0]) if len(operands) == 1 else None
        shift = set(step.primitives) <= _SHIFTS and source is not None and source.scope is step.scope
        if shift and source and uses.read_by(operands[0]) == {step} and uses.results(source) == operands:
            source.operations += step.operations
            source.frame = step.frame
            uses.hold(source, step.operations)
            _move(source, step)
            continue
        for v in operands:
            source = uses.made_by(v)
            if source and source.scope is step.scope and _only_moves(source, v, step, uses):
                step.operations[:0] = source.operations
                uses.hold(step, source.operations)
                source.scope.items.remove(source)
    return uses


def _move(kept: Step, gone: Step) -> None:
    """Put one step at the place of another one."""
    items = gone.scope.items
    items.remove(kept)
    items[items.index(gone)] = kept


def _only_moves(step: Step, v: Any, user: Step, uses: Uses) -> bool:
    return set(step.primitives) <= _MOVES and uses.results(step) == [v] and uses.read_by(v) == {user}


def _join_neighbours(scope: Scope) -> None:
    joined: list[Step | Scope] = []
    for item in scope.items:
        if isinstance(item, Scope):
            _join_neighbours(item)
        last = joined[-1] if joined else None
        if scope.kind == "line" and isinstance(item, Step) and isinstance(last, Step):
            last.operations += item.operations
            last.frame = item.frame
        else:
            joined.append(item)
    scope.items = joined


# folding ------------------------------------------------------------------------------------------


def collapse(scope: Scope) -> None:
    """Drop scopes without steps, and scopes around a single thing."""
    items: list[Step | Scope] = []
    for item in scope.items:
        if isinstance(item, Scope):
            collapse(item)
            if not item.items:
                continue
            if len(item.items) == 1:
                items.append(_only(item))
                continue
        items.append(item)
    scope.items = items
    for item in items:
        _adopt(scope, item)


def _only(scope: Scope) -> Step | Scope:
    """What a scope holds, in its place: a call keeps its name, a line its text."""
    [inner] = scope.items
    if isinstance(inner, Scope) and scope.kind != "line" and inner.kind == "line":
        inner.kind, inner.code, inner.name, inner.statement = scope.kind, scope.code, scope.name, scope.statement
    elif isinstance(inner, Scope) and scope.kind == "line":
        inner.statement, inner.iteration = scope.statement or inner.statement, scope.iteration
    return inner


def _adopt(scope: Scope, item: Step | Scope) -> None:
    if isinstance(item, Step):
        item.scope = scope
    else:
        item.parent = scope


def dissolve(root: Scope) -> None:
    """Where the whole function is one call or line, show what is in it."""
    while len(root.items) == 1 and isinstance(root.items[0], Scope):
        root.items = root.items[0].items
        for item in root.items:
            _adopt(root, item)


def fold_repeats(scope: Scope, least: int = 3) -> None:
    """Join at least three equal neighbours, or equal runs of neighbours, into one repetition."""
    for item in scope.items:
        if isinstance(item, Scope):
            fold_repeats(item, least)
    signatures = [hash(item.signature) for item in scope.items]
    at, items = 0, list[Step | Scope]()
    while at < len(scope.items):
        period, times = _period(signatures, at, least)
        if not period or times * period == len(scope.items) == 1:
            items.append(scope.items[at])
            at += 1
            continue
        items.append(_repetition(scope, scope.items[at : at + period * times], period, times))
        at += period * times
    scope.items = items


def _period(signatures: list[int], at: int, least: int) -> tuple[int, int]:
    for period in range(1, (len(signatures) - at) // least + 1):
        times = 1
        while signatures[at + times * period : at + (times + 1) * period] == signatures[at : at + period]:
            times += 1
            if at + times * period >= len(signatures):
                break
        if times >= least:
            return period, times
    return 0, 0


def _repetition(scope: Scope, items: list[Step | Scope], period: int, times: int) -> Scope:
    first = items[0]
    text = first.statement if isinstance(first, Scope) else None
    name = first.name if isinstance(first, Scope) and period == 1 else "loop"
    whole = Scope("repeat", scope, text, getattr(first, "code", None), times=times, name=name or "loop")
    for k in range(times):
        own = items[k * period : (k + 1) * period]
        if period > 1:
            run = Scope("line", whole, text, None, own, iteration=k, name=f"{k + 1}")
            for item in own:
                _adopt(run, item)
            own = [run]
        whole.items += own
        for item in own:
            _adopt(whole, item)
    return whole
