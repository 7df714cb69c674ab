"""The app: composes, registers, starts and stops. What happens on a screen is the screen's."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path, PurePath
from typing import Any, ClassVar, Final

from textual.app import SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen

from sdtui.params import GenerationParams, Problem
from sdtui.settings import Settings, SettingsError, nearest, save_setting
from sdtui.terminal.probe import Probe
from sdtui.ui.bindings import key_text, unknown_ids
from sdtui.ui.feed import Connect, Feed
from sdtui.ui.private import is_styled_when_mounted
from sdtui.ui.screens import FIRST_KEYS_S, SCREENS
from sdtui.ui.terminal_app import TerminalApp
from sdtui.ui.themes import DEFAULT_THEME, VARIABLE_DEFAULTS, load_theme, theme_files

_HERE: Final = Path(__file__).parent
_GC_THRESHOLDS: Final = (20_000, 10, 20)
"""Each frame makes thousands of short-lived strips; Python's 700 would collect several times a frame."""


class SdtuiApp(TerminalApp[None]):
    """Stable Diffusion in the terminal."""

    TITLE = "sdtui"
    ENABLE_COMMAND_PALETTE = True
    COMMAND_PALETTE_BINDING = "ctrl+p"
    DEFAULT_MODE = SCREENS[0].name
    CSS_PATH: ClassVar[list[str | PurePath]] = [
        _HERE / "app.tcss",
        *(_HERE / "screens" / f"{entry.name}.tcss" for entry in SCREENS),
    ]
    """With the screens', so that all is parsed at once: a screen that brings its own has all rules parsed again and every
    widget styled anew. Absolute, as Textual looks beside a subclass's file.
    """
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-normal"), (190, "-wide")]  # noqa: RUF012 - Textual reads it as an instance variable
    VERTICAL_BREAKPOINTS = [(0, "-short"), (32, "-tall")]  # noqa: RUF012 - as above
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f1", "show_help", "Help", id="app.help", tooltip="Every key", priority=True),
        Binding("ctrl+p", "command_palette", "Commands", id="app.commands", tooltip="Find a command by its name", priority=True),
        Binding("ctrl+t", "choose_theme", "Theme", id="app.theme", tooltip="Choose the colours", priority=True),
        Binding("ctrl+q", "quit", "Quit", id="app.quit", tooltip="Leave; jobs go on", priority=True),
        *(
            Binding(
                f"alt+{entry.number}",
                f"show_screen('{entry.name}')",
                entry.label,
                show=False,
                id=f"app.{entry.name}",
                tooltip=entry.purpose,
                priority=True,
            )
            for entry in SCREENS
        ),
    ]

    def __init__(
        self,
        settings: Settings,
        *,
        connect: Connect | None = None,
        probe: Probe | None = None,
        opening: Callable[[SdtuiApp], Awaitable[None]] | None = None,
    ) -> None:
        """`probe`: what the terminal was asked; without one, pictures are drawn in half cells. `opening`: what to show first."""
        self._settings = settings
        self._opening = opening
        self._complaints: list[str] = []
        self._made: dict[str, Any] = {}
        super().__init__(probe=probe, image_protocol=settings.terminal.image_protocol)
        self._feed = Feed(connect or _connect_to_server)
        for entry in SCREENS:
            self.add_mode(entry.name, partial(self._make_screen, entry.name))
        self._use_first_theme()
        self.set_keymap(settings.keymap)

    def run(self, *args: Any, **kwargs: Any) -> None:
        """Run until the user leaves. Nothing made before the first frame is garbage, so collecting waits until then."""
        thresholds = gc.get_threshold()
        gc.disable()
        try:
            super().run(*args, **kwargs)
        finally:
            gc.unfreeze()
            gc.set_threshold(*thresholds)
            gc.enable()

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Our own variables, for themes that do not state them."""
        return VARIABLE_DEFAULTS

    def get_key_display(self, binding: Binding) -> str:
        """How a key is written."""
        return binding.key_display or key_text(binding.key)

    def get_default_screen(self) -> Screen[Any]:
        """The first screen."""
        return self._make_screen(SCREENS[0].name)

    def _make_screen(self, name: str) -> Screen[Any]:
        entry = next(entry for entry in SCREENS if entry.name == name)
        screen = self._made[name] = entry.make(self._settings, self._feed)
        if name != SCREENS[0].name:
            is_styled_when_mounted(screen, self)
        screen.add_class(*self._breakpoints_now())  # set later, each would style every widget again before the first frame
        return screen

    def _breakpoints_now(self) -> list[str]:
        columns, rows = shutil.get_terminal_size()
        pairs = ((columns, self.HORIZONTAL_BREAKPOINTS), (rows, self.VERTICAL_BREAKPOINTS))
        return [[name for least, name in breakpoints if size >= least][-1] for size, breakpoints in pairs if breakpoints]

    def on_mount(self) -> None:
        """The first frame comes first, then the first keys, then the connection."""
        self.call_after_refresh(self.set_timer, FIRST_KEYS_S, self._start)

    def _start(self) -> None:
        if not gc.isenabled():
            gc.freeze()  # the widgets stay: looking through them again and again would stop the loop for 70 ms each time
            gc.set_threshold(*_GC_THRESHOLDS)
            gc.enable()
        self._register_all_themes()
        for complaint in self._complaints:
            self.notify(complaint, title="Theme", severity="warning", timeout=15, markup=False)
        self._complaints.clear()
        for complaint in unknown_ids(self._settings.keymap):
            self.notify(complaint, title="Keymap", severity="warning", timeout=15, markup=False)
        self.run_worker(self._feed.run(), name="feed", exit_on_error=False)
        if self._opening is not None:
            self.call_later(self._opening, self)

    # --- themes ----------------------------------------------------------------------------------------------------

    def _use_first_theme(self) -> None:
        """Before the first frame only the chosen theme is read; it lies in a file of its name, as all of ours do."""
        chosen = self._settings.general.theme
        for path in theme_files():
            if path.stem == chosen:
                self._register_from(path)
        if chosen not in self.own_themes:
            self._register_all_themes()
        self._use_theme(chosen)

    def _use_theme(self, chosen: str) -> None:
        if chosen not in self.own_themes:
            self._complaints.append(f"Theme {chosen!r} is not known; {nearest(chosen, self.own_themes)}")
            chosen = DEFAULT_THEME
        if chosen in self.own_themes:
            self.theme = chosen

    def _register_all_themes(self) -> None:
        for path in theme_files():
            self._register_from(path)

    def _register_from(self, path: Path) -> None:
        try:
            self.register_theme(load_theme(path))
        except SettingsError as error:
            if str(error) not in self._complaints:
                self._complaints.append(str(error))

    @property
    def own_themes(self) -> list[str]:
        """The names of the themes from files; Textual's own do not know our variables."""
        return sorted(name for name, theme in self.available_themes.items() if "mat" in theme.variables)

    async def action_choose_theme(self) -> None:
        """Choose the colours, looking at each."""
        from sdtui.ui.screens.chooser import Chooser

        before = self.theme

        def take(name: str | None) -> None:
            self.theme = name or before
            if name is not None:
                self._save_theme(name)

        await self.push_screen(Chooser("Theme", [(name, name) for name in self.own_themes], before), take)

    def on_chooser_looked(self, message: Any) -> None:
        """Show the theme under the cursor; other lists have no theme names in them."""
        if message.chooser_title == "Theme" and message.value in self.own_themes:
            self.theme = message.value

    def _save_theme(self, name: str) -> None:
        try:
            save_setting("general", "theme", name)
        except SettingsError as error:
            self.notify(str(error), title="Theme", severity="error", markup=False)

    # --- screens and commands --------------------------------------------------------------------------------------

    async def action_show_screen(self, name: str) -> None:
        """Go to a screen by its name."""
        while len(self.screen_stack) > 1:
            await self.pop_screen()
        if name != self.current_mode:
            await self.switch_mode(name)

    async def on_queue_screen_opened(self, message: Any) -> None:
        """Show a job of the queue in Create, or edit it there."""
        await self.action_show_screen("create")
        create = self._made["create"]
        if message.edit:
            create.begin_edit(message.row)
        else:
            create.open_job(message.row)

    def on_queue_screen_queued(self, message: Any) -> None:
        """A job that was queued from the queue's screen is the user's own, as those of Create."""
        self._made["create"].take_as_own(message.job)

    def on_inspect_screen_shown(self, message: Any) -> None:
        """Inspect shows the model that the form names, and follows a forward at the form's size."""
        create = self._made["create"]
        message.screen.follow(create.form.text("model"), create.estimate.request())

    async def on_create_screen_explain_wanted(self, message: Any) -> None:
        """Explain what the form says."""
        await self.show_explain(message.params, from_form=True)

    async def show_explain(self, params: GenerationParams, *, from_form: bool = False) -> None:
        """Run the sampling function with these parameters line by line, over Create, which has them in its form afterwards."""
        from sdtui.ui.screens.create_jobs import fill_from
        from sdtui.ui.screens.explain import ExplainScreen

        await self.action_show_screen("create")
        create = self._made["create"]
        create.picture.put_away()

        def back(problem: Problem | None) -> None:
            if not from_form:
                fill_from(create, params)
            if problem is not None:
                create.show_problem(problem.field, problem.message)

        await self.push_screen(ExplainScreen(self._settings, params), back)

    async def on_inspect_screen_log_wanted(self, message: Any) -> None:
        """Show what the log says of a module."""
        if self._made["create"].show_log(message.key):
            await self.action_show_screen("create")
        else:
            message.screen.show_notice("The log of Create says nothing of it.")

    async def on_step_log_inspect_wanted(self, message: Any) -> None:
        """Show the module that a row of the log is about, in the model of the log's job."""
        from sdtui.ui.screens.inspect_live import jump

        await self.action_show_screen("inspect")
        create, inspect = self._made["create"], self._made["inspect"]
        inspect.follow(create.form.text("model"), create.estimate.request())
        jump(inspect, message.target, self._feed.runs.model_of(create.following.job))

    def on_timeline_screen_shown(self, message: Any) -> None:
        """Timeline shows the job that Create follows."""
        following = self._made["create"].following
        message.screen.follow(following.job, at_work=following.can_cancel)

    def on_timeline_screen_branched(self, message: Any) -> None:
        """A branch is the user's own job, as those of Create."""
        self._made["create"].take_as_own(message.job)

    async def on_queue_screen_timeline_wanted(self, message: Any) -> None:
        """Show the steps of a job of the queue."""
        await self.show_timeline(message.job)

    async def show_timeline(self, job: str, step: int | None = None) -> None:
        """Show the steps of a job, at one counted from 0."""
        await self.action_show_screen("timeline")
        self._made["timeline"].show_job(job, step, followed=self._made["create"].following.job)

    async def action_show_help(self) -> None:
        """Every key."""
        from sdtui.ui.screens.help import HelpScreen

        if not isinstance(self.screen, HelpScreen):
            await self.push_screen(HelpScreen(self.screen, self._settings.keymap))

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """What the command palette offers."""
        from sdtui.ui.commands import commands

        yield from commands(self, screen, self._settings)


async def _connect_to_server(*, name: str, subscribe: bool = True, previews: bool = False) -> Any:
    from sdtui.server.client import Client

    return await Client.connect(name=name, subscribe=subscribe, previews=previews)
