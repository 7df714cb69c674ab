"""`sdtui view FILE...`: pictures in the terminal."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from sdtui.cli.options import ProtocolOption
from sdtui.cli.output import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, CommandError, complain, note, result_json
from sdtui.cli.start import settings_or_error, with_image_protocol

if TYPE_CHECKING:
    from sdtui.cli.inline import Inline
    from sdtui.cli.still import Facts

app = typer.Typer(rich_markup_mode=None, add_completion=False)
_KINDS: Final = ((stat.S_ISREG, "a file"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"))


@app.command()
def view(
    files: Annotated[list[str], typer.Argument(metavar="FILE", help="PNG, JPEG, WebP, GIF, BMP, TIFF or PPM files.")],
    image_protocol: ProtocolOption = None,
    width: Annotated[
        int | None, typer.Option(metavar="CELLS", min=1, help="The most columns for a picture.", show_default=False)
    ] = None,
    height: Annotated[
        int | None, typer.Option(metavar="CELLS", min=1, help="The most rows for a picture.", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="What each file is, one JSON object a line, and no picture.")] = False,
) -> int:
    """Show pictures in the terminal, as well as it can.

    Example: sdtui view picture.png --height 20
    """
    settings = settings_or_error()
    if image_protocol is not None:
        settings = with_image_protocol(settings, image_protocol)
    if sys.stdout is None or not (json or sys.stdout.isatty()):
        raise CommandError(
            f"stdout is {_kind_of_stdout()}, and pictures are drawn with control sequences of a terminal; "
            "let stdout lead to one, or ask for the facts alone with --json.",
            EXIT_BAD_INPUT,
        )
    viewer = _Viewer(settings.terminal.image_protocol, width, height)
    for file in files:
        viewer.tell(file) if json else viewer.show(file)
    return viewer.exit_code


def _kind_of_stdout() -> str:
    if sys.stdout is None:
        return "closed"
    mode = os.fstat(sys.stdout.fileno()).st_mode
    return next((name for test, name in _KINDS if test(mode)), "no terminal")


class _Viewer:
    """Shows one file after the other, whatever is wrong with some. The terminal is asked when there is something to show."""

    def __init__(self, requested: str, width: int | None, height: int | None) -> None:
        self._requested = requested
        self._width, self._height = width, height
        self._inline: Inline | None = None
        self.exit_code = EXIT_DONE

    def tell(self, file: str) -> None:
        """The facts of a file as a line of JSON."""
        facts = self._facts(file)
        if facts is not None:
            result_json(msgspec.json.encode(facts))

    def show(self, file: str) -> None:
        """The picture in a file, and a line below it."""
        from sdtui.cli.inline import WAYS

        facts = self._facts(file)
        if facts is None:
            return
        inline = self._ask()
        if inline.cannot:
            self.exit_code = self.exit_code or EXIT_FAILED
            inline.say(caption(facts, "not drawn"))
        elif self._draw(file, facts, inline):
            inline.say(caption(facts, WAYS[inline.name]))

    def _facts(self, file: str) -> Facts | None:
        from sdtui.cli.still import PictureError, read_facts

        try:
            return read_facts(file)
        except PictureError as error:
            self._complain(error)
            return None

    def _draw(self, file: str, facts: Facts, inline: Inline) -> bool:
        """Whether the pixels could be read."""
        from sdtui.cli.still import PictureError, read_pixels

        columns, rows = inline.room(facts.width_px, facts.height_px, self._width, self._height)
        width_px, height_px = inline.cell
        try:
            frame = read_pixels(file, round(max(columns * width_px, rows * height_px)), inline.background)
        except PictureError as error:
            self._complain(error)
            return False
        inline.draw(frame, columns, rows)
        return True

    def _complain(self, error: Exception) -> None:
        complain(str(error))
        self.exit_code = EXIT_BAD_INPUT

    def _ask(self) -> Inline:
        """What draws here. What it cannot do is said once."""
        if self._inline is None:
            from sdtui.cli.inline import Inline
            from sdtui.cli.picture import asked_terminal

            with asked_terminal() as asked:
                self._inline = Inline(asked, self._requested)
            if self._inline.cannot:
                note(f"No picture can be drawn here: {self._inline.cannot}")
                for sentence in asked.verdict.advice:
                    note(sentence)
            elif self._inline.complaint:
                note(self._inline.complaint)
        return self._inline


def caption(facts: Facts, way: str) -> str:
    """`cat.png  128x128 px  by sixel  seed 7  a red cat`: what may be cut off stands last."""
    name = facts.path.rpartition("/")[2]
    parts = [name, f"{facts.width_px}x{facts.height_px} px", way]
    if facts.seed is not None:
        parts.append(f"seed {facts.seed}")
    return "  ".join([*parts, facts.prompt or ""]).rstrip()
