"""What work is weighed with, by backend; `benchmarks/calibrate.py` measures it and prints these lines."""

from __future__ import annotations

from dataclasses import dataclass

import jax

from chainrule._plan.pattern import Work


@dataclass(frozen=True)
class Weights:
    """Seconds that an operation, a multiply-add, and a number that is read or written take."""

    operation: float
    multiply_add: float
    number: float

    def seconds(self, work: Work) -> float:
        """Time that this work is counted as."""
        return self.operation * work.operations + self.multiply_add * work.multiply_adds + self.number * work.numbers


WEIGHTS = {
    "cpu": Weights(operation=1.6e-06, multiply_add=2.9e-11, number=3.3e-10),  # 2026-11-21, x86_64, 4 cores, JAX 0.10.2
}


def weights() -> Weights:
    """Those of the default backend; those of the CPU, whose ratios decide, where it was not measured."""
    return WEIGHTS.get(jax.default_backend(), WEIGHTS["cpu"])
