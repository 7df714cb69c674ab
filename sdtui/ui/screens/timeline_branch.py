"""Branching on the Timeline screen: a job that goes on from the shown step, with something of the parent's changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.events import Paste
from textual.getters import query_one
from textual.screen import ModalScreen
from textual.widgets import Static, TextArea

from sdtui.params import BY_FIELD, MAX_PROMPT_CHARACTERS, GenerationParams, check_value, parse_value
from sdtui.protocol import BranchPoint, JobFailed, JobQueued, Message, PreviewOptions, Refused, Submit, new_job_id
from sdtui.schedulers import BY_NAME, MODEL_DEFAULT, find_scheduler
from sdtui.settings import output_dir
from sdtui.text import count_noun, safe_text
from sdtui.ui.feed import NotConnected
from sdtui.ui.screens.create_jobs import short_name
from sdtui.ui.timeline_record import Record
from sdtui.ui.widgets.field import FieldRow
from sdtui.ui.widgets.form import value_text

if TYPE_CHECKING:
    from sdtui.ui.screens.timeline import TimelineScreen

_PROMPTS: Final = ("prompt", "negative_prompt")
_FIELDS: Final = ("guidance_scale", "scheduler", "sigmas", "num_inference_steps", "seed")
CHANGEABLE: Final = (*_PROMPTS, *_FIELDS)
"""What the dialog offers of what a branch may change."""


def open_dialog(screen: TimelineScreen) -> None:
    """Ask what is to be changed from the shown step on, where there are steps left to run."""
    record = screen.record
    if record is None:
        return
    taken = screen.step + 1
    if taken < 1:
        screen.show_notice("A branch takes over 1 step or more: go to the step from which it is to go on.", "warning")
    elif taken >= record.total:
        screen.show_notice("No step is left to run after the last one: go to an earlier one to branch.", "warning")
    elif taken >= record.count and not screen.runs:
        screen.show_notice("What was recorded last is torn: go to an earlier step to branch.", "warning")
    else:
        screen.app.push_screen(BranchDialog(screen, record, taken))


class PromptText(TextArea):
    """A prompt over several lines; control characters never get in."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(
            safe_text(text, multiline=True, limit=MAX_PROMPT_CHARACTERS), id=f"branch-{name.replace('_', '-')}", soft_wrap=True,
            show_line_numbers=False, tab_behavior="focus",
        )  # fmt: skip
        self.field = name
        self.border_title = BY_FIELD[name].spec.label
        self.highlight_cursor_line = False

    async def _on_paste(self, event: Paste) -> None:
        """Take the text without what a terminal would act on."""
        event.prevent_default()
        event.stop()
        room = max(0, MAX_PROMPT_CHARACTERS - len(self.text) + len(self.selected_text))
        result = self.replace(safe_text(event.text, multiline=True, limit=room), *self.selection)
        self.move_cursor(result.end_location)


