"""Arrays and Jacobians as plain JSON values: in full where they are small, else summed up."""

from __future__ import annotations

import json
import math
from enum import IntEnum
from typing import Any

import numpy as np

from chainrule._jacobians.structure import Structure

FULL = 64  # a value of at most so many entries is kept in full
STORED = 4096  # a Jacobian of at most so many stored numbers is
CELLS = 32


class Detail(IntEnum):
    """How much of a Jacobian is kept: its numbers, a picture, or its size and structure alone."""

    FULL, IMAGE, NORM = 0, 1, 2


_GLYPHS = {
    "zero": "zero",
    "identity": "identity",
    "scaled identity": "scalar",
    "diagonal": "diagonal",
    "permutation": "select",
    "scaled permutation": "select",
    "block-diagonal": "block",
    "permuted block-diagonal": "block",
    "Kronecker": "kron",
    "banded": "banded",
    "lower triangular": "triangular",
    "upper triangular": "triangular",
    "permuted triangular": "triangular",
    "block-triangular": "triangular",
    "arrowhead": "sparse",
    "sparse": "sparse",
    "dense": "dense",
    "diagonal + low rank": "diaglow",
    "sparse + low rank": "lowrank",
    "matrix-free": "opaque",
}


def number(value: Any) -> float | str:
    """A JSON number of 12 digits; what is none of JSON's is a string."""
    found = float(value)
    if math.isfinite(found):
        short = float(f"{found:.12g}")
        return int(short) if short == int(short) and abs(short) < 1e6 else short
    return "NaN" if math.isnan(found) else "Infinity" if found > 0 else "-Infinity"


def read(value: float | str) -> float:
    """What `number` wrote."""
    return float(value)


def numbers(values: Any) -> list[float | str]:
    """All entries, row by row."""
    flat = np.asarray(values, np.float64).ravel()
    if not np.isfinite(flat).all():
        return [number(v) for v in flat]
    return json.loads(f"[{','.join(['%.12g'] * flat.size) % tuple(flat.tolist())}]")  # a tenth of the time


