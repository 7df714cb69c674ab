"""`sdtui settings`: the settings in force, and where they lie."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import tomlkit
import typer

from sdtui.cli.output import EXIT_DONE, result, result_json
from sdtui.cli.start import settings_or_error
from sdtui.settings import settings_path

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    invoke_without_command=True,
    help="Show the settings in force.",
    epilog="Example: sdtui settings show --json",
)


@app.callback()
def show_by_default(context: typer.Context) -> int | None:
    """Show the settings in force, or where they lie."""
    return show() if context.invoked_subcommand is None else None


@app.command()
def show(json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False) -> int:
    """Show the settings in force: file, environment and defaults together."""
    settings: dict[str, Any] = msgspec.to_builtins(settings_or_error())
    if json:
        result_json(msgspec.json.encode(settings))
        return EXIT_DONE
    for line in tomlkit.dumps(settings).rstrip().splitlines():
        result(line)
    return EXIT_DONE


@app.command()
def path() -> int:
    """Print where the settings file lies, whether it exists or not."""
    result(str(settings_path()))
    return EXIT_DONE
