"""Where the page and its sources are, and what becomes of a test that lacks a tool."""

import os
from pathlib import Path

import pytest

WEB = Path(__file__).parents[2] / "src" / "chainrule" / "explain" / "web"
PAGE = WEB / "page.html"


def absent(what: str) -> None:
    """Without a tool the test is skipped, but not in the gate."""
    (pytest.fail if os.environ.get("CHAINRULE_GATE") else pytest.skip)(what)
