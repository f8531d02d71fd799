"""What rules take for granted of JAX: the operands' order and the parameters of every primitive.

A release of JAX that changes one of them breaks one named test here, not a result.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.ad_checkpoint
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import sparse
from jax.extend.core import jaxpr_as_fun

from chainrule._jax import IGNORED_PARAMETERS, inner_jaxpr, primitive, run_equation, scan_counts, walk
from chainrule._rules import RULES, written_out
from chainrule._rules._registry import PARAMETERS


class Contract(NamedTuple):
    """`order`: for every operand the argument of `call` it is (None: a value that JAX computes or writes itself)."""

    name: str
    call: Callable[..., Any]
    arguments: Sequence[str]
    order: Sequence[int | None]
    parameters: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Like:
    """Pins attributes of a parameter that is an object."""

    attributes: dict[str, Any]

    def __eq__(self, other: object) -> bool:
        return all(getattr(other, name) == value for name, value in self.attributes.items())


@dataclass(frozen=True, eq=False)
class Kind:
    """Pins nothing but the class of a parameter."""

    kind: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, self.kind)


def named(name: str) -> Any:
    return primitive(name.replace("-", "_"))


def argument(words: str) -> jax.ShapeDtypeStruct:
    """'f 3 4' is a float64 array of shape (3, 4); 'i' and 'b' are int32 and bool, 'c' is complex128."""
    dtype, *shape = words.split()
    return jax.ShapeDtypeStruct(
        tuple(map(int, shape)), {"f": np.float64, "i": np.int32, "b": np.bool_, "c": np.complex128}[dtype]
    )


ROWS = lax.ScatterDimensionNumbers(
    update_window_dims=(1,), inserted_window_dims=(0,), scatter_dims_to_operand_dims=(0,)
)
PICK = lax.GatherDimensionNumbers(offset_dims=(1,), collapsed_slice_dims=(0,), start_index_map=(0,))
SCATTER = {"dimension_numbers": ROWS, "mode": lax.GatherScatterMode.FILL_OR_DROP}
LAST = Like({"lhs_spec": (0, 3, 1, 2), "rhs_spec": (3, 2, 0, 1), "out_spec": (0, 3, 1, 2)})  # channels last
BODY = Kind((jex.Jaxpr, jex.ClosedJaxpr))
WINDOW = {
    "window_dimensions": (2, 1),
    "window_strides": (1, 1),
    "padding": ((1, 0), (0, 0)),
    "base_dilation": (1, 1),
    "window_dilation": (1, 2),
}


def windowed(a: Any) -> Any:
    return lax.reduce_window(a, 0.0, lax.add, (2, 1), (1, 1), ((1, 0), (0, 0)), (1, 1), (1, 2))


def greatest(a: Any) -> Any:
    return lax.reduce_window(a, -jnp.inf, lax.max, (2, 1), (2, 1), "VALID")


def convolved(a: Any, k: Any) -> Any:
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(a, k, (1, 2), ((0, 1), (2, 0)), (2, 1), (1, 2), dimension_numbers=numbers)


def solved(matrix: Any, b: Any) -> Any:
    return lax.custom_linear_solve(lambda x: matrix @ x, b, lambda _, r: r, lambda _, r: r)


def placed(a: Any) -> Any:
    return lax.with_sharding_constraint(a, jax.sharding.SingleDeviceSharding(jax.devices()[0]))


CONTRACTS = [
    Contract("mul", lax.mul, ["f 3", "f 3"], [0, 1]),
    Contract("div", lax.div, ["f 3", "f 3"], [0, 1]),
    Contract("neg", lax.neg, ["f 3"], [0]),
    Contract("add", lax.add, ["f 3", "f 3"], [0, 1]),
    Contract("add_any", lambda a, b: jax.vjp(lambda t: (t, t), a)[1]((a, b))[0], ["f 3", "f 3"], [0, 1]),
    Contract("sub", lax.sub, ["f 3", "f 3"], [0, 1]),
    Contract("copy", jnp.copy, ["f 3"], [0]),
    Contract("convert_element_type", lambda a: lax.convert_element_type(a, np.float32), ["f 3"], [0],
             {"new_dtype": np.dtype(np.float32)}),
    Contract("real", lax.real, ["c 3"], [0]),
    Contract("imag", lax.imag, ["c 3"], [0]),
    Contract("conj", lax.conj, ["c 3"], [0], {"input_dtype": np.dtype(np.complex128)}),
    Contract("complex", lax.complex, ["f 3", "f 3"], [0, 1]),
    Contract("select_n", lax.select_n, ["b 3", "f 3", "f 3"], [0, 1, 2]),
    Contract("select_n", lax.select_n, ["i 3", "f 3", "f 3", "f 3"], [0, 1, 2, 3]),
    Contract("optimization_barrier", lambda a, b: lax.optimization_barrier((a, b)), ["f 3", "f 2"], [0, 1]),
    Contract("name", lambda a: jax.ad_checkpoint.checkpoint_name(a, "here"), ["f 3"], [0], {"name": "here"}),
    Contract("device_put", lambda a: jax.device_put(a, jax.devices()[0]), ["f 3"], [0]),
    Contract("sharding_constraint", placed, ["f 3"], [0]),
    Contract("broadcast_in_dim", lambda a: lax.broadcast_in_dim(a, (2, 3, 4), (1, 2)), ["f 3 4"], [0],
             {"shape": (2, 3, 4), "broadcast_dimensions": (1, 2)}),
    Contract("reshape", lambda a: lax.reshape(a, (4, 3)), ["f 3 4"], [0], {"new_sizes": (4, 3), "dimensions": None}),
    Contract("squeeze", lambda a: lax.squeeze(a, (1,)), ["f 3 1"], [0], {"dimensions": (1,)}),
    Contract("transpose", lambda a: lax.transpose(a, (2, 0, 1)), ["f 2 3 4"], [0], {"permutation": (2, 0, 1)}),
    Contract("rev", lambda a: lax.rev(a, (1,)), ["f 3 4"], [0], {"dimensions": (1,)}),
    Contract("slice", lambda a: lax.slice(a, (1, 0), (3, 4), (1, 2)), ["f 3 4"], [0],
             {"start_indices": (1, 0), "limit_indices": (3, 4), "strides": (1, 2)}),
    Contract("slice", lambda a: lax.slice(a, (1, 0), (3, 4)), ["f 3 4"], [0], {"strides": None}),
    Contract("pad", lambda a, z: lax.pad(a, z, ((1, 2, 1), (0, -1, 0))), ["f 3 4", "f"], [0, 1],
             {"padding_config": ((1, 2, 1), (0, -1, 0))}),
    Contract("concatenate", lambda a, b: lax.concatenate([b, a], 1), ["f 3 4", "f 3 2"], [1, 0], {"dimension": 1}),
    Contract("stack", lambda a, b: jnp.stack([b, a], 1), ["f 3", "f 3"], [1, 0], {"axis": 1}),
    Contract("unstack", lambda a: jnp.unstack(a, axis=1), ["f 3 4"], [0], {"axis": 1}),
    Contract("split", lambda a: lax.split(a, (1, 3), 1), ["f 3 4"], [0], {"sizes": (1, 3), "axis": 1}),
    Contract("tile", lambda a: jnp.tile(a, (2, 3)), ["f 3 4"], [0], {"reps": (2, 3)}),
    Contract("dynamic_slice", lambda a, i, j: lax.dynamic_slice(a, (i, j), (2, 1), allow_negative_indices=False),
             ["f 3 4", "i", "i"], [0, 1, 2], {"slice_sizes": (2, 1)}),
    Contract("dynamic_update_slice",
             lambda a, b, i, j: lax.dynamic_update_slice(a, b, (i, j), allow_negative_indices=False),
             ["f 3 4", "f 2 1", "i", "i"], [0, 1, 2, 3]),
    Contract("gather", lambda a, i: lax.gather(a, i, PICK, (1, 4), mode="fill", fill_value=0), ["f 3 4", "i 2 1"],
             [0, 1],
             {"dimension_numbers": PICK, "slice_sizes": (1, 4), "mode": lax.GatherScatterMode.FILL_OR_DROP,
              "fill_value": 0}),
    Contract("scatter-add", lambda a, i, b: lax.scatter_add(a, i, b, ROWS), ["f 3 4", "i 2 1", "f 2 4"], [0, 1, 2],
             SCATTER),
    Contract("scatter-sub", lambda a, i, b: lax.scatter_sub(a, i, b, ROWS), ["f 3 4", "i 2 1", "f 2 4"], [0, 1, 2],
             SCATTER),
    Contract("scatter-mul", lambda a, i, b: lax.scatter_mul(a, i, b, ROWS), ["f 3 4", "i 2 1", "f 2 4"], [0, 1, 2],
             SCATTER),
    Contract("scatter", lambda a, i, b: lax.scatter(a, i, b, ROWS), ["f 3 4", "i 2 1", "f 2 4"], [0, 1, 2], SCATTER),
    Contract("reduce_sum", lambda a: a.sum((0, 2)), ["f 2 3 4"], [0], {"axes": (0, 2)}),
    Contract("cumsum", lambda a: lax.cumsum(a, 1, reverse=True), ["f 3 4"], [0], {"axis": 1, "reverse": True}),
    Contract("reduce_window_sum", windowed, ["f 4 3"], [0], WINDOW),
    Contract("select_and_gather_add", lambda a, t: jax.linearize(greatest, a)[1](t), ["f 4 3", "f 4 3"], [1, 0],
             {**WINDOW, "window_strides": (2, 1), "padding": ((0, 0), (0, 0)), "window_dilation": (1, 1)}),
    Contract("select_and_scatter_add", lambda a, w: jax.vjp(greatest, a)[1](w), ["f 4 3", "f 2 3"], [1, 0],
             {"window_dimensions": (2, 1), "window_strides": (2, 1), "padding": ((0, 0), (0, 0))}),
    Contract("dot_general", lambda a, b: lax.dot_general(a, b, (((2,), (1,)), ((0,), (0,)))), ["f 2 3 4", "f 2 4 5"],
             [0, 1], {"dimension_numbers": (((2,), (1,)), ((0,), (0,)))}),
    Contract("conv_general_dilated", convolved, ["f 2 5 6 4", "f 2 3 4 3"], [0, 1],
             {"window_strides": (1, 2), "padding": ((0, 1), (2, 0)), "lhs_dilation": (2, 1), "rhs_dilation": (1, 2),
              "feature_group_count": 1, "batch_group_count": 1, "dimension_numbers": LAST}),
    Contract("triangular_solve", lambda a, b: lax.linalg.triangular_solve(a, b, left_side=True, transpose_a=True),
             ["f 3 3", "f 3 2"], [0, 1], {"left_side": True, "lower": False, "transpose_a": True, "conjugate_a": False,
                                          "unit_diagonal": False}),
    Contract("custom_linear_solve", solved, ["f 3 3", "f 3"], [0, 0, 1],
             {"const_lengths": Like({"matvec": 1, "vecmat": 1, "solve": 0, "transpose_solve": 0})}),
    Contract("reduce_precision", lambda a: lax.reduce_precision(a, 8, 10), ["f 3"], [0],
             {"exponent_bits": 8, "mantissa_bits": 10}),
    Contract("tridiagonal_solve", lambda b, k, d, u: lax.linalg.tridiagonal_solve(k, d, u, b),
             ["f 3 2", "f 3", "f 3", "f 3"], [1, 2, 3, 0], {"perturb_singular": False}),
    Contract("stop_gradient", lax.stop_gradient, ["f 3"], [0]),
    Contract("fft", lambda a: jnp.fft.rfft2(a), ["f 3 4"], [0], {"fft_lengths": (3, 4)}),
    Contract("jit", lambda a, b: jax.jit(lambda t, s: s + t)(b, a), ["f 3", "f 3"], [1, 0], {"jaxpr": BODY}),
    Contract("remat", lambda a, b: jax.checkpoint(lambda t, s: s + t)(b, a), ["f 3", "f 3"], [1, 0], {"jaxpr": BODY}),
    Contract("cond", lambda i, a, b: lax.switch(i, [lax.add, lax.sub], a, b), ["i", "f 3", "f 3"], [None, 1, 2],
             {"branches": Kind(tuple)}),
    Contract("scan", lambda k, s, t: lax.scan(lambda s, t: (k * s + t, s), s, t, reverse=True), ["f", "f 3", "f 4 3"],
             [0, 1, 2], {"length": 4, "reverse": True}),
    Contract("while", lambda m, k, s: lax.while_loop(lambda s: s[0] < m, lambda s: k * s, s), ["f", "f 3", "f 3"],
             [0, 1, 2], {"cond_nconsts": 1, "body_nconsts": 1}),
]  # fmt: skip
NEWER = {"stack", "unstack"}  # JAX 0.10.0 writes them as other primitives
EVERY_CONTRACT = pytest.mark.parametrize(
    "contract",
    [pytest.param(c, id=f"{k}-{c.name}") for k, c in enumerate(CONTRACTS) if named(c.name) or c.name not in NEWER],
)


def traced(contract: Contract) -> tuple[Any, Any]:
    """The jaxpr of the call, and the equation of the primitive in it."""
    jaxpr = jax.make_jaxpr(contract.call)(*[argument(words) for words in contract.arguments]).jaxpr
    while len(jaxpr.eqns) == 1 and jaxpr.eqns[0].primitive is not named(contract.name) and inner_jaxpr(jaxpr.eqns[0]):
        jaxpr, _ = inner_jaxpr(jaxpr.eqns[0])
    (eqn,) = [e for e in jaxpr.eqns if e.primitive is named(contract.name)]
    return jaxpr, eqn


@EVERY_CONTRACT
def test_order_of_operands(contract: Contract) -> None:
    jaxpr, eqn = traced(contract)
    number = {v: k for k, v in enumerate(jaxpr.invars)}
    assert [number.get(v) for v in eqn.invars] == list(contract.order)


@EVERY_CONTRACT
def test_values_of_parameters(contract: Contract) -> None:
    _, eqn = traced(contract)
    assert {name: eqn.params[name] for name in contract.parameters} == contract.parameters


@EVERY_CONTRACT
def test_rule_knows_every_parameter(contract: Contract) -> None:
    """An unknown one would send the primitive to the fallback: right, and slow."""
    _, eqn = traced(contract)
    if eqn.primitive in RULES:
        assert set(eqn.params) <= PARAMETERS[eqn.primitive] | IGNORED_PARAMETERS


def test_every_rule_has_a_contract() -> None:
    pinned = {named(contract.name) for contract in CONTRACTS}
    assert {p.name for p in RULES if p not in pinned} == set()


SUMMED = (((1,), (0,)), ((), ()))
BATCHED = (((2,), (1,)), ((0,), (0,)))
PLACES = np.array([[0, 1], [2, 0], [1, 2], [1, 1], [3, 9]], np.int32)  # the last one is padding
AGAIN = np.array([[1, 3], [2, 0], [1, 3], [0, 9], [2, 2]], np.int32)  # one place twice, one of padding
COLUMNS, POINTERS = np.array([1, 0, 2, 3, 0], np.int32), np.array([0, 2, 2, 5], np.int32)
SPARSE = {
    "bcoo_todense": lambda d, a: sparse.bcoo_todense(sparse.BCOO((d, PLACES), shape=(3, 4))),
    "bcoo_todense of a number": lambda d, a: sparse.BCOO((d, np.zeros((5, 0), np.int32)), shape=()).todense(),
    "bcoo_transpose": lambda d, a: sparse.BCOO((d, PLACES), shape=(3, 4)).T.data,
    "bcoo_extract": lambda d, a: jax.vjp(lambda d: sparse.BCOO((d, PLACES), shape=(3, 4)).todense(), d)[1](a.T)[0],
    "bcoo_dot_general": lambda d, a: sparse.BCOO((d, PLACES), shape=(3, 4)) @ a,
    "bcoo_dot_general of a batch": lambda d, a: sparse.bcoo_dot_general(
        sparse.BCOO((jnp.stack([d, 2 * d]), PLACES[None]), shape=(2, 3, 4)),
        jnp.stack([a, a]),
        dimension_numbers=BATCHED,
    ),
    "bcoo_dot_general of everything": lambda d, a: sparse.bcoo_dot_general(
        sparse.BCOO((d, PLACES), shape=(3, 4)), a, dimension_numbers=(((0, 1), (1, 0)), ((), ()))
    ),
    "bcoo_dot_general of dense parts": lambda d, a: sparse.bcoo_dot_general(
        sparse.BCOO((jnp.stack([d, 2 * d], 1), PLACES), shape=(3, 4, 2)), a, dimension_numbers=(((1,), (0,)), ((), ()))
    ),
    "bcoo_transpose of a batch": lambda d, a: (
        sparse.BCOO((jnp.ones((2, 5, 3)), PLACES[None]), shape=(2, 3, 4, 3)).transpose((0, 2, 1, 3)).data
    ),
    "bcoo_sum_duplicates": lambda d, a: sparse.bcoo_sum_duplicates(sparse.BCOO((d, AGAIN), shape=(3, 4)), nse=4).data,
    "bcoo_spdot_general": lambda d, a: (
        (sparse.BCOO((d, PLACES), shape=(3, 4)) @ sparse.BCOO((2 * d, AGAIN), shape=(4, 4))).data
    ),
    "bcoo_spdot_general of a batch": lambda d, a: (
        sparse.bcoo_dot_general(
            sparse.BCOO((jnp.stack([d, 2 * d]), PLACES[None]), shape=(2, 3, 4)),
            sparse.BCOO((jnp.stack([3 * d, d]), AGAIN[None]), shape=(2, 4, 4)),
            dimension_numbers=BATCHED,
        ).data
    ),
    "bcoo_spdot_general of matrices and one": lambda d, a: (
        sparse.bcoo_dot_general(
            sparse.BCOO((jnp.stack([d, 2 * d]), PLACES[None]), shape=(2, 3, 4)),
            sparse.BCOO((3 * d, AGAIN), shape=(4, 4)),
            dimension_numbers=(((2,), (0,)), ((), ())),
        ).data
    ),
    "bcoo_spdot_general of everything": lambda d, a: (
        sparse.bcoo_dot_general(
            sparse.BCOO((d, PLACES), shape=(3, 4)),
            sparse.BCOO((d, AGAIN), shape=(3, 4)),
            dimension_numbers=(((0, 1), (0, 1)), ((), ())),
        ).data
    ),
    "bcsr_todense of a batch": lambda d, a: sparse.BCSR(
        (jnp.stack([d, 2 * d]), COLUMNS[None], POINTERS[None]), shape=(2, 3, 4)
    ).todense(),
    "bcoo_dot_general_sampled": lambda d, a: sparse.bcoo_dot_general_sampled(a.T, a, PLACES, dimension_numbers=SUMMED),
    "bcsr_todense": lambda d, a: sparse.BCSR((d, COLUMNS, POINTERS), shape=(3, 4)).todense(),
    "bcsr_extract": lambda d, a: sparse.bcsr_extract(COLUMNS, POINTERS, a.T),
    "bcsr_dot_general": lambda d, a: sparse.BCSR((d, COLUMNS, POINTERS), shape=(3, 4)) @ a,
}


@pytest.mark.parametrize("name", SPARSE)
def test_sparse_primitives_are_what_they_are_written_out_as(name: str) -> None:
    rng = np.random.default_rng(0)
    d, a = rng.normal(size=5), rng.normal(size=(4, 3))
    closed = jax.make_jaxpr(SPARSE[name])(d, a)
    eqn, seen = next(e for e in walk(closed.jaxpr) if e.primitive is primitive(name.partition(" ")[0])), []

    def outs(values: Any) -> Any:
        known = [np.asarray(v) for v in values]
        return jax.tree.map(np.asarray, run_equation(eqn, values)), jaxpr_as_fun(written_out(eqn, known))(*values)

    constants = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    for v in eqn.invars:
        shape, dtype = v.aval.shape, v.aval.dtype
        tables = (PLACES, PLACES[None], COLUMNS, COLUMNS[None], POINTERS, POINTERS[None])
        known = [constants[v]] if v in constants else [c for c in tables if c.shape == shape]
        seen.append(jnp.asarray(known[0], dtype) if dtype.kind == "i" else jnp.asarray(rng.normal(size=shape), dtype))
    for theirs, ours in zip(*outs(seen), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_a_parameter_that_is_new_is_not_guessed() -> None:
    closed = jax.make_jaxpr(SPARSE["bcoo_dot_general"])(np.ones(5), np.ones((4, 3)))
    (eqn,) = [e for e in walk(closed.jaxpr) if e.primitive is primitive("bcoo_dot_general")]
    assert written_out(eqn) is not None
    assert written_out(eqn.replace(params={**eqn.params, "transposed": True})) is None


def test_operands_of_scan_are_counted() -> None:
    contract = next(contract for contract in CONTRACTS if contract.name == "scan")
    assert scan_counts(traced(contract)[1]) == (1, 1)


def test_scatter_names_its_primitive() -> None:
    """The `-` in JAX's own names is `_` in `jax.lax`."""
    jaxpr = jax.make_jaxpr(lambda a, i, b: lax.scatter_add(a, i, b, ROWS))(*map(argument, ["f 3 4", "i 2 1", "f 2 4"]))
    assert [eqn.primitive.name for eqn in walk(jaxpr.jaxpr) if eqn.primitive is primitive("scatter_add")] == [
        "scatter-add"
    ]


def test_equations_of_both_arms_of_a_call_are_walked() -> None:
    jaxpr = jax.make_jaxpr(lambda i, a: lax.cond(i, lax.sin, lax.cos, a))(*map(argument, ["b", "f 3"]))
    assert {"sin", "cos"} <= {eqn.primitive.name for eqn in walk(jaxpr.jaxpr)}
