"""The public checks: what is right passes with a report, what is wrong is named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import sparse
from rules.test_rules import bend

import chainrule as cr
from chainrule._jax import primitive
from chainrule._rules import RULES
from chainrule.testing import DisagreementError, Report, check_jacobian, check_rule

X = jnp.array([0.5, -1.0, 2.0])


@jax.custom_jvp
def wrong_by_rule(x):
    return jnp.sin(x)


wrong_by_rule.defjvp(lambda p, t: (jnp.sin(p[0]), 1.01 * jnp.cos(p[0]) * t[0]))


@jax.custom_vjp
def backwards_only(x):
    return x**2


backwards_only.defvjp(lambda x: (x**2, x), lambda x, w: (2.0 * x * w,))


def names(report: Report) -> set[str]:
    return {check.name for check in report.checks}


def test_what_agrees_is_reported():
    report = check_jacobian(jnp.sin, X)
    ways = ("pushforward", "pullback", "finite differences", "pattern", "values")
    assert names(report) == {f"order={o}: {way}" for o in ("auto", "forward", "reverse") for way in ways}
    assert all(check.deviation <= check.tolerance for check in report.checks)
    assert repr(report).startswith("sin: all 15 checks agree\n  order=auto: pushforward")


def test_pytrees_and_arguments():
    def f(k, p, s):
        return {"a": p["w"][k] * s, "b": (p["w"].sum() * p["v"],)}

    p = {"w": jnp.arange(3.0), "v": jnp.array(2.0)}
    check_jacobian(f, np.array([2, 0]), p, jnp.array(3.0), argnums=(1, 2))


@pytest.mark.parametrize("dtype", [np.float32, np.complex128, np.complex64])
def test_dtypes(dtype):
    check_jacobian(lambda x: jnp.sin(x) * x[::-1], X.astype(dtype))


def test_complex_outputs_and_mixed_dtypes():
    check_jacobian(lambda x: lax.complex(x, x * x), X)
    check_jacobian(lambda x: (x[0], jnp.sin(x[1])), (X, X.astype(np.float32)))


def test_a_pattern_that_is_too_tight_is_named(monkeypatch):
    class Tight:
        """A Jacobian whose last entry is not in its pattern."""

        def __init__(self, J):
            self.J = J

        def __getattr__(self, name):
            return getattr(self.J, name)

        def __matmul__(self, v):
            return self.J @ v

        def coo(self):
            return tuple(part[:-1] for part in self.J.coo())

    monkeypatch.setattr("chainrule.testing.jacobian", lambda *a, **k: lambda *x: Tight(cr.jacobian(*a, **k)(*x)))
    with pytest.raises(DisagreementError, match=r"sin: order=forward: pattern disagrees at row 2 \(\[2\]\), column 2"):
        check_jacobian(jnp.sin, X, order="forward")


def test_what_has_no_derivative_is_refused_as_ever():
    with pytest.raises(cr.InputTypeError, match="floating point"):
        check_jacobian(lambda x: x, jnp.arange(3))
    with pytest.raises(cr.InputTypeError, match="floating point"):
        check_jacobian(lambda x: (x > 0).astype(int), X)


def test_nothing_to_differentiate():
    check_jacobian(lambda x: x[:0] * 2.0, X)
    check_jacobian(lambda x: jnp.ones(2), X)


def test_what_jax_has_not_is_noted():
    loop = check_jacobian(lambda x: lax.while_loop(lambda s: s.sum() < 9.0, lambda s: 2.0 * s, x), X)
    assert loop.notes == ("no pullback",) and "order=reverse: values" not in names(loop)
    backwards = check_jacobian(backwards_only, X)
    assert backwards.notes == ("no pushforward",) and "order=reverse: values" in names(backwards)


def test_a_large_matrix_is_not_formed():
    report = check_jacobian(jnp.sin, X, order="forward", dense_limit=5)
    assert report.notes == ("no pattern or values",) and not any("values" in name for name in names(report))


def test_a_rule_that_is_not_the_derivative_is_named():
    message = (
        r"wrong_by_rule: order=auto: finite differences disagrees at row \d \(\[\d\]\): \S+ by chainrule, but \S+; "
        r"the deviation is 0.0\d+, more than \S+e-0\d"
    )
    with pytest.raises(DisagreementError, match=message):
        check_jacobian(wrong_by_rule, X)
    check_jacobian(wrong_by_rule, X, finite_differences=False)
    assert issubclass(DisagreementError, AssertionError) and issubclass(DisagreementError, cr.ChainruleError)


@pytest.mark.parametrize("off", ["value", "column"])
def test_a_wrong_rule_in_the_registry_is_caught(monkeypatch, off):
    monkeypatch.setitem(RULES, primitive("rev"), bend(RULES[primitive("rev")], off))
    with pytest.raises(DisagreementError, match="reversed_rows: identity blocks, result 0 in float64 disagrees at"):
        check_rule(reversed_rows, (3, 4))

    # other primitives' rules do not know of 7 columns
    def f(x):
        return {"a": reversed_rows(x["w"])}

    with pytest.raises(DisagreementError, match=r"f: order=forward: \w+ disagrees at row 0 \(\['a'\]\[0\]\)"):
        check_jacobian(f, {"w": jnp.arange(1.0, 8.0)}, order="forward")


def reversed_rows(a):
    return lax.rev(a, (0,))


def test_a_rule_that_agrees_is_reported():
    report = check_rule(lambda a, k: jnp.tile(lax.mul(a, k), 2), (2, 3), coefficients=[np.ones((2, 3))],
                        dtypes=[np.float32, np.complex128])  # fmt: skip
    assert report.notes[0].startswith("rules of: ") and "mul" in report.notes[0]
    assert {"identity blocks, result 0 in float32", "sum blocks under vmap, result 0 in complex128"} <= names(report)


def test_a_primitive_itself():
    assert check_rule(lax.neg_p, (2,)).notes == ("rules of: neg",)
    assert check_rule(jnp.positive, ()).checks


def test_a_function_without_a_rule_or_a_transpose_is_noted():
    def loop(a):
        return lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, 0.5 * s[1]), (0, a))[1]

    notes = check_rule(loop, (3,)).notes
    assert any(note.startswith("no transpose in JAX") for note in notes)
    matrix = sparse.BCOO.fromdense(np.eye(3), index_dtype=np.int32)
    notes = check_rule(lambda a: matrix @ a, (3,)).notes
    assert any(note.startswith("no rule of: ") and "bcoo_dot_general" in note for note in notes)


def test_rules_in_another_dtype_are_caught(monkeypatch):
    p = primitive("neg")
    old = RULES[p]

    def single(context, eqn, values):
        (tangent,) = old(context, eqn, values)
        blocks = tuple(b.with_vals(b.vals.astype(np.float32)) for b in tangent.blocks)
        return [type(tangent)(tangent.shape, tangent.dtype, blocks)]

    monkeypatch.setitem(RULES, p, single)
    with pytest.raises(DisagreementError, match="float32 in place of float64"):
        check_rule(lax.neg, (3,))


@pytest.mark.parametrize(
    ("f", "shapes", "said"),
    [
        (jnp.sin, [(3,)], r"check_rule of sin: .*linear in its operands of shapes \[\(3,\)\]"),
        (lambda a, b: a * b, [(3,), (3,)], r"linear in its operands .* coefficients"),
        (lambda: 1.0, [], "give the shapes of the operands"),
    ],
)
def test_a_rule_is_checked_with_a_linear_function(f, shapes, said):
    with pytest.raises(cr.InputTypeError, match=said):
        check_rule(f, *shapes)
