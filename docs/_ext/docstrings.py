"""Docstrings as reStructuredText: what is mathematics in them is no markup."""

import re
from typing import Any

from sphinx.application import Sphinx

# code, what is escaped already, *emphasis* and **more of it** stay; any other * or | is a sign of mathematics
MARKUP = re.compile(r"(`[^`]*`|\\.|(?<![\w*])\*\w[^*]*\w\*(?![\w*])|\*\*\w[^*]*\w\*\*)|([*|])")


def escape(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Let |x| be an absolute value and x* a point, except in examples and literal blocks."""
    paragraphs = re.split(r"(\n[ ]*\n)", "\n".join(lines))
    literal = False
    for k in range(0, len(paragraphs), 2):
        text = paragraphs[k]
        if not literal and not text.lstrip().startswith(">>>"):
            paragraphs[k] = MARKUP.sub(lambda found: found[1] or "\\" + found[2], text)
        literal = text.rstrip().endswith("::")
    lines[:] = "".join(paragraphs).split("\n")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register it."""
    app.connect("autodoc-process-docstring", escape)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
