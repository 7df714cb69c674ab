"""`sdtui models`: what can be used without a download."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from sdtui.checkpoint import ModelOnDisk, cached_models
from sdtui.cli.output import EXIT_DONE, note, result, result_json, table
from sdtui.text import format_bytes

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def models(json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False) -> int:
    """List the shipped model and those in the hub's cache; any of the names goes to --model.

    Example: sdtui models --json
    """
    found = cached_models()
    if json:
        for model in found:
            result_json(msgspec.json.encode(model, enc_hook=str))
        return EXIT_DONE
    for line in table([("model", "revision", "size", "from", "class"), *map(_cells, found)], right=(2,)):
        result(line)
    for model in found:
        if model.problem:
            note(f"{model.name}: {model.problem}")
    return EXIT_DONE


def _cells(model: ModelOnDisk) -> tuple[str, ...]:
    state = "cannot be loaded" if model.problem else model.pipeline_class
    return model.name, model.revision or "", format_bytes(model.size_bytes), model.source, state
