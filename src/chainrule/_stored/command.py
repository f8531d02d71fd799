"""The command `save` of the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import typer

from chainrule._stored.store import save_jacobian

# of 'FILE.py:function' and --at: the function, the point, and what names both where the function fails
Target = Callable[[str, str | None], tuple[Any, Any, Any]]


def add_to(app: typer.Typer, target: Target) -> None:
    """Add the command to an application that knows how to find a function and its point."""

    @app.command()
    def save(
        function: Annotated[str, typer.Argument(metavar="FILE.py:function", help="or package.module:function")],
        out: Annotated[Path, typer.Option(metavar="J.zarr", help="the store, or one that was begun")],
        at: Annotated[str | None, typer.Option("--at", metavar="POINT", help="as for `chainrule jacobian`")] = None,
        memory: Annotated[int, typer.Option(metavar="MIB", help="what a piece may take", min=1)] = 256,
    ) -> None:
        """Write the Jacobian to a Zarr store piece by piece; where it was stopped, the same command goes on."""
        f, point, blaming = target(function, at)
        holomorphic = any(jnp.iscomplexobj(x) for x in jax.tree.leaves(point))
        with blaming:
            J = save_jacobian(f, point, out, by_memory=memory * 2**20, holomorphic=holomorphic, progress=True)
        typer.echo(f"{J}\nwritten     {out}")
