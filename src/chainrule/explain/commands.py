"""The commands `explain`, `explore` and `lessons` of the command line."""

from __future__ import annotations

import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import typer

from chainrule._errors import InputTypeError
from chainrule.explain.explanation import Explain, Explanation

# of 'FILE.py:function' and --at: the function, the point, and what names both where the function fails
Target = Callable[[str, str | None], tuple[Any, Any, Any]]

_Function = Annotated[str, typer.Argument(metavar="FILE.py:function", help="or package.module:function")]
_At = Annotated[str | None, typer.Option("--at", metavar="POINT", help="as for `chainrule jacobian`")]
_Html = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="write the page")]
_Open = Annotated[bool, typer.Option("--open", help="open the page in the browser")]
_Json = Annotated[bool, typer.Option("--json", help="print the data in place of the text")]


def add_to(app: typer.Typer, target: Target) -> None:
    """Add the commands to an application that knows how to find a function and its point."""

    @app.command()
    def explain(
        function: _Function, at: _At = None, html: _Html = None, as_json: _Json = False, show: _Open = False
    ) -> None:
        """Show the chain rule at work: each step's Jacobian, the sweeps, the costs, the sum over paths."""
        f, point, blaming = target(function, at)
        with blaming:
            found = Explain(f, 0, "auto")(point)
        _give(found, html, as_json, show)

    @app.command()
    def explore(
        function: _Function,
        at: _At = None,
        port: Annotated[int, typer.Option(help="a free one unless given", min=0, max=65535)] = 0,
        browser: Annotated[bool, typer.Option(help="open the page in the browser")] = True,
    ) -> None:
        """Serve the live page for this machine alone, until it is interrupted."""
        from chainrule.explain.server import Server

        f, point, blaming = target(function, at)
        with blaming:
            live = Explain(f, 0, "auto").live(point)
        with Server(live, port) as server:
            server.page()  # a missing page is said now
            typer.echo(f"serving {server.url}  (interrupt to end)")
            if browser:
                webbrowser.open(server.url)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                typer.echo("ended")

    @app.command()
    def lessons(
        name: Annotated[
            str | None, typer.Argument(metavar="LESSON", help="such as B8; all are listed without it")
        ] = None,
        html: _Html = None,
        as_json: _Json = False,
        show: _Open = False,
    ) -> None:
        """List the worked examples in order, with what comes before each; or explain one."""
        from chainrule.explain.lessons import described, lesson, listed
        from chainrule.explain.text import columns

        if name is None:
            typer.echo("\n".join(columns([("lesson", "title", "after"), *listed()])))
            return
        own = lesson(name)
        if own is None:
            raise InputTypeError(f"there is no lesson {name!r}; `chainrule lessons` lists them")
        jax.config.update("jax_enable_x64", True)
        found = Explain(own.function, 0, "auto")(jnp.asarray(own.point))
        if not as_json:
            typer.echo(f"{own.id}: {own.title}\n{own.text}\n")
        _give(Explanation(described(own, found.to_dict())), html, as_json, show)


def _give(found: Explanation, html: Path | None, as_json: bool, show: bool) -> None:
    typer.echo(found.to_json() if as_json else str(found))
    if html is not None:
        if html.suffix != ".html":
            raise InputTypeError(f"--html {html}: a page's name ends in .html")
        found.save(html)
        typer.echo(f"written     {html}", err=as_json)
    if show:
        typer.echo(f"opened      {found.show()}", err=as_json)
