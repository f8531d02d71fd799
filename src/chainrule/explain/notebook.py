"""The live page in notebooks: a widget of anywidget, which asks the kernel as the page of the server asks it."""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from typing import Any

from chainrule.explain.live import Live, Refusal
from chainrule.explain.page import script


def widget(live: Live) -> Any:
    """The page as a widget of Jupyter and marimo; None where anywidget is not installed."""
    return _class()(live) if importlib.util.find_spec("anywidget") else None


@cache
def _class() -> Any:
    import anywidget
    import traitlets

    class Explorer(anywidget.AnyWidget):  # type: ignore[misc, unused-ignore]  # without the extra it is of no type
        """The page; a message {"id": k, "x": …} or {"id": k, "points": …} gets {"id": k, "answer": …}."""

        _esm = script()
        data = traitlets.Dict().tag(sync=True)

        def __init__(self, live: Live) -> None:
            super().__init__(data=live.first.to_dict())
            self._live = live
            self.on_msg(self._asked)

        def _asked(self, _: Any, message: Any, buffers: Any) -> None:
            request = dict(message) if isinstance(message, dict) else {}
            number = request.pop("id", None)
            self.send({"id": number, "answer": _answer(self._live, request)})

    return Explorer


def _answer(live: Live, request: Any) -> Any:
    try:
        return json.loads(live.answer(request))
    except Refusal as refusal:
        return {"error": refusal.reason}
    except Exception as error:  # of the user's function
        return {"error": f"{type(error).__name__}: {error}"[:500]}
