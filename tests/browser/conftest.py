"""A browser for the tests of the page: Debian's Chromium, driven by Playwright."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from browser.bundle import PAGE, absent

CHROMIUM = Path(os.environ.get("CHAINRULE_CHROMIUM", "/usr/bin/chromium"))


def with_data(data: Any) -> str:
    """The page with an explanation in its slot."""
    text = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    slot = 'id="data">null</script>'
    html = PAGE.read_text(encoding="utf-8")
    assert html.count(slot) == 1
    return html.replace(slot, f'id="data">{text}</script>')


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        absent(f"no browser at {CHROMIUM}: install Debian's chromium or set CHAINRULE_CHROMIUM")
    with playwright.sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def visit(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens an explanation from a file. Afterwards nothing may have gone over the network or to the console."""
    contexts, said = [], []

    def go(
        data: Any,
        *,
        live: Callable[[Any], Any] | None = None,
        points: Callable[[Any], Any] | None = None,
        **options: Any,
    ) -> Any:
        context = browser.new_context(**({"viewport": {"width": 1440, "height": 1000}} | options))
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15000)
        file = tmp_path / f"page{len(contexts)}.html"
        file.write_text(with_data(data), encoding="utf-8")
        page.on("console", lambda m: said.append(f"{m.type}: {m.text}") if m.type in {"error", "warning"} else None)
        page.on("pageerror", lambda e: said.append(f"error: {e}"))
        page.on(
            "request",
            lambda r: (
                said.append(f"request: {r.url[:80]}")
                if r.url.partition(":")[0] not in {"file", "data", "blob"}
                else None
            ),
        )
        if live is not None:
            page.expose_function("pythonEvaluate", live)
            if points is not None:
                page.expose_function("pythonPoints", points)
            more = "e.points = p => window.pythonPoints(p);" if points is not None else ""
            page.add_init_script(
                "{ const e = x => window.pythonEvaluate(x);"
                f"{more} window.chainruleHost = {{ evaluate: e, life: 'kernel' }}; }}"
            )
        page.goto(file.as_uri())
        return page

    yield go
    for context in contexts:
        context.close()
    assert not said
