"""The command line as a user meets it: what it prints, what it writes, and one line for each mistake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.io
import scipy.sparse

from chainrule import cli

MODULE = """
from typing import NamedTuple
import jax
import jax.numpy as jnp
import numpy as np

x0 = np.array([1.0, 2.0, 3.0])
matrix = np.eye(2)

def stencil(x):
    return x[1:] * x[:-1]

def of_dict(p):
    return p["a"] * p["b"].sum()

def of_pair(p):
    return p[0] * p[1]

def of_square(x):
    return x @ jnp.ones((2, 2))

def broken(x):
    raise RuntimeError("out of\\nluck")

def whole(x):
    return jnp.zeros(2, int)

@jax.custom_jvp
def lying(x):
    return x**2

lying.defjvp(lambda x, t: (x[0] ** 2, 3.0 * x[0] * t[0]))

@jax.custom_vjp
def backward_only(x):
    return jnp.sin(x)

backward_only.defvjp(lambda x: (jnp.sin(x), jnp.cos(x)), lambda c, w: (c * w,))

def looping(x):
    return jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * x), (0, x))[1]

def scalar(x):
    return jnp.sin(x)
"""


@pytest.fixture
def chainrule(tmp_path, monkeypatch, capsys):
    """Run the command line in a folder that holds `model.py`; give (exit code, stdout, stderr)."""
    (tmp_path / "model.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*arguments):
        monkeypatch.delitem(sys.modules, "model", raising=False)
        with pytest.raises(SystemExit) as stopped:
            cli.main(["jacobian", *arguments])
        return stopped.value.code or 0, *capsys.readouterr()

    return run


def lines(printed):
    """The figures under the picture: {name: text}."""
    rows = [line.split(maxsplit=1) for line in printed.splitlines() if line[:1].isalpha()]
    return {name: rest for name, rest in rows if name != "check"}


def test_report(chainrule):
    code, printed, errors = chainrule("model.py:stencil")
    assert (code, errors) == (0, "")
    found = lines(printed)
    assert found["shape"] == "2 outputs × 3 inputs, float64"
    assert found["nonzeros"] == "4"
    assert found["order"] in ("forward", "reverse")
    assert found["cost"].endswith("multiply-adds")
    assert found["structure"]
    assert [word.split()[0] for word in found["times"].split(", ")] == ["trace", "compile", "run", "pattern"]
    assert "┌" in printed and any("\u2801" <= c <= "\u28ff" for c in printed)


def test_module_by_dotted_name(chainrule, tmp_path):
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "inside.py").write_text("def f(x):\n    return x * x\nx0 = lambda: [1.0, 2.0]\n")
    code, printed, _ = chainrule("package.inside:f")
    assert code == 0 and lines(printed)["structure"] == "diagonal"


def test_a_file_is_found_whatever_module_has_its_name(chainrule, tmp_path):
    (tmp_path / "json.py").write_text("def f(x):\n    return -x\nx0 = 1.0\n")
    assert chainrule("json.py:f")[0] == 0
    assert sys.modules["json"] is json


@pytest.mark.parametrize("order", ["forward", "reverse"])
def test_order(chainrule, order):
    assert lines(chainrule("model.py:stencil", "--order", order)[1])["order"] == order


POINTS = {
    "p.npy": lambda p: np.save(p, [1.0, 2.0, 5.0]),
    "p.json": lambda p: p.write_text("[1.0, 2, 5]"),
    "p.csv": lambda p: p.write_text("1, 2, 5\n"),
}


@pytest.mark.parametrize("name", POINTS)
def test_point_from_a_file(chainrule, tmp_path, name):
    POINTS[name](tmp_path / name)
    code, *_ = chainrule("model.py:stencil", "--at", name, "--out", "J.npz")
    assert code == 0
    np.testing.assert_array_equal(scipy.sparse.load_npz("J.npz").toarray(), [[2, 1, 0], [0, 5, 2]])


def test_point_from_an_archive_is_a_dict(chainrule):
    np.savez("p.npz", a=np.ones(2), b=np.ones((2, 2)))
    code, printed, _ = chainrule("model.py:of_dict", "--at", "p.npz")
    assert code == 0 and lines(printed)["shape"] == "2 outputs × 6 inputs, float64"


@pytest.mark.parametrize(
    ("function", "literal", "shape"),
    [
        ("stencil", "[1.0, 2.0]", "1 outputs × 2 inputs, float64"),
        ("of_square", "[[1.0, 2], [3, 4]]", "4 outputs × 4 inputs, float64"),
        ("of_pair", "([1.0, 2.0], 3.0)", "2 outputs × 3 inputs, float64"),
        ("of_dict", "{'a': 2.0, 'b': [1.0]}", "1 outputs × 2 inputs, float64"),
        ("scalar", "[1.0 + 2j]", "1 outputs × 1 inputs, complex128"),
        ("scalar", "[]", "0 outputs × 0 inputs, float64"),
    ],
)
def test_point_from_a_literal(chainrule, function, literal, shape):
    code, printed, errors = chainrule(f"model.py:{function}", "--at", literal)
    assert (code, errors) == (0, "")
    assert lines(printed)["shape"] == shape


def test_single_precision_stays(chainrule):
    np.save("p.npy", np.ones(3, np.float32))
    code, printed, _ = chainrule("model.py:stencil", "--at", "p.npy", "--check")
    assert code == 0 and lines(printed)["shape"].endswith("float32")
    assert printed.count("agrees") == 3


def test_x0_keeps_its_tree(chainrule, tmp_path):
    with (tmp_path / "model.py").open("a") as file:
        file.write("class P(NamedTuple):\n    a: float\n    b: list\n")
        file.write("x0 = P(1.0, [jnp.ones(2), np.ones(3)])\ndef named(p):\n    return p.a * p.b[0].sum() * p.b[1]\n")
    code, printed, _ = chainrule("model.py:named", "--check")
    assert code == 0 and lines(printed)["shape"].startswith("3 outputs × 6 inputs")


def test_out_matrix_market(chainrule):
    code, printed, _ = chainrule("model.py:stencil", "--out", "J.mtx")
    assert code == 0 and lines(printed)["written"] == "J.mtx"
    np.testing.assert_array_equal(scipy.io.mmread("J.mtx", spmatrix=False).toarray(), [[2, 1, 0], [0, 3, 2]])


def test_check_agrees(chainrule):
    code, printed, _ = chainrule("model.py:stencil", "--check")
    rows = [line for line in printed.splitlines() if line.startswith("check")]
    assert code == 0
    assert [row.split(":")[0].split(maxsplit=1)[1] for row in rows] == ["pushforward", "pullback", "finite differences"]
    assert all(row.endswith("agrees") for row in rows)


def test_check_catches_a_wrong_derivative(chainrule):
    code, printed, _ = chainrule("model.py:lying", "--check")
    assert code == 1
    assert [line.split()[1] for line in printed.splitlines() if "DISAGREES" in line] == ["finite"]


def test_check_catches_a_wrong_jacobian(chainrule, monkeypatch):
    right = cli._assembled
    monkeypatch.setattr(cli, "_assembled", lambda *a: 1.001 * right(*a))
    code, printed, _ = chainrule("model.py:stencil", "--check", "--out", "J.npz")
    assert code == 1 and printed.count("DISAGREES") == 3
    assert Path("J.npz").exists()


@pytest.mark.parametrize(("function", "missing"), [("backward_only", "pushforward"), ("looping", "pullback")])
def test_check_says_what_jax_does_not_have(chainrule, function, missing):
    code, printed, errors = chainrule(f"model.py:{function}", "--check")
    assert (code, errors) == (0, "")
    assert f"{missing}: JAX has none" in printed and printed.count("agrees") == 2


MISTAKES = {
    "no file": (["nowhere.py:f"], "no file nowhere.py"),
    "no module": (["nowhere.at_all:f"], "nowhere.at_all cannot be imported: ModuleNotFoundError"),
    "no colon": (["model.py"], "'model.py' is not FILE.py:function or package.module:function"),
    "no name": (["model.py:"], "'model.py:' is not"),
    "no function": (["model.py:absent"], "model.py has no function 'absent'; it has stencil, of_dict, of_pair"),
    "not callable": (["model.py:matrix"], "model.py:matrix is a ndarray, not a function"),
    "not Python": (["./p.txt:f"], "p.txt is not a Python file"),
    "fails to import": (["fails.py:f"], "fails.py cannot be imported: ZeroDivisionError"),
    "leaves while importing": (["leaves.py:f"], "leaves.py cannot be imported: SystemExit: 3"),
    "no point": (["pointless.py:f"], "no point: give one with --at, or define x0 in pointless"),
    "x0 fails": (["bad_x0.py:f"], "x0() of bad_x0 fails: ValueError: no"),
    "function fails": (["model.py:broken"], "model.py:broken fails at the point float64[3]: RuntimeError: out of"),
    "wrong shape": (["model.py:of_square"], "model.py:of_square fails at the point float64[3]: TypeError"),
    "wrong tree": (["model.py:of_dict"], "model.py:of_dict fails at the point float64[3]"),
    "whole output": (["model.py:whole"], "int64"),
    "whole point": (
        ["model.py:stencil", "--at", "[1, 2]"],
        "must be floating point, got int64 of shape (2,); write 1.0",
    ),
    "true point": (["model.py:stencil", "--at", "[True]"], "must be floating point, got bool of shape (1,)"),
    "text point": (["model.py:stencil", "--at", "'abc'"], "must be floating point, got <U3"),
    "ragged point": (["model.py:stencil", "--at", "[[1.0], [1.0, 2.0]]"], "the point is not an array"),
    "bad literal": (["model.py:stencil", "--at", "[1.0,"], "--at '[1.0,' is neither a file (.npy, .npz, .json, .csv)"),
    "no point file": (["model.py:stencil", "--at", "nowhere.npy"], "no file nowhere.npy"),
    "bad json": (["model.py:stencil", "--at", "bad.json"], "bad.json cannot be read"),
    "bad csv": (["model.py:stencil", "--at", "bad.csv"], "bad.csv cannot be read"),
    "bad npz": (["model.py:stencil", "--at", "bad.npz"], "bad.npz cannot be read"),
    "pickle": (["model.py:stencil", "--at", "pickle.npy"], "pickle.npy cannot be read: Object arrays"),
    "out suffix": (["model.py:stencil", "--out", "J.txt"], "write to a name that ends in .npz"),
    "out folder": (["model.py:stencil", "--out", "no/J.npz"], "--out no/J.npz: no folder no"),
}


@pytest.fixture
def bad_files(tmp_path):
    (tmp_path / "p.txt").touch()
    (tmp_path / "fails.py").write_text("1 / 0")
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)")
    (tmp_path / "pointless.py").write_text("def f(x):\n    return x\n")
    (tmp_path / "bad_x0.py").write_text("def f(x):\n    return x\ndef x0():\n    raise ValueError('no')\n")
    for name in ("bad.json", "bad.csv", "bad.npz"):
        (tmp_path / name).write_text("{what")
    np.save(tmp_path / "pickle.npy", np.array([{}]), allow_pickle=True)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_in_one_line(chainrule, bad_files, mistake):
    arguments, said = MISTAKES[mistake]
    code, printed, errors = chainrule(*arguments)
    assert (code, printed) == (2, "")
    assert errors.startswith("error: ") and said in errors
    assert errors.count("\n") == 1 and "Traceback" not in errors


def test_an_unknown_order_is_refused(chainrule):
    code, printed, errors = chainrule("model.py:stencil", "--order", "sideways")
    assert (code, printed) == (2, "")
    assert "sideways" in errors and "Traceback" not in errors


def test_progress_is_shown_after_a_second(monkeypatch):
    shown = []
    status = type("Status", (), {"start": lambda s: shown.append("start"), "stop": lambda s: shown.append("stop")})()
    monkeypatch.setattr(cli._err, "status", lambda text: status)
    timers = []
    monkeypatch.setattr(cli.threading, "Timer", lambda seconds, start: timers.append(seconds) or Now(start))
    times = {}
    with cli._phase("compile", times):
        assert shown == ["start"]
    assert shown == ["start", "stop"] and timers == [1.0] and times["compile"] >= 0


class Now:
    """A timer that rings at once."""

    def __init__(self, ring):
        self.start, self.cancel, self.join = ring, lambda: None, lambda: None


def test_as_a_user_runs_it(tmp_path):
    """A new process starts without double precision; the point asks for it."""
    (tmp_path / "model.py").write_text(MODULE)
    outside = {k: v for k, v in os.environ.items() if k not in ("JAX_ENABLE_X64", "PYTHONUTF8")}
    outside["PYTHONIOENCODING"] = "utf-8"
    command = [sys.executable, "-m", "chainrule", "jacobian", "model.py:stencil", "--check"]
    run = subprocess.run(command, cwd=tmp_path, env=outside, capture_output=True, encoding="utf-8", check=False)
    assert run.returncode == 0, run.stderr
    assert lines(run.stdout)["shape"] == "2 outputs × 3 inputs, float64"
    assert run.stdout.count("agrees") == 3


def test_x64_is_left_alone_for_single_precision(chainrule):
    before = jax.config.jax_enable_x64
    np.save("p.npy", np.ones(3, np.float32))
    assert chainrule("model.py:stencil", "--at", "p.npy")[0] == 0
    assert jax.config.jax_enable_x64 == before
