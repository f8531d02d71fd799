"""`explain(f)(x)` and what it gives: an `Explanation`."""

from __future__ import annotations

import contextlib
import gc
import json
import operator
import tempfile
import webbrowser
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._api import Argnums, checked_argnums, places
from chainrule._errors import InputTypeError, ShapeError
from chainrule._jax import largest_value
from chainrule._memory import AT_FEWER, require_memory
from chainrule._space import name_of
from chainrule._trace import Problem, pick, require_inputs, require_numbers
from chainrule.explain import encode
from chainrule.explain.document import SCHEMA, VERSION, document, links_of, sum_over_paths, values_at
from chainrule.explain.evaluate import Evaluator
from chainrule.explain.flatten import flatten
from chainrule.explain.graph import graph_of, input_names
from chainrule.explain.live import Live
from chainrule.explain.paths import link
from chainrule.explain.products import constant

_KEPT = 4  # graphs of one function, for other shapes and other branches


class Explanation:
    """How a function computes its value at a point, and its Jacobian by the chain rule: a value of plain data.

    `print` shows the table of local Jacobians, the sweeps and the costs; `.save("page.html")` and `.show()` the page;
    `.to_dict()` and `.to_json()` give all of it as data in a versioned schema.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> e = cr.explain(lambda x: jnp.stack([x[0] ** 2 + x[1], x[0] * x[1]]))(jnp.array([1.0, 2.0]))
    >>> e.jacobian.tolist(), e.paths(0, 0)["count"]
    ([[2.0, 1.0], [2.0, 1.0]], '1')
    """

    _text: str
    _kept: Any
    _of: tuple[Any, ...]

    def __init__(self, data: Mapping[str, Any], _kept: Any = None, *_of: Any) -> None:
        if data.get("schema") != SCHEMA or data.get("version") != VERSION:
            given = f"{data.get('schema')!r}, version {data.get('version')!r}"
            raise InputTypeError(f"Explanation: this is {given}; {SCHEMA!r}, version {VERSION}, can be read")
        text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        self.__dict__.update(_text=text, _kept=_kept, _of=_of)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"an Explanation cannot be changed: {name}; call explain(f) at another point")

    @cached_property
    def _data(self) -> dict[str, Any]:
        """What the text says; read when it is asked for, which the page does not."""
        return json.loads(self._text)

    @property
    def jacobian(self) -> np.ndarray:
        """The whole Jacobian, dense. Raises ShapeError where it is too large for the document."""
        found = encode.matrix_of(self._data["jacobian"])
        if found is None:
            m, n = self._data["jacobian"]["shape"]
            raise ShapeError(f"explain: the {m}×{n} Jacobian is kept as a picture only; use chainrule.jacobian")
        return found

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        return json.loads(self._text)

    def to_json(self) -> str:
        """All of it as JSON; what is no finite number is written as "NaN", "Infinity", "-Infinity"."""
        return self._text

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Explanation:
        """The explanation that `to_dict` wrote."""
        return cls(data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Explanation) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def paths(self, i: int, j: int, k: int = 8) -> dict[str, Any]:
        """∂yᵢ/∂xⱼ as a sum over paths: how many there are, the k largest, and what the rest adds up to.

        They go through every step, those inside of groups too, while the text and the page count through the steps that
        they show: there, a folded group is one. The numbers are exact, whatever their size; nothing is enumerated. The
        products in "top" and the sum in "rest" add up to "value", which is J[i, j].
        """
        m, n = self._data["jacobian"]["shape"]
        if not (0 <= i < m and 0 <= j < n):
            raise ShapeError(f"explain: there is no entry ({i}, {j}) in a Jacobian of shape ({m}, {n})")
        links, whole = self._finest
        if links is None:
            raise ShapeError(
                "explain: some local Jacobians are not formed (too large, or of a step that has no linear derivative): "
                "there is no sum over paths; choose a smaller part"
            )
        return sum_over_paths(self._data, links, whole, i, j, k)

    @cached_property
    def _finest(self) -> tuple[Any, Any]:
        """The matrices of the finest edges, as far as they are known, and the whole Jacobian."""
        if self._kept is not None:
            graph, found = self._kept
            return links_of(graph.edges, found), found.whole
        whole = encode.matrix_of(self._data["jacobian"])
        edges = [e for e in self._data["edges"] if e["group"] is None]
        matrices = [encode.matrix_of(e["jacobian"]) for e in edges]
        known = [a for a in matrices if a is not None]
        if len(known) < len(edges):
            return None, whole
        own = [(e, constant(a)) for e, a in zip(edges, known, strict=True)]
        return [link(e["id"], e["from"], e["to"], a.pattern, a.coo()[2]) for e, a in own], whole

    # what it looks like ---------------------------------------------------------------------------

    def __str__(self) -> str:
        from chainrule.explain.text import text

        return text(self._data)

    def __repr__(self) -> str:
        m, n = self._data["jacobian"]["shape"]
        counts = f"{len(self._data['nodes'])} values, {len(self._data['edges'])} local Jacobians"
        return f"Explanation of {self._data['function']['name']}: {m}×{n} · {counts}"

    def table(self) -> str:
        """The edges, their local Jacobians, shapes and structures, and the formula of the chain."""
        from chainrule.explain.text import table

        return table(self._data)

    def latex(self, i: int, j: int) -> str:
        """∂yᵢ/∂xⱼ as a sum of products of partials, in LaTeX, with its value."""
        from chainrule.explain.text import latex

        return latex(self._data, i, j, self.paths(i, j))

    def svg(self) -> str:
        """The graph as a static picture."""
        from chainrule.explain.svg import svg

        return svg(self._data)

    def html(self) -> str:
        """The page with this explanation in it: one file, which needs no network."""
        from chainrule.explain.page import page

        return page(self.to_json())

    def save(self, path: str | Path) -> Path:
        """Write the page (.html), the data (.json) or the picture (.svg)."""
        target = Path(path)
        write = {".html": self.html, ".json": self.to_json, ".svg": self.svg}.get(target.suffix)
        if write is None:
            raise InputTypeError(f"Explanation.save: {target.name!r} ends in neither .html, .json nor .svg")
        target.write_text(write(), encoding="utf-8")
        return target

    def show(self) -> Path:
        """Open the page in the browser; gives the file that was written for it."""
        folder = Path(tempfile.mkdtemp(prefix="chainrule-"))
        path = self.save(folder / "explanation.html")
        webbrowser.open(path.as_uri())
        return path

    def _repr_html_(self) -> str:
        from chainrule.explain.page import in_notebook

        return in_notebook(self.to_json(), self.svg())

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """In Jupyter the live page, where anywidget is installed; IPython adds `_repr_html_` for readers without it."""
        found = self._widget()
        return {} if found is None else found._repr_mimebundle_(**options)

    def _mime_(self) -> tuple[str, str]:
        """In marimo the live page, where anywidget is installed."""
        found = self._widget()
        if found is None:
            return "text/html", self._repr_html_()
        from marimo import as_html

        return as_html(found)._mime_()

    def _widget(self) -> Any:
        from chainrule.explain.notebook import widget

        if not self._of:
            return None
        explain, args = self._of
        return widget(explain.live(*args, first=self))


