"""`sdtui train`: all arguments go to `python -m sdtui.scratch.train`."""

from __future__ import annotations

import typer

from sdtui.cli.forward import become_module

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def train(context: typer.Context) -> None:
    """Train the small model that ships; every option goes to `python -m sdtui.scratch.train`.

    Example: sdtui train --help
    """
    become_module("sdtui.scratch.train", context.args)
