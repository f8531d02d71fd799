"""From what was measured to what is wrong: the findings of `check`, each with the steps to blame."""

from __future__ import annotations

import linecache
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from chainrule._check.agreement import entry_name
from chainrule._check.flow import Reading
from chainrule._check.remainder import Directions, Ladders, Orders, at_step, lost_sides, orders_of, size_of
from chainrule._check.report import CheckReport, Direction, Finding, NearSwitch, of_loop

_KINK, _SMOOTH = 1.15, 1.8  # orders below: not differentiable; derivative not Lipschitz
_CUSP, _JUMP = 0.85, 0.3
_SHOWN = 12  # switches
_NEAR = {"kink": 1.0, "jump": 1.0, "singular": 0.1}  # how far, relative to x, they are worth a line
_SIDES = 0.02  # by which two one-sided slopes differ where there is a kink
_RULE = 10.0  # times the tolerance, by which quotients may miss a rule
_TITLES = {
    "not finite": "NOT FINITE",
    "edge": "NOT DIFFERENTIABLE: f is not finite on one side of x",
    "jump": "NOT DIFFERENTIABLE: f jumps",
    "cusp": "NOT DIFFERENTIABLE: a slope is infinite",
    "kink": "NOT DIFFERENTIABLE: f has a kink",
    "not linear": "NOT DIFFERENTIABLE: the slopes are not linear in the direction",
    "wrong derivative": "WRONG DERIVATIVE",
    "rules disagree": "RULES DISAGREE",
}


class Worst(NamedTuple):
    """Of one direction, the side and the output where the remainder has the lowest order."""

    direction: int
    side: int
    output: int  # among those of the ladders
    order: float
    at: int  # the step of the ladder where the fit begins
    slope: float
    ahead: float
    behind: float
    severity: float

    @property
    def both_sides(self) -> bool:
        """Whether f has the same slope on either side."""
        size = max(abs(self.ahead), abs(self.behind), abs(self.slope), 1e-290)
        off = max(abs(self.ahead - self.slope), abs(self.behind - self.slope))
        return abs(self.ahead - self.behind) <= _SIDES * min(size, max(off, 1e-290))


def compose(
    name: str, place: str, subject: Any, native: Any, dtype: str, ladders: Any, notes: Sequence[str]
) -> CheckReport:
    """Judge, blame and describe."""
    switches = list(_switches(subject))
    findings = list(_not_finite(native))
    directions: tuple[Direction, ...] = ()
    rest = list(notes)
    if ladders:
        laid, found = ladders
        orders = orders_of(found, subject.tol)
        worst = [_worst(laid, found, orders, k) for k in range(len(laid.kinds))]
        findings += _of_ladders(subject, laid, found, worst, switches)
        directions = tuple(_direction(subject, laid, found, w) for w in worst)
    findings += _disagreeing(subject)
    findings = sorted(findings, key=lambda f: list(_TITLES).index(f.kind))
    if subject.back is None:
        rest.append("JAX has no reverse derivative of it: a loop of unknown length, or a rule that has no transpose")
    blamed, shows = {p for f in findings for p in f.places}, "" if findings else ", which does not show in f"
    rest += [f"a rule deviates at its own inputs{shows}: {p}" for p in _wrong_rules(subject) if p not in blamed]
    return CheckReport(
        name, place, not findings, _verdict(findings, directions), (len(subject.value), subject.x.size),
        dtype, tuple(findings), directions, tuple(switches[:_SHOWN]), tuple(rest),
    )  # fmt: skip


def _verdict(findings: Sequence[Finding], directions: Sequence[Direction]) -> str:
    if findings:
        return _TITLES[findings[0].kind]
    if any(d.status == "not Lipschitz" for d in directions):
        return "differentiable, and its derivative is right; the derivative is not Lipschitz at x"
    return "differentiable, and its derivative is right"


# places ------------------------------------------------------------------------------------------


def _at(place: tuple[str, int] | None) -> str:
    return f"{Path(place[0]).name}:{place[1]}" if place else "an unknown line"


def _code(place: tuple[str, int] | None) -> str:
    return linecache.getline(*place).strip() if place else ""


def _step_name(subject: Any, path: Any, steps: Any) -> str:
    """An equation as a person finds it: its primitive, the function around it, the line, the step of a loop."""
    site = subject.sites[path]
    within = f" in {site.within[-1]}" if site.within else ""
    return f"{site.name}{within} at {_at(site.place)}{of_loop(steps)}  {_code(site.place)}".rstrip()


