"""A layered layout: the page's own, in Python, for pictures that are drawn without a browser.

Longest path with sources pulled to their readers, chains of dummies, barycentre sweeps with transposition (Sugiyama,
Tagawa and Toda 1981), coordinates by isotonic regression toward weighted means. The coordinates equal the page's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any


@dataclass(eq=False)
class Box:
    """A box, or a dummy on the way of an edge: its size, its layer, and its centre."""

    i: int
    w: float
    h: float
    layer: int = 0
    dummy: bool = False
    x: float = 0.0
    y: float = 0.0
    place: int = 0
    order: int = 0
    wish: float = 0.0
    into: list[Box] = field(default_factory=list)
    out: list[Box] = field(default_factory=list)
    up: list[Box] = field(default_factory=list)
    down: list[Box] = field(default_factory=list)


@dataclass(frozen=True)
class Layout:
    """Centres of the boxes, and the points that each edge goes through."""

    centres: list[tuple[float, float]]
    edges: list[list[tuple[float, float]]]
    crossings: int


def layout(
    sizes: Sequence[tuple[float, float]],
    edges: Sequence[tuple[int, int]],
    hgap: float = 24,
    vgap: float = 44,
    sweeps: int = 8,
    passes: int = 12,
) -> Layout:
    """Place boxes of these (widths, heights), in the order of the program, on layers from the top down."""
    boxes = [Box(k, w, h) for k, (w, h) in enumerate(sizes)]
    pairs = [(boxes[a], boxes[b]) for a, b in edges]
    for a, b in pairs:
        a.out.append(b)
        b.into.append(a)
    _assign_layers(boxes)
    every, chains = _with_dummies(boxes, pairs)
    layers: list[list[Box]] = [[] for _ in range(1 + max((b.layer for b in every), default=-1))]
    for box in every:
        layers[box.layer].append(box)
    _first_order(layers)
    crossings = _untangle(layers, sweeps)
    _coordinates(layers, every, hgap, vgap, passes)
    ways = [[a, *chain, b] for (a, b), chain in zip(pairs, chains, strict=True)]
    return Layout([(b.x, b.y) for b in boxes], [[(p.x, p.y) for p in way] for way in ways], crossings)


def _assign_layers(boxes: list[Box]) -> None:
    degree = [len(b.into) for b in boxes]
    queue = [b for b in boxes if not b.into]
    for box in queue:  # grows while it is read
        for reader in box.out:
            reader.layer = max(reader.layer, box.layer + 1)
            degree[reader.i] -= 1
            if not degree[reader.i]:
                queue.append(reader)
    for box in reversed(queue):
        if box.out and (len(box.into) <= 1 or len(box.into) < len(box.out)):
            box.layer = max(box.layer, min(b.layer for b in box.out) - 1)


def _with_dummies(boxes: list[Box], pairs: Sequence[tuple[Box, Box]]) -> tuple[list[Box], list[list[Box]]]:
    every, chains = list(boxes), []
    for a, b in pairs:
        last, chain = a, []
        for layer in range(a.layer + 1, b.layer):
            dummy = Box(len(every), 2, 0, layer, dummy=True, up=[last])
            last.down.append(dummy)
            every.append(dummy)
            chain.append(dummy)
            last = dummy
        last.down.append(b)
        b.up.append(last)
        chains.append(chain)
    return every, chains


def _first_order(layers: list[list[Box]]) -> None:
    """Depth first from the sources, in the order of the program."""
    stack = sorted((b for layer in layers for b in layer if not b.up), key=lambda b: (b.layer, b.i))[::-1]
    seen, count = set[int](), 0
    while stack:
        box = stack.pop()
        if box.i in seen:
            continue
        seen.add(box.i)
        box.order, count = count, count + 1
        stack += [b for b in reversed(box.down) if b.i not in seen]
    for layer in layers:
        layer.sort(key=lambda b: b.order)
        _number(layer)


def _number(layer: list[Box]) -> None:
    for place, box in enumerate(layer):
        box.place = place


def _crossings(layers: list[list[Box]]) -> int:
    """Inversions between neighbouring layers, with a Fenwick tree."""
    total = 0
    for above, layer in pairwise(layers):
        ends = [p for b in layer for p in sorted(u.place for u in b.up)]
        tree = [0] * (len(above) + 1)
        for end in reversed(ends):
            k = end
            while k > 0:
                total += tree[k]
                k -= k & -k
            k = end + 1
            while k <= len(above):
                tree[k] += 1
                k += k & -k
    return total


def _pair(a: Box, b: Box) -> int:
    """Crossings of the edges of two neighbours, the first one on the left."""
    above = sum(p.place > q.place for p in a.up for q in b.up)
    return above + sum(p.place > q.place for p in a.down for q in b.down)


def _untangle(layers: list[list[Box]], sweeps: int) -> int:
    best, kept = _crossings(layers), [list(layer) for layer in layers]
    for sweep in range(sweeps):
        if not best:
            break
        downwards = sweep % 2 == 0
        for k in range(1, len(layers)):
            layer = layers[k if downwards else len(layers) - 1 - k]
            for box in layer:
                near = box.up if downwards else box.down
                box.wish = sum(n.place for n in near) / len(near) if near else box.place
            layer.sort(key=lambda b: (b.wish, b.place))
            _number(layer)
            _transpose(layer)
        now = _crossings(layers)
        if now < best:
            best, kept = now, [list(layer) for layer in layers]
    for layer, order in zip(layers, kept, strict=True):
        layer[:] = order
        _number(layer)
    return best


def _transpose(layer: list[Box]) -> None:
    for _ in range(4):
        moved = False
        for k in range(len(layer) - 1):
            a, b = layer[k], layer[k + 1]
            if _pair(b, a) < _pair(a, b):
                layer[k], layer[k + 1] = b, a
                a.place, b.place = k + 1, k
                moved = True
        if not moved:
            return


def _coordinates(layers: list[list[Box]], every: list[Box], hgap: float, vgap: float, passes: int) -> None:
    for layer in layers:
        x = 0.0
        for box in layer:
            box.x, x = x + box.w / 2, x + box.w + hgap
    for step in range(passes):
        downwards = step % 2 == 0
        for layer in layers if downwards else reversed(layers):
            wanted, weights = [], []
            for box in layer:
                near = (box.up if downwards else box.down) if step < 2 else box.up + box.down
                mean, weight = _wish(box, near)
                wanted.append(mean)
                weights.append(4.0 if box.dummy else max(1.0, weight))
            _isotonic(layer, wanted, weights, hgap)
    left = min((b.x - b.w / 2 for b in every), default=0.0)
    y = 0.0
    for layer in layers:
        height = max([0.0, *(b.h for b in layer)])
        for box in layer:
            box.x, box.y = box.x - left, y + height / 2
        y += height + vgap


def _wish(box: Box, near: Sequence[Box]) -> tuple[float, float]:
    total = weight = 0.0
    for other in near:
        own = 8 if box.dummy and other.dummy else 2 if box.dummy or other.dummy else 1
        total, weight = total + own * other.x, weight + own
    return (total / weight if weight else box.x), weight


def _isotonic(layer: list[Box], wanted: list[float], weights: list[float], hgap: float) -> None:
    """The nearest places to those wanted that keep the order and the gaps: pool adjacent violators."""
    starts = [0.0]
    for a, b in pairwise(layer):
        starts.append(starts[-1] + (a.w + b.w) / 2 + (10 if a.dummy and b.dummy else hgap))
    pools: list[list[Any]] = []
    for wish, weight, start in zip(wanted, weights, starts, strict=False):
        pool = [weight * (wish - start), weight, 1]
        while pools and pools[-1][0] / pools[-1][1] > pool[0] / pool[1]:
            last = pools.pop()
            pool = [last[0] + pool[0], last[1] + pool[1], last[2] + pool[2]]
        pools.append(pool)
    k = 0
    for total, weight, count in pools:
        for _ in range(count):
            layer[k].x = total / weight + starts[k]
            k += 1


def text_width(text: str, size: float) -> float:
    """About how wide a text is: narrow and wide characters are told apart roughly."""
    return math.fsum(size * (0.34 if c in " .,:;il1'()[]|⁽⁾" else 1.0 if ord(c) > 0x2E7F else 0.6) for c in text)
