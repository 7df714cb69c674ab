"""The measurement of pictures: that it measures what it says."""

from __future__ import annotations

import numpy as np
import pytest

from sdtui.bench import flicker, picture_costs
from sdtui.bench.figures import Figure
from sdtui.bench.picture_frames import COUNT, frames
from sdtui.bench.pictures import run


def by_name(figures: list[Figure]) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures}


def test_the_frames_are_the_same_in_every_run_get_clearer_and_are_nowhere_black() -> None:
    made = [np.asarray(frame, np.float32) for frame in frames("detailed")]
    assert len(made) == COUNT and made[0].shape == (510, 512, 3)
    assert all(np.array_equal(frame, again) for frame, again in zip(made, frames("detailed"), strict=True))
    distances = [float(np.abs(frame - made[-1]).mean()) for frame in made]
    assert distances == sorted(distances, reverse=True) and distances[0] > 50
    assert min(float(frame.min()) for frame in made) >= 24
    assert np.asarray(frames("latent", 2)[0]).shape == (64, 64, 3)


@pytest.mark.parametrize("library", ["sdtui", "textual-image"])
def test_an_app_shows_all_frames_and_tells_what_it_cost(library) -> None:
    showing = run(library, "kitty", "latent")
    if library == "sdtui":
        assert showing.frames_shown == COUNT and showing.errors == []
    assert showing.frames_shown > 0
    assert showing.cpu_s > 0 and len(showing.gaps) > 100
    assert showing.bytes_written > 100_000


def test_our_images_do_not_pile_up_in_the_terminal_and_theirs_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_costs, "MANY", 30)
    monkeypatch.setattr(picture_costs, "_EARLY", 10)
    figures = by_name(picture_costs.measure_memory())
    assert figures["kitty, images held after 30 frames"].met
    assert figures["kitty, memory from frame 10 to 30"].met
    assert figures["kitty, images held after 30 frames: textual-image"].value == 30


def test_the_probe_is_measured_on_terminals_near_far_and_silent() -> None:
    figures = by_name(picture_costs.measure_probe(1))
    assert figures["the same, in round trips"].value >= 1
    assert figures["probe of a terminal that never answers"].value >= 250
    assert figures["probe of a terminal 100 ms away: textual-image"].value >= 100


def test_a_sample_counts_only_between_the_first_whole_picture_and_the_last() -> None:
    whole, half, nothing = (np.ones((10, 10), bool) for _ in range(3))
    whole[2:8, 2:8] = False
    half[2:5, 2:8] = False
    assert flicker._judge([nothing, half, whole, half, whole, whole]) == [False, True, False, False]


def test_without_an_x_server_flicker_is_left_out_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None if name == "Xvfb" else f"/usr/bin/{name}")
    assert flicker.measure(1) == []
    assert "Xvfb not installed" in capsys.readouterr().err
