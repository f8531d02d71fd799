"""Jacobians in a store: what is written, what a kill leaves, and what is read back."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp

import chainrule as cr
from chainrule import cli
from chainrule._stored import jacobian as _stored_jacobian
from chainrule._stored import store as _store

zarr = pytest.importorskip("zarr") if not os.environ.get("CHAINRULE_GATE") else __import__("zarr")

RNG = np.random.default_rng(0)
X = RNG.normal(size=4000)


def diffusion(x):
    return jnp.roll(x, 1) + jnp.roll(x, -1) - 2 * x + x**3


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A store of several chunks in each array."""
    path = tmp_path_factory.mktemp("store") / "J.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_store, "_CHUNK", 1000)
        return cr.save_jacobian(diffusion, X, path, by_memory=60_000)


def test_the_store_holds_the_csr_arrays(stored):
    whole = cr.jacobian(diffusion)(X).scipy()
    group = zarr.open_group(str(stored._path), mode="r")
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(group[name][:], getattr(whole, name))
        assert "crc32c" in json.dumps(json.loads((stored._path / name / "zarr.json").read_text())["codecs"])
    assert group["indptr"].dtype == np.int64 and group["indices"].dtype == np.int32
    assert sorted(p.name for p in stored._path.iterdir()) == ["data", "indices", "indptr", "zarr.json"]


