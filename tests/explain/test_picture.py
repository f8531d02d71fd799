"""The layout that pictures share with the page, lessons, and the commands."""

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import chainrule as cr
from chainrule import cli
from chainrule.explain.encode import matrix_of, read
from chainrule.explain.layout import layout
from chainrule.explain.lessons import LESSONS, described

# made by the page's own layout: sizes, edges, then the centres that it gives
GOLDEN = json.loads((Path(__file__).parent / "layout.json").read_text())


@pytest.mark.parametrize("case", GOLDEN, ids=lambda c: f"{len(c['sizes'])} boxes")
def test_coordinates_equal_the_pages(case):
    found = layout([tuple(s) for s in case["sizes"]], [tuple(e) for e in case["edges"]])
    np.testing.assert_allclose(found.centres, case["centres"], atol=1e-9)
    assert found.crossings == case["crossings"]


def test_boxes_do_not_overlap():
    def f(x):
        a, b = jnp.sin(x), jnp.cos(x)
        return (a * b).sum(), (a + b) * x

    root = ET.fromstring(cr.explain(f)(jnp.ones(3)).svg())
    boxes = [r for r in root.iter() if r.tag.endswith("rect")]
    places = [[float(r.attrib[k]) for k in ("x", "y", "width", "height")] for r in boxes]
    assert len(places) >= 6  # x, sin, cos, two products and a sum
    for k, (x, y, w, h) in enumerate(places):
        for u, v, p, q in places[k + 1 :]:
            assert x + w <= u or u + p <= x or y + h <= v or v + q <= y


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda own: own.id)
def test_lessons_are_right(lesson):
    x = jnp.asarray(lesson.point)
    data = cr.explain(lesson.function)(x).to_dict()
    J = np.asarray(jax.jacfwd(lesson.function)(x)).reshape(data["jacobian"]["shape"])
    np.testing.assert_allclose(matrix_of(data["jacobian"]), J, atol=1e-10)
    for own in data["paths"]:
        total = sum(read(p["product"]) for p in own["top"]) + read(own["rest"]["sum"])
        assert total == pytest.approx(J[own["i"], own["j"]], abs=1e-10)
    said = described(lesson, data)
    assert said["lesson"]["id"] == lesson.id
    assert len(said["practice"]) == len(lesson.exercises)
    for e in lesson.exercises:
        assert e.kind != "entry" or (e.i < J.shape[0] and e.j < J.shape[1])


def test_lessons_come_after_what_they_need():
    seen = set()
    for own in LESSONS:
        assert seen >= set(own.needs)
        seen.add(own.id)


def test_only_the_path_that_counts():
    [lesson] = [own for own in LESSONS if own.id == "B3"]
    own = cr.explain(lesson.function)(jnp.asarray(lesson.point)).paths(1, 2)
    assert own["count"] == "1"
    assert read(own["top"][0]["product"]) == pytest.approx(2 * 0.5 * 1.0 * 2.0)
    assert all(read(p["product"]) == 0 for p in own["top"][1:])


# commands -----------------------------------------------------------------------------------------


@pytest.fixture
def module(tmp_path):
    path = tmp_path / "model.py"
    path.write_text("import jax.numpy as jnp\nx0 = [1.0, 2.0]\n\ndef f(x):\n    u = jnp.sin(x)\n    return u * x\n")
    return f"{path}:f"


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        cli.main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return end.value.code, captured.out, captured.err


def test_explain(capsys, module):
    code, out, _ = run(capsys, "explain", module)
    assert code == 0
    assert "x → u  Diag(sin′)" in out
    code, out, _ = run(capsys, "explain", module, "--json", "--at", "[0.5, 1.0]")
    x = np.array([0.5, 1.0])
    data = json.loads(out)
    np.testing.assert_allclose(matrix_of(data["jacobian"]), np.diag(np.sin(x) + x * np.cos(x)), rtol=1e-9)


def test_lessons_are_listed_and_explained(capsys):
    code, out, _ = run(capsys, "lessons")
    assert (code, re.findall(r"^\w+", out, flags=re.MULTILINE)[1:]) == (0, [own.id for own in LESSONS])
    code, out, _ = run(capsys, "lessons", "B8")
    assert code == 0
    assert "∇ₓℓ = Wᵀ Diag(σ′) c" in out
    code, _, err = run(capsys, "lessons", "Z1")
    assert (code, "there is no lesson" in err) == (2, True)


def test_mistakes_end_in_one_line(capsys, module):
    for arguments in (["explain", "nowhere.py:f"], ["explain", module, "--at", "[1, 2]"], ["explore", "nowhere.py:f"]):
        code, _, err = run(capsys, *arguments)
        assert code == 2
        assert len(err.strip().splitlines()) == 1
    code, _, err = run(capsys, "explain", module, "--html", "page.txt")
    assert (code, ".html" in err) == (2, True)
