"""The measurements measure what they say; none of them is held to a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdtui.bench.__main__ import BENCHES, main
from sdtui.bench.figures import Figure, as_table, percentile, ratios
from sdtui.bench.isolation import isolated
from sdtui.bench.live import Job, Session, measure_first_step, measure_stall
from sdtui.bench.start import measure as measure_start
from sdtui.bench.terminal import in_terminal
from sdtui.bench.ticker import TICK_S, Gap, IdleProcess


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200), st.floats(0.01, 1))
def test_a_percentile_is_a_value_that_so_many_are_not_above(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)


def test_the_99th_percentile_of_a_hundred_leaves_out_one() -> None:
    assert percentile([float(value) for value in range(100, 0, -1)], 0.99) == 99.0


def test_a_ratio_is_ours_over_theirs_and_judged_by_its_medians() -> None:
    medians, fastest = ratios("b", "n", [1.0, 2.0, 30.0], [1.0, 4.0, 5.0], target=0.6)
    assert (medians.value, medians.met) == (0.5, True)
    assert (fastest.value, fastest.met) == (1.0, None)


def test_a_missed_target_is_written_large() -> None:
    table = as_table([Figure(bench="b", name="n", value=2.0, unit="x", target=1.5)])
    assert "MISSED" in table and "<= 1.5" in table


def test_stalls_are_taken_from_the_apps_ticks_and_the_first_step_from_the_key_press() -> None:
    marks = [("JobStarted", 10.02), ("denoise", 10.05), ("StepFinished", 10.09), ("PreviewReady", 10.1)]
    session = Session([Job(pressed=10.0, marks=marks, gaps=[Gap(0.010, 0.001)] * 99 + [Gap(0.5, 0.2)])], idle=[Gap(0.01, 0.0)])
    stall = {figure.name: figure for figure in measure_stall(session)}
    assert stall["gap of a 10 ms ticker, 99th percentile"].value == pytest.approx(10.0)
    assert stall["gap of a 10 ms ticker, longest"].value == pytest.approx(500.0)
    assert stall["work of the loop in a gap, longest"].value == pytest.approx(200.0)
    assert measure_first_step(session)[0].value == pytest.approx(50.0)


def test_an_idle_process_ticks_no_faster_than_its_clock() -> None:
    with IdleProcess() as idle:
        subprocess.run([sys.executable, "-c", "import typer"], check=True)  # takes a while
        gaps = idle.gaps()
    assert all(gap.wall_s >= TICK_S * 0.9 and gap.busy_s < gap.wall_s for gap in gaps)


def test_a_measurement_has_directories_of_its_own_and_leaves_none() -> None:
    before = dict(os.environ)
    with isolated() as root:
        assert all(
            Path(os.environ[name]).is_relative_to(root) for name in ("XDG_DATA_HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME")
        )
    assert not root.exists()
    assert dict(os.environ) == before


def test_a_measurement_leaves_no_process_not_even_one_that_has_only_begun() -> None:
    sleeper = "import time; print('up', flush=True); time.sleep(1000)"
    with isolated():
        sleeping = subprocess.Popen([sys.executable, "-c", sleeper], stdout=subprocess.PIPE)
        assert sleeping.stdout is not None and sleeping.stdout.readline()
        server = subprocess.Popen([sys.executable, "-m", "sdtui.server"], stderr=subprocess.DEVNULL)
    assert sleeping.poll() is not None and server.poll() is not None


def test_a_program_in_the_terminal_sees_one_and_is_ended_with_it() -> None:
    code = "import os, sys; print('size', os.get_terminal_size().columns, flush=True); sys.stdin.read()"
    with in_terminal([sys.executable, "-c", code]) as terminal:
        terminal.wait_for("size 120", 30)
        assert terminal.process.poll() is None
    assert terminal.process.poll() is not None


def test_what_does_not_appear_is_a_timeout_that_names_it() -> None:
    with in_terminal([sys.executable, "-c", "print('other')"]) as terminal, pytest.raises(TimeoutError, match="'wanted'"):
        terminal.wait_for("wanted", 1.0)


def test_the_start_of_the_real_app_is_measured_against_hello_world() -> None:
    figures = {figure.name: figure for figure in measure_start(1)}
    for name in ("first interactive frame, medians", "first frame, medians", "sdtui --help, medians"):
        assert figures[name].value > 0 and figures[name].unit == "x"
    assert figures["sdtui answers a key after"].value > 0


def test_json_is_one_figure_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(
        BENCHES, "start", (lambda rounds: [Figure(bench="b", name=f"{rounds}", value=1.0, unit="x", target=2.0)],)
    )
    assert main(["start", "--rounds", "3", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {"bench": "b", "name": "3", "value": 1.0, "unit": "x", "target": 2.0, "note": "", "met": True}


@pytest.mark.parametrize("arguments", [["speed"], [], ["start", "--rounds", "0"], ["start", "--rounds", "x"]])
def test_what_cannot_be_measured_is_bad_input(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