class Explain:
    """`explain(f)`: call it with the arguments of `f`."""

    def __init__(self, f: Callable[..., Any], argnums: Argnums, detail: str) -> None:
        self._f, self._argnums, self._detail = f, checked_argnums("explain", f, argnums, least=1), detail
        self._known: list[tuple[Any, ...]] = []
        if detail not in ("auto", "operations", "lines"):
            raise InputTypeError(f"explain of {name_of(f)}: detail={detail!r} is none of 'auto', 'operations', 'lines'")

    def __call__(self, *args: Any) -> Explanation:
        """The explanation at a point."""
        problem = pick("explain", self._f, self._argnums, args)
        require_inputs(problem, False)
        with _kept_objects():
            graph, evaluator = self._prepared(problem, args)
            data, found = document(graph, problem, evaluator, problem.leaves)
            return Explanation(data, (graph, found), self, args)

    def _prepared(self, problem: Any, args: Sequence[Any]) -> tuple[Any, Any]:
        """The graph and its evaluator; kept for points that differ in the numbers alone and take the same branches."""
        numbers = [k % len(args) for k in places(self._argnums)]
        others = [x for k, a in enumerate(args) if k not in numbers for x in jax.tree.leaves(a)]
        shapes = (problem.tree, tuple((x.shape, x.dtype) for x in problem.leaves), len(args))
        for known, kept, found in self._known:
            same = known == shapes and len(kept) == len(others) and all(map(operator.is_, kept, others))
            if same and found[0].flat.taken(problem.leaves):
                return found
        closed = jax.make_jaxpr(lambda *x: _outputs(problem, x))(*problem.leaves)
        require_memory(f"{problem.what}: a value", *largest_value(closed.jaxpr), AT_FEWER)
        flat = flatten(closed, problem.leaves)
        graph = graph_of(flat, input_names(self._f, numbers, args), self._detail)
        found = graph, Evaluator(graph, problem)
        self._known = [(shapes, others, found), *self._known[: _KEPT - 1]]
        return found

    def live(self, *args: Any, first: Explanation | None = None) -> Live:
        """The function at a point that can be moved."""
        problem = pick("explain", self._f, self._argnums, args)
        values: list[Any] = []

        def at(leaves: Sequence[Any]) -> Explanation:
            moved, value = list(args), jax.tree.unflatten(problem.tree, leaves)
            chosen = value if isinstance(self._argnums, tuple) else (value,)
            for k, part in zip(places(self._argnums), chosen, strict=True):
                moved[k] = part
            return self(*moved)

        def valued(points: Any) -> Any:
            values[:] = values or [values_at(problem)]
            return values[0](points)

        return Live(at, valued, problem.leaves, first or self(*args))


@contextlib.contextmanager
def _kept_objects() -> Iterator[None]:
    """Make many small objects that all stay: to look for garbage among them takes a tenth of the time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _outputs(problem: Problem, leaves: Sequence[Any]) -> list[Any]:
    """The leaves of what the function gives; whole numbers may be among them."""
    found = jax.tree.leaves(problem.function(*leaves))
    require_numbers(problem.what, "the output", found)
    for out in found:
        dtype = jnp.result_type(out)
        if jax.dtypes.issubdtype(dtype, jax.dtypes.extended):
            raise InputTypeError(f"{problem.what}: the output holds an array of {dtype}, which are no numbers")
    return found
