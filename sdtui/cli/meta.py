"""`sdtui meta FILE`: how a picture was made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from sdtui.cli.output import EXIT_BAD_INPUT, EXIT_DONE, CommandError, note, result, result_json, table
from sdtui.metadata import ImageRecord, MetadataError, initial_name, read_png
from sdtui.params import FIELDS
from sdtui.protocol import BranchPoint
from sdtui.text import format_seconds

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def meta(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A PNG file made by sdtui, A1111, Forge or another that writes alike.")
    ],
    json: Annotated[bool, typer.Option("--json", help="Everything that was read, as one JSON object.")] = False,
) -> int:
    """Say how a picture was made: its prompt, parameters, model and versions.

    Example: sdtui meta picture.png --json
    """
    try:
        found = read_png(Path(file))
    except MetadataError as error:
        raise CommandError(str(error), EXIT_BAD_INPUT) from error
    if found.problem:
        note(found.problem)
    if json:
        result_json(msgspec.json.encode(found))
        return EXIT_DONE
    rows = _record_rows(found.record) if found.record else list(found.fields.items())
    for line in table([("Size", f"{found.width_px}x{found.height_px} px"), *rows]):
        result(line)
    return EXIT_DONE


def _record_rows(record: ImageRecord) -> list[tuple[str, str]]:
    params, branch = record.params, record.branch
    of_image = params.init_image is not None
    rows = [
        (field.spec.label, _value(field.name, getattr(params, field.name)))
        for field in FIELDS
        if of_image or field.spec.group != "image"
    ]
    rows += [
        ("Initial image's hash", record.init_image_digest),
        ("Branch", f"of job {branch.job} at step {branch.step}{_picture_of(branch)}" if branch else ""),
        ("Scheduler class", record.scheduler_class),
        ("Model hash", record.model_hash or ""),
        ("Picture", f"{record.image_index + 1} of job {record.job}" if record.job else str(record.image_index + 1)),
        ("Batch", f"{record.batch_size} at a time, first seed {record.first_seed}"),
        ("Made", f"{record.created_at} in {format_seconds(record.elapsed_s)}"),
        ("With", f"sdtui {record.version}, torch {record.torch}, diffusers {record.diffusers}"),
        ("On", f"{record.device}, {record.dtype}"),
        ("Inexact modes", ", ".join(record.inexact)),
    ]
    return [(label, value) for label, value in rows if value]


def _picture_of(branch: BranchPoint) -> str:
    """Which of the parent's pictures, where it has several."""
    batch = f", batch {branch.batch_index + 1}" if branch.batch_index else ""
    return f"{batch}, picture {branch.picture + 1}" if branch.picture else batch


def _value(name: str, value: object) -> str:
    if name == "init_image" and value is not None:
        return initial_name(str(value))
    if isinstance(value, bool):
        return "yes" if value else ""
    return "" if value is None else str(value)
