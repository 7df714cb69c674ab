"""Running `sdtui` as a user does: a process of its own, with a home of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sdtui.cli.app import main

Refused = Callable[..., str]
TIMEOUT_S = 150.0
"""A real job takes a second; a machine that is swamped takes its time to start a worker."""


@dataclass
class Cli:
    """The command line in one home."""

    home: Path
    environment: dict[str, str]

    def run(self, *arguments: str | bytes, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run to the end with pipes for its streams."""
        command = [sys.executable, "-m", "sdtui", *arguments]
        defaults: dict[str, Any] = {"text": True, "stdin": subprocess.DEVNULL, "timeout": TIMEOUT_S}
        if "input" in options:
            del defaults["stdin"]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.run(command, env=self.environment, check=False, **(defaults | streams | options))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start it; stdout and stderr are pipes of text."""
        return subprocess.Popen(
            [sys.executable, "-m", "sdtui", *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def socket(self) -> Path:
        """Where the server's socket would be."""
        return self.home / "run" / "sdtui" / "server.sock"


def make_cli(home: Path) -> Cli:
    """A command line whose every path lies in `home`."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("SDTUI_", "SSH_"))},
        **{f"XDG_{name}_HOME": str(home / name.lower()) for name in ("CONFIG", "DATA", "STATE", "CACHE")},
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home / "run"),
        "HF_HUB_OFFLINE": "1",
        "NO_COLOR": "",
        "COLUMNS": "120",
    }
    (home / "run").mkdir(mode=0o700, exist_ok=True)
    return Cli(home, environment)


@pytest.fixture
def cli(home: Path) -> Cli:
    """The command line in this test's home, where no server runs; no test with it may start one."""
    return make_cli(home)


@pytest.fixture(scope="package")
def live() -> Iterator[Cli]:
    """The command line with a real server and a real worker, shared by the tests of this package, one home for all."""
    home = Path(tempfile.mkdtemp(prefix="sdtui-l-"))
    shared = make_cli(home)
    yield shared
    shared.run("server", "stop")
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def refused(home: Path, capfd: pytest.CaptureFixture[str]) -> Refused:
    """Runs the command line in this process; what it says on stderr.

    Nothing was printed, no server was started, no picture was begun.
    """

    def run(*arguments: str | bytes) -> str:
        code = main([os.fsdecode(argument) for argument in arguments])
        said = capfd.readouterr()
        assert (code, said.out) == (2, "")
        assert "Traceback" not in said.err
        assert not make_cli(home).socket.exists()
        assert not list(home.rglob("*.png")) and not list(home.rglob("*.part"))
        return said.err

    return run
