"""Formulas as MathML, which browsers draw by themselves: a page needs no script and no network for them."""

from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)


def inline(self: Any, node: nodes.Element) -> None:
    """A formula within a line."""
    draw(self, node, "span")


def display(self: Any, node: nodes.Element) -> None:
    """A formula on lines of its own."""
    draw(self, node, "div")


def draw(self: Any, node: nodes.Element, tag: str) -> None:
    """Write a formula, or warn of what it has that cannot be written."""
    try:
        formula = tex2mathml(node.astext(), as_block=tag == "div")
    except MathError as error:
        logger.warning("%s: %s", error, node.astext(), location=node)
        formula = self.encode(node.astext())
    self.body.append(f'<{tag} class="math">{formula}</{tag}>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register both as the renderer `mathml`."""
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