class BranchDialog(ModalScreen[None]):
    """Prefilled with what the parent was asked for. It stays until the branch is queued; what is wrong stands in it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f5,ctrl+j", "submit", "Branch", id="branch.submit", priority=True, tooltip="Queue the branch"),
        Binding("escape", "leave", "Leave", id="branch.leave", tooltip="Make no branch"),
    ]
    note = query_one("#branch-note", Static)

    def __init__(self, screen: TimelineScreen, record: Record, taken: int) -> None:
        super().__init__()
        self._timeline, self._record, self._taken = screen, record, taken
        self._before = msgspec.structs.replace(record.params, seed=record.seed, batch_count=1, batch_size=1)
        self._rows: dict[str, FieldRow] = {}
        self._sent: Submit | None = None
        self._wrong = ""
        """The first field that is wrong."""

    def compose(self) -> ComposeResult:
        """A box with the prompts, the fields, and what is to be said of them."""
        with Vertical(id="branch-box", classes="dialog") as box:
            box.border_title = Content(f"Branch after step {self._taken} of job {short_name(self._record.job)}")
            box.border_subtitle = "F5 branches · esc leaves"
            with VerticalScroll(can_focus=False):
                for name in _PROMPTS:
                    yield PromptText(name, getattr(self._before, name))
                for name in _FIELDS:
                    row = self._rows[name] = FieldRow(BY_FIELD[name], value_text(getattr(self._before, name)))
                    yield row
            yield Static(id="branch-note", markup=False)

    def on_mount(self) -> None:
        """Begin with the prompt; answers come by the screen below."""
        self._timeline.dialog = self
        self._offer_schedulers()
        box = self.query_one("#branch-prompt", PromptText)
        box.move_cursor(box.document.end)
        box.focus()
        self._show_note()

    def _offer_schedulers(self) -> None:
        """Those that the loaded model can take; the one that the parent had is called by its name."""
        info = self._timeline.model
        if info is not None and info.model == self._before.model:
            offered = [(choice.name, choice.label) for choice in info.schedulers if choice.missing is None]
            self._rows["scheduler"].set_choices(offered)

    # --- what is wanted ---------------------------------------------------------------------------------------------

    def read(self) -> GenerationParams | None:
        """The branch's parameters; None where a value is wrong, which is said at its field."""
        values: dict[str, Any] = {}
        problems: dict[str, str] = {}
        for name in CHANGEABLE:
            try:
                values[name] = self._value(name)
            except ValueError as error:
                problems[name] = str(error)
        for name, row in self._rows.items():
            row.error = problems.get(name, "")
        self._wrong = next(iter(problems), "")
        if self._wrong in _PROMPTS:
            self._say(problems[self._wrong], "error")
        return None if problems else msgspec.structs.replace(self._before, **values)

    def _value(self, name: str) -> Any:
        """Raises `ValueError` with a sentence for the user."""
        value = self._prompt(name).text if name in _PROMPTS else parse_value(name, self._rows[name].text)
        if name == "seed" and value is None:
            value = self._before.seed
        problem = check_value(name, value)
        if problem:
            raise ValueError(problem)
        return value

    def _prompt(self, name: str) -> PromptText:
        return self.query_one(f"#branch-{name.replace('_', '-')}", PromptText)

    def on_text_area_changed(self) -> None:
        """Say what the change means."""
        self._show_note()

    def on_field_row_changed(self, event: FieldRow.Changed) -> None:
        """Check what was typed."""
        event.stop()
        self._show_note()

    def _show_note(self) -> None:
        if self.is_mounted and (params := self.read()) is not None:
            self._say(note(self._before, params, self._record, self._taken))

    def _say(self, words: str, tone: str = "muted") -> None:
        self.note.update(Content.styled(words, f"${tone}"))

    # --- what becomes of it -----------------------------------------------------------------------------------------

    def action_leave(self) -> None:
        """Make no branch."""
        self.dismiss()

    def action_submit(self) -> None:
        """Queue it."""
        params = self.read()
        if params is None:
            (self._prompt(self._wrong) if self._wrong in _PROMPTS else self._rows[self._wrong].editor).focus()
        elif self._sent is None:
            self._sent = self._submission(params)
            self._say("Queueing the branch …")
            self.run_worker(self._send(self._sent), exit_on_error=False)

    def _submission(self, params: GenerationParams) -> Submit:
        settings, record = self._timeline.settings, self._record
        point = BranchPoint(
            job=record.job, step=self._taken, batch_index=record.facts.batch_index, picture=record.picture_in_batch
        )
        return Submit(
            job=new_job_id(),
            params=params,
            output_dir=str(output_dir(settings)),
            name_pattern=settings.general.name_pattern,
            inspect=settings.inspect.look,
            words=settings.inspect.words,
            preview=PreviewOptions(
                method=settings.preview.method, max_per_s=settings.preview.max_per_s, budget=settings.preview.budget
            ),
            branch=point,
        )

    async def _send(self, command: Submit) -> None:
        self._timeline.post_message(self._timeline.Branched(command.job))
        try:
            await self._timeline.feed.send(command)
        except NotConnected as error:
            self._sent = None
            self._say(f"Not queued: {error}", "error")

    def on_unmount(self) -> None:
        """It is over."""
        if self._timeline.dialog is self:
            self._timeline.dialog = None

    def take(self, event: Message) -> None:
        """The server's answer: the branch waits or runs, or why not."""
        sent = self._sent
        if sent is None or getattr(event, "job", None) != sent.job:
            return
        match event:
            case JobQueued():
                self._timeline.show_job(sent.job)
                self.dismiss()
            case Refused() | JobFailed():
                self._sent = None
                words = safe_text(event.message, limit=400)
                self._say(words, "error")
                if event.field in self._rows:
                    self._rows[event.field].error = words
                    self._rows[event.field].editor.focus()


def note(parent: GenerationParams, params: GenerationParams, record: Record, taken: int) -> str:
    """What a branch with these parameters does, and what of it does nothing."""
    left = count_noun(max(0, record.total - taken), "step")
    changed = [name for name in CHANGEABLE if getattr(params, name) != getattr(parent, name)]
    if any(name in changed for name in ("scheduler", "sigmas", "num_inference_steps")):
        return "It goes on at the nearest noise level of the new schedule that is not noisier, without the scheduler's history."
    if not changed:
        return f"Nothing is changed: {left} would run anew and give the same picture."
    if changed == ["seed"] and not _draws_noise(params, record):
        return f"Another seed changes nothing here: {_label(params, record)} draws no noise in its steps."
    if "seed" in changed and not _draws_noise(params, record):
        return f"{left} run anew. The seed makes no difference: {_label(params, record)} draws no noise in its steps."
    return f"{count_noun(taken, 'step')} of the parent are taken over, {left} run anew."


def _scheduler(params: GenerationParams, record: Record) -> str:
    name = find_scheduler(params.scheduler)
    return find_scheduler(record.facts.scheduler) or MODEL_DEFAULT if name in (None, MODEL_DEFAULT) else name


def _draws_noise(params: GenerationParams, record: Record) -> bool:
    spec = BY_NAME.get(_scheduler(params, record))
    return spec is None or spec.stochastic  # of one that is not known nothing is promised


def _label(params: GenerationParams, record: Record) -> str:
    spec = BY_NAME.get(_scheduler(params, record))
    return spec.label if spec is not None else "the scheduler"
