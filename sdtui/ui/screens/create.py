"""The Create screen: write a prompt, set the parameters, see the picture form."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import ClassVar, Final

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.content import Content
from textual.events import DescendantFocus
from textual.getters import query_one
from textual.message import Message as UiMessage
from textual.widgets import Static

from sdtui.params import BY_FIELD, GenerationParams, Problem, check_value
from sdtui.protocol import JobRow, JobStarted, LoadModel, Message, ModelInfo, PreviewOptions, Submit, new_job_id
from sdtui.settings import Settings, history_path, output_dir
from sdtui.text import count_noun, format_bytes
from sdtui.ui.feed import Feed, FeedEvent, FeedState, NotConnected
from sdtui.ui.following import Following
from sdtui.ui.history import PromptHistory
from sdtui.ui.own_jobs import OwnJobs
from sdtui.ui.rows import Target
from sdtui.ui.screens import FIRST_KEYS_S, SCREENS, create_jobs, create_look
from sdtui.ui.screens.base import FeedScreen
from sdtui.ui.screens.create_estimate import FIELDS, Estimate
from sdtui.ui.screens.create_events import show_event, show_state
from sdtui.ui.screens.create_initial import FIELDS as INITIAL_FIELDS
from sdtui.ui.screens.create_initial import InitialImage
from sdtui.ui.terminal_app import TerminalApp
from sdtui.ui.widgets.form import Form
from sdtui.ui.widgets.header import HeaderLine
from sdtui.ui.widgets.key_line import KeyLine
from sdtui.ui.widgets.preview.picture import Picture
from sdtui.ui.widgets.progress import ProgressLine
from sdtui.ui.widgets.prompt import PromptBox
from sdtui.ui.widgets.step_log import StepLog
from sdtui.ui.widgets.tab_line import TabLine

PANES: Final = (("picture", "Picture"), ("steps", "Steps"), ("form", "Settings"))
_SAY_LINE_S: Final = 1.0
"""A rate that changes with every frame could not be read."""
_PROMPTS: Final = {"prompt": "What should be seen?", "negative_prompt": "What should not be seen?"}


class CreateScreen(FeedScreen):
    """Owns what is followed and hands it down; its widgets know nothing of each other."""

    CSS_PATH = "create.tcss"
    AUTO_FOCUS = "#prompt"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f5,ctrl+j", "generate", "Generate", id="create.generate", priority=True, tooltip="Make the picture"),
        Binding("ctrl+x", "cancel", "Cancel", id="create.cancel", priority=True, tooltip="Stop the job within the current step"),
        Binding("f5,ctrl+j", "save_edit", "Save change", id="create.save_edit", priority=True, tooltip="Change the queued job"),
        Binding(
            "escape", "leave_edit", "Leave it", id="create.leave_edit", priority=True, tooltip="Do not change the queued job"
        ),
        Binding(
            "f6", "pause_job", "Pause", id="create.pause", priority=True, tooltip="Take the job off the device, or let it go on"
        ),
        Binding("f9", "choose_stop", "Stop …", show=False, id="create.stop", tooltip="Stop now, after this picture or this step"),
        Binding("f2", "reset_field", "Reset field", show=False, id="create.reset", tooltip="Put the field back to its default"),
        Binding("f3", "randomise_seed", "Random seed", id="create.seed", tooltip="Draw a seed and keep it"),
        Binding("f4", "lock_seed", "Lock seed", id="create.lock", tooltip="Keep the last seed, or draw one for each job"),
        Binding(
            "f7", "choose_look", "Look", id="create.look", priority=True, tooltip="What to show of the networks while a job runs"
        ),
        Binding(
            "f12", "explain", "Explain", id="create.explain", priority=True, tooltip="Run the sampling function line by line"
        ),
        Binding(
            "ctrl+o",
            "choose_initial",
            "Initial image",
            show=False,
            id="create.choose_initial",
            priority=True,
            tooltip="Choose one of the finished pictures to begin with",
        ),
        Binding("f8", "retry", "Reconnect", show=False, id="create.retry", tooltip="Try to reach the server now"),
        Binding("alt+left", "turn_pane(-1)", show=False, id="create.pane_before", tooltip="Narrow terminals: the pane before"),
        Binding("alt+right", "turn_pane(1)", show=False, id="create.pane_after", tooltip="Narrow terminals: the pane after"),
    ]
    header = query_one("#header", HeaderLine)
    prompt = query_one("#prompt", PromptBox)
    negative = query_one("#negative-prompt", PromptBox)
    form = query_one("#form", Form)
    picture = query_one("#picture", Picture)
    steps = query_one("#steps", StepLog)
    progress = query_one("#progress", ProgressLine)
    help_line = query_one("#help", Static)

    class ExplainWanted(UiMessage):
        """The sampling function is to run line by line; whoever knows the screen shows it."""

        def __init__(self, params: GenerationParams) -> None:
            super().__init__()
            self.params = params

    def __init__(self, settings: Settings, feed: Feed) -> None:
        super().__init__(feed, classes=f"-tab-{PANES[0][0]}")
        self.settings = settings
        self.following = Following()
        self.running: str | None = None
        self.trouble = ""
        self.held = False
        self.edited: create_jobs.Edited | None = None
        self.own_jobs = OwnJobs()
        self.looked_for_own = False
        self.left_behind: set[str] = set()
        """Own jobs whose UI went before they ended, while it is not known what became of them."""
        self.missed: list[JobRow] = []
        self._began: dict[str, float] = {}
        self.model: ModelInfo | None = None
        self.estimate = Estimate(self, wanted=settings.inspect.estimate)
        self.initial = InitialImage(self)
        self.shown_params: GenerationParams | None = None
        """Of the followed job."""
        self._counter_folder: str | None = None

    def compose(self) -> ComposeResult:
        """The mock of the design, in the order of the tab key."""
        yield HeaderLine(SCREENS, "create", id="header")
        with Container(id="body"):
            with Vertical(id="left"):
                with Container(id="prompts"):
                    for name, placeholder in _PROMPTS.items():
                        history = PromptHistory(
                            history_path().with_name(f"{name}s.jsonl") if name != "prompt" else history_path()
                        )
                        yield PromptBox(BY_FIELD[name].spec.label, name, history, placeholder)
                yield TabLine(PANES, id="tabs")
                yield Form(self.settings.general.model, id="form")
            with Vertical(id="right"):  # what changes with each step lies together: the form need not be drawn again
                with Container(id="panes"):
                    yield Picture(id="picture")
                    yield StepLog(id="steps")
                yield ProgressLine(id="progress")
        yield Static(id="help", markup=False)
        yield KeyLine(id="keys")

    def on_mount(self) -> None:
        """Ask for events; the connection itself is made after the first frame."""
        self.feed.listen(self)
        self.feed.view(self.picture)
        self.app.call_after_refresh(self.set_timer, FIRST_KEYS_S, self.start)  # the app is refreshed last
        self.set_interval(_SAY_LINE_S, self._say_line)

    def on_screen_suspend(self) -> None:
        """Another screen, or a dialog over this one."""
        if self not in self.app.screen_stack:
            self.picture.put_away()

    def _say_line(self) -> None:
        figures = self.picture.line_figures()
        self.header.set_line(f"{format_bytes(figures[0])}/frame, {figures[1]:.0f} fps" if figures is not None else "")

    # --- what comes in ---------------------------------------------------------------------------------------------

    def on_feed_state(self, message: FeedState) -> None:
        """The connection changed."""
        show_state(self, message)
        self.refresh_bindings()

    def on_feed_event(self, message: FeedEvent) -> None:
        """The server told something."""
        self.estimate.take_event(message.event)
        self.initial.take_event(message.event)
        show_event(self, message.event, replayed=message.replayed)

    def note_time(self, event: Message) -> None:
        """Remember when a job of ours began: how long it took decides whether its end is announced."""
        if isinstance(event, JobStarted) and event.job in self.following.own:
            self._began.setdefault(event.job, time.monotonic())

    def seconds_since_start(self, job: str) -> float | None:
        """How long ago a job of ours began; None where that was not seen."""
        began = self._began.pop(job, None)
        return None if began is None else time.monotonic() - began

    def announce(self, text: str) -> None:
        """Say outside the window that something has ended, if the settings ask for it."""
        if isinstance(self.app, TerminalApp):
            self.app.announce(text, self.settings.terminal.notify)

    def take_model(self, info: ModelInfo) -> None:
        """A model is in memory."""
        self.model = info
        self.header.set_model(info)
        self.form.set_model(info)
        self.estimate.model_loaded()
        self.initial.form_changed(at_once=True)
        if info.tokenizer_dir:
            self._count_with(info.tokenizer_dir, info.max_tokens)

    def _count_with(self, folder: str, max_tokens: int | None = None) -> None:
        if folder != self._counter_folder:
            self._counter_folder = folder
            self.run_worker(self._load_counter(folder, max_tokens), group="counter", exclusive=True, exit_on_error=False)

    async def start(self) -> None:
        """The first frame is out: make the form, and count tokens already while the worker starts."""
        await self.form.mount_rows()
        self.estimate.show()
        await asyncio.to_thread(self.picture.prepare)
        folder = await asyncio.to_thread(_local_tokenizer, self.settings.general.model)
        if folder is not None and self.model is None:
            self._count_with(folder)

    async def _load_counter(self, folder: str, max_tokens: int | None) -> None:
        from sdtui.tokens import TokenCounter, TokenizerError

        try:
            counter: TokenCounter | None = await asyncio.to_thread(TokenCounter.load, Path(folder), max_tokens)
        except TokenizerError as error:
            self.notify(str(error), title="Token counter", severity="warning", markup=False)
            counter = None
        self.prompt.set_counter(counter)
        self.negative.set_counter(counter)

    # --- what the user does ----------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Cancel while there is something to cancel; while not, ctrl+x cuts text as usual."""
        if action in ("save_edit", "leave_edit"):
            return self.edited is not None
        if action == "generate":
            return self.edited is None
        if action == "cancel" and self.initial.is_taking:
            return True
        if action in ("cancel", "pause_job", "choose_stop"):
            return self.following.can_cancel or None  # None: shown, but dim
        return super().check_action(action, parameters)

    def action_generate(self) -> None:
        """Generate, once the focused widget has taken every key that was typed before this one."""
        (self.focused or self).call_later(self.generate)

    def generate(self) -> None:
        """Check everything, then queue the job; with a problem, go to the field and say what is wrong."""
        params, problems = self.read_params()
        if problems:
            self.show_problem(problems[0].field, problems[0].message)
            return
        self.initial.take_in(params, self._queue)

    def _queue(self, params: GenerationParams) -> None:
        # Beside the screen's own messages: the server may still be starting, and the screen shows it.
        self.run_worker(self._submit(params), group="submit", exit_on_error=False)

    def action_explain(self) -> None:
        """Explain what would be generated, once the focused widget has taken every key that was typed before this one."""
        (self.focused or self).call_later(self.explain)

    def explain(self) -> None:
        """Check everything, then have it explained; with a problem, go to the field and say what is wrong."""
        params, problems = self.read_params()
        if problems:
            self.show_problem(problems[0].field, problems[0].message)
        else:
            self.initial.take_in(params, lambda taken: self.post_message(self.ExplainWanted(taken)))

    async def _submit(self, params: GenerationParams) -> None:
        preview = self.settings.preview
        command = Submit(
            job=new_job_id(),
            params=params,
            output_dir=str(output_dir(self.settings)),
            name_pattern=self.settings.general.name_pattern,
            inspect=self.settings.inspect.look,
            words=self.settings.inspect.words,
            preview=PreviewOptions(
                method=preview.method,
                max_per_s=preview.max_per_s,
                max_px=self.picture.wanted_px(),
                budget=preview.budget,
            ),
        )
        self.own_jobs.add(command.job)  # before it is sent: this window may be gone before the server answers
        try:
            await self.feed.send(command)
        except NotConnected as error:
            self.own_jobs.ended(command.job)
            self.notify(f"{error} F8 tries again.", title="Not started", severity="error", markup=False)
            return
        self._remember(params)
        if self.estimate.shortage:
            self.notify(self.estimate.shortage, title="It may not fit", severity="warning", timeout=10, markup=False)
        self.call_later(self._follow_own, command.job)  # behind the news of a connection that was just made

    def _follow_own(self, job: str) -> None:
        if self.following.submit(job):
            self.begin_following(job)
        else:
            self.notify("Queued behind the job at work.", markup=False)

    def take_as_own(self, job: str) -> None:
        """A job that was queued elsewhere in this UI is the user's own too."""
        self.following.own.add(job)
        self.own_jobs.add(job)

    def open_job(self, row: JobRow) -> None:
        """Show a job of the queue."""
        create_jobs.open_job(self, row)

    def begin_edit(self, row: JobRow) -> None:
        """Edit a job of the queue."""
        create_jobs.begin_edit(self, row)

    async def on_unmount(self) -> None:
        """The next UI finds what has not ended."""
        self.initial.stop()
        self.own_jobs.close()
        await self.estimate.close()

    def show_log(self, target: Target) -> bool:
        """Go to the log's last row about a module; says whether there is one."""
        if not self.steps.go_to(target):
            return False
        self.query_one(TabLine).active = "steps"
        self._activate_pane("steps")
        self.steps.focus()
        return True

    def read_params(self) -> tuple[GenerationParams, list[Problem]]:
        """What is to be generated, and everything that is wrong with it."""
        values, problems = self.form.values()
        for box in (self.negative, self.prompt):
            message = check_value(box.field, box.text)
            box.show_error(message or "")
            if message:
                problems.insert(0, Problem(box.field, message))
            values[box.field] = box.text
        return GenerationParams(**values), problems

    def _remember(self, params: GenerationParams) -> None:
        try:
            self.prompt.past.add(params.prompt)
            self.negative.past.add(params.negative_prompt)
        except OSError as error:
            self.notify(f"The prompt history could not be written: {error.strerror}", severity="warning", markup=False)

    def begin_following(self, job: str) -> None:
        """Show this job from now on."""
        self.picture.job = job
        self.picture.await_frame()
        self.steps.clear()
        if not self.progress.waiting:  # while the worker starts, what it loads says more
            self.progress.wait_for("queued")
        self.refresh_bindings()

    def show_field(self, name: str) -> None:
        """Go to a field of the form."""
        self.query_one(TabLine).active = "form"
        self._activate_pane("form")
        self.form.go_to(name)

    def show_problem(self, name: str, message: str) -> None:
        """Go to a field and say what is wrong with it."""
        if name in _PROMPTS:
            box = self.prompt if name == "prompt" else self.negative
            box.show_error(message)
            box.focus()
        else:
            self.show_field(name)
            self.form.show_problem(name, message)
        self.say_help(message, wrong=True)
        if not self.help_line.display:
            self.notify(message, severity="error", markup=False)

    def action_cancel(self) -> None:
        """Stop the initial image that is on its way, else the followed job."""
        if self.initial.is_taking:
            self.initial.stop()
        else:
            create_jobs.cancel(self, "now")

    def action_choose_stop(self) -> None:
        """Choose when to stop the followed job."""
        from sdtui.ui.screens.chooser import Chooser

        def take(when: str | None) -> None:
            if when is not None:
                create_jobs.cancel(self, create_jobs.cancel_way(when))

        self.app.push_screen(Chooser("Stop", create_jobs.CANCEL_WAYS, "after_image"), take)

    def action_pause_job(self) -> None:
        """Take the followed job off the device, or put it back."""
        create_jobs.pause_or_resume(self)

    def action_choose_look(self) -> None:
        """Choose what the next jobs show of their networks."""
        create_look.choose(self)

    def look_words(self) -> str:
        """What that is, in a few words; empty where it is nothing."""
        return create_look.words_of(self)

    def action_choose_initial(self) -> None:
        """Choose one of the finished pictures to begin with."""
        self.initial.choose()

    def action_use_picture(self) -> None:
        """Begin with the finished picture that is shown."""
        if self.picture.saved is not None:
            self.initial.use(str(self.picture.saved))

    def action_take_settings(self) -> None:
        """Write what the followed job was made with into the form."""
        if self.shown_params is not None:
            create_jobs.fill_from(self, self.shown_params)

    def action_save_edit(self) -> None:
        """Change the job, once the focused widget has taken every key that was typed before this one."""
        (self.focused or self).call_later(create_jobs.save_edit, self)

    def action_leave_edit(self) -> None:
        """Leave the queued job as it is."""
        create_jobs.end_edit(self)

    def action_reset_field(self) -> None:
        """Put the focused field back to its default."""
        row = self.form.focused_row
        if row is not None:
            self.form.reset_field(row.field.name)
        elif isinstance(self.focused, PromptBox):
            self.focused.load_text("")

    def action_reset_form(self) -> None:
        """Put every field back to its default; the prompts stay."""
        self.form.reset()

    def action_randomise_seed(self) -> None:
        """Draw a seed and keep it."""
        self.form.randomise_seed()

    def action_lock_seed(self) -> None:
        """Keep the last seed, or draw one for each job."""
        self.notify("The seed is kept." if self.form.toggle_seed_lock() else "Each job draws its own seed.", markup=False)

    def action_retry(self) -> None:
        """Try to reach the server now."""
        self.feed.retry()

    def action_load_model(self) -> None:
        """Load the model that the form names, before it is needed."""
        values, problems = self.form.values()
        wrong = [problem for problem in problems if BY_FIELD[problem.field].spec.group == "model"]
        if wrong:
            self.show_problem(wrong[0].field, wrong[0].message)
            return
        self.send(LoadModel(**{name: values[name] for name in ("model", "revision", "variant", "dtype", "device")}))

    def action_turn_pane(self, by: int) -> None:
        """The pane before or after, in narrow terminals."""
        self.query_one(TabLine).action_turn(by)

    # --- small things ----------------------------------------------------------------------------------------------

    @on(TabLine.Chosen)
    def _show_pane(self, event: TabLine.Chosen) -> None:
        self._activate_pane(event.pane)

    def _activate_pane(self, active: str) -> None:
        self.update_classes({f"-tab-{pane}": pane == active for pane, _ in PANES})

    @on(Form.Changed)
    def _field_changed(self, event: Form.Changed) -> None:
        if event.name in FIELDS:
            self.estimate.form_changed()
        if event.name in INITIAL_FIELDS:
            self.initial.form_changed()
        row = self.form.focused_row
        if row is not None and row.field.name == event.name:
            self.say_help(event.problem or row.help, wrong=bool(event.problem))

    @on(PromptBox.Changed)
    def _prompt_changed(self, event: PromptBox.Changed) -> None:
        box = event.text_area
        if isinstance(box, PromptBox) and box.error:
            message = check_value(box.field, box.text) or ""
            box.show_error(message)
            self.say_help(message or BY_FIELD[box.field].spec.help, wrong=bool(message))

    @on(PromptBox.Refused)
    def _paste_refused(self, event: PromptBox.Refused) -> None:
        self.notify(event.reason, title="Not pasted", severity="error", markup=False)

    @on(StepLog.Copied)
    def _copied(self, event: StepLog.Copied) -> None:
        lines = event.text.count("\n") + 1
        self.notify(f"{count_noun(lines, 'row')} copied.", markup=False)

    @on(DescendantFocus)
    def _focus_moved(self) -> None:
        row = self.form.focused_row
        if row is not None:
            self.say_help(row.error or row.help, wrong=bool(row.error))
        elif isinstance(self.focused, PromptBox):
            box = self.focused
            self.say_help(box.error or BY_FIELD[box.field].spec.help, wrong=bool(box.error))
        elif isinstance(self.focused, StepLog):
            self.say_help("↑ ↓ select a row, y copies it, Y copies all, end follows; i shows its module, m what each gave.")
        else:
            self.say_help("")

    def say_help(self, text: str, *, wrong: bool = False) -> None:
        """A sentence in the help line."""
        self.help_line.set_class(wrong, "-wrong")
        self.help_line.update(Content(text))


def _local_tokenizer(model: str) -> str | None:
    """The tokenizer's folder of a model that lies on this machine, None for others and for what is no model."""
    from sdtui.checkpoint import CheckpointError, resolve_model

    try:
        path = resolve_model(model)
    except CheckpointError:
        return None
    return str(path / "tokenizer") if isinstance(path, Path) and (path / "tokenizer").is_dir() else None
