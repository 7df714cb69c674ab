"""tmux asked about itself and the terminal around it, by its own command."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from sdtui.terminal.report import Passthrough, Tmux

_FORMAT: Final = "|".join(
    f"#{{{name}}}"
    for name in (
        "version",
        "client_termname",
        "client_termtype",
        "client_termfeatures",
        "pane_active",
        "window_active",
        "session_attached",
        "allow-passthrough",
    )
)
_PASSTHROUGH: Final[dict[str, Passthrough]] = {"0": "off", "off": "off", "1": "on", "on": "on", "2": "all", "all": "all"}
_FIRST_WITH_PASSTHROUGH: Final = (3, 3)
"""Before 3.3 there is no such option and everything is passed on."""


def ask_tmux(environ: Mapping[str, str], timeout_s: float = 0.2) -> Tmux | None:
    """What tmux says; None when it does not within the time."""
    import subprocess

    pane = environ.get("TMUX_PANE", "")
    command = ["tmux", "display-message", "-p", *(["-t", pane] if pane else []), _FORMAT]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False, env=dict(environ)
        )
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return read_tmux(done.stdout.decode("utf-8", "replace")) if done.returncode == 0 else None


def read_tmux(line: str) -> Tmux | None:
    """The answer to `_FORMAT`; None where it is another."""
    parts = line.rstrip("\n").split("|")
    if len(parts) != _FORMAT.count("|") + 1:
        return None
    version, term, name, features, pane_active, window_active, clients, passthrough = parts
    return Tmux(
        version=version,
        outer_term=term,
        outer_name=name,
        features=tuple(part for part in features.split(",") if part),
        passthrough=_PASSTHROUGH.get(passthrough, "" if _numbers(version) < _FIRST_WITH_PASSTHROUGH else "off"),
        pane_active=pane_active == "1" and window_active == "1",
        clients=int(clients) if clients.isdecimal() else 0,
    )


def _numbers(version: str) -> tuple[int, ...]:
    """`3.3a`, and `next-3.6` of a development build, as numbers."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
