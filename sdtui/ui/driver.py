"""Textual's driver with two things of ours: a writer that never stops the event loop, and answers kept out of the keys."""

from __future__ import annotations

import os
import selectors
import sys
import threading
from codecs import getincrementaldecoder
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from textual.drivers.linux_driver import LinuxDriver

from sdtui.terminal.answers import CellSizeAnswer, Event, GraphicsAnswer, StatusReport, WindowSizeAnswer
from sdtui.terminal.capabilities import window_size
from sdtui.terminal.parser import AnswerParser
from sdtui.terminal.picture import CellSize
from sdtui.terminal.writer import TerminalWriter
from sdtui.ui.private import KeyParser

if TYPE_CHECKING:
    from sdtui.ui.display import Display

_TICK_S: Final = 0.1
"""How often the input thread looks whether it should end, as in Textual; a lone ESC is taken for the key after as long."""
_READ_BYTES: Final = 1 << 14
_ALT_AS_ESCAPE: Final = ("\x1b[?1036;1039s\x1b[?1036;1039h", "\x1b[?1036;1039r")
"""xterm sends alt+5 as the character `µ` unless told otherwise: save its modes and set them; put them back (ctlseqs, XTSAVE)."""


class TerminalDriver(LinuxDriver):
    """Needs an app with a `terminal_display`, and with `answers`, the parser that goes on where the probe stopped."""

    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__(app, **options)
        self._display: Display = app.terminal_display
        self._answers: AnswerParser = app.answers
        self._answers_lock = threading.Lock()
        self._waits_for_batch = not self._answers.done
        self._attributes: list[Any] | None
        self._unread: bytes
        self._attributes, self._unread = app.take_terminal()
        self._output: TerminalWriter | None = None
        self._alt_as_escape = False
        self._display.expect_answer = self._expect_answer

    # --- output ------------------------------------------------------------------------------------------------------

    def write(self, data: str) -> None:
        """Queue text for the terminal; this never waits for a slow line."""
        if self._output is not None:
            self._output.write(data.encode("utf-8", "surrogatepass"))

    def send_alt_as_escape(self) -> None:
        """Have xterm send ESC before what is typed with alt, as all others do."""
        if not self._alt_as_escape:
            self._alt_as_escape = True
            self.write(_ALT_AS_ESCAPE[0])

    def start_application_mode(self) -> None:
        """Take the terminal."""
        stdout = sys.__stdout__ if sys.__stdout__ is not None and sys.__stdout__.isatty() else sys.__stderr__
        assert stdout is not None  # noqa: S101  (Textual has checked it)
        self._output = TerminalWriter(stdout.fileno())
        self._output.start()
        super().start_application_mode()  # type: ignore[no-untyped-call]
        if self._attributes is not None:
            self.attrs_before = self._attributes  # the probe has changed them already
        self._tell_cell_size()
        if self._alt_as_escape:
            self.write(_ALT_AS_ESCAPE[0])
        with self._answers_lock:
            self._answers.expect_graphics()  # kitty may say at any time that it has lost a picture
        self._display.start(self._output)

    def stop_application_mode(self) -> None:
        """Give the terminal back, with no picture left in it and no answer under way."""
        self._display.stop()
        if self._alt_as_escape:
            self.write(_ALT_AS_ESCAPE[1])
        super().stop_application_mode()
        if self._output is not None:
            self._output.flush()

    def close(self) -> None:
        """End the threads."""
        super().close()
        if self._output is not None:
            self._output.close()
            self._output = None

    # --- input -------------------------------------------------------------------------------------------------------

    def run_input_thread(self) -> None:
        """Read keys, and what the terminal answers between them."""
        parser = KeyParser(self._debug)
        decode = getincrementaldecoder("utf-8")("replace").decode
        selector = selectors.SelectSelector()
        selector.register(self.fileno, selectors.EVENT_READ)
        try:
            keys = self._take_unread()
            while not self.exit_event.is_set():
                if text := decode(keys):  # an empty text would be the end to Textual's parser
                    self._pass_on(parser.feed(text))
                self._pass_on(parser.tick())
                keys = self._read(selector)
        except OSError:  # the terminal is gone, and nobody can leave the app any more
            self._call(self._app.exit)
        finally:
            selector.close()

    def _read(self, selector: selectors.BaseSelector) -> bytes:
        """What the user typed, waiting a moment for it. Raises `OSError`, also where the terminal has hung up."""
        if selector.select(_TICK_S):
            data = os.read(self.fileno, _READ_BYTES)
            if not data:
                raise OSError("the terminal has hung up")
            return self._without_answers(data)
        with self._answers_lock:
            return self._answers.flush() if self._answers.pending else b""

    def _take_unread(self) -> bytes:
        """What was typed while the probe read; once, not after each suspension."""
        unread, self._unread = self._unread, b""
        return unread

    def _pass_on(self, messages: Iterable[Any]) -> None:
        for message in messages:
            self.process_message(message)

    def _without_answers(self, data: bytes) -> bytes:
        with self._answers_lock:
            keys = self._answers.feed(data)
            events = self._answers.events()
            complete = self._waits_for_batch and self._answers.done
        for event in events:
            self._take_answer(event)
        if complete:
            self._waits_for_batch = False
            self._call(self._app.judge_terminal)  # type: ignore[attr-defined]
        return keys

    def _take_answer(self, event: Event) -> None:
        match event:
            case StatusReport():
                self._display.answered()
                self._call(self._display.acknowledge)
            case GraphicsAnswer() if event.message != "OK":
                self._call(self._display.lost_images, event.image_id)
            case CellSizeAnswer():
                self._call(self._display.set_cell, CellSize(event.width_px, event.height_px))
            case WindowSizeAnswer():
                columns, rows = self._get_terminal_size()
                self._call(self._display.set_cell, CellSize(event.width_px // columns, event.height_px // rows))

    def _call(self, function: Any, *arguments: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    def _expect_answer(self) -> None:
        with self._answers_lock:
            self._answers.expect_status()

    # --- size --------------------------------------------------------------------------------------------------------

    def resized(self) -> None:
        """The window or its font changed: find out how large the cells are now."""
        if not self._tell_cell_size() and self._display.asks_for_sizes:
            with self._answers_lock:
                self._answers.expect_sizes()
            self.write("\x1b[16t")

    def _tell_cell_size(self) -> bool:
        """By the kernel, which the terminal or sshd has told; False where it does not know.

        Rounded down: a window whose size is no whole number of cells has a margin.
        """
        rows, columns, width_px, height_px = window_size(self.fileno)
        if not (rows and columns and width_px >= columns and height_px >= rows):
            return False
        self._display.set_cell(CellSize(width_px // columns, height_px // rows))
        return True
