"""`sdtui doctor`: what is fine on this machine, what is not, and what to do."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
import typer

from sdtui.cli.checks import Check, all_checks
from sdtui.cli.output import EXIT_DONE, EXIT_FAILED, note, result, result_json
from sdtui.text import count_noun

app = typer.Typer(rich_markup_mode=None, add_completion=False)
_MARKS: Final = {"ok": "ok     ", "warning": "warning", "wrong": "WRONG  "}


@app.command()
def doctor(json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False) -> int:
    """Check Python, torch, device, memory, disks, paths, terminal, server and models; exit code 3 when one is wrong.

    Example: sdtui doctor
    """
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
