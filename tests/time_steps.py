"""Steps of explicit time integration, for the tests of loops and of chains of steps."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

WALLS = np.array([0.0] + [1.0] * 10 + [0.0])


def rod(u: Any) -> Any:
    """Nonlinear conduction, zero outside."""
    padded = jnp.pad(u, 1)
    D = 1 + padded**2
    flux = (D[1:] + D[:-1]) / 2 * (padded[1:] - padded[:-1])
    return u + 0.1 * (flux[1:] - flux[:-1]) + 0.1 * u * (1 - u)


def results_of(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[Any]:
    """What a function of a module gives, call after call."""
    found: list[Any] = []
    function = getattr(module, name)

    def noted(*args: Any) -> Any:
        found.append(function(*args))
        return found[-1]

    monkeypatch.setattr(module, name, noted)
    return found
