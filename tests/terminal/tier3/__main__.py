"""`make terminals`: every terminal that is here runs the demo app through the script; what was seen goes to docs/terminals.md.

`python -m tests.terminal.tier3 [NAME...]` tries the terminals with these words in their names, and writes nothing.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.terminal import script
from tests.terminal.demo import Demo
from tests.terminal.real import Alacritty, Emulator, Kitty, SixelXterm, TmuxInKitty, TmuxInXterm, Xterm

from .emulators import Foot, Konsole, Mlterm, NewKitty, NewTmuxInNewKitty, NewTmuxInXterm, XtermJs

DOCUMENT = Path("docs/terminals.md")
BEGIN, END = "<!-- begin: make terminals -->", "<!-- end: make terminals -->"
KINDS: tuple[type[Emulator], ...] = (
    NewKitty, Kitty, Foot, SixelXterm, Xterm, Konsole, Mlterm, XtermJs, Alacritty,
    TmuxInXterm, NewTmuxInXterm, TmuxInKitty, NewTmuxInNewKitty,
)  # fmt: skip
STEPS = (
    ("live and still", script.stream),
    ("dialog", script.cover_with_a_dialog),
    ("dialog at once", script.open_a_dialog_at_once),
    ("toast", script.cover_with_a_toast),
    ("theme", script.change_the_theme),
    ("hidden, scrolled", script.hide_and_scroll),
    ("window", script.resize),
    ("font", script.zoom),
)
TOLERANCE = 10.0
"""Of 255: few colours, half cells and the terminals' own scaling stay below 8; a wrong picture is above 30."""


class Row(NamedTuple):
    """What was seen in one terminal."""

    name: str
    version: str
    protocol: str
    difference: str
    steps: dict[str, str]
    left: str


def examine(kind: type[Emulator], evidence: Path) -> Row:
    """Run the script in a terminal of this kind. A step that fails is told, and the next one starts afresh."""
    protocol, difference, steps = "", "", {}
    todo = list(STEPS)
    while todo:
        with Demo(kind, evidence, tolerance=TOLERANCE) as demo:
            try:
                demo.wait_to_see()
                demo.terminal.settled()
                looks = demo.wait_to_see()
            except AssertionError as error:
                say(kind, "start", error)
                return Row(kind.name, kind.version(), protocol, "nothing right", steps, "")
            protocol = demo.state.protocol
            difference = difference or f"{max(look.difference for look in looks.values()):.1f}"
            while todo:
                name, step = todo.pop(0)
                steps[name] = attempt(kind, demo, name, step)
                if steps[name] == "no":
                    break
    try:
        script.leave(kind)
        left = "nothing"
    except AssertionError as error:
        say(kind, "leave", error)
        left = "something"
    return Row(kind.name, kind.version(), protocol, difference, steps, left)


def attempt(kind: type[Emulator], demo: Demo, name: str, step: object) -> str:
    """`yes`, `no`, or `-` where the terminal cannot be made to."""
    if (name == "window" and not kind.resizable) or (name == "font" and not kind.zoom_key):
        return "-"
    try:
        step(demo)  # type: ignore[operator]
    except AssertionError as error:
        say(kind, name, error)
        return "no"
    return "yes"


def say(kind: type[Emulator], what: str, why: object) -> None:
    """Tell the user."""
    sys.stderr.write(f"{kind.name}: {what}: {why}\n")


def table(rows: list[Row]) -> str:
    """The rows in Markdown."""
    names = [name for name, _ in STEPS]
    head = ["terminal", "version", "pictures by", "difference", *names, "left behind"]
    lines = [head, ["---"] * len(head)]
    lines += [
        [row.name, row.version, row.protocol, row.difference, *(row.steps.get(name, "") for name in names), row.left]
        for row in rows
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write(text: str) -> None:
    """Put the table between the marks of the document."""
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def main() -> int:
    """Try all; the exit code says whether every step went well in those that were tried."""
    wanted = [word.lower() for word in sys.argv[1:]]
    kinds = [kind for kind in KINDS if not wanted or any(word in kind.name.lower() for word in wanted)]
    evidence = Path(tempfile.mkdtemp(prefix="sdtui-terminals-"))
    rows, skipped = [], []
    for kind in kinds:
        if reason := kind.why_not():
            say(kind, "skipped", reason)
            skipped.append(f"{kind.name} ({reason})")
            continue
        rows.append(examine(kind, evidence))
        sys.stdout.write(table(rows[-1:]).splitlines()[-1] + "\n")
    if not any(evidence.iterdir()):
        evidence.rmdir()
    if not wanted:
        write(table(rows) + (f"\n\nNot tried: {'; '.join(skipped)}." if skipped else ""))
    return int(any("no" in row.steps.values() or row.left != "nothing" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
