"""Warm workers for the tests of faults, and a home whose processes end with the test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdtui.server import launch
from tests.faults.house import HERE, House, Nest, use_worker
from tests.server.harness import FAKE_COMMAND

WEIGHTS = HERE.parents[1] / "sdtui" / "weights" / "model_index.json"


@pytest.fixture(scope="session")
def nest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nest]:
    """The process that forks workers; their imports are done once."""
    warm = Nest(tmp_path_factory.mktemp("nest"))
    yield warm
    warm.close()


@pytest.fixture
def small_house(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """A home in which faults can be planned, with the small worker: the test is about the server."""
    use_worker(monkeypatch, FAKE_COMMAND)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(HERE / "site"), os.environ.get("PYTHONPATH", ""))).rstrip(os.pathsep))
    monkeypatch.setenv("SDTUI_SERVER_MAX_ATTEMPTS", "100")
    used = House(home)
    used.pictures.mkdir()
    yield used
    used.end()
    for process in launch.started:
        process.kill()
        process.wait()
    launch.started.clear()


@pytest.fixture
def house(small_house: House, nest: Nest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> House:
    """The same with the real worker, which is warm, and the model that ships."""
    if not WEIGHTS.exists():
        pytest.skip("the model that ships is not there")
    use_worker(monkeypatch, nest.command)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))  # what is fitted to the model
    monkeypatch.setenv("SDTUI_WORKER_THREADS", "1")
    return small_house
