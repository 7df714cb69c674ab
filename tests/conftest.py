"""Every test has a home of its own: settings, data, sockets and outputs cannot meet those of the user or of another test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_XDG = ("CONFIG", "DATA", "STATE", "CACHE")


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh home directory with all XDG variables pointing into it. Short, as socket paths end at 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="sdtui-t-"))
    monkeypatch.setenv("HOME", str(path))
    for name in _XDG:
        monkeypatch.setenv(f"XDG_{name}_HOME", str(path / name.lower()))
    runtime = path / "run"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    yield path
    shutil.rmtree(path, ignore_errors=True)
