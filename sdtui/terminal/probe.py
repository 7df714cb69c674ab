"""The terminal is asked once, before the app runs, and answers while the app is being imported.

    probe = start_probe(os.environ, 0, 1)   # a millisecond: the questions are on their way
    ...                                     # slow imports
    report = probe.collect()                # at most 0.29 s after the asking
    app.run(typed=probe.take_unread())      # what the user typed meanwhile is the app's

What the user types is never lost, no answer is left in the input, and nothing here raises or waits for a terminal that is
stuck, silent, hung up, not there at all, or somebody else's at the moment.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from sdtui.terminal.capabilities import Capabilities, capabilities
from sdtui.terminal.line import Line, is_foreground, may_push_back
from sdtui.terminal.parser import AnswerParser
from sdtui.terminal.queries import Questions, questions

if TYPE_CHECKING:
    from sdtui.terminal.report import Report, Tmux

DEADLINE_S: Final = 0.29
"""An answer over a line to the other side of the earth takes about as long."""
PATIENCE_S: Final = 1.0
"""How long after the asking a command still takes in answers, so that they are not typed into the shell."""
_WRITE_S: Final = 0.02
_UNREAD_BYTES: Final = 1 << 20
"""A terminal that floods us: the rest stays where it is, for whoever reads next."""
_VARIABLES: Final = (
    "COLORTERM",
    "KITTY_WINDOW_ID",
    "KONSOLE_VERSION",
    "LC_TERMINAL",
    "LC_TERMINAL_VERSION",
    "MLTERM",
    "NO_COLOR",
    "STY",
    "TERMINAL_EMULATOR",
    "TERMUX_VERSION",
    "TERM_PROGRAM",
    "TERM_PROGRAM_VERSION",
    "VTE_VERSION",
    "XTERM_VERSION",
)


class Probe:
    """Questions under way. One of `finish`, `hand_over` or the end of a `with` block must follow."""

    def __init__(self, known: Capabilities, variables: dict[str, str], line: Line | None, *, why_not: str = "") -> None:
        self.parser = AnswerParser(())
        """To go on with where answers are late: all that is read from the terminal later goes through it."""
        self._known = known
        self._variables = variables
        self._line = line
        self._tmux: Tmux | None = None
        self._why_not = why_not
        self._asked_at = time.monotonic()
        self._answered_at = self._asked_at
        self._unsent = b""
        self._asked = False
        self._unread = bytearray()

    @property
    def unread(self) -> bytes:
        """What the user typed so far."""
        return bytes(self._unread)

    def take_unread(self) -> bytes:
        """The same, once: from now on it is the caller's."""
        taken, self._unread = bytes(self._unread), bytearray()
        return taken

    def collect(self, deadline_s: float = DEADLINE_S) -> Report:
        """What the terminal said, at the latest so long after the asking."""
        self.wait(deadline_s)
        return self.report()

    def wait(self, deadline_s: float = DEADLINE_S) -> None:
        """Wait for the answers until so long after the asking; `report` says what came."""
        try:
            self._read_until(self._asked_at + deadline_s)
            self._wipe_print()
        except BaseException:
            self.restore()
            raise

    def report(self) -> Report:
        """What is known by now."""
        from sdtui.terminal.report import Report  # late, as nothing of it is needed for the first frame of an app

        return Report(
            capabilities=self._known,
            variables=self._variables,
            asked=self._asked,
            why_not=self._why_not,
            tmux=self._tmux,
            answers=self.parser.answers(),
            raw=self.parser.raw,
            complete=self._asked and self.parser.done,
            elapsed_s=round(self._answered_at - self._asked_at, 4) if self._asked else 0.0,
        )

    def finish(self, patience_s: float = PATIENCE_S) -> bytes:
        """The end for a command: take in late answers, restore the terminal, put back what was typed; what could not be."""
        try:
            self._read_until(self._asked_at + patience_s)
        finally:
            line = self._line
            self._unread += self.parser.flush()
            self.restore()
        if line is not None and self._unread:
            self._unread = bytearray(line.push_back(bytes(self._unread)))
        return self.take_unread()

    def hand_over(self) -> list[Any] | None:
        """The end for an app: the terminal stays quiet, and the app restores these attributes at its own end; None where it
        was never changed."""
        line, self._line = self._line, None
        atexit.unregister(self.restore)
        if line is None:
            return None
        before, line.before = line.before, None
        line.close()
        return before

    def restore(self) -> None:
        """The terminal as it was before, at once."""
        line, self._line = self._line, None
        atexit.unregister(self.restore)
        if line is not None:
            line.restore()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.finish()
        else:
            self.restore()

    def _ask(self, batch: Questions, tmux: Tmux | None) -> None:
        self._tmux, self._why_not = tmux, batch.why_not
        if self._line is None or not batch.text:
            return
        self.parser = AnswerParser(batch.kinds, rounds=batch.rounds)
        self._asked_at = self._answered_at = time.monotonic()
        self._unsent = self._line.write(batch.text, _WRITE_S)
        self._asked = len(self._unsent) < len(batch.text)
        if not self._asked:
            self._unsent = b""
            self.parser = AnswerParser(())
            self._why_not = "The terminal takes no output at the moment."

    def _keep_typed(self, *, for_app: bool) -> None:
        """What was typed before the asking can be no answer. As the terminal was a line editor then, Enter came as a newline."""
        count = min(self._line.waiting(), _UNREAD_BYTES) if self._line is not None else 0
        if self._line is not None and count:
            typed = self._line.read(0.0, count)
            self._unread += typed.replace(b"\n", b"\r") if for_app else typed

    def _read_until(self, deadline: float) -> None:
        while self._line is not None and self._asked and not self.parser.done and not self._line.gone:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or len(self._unread) >= _UNREAD_BYTES:
                return
            if self._unsent:
                self._unsent = self._line.write(self._unsent, min(left_s, _WRITE_S))
            data = self._line.read(min(left_s, _WRITE_S) if self._unsent else left_s)
            if data:
                self._unread += self.parser.feed(data)
                self._answered_at = time.monotonic()

    def _wipe_print(self) -> None:
        """Where the terminal printed what it did not understand, the cursor says how far; it is back at the beginning of it."""
        cursors = self.parser.answers().cursors
        if self._line is None or len(cursors) != 2 or cursors[0] == cursors[1]:
            return
        (row, column), (last_row, last_column) = cursors
        wipe = b"\x1b[%dX" % (last_column - column) if row == last_row and last_column > column else b"\x1b[J"
        self._line.write(wipe, _WRITE_S)


