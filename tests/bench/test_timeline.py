"""The measurement of scrubbing opens the app at a job's steps, and measures what it says."""

from __future__ import annotations

import pytest

from sdtui.bench import timeline
from sdtui.bench.isolation import environment, isolated
from sdtui.bench.recorded import write_recorded
from sdtui.bench.ticker import Gap
from sdtui.bench.timeline import Scrubbed
from sdtui.settings import tapes_dir


def test_scrubbing_is_timed_from_the_key_to_the_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "STEPS", 5)
    monkeypatch.setattr(timeline, "_LAST_S", 3.0)
    with isolated(), environment({"SDTUI_WORKER_COMMAND": "true"}):
        write_recorded(tapes_dir() / timeline._JOB.format(size=16), 5, latents=(16, 16))
        run = timeline.scrub("half cells", 16)
    assert len(run.keys_s) == 5
    assert all(0 < seconds < 30 for seconds in run.keys_s)
    assert 0 <= run.held_s <= 4
    assert len(run.gaps) > 10


def test_the_figures_are_those_of_the_runs() -> None:
    run = Scrubbed([0.010] * 49 + [0.3], 0.04, [Gap(0.010, 0.002)] * 98 + [Gap(0.5, 0.4)] * 2)
    key, slowest, held, gap, busy = timeline._of("kitty", 64, [run, run])
    assert (round(key.value), key.target, round(slowest.value)) == (10, 50.0, 300)
    assert (round(held.value), round(gap.value), gap.target, round(busy.value)) == (40, 500, 25.0, 400)
    assert "100 keys, 200 ticks" in key.note
