"""Exporting on the Timeline screen: the shown view of every step as a clip, as pictures, or as latents."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.events import Paste
from textual.getters import query_one
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Input, Static

from sdtui.inspected import InspectedError
from sdtui.settings import output_dir
from sdtui.text import safe_text
from sdtui.trajectory import Trajectory
from sdtui.ui.screens.create_jobs import short_name
from sdtui.ui.screens.timeline_decode import Key
from sdtui.ui.timeline_record import Record
from sdtui.ui.timeline_rows import view_title
from sdtui.ui.widgets.choice import Choice
from sdtui.ui.widgets.progress import bar

if TYPE_CHECKING:
    from sdtui.timeline.export import Export
    from sdtui.ui.screens.timeline import TimelineScreen

_LONGEST: Final = 1_000
_YES_NO: Final = (("yes", "yes"), ("no", "no"))
_BAR_CELLS: Final = 30
_LOOK_S: Final = 0.05


class _Option(NamedTuple):
    label: str
    value: str
    help: str
    choices: tuple[tuple[str, str], ...] = ()


_OPTIONS: Final[dict[str, _Option]] = {
    "target": _Option(
        "File", "", "Its ending is the format: .mp4, .webp, .gif, .safetensors (the latents); a directory gets PNGs."
    ),
    "fps": _Option("Steps a second", "8", "How many steps are shown a second, 1 to 60; a GIF has at most 50."),
    "hold_s": _Option("Hold the last", "2", "For how many seconds the last step stays, 0 to 60."),
    "every": _Option("Every", "1", "Every how many steps there is a frame; the last step always has one."),
    "caption": _Option("Caption", "yes", "Step, timestep and σ in a strip below the picture.", _YES_NO),
    "include_initial": _Option("Beginning", "no", "Begin with what the job began with, where the view has that.", _YES_NO),
    "overwrite": _Option("Overwrite", "no", "Replace what is there under this name.", _YES_NO),
}


def open_dialog(screen: TimelineScreen) -> None:
    """Ask for what is to be written, and write it."""
    record = screen.record
    if record is not None and record.count:
        screen.app.push_screen(ExportDialog(screen, record))
    elif record is not None:
        screen.show_notice("There is no step to export yet.", "warning")


class OptionInput(Input):
    """A value that is typed in the dialog."""

    def _on_paste(self, event: Paste) -> None:
        """One line, and nothing that a terminal would act on. Textual then calls Input's own handler."""
        event.text = safe_text(event.text.strip(), limit=_LONGEST)


class OptionRow(Widget):
    """A label, and its editor beside it."""

    def __init__(self, name: str, option: _Option, value: str) -> None:
        super().__init__(id=f"export-{name.replace('_', '-')}")
        self.label, self.help = option.label, option.help
        self.editor: Choice | OptionInput
        if option.choices:
            self.editor = Choice(option.label, option.choices, value)
        else:
            self.editor = OptionInput(value, compact=True, max_length=_LONGEST, classes="editor")

    def compose(self) -> ComposeResult:
        """The editor; the label is drawn."""
        yield self.editor

    def render(self) -> Content:
        """The label."""
        return Content(self.label)


