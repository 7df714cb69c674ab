"""`sdtui timeline`: the steps of a job on the screen, as a table, or as a file."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer

from sdtui.cli.job_names import LAST, find_recorded, read_recorded, recorded_picture
from sdtui.cli.output import EXIT_BAD_INPUT, EXIT_DONE, CommandError, note, result, result_json, table
from sdtui.inspected import InspectedError
from sdtui.trajectory import Trajectory

if TYPE_CHECKING:
    from sdtui.timeline.views import Figures

app = typer.Typer(rich_markup_mode=None, add_completion=False)
_FIGURES: Final = {
    "x_mean": 3, "x_std": 3, "x_norm": 1, "x0_mean": 3, "x0_std": 3, "x0_norm": 1, "guidance": 4, "change": 2,
}  # fmt: skip
"""The figures between sigma and the time, in their order, and their digits after the point."""
_COLUMNS: Final = ("step", "t", "sigma", "x mean", "std", "norm", "x0 mean", "std", "norm", "guidance", "change", "ms")


@app.command()
def timeline(
    job: Annotated[
        str, typer.Argument(metavar="JOB", help="The job: its name, the beginning of it, or `last`, the one made last.")
    ] = LAST,
    *,
    plain: Annotated[bool, typer.Option("--plain", help="A table of the steps, also on a terminal.")] = False,
    json: Annotated[bool, typer.Option("--json", help="The figures of each step as a line of JSON.")] = False,
    batch: Annotated[int | None, typer.Option(metavar="N", min=1, help="Which of its batches, from 1 on.")] = None,
    picture: Annotated[int | None, typer.Option(metavar="N", min=1, help="Which picture of the batch, from 1 on.")] = None,
    export: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="Write the steps: .mp4, .webp, .gif, .safetensors for the latents, or a directory for PNG files."
        ),
    ] = None,
    view: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What is seen: denoised (the x0 prediction), latents, channel, rgb, noise_pred, guidance, difference, or vae, "
            "for which the full VAE decodes each step.  [denoised]",
        ),
    ] = None,
    channel: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Of the view channel: which one, from 1 on.  [1]")
    ] = None,
    fps: Annotated[float | None, typer.Option(metavar="N", help="Steps shown a second, 1 to 60.  [8]")] = None,
    hold: Annotated[float | None, typer.Option(metavar="S", help="Seconds the last step stays, 0 to 60.  [2]")] = None,
    every: Annotated[int | None, typer.Option(metavar="N", help="Every how many steps there is a frame.  [1]")] = None,
    caption: Annotated[
        bool | None, typer.Option("--caption/--no-caption", help="Step, timestep and sigma below the picture, or not.")
    ] = None,
    initial: Annotated[
        bool, typer.Option("--initial", help="Begin with what the job began with; for latents, channel, rgb and vae.")
    ] = False,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Of the picture, in pixels; else that of the generated picture.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there under this name.")] = False,
) -> int:
    """Look at the steps of a job: on a terminal in the app, in a pipe as a table. With --export they become a file.

    Example: sdtui timeline last --export steps.mp4
    """
    asked: dict[str, Any] = {
        "view": view, "channel": channel, "fps": fps, "hold": hold, "every": every, "caption": caption, "size": size,
        "initial": initial or None, "overwrite": overwrite or None,
    }  # fmt: skip
    given = {name: value for name, value in asked.items() if value is not None}
    _check_options(export, given, plain=plain, json=json)
    directory = find_recorded(job)
    if export is None and not (plain or json) and sys.stdin.isatty() and sys.stdout.isatty():
        _check_screen(batch, picture)
        return _show_on_the_screen(directory)
    trajectory, place = recorded_picture(directory, batch or 1, picture or 1)
    if not trajectory.steps:
        raise CommandError(f"JOB: no step of job {directory.name} is recorded yet.", EXIT_BAD_INPUT)
    if not trajectory.complete:
        note(f"Job {directory.name} is recorded up to step {len(trajectory.steps)} of {trajectory.total}.")
    if export is not None:
        from sdtui.cli.timeline_export import write

        return write(trajectory, place, export, given)
    return _show_table(trajectory, place, json=json)


def _check_options(export: str | None, given: Mapping[str, Any], *, plain: bool, json: bool) -> None:
    """Raises `CommandError` for options that do not go together."""
    chosen = [name for name, is_chosen in {"--plain": plain, "--json": json, "--export": export is not None}.items() if is_chosen]
    if len(chosen) > 1:
        raise CommandError(f"{' and '.join(chosen)}: give one of them.", EXIT_BAD_INPUT)
    if export is None and given:
        raise CommandError(f"--{next(iter(given))}: it is for --export.", EXIT_BAD_INPUT)


def _check_screen(batch: int | None, picture: int | None) -> None:
    name = "--batch" if batch is not None else "--picture" if picture is not None else ""
    if name:
        raise CommandError(f"{name}: it is for --plain, --json and --export; the app lets you choose.", EXIT_BAD_INPUT)


def _show_on_the_screen(directory: Path) -> int:
    """The app at the Timeline screen, until it is left."""
    from sdtui.cli.start import start_app

    read_recorded(directory)  # what is wrong with it is said before the screen is taken
    return start_app(opening=lambda app: app.show_timeline(directory.name))


# --- the table ------------------------------------------------------------------------------------------------------


def _show_table(trajectory: Trajectory, place: int, *, json: bool) -> int:
    from sdtui.timeline.views import figures  # numpy comes with it

    try:
        found = figures(trajectory, place)
    except InspectedError as error:
        raise CommandError(str(error), EXIT_BAD_INPUT) from error
    if json:
        for row in _rows(found):
            result_json(msgspec.json.encode(row | {"step": row["step"] + 1}))
        return EXIT_DONE
    for line in table([_COLUMNS, *map(_cells, _rows(found))], right=range(len(_COLUMNS))):
        result(line)
    return EXIT_DONE


def _rows(found: Figures) -> list[dict[str, Any]]:
    names = found.__struct_fields__
    return [dict(zip(names, values, strict=True)) for values in zip(*(getattr(found, name) for name in names), strict=True)]


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [
        str(row["step"] + 1),
        f"{row['timestep']:.0f}",
        _number(row["sigma"], 3),
        *(_number(row[name], digits) for name, digits in _FIGURES.items()),
        f"{row['elapsed_s'] * 1000:.0f}",
    ]


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
