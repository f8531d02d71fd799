"""Worked examples of Jacobians, of the chain rule and of its orders, each a function that can be explained.

The source of these functions is what a learner sees: a line is a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

W = np.array([[1.0, -0.5], [0.8, 1.2], [-0.6, 0.9]])
V = np.array([[0.5, -1.0, 0.25], [2.0, 0.3, -0.7]])
b = np.array([0.1, -0.2, 0.3])
c = np.array([1.5, -1.0, 2.0])


@dataclass(frozen=True)
class Exercise:
    """A question about a function at its point: the shape of J, an entry, or the cheaper order; J holds the answer."""

    kind: str
    level: str
    question: str
    i: int | None = None
    j: int | None = None


@dataclass(frozen=True)
class Lesson:
    """A function, a point, what is to be seen there, and which lessons come before."""

    id: str
    title: str
    function: Callable[..., Any]
    point: Any
    text: str
    needs: tuple[str, ...] = ()
    exercises: tuple[Exercise, ...] = ()


# A: Jacobians ------------------------------------------------------------------------------------


def quadratic(x: Any) -> Any:
    first = x[0] ** 2 + x[1]
    second = x[0] * x[1]
    return jnp.stack([first, second])


def distance(x: Any) -> Any:
    return x[0] ** 2 + 3.0 * x[1] ** 2


def affine(x: Any) -> Any:
    return W @ x + b


def activation(x: Any) -> Any:
    return jnp.tanh(x)


def softmax(x: Any) -> Any:
    e = jnp.exp(x)
    s = e / e.sum()
    return s  # noqa: RET504


def relu_layer(x: Any) -> Any:
    z = W @ x + b
    h = jax.nn.relu(z)
    return h  # noqa: RET504


def three_features(x: Any) -> Any:
    u = jnp.stack([x[0], x[0] * x[1], x[1] ** 2])
    y = 2.0 * u[0] - u[1] + u[2]
    return y  # noqa: RET504


def wave(x: Any) -> Any:
    u = jnp.stack([x[0] ** 2, jnp.sin(x[1])])
    loss = u[0] * u[1]
    return loss  # noqa: RET504


# B: the chain rule -------------------------------------------------------------------------------


def sine_of_square(x: Any) -> Any:
    u = x**2
    y = jnp.sin(u)
    return y  # noqa: RET504


def on_a_circle(t: Any) -> Any:
    x = jnp.stack([jnp.cos(t), jnp.sin(t)])
    height = x[0] ** 2 + x[1] ** 2
    return height  # noqa: RET504


def two_paths(x: Any) -> Any:
    u = jnp.stack([x[0] * x[1], x[1] + x[2] ** 2])
    y = jnp.stack([u[0] + u[1], u[0] * u[1]])
    return y  # noqa: RET504


def composed(x: Any) -> Any:
    u = jnp.stack([x[0] ** 2 + x[1], x[0] * x[1]])
    y = u[0] + u[1] ** 2
    return y  # noqa: RET504


def push_and_pull(x: Any) -> Any:
    u = jnp.stack([x[0] + 2.0 * x[1], x[0] - x[1]])
    loss = u[0] ** 2 + 3.0 * u[1]
    return loss  # noqa: RET504


def network(x: Any) -> Any:
    a = W @ x + b
    h = jnp.tanh(a)
    loss = c @ h
    return loss  # noqa: RET504


def two_layers(x: Any) -> Any:
    h = jnp.tanh(W @ x)
    y = V @ h
    return y  # noqa: RET504


# C: order and cost -------------------------------------------------------------------------------

_random = np.random.default_rng(0)
A1, A2, A3 = (_random.normal(size=s) / np.sqrt(s[1]) for s in ((3, 12), (12, 8), (8, 2)))
wide = _random.normal(size=(2, 24)) / 5.0
tall = _random.normal(size=(24, 2))
weights = _random.normal(size=12)


def few_inputs(x: Any) -> Any:
    a = A3 @ x
    h = jnp.tanh(A2 @ a)
    y = A1 @ h
    return y  # noqa: RET504


def one_output(x: Any) -> Any:
    a = A2.T @ x
    h = jnp.tanh(a)
    loss = h @ h
    return loss  # noqa: RET504


def narrow_waist(x: Any) -> Any:
    z = wide @ x
    h = jnp.tanh(z)
    y = tall @ h
    return y  # noqa: RET504


def _entry(i: int, j: int, level: str = "easy") -> Exercise:
    return Exercise("entry", level, f"Which number is the entry in row {i + 1} and column {j + 1} of J?", i, j)


_SHAPE = Exercise("shape", "easy", "Which shape has J: how many rows, how many columns?")
_ORDER = Exercise("order", "medium", "Which order takes fewer multiplications: from the input, or from the output?")

LESSONS: tuple[Lesson, ...] = (
    Lesson("A1", "A Jacobian is a stack of gradients", quadratic, [1.0, 2.0],
           "Row i is the gradient of output i, column j the effect of input j. At (1, 2) the rows are equal, and the "
           "determinant is 0; at (1, 0) it is 2.", (), (_SHAPE, _entry(1, 0))),
    Lesson("A2", "One output: the gradient", distance, [1.0, 0.5],
           "A scalar function has a Jacobian of one row. The gradient stands across the level sets.", ("A1",),
           (_SHAPE, _entry(0, 1))),
    Lesson("A3", "A linear map is its own Jacobian", affine, [1.0, 0.5],
           "J is W everywhere, and the increment of an affine function is exact: there is no remainder.", ("A1",),
           (_SHAPE, _entry(2, 0))),
    Lesson("A6", "Element by element: a diagonal", activation, [0.5, -1.0, 2.0],
           "Output i depends on input i alone, so n numbers are stored in place of n times n.", ("A1",),
           (_entry(0, 1), _entry(2, 2, "medium"))),
    Lesson("A7", "Softmax: a diagonal and a map of rank one", softmax, [1.0, 0.0, -1.0],
           "J = Diag(s) − s sᵀ. Its columns add up to 0, and the kernel is spanned by (1, …, 1).", ("A6",),
           (_entry(0, 1, "hard"),)),
    Lesson("A8", "ReLU: rows of zeros", relu_layer, [1.0, -0.5],
           "A unit below zero is dead here: its row of J vanishes.", ("A3", "A6"), (_entry(1, 0, "medium"),)),
    Lesson("A11", "A value that is used twice", three_features, [2.0, 3.0],
           "Partials along different ways add up: the gradient is (2 − x₂, −x₁ + 2 x₂).", ("A2",),
           (_SHAPE, _entry(0, 0, "medium"))),
    Lesson("A12", "A product of two functions", wave, [1.0, 0.5],
           "The gradient is (2 x₁ sin x₂, x₁² cos x₂).", ("A2",), (_entry(0, 1, "medium"),)),
    Lesson("B4", "A chain of numbers", sine_of_square, 1.5,
           "Multiply along the chain: 2x · cos x².", ("A2",), (_entry(0, 0),)),
    Lesson("B2", "Along a level set nothing changes", on_a_circle, 0.7,
           "On a circle the height x² + y² stays: the gradient is perpendicular to the velocity, and the paths cancel.",
           ("B4",), (_entry(0, 0, "medium"),)),
    Lesson("B3", "Sum over paths", two_paths, [1.0, 2.0, 0.5],
           "∂yᵢ/∂xⱼ = Σₖ ∂yᵢ/∂uₖ ∂uₖ/∂xⱼ. For y₂ and x₃ only the path through u₂ counts: 2 x₃ · x₁ x₂.", ("B4",),
           (_entry(1, 2, "medium"), _SHAPE)),
    Lesson("B5", "Compose, then multiply the Jacobians", composed, [1.0, 2.0],
           "The gradient is (2 x₁ + 2 x₁ x₂², 1 + 2 x₁² x₂): (10, 5) here.", ("B3",), (_entry(0, 0, "medium"), _SHAPE)),
    Lesson("B6", "Push a step forward, pull a gradient back", push_and_pull, [1.0, 1.0],
           "Δx = (0.01, −0.02) becomes Δu = (−0.03, 0.03) and Δℓ = −0.09; the gradient (9, 9) says the same.", ("B5",),
           (_entry(0, 1, "medium"),)),
    Lesson("B8", "A layer of a network", network, [1.0, 0.5],
           "x → Wx + b → σ → c·h, so ∇ₓℓ = Wᵀ Diag(σ′) c.", ("B5", "A6"), (_SHAPE, _entry(0, 0, "hard"), _ORDER)),
    Lesson("B9", "Two layers", two_layers, [1.0, 0.5],
           "J = V Diag(σ′) W; without the activation it is the product of the matrices.", ("B8",),
           (_SHAPE, _entry(0, 1, "hard"))),
    Lesson("C1", "Few inputs: from the input", few_inputs, [1.0, -0.5],
           "Every bracketing gives the same J; two columns are less to carry than three rows.", ("B9",), (_ORDER,)),
    Lesson("C4", "One output: from the output", one_output, weights.tolist(),
           "One row travels back through all of the chain: the reverse sweep of every gradient.", ("C1",),
           (_SHAPE, _ORDER)),
    Lesson("C7", "A narrow waist: from both sides", narrow_waist, np.linspace(-1.0, 1.0, 24).tolist(),
           "All paths pass through two numbers: the two thin factors are multiplied last, and J has rank 2.", ("C4",),
           (_ORDER,)),
)  # fmt: skip


def lesson(id: str) -> Lesson | None:  # noqa: A002
    """The lesson of this name."""
    return next((own for own in LESSONS if own.id.lower() == id.lower()), None)


def described(own: Lesson, data: dict[str, Any]) -> dict[str, Any]:
    """The document of a lesson's function, with the lesson and its exercises."""
    ids = [k.id for k in LESSONS]
    later = ids[ids.index(own.id) + 1 :]
    said = {
        "id": own.id,
        "title": own.title,
        "text": own.text,
        "needs": list(own.needs),
        "next": next(iter(later), None),
    }
    practice = [_exercise(f"{own.id}.{k}", e) for k, e in enumerate(own.exercises, 1)]
    return {**data, "lesson": said, "practice": practice}


def _exercise(id: str, own: Exercise) -> dict[str, Any]:  # noqa: A002
    return {"id": id, "kind": own.kind, "level": own.level, "question": own.question, "i": own.i, "j": own.j}


def listed(lessons: Sequence[Lesson] = LESSONS) -> list[tuple[str, str, str]]:
    """(id, title, what comes before) of each, in order."""
    return [(own.id, own.title, ", ".join(own.needs) or "none") for own in lessons]
