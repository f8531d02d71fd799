"""What `check` found: values, and how they read in a terminal, on a page, and in a file."""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chainrule._errors import CheckError

_WIDTH, _HEIGHT, _EDGE = 460, 260, 40  # pixels of the plot
_COLOURS = {"fails": "#c0392b", "not Lipschitz": "#b9770e", "smooth": "#2471a3"}
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "td,th{text-align:left;padding:.15rem 1rem .15rem 0;vertical-align:top}code{font-size:.93em}"
)


@dataclass(frozen=True)
class Finding:
    """Something that is wrong; `kind` is one word for a program, `places` are file:line, the first one to blame first.

    The kinds: 'not finite', 'edge', 'jump', 'cusp', 'kink', 'not linear', 'wrong derivative', 'rules disagree'.
    """

    kind: str
    message: str
    places: tuple[str, ...] = ()


@dataclass(frozen=True)
class Direction:
    """The remainder along one path through x, of the output where it behaves worst.

    name : which one. order : of the remainder, inf where there is none. status : 'smooth', 'not Lipschitz', 'fails'.
    output : which one. slope : of J, for a direction of length 1; ahead, behind : of f on either side. lengths : of h;
    remainders : at these. vector : the direction where x has few entries.
    """

    name: str
    order: float
    status: str
    output: str
    slope: float
    ahead: float
    behind: float
    lengths: tuple[float, ...]
    remainders: tuple[float, ...]
    vector: tuple[float, ...] = ()


@dataclass(frozen=True)
class NearSwitch:
    """A step of the program that switches, or is singular, near x.

    kind : what it is. effect : 'kink', 'jump' or 'singular'. place, code : the line that wrote it. within : the
    functions it stands in. distance : |a − b|. move : the ‖dx‖ that closes it to first order, `relative` to ‖x‖.
    at_x : whether x lies on it, within rounding. count : how many of its entries do. steps : of the loops around it.
    """

    kind: str
    effect: str
    place: str
    code: str
    within: tuple[str, ...]
    distance: float
    move: float
    relative: float
    at_x: bool
    count: int
    steps: tuple[int, ...] = ()

    def __str__(self) -> str:
        where = f"at x, {self.count} entries" if self.count > 1 else "at x"
        near = where if self.at_x else f"|a − b| = {self.distance:.2g}, ‖dx‖ = {self.move:.2g}"
        inside = f" in {self.within[-1]}" if self.within else ""
        return f"{self.kind}{inside} ({self.effect}), {near}{of_loop(self.steps)}: {self.place}  {self.code}".rstrip()


def of_loop(steps: Sequence[Any]) -> str:
    """At which steps of the loops around it, in words."""
    return f", step {', '.join(str(int(k)) for k in steps)} of the loop" if len(steps) else ""


