"""What each script of the gallery finds: JAX as it comes, whatever the script before it has set."""

from pathlib import Path
from typing import Any

import jax


def as_it_comes(gallery: dict[str, Any], script: str | Path) -> None:
    """Undo what a script has set."""
    jax.config.update("jax_enable_x64", False)