def start_probe(environ: Mapping[str, str] = os.environ, reading: int = 0, writing: int = 1, *, for_app: bool = True) -> Probe:
    """Ask the terminal, and do not wait for the answer. Raises nothing.

    `for_app`: what the user types is handed on to an app, not put back for the shell.
    """
    known = capabilities(writing, environ)
    variables = {name: environ[name] if name != "STY" else "1" for name in _VARIABLES if name in environ}  # STY has a host's name
    why_not = _why_not(reading, writing)
    if why_not:
        return Probe(known, variables, None, why_not=why_not)
    batch = questions(known, variables)
    if not batch.text:
        return Probe(known, variables, None, why_not=batch.why_not)
    tmux = _ask_tmux(environ) if known.multiplexer == "tmux" else None
    line = Line(reading, writing)
    if not line.quiet():
        line.close()
        return Probe(known, variables, None, why_not="The terminal's modes cannot be changed.")
    probe = Probe(known, variables, line)
    atexit.register(probe.restore)
    try:
        if not for_app and line.waiting() and not may_push_back():
            probe.restore()
            probe._why_not = "Keys are waiting to be read that could not be put back."
            return probe
        probe._keep_typed(for_app=for_app)
        probe._ask(questions(known, variables, tmux), tmux)
    except BaseException:
        probe.restore()
        raise
    return probe


def _ask_tmux(environ: Mapping[str, str]) -> Tmux | None:
    from sdtui.terminal.inside_tmux import ask_tmux

    return ask_tmux(environ)


def _why_not(reading: int, writing: int) -> str:
    """Why this terminal may not be asked; empty where it may."""
    if not _is_terminal(reading) or not _is_terminal(writing):
        return f"{'stdin' if _is_terminal(writing) else 'stdout'} is no terminal."
    if os.fstat(reading).st_rdev != os.fstat(writing).st_rdev:
        return "stdin and stdout are two different terminals."
    if not is_foreground(reading):
        return "The terminal belongs to another program at the moment; this one runs in the background."
    return ""


def _is_terminal(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor)
    except (OSError, ValueError, OverflowError):
        return False
