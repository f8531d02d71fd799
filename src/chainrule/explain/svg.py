"""The graph of an explanation as a static picture, drawn without a browser and without a script."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chainrule.explain.document import visible_edges
from chainrule.explain.encode import read
from chainrule.explain.formula import xml
from chainrule.explain.layout import layout, text_width
from chainrule.explain.names import subscript
from chainrule.explain.text import clean, short

_ROWS = 6  # components of a value that are written
_MOST_BOXES = 200
_LONGEST = 28

_STYLE = """
.chainrule{font:12px Inter,system-ui,sans-serif;color:#1A1D21;--card:#FFFFFF;--line:#D9D5CC;--soft:#666E78;
--ink:#1A1D21;--well:#FBFAF7}
@media(prefers-color-scheme:dark){.chainrule{color:#ECEEF0;--card:#1A1E23;--line:#3A424B;--soft:#929BA6;--ink:#ECEEF0;
--well:#16191D}}
.chainrule .box{fill:var(--card);stroke:var(--line)}
.chainrule .label{fill:var(--well);stroke:var(--line)}
.chainrule .edge{fill:none;stroke:var(--soft);stroke-width:1.3}
.chainrule text{fill:var(--ink)}
.chainrule .soft{fill:var(--soft);font-size:10.5px}
.chainrule .m{font:italic 15px "STIX Two Math","Cambria Math",serif}
.chainrule .n{font:11.5px ui-monospace,monospace}
"""

Data = Mapping[str, Any]


def svg(data: Data) -> str:
    """Boxes with values, edges with the names and shapes of their Jacobians, as the page starts."""
    boxes, ends, edges = _visible(data)
    if len(boxes) > _MOST_BOXES:
        return _frame(data, 480, 60, f'<text x="12" y="34">{len(boxes):,} boxes: open the page</text>')
    sizes = [(_width(b), 34.0 + 16 * len(b["rows"])) for b in boxes]
    place = {id(b): k for k, b in enumerate(boxes)}
    pairs = [(place[id(ends[e["from"]])], place[id(ends[e["to"]])]) for e in edges]
    labels = [_label(e) for e in edges]
    # a label is a box on the way of its edge, so that none lies on another one
    sizes += [(_pill_width(label), 31.0) for label in labels]
    ways = [(a, len(boxes) + k) for k, (a, _) in enumerate(pairs)]
    ways += [(len(boxes) + k, b) for k, (_, b) in enumerate(pairs)]
    placed = layout(sizes, ways, hgap=18.0, vgap=22.0)
    drawn = [_way(way) for way in placed.edges]
    placements = list(zip(placed.centres, sizes, strict=True))
    drawn += [_box(b, *centre, *size) for b, (centre, size) in zip(boxes, placements, strict=False)]
    drawn += [_pill(label, *at) for label, (at, _) in zip(labels, placements[len(boxes) :], strict=True)]
    right = max((x + w / 2 for (x, _), (w, _) in placements), default=0.0)
    low = max((y + h / 2 for (_, y), (_, h) in placements), default=0.0)
    return _frame(data, right + 40, low + 44, f'<g transform="translate(20 32)">{"".join(drawn)}</g>')


def _frame(data: Data, width: float, height: float, body: str) -> str:
    m, n = data["jacobian"]["shape"]
    title = f"{clean(data['function']['name'])[:60]}: {m}×{n} {data['jacobian']['structure']['words']}"
    width = max(width, text_width(title, 11) + 40)
    head = f'<text x="20" y="20" class="soft">{xml(title)}</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chainrule" role="img" aria-label="{xml(title)}" '
        f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}">'
        f'<style>{_STYLE}</style><defs><marker id="cr-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="currentColor" opacity=".6"/></marker></defs>'
        f"{head}{body}</svg>"
    )


def _visible(data: Data) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Boxes, the box of each value, and the edges between boxes."""
    edges = visible_edges(data)
    groups = {g["id"]: g for g in data["groups"]}
    boxes: list[dict[str, Any]] = []
    known: dict[str, dict[str, Any]] = {}
    ends: dict[str, dict[str, Any]] = {}
    for node in data["nodes"]:
        folded, group = None, node["group"]
        while group is not None:
            folded = group if not groups[group]["open"] else folded
            group = groups[group]["parent"]
        key = folded or node["id"]
        if key not in known:
            known[key] = {"node": node, "group": groups.get(folded), "rows": []}
            boxes.append(known[key])
        ends[node["id"]] = known[key]
        if folded is None or node["id"] in groups[folded]["outputs"]:
            known[key]["node"] = node
    for box in boxes:
        box["rows"] = _rows(box["node"])
        times = f" × {box['group']['times']}" if box["group"] and box["group"]["times"] > 1 else ""
        loop = box["node"]["loop"]
        times += f" × {loop['times']}" if loop and loop["times"] else ""
        box["name"] = _cut(box["node"]["symbol"])
        box["role"] = _cut((box["group"]["symbol"] if box["group"] else box["node"]["operation"]) + times)
        box["shape"] = "(" + ", ".join(map(str, box["node"]["shape"])) + ")" if box["node"]["shape"] else ""
    return boxes, ends, [e for e in edges if ends[e["from"]] is not ends[e["to"]]]


def _cut(text: str) -> str:
    said = clean(text)
    return said if len(said) <= _LONGEST else said[: _LONGEST - 1] + "…"


def _rows(node: Data) -> list[tuple[str, str]]:
    value = node["value"]
    if "full" not in value:
        return [
            ("min", short(read(value["min"]))),
            ("mean", short(read(value["mean"]))),
            ("max", short(read(value["max"]))),
        ]
    entries = value["full"]
    if not node["shape"]:
        return [("", short(read(entries[0])))]
    rows = [(subscript(k + 1), short(read(v))) for k, v in enumerate(entries[:_ROWS])]
    return rows + ([("…", f"{len(entries)} entries")] if len(entries) > _ROWS else [])


def _width(box: dict[str, Any]) -> float:
    head = text_width(box["name"], 16) + text_width(box["role"], 11) + text_width(box["shape"], 11) + 44
    return max([head, *(text_width(a + b, 12) + 44 for a, b in box["rows"])])


def _box(box: dict[str, Any], x: float, y: float, w: float, h: float) -> str:
    left, top = x - w / 2, y - h / 2
    parts = [f'<rect class="box" x="{left:.1f}" y="{top:.1f}" width="{w:.1f}" height="{h:.1f}" rx="8"/>']
    if box["group"]:
        parts.append(f'<path d="M{left + 4:.1f} {top - 3:.1f}h{w - 8:.1f}" stroke="currentColor" opacity=".4"/>')
    at = left + 12 + text_width(box["name"], 16)
    parts.append(f'<text class="m" x="{left + 10:.1f}" y="{top + 19:.1f}">{xml(box["name"])}</text>')
    parts.append(f'<text class="soft" x="{at + 6:.1f}" y="{top + 19:.1f}">{xml(box["role"])}</text>')
    parts.append(
        f'<text class="soft" text-anchor="end" x="{left + w - 9:.1f}" y="{top + 19:.1f}">{xml(box["shape"])}</text>'
    )
    for k, (name, said) in enumerate(box["rows"]):
        line = top + 38 + 16 * k
        parts.append(f'<text class="soft" x="{left + 10:.1f}" y="{line:.1f}">{xml(name)}</text>')
        parts.append(f'<text class="n" text-anchor="end" x="{left + w - 9:.1f}" y="{line:.1f}">{xml(said)}</text>')
    return "".join(parts)


def _way(way: list[tuple[float, float]]) -> str:
    start, *rest = way
    path = f"M{start[0]:.1f} {start[1]:.1f}"
    for (x0, y0), (x1, y1) in zip(way, rest, strict=False):
        middle = (y0 + y1) / 2
        path += f"C{x0:.1f} {middle:.1f} {x1:.1f} {middle:.1f} {x1:.1f} {y1:.1f}"
    return f'<path class="edge" d="{path}"/>'


def _label(edge: Data) -> tuple[str, str]:
    J = edge["jacobian"]
    structure = J["structure"]
    said = structure["words"] if 1 in J["shape"] else structure["kind"]
    return _cut(J["label"]), f"{J['shape'][0]}×{J['shape'][1]} {said}"


def _pill_width(label: tuple[str, str]) -> float:
    return max(text_width(label[0], 12.5), text_width(label[1], 10)) + 14


def _pill(label: tuple[str, str], x: float, y: float) -> str:
    w = _pill_width(label)
    return (
        f'<rect class="label" x="{x - w / 2:.1f}" y="{y - 15:.1f}" width="{w:.1f}" height="31" rx="7"/>'
        f'<text text-anchor="middle" x="{x:.1f}" y="{y - 2:.1f}">{xml(label[0])}</text>'
        f'<text class="soft" text-anchor="middle" x="{x:.1f}" y="{y + 11:.1f}">{xml(label[1])}</text>'
    )
