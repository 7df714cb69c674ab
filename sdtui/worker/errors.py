"""What goes wrong in the worker, and the sentence that the user reads about it."""

from __future__ import annotations

import traceback
from typing import Final

from sdtui.text import safe_text

MAX_MESSAGE: Final = 500
"""Characters of a library's message that a person reads; all of it is in the log."""
_OUT_OF_MEMORY: Final = ("out of memory", "can't allocate memory", "cannot allocate memory", "unable to allocate")
"""What the allocators of CUDA, of torch on the CPU, of Linux and of numpy say."""


class JobProblem(Exception):
    """A job that cannot be done as asked; the text is for the user, `field` is the parameter to change."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class ModelProblem(JobProblem):
    """A model that cannot be loaded."""

    def __init__(self, message: str, field: str = "model") -> None:
        super().__init__(message, field)


class Cancelled(BaseException):
    """The job was cancelled; not an `Exception`, so that no library's `except` swallows it."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception is an allocator's refusal, on the GPU or the CPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(mark in str(error).lower() for mark in _OUT_OF_MEMORY)


def one_line(error: BaseException) -> str:
    """An exception as one safe sentence, with its class where the text alone says little."""
    text = safe_text(str(error), limit=MAX_MESSAGE).strip()
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def traceback_text(error: BaseException) -> str:
    """The traceback for the log and `--debug`, safe to show."""
    return safe_text("".join(traceback.format_exception(error)), multiline=True)