def _found(subject: Any, what: str) -> list[tuple[Any, Reading]]:
    """The readings of a kind, in the order of the program."""
    return sorted(((path, r) for (path, kind), r in subject.readings.items() if kind == what), key=lambda pair: pair[0])


def _switches(subject: Any) -> Iterator[NearSwitch]:
    size, eps = size_of(np.asarray(subject.x)) or 1.0, 64 * subject.tol.eps
    rows: dict[Any, NearSwitch] = {}
    for path, r in sorted(_found(subject, "switch"), key=lambda pair: float(pair[1].near)):
        site, (distance, move, count, _, *_rest) = subject.sites[path], [float(v) for v in r.numbers]
        kind = ", ".join(sorted(site.decides)) or site.kind  # a comparison goes by what it decides
        near, at_x = move / size, move <= eps * size
        if not (at_x or near <= _NEAR[site.effect]):
            continue
        one = NearSwitch(
            kind, site.effect, _at(site.place), _code(site.place), site.within, distance, move, near, at_x,
            max(int(count), int(at_x)), tuple(int(k) for k in r.steps),
        )  # fmt: skip
        rows.setdefault((one.kind, one.place, one.within), one)
    yield from rows.values()


# findings ----------------------------------------------------------------------------------------


def _not_finite(subject: Any) -> Iterator[Finding]:
    if not np.isfinite(subject.x).all():
        yield Finding("not finite", "x itself is not finite")
        return
    first = {what: [p for p in _found(subject, what) if p[1].near == 0] for what in ("value", "slope")}
    first["value"].sort(key=lambda p: not p[1].numbers[0])  # a constant may well be -inf, as in a mask
    if not np.isfinite(subject.value).all():
        k = int(np.argmax(~np.isfinite(subject.value)))
        yield _made(subject, f"f(x) is {subject.value[k]} at {_output(subject, k)}", first["value"])
    elif not np.isfinite(subject.forward).all():
        k = int(np.argmax(~np.isfinite(subject.forward)))
        text = f"f(x) is finite, but J is not, at {_output(subject, k)}"
        yield _made(subject, text, first["slope"] or first["value"])
    elif subject.back is not None and not np.isfinite(subject.back).all():
        k = int(np.argmax(~np.isfinite(subject.back)))
        text = (
            f"the gradient is {subject.back[k]} at {_input(subject, k)}, though f(x) and J v are finite: a step that "
            "is masked (by where) is still differentiated, and 0 · ∞ is NaN; mask its argument too"
        )
        yield _made(subject, text, [*first["slope"][:3], *first["value"][:3]][:2])


def _made(subject: Any, text: str, blamed: Sequence[tuple[Any, Reading]]) -> Finding:
    places = [f"first made by {_maker(subject, path, r)}" for path, r in blamed[:1]]
    places += [f"then by {_maker(subject, path, r)}" for path, r in blamed[1:3] if path != blamed[0][0]]
    return Finding("not finite", text, tuple(places))


def _maker(subject: Any, path: Any, r: Reading) -> str:
    constant = " (from a constant that is not finite)" if r.numbers.size and not r.numbers[0] else ""
    return _step_name(subject, path, r.steps) + constant


def _disagreeing(subject: Any) -> Iterator[Finding]:
    limit = 0.1 * subject.tol.relative
    blamed = [(p, r) for p, r in _found(subject, "transpose") if r.numbers[0] > limit]
    places = tuple(
        f"{_step_name(subject, p, r.steps)}: off by {_percent(r.numbers[0])} at its own inputs" for p, r in blamed
    )
    if subject.disagreement > limit:
        text = f"⟨w, J v⟩ and ⟨Jᵀ w, v⟩ differ by {_percent(subject.disagreement)}: forward and reverse rules disagree"
        yield Finding("rules disagree", text, places)
    if subject.nonlinear > limit:
        text = f"J (−2 v) is not −2 J v: a rule is not linear in the tangent, by {_percent(subject.nonlinear)}"
        yield Finding("rules disagree", text, tuple(_wrong_rules(subject)))
    if subject.skewed > limit:
        text = f"Jᵀ (−2 w) is not −2 Jᵀ w: a rule is not linear in the cotangent, by {_percent(subject.skewed)}"
        yield Finding("rules disagree", text, tuple(_wrong_rules(subject)) or _reverse_rules(subject))


