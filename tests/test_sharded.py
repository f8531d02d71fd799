"""Jacobians of arrays that are split over devices: split alike, with the same numbers, and no traffic between them."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("axes", ["auto", "explicit"])
def test_on_eight_devices(axes: str) -> None:
    command = [sys.executable, str(Path(__file__).with_name("sharded.py")), axes]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-5000:]
