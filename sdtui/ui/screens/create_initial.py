"""The initial image of the Create screen: looked at while the form is filled in, taken into the store before a job is sent.

Disk, network and decoding are in threads; one looks at a time, and one takes in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

import msgspec
from textual.timer import Timer

from sdtui.params import GenerationParams
from sdtui.protocol import DownloadProgress, Jobs, ListJobs, Message
from sdtui.text import safe_text
from sdtui.ui.initial import TITLE, Found, Look, Taking, find, taken_in
from sdtui.ui.job_pages import PAGE

if TYPE_CHECKING:
    from sdtui.initial_image import Resize, TakenIn
    from sdtui.ui.screens.create import CreateScreen
    from sdtui.ui.screens.picture_chooser import PictureChooser

FIELDS: Final = frozenset({"init_image", "width", "height", "resize", "model"})
"""What changes the picture that a job begins with."""
TYPING_S: Final = 0.4
"""Who types a path does not want to read at every letter that there is no such file."""
_TELL_S: Final = 0.25
_OUTDATED: Final = Look("", 0, 0, "fit", 0)
_READY: Final = "Ready."
_WAITING: Final = "taking in the initial image"
_STILL_TAKING: Final = "The initial image is still on its way; Cancel (^X) stops that."


class InitialImage:
    """Knows what the field names, shows it, and takes it in."""

    def __init__(self, screen: CreateScreen) -> None:
        self._screen = screen
        self._timer: Timer | None = None
        self._looked: Look | None = None
        """What was looked at last; `_OUTDATED` where that is not so any more."""
        self._is_looking = False
        self._taking: Taking | None = None
        self._chooser: PictureChooser | None = None
        self._fetched: tuple[str, TakenIn] | None = None
        """The last address, and what came from it: the field's preview, and another job, need not fetch it again."""

    # --- looking ----------------------------------------------------------------------------------------------------

    def form_changed(self, *, at_once: bool = False) -> None:
        """Something that matters for it was typed or chosen: look once the form stands still."""
        if self._timer is not None:
            self._timer.stop()
        self._timer = self._screen.set_timer(0.01 if at_once else TYPING_S, self._look)

    def _look(self) -> None:
        if not (self._is_looking or self.is_known):
            self._screen.run_worker(self._look_on(), group="initial", exit_on_error=False)

    @property
    def is_known(self) -> bool:
        """Whether what the form says now was looked at."""
        return self._wanted() == self._looked

    async def _look_on(self) -> None:
        """Until what the form says now was looked at."""
        self._is_looking = True
        try:
            while (look := self._wanted()) != self._looked:
                taken = self._fetched[1] if look is not None and self._fetched and self._fetched[0] == look.text else None
                found = Found() if look is None else await asyncio.to_thread(find, look, taken)
                self._looked = look
                if look == self._wanted():
                    self._show(found)
        finally:
            self._is_looking = False

    def _wanted(self) -> Look | None:
        """The form's initial image at the form's size; None where there is none."""
        form, info = self._screen.form, self._screen.model
        values, _ = form.values()
        text = values.get("init_image")
        if text is None:  # also where the form says itself what is wrong with it
            return None
        here = info if info is not None and info.model == form.text("model").strip() else None
        width = values.get("width") or (here.default_width_px if here else 0)
        height = values.get("height") or (here.default_height_px if here else 0)
        resize = cast("Resize", values.get("resize", "fit"))
        return Look(text, width, height, resize, here.size_multiple_px if here else 8)

    def _show(self, found: Found) -> None:
        screen = self._screen
        screen.form.set_initial(found.note, found.error, found.size)
        row = screen.form.focused_row
        if row is not None and row.field.name == "init_image":
            screen.say_help(row.error or row.help, wrong=bool(row.error))
        if screen.following.can_cancel:
            return
        if found.frame is not None:
            screen.picture.show_initial(found.frame, found.title)
        else:
            screen.picture.hide_initial()
        if not screen.progress.waiting and (found.title or screen.progress.text.startswith(TITLE)):
            screen.progress.say(found.title or _READY)  # where it is narrow, the picture has no title

    # --- choosing ---------------------------------------------------------------------------------------------------

    def use(self, path: str) -> None:
        """Write a picture's path into the field, and look at it at once."""
        row = self._screen.form.row("init_image")
        if row is not None:
            row.text = path
            self.form_changed(at_once=True)

    def choose(self) -> None:
        """Have one of the finished pictures chosen."""
        from sdtui.ui.screens.picture_chooser import PictureChooser

        screen = self._screen

        def ask(offset: int) -> None:
            screen.send(ListJobs(which="ended", offset=offset, limit=PAGE))

        def take(path: str | None) -> None:
            self._chooser = None
            if path is not None:
                self.use(path)
                screen.show_field("init_image")

        self._chooser = PictureChooser(ask, current=screen.form.text("init_image").strip())
        screen.app.push_screen(self._chooser, take)

    def take_event(self, event: Message) -> None:
        """A list of jobs is for the dialog, if one is open."""
        if isinstance(event, Jobs) and self._chooser is not None:
            self._chooser.take(event)

    # --- taking in --------------------------------------------------------------------------------------------------

    @property
    def is_taking(self) -> bool:
        """Whether one is on its way into the store."""
        return self._taking is not None

    def take_in(self, params: GenerationParams, then: Callable[[GenerationParams], object]) -> None:
        """Call `then` with the parameters as they can be sent, at once where there is no initial image.

        A second one is refused while one is on its way; where something is wrong, the field says it.
        """
        if self._taking is not None:
            self._screen.notify(_STILL_TAKING, markup=False)
        elif params.init_image is None:
            then(params)
        else:
            self._taking = Taking()
            self._screen.run_worker(self._take(params, then, self._taking), group="initial", exit_on_error=False)
            self._screen.refresh_bindings()

    def stop(self) -> None:
        """Whatever is on its way is not wanted any more."""
        if self._taking is not None:
            self._taking.cancelled.set()

    async def _take(self, params: GenerationParams, then: Callable[[GenerationParams], object], taking: Taking) -> None:
        from sdtui.initial_image import InitialImageCancelled, InitialImageError

        screen, text = self._screen, str(params.init_image)
        ticker = screen.set_interval(_TELL_S, self._tell)
        try:
            taken = await asyncio.to_thread(taken_in, text, taking, self._fetched, screen.settings.network.private_addresses)
            ticker.stop()
            self._fetched = (text, taken)
            await self._look_again()  # before the job begins, so that it is seen
        except InitialImageCancelled:
            ticker.stop()
            await self._look_again()
            self._say("Stopped; nothing was sent.", "warning")
        except InitialImageError as error:
            ticker.stop()
            self._say("The initial image cannot be used.", "error")
            self._refuse(text, safe_text(str(error)))
        else:
            self._say(_READY)
            then(msgspec.structs.replace(params, init_image=str(taken.path)))
        finally:
            ticker.stop()
            self._taking = None
            screen.refresh_bindings()

    async def _look_again(self) -> None:
        self._looked = _OUTDATED
        if not self._is_looking:
            await self._look_on()

    def _say(self, words: str, tone: str = "muted") -> None:
        """In the line below the picture, where no job is at work."""
        if not self._screen.following.at_work:
            self._screen.progress.say(words, tone)

    def _refuse(self, text: str, message: str) -> None:
        screen = self._screen
        if screen.app.screen is screen and screen.form.text("init_image").strip() == text:
            self._looked = self._wanted()  # a look would not say more
            screen.form.set_initial()
            screen.show_problem("init_image", message)
        else:
            screen.notify(message, title="Initial image", severity="error", markup=False)

    def _tell(self) -> None:
        """How far it is: under the field, and where no job's progress is shown, there too."""
        taking, screen = self._taking, self._screen
        if taking is None:
            return
        screen.form.set_initial(taking.words)
        if screen.following.at_work:
            return
        if taking.done_bytes:
            screen.progress.download(
                DownloadProgress(model="", file="initial image", done_bytes=taking.done_bytes, total_bytes=taking.total_bytes)
            )
        elif not screen.progress.text.startswith(_WAITING):
            screen.progress.wait_for(_WAITING)