def _percent(share: float) -> str:
    return f"{100 * float(share):.2g} %"


def _wrong_rules(subject: Any) -> list[str]:
    """Custom rules that miss the quotients of their own function, and by how much."""
    wrong = []
    for path, r in _found(subject, "rule"):
        if r.numbers[0] > _RULE * subject.tol.relative:
            site = subject.sites[path]
            name, _, file = site.kind.partition(" at ")
            defined = f" ({Path(file).name})" if file else ""
            kind = site.name.removesuffix("_call")
            off = f"off by {_percent(r.numbers[0])} at its own inputs"
            called = f"called at {_at(site.place)}{of_loop(r.steps)}"
            wrong.append(f"the {kind} of {name}{defined}, {called}: {off}")
    return wrong


def _reverse_rules(subject: Any) -> tuple[str, ...]:
    """All custom_vjp, of which one is to blame."""
    sites = [subject.sites[path] for path, _ in _found(subject, "rule")]
    named = [
        f"the custom_vjp of {s.kind.partition(' at ')[0]}, called at {_at(s.place)}" for s in sites if "vjp" in s.name
    ]
    return tuple(dict.fromkeys(named))


def _worst(laid: Directions, found: Ladders, orders: Orders, k: int) -> Worst:
    """The lowest order of a direction; among equals of the failing kind, the largest deviation of slopes."""
    order, lowest = orders.order[k], orders.lowest[k]
    t = found.lengths[lowest]
    slope = np.broadcast_to(found.slopes[k], order.shape)
    signed = np.stack([at_step(found.remainders[:, k, side], lowest[side]) for side in (0, 1)])
    off = np.abs(np.nan_to_num(signed)) / t
    severity = off / np.maximum(np.maximum(np.abs(slope), found.scale).astype(float), 1e-290)
    level = np.where(order < _KINK, np.round(np.maximum(order, 0), 0), np.maximum(order, 1.15))
    side, output = np.unravel_index(np.lexsort((-severity.ravel(), level.ravel()))[0], order.shape)
    at = int(lowest[side, output])
    length, (right, left) = found.lengths[at], found.remainders[at, k, :, output]
    j, size = found.slopes[k, output], _length(laid, k)  # slopes are said along a direction of length 1
    return Worst(
        k, int(side), int(output), float(order[side, output]), at, float(j / size), float(j + right / length) / size,
        float(j - left / length) / size, float(severity[side, output]),
    )  # fmt: skip


def _length(laid: Directions, k: int) -> float:
    return size_of(laid.first[k]) or 1.0


def _of_ladders(
    subject: Any, laid: Directions, found: Ladders, worst: Sequence[Worst], switches: Sequence[NearSwitch]
) -> Iterator[Finding]:
    lost = lost_sides(found)
    if lost.any():
        k, side = (int(v) for v in np.argwhere(lost)[0])
        where = f"f is not finite however near to x it is asked {_side(side)} {_name(subject, laid, k)}"
        yield Finding("edge", where, _blamed(switches, ("singular", "jump", "kink")))
    bad = [w for w in worst if w.order < _KINK and not lost[w.direction].any()]
    straight = [w for w in bad if laid.kinds[w.direction] != "curved"]
    failing: dict[str, list[Worst]] = {}
    for w in bad if not straight else [w for w in bad if w in straight or w.order < _CUSP]:
        failing.setdefault(_kind(laid, found, w), []).append(w)
    if failing.keys() & {"jump", "cusp"}:  # what has no slope has none that is wrong
        failing.pop("wrong derivative", None)
        failing.pop("not linear", None)
    for kind, group in failing.items():
        one = max(group, key=lambda w: (isinstance(laid.kinds[w.direction], int), w.severity))
        effects = ("jump", "singular", "kink") if kind in ("jump", "cusp") else ("kink", "jump", "singular")
        blamed = _blamed(switches, effects)
        if kind == "wrong derivative":
            blamed = (*_wrong_rules(subject), *_stopped(subject)) or blamed
        yield Finding(kind, _told(subject, laid, found, one, kind, len(group)), blamed)


def _kind(laid: Directions, found: Ladders, w: Worst) -> str:
    if w.order < _JUMP:
        return "jump"
    if w.order < _CUSP:
        return "cusp"
    if not w.both_sides:
        return "kink"
    bent = laid.kinds[w.direction] == "curved"  # and no straight line fails
    return "wrong derivative" if not bent and _linear(laid, found, w.output, w.at) else "not linear"