class ExportDialog(ModalScreen[None]):
    """Stays until the file is written or the user leaves; leaving ends what is being written, of which nothing is left."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f5,ctrl+j", "write", "Export", id="export.write", priority=True, tooltip="Write the file"),
        Binding("escape", "leave", "Leave", id="export.leave", tooltip="Cancel what is being written, or leave"),
    ]
    note = query_one("#export-note", Static)

    def __init__(self, screen: TimelineScreen, record: Record) -> None:
        super().__init__()
        self._timeline, self._record = screen, record
        self._view, self._channel = screen.view, min(screen.channel, record.channels - 1)
        self._cancelled = threading.Event()
        self._writes = False
        self._wrong = ""
        """The field of which is said what is wrong."""
        self._rows: dict[str, OptionRow] = {}

    def compose(self) -> ComposeResult:
        """A box with the options, and what becomes of them."""
        with Vertical(id="export-box", classes="dialog") as box:
            title = view_title(self._view, self._channel, self._record.channels)
            box.border_title = Content(f"Export job {short_name(self._record.job)} · {title}")
            box.border_subtitle = "F5 or enter writes · esc leaves"
            for name, option in _OPTIONS.items():
                value = self._free_name() if name == "target" else option.value
                row = self._rows[name] = OptionRow(name, option, value)
                yield row
            yield Static(id="export-note", markup=False)

    def _free_name(self) -> str:
        """Beside the pictures, by the job and what is seen."""
        what = f"channel-{self._channel + 1}" if self._view == "channel" else self._view.replace("_", "-")
        return str(output_dir(self._timeline.settings) / f"{self._record.job}-{what}.mp4")

    def on_mount(self) -> None:
        """Begin with the name."""
        self._rows["target"].editor.focus()

    def on_descendant_focus(self) -> None:
        """Say what the field does."""
        name = next((name for name, row in self._rows.items() if row.editor.has_focus), "")
        if name and name != self._wrong:
            self._wrong = ""
            self._say(self._rows[name].help)

    def _say(self, words: str, tone: str = "muted") -> None:
        self.note.update(Content.styled(words, f"${tone}"))

    # --- what is wanted ---------------------------------------------------------------------------------------------

    def _text(self, name: str) -> str:
        return self._rows[name].editor.value.strip()

    def _wanted(self) -> Export:
        """Raises `ExportError`."""
        from sdtui.timeline.export import Export

        return Export(
            view=self._view,
            picture=self._record.picture,
            channel=self._channel,
            fps=self._number("fps", float),
            hold_s=self._number("hold_s", float),
            every=int(self._number("every", int)),
            caption=self._text("caption") == "yes",
            include_initial=self._text("include_initial") == "yes",
        )

    def _number(self, name: str, kind: type[int] | type[float]) -> float:
        from sdtui.timeline.export import ExportError

        try:
            return kind(self._text(name))
        except ValueError:
            wanted = "a whole number" if kind is int else "a number"
            raise ExportError(f"It takes {wanted}, not {safe_text(self._text(name), limit=40)!r}.", name) from None

    # --- writing ----------------------------------------------------------------------------------------------------

    def action_leave(self) -> None:
        """Cancel what is being written; a second time, or where nothing is, leave."""
        if self._writes and not self._cancelled.is_set():
            self._cancelled.set()
            self._say("Cancelling …")
        else:
            self.dismiss()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter writes."""
        event.stop()
        self.action_write()

    def action_write(self) -> None:
        """Write it."""
        if not self._writes:
            self._writes = True
            self._cancelled.clear()
            self.run_worker(self._write(), exit_on_error=False)

    async def _write(self) -> None:
        from sdtui.timeline.export import ExportCancelled, ExportError

        try:
            wanted, target = self._wanted(), self._text("target")
            self._show_progress(0, 0)
            overwrite = self._text("overwrite") == "yes"
            await self._decode(await asyncio.to_thread(self._missing, wanted, target, overwrite))
            path = await asyncio.to_thread(self._export, wanted, target, overwrite)
        except ExportError as error:
            self._show_problem(error.field, str(error))
        except ExportCancelled:
            self._say("Cancelled; nothing is left of it.", "warning")
        except (InspectedError, OSError, ValueError, MemoryError) as error:
            self._say(safe_text(str(error), limit=400), "error")
        else:
            self._timeline.show_notice(f"Saved {safe_text(str(path), limit=400)}", "success")
            self.dismiss()
        finally:
            self._writes = False

    def _missing(self, wanted: Export, target: str, overwrite: bool) -> list[int]:
        """The steps that are to be decoded first, once all else is right. In a thread. Raises `ExportError`, `InspectedError`."""
        from sdtui.timeline.target import Target
        from sdtui.timeline.views import NotDecoded
        from sdtui.timeline.wanted import check, missing_decodes

        pictures = output_dir(self._timeline.settings)
        if target and Path(target).expanduser().parent == pictures:
            pictures.mkdir(parents=True, exist_ok=True)
        place, trajectory = Target(target, overwrite=overwrite), Trajectory(self._record.path)
        try:
            check(trajectory, wanted, latents=place.kind == "safetensors")
        except NotDecoded:
            return missing_decodes(trajectory, wanted)
        return []

    async def _decode(self, missing: list[int]) -> None:
        """Have the full pictures of these steps made. Raises `ExportError`, `ExportCancelled`."""
        from sdtui.timeline.export import ExportCancelled, ExportError

        record, decoding = self._record, self._timeline.decoding
        keys = [Key(record.job, record.facts.batch_index, record.picture_in_batch, step) for step in missing]
        for done, key in enumerate(keys):  # one after the other: who cancels has not asked for all of them
            self._show_progress(done, len(keys), "steps decoded")
            decoding.request(self._timeline, key)
            while decoding.waits_for(key):
                await asyncio.sleep(_LOOK_S)
                if self._cancelled.is_set():
                    raise ExportCancelled
            if why := decoding.failure(key):
                raise ExportError(f"Step {key.step + 1} is not decoded: {why}")

    def _export(self, wanted: Export, target: str, overwrite: bool) -> Path:
        """In a thread, with a trajectory of its own."""
        from sdtui.timeline.export import export

        told: Any = partial(self.app.call_from_thread, self._show_progress)
        trajectory = Trajectory(self._record.path)
        return export(trajectory, wanted, target, overwrite=overwrite, progress=told, cancelled=self._cancelled.is_set)

    def _show_progress(self, done: int, total: int, what: str = "frames") -> None:
        if self._cancelled.is_set() or not self.is_mounted:
            return
        full, empty = bar(done / total if total else 0.0, _BAR_CELLS)
        label = f"  {done} / {total} {what}   esc cancels" if total else "  beginning"
        self.note.update(Content.assemble((full, "$accent"), (empty, "$rule"), (label, "$muted")))

    def _show_problem(self, field: str, message: str) -> None:
        row = self._rows.get(field)
        self._say(f"{row.label}: {message}" if row is not None else message, "error")
        if row is not None:
            self._wrong = field
            row.editor.focus()
