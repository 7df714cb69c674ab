"""`sdtui doctor`: what is fine on this machine, what is not, and what to do."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
import typer

from sdtui.cli.checks import Check, all_checks
from sdtui.cli.output import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, CommandError, note, result, result_json
from sdtui.cli.start import check_protocol
from sdtui.cli.terminal import examine
from sdtui.text import count_noun

app = typer.Typer(rich_markup_mode=None, add_completion=False)
_MARKS: Final = {"ok": "ok     ", "warning": "warning", "wrong": "WRONG  "}


@app.command()
def doctor(
    terminal: Annotated[
        bool, typer.Option("--terminal", help="Only the terminal: what it can show and why, what would give more, a test card.")
    ] = False,
    image_protocol: Annotated[
        str | None,
        typer.Option(
            "--image-protocol",
            metavar="NAME",
            help="The test card in this way alone: auto, kitty, iterm2, sixel, sextant, quadrant, half.",
            show_default=False,
        ),
    ] = None,
    save: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write what the terminal said to a file, as for a bug report.", show_default=False),
    ] = None,
    replay: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Judge a saved report instead of this terminal.", show_default=False),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> int:
    """Check Python, torch, device, memory, disks, paths, terminal, server and models; exit code 3 when one is wrong.

    Example: sdtui doctor --terminal
    """
    check_protocol(image_protocol)
    if save is not None and replay is not None:
        raise CommandError("--save and --replay: a saved report need not be saved again; give one of them.", EXIT_BAD_INPUT)
    if terminal or image_protocol is not None or save is not None or replay is not None:
        return examine(requested=image_protocol, json=json, save=save, replay=replay)
    return _check_all(json=json)


def _check_all(*, json: bool) -> int:
    checks: list[Check] = []
    for check in all_checks():
        checks.append(check)
        if json:
            result_json(msgspec.json.encode(check))
        else:
            result(f"{_MARKS[check.state]}  {check.name:<14}  {check.found}")
            if check.advice:
                result(f"{'':<25}{check.advice}")
    wrong = sum(check.state == "wrong" for check in checks)
    if wrong and not json:
        note(f"{count_noun(wrong, 'thing')} must be put right before sdtui can work.")
    return EXIT_FAILED if wrong else EXIT_DONE
