"""Which line of the user's own source an equation comes from: its frames, statements and names."""

from __future__ import annotations

import ast
import dis
import functools
import linecache
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

import jax

_OWN = str(Path(__file__).parents[1])
_LESSONS = str(Path(__file__).parent / "lessons")  # functions to be explained like a user's
_LIBRARIES = (str(Path(jax.__file__).parent), _OWN, *(sysconfig.get_path(k) for k in ("stdlib", "platstdlib")))
_INSTALLED = ("site-packages", "dist-packages")


@dataclass(frozen=True)
class Statement:
    """A statement of the source, as text; `targets` are the names that it gives, None for a return value."""

    file: str
    line: int
    text: str
    function: str
    targets: tuple[str, ...] | None
    tree: ast.AST | None

    def place(self) -> dict[str, Any]:
        return {"file": Path(self.file).name, "line": self.line, "function": self.function}


@dataclass(frozen=True, eq=False)
class Frame:
    """A place in a function under way: its code and the offset of the instruction; `entry` is how it was entered.

    `Frames` makes one for each place, so that what is read in the source is read once.
    """

    code: CodeType
    offset: int
    entry: str = "call"

    @functools.cached_property
    def by_user(self) -> bool:
        return _by_user(self.code.co_filename)

    @functools.cached_property
    def position(self) -> tuple[int, int, int, int] | None:
        """(line, last line, column, last column) of what the instruction computes."""
        places = _positions(self.code)
        at: Any = places[self.offset // 2] if 0 <= self.offset // 2 < len(places) else (None,) * 4
        return None if any(p is None for p in at) else at

    @functools.cached_property
    def statement(self) -> Statement | None:
        """The statement that is under way."""
        return _statement(self)

    @functools.cached_property
    def expression(self) -> tuple[str, ast.AST | None]:
        """The text and the tree of what the instruction computes."""
        return _expression(self)


@functools.cache
def _by_user(file: str) -> bool:
    if file.startswith(_LESSONS):
        return True
    if any(name in file.split("/") for name in _INSTALLED):
        return not file.startswith(_LIBRARIES[:2])
    return not file.startswith(_LIBRARIES) and not file.startswith("<frozen")


class Frames:
    """The frames in which equations were traced, each made once: equations of one place share their stack."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, str], Frame] = {}  # a frame holds its code: ids are not used again
        self._stacks: dict[tuple[Any, str], tuple[Frame, ...]] = {}

    def of(self, eqn: Any, entry: str) -> tuple[Frame, ...]:
        """From the traced function inwards; the user's first one was entered in this way."""
        trace = getattr(getattr(eqn, "source_info", None), "traceback", None)
        if trace is None or not hasattr(trace, "raw_frames"):
            return ()
        if (trace, entry) not in self._stacks:
            codes, offsets = trace.raw_frames()
            found = [self._frame(c, o) for c, o in zip(reversed(codes), reversed(offsets), strict=True)]
            first = next((k for k, frame in enumerate(found) if frame.by_user), None)
            if first is not None and entry != "call":
                found[first] = self._frame(found[first].code, found[first].offset, entry)
            self._stacks[trace, entry] = tuple(found)
        return self._stacks[trace, entry]

    def _frame(self, code: CodeType, offset: int, entry: str = "call") -> Frame:
        key = id(code), offset, entry
        if key not in self._known:
            self._known[key] = Frame(code, offset, entry)
        return self._known[key]


@functools.cache
def loops(code: CodeType) -> tuple[tuple[int, int], ...]:
    """The ranges of instructions that a jump backwards repeats."""
    jumps = (i for i in dis.get_instructions(code) if "JUMP_BACKWARD" in i.opname)
    return tuple((i.argval, i.offset) for i in jumps)


def repeats(code: CodeType, start: int, stop: int) -> bool:
    """Whether a loop of this code leads from one instruction back to another."""
    return any(low <= start and stop <= high for low, high in loops(code))


@functools.cache
def _positions(code: CodeType) -> tuple[Any, ...]:
    return tuple(code.co_positions())


@functools.lru_cache(maxsize=256)
def _parsed(file: str, lines: tuple[str, ...]) -> tuple[list[ast.stmt], list[ast.Lambda]]:
    try:
        nodes = list(ast.walk(ast.parse("".join(lines))))
    except (SyntaxError, ValueError, RecursionError):
        return [], []
    return [n for n in nodes if isinstance(n, ast.stmt)], [n for n in nodes if isinstance(n, ast.Lambda)]


def lines_of(file: str) -> list[str]:
    linecache.checkcache(file)
    return linecache.getlines(file)


def _statement(frame: Frame) -> Statement | None:
    at, code = frame.position, frame.code
    if at is None:
        return None
    lines = lines_of(code.co_filename)
    function = code.co_name
    if not lines:
        return Statement(code.co_filename, at[0], "", function, (), None)
    statements, lambdas = _parsed(code.co_filename, tuple(lines))
    around = [n for n in statements if n.lineno <= at[0] and at[1] <= (n.end_lineno or n.lineno)]
    if function == "<lambda>":
        own = [n for n in lambdas if _holds(n.body, at)]
        if own:
            body = min(own, key=_extent).body
            return Statement(code.co_filename, body.lineno, _segment(lines, body), function, None, body)
    if not around:
        return Statement(code.co_filename, at[0], lines[at[0] - 1].strip()[:500], function, (), None)
    node = max(around, key=lambda n: (n.lineno, n.col_offset))
    return Statement(code.co_filename, node.lineno, _head(lines, node), function, _targets(node), _value(node))


def _expression(frame: Frame) -> tuple[str, ast.AST | None]:
    at = frame.position
    lines = lines_of(frame.code.co_filename)
    if at is None or not lines:
        return "", None
    text = _cut(lines, at[0], at[1], at[2], at[3])
    try:
        return text, ast.parse(f"({text})", mode="eval").body
    except (SyntaxError, ValueError, RecursionError):
        return text, None


def _holds(node: Any, at: Sequence[int]) -> bool:
    start, stop = (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)
    return start <= (at[0], at[2]) and (at[1], at[3]) <= stop


def _extent(node: Any) -> tuple[int, int]:
    return node.end_lineno - node.lineno, node.end_col_offset - node.col_offset


def _segment(lines: Sequence[str], node: Any) -> str:
    return _cut(lines, node.lineno, node.end_lineno, node.col_offset, node.end_col_offset)


def _cut(lines: Sequence[str], first: int, last: int, start: int, stop: int) -> str:
    """The source between two places, on one line; columns count bytes."""
    chosen = [line.encode() for line in lines[first - 1 : last]]
    if not chosen:
        return ""
    chosen[-1] = chosen[-1][:stop]
    chosen[0] = chosen[0][start:]
    return " ".join(line.decode(errors="replace").strip() for line in chosen)[:500]


def _head(lines: Sequence[str], node: ast.stmt) -> str:
    """A statement as text; of a compound one its first line."""
    if hasattr(node, "body"):
        return lines[node.lineno - 1].strip()[:500]
    return _segment(lines, node)


def _value(node: ast.stmt) -> ast.AST | None:
    return getattr(node, "value", None)


def _targets(node: ast.stmt) -> tuple[str, ...] | None:
    if isinstance(node, ast.Return):
        return None
    if isinstance(node, ast.Assign):
        return _names(node.targets[0])
    if isinstance(node, (ast.AugAssign, ast.AnnAssign)):
        return _names(node.target)
    return ()


def _names(target: ast.expr) -> tuple[str, ...]:
    if isinstance(target, ast.Name):
        return (target.id,)
    if isinstance(target, ast.Attribute):
        return (target.attr,)
    if isinstance(target, (ast.Tuple, ast.List)):
        return tuple(name for part in target.elts for name in (_names(part) or ("",))[:1])
    return ()


def source_of(f: Any) -> tuple[str | None, int | None, list[dict[str, Any]]]:
    """(file, line, numbered lines) of a function, where its source is known."""
    import inspect

    try:
        lines, first = inspect.getsourcelines(inspect.unwrap(f))
        file = inspect.getsourcefile(inspect.unwrap(f))
    except (OSError, TypeError, ValueError):
        return None, None, []
    numbered = [{"line": first + k, "text": line.rstrip("\n")[:500]} for k, line in enumerate(lines[:200])]
    return (Path(file).name if file else None), first, numbered
