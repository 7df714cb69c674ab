"""The Timeline screen: every step of a job, one after the other, in every way there is to look at it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal, Vertical
from textual.content import Content
from textual.getters import query_one
from textual.message import Message as UiMessage
from textual.timer import Timer
from textual.widgets import Static
from textual.worker import Worker, WorkerState

from sdtui.protocol import JobRow, ModelInfo
from sdtui.settings import Settings
from sdtui.text import safe_text
from sdtui.ui.feed import Feed, FeedEvent, FeedState
from sdtui.ui.screens import SCREENS, timeline_decode, timeline_events, timeline_jobs, timeline_open
from sdtui.ui.screens.base import FeedScreen
from sdtui.ui.screens.create_jobs import short_name
from sdtui.ui.timeline_record import Opened, Record, Wish, recorded_words, same_place
from sdtui.ui.timeline_rows import TABS, Side, charts, compared_words, fact_rows, side_title
from sdtui.ui.widgets.curves import Curves
from sdtui.ui.widgets.header import HeaderLine
from sdtui.ui.widgets.key_line import KeyLine
from sdtui.ui.widgets.pages.beside import run_beside
from sdtui.ui.widgets.scrubber import Scrubber, Track
from sdtui.ui.widgets.step_facts import StepFacts
from sdtui.ui.widgets.step_picture import StepPicture
from sdtui.ui.widgets.tab_line import TabLine

if TYPE_CHECKING:
    from sdtui.timeline.views import Figures, View
    from sdtui.ui.screens.timeline_branch import BranchDialog

PLAY_S: Final = 1 / 8
"""Eight steps a second, as an export has them."""
FAR: Final = 5
"""Steps of a page key."""
_ZOOMS: Final = ("", "-curves", "-picture")
NO_JOB: Final = "No steps are recorded yet. F5 in Create makes a picture, and its steps appear here."


class ViewTabs(TabLine, can_focus=False):
    """The views. Clicks choose one; the arrow keys belong to the steps."""

    BINDINGS: ClassVar[list[BindingType]] = []


class TimelineScreen(FeedScreen):
    """Owns which job, step and view are shown; the widgets show what they are given."""

    CSS_PATH = "timeline.tcss"
    AUTO_FOCUS = None
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "play", "Play", id="timeline.play", tooltip="Play the steps, or stop"),
        Binding("v", "turn_view(1)", "View", id="timeline.view", tooltip="The next way to look at the step"),
        Binding("d", "decode", "Decode", id="timeline.decode", tooltip="Decode the step with the full VAE, and show it"),
        Binding("b", "branch", "Branch", id="timeline.branch", tooltip="Go on from this step with another prompt or settings"),
        Binding("D", "compare", "Compare", id="timeline.compare", tooltip="Show another job beside it, or leave that"),
        Binding("o", "choose_job", "Jobs", id="timeline.jobs", tooltip="Choose a job; branches stand below their parents"),
        Binding("e", "export", "Export", id="timeline.export", tooltip="Save the steps as a clip, as pictures or as latents"),
        Binding("p", "turn_curves(1)", "Curves", id="timeline.curves", tooltip="The next curve"),
        Binding("z", "zoom", "Zoom", id="timeline.zoom", tooltip="The curves alone, the picture alone, or both"),
        Binding("w", "turn_picture(1)", "Picture", id="timeline.picture", tooltip="The next picture of the batch, then batch"),
        Binding("u", "go_to_parent", "Parent", id="timeline.parent", tooltip="The job that this one branched from"),
        Binding("left,h", "move(-1)", "Back", show=False, id="timeline.back", tooltip="The step before"),
        Binding("right,l", "move(1)", "On", show=False, id="timeline.on", tooltip="The next step"),
        Binding("pageup", f"move(-{FAR})", show=False, id="timeline.far_back", tooltip="Five steps back"),
        Binding("pagedown", f"move({FAR})", show=False, id="timeline.far_on", tooltip="Five steps on"),
        Binding("home,g", "go_to_end(False)", show=False, id="timeline.first", tooltip="Before the first step"),
        Binding("end,G", "go_to_end(True)", show=False, id="timeline.last", tooltip="The last step; a running job is followed"),
        Binding("V", "turn_view(-1)", show=False, id="timeline.view_before", tooltip="The view before"),
        Binding("down,j", "turn_channel(1)", show=False, id="timeline.channel", tooltip="The next channel of the latents"),
        Binding("up,k", "turn_channel(-1)", show=False, id="timeline.channel_before", tooltip="The channel before"),
        Binding("P", "turn_curves(-1)", show=False, id="timeline.curves_before", tooltip="The curve before"),
        Binding("W", "turn_picture(-1)", show=False, id="timeline.picture_before", tooltip="The picture before"),
        Binding("comma", "turn_job(1)", show=False, key_display=",", id="timeline.older", tooltip="The recorded job before"),
        Binding("full_stop", "turn_job(-1)", show=False, key_display=".", id="timeline.newer", tooltip="The next recorded job"),
        Binding("escape", "leave", "Leave", show=False, id="timeline.leave", tooltip="Stop playing, leave comparing, unzoom"),
        Binding("f8", "reconnect", show=False, id="timeline.reconnect", tooltip="Try to reach the server now"),
    ]
    header = query_one("#header", HeaderLine)
    pictures = query_one("#pictures", Horizontal)
    one = query_one("#one", StepPicture)
    two = query_one("#two", StepPicture)
    facts = query_one("#facts", StepFacts)
    curves = query_one("#curves", Curves)
    views = query_one("#views", ViewTabs)
    scrubber = query_one("#scrubber", Scrubber)
    say = query_one("#say", Static)

    class Shown(UiMessage):
        """The screen is in view: whoever knows what Create follows says so."""

        def __init__(self, screen: TimelineScreen) -> None:
            super().__init__()
            self.screen = screen

    class Branched(UiMessage):
        """A branch was queued from here: it is the user's own."""

        def __init__(self, job: str) -> None:
            super().__init__()
            self.job = job

    def __init__(self, settings: Settings, feed: Feed) -> None:
        super().__init__(feed)
        self.settings = settings
        self.job: str | None = None
        """Whose steps are shown, or awaited."""
        self.opened: Opened | None = None
        self.other: Record | None = None
        """The job beside it."""
        self.step = 0
        self.view: View = TABS[0][0]
        self.channel = 0
        self.running: str | None = None
        """The job at work."""
        self.lost = ""
        self.model: ModelInfo | None = None
        """The one in memory."""
        self.dialog: BranchDialog | None = None
        """Waits for the server's answer."""
        self.jobs = timeline_jobs.Known()
        self.decoding = timeline_decode.Decoding()
        self.growth = timeline_open.Growth()
        self._figures: dict[Record, Figures] = {}
        self._is_measuring = False
        self._was_away = True
        self._said = self._shown_words = ("", "muted")
        self._playing: Timer | None = None
        self._zoom = 0

    def compose(self) -> ComposeResult:
        """The pictures, and beside them the step's facts and the curves; below, the views and the steps."""
        yield HeaderLine(SCREENS, "timeline", id="header")
        with Container(id="timeline-body"):
            with Horizontal(id="pictures"):
                yield StepPicture(id="one")
                yield StepPicture(id="two")
            with Vertical(id="figures"):
                yield StepFacts(id="facts")
                yield Curves(id="curves")
        yield ViewTabs(TABS, id="views")
        yield Scrubber(id="scrubber")
        yield Static(id="say", markup=False)
        yield KeyLine(id="keys")

    def on_mount(self) -> None:
        """Nothing is shown until it is known what."""
        self.curves.border_title = "Curves"
        self.feed.listen(self)
        self.show_nothing(NO_JOB)

    def on_screen_resume(self) -> None:
        """Create may follow another job by now, if another screen was shown meanwhile and no dialog."""
        if self._was_away:
            self._was_away = False
            self.post_message(self.Shown(self))
        timeline_open.resumed(self)

    def on_screen_suspend(self) -> None:
        """Another screen, or a dialog over this one."""
        self.stop_playing()
        if self not in self.app.screen_stack:
            self._was_away = True
            self.one.put_away()
            self.two.put_away()

    def on_feed_state(self, message: FeedState) -> None:
        """The connection changed."""
        timeline_events.show_state(self, message)

    def on_feed_event(self, message: FeedEvent) -> None:
        """The server told something."""
        timeline_events.show_event(self, message.event, replayed=message.replayed)

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """Something failed in a way that nobody foresaw; that is said, and what was shown stays."""
        if event.state is WorkerState.ERROR and event.worker.error is not None:
            error = event.worker.error
            self.show_notice(f"{type(error).__name__}: {safe_text(str(error), limit=200)}", "error")

    # --- which job --------------------------------------------------------------------------------------------------

    def follow(self, job: str | None, *, at_work: bool) -> None:
        """Create follows this job: it is shown where it is another than the last time; see `timeline_open`."""
        timeline_open.follow(self, job, at_work=at_work)

    def show_job(self, job: str, step: int | None = None, *, followed: str | None = None) -> None:
        """Show a job at a step, counted from 0; without one at its last. `followed`: what Create follows, unasked."""
        self.growth.followed = followed or self.growth.followed
        timeline_open.open_job(self, job, step=step)

    def take(self, opened: Opened, step: int | None) -> None:
        """Show what was opened."""
        if self.opened is None or opened.record.job != self.opened.record.job:
            self.stop_playing()
            self.leave_comparing()
        record = opened.record
        self.job, self.opened = record.job, opened
        self.step = record.clamp(record.last if step is None else step)
        self.growth.follow, self.growth.shown = self.step == record.last, timeline_open.shown_of(record)
        self.channel = min(self.channel, record.channels - 1)
        self.decoding.look_again(self)
        self.show_step()
        self.measure()
        self.refresh_bindings()

    def show_nothing(self, sentence: str) -> None:
        """There is nothing to see, and why; the sentence is safe."""
        self.stop_playing()
        self.leave_comparing()
        self.opened = None
        self.one.title(short_name(self.job) if self.job is not None else "Timeline")
        self.one.explain(sentence)
        self.scrubber.show(None)
        self.facts.border_title = "Step"
        self.facts.show()
        self.curves.show(())
        self.show_notice()
        self.refresh_bindings()

    @property
    def record(self) -> Record | None:
        """The file whose steps are shown."""
        return self.opened.record if self.opened is not None else None

    @property
    def row(self) -> JobRow | None:
        """What the server last said of the job."""
        return self.jobs.rows.get(self.job) if self.job is not None else None

    @property
    def runs(self) -> bool:
        """Whether the job is at work."""
        return self.job is not None and self.job == self.running

    # --- what is shown ----------------------------------------------------------------------------------------------

    def sides(self) -> list[Side]:
        """What is in view: one job, or two that are compared."""
        record = self.record
        if record is None:
            return []
        found = [Side(record, self.step, self._figures.get(record))]
        if self.other is not None:
            step = same_place(record, self.step, self.other)
            found.append(Side(self.other, step, self._figures.get(self.other)))
        return found

    def show_step(self) -> None:
        """Everything follows the cursor: the words at once, the pictures as soon as they are read."""
        record, sides = self.record, self.sides()
        if record is None:
            return
        if record.is_empty:
            self.one.explain("Waiting for the first step.")
        for picture, side in zip((self.one, self.two), sides, strict=False):
            picture.title(side_title(side, sides))
            if not side.record.is_empty:
                picture.show(Wish(side.record, side.step, self.view, min(self.channel, side.record.channels - 1)))
            picture.tell(self.decoding.doing(side) if self.view == "vae" else "")
        self.facts.border_title = "Steps" if self.other is not None else f"Step {self.step + 1} / {record.total}"
        self.facts.show(*(fact_rows(side) for side in sides))
        self.curves.point(tuple(side.step for side in sides))
        self.scrubber.show(
            Track(self.step, record.first, record.count, record.total, self.runs, self._playing is not None, self.decoding.steps)
        )
        self._show_words()

    def measure(self) -> None:
        """Have the curves drawn with what is recorded by now."""
        if not self._is_measuring and self.sides():
            self._is_measuring = True
            run_beside(self, self._measure, "measure")

    async def _measure(self) -> None:
        """Measure until the figures are those of all that is recorded."""
        try:
            await timeline_open.measure(self, self._figures)
        finally:
            self._is_measuring = False

    def show_figures(self) -> None:
        """There are figures of more steps."""
        sides = self.sides()
        self.curves.show(charts(sides))
        self.facts.show(*(fact_rows(side) for side in sides))

    def show_notice(self, words: str = "", tone: str = "muted") -> None:
        """The line below; `words` are safe, and stay until the next step is gone to."""
        self._said = (words, tone)
        self._show_words()

    def _show_words(self) -> None:
        words, tone = self._said
        if not words and self.lost:
            words, tone = self.lost, "error"
        if not words and self.record is not None:
            words = recorded_words(self.record, runs=self.runs)
        if (words, tone) != self._shown_words:  # each update lays the screen out
            self._shown_words = (words, tone)
            self.say.set_class(tone in ("error", "warning"), "-fault")
            self.say.update(Content.styled(words, f"${tone}"))

    @on(StepPicture.Gone)
    def _gone(self, message: StepPicture.Gone) -> None:
        message.stop()
        timeline_open.look_again(self)

    # --- the steps --------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """What is impossible now is shown, but dim."""
        record = self.record
        possible = {
            "turn_picture": self.opened is not None and (self.opened.files > 1 or len(self.opened.record.facts.seeds) > 1),
            "go_to_parent": self.row is not None and self.row.branch is not None,
        }
        of_a_job = ("play", "decode", "branch", "compare", "export", "turn_curves")
        if action in possible or action in of_a_job:
            return possible.get(action, record is not None and not record.is_empty) or None
        return super().check_action(action, parameters)

    def go_to(self, step: int) -> None:
        """Show another step; beyond the ends is the end."""
        record = self.record
        if record is not None:
            self.step = record.clamp(step)
            self.growth.follow = self.step == record.last
            self._said = ("", "muted")
            self.show_step()

    @on(Scrubber.Moved)
    def _scrubbed(self, message: Scrubber.Moved) -> None:
        message.stop()
        self.stop_playing()
        self.go_to(message.step)

    def action_move(self, by: int) -> None:
        """So many steps on, or back."""
        self.stop_playing()
        self.go_to(self.step + by)

    def action_go_to_end(self, last: bool) -> None:
        """The last step, or what was before the first."""
        self.stop_playing()
        if self.record is not None:
            self.go_to(self.record.last if last else self.record.first)

    def action_play(self) -> None:
        """Play from here, from the beginning where this is the end, or stop."""
        record = self.record
        if self._playing is not None or record is None:
            self.stop_playing()
            return
        if self.step >= record.last:
            self.go_to(record.first)
        self._playing = self.set_interval(PLAY_S, self._play_on)
        self.show_step()

    def _play_on(self) -> None:
        record = self.record
        if record is not None and self.step < record.last:
            self.go_to(self.step + 1)
        if record is None or self.step >= record.last:
            self.stop_playing()

    def stop_playing(self) -> None:
        """Stay where it is."""
        if self._playing is not None:
            self._playing.stop()
            self._playing = None
            self.show_step()

    # --- the views --------------------------------------------------------------------------------------------------

    @on(TabLine.Chosen)
    def _chosen(self, message: TabLine.Chosen) -> None:
        message.stop()
        self.view = next(view for view, _ in TABS if view == message.pane)
        self.show_step()

    def action_turn_view(self, by: int) -> None:
        """The next view, or the one before."""
        self.views.action_turn(by)

    def action_turn_channel(self, by: int) -> None:
        """Another channel of the latents, in the view of one channel."""
        if self.record is not None and self.record.channels > 0:
            if self.view == "channel":
                self.channel = (self.channel + by) % self.record.channels
            self.views.active = "channel"
            self.show_step()

    def action_turn_curves(self, by: int) -> None:
        """Begin with another curve."""
        self.curves.turn(by)

    def action_zoom(self) -> None:
        """The curves alone, the picture alone, or both."""
        self.show_zoom((self._zoom + 1) % len(_ZOOMS))

    def show_zoom(self, zoom: int) -> None:
        """One of the ways to share the room."""
        self._zoom = zoom
        self.update_classes({name: at == zoom for at, name in enumerate(_ZOOMS) if name})

    def action_decode(self) -> None:
        """Show the step as the full VAE decodes it."""
        self.views.active = "vae"
        self.decoding.ask(self)

    # --- other jobs -------------------------------------------------------------------------------------------------

    def action_turn_picture(self, by: int) -> None:
        """Another picture of the batch; behind the last one, the next batch."""
        timeline_open.turn_picture(self, by)

    def action_turn_job(self, by: int) -> None:
        """The recorded job before this one, or the next."""
        timeline_open.turn_job(self, by)

    def action_choose_job(self) -> None:
        """Choose among the jobs with recorded steps."""
        timeline_jobs.choose(self, "Show the steps of", self.show_job)

    def action_go_to_parent(self) -> None:
        """The job that this one branched from, at the step where it did."""
        if self.row is not None and self.row.branch is not None:
            self.show_job(self.row.branch.job, self.row.branch.step - 1)

    def action_compare(self) -> None:
        """Choose a job to show beside this one, or leave that."""
        if self.other is not None:
            self.leave_comparing()
        elif self.record is not None:
            timeline_jobs.choose(self, "Compare with", lambda job: timeline_open.compare(self, job), but=self.job)

    def take_other(self, other: Record | None) -> None:
        """Show this one beside, or none."""
        if other is not self.other:
            self.other = other
            self.set_class(other is not None, "-comparing")
            self.show_step()
            self.show_figures()
            self.measure()
            self.show_notice(compared_words(self.sides()) if other is not None else "")

    def leave_comparing(self) -> None:
        """Show the one job alone."""
        self.take_other(None)

    def action_branch(self) -> None:
        """Go on from this step with something changed."""
        from sdtui.ui.screens import timeline_branch

        timeline_branch.open_dialog(self)

    def action_export(self) -> None:
        """Save what is seen of every step."""
        from sdtui.ui.screens import timeline_export

        timeline_export.open_dialog(self)

    def action_leave(self) -> None:
        """Leave what was begun last."""
        if self._playing is not None:
            self.stop_playing()
        elif self.other is not None:
            self.leave_comparing()
        else:
            self.show_zoom(0)

    def action_reconnect(self) -> None:
        """Try to reach the server now."""
        self.feed.retry()
