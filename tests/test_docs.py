"""What holds for the pages without building them: every public name has its place, and every block of code is run."""

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import chainrule as cr

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BUILT = {"_build", "gallery", "generated", "jupyter_execute"}
PAGES = sorted(p for p in DOCS.rglob("*.md") if not BUILT & set(p.relative_to(DOCS).parts))
MODULES = ("chainrule", "chainrule.scipy", "chainrule.graph", "chainrule.testing")


def listed() -> Iterator[tuple[str, str]]:
    """Each module and name in the tables of the reference."""
    for page in sorted((DOCS / "reference").glob("*.md")):
        module = ""
        for line in page.read_text().splitlines():
            if found := re.match(r"\.\. currentmodule:: (\S+)", line):
                module = found[1]
            elif found := re.match(r"   (\w+)$", line):
                yield module, found[1]


def public(module: str) -> set[str]:
    """The names that a module defines for its users, or marks by `import X as X`."""
    source = inspect.getsource(importlib.import_module(module))
    marked = re.findall(r"^\s*from [\w.]+ import (\w+) as \1$", source, flags=re.MULTILINE)
    own = re.findall(r"^(?:def|class) ([a-zA-Z]\w*)", source, flags=re.MULTILINE)
    return {*marked, *own}


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_in_the_reference_once(module):
    names = sorted(name for m, name in listed() if m == module)
    assert names == sorted(public(module)), "list what is new on a page of docs/reference"


@pytest.mark.parametrize(("module", "name"), list(listed()))
def test_every_public_name_has_an_example(module, name):
    documentation = inspect.getdoc(getattr(importlib.import_module(module), name)) or ""
    assert "\nExamples\n--------\n>>> " in documentation


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(DOCS)))
def test_every_block_of_python_is_run(page):
    text = page.read_text()
    assert not re.findall(r"```(?:py|python|pycon)\b", text), "write ```{code-cell}, which is run"
    assert ("```{code-cell}" in text) == ("file_format: mystnb" in text)


def test_what_is_cited_is_this_version():
    assert f"\nversion: {cr.__version__}\n" in (ROOT / "CITATION.cff").read_text()
