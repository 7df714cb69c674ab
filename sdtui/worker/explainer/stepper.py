"""A function that runs in a thread of its own and stops before each of its lines until it is told to go on.

`sys.settrace` calls us before each line of that one frame; what it calls is not traced. While the function stands, nothing of it
runs, so that what its variables hold can be looked at, and a variable can be given another value.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, Final

from sdtui.worker.errors import Cancelled

Trace = Callable[[FrameType, str, Any], Any]
Arrive = Callable[[dict[str, Any], int | None, Any], bool]
"""Called in the function's thread with its variables, the line it stands before (None: it has returned) and what it returned;
whether the function is to stop here."""


class Stepper:
    """One call of a function."""

    def __init__(self, call: Callable[[], Any], code: CodeType, statement_at: dict[int, int], arrive: Arrive) -> None:
        """`call` calls the function whose code is `code`, once. Nothing runs before `start`."""
        self._call, self._code, self._statement_at, self._arrive = call, code, statement_at, arrive
        self._turn = threading.Condition()
        self._runs = False
        """Whose turn it is: the function's, or that of who waits for it."""
        self._dropped = False
        self._raising = False
        self._changes: dict[str, Any] = {}
        self._line: int | None = None
        self.error: BaseException | None = None
        """What the function, or looking at it, raised."""
        self._thread: Final = threading.Thread(target=self._run, name="explained function", daemon=True)

    @property
    def line(self) -> int | None:
        """The line that the function stands before; after an error the one that failed, None when it has returned."""
        return self._line

    @property
    def is_over(self) -> bool:
        """Whether nothing of the function is left to run."""
        return not self._thread.is_alive()

    def start(self) -> None:
        """Go to the first line, and return when the function stands before it."""
        self._runs = True
        self._thread.start()
        self._wait()

    def go_on(self, changes: dict[str, Any] | None = None) -> None:
        """Let the function run until `arrive` says that it is to stop, or to its end; its variables are changed first."""
        self._changes = changes or {}
        with self._turn:
            self._runs = True
            self._turn.notify_all()
        self._wait()

    def drop(self) -> None:
        """End the function where it stands."""
        if self._thread.is_alive():
            self._dropped = True
            self.go_on()

    def _wait(self) -> None:
        with self._turn:
            self._turn.wait_for(lambda: not self._runs)
        if self._dropped or self.error is not None or self._line is None:
            self._thread.join()

    # --- in the function's thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            sys.settrace(self._on_call)
            self._call()
        except BaseException as error:
            self.error = error
        finally:
            sys.settrace(None)
            with self._turn:
                self._runs = False
                self._turn.notify_all()

    def _on_call(self, frame: FrameType, event: str, arg: Any) -> Trace | None:  # noqa: ARG002  (settrace's signature)
        return self._on_event if frame.f_code is self._code else None

    def _on_event(self, frame: FrameType, event: str, arg: Any) -> Trace:
        if event == "exception":
            self._raising = True
        elif event == "line":
            self._raising = False
            line = self._statement_at.get(frame.f_lineno, frame.f_lineno)
            if line != self._line:  # else it is another line of the same statement, or an inner loop's next round
                self._stand(frame, line, None)
        elif event == "return" and not self._raising:
            self._stand(frame, None, arg)
        return self._on_event

    def _stand(self, frame: FrameType, line: int | None, returned: Any) -> None:
        variables = frame.f_locals  # asked for once: up to Python 3.12 each asking undoes what was changed in it
        self._line = line
        if self._arrive(variables, line, returned) and line is not None:
            with self._turn:
                self._runs = False
                self._turn.notify_all()
                self._turn.wait_for(lambda: self._runs)
        if self._dropped:
            raise Cancelled
        for name in self._changes:
            variables[name] = self._changes[name]
        self._changes = {}