@dataclass(frozen=True, repr=False)
class CheckReport:
    """What `check` gives: print it, `assert_ok()` it in a test, `save` it as a page.

    Attributes
    ----------
    name, place : of the function. ok : whether f is differentiable at x and its derivative right. verdict : in words.
    findings : what is wrong, each a `Finding`. directions : a `Direction` for each path that was tried.
    switches : the steps of the program that switch nearby, the nearest first. shape : (outputs, inputs). dtype : of x.
    notes : what could not be done, and what else is worth knowing.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> report = cr.check(lambda x: jnp.maximum(x, 0.0) ** 2)(jnp.array([0.0, 1.0]))
    >>> report.ok, report.switches[0].kind, report.switches[0].at_x
    (True, 'max', True)
    """

    name: str
    place: str
    ok: bool
    verdict: str
    shape: tuple[int, int]
    dtype: str
    findings: tuple[Finding, ...]
    directions: tuple[Direction, ...]
    switches: tuple[NearSwitch, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        place = f" ({self.place})" if self.place else ""
        m, n = self.shape
        lines = [f"check of {self.name}{place}: {self.verdict}", f"  {m:,} outputs × {n:,} inputs, {self.dtype}"]
        for finding in self.findings:
            lines += ["", f"  {finding.kind.upper()}  {finding.message}", *[f"      {p}" for p in finding.places]]
        if self.directions:
            lines += ["", f"  remainder ‖f(x + h) − f(x) − J h‖ along {len(self.directions)} directions"]
            lines += [f"    {line}" for line in self._table()]
        if self.switches:
            lines += ["", "  switches near x", *[f"    {s}" for s in self.switches]]
        return "\n".join([*lines, *([""] if self.notes else []), *[f"  note: {note}" for note in self.notes]])

    __repr__ = __str__

    def _table(self) -> list[str]:
        """The directions that fail, or the worst, and the count of all others."""
        shown = [d for d in self.directions if d.status == "fails"][:3] or list(self.directions[:1])
        rows = [f"{d.status:13} order {_order(d.order):>6}  {d.name}, {d.output}" for d in shown]
        rest = [d for d in self.directions if d not in shown]
        if not rest:
            return rows
        low = min(d.order for d in rest)
        failing = sum(d.status == "fails" for d in rest)
        also = f", {failing} of them fail" if failing else ""
        return [*rows, f"{len(rest)} more: order {_order(low)}{'' if math.isinf(low) else ' or more'}{also}"]

    def to_dict(self) -> dict[str, Any]:
        """The report as values that JSON knows; numbers that are not finite are None."""
        return _plain(dataclasses.asdict(self))

    def assert_ok(self) -> CheckReport:
        """Raise CheckError, an AssertionError, with the report where it is not ok; else give it back."""
        if not self.ok:
            raise CheckError(str(self))
        return self

    def save(self, path: str | Path) -> None:
        """Write the report as a page that needs nothing else."""
        title = html.escape(f"check of {self.name}")
        head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        Path(path).write_text(
            f"<!doctype html><html lang=en><head>{head}</head><body>{self._repr_html_()}</body></html>"
        )

    def _repr_html_(self) -> str:
        m, n = self.shape
        sign = "✓" if self.ok else "✗"
        colour = _COLOURS["smooth" if self.ok else "fails"]
        parts = [
            f'<h3><span style="color:{colour}">{sign}</span> <code>{html.escape(self.name)}</code></h3>',
            f"<p><b>{html.escape(self.verdict)}</b></p>",
            f"<p>{html.escape(self.place)} · {m:,} outputs × {n:,} inputs, {html.escape(self.dtype)}</p>",
            _rows(["", "what is wrong", "where"], [[f.kind, f.message, *["; ".join(f.places)]] for f in self.findings]),
            _plot(self.directions),
            _rows(
                ["direction", "order", "", "worst output", "slope of J", "of f ahead", "of f behind"],
                [[d.name, _order(d.order), d.status, d.output, *_numbers(d.slope, d.ahead, d.behind)]
                 for d in self.directions],
            ),
            _rows(
                ["switch near x", "effect", "where", "code", "|a − b|", "‖dx‖ to it", "step"],
                [[s.kind, s.effect, s.place, s.code, *_numbers(s.distance, s.move), ", ".join(map(str, s.steps))]
                 for s in self.switches],
            ),
            *[f"<p>{html.escape(note)}</p>" for note in self.notes],
        ]  # fmt: skip
        return f"<div>{''.join(parts)}</div>"


def _order(order: float) -> str:
    return "exact" if math.isinf(order) else f"{order:.2f}".replace("-0.00", "0.00")


def _numbers(*values: float) -> list[str]:
    return [f"{v:.3g}" for v in values]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _rows(heads: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return ""
    top = "".join(f"<th>{html.escape(head)}</th>" for head in heads)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _plot(directions: tuple[Direction, ...]) -> str:
    """The remainders over the lengths, both logarithmic, as an SVG picture."""
    drawn = [
        (
            d,
            [
                (math.log10(t), math.log10(r))
                for t, r in zip(d.lengths, d.remainders, strict=True)
                if 1e-290 < r < 1e290
            ],
        )
        for d in directions
    ]
    points = [p for _, line in drawn for p in line]
    if not points:
        return ""
    (left, right), (low, high) = [(min(axis), max(axis)) for axis in zip(*points, strict=True)]

    def place(point: tuple[float, float]) -> str:
        x = _EDGE + (point[0] - left) / (right - left or 1) * (_WIDTH - 2 * _EDGE)
        return f"{x:.1f},{_HEIGHT - _EDGE - (point[1] - low) / (high - low or 1) * (_HEIGHT - 2 * _EDGE):.1f}"

    lines = "".join(
        f'<polyline fill="none" stroke="{_COLOURS[d.status]}" points="{" ".join(map(place, line))}">'
        f"<title>{html.escape(f'{d.name}: order {_order(d.order)}')}</title></polyline>"
        for d, line in drawn
    )
    texts = [
        (_EDGE, _HEIGHT - 14, f"‖h‖ from 1e{round(left)} to 1e{round(right)}"),
        (_EDGE, 20, f"‖f(x + h) − f(x) − J h‖ from 1e{round(low)} to 1e{round(high)}"),
    ]
    labels = "".join(f'<text x="{x}" y="{y}" font-size="12" fill="currentColor">{t}</text>' for x, y, t in texts)
    return f'<svg width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="remainders">{lines}{labels}</svg>'