def test_it_is_a_jacobian(stored):
    J, whole = cr.open_jacobian(stored._path), cr.jacobian(diffusion)(X)
    dense, v, B = whole.scipy(), RNG.normal(size=4000), RNG.normal(size=(4000, 3))
    assert isinstance(J, cr.Jacobian) and isinstance(J, cr.StoredJacobian)
    assert (J.shape, J.nnz, J.dtype) == (whole.shape, whole.nnz, whole.dtype)
    assert repr(J) == "Jacobian 4000×4000 float64 · sparse (12,000 nonzeros, 0.075 %) · stored, 0 multiply-adds"
    np.testing.assert_allclose(J @ v, dense @ v, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(J.T @ v, dense.T @ v, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(v @ J, v @ dense, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(J @ B, dense @ B, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(B.T @ J, B.T @ dense, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(J[5:9], dense[5:9].toarray())
    np.testing.assert_array_equal(J.row(-1), dense[[-1]].toarray()[0])
    np.testing.assert_array_equal(J.col(3), dense[:, [3]].toarray()[:, 0])
    np.testing.assert_array_equal(J.diagonal(), dense.diagonal())
    assert J[7, 8] == dense[7, 8] and J.T.shape == (4000, 4000)
    np.testing.assert_array_equal(J.scipy(10, 20).toarray(), dense[10:20].toarray())
    np.testing.assert_array_equal(J.T.scipy(10, 20).toarray(), dense.T[10:20].toarray())
    some = J.rows(100, 107)
    assert some.shape == (7, 4000) and some.nnz == 21
    np.testing.assert_allclose(some @ v, dense[100:107] @ v, rtol=1e-12, atol=1e-12)


def test_what_needs_all_entries_has_them_in_memory(stored):
    whole, b = cr.jacobian(diffusion)(X), RNG.normal(size=4000)
    loaded = stored.assemble()
    np.testing.assert_allclose(loaded.solve(b), whole.solve(b), rtol=1e-9)
    for made, wanted in (
        (2 * stored + whole, 3 * whole),
        (stored @ whole, whole @ whole),
        (whole @ stored, whole @ whole),
    ):
        assert abs(made.scipy() - wanted.scipy()).max() < 1e-9
    np.testing.assert_allclose(stored.solve(b), whole.solve(b), rtol=1e-9)
    with pytest.raises(cr.ChainruleError, match="outside jit"):
        jax.jit(lambda v: stored @ v)(b)
    with pytest.raises(cr.ShapeError, match="takes inputs of shapes"):
        stored @ np.ones(3)
    with pytest.raises(cr.ShapeError, match="v has 3 columns"):
        np.ones((2, 3)) @ stored


@pytest.mark.parametrize(
    ("f", "x"),
    [
        (lambda x: jnp.tanh(x["w"] @ x["b"]), {"w": RNG.normal(size=(4, 3)), "b": RNG.normal(size=3)}),
        (lambda x: {"a": x**2, "b": x.sum()}, np.ones(5, np.float32)),
        (lambda x: jnp.zeros((3, 2)) * x.sum(), np.ones(4)),
        (lambda x: x[:0], np.ones(4)),
        (lambda x: jnp.exp(jax.lax.complex(x, x)), np.ones(4)),
    ],
)
def test_of_other_functions(f, x, tmp_path):
    J, whole = cr.save_jacobian(f, x, tmp_path / "J"), cr.jacobian(f)(x)
    np.testing.assert_allclose(J.dense(), whole.dense(), rtol=1e-6)
    assert (J.dtype, J.in_shapes, J.out_shapes) == (whole.dtype, whole.in_shapes, whole.out_shapes)
    assert cr.save_jacobian(f, x, tmp_path / "J").nnz == J.nnz  # it is there already


def changed(folder, name, action):
    file = min((folder / name / "c").iterdir())
    action(file)


@pytest.mark.parametrize("name", ["data", "indices", "indptr"])
@pytest.mark.parametrize(
    ("action", "said"),
    [
        (
            lambda p: p.write_bytes(p.read_bytes()[:9] + bytes([p.read_bytes()[9] ^ 1]) + p.read_bytes()[10:]),
            "corrupted",
        ),
        (lambda p: p.write_bytes(p.read_bytes()[:-3]), "corrupted"),
        (lambda p: p.unlink(), "missing"),
    ],
)
def test_a_broken_chunk_is_refused(stored, tmp_path, name, action, said):
    folder = shutil.copytree(stored._path, tmp_path / "J")
    changed(folder, name, action)
    J = cr.open_jacobian(folder)
    with pytest.raises(cr.ChainruleError, match=f"{said}.*save the Jacobian anew"):
        J @ X


def test_what_is_no_store_is_refused(stored, tmp_path):
    with pytest.raises(cr.ChainruleError, match="there is no store"):
        cr.open_jacobian(tmp_path / "nothing")
    (tmp_path / "notes.txt").write_text("mine")
    for use in (cr.open_jacobian, lambda p: cr.save_jacobian(diffusion, X, p)):
        with pytest.raises(cr.ChainruleError, match="cannot be read"):
            use(tmp_path)
    for f, x in ((jnp.sin, X), (diffusion, X + 1)):
        with pytest.raises(cr.ChainruleError, match="another function, point or option"):
            cr.save_jacobian(f, x, stored._path)
    with pytest.raises(cr.InputTypeError, match="by_memory=0"):
        cr.save_jacobian(diffusion, X, tmp_path / "J", by_memory=0)


def test_the_digest_sees_constants_and_numbers():
    def f(c, a):
        return lambda x: jnp.asarray(a) @ x * c

    a = np.eye(3)
    found = {_store.digest(f(c, b), np.ones(3), False, 5) for c in (1.0, 1.0 + 1e-15) for b in (a, a + 1e-15)}
    assert len(found) == 4 and _store.digest(f(1.0, a), np.ones(3), False, 5) in found
    assert _store.digest(f(1.0, a), np.ones(3), False, 6) not in found


def jvp_of(slope):
    @jax.custom_jvp
    def g(x):
        return 2 * x

    g.defjvp(lambda x, t: (g(*x), slope(*x) * t[0]))
    return lambda x: g(x)


def vjp_of(slope):
    @jax.custom_vjp
    def g(x):
        return 2 * x

    g.defvjp(lambda x: (g(x), x), lambda x, w: (slope(x) * w,))
    return lambda x: g(x)


def inside(slope):
    return lambda x: jax.jit(lambda x: x * slope(np.arange(3.0)))(x)


@pytest.mark.parametrize("make", [jvp_of, vjp_of, inside])
def test_another_derivative_rule_is_another_function(make, tmp_path):
    x = np.arange(3.0)
    J = cr.save_jacobian(make(jnp.sin), x, tmp_path / "J")
    np.testing.assert_allclose(J.dense(), np.diag(np.sin(x)))
    with pytest.raises(cr.ChainruleError, match="another function, point or option"):
        cr.save_jacobian(make(jnp.cos), x, tmp_path / "J")
    assert cr.save_jacobian(make(jnp.sin), x, tmp_path / "J").nnz == J.nnz


def test_what_cannot_be_stored_is_named(tmp_path):
    key, path = jax.random.key(0), tmp_path / "J"
    with pytest.raises(cr.InputTypeError, match=r"save_jacobian.*float16, which SciPy's CSR.*astype"):
        cr.save_jacobian(jnp.sin, jnp.ones(3, jnp.float16), path)
    with pytest.raises(cr.InputTypeError, match=r"save_jacobian of sin: inputs must be floating point"):
        cr.save_jacobian(jnp.sin, np.arange(3), path)
    with pytest.raises(cr.InputTypeError, match="outside jit"):
        jax.jit(lambda c: cr.save_jacobian(lambda x: c * x, np.ones(3), path))(2.0)
    assert not path.exists()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(cr.ChainruleError, match=r"file is a file"):
        cr.save_jacobian(jnp.sin, np.ones(3), tmp_path / "file")
    noisy = cr.save_jacobian(lambda x: x * jax.random.normal(key, (3,)), np.ones(3), path)
    np.testing.assert_allclose(noisy.diagonal(), jax.random.normal(key, (3,)))


def test_an_interrupted_run_goes_on(stored, tmp_path, monkeypatch):
    monkeypatch.setattr(_store, "_CHUNK", 1000)
    counted, add = [], _store._Writer.add

    def interrupted(self, matrix):
        add(self, matrix)
        counted.append(matrix.shape[0])
        if len(counted) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(_store._Writer, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cr.save_jacobian(diffusion, X, tmp_path / "J", by_memory=60_000)
    done = sum(counted)
    with pytest.raises(cr.ChainruleError, match=f"incomplete: {done:,} of 4,000 rows .* goes on where it stopped"):
        cr.open_jacobian(tmp_path / "J")
    with pytest.raises(cr.ChainruleError, match="another function, point or option"):
        cr.save_jacobian(diffusion, X, tmp_path / "J", by_memory=50_000)
    cr.save_jacobian(diffusion, X, tmp_path / "J", by_memory=60_000)
    assert sum(counted) == 4000  # nothing was computed twice
    assert same(tmp_path / "J", stored._path)


HOLD = """
import fcntl, sys, time
with open(sys.argv[1], "a") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_at_once(tmp_path, monkeypatch):
    """The second is refused, be it a process or a thread; the lock of one that was killed holds nobody up."""
    path, add, refused = tmp_path / "J", _store._Writer.add, []
    path.mkdir()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path / "progress.lock")], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(cr.ChainruleError, match=r"save_jacobian of sin: another process, or thread, is writing to"):
        cr.save_jacobian(jnp.sin, np.ones(3), path)
    holder.kill()
    holder.communicate()
    assert (path / "progress.lock").exists()

    def busy(self, matrix):
        with pytest.raises(cr.ChainruleError, match="another process, or thread, is writing") as own:
            cr.save_jacobian(jnp.sin, np.ones(3), path)
        refused.append(own)
        add(self, matrix)

    monkeypatch.setattr(_store._Writer, "add", busy)
    assert cr.save_jacobian(jnp.sin, np.ones(3), path).nnz == 3
    assert refused and sorted(p.name for p in path.iterdir()) == ["data", "indices", "indptr", "zarr.json"]


@pytest.mark.parametrize("failing", ["_put", "_commit"])
def test_a_full_disk(failing, stored, tmp_path, monkeypatch):
    """What the system refuses to write is said, and the run goes on once it can."""
    import resource

    monkeypatch.setattr(_store, "_CHUNK", 1000)
    write, calls = getattr(_store._Writer, failing), []

    def cramped(self, *args):
        calls.append(args)
        if len(calls) != 6:
            return write(self, *args)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        try:
            return write(self, *args)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    monkeypatch.setattr(_store._Writer, failing, cramped)
    with pytest.raises(cr.ChainruleError, match=r"_jacobian of diffusion: .*J cannot be written \(.*File too large"):
        cr.save_jacobian(diffusion, X, tmp_path / "J", by_memory=60_000)
    with pytest.raises(cr.ChainruleError, match="incomplete"):
        cr.open_jacobian(tmp_path / "J")
    cr.save_jacobian(diffusion, X, tmp_path / "J", by_memory=60_000)
    assert same(tmp_path / "J", stored._path)


@pytest.mark.parametrize(
    ("f", "words"),
    [
        (lambda x: x[1:] * x[:-1], "banded(0, 1)"),
        (jnp.sin, "diagonal"),
        (jnp.cumsum, "lower triangular"),
        (lambda x: x * x.sum(), "dense"),
        (lambda x: np.ones(3), "zero"),
        (lambda x: x[::-1] * x, "sparse (24 nonzeros, 17 %)"),
    ],
)
def test_the_structure_is_told_from_the_bandwidths(f, words, tmp_path):
    J = cr.save_jacobian(f, np.arange(1.0, 13.0), tmp_path / "J", by_memory=2000)
    assert str(J.structure) == words
    assert str(J.T.structure) == words.replace("(0, 1)", "(1, 0)").replace("lower", "upper")


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_holomorphic_functions(dtype, tmp_path):
    x = (RNG.normal(size=6) + 1j * RNG.normal(size=6)).astype(dtype)
    f = lambda x: jnp.exp(x[1:]) * x[:-1]  # noqa: E731
    J, dense = cr.save_jacobian(f, x, tmp_path / "J", holomorphic=True), jax.jacfwd(f, holomorphic=True)(x)
    assert J.dtype == dtype and J.nnz == 10
    np.testing.assert_allclose(J.dense(), dense, rtol=1e-5)
    for own, true in ((J @ x, dense @ x), (J.T @ x[1:], dense.T @ x[1:]), (J.rows(1, 3) @ x, dense[1:3] @ x)):
        np.testing.assert_allclose(own, true, rtol=1e-5)


def same(one, other):
    """Whether two stores hold the same files, byte for byte, but for the moment that JSON is written in."""
    files = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
    theirs = sorted(p.relative_to(other) for p in other.rglob("*") if p.is_file())
    return files == theirs and all((one / p).read_bytes() == (other / p).read_bytes() for p in files)


SCRIPT = """
import sys, time
import jax
jax.config.update("jax_enable_x64", True)
sys.path.insert(0, {tests!r})
import numpy as np
import chainrule as cr
from chainrule._stored import store as _store
from test_store import X, diffusion
_store._CHUNK = 1000
add = _store._Writer.add
def slow(self, matrix):
    add(self, matrix)
    print(self.rows, flush=True)
    time.sleep(0.02)
_store._Writer.add = slow
cr.save_jacobian(diffusion, X, {path!r}, by_memory=60_000)
"""


def test_a_killed_run_goes_on(stored, tmp_path):
    """`kill -9` at a random moment, twice; then to the end."""
    script = SCRIPT.format(tests=str(Path(__file__).parent), path=str(tmp_path / "J"))
    moments, kills = random.Random(int(os.environ["CHAINRULE_SEED"])), 0
    while kills < 2 and not ((tmp_path / "J").exists() and not (tmp_path / "J" / "progress.npz").exists()):
        process = subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout.readline(), process.stderr.read()  # the first piece is there
        time.sleep(moments.uniform(0, 0.12))
        process.kill()
        process.communicate()
        kills += 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_store, "_CHUNK", 1000)
        cr.save_jacobian(diffusion, X, tmp_path / "J", by_memory=60_000)
    assert same(tmp_path / "J", stored._path)


MEMORY = """
import resource, sys
import jax, jax.numpy as jnp, numpy as np
import chainrule as cr
jax.config.update("jax_enable_x64", True)
def dense(x):
    return jnp.tanh(np.linspace(1, 2, 20_000) * (x**2).sum())
x = np.ones(500)
cr.save_jacobian(dense, x[:50], sys.argv[1] + "/small", by_memory=2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
J = cr.save_jacobian(dense, x, sys.argv[1] + "/large", by_memory=2**24)
print(J.nnz * 12, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_memory_is_that_of_a_piece(tmp_path):
    """J takes 120 MB as a list, and a piece 16 MiB."""
    run = subprocess.run([sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, check=True)
    whole, grown = map(int, run.stdout.split())
    assert whole == 120_000_000 and grown < 80_000_000


def test_progress_and_the_command(tmp_path, monkeypatch, capsys):
    (tmp_path / "model.py").write_text(
        "import jax.numpy as jnp\nx0 = jnp.ones(9)\ndef f(x):\n    return x[1:] * x[:-1]\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as code:
        cli.main(["save", "model.py:f", "--out", "J.zarr"])
    shown = capsys.readouterr()
    assert code.value.code == 0 and "Jacobian 8×9" in shown.out and "written     J.zarr" in shown.out
    assert "save_jacobian of f" in shown.err and "100%" in shown.err and "left" in shown.err
    assert cr.open_jacobian("J.zarr").nnz == 16


def test_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "zarr", None)
    for use in (lambda: cr.open_jacobian(tmp_path), lambda: cr.save_jacobian(diffusion, X, tmp_path)):
        with pytest.raises(cr.ChainruleError, match=r"pip install 'chainrule\[store\]'"):
            use()


def test_a_stored_jacobian_pickles_by_its_path(stored, monkeypatch):
    import pickle

    monkeypatch.chdir(stored._path.parent)
    kept = pickle.dumps(cr.open_jacobian(stored._path.name))
    monkeypatch.chdir("/")
    again = pickle.loads(kept)
    assert again.nnz == stored.nnz and sp.issparse(again.scipy(0, 2))
    assert _stored_jacobian.FORMAT == "chainrule CSR 1"
