"""What holds for the package as a whole: its floors, its surface, its sizes, its dependencies and its import time."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

import chainrule as cr

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "chainrule"
SOURCES = sorted(PACKAGE.rglob("*.py"))
EVERY_SOURCE = pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def all_of(folder: str, names: str) -> list[str]:
    """The modules of a folder, by their names."""
    return [f"{folder}.{name}" for name in names.split()]


# from the ground up, without the leading "chainrule.": a module imports only what stands before it
# fmt: off
FLOORS = [
    "_errors", "_memory", "_plan",
    *all_of("_plan", "pattern weights node plan"),
    "_jax", "_substitution", "_space", "_mesh", "_options", "_blocks",
    *all_of("_blocks", "block rows"),
    "_program",
    *all_of("_blocks", "coefficient"),
    *all_of("_rules", "_registry fallback pointwise einsum contraction shape indexing reach step control virtual"),
    *all_of("_rules", "layout stencil postponed loop reduction solve sparse window"),
    "_rules", "_propagate", "_linear",
    *all_of("_blocks", "apply"),
    "_stored",
    *all_of("_stored", "boxes restrict_rules restrict"),
    "_laplacian",
    *all_of("_laplacian", "gram"),
    *all_of("_plan", "elimination local cost vertices order body planner meeting"),
    "_accumulate",
    *all_of("_accumulate", "series mixed loop_body"),
    "_trace", "_jacobians",
    *all_of("_jacobians", "structure"),
    "_linalg",
    *all_of("_linalg", "differentiable small host dissection multifrontal klu banded methods factorization"),
    *all_of("_linalg", "iterative interface stored lineax_operator"),
    *all_of("_jacobians", "display layout jacobian assembled matrix_free factored null_space low_rank"),
    *all_of("_accumulate", "narrow links recorded once"),
    "_density",
    *all_of("_density", "diagonal determinant"),
    *all_of("_accumulate", "dense_parts explicit accumulate parts"),
    *all_of("_stored", "pieces"),
    "_compiled", "_api",
    *all_of("_stored", "chunks jacobian store command"),
    "_planning", "_solver", "_fields",
    *all_of("_fields", "field calculus potential ode gradient_flow"),
    "_optimize",
    *all_of("_optimize", "solution descent newton newton_cg unknowns interior_point"),
    "scipy", "graph",
    *all_of("_laplacian", "function forward loops solves laplacian"),
    "_stochastic",
    *all_of("_stochastic", "keyed probing lanczos expense estimates score langevin"),
    "_implicit",
    *all_of("_implicit", "refusals solve functions inverse"),
    *all_of("_density", "density inverting triangular_inverse continuous"),
    "_check",
    *all_of("_check", "rule agreement"),
    "testing",
    *all_of("_check", "kinks flow local_rules walk remainder report findings check"),
    *all_of("explain", "source flatten tree names graph products iterations evaluate encode live formula labels"),
    *all_of("explain", "sweeps paths document layout text svg page notebook explanation server lessons commands"),
    "explain", "", "cli", "__main__",
]
# fmt: on


def module_name(path: Path) -> str:
    """The name without the leading "chainrule."; the package itself is ""."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(source: str) -> Iterator[str]:
    """Dotted names of what is imported anywhere: a.b of `from a import b` where that is a module, else a."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: write the full name of what is imported"
            for alias in node.names:
                deeper = f"{node.module}.{alias.name}"
                yield deeper if within(deeper) in FLOORS or is_of("jax", deeper) else str(node.module)


def is_of(package: str, name: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def within(name: str) -> str | None:
    """The name without the leading "chainrule.", or None for anything else."""
    return name.removeprefix("chainrule").removeprefix(".") if is_of("chainrule", name) else None


def upward(name: str, source: str) -> list[str]:
    """The modules of the package that `name` imports although they do not stand below it."""
    below = FLOORS[: FLOORS.index(name)]
    own = {within(target) for target in imported(source)} - {None}
    return sorted(str(target) for target in own if target not in below)


def test_every_module_has_its_floor():
    assert sorted(FLOORS) == sorted(map(module_name, SOURCES))


@EVERY_SOURCE
def test_imports_go_downwards(path):
    assert upward(module_name(path), path.read_text()) == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("from chainrule._api import jacobian", ["_api"]),
        ("from chainrule import _api, _errors", ["_api"]),
        ("import chainrule._propagate as p", ["_propagate"]),
        ("def late():\n    import chainrule", [""]),
        ("from chainrule import jacobian", [""]),
        ("from chainrule._rules import _registry, rule_for", ["_rules"]),
        ("from chainrule._nowhere import x", ["_nowhere"]),
        ("from chainrule._errors import ShapeError\nimport jax", []),
    ],
)
def test_an_upward_import_is_found(line, found):
    assert upward("_rules.shape", line) == found


@EVERY_SOURCE
def test_only_public_jax(path):
    names = list(imported(path.read_text()))
    assert not [n for n in names if is_of("jax", n) and "_src" in n.split(".")]
    if path.name != "_jax.py":
        assert not [n for n in names if is_of("jax.extend", n)]
        assert "jax.extend" not in re.sub(r'""".*?"""|#.*', "", path.read_text(), flags=re.DOTALL)


def test_a_private_import_is_seen():
    assert "jax.extend" in imported("from jax import extend")
    private = f"jax.{'_'}src"
    source = f"from jax import {'_'}src\nfrom {private}.core import x"
    assert {private, f"{private}.core.x"} == set(imported(source))


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Names and lengths in lines; a docstring is no part of the length, it may be as long as it has to be."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=False) or ""
            yield node.name, (node.end_lineno or 0) - node.lineno + 1 - len(docstring.splitlines())


@EVERY_SOURCE
def test_files_and_functions_stay_short(path):
    assert len(path.read_text().splitlines()) <= 400
    assert [f"{name}: {lines}" for name, lines in functions(path) if lines > 60] == []


def test_most_functions_are_very_short():
    lengths = sorted(lines for path in SOURCES for _, lines in functions(path))
    assert lengths[len(lengths) // 2] <= 10
    assert lengths[len(lengths) * 9 // 10] <= 30


def public_names() -> set[str]:
    """Names that the package's file marks public: `import X as X`."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    aliases = [a for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for a in node.names]
    assert all(a.name == a.asname for a in aliases)
    return {a.name for a in aliases}


