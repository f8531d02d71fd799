"""How much memory there is, and what would not fit in it: known from shapes, before anything is allocated."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path

import jax

from chainrule._errors import MemoryLimitError

_SHARE = 0.8  # of the free memory, for one array
_SMALL = 2**26  # bytes that are never asked about
_FALLBACK = 2**34  # bytes, where nothing tells how much is free
_LIMIT: ContextVar[int | None] = ContextVar("memory_limit", default=None)
_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


COLUMN = 16  # bytes that an entry of a pattern takes while it is made: its column, its number, and a copy of each
SORTED = 40  # and while it is sorted
STEP = "jacobian: a step"  # the propagation knows which
WAY_OUT = (
    "Ways out: the other order (order='reverse' or 'forward'), dense columns or rows in parts (chunk_size='auto'), "
    "products without a matrix (chainrule.linearize), or a higher memory_limit."
)
OF_J = (  # that takes too much in whatever order and parts it is computed
    "Ways out: products without a matrix (chainrule.linearize), pieces one at a time (chainrule.jacobian_chunks, "
    "chainrule.save_jacobian), or a higher memory_limit."
)
AT_FEWER = "All values are looked at: do so for smaller arrays, or give f a part of them."


def require_memory(what: str, shape: tuple[int, ...], itemsize: int, way_out: str = WAY_OUT) -> None:
    """Refuse an array that would not fit, before it is allocated."""
    size = math.prod(shape) * itemsize
    if _exceeds(size):
        require_bytes(f"{what}: an array of {'×'.join(map(str, shape))} entries takes", size, way_out)


def require_columns(shape: Sequence[int], each: int = COLUMN, what: str = STEP, way_out: str = WAY_OUT) -> None:
    """Refuse a pattern of so many entries that would not fit: its columns are NumPy arrays, made while tracing."""
    size = math.prod(shape) * each
    if _exceeds(size):
        require_bytes(f"{what}: the columns of {'×'.join(map(str, shape))} entries take", size, way_out)


def require_bytes(what: str, size: int, way_out: str = WAY_OUT) -> None:
    """Refuse so many bytes where they would not fit; `what` is said before their number."""
    if _exceeds(size):
        raise MemoryLimitError(f"{what} {_gib(size)}, more than the limit of {_gib(limit())}. {way_out}")


def _exceeds(size: int) -> bool:
    return (size > _SMALL or _LIMIT.get() is not None) and size > limit()


def _gib(size: int) -> str:
    return f"{size / 2**30:.3g} GiB"


def limit() -> int:
    """Bytes that one array may take: what was asked for, else most of the device's free memory."""
    asked = _LIMIT.get()
    return int(_SHARE * free_memory()) if asked is None else asked


@contextlib.contextmanager
def limited(memory_limit: int | None) -> Iterator[None]:
    """Set the limit for what is traced within; None leaves it as it is."""
    if memory_limit is None:
        yield
        return
    token = _LIMIT.set(int(memory_limit))
    try:
        yield
    finally:
        _LIMIT.reset(token)


def free_memory() -> int:
    """Free bytes of the default device; of a CPU, those that the system and its control group leave."""
    try:
        stats = jax.devices()[0].memory_stats()
    except Exception:  # a backend that does not tell
        stats = None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    found = [size for size in (_available(), _left_to_process(), *map(_left_in_group, _CGROUPS)) if size is not None]
    return min(found, default=_FALLBACK)


def _available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _left_to_process() -> int | None:
    """What is left of the address space that the process may take (ulimit -v)."""
    try:
        import resource

        most, _ = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError, ValueError):
        return None
    return None if most == resource.RLIM_INFINITY else max(most - pages * resource.getpagesize(), 0)


def _left_in_group(files: tuple[str, str]) -> int | None:
    try:
        most, used = (int(Path(file).read_text()) for file in files)
    except (OSError, ValueError):  # no control group, or 'max'
        return None
    return max(most - used, 0) if most < 2**60 else None