def value_of(array: Any, histogram: bool = True, full: int = FULL) -> dict[str, Any]:
    """A value in full, or its extremes, mean, norm and histogram."""
    flat = np.asarray(array, np.float64).ravel()
    if flat.size <= (full if histogram else FULL // 8):
        return {"full": numbers(flat)}
    finite = flat[np.isfinite(flat)]
    if not finite.size:
        finite = np.zeros(1)
    said = {
        "min": number(finite.min()),
        "mean": number(finite.mean()),
        "max": number(finite.max()),
        "norm": number(np.linalg.norm(finite)),
        "nan": int(flat.size - np.isfinite(flat).sum()),
    }
    if not histogram:
        return said
    counts, edges = np.histogram(finite, CELLS)
    return said | {"histogram": {"low": number(edges[0]), "high": number(edges[-1]), "counts": counts.tolist()}}


def structure_of(structure: Structure, shape: tuple[int, int], nnz: int) -> dict[str, Any]:
    """Kind, parameters, words and glyph of a structure."""
    kind, parameters, words = structure.kind, list(structure.parameters), str(structure)
    glyph = _GLYPHS.get(kind, "opaque")
    if shape == (1, 1) and nnz:
        words, glyph = "one number", "scalar"
    elif 1 in shape and nnz and kind not in ("matrix-free", "sparse + low rank"):  # a line has no diagonal
        some = nnz < max(shape)
        kind, parameters, glyph = ("sparse", [nnz, max(shape)], "row") if some else ("dense", [], "row")
        words = f"{nnz:,} of {max(shape):,} entries" if some else "dense"
    return {"kind": kind, "parameters": parameters, "words": words, "glyph": glyph}


def unformed(shape: tuple[int, int]) -> dict[str, Any]:
    """What is said of a Jacobian that is not formed."""
    words = {"kind": "matrix-free", "parameters": [], "words": "matrix-free", "glyph": "opaque"}
    size = {"nnz": None, "stored": 0, "entries": shape[0] * shape[1], "norm": None, "max": None}
    return {"shape": list(shape), "structure": words, **size, "order": "", "multiply_adds": None, "form": "structure"}


def jacobian_of(J: Any, shape: tuple[int, int], detail: Detail = Detail.FULL) -> dict[str, Any]:
    """A Jacobian: its shape, its structure, and its numbers in the form that they are stored in."""
    if J is None:
        return unformed(shape)
    structure = J.structure
    nnz = int(J.nnz)
    said: dict[str, Any] = {"shape": list(J.shape), "structure": structure_of(structure, shape, nnz), "nnz": nnz}
    said["entries"], said["order"] = J.shape[0] * J.shape[1], J.order
    if getattr(J, "parts", None) is not None:
        return said | _low_rank(J, detail)
    rows, cols, values = J.coo()
    known = np.asarray(values, np.float64)
    said |= _sizes(known)
    said |= {"stored": len(known), "multiply_adds": 0 if _units(structure.kind) else len(known)}
    if _fits(len(known), detail):
        return said | _stored(structure, np.asarray(rows), np.asarray(cols), known, J.shape)
    return said | _picture(rows, cols, known, J.shape, detail)


def _sizes(values: np.ndarray) -> dict[str, Any]:
    return {"norm": number(np.linalg.norm(values)), "max": number(np.abs(values).max(initial=0.0))}


def _fits(stored: int, detail: Detail) -> bool:
    return stored <= (STORED, FULL, 0)[detail]


def _picture(rows: Any, cols: Any, values: Any, shape: Any, detail: Detail) -> dict[str, Any]:
    if detail is Detail.NORM:
        return {"form": "structure"}
    return {"form": "image", "image": image(rows, cols, values, shape)}


def _units(kind: str) -> bool:
    return kind in ("zero", "identity", "permutation")


def _stored(structure: Structure, rows: Any, cols: Any, values: Any, shape: tuple[int, int]) -> dict[str, Any]:
    kind, parameters = structure.kind, structure.parameters
    if kind in ("identity", "scaled identity", "diagonal") and len(values) == min(shape):
        return {"form": "diagonal", "values": numbers(values)}
    if kind in ("block-diagonal", "Kronecker") and len(parameters) == 3:
        count, height, width = parameters
        along = (rows // height == cols // width).all()  # I ⊗ B; the places of B ⊗ I are others
        if along and len(values) == count * height * width:
            block = {"count": count, "height": height, "width": width}
            return {"form": "blocks", "blocks": block, "values": numbers(values)}
    if len(values) == shape[0] * shape[1]:
        return {"form": "dense", "values": numbers(values)}
    return {"form": "coo", "rows": rows.tolist(), "columns": cols.tolist(), "values": numbers(values)}


def _low_rank(J: Any, detail: Detail) -> dict[str, Any]:
    A, U, V = J.parts
    rows, cols, values = J.coo()
    dense = np.zeros(J.shape)
    dense[rows, cols] = values
    rank, stored = int(U.shape[-1]), int(A.nnz + U.size + V.size)
    said = _sizes(dense) | {"nnz": stored, "stored": stored, "multiply_adds": stored, "rank": rank}
    plain = A.structure.kind in ("zero", "identity", "scaled identity", "diagonal")
    if plain and _fits(stored, detail):
        diagonal = None if A.structure.kind == "zero" else numbers(A.diagonal())
        return said | {"form": "low-rank", "diagonal": diagonal, "left": numbers(U), "right": numbers(V)}
    if _fits(dense.size, detail):
        return said | {"form": "dense", "values": numbers(dense)}
    rows, cols = np.divmod(np.arange(dense.size), dense.shape[1])
    return said | _picture(rows, cols, dense.ravel(), dense.shape, detail)


def image(rows: Any, cols: Any, values: Any, shape: tuple[int, ...]) -> dict[str, Any]:
    """The largest magnitudes on a grid of at most 32×32 cells, as whole numbers up to 255."""
    m, n = (max(s, 1) for s in shape)
    high, wide = min(m, CELLS), min(n, CELLS)
    sizes = np.abs(np.where(np.isfinite(values), values, 0.0))
    grid = np.zeros((high, wide))
    at = np.asarray(rows).astype(np.int64) * high // m, np.asarray(cols).astype(np.int64) * wide // n
    np.maximum.at(grid, at, sizes)
    top = float(grid.max(initial=0.0))
    cells = np.rint(255 * grid / top).astype(int) if top else grid.astype(int)
    return {"height": high, "width": wide, "max": number(top), "cells": cells.ravel().tolist()}


def matrix_of(said: dict[str, Any]) -> np.ndarray | None:
    """The dense matrix that a document holds; None where it holds an image or less."""
    m, n = said["shape"]
    match said["form"]:
        case "dense":
            return _array(said["values"]).reshape(m, n)
        case "diagonal":
            found = np.zeros((m, n))
            np.fill_diagonal(found, _array(said["values"]))
            return found
        case "coo":
            found = np.zeros((m, n))
            found[said["rows"], said["columns"]] = _array(said["values"])
            return found
        case "blocks":
            b = said["blocks"]
            blocks = _array(said["values"]).reshape(b["count"], b["height"], b["width"])
            found = np.zeros((m, n))
            for k, block in enumerate(blocks):
                found[k * b["height"] : (k + 1) * b["height"], k * b["width"] : (k + 1) * b["width"]] = block
            return found
        case "low-rank":
            diagonal = said["diagonal"]
            first = np.zeros((m, n)) if diagonal is None else np.diag(_array(diagonal))
            return first + _array(said["left"]).reshape(m, -1) @ _array(said["right"]).reshape(-1, n)
    return None


def _array(values: list[Any]) -> np.ndarray:
    return np.asarray([read(v) for v in values], np.float64)
