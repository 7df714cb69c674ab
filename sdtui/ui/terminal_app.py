"""An app whose pictures are drawn by the terminal: the base of ours, and of any other that wants `LivePicture`.

probe = start_probe()            # before the slow imports, if they are slow
settle_colorterm(probe.collect(), os.environ)
MyApp(probe=probe).run()
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any, Final, TypeVar

from textual.app import App
from textual.events import Resize

from sdtui.terminal.parser import AnswerParser
from sdtui.terminal.picture import CellSize
from sdtui.ui.display import Display
from sdtui.ui.driver import TerminalDriver

if TYPE_CHECKING:
    from sdtui.settings import Notify
    from sdtui.terminal.probe import Probe

JUDGE_AFTER_S: Final = 0.1
"""After the first frame a key is answered before anything else is begun: a tenth of a second is what people take as at once."""
ReturnType = TypeVar("ReturnType")


class TerminalApp(App[ReturnType]):
    """Owns the display, and lets the driver have the terminal as the probe left it."""

    def __init__(self, *, probe: Probe | None = None, image_protocol: str = "auto", **options: Any) -> None:
        """`probe`: what the terminal was asked; without one, Textual draws pictures in half cells."""
        self._probe = probe
        self._image_protocol = image_protocol
        self.answers = probe.parser if probe is not None else AnswerParser(())
        self.terminal_display = Display()
        self.terminal_display.is_pending = probe is not None
        super().__init__(driver_class=TerminalDriver, **options)

    def take_terminal(self) -> tuple[list[Any] | None, bytes]:
        """For the driver: how the terminal was before it was asked, and what the user typed meanwhile; once."""
        if self._probe is None:
            return None, b""
        return self._probe.hand_over(), self._probe.take_unread()

    def judge_terminal(self) -> None:
        """Draw pictures as the terminal has said that it can: after the first frame, and again when it says more, late."""
        if self._probe is None:
            return
        from sdtui.terminal.verdict import choose, judge

        report = self._probe.report()
        verdict = judge(report)
        sink, complaint = choose(self._image_protocol, verdict)
        self.terminal_display.use(verdict, sink, latency_s=report.elapsed_s if report.complete else None)
        if verdict.terminal.split(" ")[0] == "xterm" and report.tmux is None and isinstance(self._driver, TerminalDriver):
            self._driver.send_alt_as_escape()
        if complaint:
            self.notify(complaint, title="Pictures", severity="warning", timeout=15, markup=False)

    def announce(self, text: str, wanted: Notify) -> None:
        """Ring, or show a desktop notice, as the terminal can; through the writer that all else goes through."""
        if wanted == "off" or self._driver is None:
            return
        from sdtui.terminal.notice import notice, notice_way

        report = self._probe.report() if self._probe is not None else None
        inside_tmux = report is not None and report.capabilities.multiplexer == "tmux"
        self._driver.write(notice(text, notice_way(wanted, report), inside_tmux=inside_tmux).decode())

    def on_mount(self) -> None:
        """Judge the terminal when the first keys are answered. End as when the user leaves, when told to from outside."""
        self.call_after_refresh(self.set_timer, JUDGE_AFTER_S, self.judge_terminal)
        if not self.is_headless:
            for number in (signal.SIGTERM, signal.SIGHUP):  # pictures would stay in the terminal
                asyncio.get_running_loop().add_signal_handler(number, self.exit)

    def on_resize(self, event: Resize) -> None:
        """The window changed, or only its font."""
        if event.pixel_size is not None and event.size.area and min(event.pixel_size) >= max(event.size):
            width_px, height_px = event.pixel_size
            self.terminal_display.set_cell(CellSize(width_px // event.size.width, height_px // event.size.height))
        elif isinstance(self._driver, TerminalDriver):
            self._driver.resized()
