"""Explanations written by hand for the tests of the page: values, local Jacobians and totals by jax alone."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)


@dataclass(frozen=True)
class Step:
    """A value: its name, the names it is made of, the function of those."""

    name: str
    parents: tuple[str, ...]
    function: Callable[..., Any]
    operation: str = "step"
    text: str = ""
    kind: str = "dense"
    label: str | None = None
    group: str | None = None
    symbol: str | None = None


@dataclass(frozen=True)
class Example:
    """A function as steps; the last of them are its outputs."""

    name: str
    x: np.ndarray
    steps: Sequence[Step]
    outputs: tuple[str, ...]
    groups: Sequence[dict] = field(default_factory=tuple)

    def values(self, x: Any) -> dict[str, Any]:
        out = {"x": jnp.asarray(x, float)}
        for step in self.steps:
            out[step.name] = step.function(*(out[p] for p in step.parents))
        return out

    def __call__(self, x: Any) -> Any:
        values = self.values(x)
        return jnp.concatenate([jnp.ravel(values[name]) for name in self.outputs])

    def jacobian(self, x: Any = None) -> np.ndarray:
        at = jnp.asarray(self.x if x is None else x, float)
        return np.asarray(jax.jacfwd(self)(at)).reshape(self(at).size, at.size)

    def document(self, x: Any = None) -> dict[str, Any]:
        return document(self, np.asarray(self.x if x is None else x, float))


def plain(value: Any) -> float | str:
    v = float(value)
    return v if math.isfinite(v) else "NaN" if math.isnan(v) else "Infinity" if v > 0 else "-Infinity"


def flat(array: Any) -> list:
    return [plain(v) for v in np.ravel(np.asarray(array))]


def summary(array: np.ndarray) -> dict[str, Any]:
    if array.size <= 64:
        return {"full": flat(array)}
    counts, ends = np.histogram(array, 32)
    told = {"min": array.min(), "mean": array.mean(), "max": array.max(), "norm": np.linalg.norm(array)}
    low_high = {"low": plain(ends[0]), "high": plain(ends[-1]), "counts": counts.tolist()}
    return {k: plain(v) for k, v in told.items()} | {"nan": 0, "histogram": low_high}


def stored(matrix: np.ndarray, label: str, kind: str = "dense") -> dict[str, Any]:
    """A Jacobian as the schema stores it."""
    rows, cols = matrix.shape
    out: dict[str, Any] = {
        "label": label,
        "latex": label,
        "shape": [rows, cols],
        "structure": {"kind": kind, "parameters": [], "words": kind, "glyph": "row" if rows == 1 < cols else kind},
        "entries": matrix.size,
        "norm": plain(np.linalg.norm(matrix)),
    }
    if kind == "diagonal":
        values = np.diag(matrix)
        form: dict[str, Any] = {"form": "diagonal", "values": flat(values)}
    elif kind == "sparse":
        r, c = np.nonzero(matrix)
        values = matrix[r, c]
        form = {"form": "coo", "rows": r.tolist(), "columns": c.tolist(), "values": flat(values)}
    elif matrix.size > 4096:
        values = matrix
        image = {"height": 32, "width": 32, "max": 1.0, "cells": [(7 * k) % 256 for k in range(1024)]}
        form = {"form": "image", "image": image}
    else:
        values, form = matrix, {"form": "dense", "values": flat(matrix)}
    return out | form | {"nnz": int(values.size), "stored": int(values.size), "multiply_adds": int(values.size)}


def about(matrix: np.ndarray, example: Example, x: np.ndarray) -> dict[str, Any]:
    rows, cols = matrix.shape
    if not matrix.size or not np.isfinite(matrix).all():
        return {}
    sv = np.linalg.svd(matrix)[1]
    out: dict[str, Any] = {"rank": int(np.linalg.matrix_rank(matrix)), "singular_values": flat(sv)}
    if rows == cols:
        out |= {
            "det": plain(np.linalg.det(matrix)),
            "divergence": plain(np.trace(matrix)),
            "trace": plain(np.trace(matrix)),
        }
    if rows == cols == 2:
        out["curl"] = plain(matrix[1, 0] - matrix[0, 1])
    if rows == 1:
        hessian = jax.hessian(lambda t: example(t)[0])(jnp.asarray(x))
        out |= {"gradient": flat(matrix), "laplacian": plain(jnp.trace(hessian))}
    return out


def orders(chain: list[np.ndarray]) -> dict[str, Any]:
    """Costs of the two orders of a product, dense."""
    dims = [chain[0].shape[1], *(c.shape[0] for c in chain)]
    n, m = dims[0], dims[-1]
    forward = sum(n * a * b for a, b in itertools.pairwise(dims)) if len(dims) > 2 else 0
    reverse = sum(m * a * b for a, b in itertools.pairwise(dims)) if len(dims) > 2 else 0
    items = [
        ("forward", "from the input", forward, [[d, n] for d in dims]),
        ("reverse", "from the output", reverse, [[m, d] for d in dims[::-1]]),
    ]
    best = min(forward, reverse)
    return {
        "note": "Dense.",
        "chosen": "reverse" if reverse <= forward else "forward",
        "reason": "the fewest multiply-adds",
        "items": [
            {
                "name": a,
                "title": t,
                "multiply_adds": c,
                "dense": c,
                "peak": max(p * q for p, q in s[1:]),
                "chosen": c == best,
                "bracket": None,
                "travels": [{"shape": q} for q in s],
            }
            for a, t, c, s in items
        ],
    }


def document(example: Example, x: np.ndarray) -> dict[str, Any]:
    """The explanation of an example at a point."""
    values = {k: np.asarray(v) for k, v in example.values(x).items()}
    ids = {name: f"n{k}" for k, name in enumerate(["x", *(s.name for s in example.steps)])}
    symbols = {"x": "x"} | {s.name: s.symbol or s.name for s in example.steps}
    nodes, edges, chain = [], [], []
    by_name = {s.name: s for s in example.steps}
    for name, value in values.items():
        step = by_name.get(name)
        nodes.append(
            {
                "id": ids[name],
                "name": name,
                "symbol": symbols[name],
                "latex": "x",
                "operation": step.operation if step else "input",
                "role": "output" if name in example.outputs else "step" if step else "input",
                "text": step.text if step else "",
                "place": {"file": "model.py", "line": 1, "function": "f"},
                "primitives": [],
                "equations": 1,
                "shape": list(value.shape),
                "size": int(value.size),
                "dtype": "float64",
                "value": summary(value),
                "group": step.group if step else None,
                "loop": None,
                "custom": False,
                "output_of": [k for k, o in enumerate(example.outputs) if o == name],
            }
        )
        for k, parent in enumerate(step.parents if step else ()):
            local = np.asarray(
                jax.jacfwd(step.function, argnums=k)(*(jnp.asarray(values[p], float) for p in step.parents))
            )
            local = local.reshape(value.size, values[parent].size)
            chain.append(local)
            label = step.label or f"∂{symbols[name]}/∂{symbols[parent]}"
            edges.append(
                {
                    "id": f"e{len(edges)}",
                    "from": ids[parent],
                    "to": ids[name],
                    "group": None,
                    "jacobian": stored(local, label, step.kind),
                }
            )
    total = example.jacobian(x)
    places, offset = [], 0
    for name in example.outputs:
        places.append(
            {
                "node": ids[name],
                "name": name,
                "shape": list(values[name].shape),
                "offset": offset,
                "size": int(values[name].size),
            }
        )
        offset += values[name].size
    straight = len(edges) == len(example.steps)
    return {
        "schema": "chainrule/explanation",
        "version": 1,
        "function": {"name": example.name, "file": "model.py", "line": 1, "source": []},
        "inputs": [{"node": "n0", "name": "x", "shape": list(x.shape), "offset": 0, "size": int(x.size)}],
        "outputs": places,
        "nodes": nodes,
        "groups": list(example.groups),
        "edges": edges,
        "jacobian": stored(total, "J") | {"about": about(total, example, x)},
        "sweeps": {},
        "orders": orders(chain) if straight and chain else None,
        "paths": [],
        "formulas": {"chain": None, "entries": []},
        "practice": [],
        "lesson": None,
    }


W = np.array([[1, -0.5], [0.8, 1.2], [-0.6, 0.9]])
B = np.array([0.1, -0.2, 0.3])
C = np.array([1.5, -1.0, 2.0])

NET = Example(
    "net",
    np.array([1.0, 0.5]),
    [
        Step("a", ("x",), lambda x: W @ x + B, "affine", "a = W @ x + b", label="W"),
        Step("h", ("a",), jnp.tanh, "tanh", "h = jnp.tanh(a)", "diagonal", "Diag(σ′)"),
        Step("loss", ("h",), lambda h: C @ h, "dot", "loss = c @ h", label="cᵀ", symbol="ℓ"),
    ],
    ("loss",),
)

FIELD = Example(
    "field",
    np.array([1.0, 2.0]),
    [
        Step("p", ("x",), lambda x: x[0] ** 2 + x[1], "add", "p = x[0] ** 2 + x[1]"),
        Step("q", ("x",), lambda x: x[0] * x[1], "multiply", "q = x[0] * x[1]"),
        Step("y", ("p", "q"), lambda p, q: jnp.stack([p, q]), "stack", "y = jnp.stack([p, q])", "sparse"),
    ],
    ("y",),
)

RNG = np.random.default_rng(7)
A1, A2 = RNG.normal(size=(7, 6)), RNG.normal(size=(4, 7))
WIDE = Example(
    "wide",
    RNG.normal(size=6),
    [
        Step("u", ("x",), lambda x: A1 @ x, "dot", "u = A1 @ x", label="A"),
        Step("r", ("u",), jax.nn.relu, "relu", "r = relu(u)", "diagonal", "Diag(m)"),
        Step("y", ("r",), lambda r: A2 @ r, "dot", "y = A2 @ r", label="B"),
    ],
    ("y",),
)

S1 = RNG.normal(size=(30, 20))
SOFT = Example(
    "soft",
    RNG.normal(size=20) / 4,
    [
        Step("z", ("x",), lambda x: S1 @ x, "dot", "z = W @ x", label="W"),
        Step("s", ("z",), jax.nn.softmax, "softmax", "s = softmax(z)", label="Diag(s) − s sᵀ"),
    ],
    ("s",),
)
EXAMPLES = {e.name: e for e in (NET, FIELD, WIDE, SOFT)}
