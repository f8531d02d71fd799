"""The fuzzer finds nothing in a few seconds, finds a wrong rule, and writes it down so that it can be seen."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import fuzz
import numpy as np
import pytest
from rich.console import Console
from rules.test_rules import bend

from chainrule._jax import primitive
from chainrule._rules import RULES

SCRIPT = Path(fuzz.__file__)


def test_a_few_seconds_pass(tmp_path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(SCRIPT), "--seconds", "5", "--seed", "7", "--out", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "seed 7" in done.stdout and ", 0 mismatches" in done.stdout and "primitives: " in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_wrong_rule_is_found_and_written_down(monkeypatch, tmp_path, capsys):
    p = primitive("cumsum")
    monkeypatch.setattr(fuzz, "UNARY", [s for s in fuzz.UNARY if "cumsum" in s.text or "sin(a)" in s.text])
    right = RULES[p]
    monkeypatch.setitem(RULES, p, bend(right, "value"))
    tally = fuzz.fuzz(300, 3, tmp_path, Console(), limit=1)
    (path,) = tally.scripts
    source = path.read_text()
    assert source.count("cumsum") >= 1 and source.count("\n    v") == 1, source  # one statement is left
    assert run_script(path) == 1
    assert "chainrule, order=" in capsys.readouterr().out
    RULES[p] = right
    assert run_script(path) == 0


def run_script(path: Path) -> object:
    with fuzz.settings(), pytest.raises(SystemExit) as end:
        runpy.run_path(str(path))
    return end.value.code


def test_programs_are_the_same_for_the_same_seed():
    drawn = [fuzz.Grammar(np.random.default_rng(5)).program().source for _ in range(2)]
    assert drawn[0] == drawn[1]


def test_the_grammar_is_large():
    assert len(fuzz.UNARY) + len(fuzz.BINARY) + len(fuzz.CONTROL) >= 200
