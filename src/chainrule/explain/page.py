"""The page: one file with the data in it, also as an iframe of a notebook."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

from chainrule._errors import ChainruleError

BUNDLE = Path(__file__).parent / "web" / "page.html"
_SLOT = '<script type="application/json" id="{}">null</script>'


def page(data: str, live: dict[str, Any] | None = None) -> str:
    """The page with a document; `live` says where it may ask for new points.

    Raises ChainruleError where this checkout has no page, or one without its slots.
    """
    found = _bundle()
    for name, text in (("data", data), ("live", json.dumps(live) if live else "null")):
        slot = _SLOT.format(name)
        if found.count(slot) != 1:
            raise ChainruleError(
                f"the page {BUNDLE} has {found.count(slot)} places for {name!r}, not one: build it again"
            )
        found = found.replace(slot, slot.replace("null", in_script(text)))
    return found


def _bundle() -> str:
    if not BUNDLE.is_file():
        raise ChainruleError(
            f"the page {BUNDLE.name} is not in {BUNDLE.parent}: build it there with `npm run build`, or install a "
            "wheel; Explanation.to_json() and .svg() need none"
        )
    return BUNDLE.read_text(encoding="utf-8")


def script() -> str:
    """The module of the page, which a widget runs as its own."""
    found = re.search(r'<script type="module">(.*?)</script>', _bundle(), re.DOTALL)
    if found is None:
        raise ChainruleError(f"the page {BUNDLE} has no module: build it again")
    return found[1]


def in_script(text: str) -> str:
    """JSON that cannot end the script element that it stands in."""
    for c in "<>&\u2028\u2029":
        text = text.replace(c, f"\\u{ord(c):04x}")
    return text


def in_notebook(data: str, picture: str) -> str:
    """The page in a sandboxed iframe over the picture, which is all that a host without scripts shows."""
    if not BUNDLE.is_file():
        return f"<div>{picture}</div>"
    document = html.escape(page(data), quote=True)
    frame = (
        f'<iframe sandbox="allow-scripts allow-downloads" title="chainrule" srcdoc="{document}" '
        'style="width:100%;height:900px;border:0"></iframe>'
    )
    return f"<div>{frame}<details><summary>static picture</summary>{picture}</details></div>"
