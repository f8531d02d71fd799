"""Every test runs in float64, with JAX's silent promotions refused."""

import os
import random
import sys
from importlib.metadata import version
from pathlib import Path

# Compiling takes most of the time of these tests, and a third as long like this; set before JAX is imported.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_parallel_codegen_split_count=1 --xla_cpu_enable_concurrency_optimized_scheduler=false"
    # a later JAX ends the process at a flag that it does not know
    + (" --xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else ""),
)

import hypothesis
import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
sys.path.insert(0, str(Path(__file__).parent))

# the random programs start from it; set it to repeat a run
os.environ.setdefault("CHAINRULE_SEED", str(random.randrange(2**32)))


def pytest_report_header(config):
    return f"CHAINRULE_SEED={os.environ['CHAINRULE_SEED']}"


# compiling dominates: a deadline would time the machine
hypothesis.settings.register_profile("chainrule", deadline=None, print_blob=True)
hypothesis.settings.load_profile("chainrule")


_ran = 0


@pytest.fixture(autouse=True)
def _bounded_memory():
    """Compiled programs are kept for the life of a process: forget them now and then."""
    yield
    global _ran
    _ran += 1
    if _ran % 80 == 0:
        jax.clear_caches()
