"""An explanation for the terminal, and in LaTeX."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from chainrule.explain.document import visible_edges
from chainrule.explain.encode import read
from chainrule.explain.names import subscript

_MOST_ROWS = 60
Data = Mapping[str, Any]


def text(data: Data) -> str:
    """Title, table, sweeps, costs, and one sum over paths."""
    m, n = data["jacobian"]["shape"]
    function = data["function"]
    place = f" ({function['file']}:{function['line']})" if function["file"] else ""
    title = f"explain {clean(function['name'])}{place}: {m}×{n} {data['jacobian']['structure']['words']}"
    parts = [title, table(data), _inner(data), _about(data), _sweeps(data), _orders(data), _paths(data)]
    return "\n\n".join(p for p in parts if p)


def clean(said: str) -> str:
    """Text in one line, without control characters and without marks that turn its direction."""
    return "".join(c if unicodedata.category(c)[0] != "C" else "\ufffd" for c in said)


def table(data: Data) -> str:
    """edge | local Jacobian | shape | structure, of what is not folded; then the formula of the chain."""
    symbols = {n["id"]: clean(n["symbol"]) for n in data["nodes"]}
    rows = [("edge", "local Jacobian", "shape", "structure")]
    for e in visible_edges(data):
        J = e["jacobian"]
        name = J["label"] + (f"  ({J['note']})" if J["note"] else "")
        rows.append(
            (
                f"{symbols[e['from']]} → {symbols[e['to']]}",
                clean(name),
                "×".join(map(str, J["shape"])),
                J["structure"]["words"],
            )
        )
    lines = columns(rows[: _MOST_ROWS + 1])
    if len(rows) > _MOST_ROWS + 1:
        lines.append(f"… and {len(rows) - _MOST_ROWS - 1} more")
    chain = data["formulas"]["chain"]
    return "\n".join([*lines, *(["", clean(chain["text"])] if chain else [])])


def _inner(data: Data) -> str:
    """What the symbols of folded steps stand for, which the sweeps and the paths name and the table does not."""
    shown = {end for e in visible_edges(data) for end in (e["from"], e["to"])}
    rows = [
        (n["symbol"], n["text"], f"{n['place']['file']}:{n['place']['line']}")
        for n in data["nodes"]
        if n["id"] not in shown and n["text"] and n["place"]
    ]
    if not rows or len(data["nodes"]) > _MOST_ROWS:
        return ""
    return "\n".join(["inside the steps", *columns([tuple(map(clean, r)) for r in rows])])


def columns(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    widths = [max(len(r[k]) for r in rows) for k in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [c.rjust(w) if k in right else c.ljust(w) for k, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return lines


def _about(data: Data) -> str:
    about = data["jacobian"].get("about", {})
    said = [
        f"{k} {short(read(about[k]))}" for k in ("rank", "det", "divergence", "laplacian") if about.get(k) is not None
    ]
    if about.get("curl") is not None:
        curl = about["curl"]
        said.append(f"curl {_list(curl) if isinstance(curl, list) else short(read(curl))}")
    kernel = about.get("kernel", [])
    if kernel and len(kernel[0]) <= 8:
        said.append("kernel spanned by " + " and ".join([*map(_list, kernel[:2]), *(["…"] if len(kernel) > 2 else [])]))
    return "J: " + ", ".join(said) if said else ""


def _list(values: Sequence[Any]) -> str:
    return "(" + ", ".join(short(read(v)) for v in values) + ")"


def short(value: float) -> str:
    """Four digits; a whole number as one."""
    return f"{value:.0f}" if value == round(value, 9) and abs(value) < 1e9 and value == int(value) else f"{value:.4g}"


def _sweeps(data: Data) -> str:
    lines: list[str] = []
    for key, title in (("forward", "from the input"), ("reverse", "from the output")):
        steps = data["sweeps"][key]
        if not steps or len(steps) > _MOST_ROWS:
            continue
        rows = [("", "step", "multiply-adds", "dense", "held")]
        rows += [
            (f"{k}.", clean(s["text"]), f"{s['multiply_adds']:,}", f"{s['dense']:,}", f"{s['held']:,}")
            for k, s in enumerate(steps, 1)
        ]
        lines += [*(["", title] if lines else [title]), *columns(rows, (2, 3, 4))]
    return "\n".join(lines)


def _orders(data: Data) -> str:
    if not any(o["multiply_adds"] or o["dense"] for o in data["orders"]["items"]):
        return "nothing to multiply: every local Jacobian is a block of J itself"
    rows = [("", "order", "multiply-adds", "dense", "peak", "")]
    for o in data["orders"]["items"]:
        dense = "" if o["dense"] is None else f"{o['dense']:,}"
        mark = "→" if o["chosen"] else ""
        rows.append((mark, o["title"], f"{o['multiply_adds']:,}", dense, f"{o['peak']:,}", clean(o["bracket"] or "")))
    return "\n".join(columns(rows, (2, 3, 4)))


def _paths(data: Data) -> str:
    """The first sum over paths."""
    if not data["paths"]:
        return ""
    own = data["paths"][0]
    symbols = {n["id"]: clean(n["symbol"]) for n in data["nodes"]}
    shapes = {n["id"]: n["shape"] for n in data["nodes"]}
    count, zero = int(own["count"]), int(own["zero"])
    counted = f"{count:,} path{'s count' if count != 1 else ' counts'}, {zero:,} meet{'s' if zero == 1 else ''} a zero"
    count_said = counted if len(own["total"]) < 30 else "very many paths"
    rows = []
    for p in own["top"]:
        way = " → ".join(symbols[n] + (subscript(c + 1) if shapes[n] else "") for n, c in p["components"])
        rows.append((way, " · ".join(short(read(v)) for v in p["factors"]), f"{read(p['product']):+.4g}"))
    if int(own["rest"]["count"]):
        rows.append((f"the other {int(own['rest']['count']):,} paths", "", f"{read(own['rest']['sum']):+.4g}"))
    rows.append(("sum", "", f"{read(own['value']):+.4g}"))
    title = f"sum over paths through these steps for output {own['i'] + 1} and input {own['j'] + 1}: {count_said}"
    return "\n".join([title, *columns(rows, (2,))])


def latex(data: Data, i: int, j: int, paths: Data) -> str:
    """The formula of an entry where the document has it, else its largest paths; with its value."""
    value = f"{read(paths['value']):.6g}"
    for entry in data["formulas"]["entries"]:
        if (entry["i"], entry["j"]) == (i, j):
            return f"{entry['latex']} = {value}"
    names = {n["id"]: (n["latex"], bool(n["shape"])) for n in data["nodes"]}

    def written(node: str, index: int) -> str:
        base, array = names[node]
        return f"{{{base}}}_{{{index + 1}}}" if array else base

    terms = []
    for p in paths["top"]:
        at = p["components"]
        pairs = zip(at[1:], at[:-1], strict=True)
        partials = [f"\\frac{{\\partial {written(*b)}}}{{\\partial {written(*a)}}}" for b, a in pairs]
        terms.append("\\,".join(reversed(partials)) or "1")
    if int(paths["rest"]["count"]):
        terms.append("\\cdots")
    return f"J_{{{i + 1}{j + 1}}} = {' + '.join(terms) or '0'} = {value}"
