"""`sdtui bench`: all arguments go to `python -m sdtui.bench`."""

from __future__ import annotations

import typer

from sdtui.cli.forward import become_module

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench(context: typer.Context) -> None:
    """Measure speed, as ratios; every option goes to `python -m sdtui.bench`.

    Example: sdtui bench overhead --json
    """
    become_module("sdtui.bench", context.args)
