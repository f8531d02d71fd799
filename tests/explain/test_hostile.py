"""Names, sources and values that are no friends of a page: they are shown as what they are, and nothing breaks."""

import json
import xml.etree.ElementTree as ET

import jax.numpy as jnp
import pytest

import chainrule as cr
from chainrule.explain import encode
from chainrule.explain.names import Name

NAMES = [
    "<script>alert(1)</script>",
    "\"'&<>",
    "\u202eabc\u202c",
    "x" * 10_000,
    "a\x00b\x1b[31m",
    "𝒇 🎉",
    "_",
    "%_{}^~\\",
]


@pytest.mark.parametrize("name", NAMES)
def test_names(name):
    def f(x):
        return x**2 * 3.0

    f.__name__ = name
    found = cr.explain(f, argnums=0)({name: jnp.array([1.0, 2.0])}["".join(name)])
    tree = cr.explain(lambda p: p[name] * 2.0)({name: jnp.array([1.0, 2.0])})
    for own in (found, tree):
        ET.fromstring(own.svg())
        data = json.loads(own.to_json())
        for said in [e["jacobian"] for e in data["edges"]] + data["formulas"]["entries"]:
            ET.fromstring(said["mathml"])
        text = str(own)
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "<script" not in own.svg()
    assert len(max((n["symbol"] for n in tree.to_dict()["nodes"]), key=len)) < 100


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_latex_has_balanced_braces(name):
    latex = Name(name).latex.replace(r"\{", "").replace(r"\}", "")
    assert latex.count("{") == latex.count("}")


def test_values_that_are_not_finite():
    found = cr.explain(lambda x: jnp.log(x) / x)(jnp.array([0.0, -1.0, jnp.inf, 2.0]))
    data = json.loads(found.to_json(), parse_constant=lambda c: pytest.fail(f"{c} is no JSON"))
    said = {v for n in data["nodes"] for v in n["value"]["full"] if isinstance(v, str)}
    assert said == {"NaN", "Infinity", "-Infinity"}
    assert str(found)
    ET.fromstring(found.svg())


def test_empty_arrays_and_long_ones():
    empty = cr.explain(lambda x: (x.sum(), x * 2.0))(jnp.zeros((0, 3)))
    assert empty.to_dict()["jacobian"]["shape"] == [1, 0]
    long = cr.explain(lambda x: jnp.sin(x) * 2.0)(jnp.linspace(0.0, 1.0, 5000)).to_dict()
    inner = long["nodes"][1]["value"]
    assert sum(inner["histogram"]["counts"]) == 5000
    assert long["jacobian"]["form"] == "structure"
    assert long["edges"][0]["jacobian"]["shape"] == [5000, 5000]
    assert encode.matrix_of(long["jacobian"]) is None


def test_images_hold_the_largest_entries():
    said = cr.explain(lambda x: jnp.outer(x, x).ravel())(jnp.linspace(1.0, 2.0, 70)).to_dict()["jacobian"]
    assert said["form"] in ("image", "coo")
    if said["form"] == "image":
        assert max(said["image"]["cells"]) == 255
        assert said["image"]["max"] == pytest.approx(said["max"])
