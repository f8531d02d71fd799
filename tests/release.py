"""What is released: the same bytes from each build, in a clean environment, with each extra alone.

python tests/release.py

Builds the sdist and the wheel twice, the second time out of the first sdist, and compares their bytes; looks at what
is in them; installs the wheel with nothing but its dependencies, and once more with each extra, and tries each.
"""

from __future__ import annotations

import argparse
import email
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKED = {".py", ".typed", ".html"}  # what the package consists of

BARE = """
import importlib.util
import chainrule as cr, jax.numpy as jnp
assert str(cr.jacobian(jnp.sin)(jnp.ones(3)).structure) == "diagonal"
assert cr.explain(jnp.sin)(jnp.ones(2)).html()
others = ("lineax", "optimistix", "diffrax", "matplotlib", "klujax")
assert not [name for name in others if importlib.util.find_spec(name)]
import chainrule.cli, chainrule.graph, chainrule.scipy, chainrule.testing
"""
# what an extra brings besides modules that import
TRIED = {
    "plots": "assert J.spy() is not None",
    "solvers": "import lineax\nassert cr.StructuredSolver()\nassert J.lineax()",
    "klu": "K = cr.jacobian(lambda x: 3 * x - jnp.roll(x, 1))(jnp.ones(500))\n"
    "assert abs(K.solve(jnp.ones(500)) - 0.5).max() < 1e-5",
}
EXTRA = """
import importlib, importlib.metadata as metadata, re
import chainrule as cr, jax, jax.numpy as jnp
own = [r for r in metadata.requires("chainrule") if re.search(r"extra == ['\\"]{extra}['\\"]", r)]
names = [re.match(r"[A-Za-z0-9._-]+", r)[0].lower().replace("_", "-") for r in own]
assert names, own
modules = metadata.packages_distributions()
for name in names:
    for module in [m for m, by in modules.items() if name in [b.lower().replace("_", "-") for b in by]]:
        if not module.startswith("_"):
            importlib.import_module(module)
J = cr.jacobian(lambda x: x[1:] - x[:-1])(jnp.ones(5))
{tried}
"""


def run(*command: str | Path, **more: str) -> str:
    """What a command prints; its output is shown where it fails."""
    done = subprocess.run(
        list(map(str, command)), cwd=tempfile.gettempdir(), env={**os.environ, **more}, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))[:200]}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def build(source: Path, out: Path) -> list[Path]:
    """The sdist of a folder, and the wheel that is built out of that sdist."""
    run("uv", "build", "--quiet", "--python", sys.executable, "--out-dir", out, source, SOURCE_DATE_EPOCH="1700000000")
    return sorted(p for p in out.iterdir() if p.suffix in {".gz", ".whl"})


def differing(one: list[Path], other: list[Path]) -> list[str]:
    """The names of files that differ."""
    digests = [{p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files} for files in (one, other)]
    return sorted(name for name in {*digests[0], *digests[1]} if digests[0].get(name) != digests[1].get(name))


def needless(wheel: Path) -> list[str]:
    """The files of a wheel that are neither the package nor its metadata."""
    names = [n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n]
    return [n for n in names if not n.startswith("chainrule/") or Path(n).suffix not in PACKED]


def missing(sdist: Path) -> list[str]:
    """The tracked files that an sdist leaves out, but for those of the checkout alone."""
    with tarfile.open(sdist) as archive:
        names = {n.split("/", 1)[1] for n in archive.getnames() if "/" in n}
    tracked = run("git", "-C", ROOT, "ls-files").splitlines()
    return [n for n in tracked if n not in names and not n.startswith(".")]


def environment(folder: Path, requirement: str) -> Path:
    """A Python that has nothing but what is required."""
    shutil.rmtree(folder, ignore_errors=True)
    run("uv", "venv", "--quiet", "--python", sys.executable, folder)
    python = folder / "bin" / "python"
    run("uv", "pip", "install", "--quiet", "--python", python, "--constraint", ROOT / "constraints.txt", requirement)
    return python


def extras(wheel: Path) -> list[str]:
    """The names of the extras that a wheel declares."""
    archive = zipfile.ZipFile(wheel)
    (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
    return email.message_from_bytes(archive.read(name)).get_all("Provides-Extra", [])


def findings(folder: Path) -> Iterator[str]:
    """What is wrong with a release that is built now."""
    first = build(ROOT, folder / "one")
    sdist, wheel = sorted(first, key=lambda p: p.suffix)
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    yield from (f"{name}: two builds differ" for name in differing(first, build(unpacked, folder / "two")))
    yield from (f"{name}: needless in the wheel" for name in needless(wheel))
    yield from (f"{name}: not in the sdist" for name in missing(sdist))
    python = environment(folder / "clean", str(wheel))
    said = run(python, "-W", "error", "-c", "import chainrule")
    if said:
        yield f"importing chainrule says: {said}"
    run(python, "-c", BARE)
    for extra in extras(wheel):
        python = environment(folder / "clean", f"{wheel}[{extra}]")
        run(python, "-W", "error", "-c", "import chainrule")
        run(python, "-c", EXTRA.format(extra=extra, tried=TRIED.get(extra, "")))
        sys.stdout.write(f"{extra}: imports and works alone\n")


def main() -> None:
    """Look at a release; the exit code is 1 where something is wrong."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = list(findings(Path(folder)))
    sys.stdout.write("".join(f"{line}\n" for line in found) or "the same bytes from both builds, and nothing amiss\n")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