def _linear(laid: Directions, found: Ladders, output: int, at: int) -> bool:
    """Whether the slopes of f are linear in the direction: of few inputs all, else of two directions and their sum."""
    straight = [k for k, kind in enumerate(laid.kinds) if kind != "curved"]
    n = laid.first.shape[1]
    chosen = straight if n < len(straight) else straight[:3]
    signed = found.remainders[at, chosen, :, output]
    slopes = found.slopes[chosen, output] + (signed[:, 0] - signed[:, 1]) / (2 * found.lengths[at])
    if n < len(straight):
        d = laid.first[chosen] / np.abs(laid.first[chosen]).max(0)
        off = np.abs(d @ np.linalg.lstsq(d, slopes, rcond=None)[0] - slopes).max()
    else:
        off = abs(slopes[2] - slopes[0] - slopes[1])
    return bool(off <= 0.05 * np.abs(signed).max() / found.lengths[at])


def _told(subject: Any, laid: Directions, found: Ladders, w: Worst, kind: str, count: int) -> str:
    name, output = _name(subject, laid, w.direction), _output(subject, int(found.outputs[w.output]))
    head = f"along {name}, at {output}: the remainder has order {abs(w.order) if abs(w.order) < 0.01 else w.order:.2f}"
    also = f"; so do {count - 1} other directions" if count > 1 else ""
    ends = {
        "jump": f": it stays {abs(found.remainders[w.at, w.direction, w.side, w.output]):.3g} however small h is",
        "cusp": ": steeper than any linear map",
        "kink": f": f has slope {w.ahead:.6g} ahead and {w.behind:.6g} behind, J gives {w.slope:.6g}",
        "not linear": f": f has slope {w.ahead:.6g}, J gives {w.slope:.6g}; partials exist, yet no linear map has "
        "the slopes of f in every direction",
        "wrong derivative": f": f has slope {w.ahead:.6g} on both sides, J gives {w.slope:.6g}",
    }
    return head + ends[kind] + also


def _blamed(switches: Sequence[NearSwitch], effects: Sequence[str]) -> tuple[str, ...]:
    at = [s for s in switches if s.at_x]
    return tuple(str(s) for effect in effects for s in at if s.effect == effect)[:4]


def _stopped(subject: Any) -> list[str]:
    stops = [site for site in subject.sites.values() if site.name == "stop_gradient"]
    return list(dict.fromkeys(f"stop_gradient at {_at(s.place)}  {_code(s.place)}" for s in stops))


# names -------------------------------------------------------------------------------------------


def _side(side: int) -> str:
    return ("ahead of it, along", "behind it, along")[side]


def _output(subject: Any, k: int) -> str:
    return _entry("output", subject.program.trees[0], k)


def _input(subject: Any, k: int) -> str:
    return _entry("input", subject.program.trees[1], k)


def _entry(word: str, tree: Any, k: int) -> str:
    try:
        name = entry_name(tree, k)
    except IndexError:  # the parts of complex outputs
        name = ""
    return f"{word} {k}" + (f" ({name})" if name and name != "the only one" and name != f"[{k}]" else "")


def _name(subject: Any, laid: Directions, k: int) -> str:
    kind = laid.kinds[k]
    if isinstance(kind, int):
        return f"coordinate {_input(subject, kind).removeprefix('input ')}"
    vector = laid.first[k]
    if kind == "curved":
        return f"a curve that starts along coordinate {int(np.argmax(np.abs(laid.first[k])))}"
    size = _length(laid, k)
    entries = ", ".join(f"{v / size:.3g}" for v in vector[:4]) + (", …" if len(vector) > 4 else "")
    return f"random direction {k} ({entries})"


def _direction(subject: Any, laid: Directions, found: Ladders, w: Worst) -> Direction:
    fails = w.order < _KINK
    status = "fails" if fails else "not Lipschitz" if w.order < _SMOOTH else "smooth"
    remainders = np.abs(found.remainders[:, w.direction, w.side, w.output])
    vector = laid.first[w.direction]
    return Direction(
        _name(subject, laid, w.direction), w.order if math.isfinite(w.order) else math.inf, status,
        _output(subject, int(found.outputs[w.output])), w.slope, w.ahead, w.behind,
        tuple(map(float, found.lengths * _length(laid, w.direction))), tuple(map(float, remainders)),
        tuple(map(float, vector)) if len(vector) <= 8 else (),
    )  # fmt: skip
