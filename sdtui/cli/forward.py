"""Commands that are programs of their own: they take this process's place, with its terminal, signals and exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn


def become_module(module: str, arguments: Sequence[str]) -> NoReturn:
    """Go on as `python -m module` with these arguments."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606  (no shell is wanted)
