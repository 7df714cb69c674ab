"""The measurement of the tree opens the app, and measures what it says."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sdtui.bench import inspect_tree
from sdtui.bench.isolation import environment, isolated
from sdtui.bench.layouts import sd1, write_sparse
from sdtui.bench.live import Job, Session
from sdtui.bench.ticker import Gap


def test_a_checkpoint_of_four_gigabytes_is_sparse(tmp_path: Path) -> None:
    path = write_sparse(tmp_path / "v1.safetensors", sd1())
    assert path.stat().st_size > 4 * 10**9
    assert path.stat().st_blocks * 512 < 10**6
    assert len(sd1()) == 1131
    assert "4.27 GB" in inspect_tree.checkpoint_note(len(sd1())) and round(path.stat().st_size / 1e9, 2) == 4.27


def test_opening_is_timed_in_the_app_in_a_terminal() -> None:
    with isolated() as root, environment({"SDTUI_WORKER_COMMAND": "true"}):
        small = write_sparse(root / "small.safetensors", sd1(channels=32, context=64, vae_channels=32, words=100))
        shown, pressed = inspect_tree._opened(small)
        assert 0 <= shown < pressed < 30


def test_unfolding_and_moving_are_timed_until_they_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect_tree, "TENSORS", 1_000)
    monkeypatch.setattr(inspect_tree, "_KEYS", 5)
    shapes = inspect_tree._many()
    assert len(shapes) == 1_000
    unfolded, keys = asyncio.run(inspect_tree._moved(write_sparse(tmp_path / "many.safetensors", shapes, "F16"), 2))
    assert (len(unfolded), len(keys)) == (2, 10)
    assert all(seconds > 0 for seconds in (*unfolded, *keys))


def test_gaps_are_those_of_jobs_that_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def looked_at(count: int) -> Session:
        seen.append(count)
        return Session([Job(pressed=0.0, gaps=[Gap(0.010, 0.002)] * 99 + [Gap(0.5, 0.4)])], idle=[Gap(0.01, 0.0)])

    monkeypatch.setattr(inspect_tree, "_looked_at", looked_at)
    p99, longest, busy, idle = inspect_tree._gaps(3)
    assert seen == [3]
    assert (p99.target, round(p99.value), round(longest.value)) == (25.0, 10, 500)
    assert (round(busy.value), round(idle.value)) == (2, 10)


def test_jobs_are_begun_beside_the_app_that_shows_them() -> None:
    session = inspect_tree._looked_at(1)
    (job,) = session.jobs
    assert job.count("StepFinished") == 20 and len(job.gaps) > 10 and session.idle
