"""Prompts that were used, shared between sessions: one JSON string a line, oldest first."""

from __future__ import annotations

import contextlib
import fcntl
from pathlib import Path
from typing import Final

import msgspec

from sdtui.settings import write_atomically

KEPT: Final = 1000
"""Prompts that stay. A line is at most some 10 kB, so reading all of them takes milliseconds."""
_SLACK: Final = 200
"""The file is only rewritten when it is this much too long."""


def _line(text: str) -> str:
    return msgspec.json.encode(text).decode() + "\n"


class PromptHistory:
    """The history file, and where in it the user is looking."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: list[str] = []
        self._position: int | None = None
        self._draft = ""

    def add(self, text: str) -> None:
        """Append a prompt unless it is the newest one already. Raises `OSError`."""
        self.leave()
        if not text.strip():
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # two sessions may write at once
            entries = self.load()
            if entries and entries[-1] == text:
                return
            file.write(_line(text))
            file.flush()
            if len(entries) + 1 > KEPT + _SLACK:
                kept = [*entries, text][-KEPT:]
                write_atomically(self._path, "".join(map(_line, kept)).encode())

    def load(self) -> list[str]:
        """Every prompt kept, oldest first; lines that are no JSON string are passed over."""
        entries: list[str] = []
        with contextlib.suppress(OSError):
            for line in self._path.read_text("utf-8", errors="replace").splitlines():
                with contextlib.suppress(msgspec.DecodeError):
                    entries.append(msgspec.json.decode(line, type=str))
        return entries[-KEPT:]

    def older(self, current: str) -> str | None:
        """The prompt before the one shown; None at the oldest. `current` is kept to come back to."""
        if self._position is None:
            self._entries = [entry for entry in self.load() if entry != current]
            self._position, self._draft = len(self._entries), current
        if self._position == 0:
            return None
        self._position -= 1
        return self._entries[self._position]

    def newer(self) -> str | None:
        """The prompt after the one shown, at last the text the user had begun; None when there is nothing newer."""
        if self._position is None:
            return None
        self._position += 1
        if self._position >= len(self._entries):
            draft = self._draft
            self.leave()
            return draft
        return self._entries[self._position]

    def leave(self) -> None:
        """The user edits the text shown: it is a new draft now."""
        self._position = None
