"""The Explain screen: the sampling function runs line by line, with what each line makes beside it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Final

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal, Vertical
from textual.content import Content
from textual.getters import query_one
from textual.screen import Screen
from textual.widgets import Input, Static
from textual.worker import Worker, WorkerState

from sdtui.params import BY_FIELD, GenerationParams, Problem, check_value, parse_value
from sdtui.protocol import AdvanceTo, DownloadProgress, LineRan, Message
from sdtui.settings import Settings
from sdtui.text import safe_text
from sdtui.ui import explain_titles
from sdtui.ui.explain_rows import made_spans
from sdtui.ui.explain_run import Run
from sdtui.ui.screens import SCREENS, explain_work
from sdtui.ui.widgets.field import FieldInput
from sdtui.ui.widgets.header import HeaderLine
from sdtui.ui.widgets.key_line import KeyLine
from sdtui.ui.widgets.made_tensors import MadeTensors, Pictured, captioned
from sdtui.ui.widgets.pages.span_view import SpanView
from sdtui.ui.widgets.source_lines import SourceLines

if TYPE_CHECKING:
    from sdtui.server.explainer import Explainer

MakeExplainer = Callable[[Callable[[Message], None]], "Explainer"]
"""Given what is to be told of messages that answer nothing."""
_GUIDANCE: Final = "guidance_scale"
_TICK_S: Final = 1.0
"""How often it is said how long something takes."""


class ExplainScreen(Screen[Problem | None]):
    """Owns the run; its widgets show what they are given. It returns what is wrong with the parameters, if that ended it."""

    CSS_PATH = "explain.tcss"
    AUTO_FOCUS = "#source"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "space,enter,right,n",
            "run_on('line')",
            "Next",
            key_display="space",
            id="explain.line",
            priority=True,
            tooltip="Run the next line",
        ),
        Binding(
            "s", "run_on('stage')", "Stage", id="explain.stage", tooltip="Run to the end of the stage, in the loop of the step"
        ),
        Binding("e", "run_on('end')", "End", id="explain.end", tooltip="Run until the function returns"),
        Binding("g", "ask_guidance", "Guidance", id="explain.guidance", tooltip="Another guidance scale from here on"),
        Binding("ctrl+x", "stop", "Stop", show=False, id="explain.stop", priority=True, tooltip="Stop at the next line"),
        Binding("escape", "leave", "Back", id="explain.leave", priority=True, tooltip="Stop what runs, else go back to Create"),
        Binding("r", "run_anew", "Anew", id="explain.anew", tooltip="From the first line, with the same seed and parameters"),
        Binding("z", "zoom", "Zoom", id="explain.zoom", tooltip="What was made on the whole screen, or beside"),
        Binding("w", "save", "Save", id="explain.save", tooltip="Save the finished picture as PNG"),
    ]
    header = query_one("#header", HeaderLine)
    source = query_one("#source", SourceLines)
    why = query_one("#why", SpanView)
    made = query_one("#made", MadeTensors)
    none = query_one("#no-source", Static)
    say = query_one("#say", Static)
    entry = query_one("#entry", FieldInput)

    def __init__(self, settings: Settings, params: GenerationParams, *, make_explainer: MakeExplainer | None = None) -> None:
        super().__init__(classes="-empty")
        self.settings = settings
        self.params = params
        self.run: Run | None = None
        self.busy: explain_work.Busy | None = None
        self.stopping = False
        self.lost = False
        """Whether the run cannot go on."""
        self.problem: Problem | None = None
        """What is wrong with the parameters."""
        self.guidance: float | None = None
        """To be given with the next line."""
        self.download: DownloadProgress | None = None
        self._since = 0.0
        self.explainer = (make_explainer or _make_explainer)(self._take_message)

    async def on_unmount(self) -> None:
        """The process ends with the screen."""
        self.workers.cancel_node(self)  # else a further question would start another process
        await self.explainer.close()

    def compose(self) -> ComposeResult:
        """The source over its note, and what a line made beside or below them."""
        entry = FieldInput(BY_FIELD[_GUIDANCE], "")
        entry.id = "entry"
        yield HeaderLine(SCREENS, "create", id="header")
        with Container(id="explain-body"):
            yield Static(id="no-source", markup=False)
            with Vertical(id="explain-left"):
                yield SourceLines(id="source")
                yield SpanView(id="why")
            yield MadeTensors(id="made")
        with Horizontal(id="bottom"):
            yield entry
            yield Static(id="say", markup=False)
        yield KeyLine(id="keys")

    def on_mount(self) -> None:
        """Begin at once."""
        self.set_interval(_TICK_S, self._tick)
        explain_work.begin(self)

    def on_screen_suspend(self) -> None:
        """Another screen, or a dialog over this one."""
        if self not in self.app.screen_stack:
            self.made.put_away()

    # --- what is shown -----------------------------------------------------------------------------------------------

    def show_busy(self, busy: explain_work.Busy | None) -> None:
        """Something has begun, or has ended."""
        if busy is not None and self.busy != busy:
            self._since = time.monotonic()
        self.busy = busy
        self._say_standing()
        self.refresh_bindings()

    def _tick(self) -> None:
        if self.busy is not None:
            self._say_standing()

    def _say_standing(self) -> None:
        waited = time.monotonic() - self._since
        if self.busy == "start":
            words = explain_titles.starting(waited, self.params.model, self.download)
            self._show_sentence(words) if self.run is None else self.show_notice(words.splitlines()[0])
        elif self.run is not None and self.busy is not None:
            self.show_notice(explain_titles.running(self.run, self.busy, waited, stopping=self.stopping))
        elif self.run is not None and not self.lost:
            self.show_notice(explain_titles.standing(self.run))

    def show_notice(self, words: str, tone: str = "muted") -> None:
        """The line above the keys, up to three for what is wrong; `words` are safe."""
        self.say.set_class(tone in ("error", "warning"), "-fault")
        self.say.update(Content.styled(words, f"${tone}"))

    def _show_sentence(self, words: str, *, wrong: bool = False) -> None:
        """Instead of a source that there is not."""
        self.set_class(True, "-empty")
        self.none.set_class(wrong, "-wrong")
        self.none.update(Content(words))
        self.show_notice("")

    def show_fault(self, words: str) -> None:
        """Nothing goes on from here; `words` are safe."""
        again = "r tries again, esc goes back to Create."
        if self.run is None:
            there = f"\n\nEsc goes to {BY_FIELD[self.problem.field].spec.label} in Create." if self.problem else f"\n\n{again}"
            self._show_sentence(words + there, wrong=True)
        else:
            self.show_notice(f"{words} r runs it anew.", "error")

    def show_run(self, run: Run) -> None:
        """A function that has not begun."""
        self.run = run
        self.set_class(False, "-empty")
        self.header.set_line(explain_titles.facts(run.started))
        self.source.border_title = Content(safe_text(run.started.file, limit=80))
        self.source.show(run, self.hints())
        self.made.show_pictures((), still=True)
        self.show_line()

    def hints(self) -> dict[int, str]:
        """What stands behind the lines that read the guidance scale."""
        run = self.run
        if run is None:
            return {}
        words = f"{run.guidance:g}"
        if self.guidance is not None:
            words = f"{self.guidance:g} from step {run.in_force_from()} on"
        return dict.fromkeys(run.guidance_lines, words)

    def lines_ran(self) -> None:
        """The run went on."""
        self.source.set_hints(self.hints())
        before = self.source.cursor
        self.source.ran()
        if self.source.cursor == before or not self.source.follows:
            self.show_line()
        self._say_standing()

    @on(SourceLines.Moved)
    def show_line(self) -> None:
        """The note of the line that is read, and what it made."""
        run = self.run
        if run is None:
            return
        line = self.source.cursor
        self.source.border_subtitle = Content(run.stage(line))
        self.why.border_title = f"Why line {line} is there"
        self.why.set_spans([(f"{run.note(line)}\n", "text")], from_top=True)
        self._show_made(run, line)

    def _show_made(self, run: Run, line: int) -> None:
        title, subtitle = explain_titles.made_title(run, line)
        self.made.border_title, self.made.border_subtitle = title, subtitle
        ran = run.ran.get(line)
        if ran is None:
            words = "Nothing has run yet." if run.last is None else f"Line {line} has not run yet."
            self.made.show_text(lambda _: [(f"{words}\n", "muted")])
        else:
            self.made.show_text(lambda room: made_spans(ran, run.others(line), room))
        self.made.show_pictures(self._pictures(run, line), still=self.busy is None)

    def _pictures(self, run: Run, line: int) -> list[Pictured]:
        """Those of the line that is read; where the reader goes with the run, those stay that were made last."""
        if self.source.follows and run.picture is not None:
            size = f"{run.picture.width_px}×{run.picture.height_px}"
            return [Pictured(run.picture, f"finished, {size} px")]
        ran = run.pictured if self.source.follows else run.ran.get(line)
        return _pictures_of(ran, "" if ran is None or ran.line == line else f"line {ran.line}") if ran is not None else []

    # --- what the user does ------------------------------------------------------------------------------------------

    @property
    def _is_asking(self) -> bool:
        return self.has_class("-asking")

    @property
    def can_run(self) -> bool:
        """Whether a line can be run now."""
        return self.run is not None and self.busy is None and not (self.run.finished or self.lost)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """What is impossible now is shown, but dim; while a number is typed, its keys are its own."""
        if self._is_asking and action in ("run_on", "stop"):
            return False
        run = self.run
        possible = {
            "run_on": self.can_run,
            "ask_guidance": self.can_run,
            "stop": self.busy in ("stage", "end"),
            "run_anew": self.busy != "start",
            "save": run is not None and run.finished and self.busy is None and not self.lost,
            "zoom": run is not None,
        }
        return (possible[action] or None) if action in possible else super().check_action(action, parameters)

    def action_run_on(self, to: AdvanceTo) -> None:
        """Run the next line, the stage, or all; a key that is held runs no more lines than it shows."""
        self.source.follows = True
        explain_work.run_on(self, to)

    def action_stop(self) -> None:
        """Stop at the next line."""
        self.stopping = True
        self._say_standing()

    def action_leave(self) -> None:
        """Leave what is typed, stop what runs, put the zoom back, else close."""
        if self._is_asking:
            self._end_asking()
        elif self.busy in ("stage", "end") and not self.stopping:
            self.action_stop()
        elif self.has_class("-zoomed"):
            self.action_zoom()
        else:
            self.dismiss(self.problem)

    def action_run_anew(self) -> None:
        """From the first line again."""
        explain_work.begin(self)

    def action_zoom(self) -> None:
        """What was made over the whole screen, or beside the source again."""
        self.toggle_class("-zoomed")
        (self.made.view if self.has_class("-zoomed") else self.source).focus()

    def action_save(self) -> None:
        """Save the finished picture."""
        explain_work.save(self)

    # --- guidance ----------------------------------------------------------------------------------------------------

    def action_ask_guidance(self) -> None:
        """Type another guidance scale."""
        run = self.run
        if run is None:
            return
        if run.is_unguided:
            self.show_notice(
                "This run began without guidance, so the U-Net is only asked with the prompt; r begins anew.", "warning"
            )
        elif not run.steps_left:
            self.show_notice("No step is left that another guidance scale would change; r begins anew.", "warning")
        else:
            self.entry.value = f"{self.guidance if self.guidance is not None else run.guidance:g}"
            self.set_class(True, "-asking")
            self.entry.focus()
            self.show_notice(f"Guidance from step {run.in_force_from()} on, 0 to 50. Enter takes it, esc leaves it as it is.")

    def _end_asking(self) -> None:
        self.set_class(False, "-asking")
        self.source.focus()
        self._say_standing()

    @on(Input.Submitted)
    def _take_guidance(self, event: Input.Submitted) -> None:
        event.stop()
        try:
            value = parse_value(_GUIDANCE, event.value)
            fault = check_value(_GUIDANCE, value)
        except ValueError as error:
            fault = safe_text(str(error), limit=200)
        if fault:
            self.show_notice(fault, "error")
            return
        run = self.run
        if run is not None:
            self.guidance = None if value == run.guidance else value
            self.source.set_hints(self.hints())
            self._end_asking()
            if self.guidance is not None:
                self.show_notice(f"Guidance {value:g} from step {run.in_force_from()} on, in place of {run.guidance:g}.")

    # --- what comes in -----------------------------------------------------------------------------------------------

    def _take_message(self, message: Message) -> None:
        if isinstance(message, DownloadProgress):
            self.download = message

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """Something failed in a way that nobody foresaw; that is said."""
        if event.state is WorkerState.ERROR and event.worker.group == explain_work.GROUP:
            self.lost = True
            self.show_busy(None)
            error = event.worker.error
            self.show_fault(f"{type(error).__name__}: {safe_text(str(error), limit=200)}.")


def _pictures_of(ran: LineRan, more: str) -> list[Pictured]:
    return [captioned(tensor.name, tensor.picture, more) for tensor in ran.made if tensor.picture is not None]


def _make_explainer(on_message: Callable[[Message], None]) -> Explainer:
    from sdtui.server.explainer import Explainer

    return Explainer(on_message=on_message)
