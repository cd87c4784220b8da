"""`firmground guard`: fits, applies and evaluates a guard in front of a backdoored encoder."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True, help="Guard a backdoored encoder that must be used.")


@app.callback()
def guard() -> None:
    """Guard a backdoored encoder that must be used."""
