"""Every rule against its primitive applied to the dense columns: eager, jit, vmap, and as a pair with its transpose."""

from typing import Any

import jax
import numpy as np
import pytest
from rules.cases import CASES
from rules.harness import agree, compare

import chainrule as cr
from chainrule._blocks.block import Block
from chainrule._check.rule import (
    COMPILED,
    EAGER,
    UNKNOWN,
    Case,
    N,
    batched,
    compiled,
    given_to,
    seeds,
    transposed,
)
from chainrule._jax import primitive, walk
from chainrule._program import Tangent
from chainrule._rules import RULES, _registry

# the linear primitives that the design lists, under JAX's own names
DESIGNED = {
    *("mul", "div", "neg", "add", "add_any", "sub", "convert_element_type", "copy", "broadcast_in_dim", "reshape"),
    *("squeeze", "expand_dims", "transpose", "rev", "slice", "dynamic_slice", "dynamic_update_slice", "pad"),
    *("concatenate", "stack", "unstack", "split", "tile", "select_n", "gather", "scatter-add", "scatter"),
    *("scatter-sub", "scatter-mul", "reduce_sum", "cumsum", "reduce_window_sum", "select_and_scatter_add"),
    *("dot_general", "conv_general_dilated", "triangular_solve", "custom_linear_solve", "fft", "real", "imag"),
    *("complex", "conj", "jit", "remat", "cond", "scan", "while"),
}
# served by inlining, by the fallback, or by the transposed program only
WITHOUT_RULE = {"jit", "remat"}


def table(kinds: str) -> Any:
    """Parametrize over the cases for these kinds of numbers."""
    found = [(k, case) for k, case in enumerate(CASES) if set(kinds) & set(case.kinds)]
    return pytest.mark.parametrize("case", [case for _, case in found], ids=[f"{k}-{case.name}" for k, case in found])


def named(name: str) -> Any:
    return primitive(name.replace("-", "_"))


@table("f")
def test_rule_is_the_primitive_on_dense_columns(case: Case) -> None:
    compare(case, np.float64, EAGER)


@table("f")
def test_rule_in_jax_as_it_comes(case: Case) -> None:
    """Compiled, and without x64: all numbers are float32, positions int32; the coefficients are known."""
    with jax.enable_x64(False):
        agree(compiled(case, np.float32, COMPILED, known=True))


@table("c")
def test_rule_in_complex_numbers(case: Case) -> None:
    """Compiled; coefficients, positions and masks are unknown."""
    agree(compiled(case, np.complex128, UNKNOWN, known=False))


@table("f")
def test_rule_under_vmap(case: Case) -> None:
    """Blocks and coefficients have one more axis, nothing of them is known."""
    agree(batched(case, np.float64))


@table("f")
def test_forward_and_reverse_are_transposes(case: Case) -> None:
    """⟨w, J v⟩ = ⟨Jᵀ w, v⟩, J from the blocks that went forward, Jᵀ from those of the transposed program."""
    if case.name == "while":
        with pytest.raises(cr.MissingRuleError, match="while"):
            list(transposed(case, np.float64))
        return
    pairs = list(transposed(case, np.float64))
    eps = 1e-6 if any(pair.got.dtype == np.float32 for pair in pairs) else 1e-10
    agree(pairs, rtol=eps, atol=eps)


def test_every_kind_of_blocks_is_used() -> None:
    assert {*EAGER, *COMPILED, *UNKNOWN} == set(seeds((2,), np.float64, np.random.default_rng(0)))


def test_every_registered_primitive_has_a_case() -> None:
    found = {named(case.name) for case in CASES}
    assert {p.name for p in RULES if p not in found} == set()


def test_every_primitive_of_the_design_has_a_case() -> None:
    assert DESIGNED - {case.name for case in CASES} == set()


@pytest.mark.parametrize("case", CASES, ids=[f"{k}-{case.name}" for k, case in enumerate(CASES)])
def test_case_contains_its_primitive(case: Case) -> None:
    dtype = np.float64 if "f" in case.kinds else np.complex128
    given = given_to(case, dtype)
    jaxpr = jax.make_jaxpr(case.g)(*[jax.ShapeDtypeStruct(s, dtype) for s in case.shapes], *given).jaxpr
    found = {eqn.primitive.name for eqn in walk(jaxpr)}
    assert found & ({"broadcast_in_dim", "reshape"} if case.name == "expand_dims" else {named(case.name).name})


def test_primitives_without_a_rule_are_known() -> None:
    found = {case.name: named(case.name) for case in CASES}
    assert {name for name, p in found.items() if p is not None and p not in RULES} == WITHOUT_RULE


def bend(rule: Any, off: str) -> Any:
    """A rule that is wrong by 0.05 %, or puts its values into the next column."""

    def bent(b: Block) -> Block:
        if off == "value":
            return b.with_vals(b.vals * b.vals.dtype.type(1.0005))
        return Block(b.shape, np.where(b.cols < 0, b.cols, (b.cols + 1) % N), b.vals, b.rows)

    def wrong(context: Any, eqn: Any, values: Any) -> Any:
        done = rule(context, eqn, values)
        if done is NotImplemented:
            return done
        return [Tangent(t.shape, t.dtype, tuple(map(bent, t.blocks))) if isinstance(t, Tangent) else t for t in done]

    return wrong


@pytest.mark.parametrize("off", ["value", "column"])
@pytest.mark.parametrize("p", RULES, ids=[p.name for p in RULES])
def test_a_planted_wrong_rule_is_caught(monkeypatch: pytest.MonkeyPatch, p: Any, off: str) -> None:
    """Some case of every rule fails once its rule is wrong: the cases reach the rule, and the tolerance can fail."""
    monkeypatch.setitem(RULES, p, bend(RULES[p], off))
    assert any(fails(case) for case in CASES if named(case.name) is p)


def fails(case: Case) -> bool:
    dtype = np.float64 if "f" in case.kinds else np.complex128
    try:
        compare(case, dtype, ["diagonal"])
        if case.coefficients:  # a known branch or position may never reach the rule
            agree(compiled(case, dtype, ["diagonal"], known=False))
    except AssertionError:
        return True
    return False


def test_a_second_registration_raises() -> None:
    with pytest.raises(ValueError, match="already registered"):
        _registry.rule("neg")(lambda *a: None)


def test_an_unknown_parameter_takes_the_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(case for case in CASES if case.name == "transpose")
    monkeypatch.setitem(_registry.PARAMETERS, named("transpose"), frozenset())
    monkeypatch.setitem(RULES, named("transpose"), None)  # called, it would raise
    compare(case, kinds=["diagonal"])