def test_public_surface_is_what_init_names():
    found = {n for n, v in vars(cr).items() if not n.startswith("_") and not isinstance(v, types.ModuleType)}
    late = {"StructuredSolver", "Explanation"}  # imported when they are asked for
    assert found | late == public_names()
    assert not late & set(vars(cr))
    assert not hasattr(cr, "__all__")


def test_readme_and_contributing_name_what_exists():
    readme = (ROOT / "README.md").read_text()
    errors = {n for n in public_names() if isinstance(getattr(cr, n), type) and issubclass(getattr(cr, n), Exception)}
    assert [n for n in sorted(public_names() - errors) if f"`{n}" not in readme] == []
    for target in re.findall(r"\]\(([^)#:]+)\)", readme + (ROOT / "CONTRIBUTING.md").read_text()):
        assert (ROOT / target).exists(), target


def python_blocks(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("code", python_blocks("README.md"))
def test_code_in_the_readme_runs(code):
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):  # as a user has it
        exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize("code", python_blocks("CONTRIBUTING.md"), ids=["rule", "case"])
def test_code_in_contributing_is_quoted(code):
    assert any(code.strip() in path.read_text() for path in [*SOURCES, *ROOT.glob("tests/rules/*.py")])


def test_public_objects_have_docstrings():
    assert [n for n in sorted(public_names()) if not (getattr(cr, n).__doc__ or "").strip()] == []


def test_dependencies():
    project = PROJECT["project"]
    assert project["dependencies"] == ["jax>=0.10", "numpy", "jaxtyping", "scipy", "rich", "typer"]
    assert project["requires-python"] == ">=3.11"
    assert project["version"] == cr.__version__


def test_constraints_are_names_and_versions_in_one_list():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert lines == PROJECT["tool"]["uv"]["constraint-dependencies"]
    assert [line for line in lines if not re.fullmatch(r"[a-z][a-z0-9-]*([<>=!~]=?[0-9][0-9.]*,?)+", line)] == []
    assert not [line for line in lines if re.match(r"jax(lib)?\b(?!-|typing)", line)], "jax has no upper bound"


def test_typed_marker_lies_in_the_wheel():
    assert (PACKAGE / "py.typed").is_file()
    # hatchling packs the whole folder
    assert PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["src/chainrule"]


def texts() -> Iterator[Path]:
    """Every text file of the project."""
    yield from (p for p in [*ROOT.iterdir(), *ROOT.glob(".ci/*")] if p.is_file() and p.name != "uv.lock")
    for folder in ("src", "tests", "examples", "benchmarks", "docs"):
        yield from (p for p in (ROOT / folder).rglob("*") if p.suffix in {".py", ".md", ".json", ".toml", ".txt"})


def test_no_package_address_is_recorded():
    address = re.compile(
        r"https?://\S*(py[p]i|python[h]osted|/simple/|/packages/)|(extra[-_])?index[-_]?url", re.IGNORECASE
    )
    assert [str(p) for p in texts() if address.search(p.read_text(errors="replace"))] == []


IMPORT = """
import sys, time
import jax
before, start = set(sys.modules), time.process_time()
import chainrule
print(time.process_time() - start)
late = ["typer", "rich", "matplotlib", "scipy.sparse", "jax.scipy", "lineax", "equinox"]
late += ["chainrule.cli", "chainrule.explain.graph"]
print([name for name in late if name in set(sys.modules) - before])
"""


def test_import_is_quick(tmp_path):
    """Seconds of this process, with compiled bytecode, as a user's second run has it."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(tmp_path)

    def run() -> tuple[str, str]:
        command = [sys.executable, "-c", IMPORT]
        printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        seconds, late = printed.splitlines()
        return seconds, late

    runs = [run() for _ in range(6)]
    assert {late for _, late in runs} == {"[]"}
    assert min(float(seconds) for seconds, _ in runs) <= 0.1
