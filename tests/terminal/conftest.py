"""What the tests of terminals share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sdtui.terminal.inside_tmux import _FORMAT


@pytest.fixture
def tmux_in_kitty(tmp_path: Path) -> dict[str, str]:
    """An environment whose `tmux` says that it runs in kitty 0.41 and passes on; the scripted terminal is the rest of tmux."""
    said = ("3.3a", "xterm-kitty", "kitty(0.41.1)", "RGB,256", "1", "1", "1", "on")
    assert len(said) == _FORMAT.count("|") + 1
    directory = tmp_path / "bin"
    directory.mkdir()
    program = directory / "tmux"
    program.write_text(f"#!/bin/sh\necho '{'|'.join(said)}'\n")
    program.chmod(0o755)
    return {"PATH": f"{directory}{os.pathsep}{os.environ['PATH']}"}
