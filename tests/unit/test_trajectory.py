"""Trajectories on disk: growing, torn, damaged, of another time; and what the network said beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save

from sdtui.inspected import InspectedError
from sdtui.params import GenerationParams
from sdtui.tape import Tape
from sdtui.trajectory import (
    INITIAL,
    VERSION,
    Trajectory,
    TrajectoryError,
    TrajectoryFacts,
    TrajectoryFile,
    find_trajectory,
    tape_path,
    trajectory_path,
)

SHAPE = (2, 4, 3, 5)
FACTS = TrajectoryFacts(
    job="j1", batch_index=0, model="tiny", pipeline="StableDiffusionPipeline", scheduler="EulerDiscreteScheduler",
    prediction_type="epsilon", params=GenerationParams(prompt="a cat", guidance_scale=3.0, seed=7), seeds=(7, 8),
)  # fmt: skip


def values(step: int, name: str) -> np.ndarray[Any, Any]:
    return np.random.default_rng([step + 1, len(name)]).normal(size=SHAPE).astype(np.float32)


def payload(step: int, total: int = 4) -> bytes:
    names = ("latents",) if step == INITIAL else ("latents", "denoised")
    facts = {"step": step, "total": total, "timestep": 900.0 - step, "alpha": 0.6, "sigma": 0.8, "elapsed_s": 0.25}
    return save({name: values(step, name) for name in names}, metadata={name: str(value) for name, value in facts.items()})


def written(directory: Path, *steps: int, facts: TrajectoryFacts = FACTS) -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / "batch-0000.steps"
    file = TrajectoryFile(path, facts)
    for step in steps:
        file.append(payload(step))
    file.close()
    return path


def test_what_was_written_is_read(tmp_path: Path) -> None:
    found = Trajectory(written(tmp_path, INITIAL, 0, 1))
    assert (len(found.steps), found.total, found.complete) == (2, 4, False)
    assert found.facts == FACTS and found.initial is not None
    assert np.array_equal(found.latents(INITIAL), values(INITIAL, "latents"))
    assert np.array_equal(found.denoised(1), values(1, "denoised"))
    assert found.steps[1].ratio == pytest.approx(0.8 / 0.6) and found.steps[1].timestep == 899.0


def test_it_is_read_on_while_it_grows(tmp_path: Path) -> None:
    path = written(tmp_path, INITIAL, 0)
    found = Trajectory(path)
    assert not found.refresh()
    written(tmp_path, 1, 2, 3)
    assert found.refresh() and found.complete
    assert np.array_equal(found.latents(3), values(3, "latents"))


def test_a_torn_end_is_left_out_and_written_over(tmp_path: Path) -> None:
    path = written(tmp_path, INITIAL, 0, 1)
    path.write_bytes(path.read_bytes()[:-9])
    assert len(Trajectory(path).steps) == 1
    file = TrajectoryFile(path, FACTS)
    assert file.steps == {INITIAL, 0}
    file.append(payload(1))
    file.close()
    found = Trajectory(path)
    assert len(found.steps) == 2 and np.array_equal(found.denoised(1), values(1, "denoised"))


def test_a_damaged_step_ends_it(tmp_path: Path) -> None:
    path = written(tmp_path, INITIAL, 0, 1)
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)
    assert len(Trajectory(path).steps) == 1


def test_other_facts_begin_it_anew(tmp_path: Path) -> None:
    path = written(tmp_path, INITIAL, 0, 1)
    reader = Trajectory(path)
    written(tmp_path, facts=msgspec.structs.replace(FACTS, fingerprint="other"))
    assert not Trajectory(path).steps
    with pytest.raises(TrajectoryError, match="was begun anew"):
        reader.refresh()


def of_another_version(path: Path) -> None:
    path.unlink()
    TrajectoryFile(path, msgspec.structs.replace(FACTS, version=VERSION + 1)).close()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.unlink(), "not recorded, or were removed"),
        (lambda path: path.write_bytes(b""), "damaged at its beginning"),
        (lambda path: path.write_bytes(b"\0" * 500), "damaged at its beginning"),
        (of_another_version, f"has version {VERSION + 1}"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, spoil: Any, says: str) -> None:
    path = written(tmp_path, INITIAL, 0)
    spoil(path)
    with pytest.raises(TrajectoryError, match=says):
        Trajectory(path)


def test_a_step_that_is_not_there_and_a_file_that_goes(tmp_path: Path) -> None:
    path = written(tmp_path, INITIAL, 0)
    found = Trajectory(path)
    for step in (1, -2, 99):
        with pytest.raises(TrajectoryError, match=f"step {step} is not among them"):
            found.latents(step)
    with pytest.raises(TrajectoryError, match="no denoised"):
        found.denoised(INITIAL)
    path.unlink()
    with pytest.raises(TrajectoryError, match="were removed"):
        found.latents(0)


def test_a_picture_is_found_in_the_part_of_the_batch_that_has_it(tmp_path: Path) -> None:
    directory = tmp_path / "j1"
    directory.mkdir()
    for first in (0, 2):
        facts = msgspec.structs.replace(FACTS, first_picture=first)
        TrajectoryFile(directory / f"batch-0000-{first:03d}-002.steps", facts).close()
    found, place = find_trajectory(directory, 0, 3)
    assert (found.facts.first_picture, place) == (2, 1)
    for batch, picture in ((0, 4), (1, 0)):
        with pytest.raises(TrajectoryError, match=f"no picture {picture} in batch {batch}"):
            find_trajectory(directory, batch, picture)


def test_a_job_of_an_older_version_says_so(tmp_path: Path) -> None:
    directory = tmp_path / "j1"
    directory.mkdir()
    with pytest.raises(TrajectoryError, match="not recorded, or were removed"):
        find_trajectory(directory, 0, 0)
    (directory / "batch-0000.tape").touch()
    with pytest.raises(TrajectoryError, match="did not keep the latents"):
        find_trajectory(directory, 0, 0)


# --- what the network said ------------------------------------------------------------------------------------------


def said(path: Path, *answers: np.ndarray[Any, Any], step: int = 0) -> None:
    tape = Tape(tape_path(path), {"format": 1, "seeds": [7, 8]})
    for call, answer in enumerate(answers, start=len(tape.calls)):
        facts = {"call": str(call), "step": str(step), "timestep": "900.0", "elapsed_s": "0.1", "form": "tuple"}
        tape.append(save({"0": answer}, metadata=facts))
    tape.close()


def test_noise_pred_has_the_guidance_in_it(tmp_path: Path) -> None:
    path = written(tmp_path, INITIAL, 0)
    assert trajectory_path(tape_path(path)) == path
    uncond, text = values(5, "uncond"), values(5, "text")
    said(path, np.concatenate([uncond, text]))
    found = Trajectory(path)
    assert np.allclose(found.noise_pred(0), uncond + 3.0 * (text - uncond), atol=1e-6)
    assert np.allclose(found.guidance(0), np.sqrt(((text - uncond) ** 2).sum(axis=1)), atol=1e-6)


def test_without_guidance_there_is_no_map(tmp_path: Path) -> None:
    path = written(tmp_path, INITIAL, 0, 1)
    answer = values(5, "text")
    said(path, answer)
    found = Trajectory(path)
    assert np.array_equal(found.noise_pred(0), answer)
    with pytest.raises(InspectedError, match="no guidance"):
        found.guidance(0)
    said(path, answer * 2, step=1)
    assert np.array_equal(found.noise_pred(1), answer * 2), "a tape that grows is read on"


def test_a_pipeline_that_asks_twice_has_a_map_and_no_mixed_answer(tmp_path: Path) -> None:
    path = written(tmp_path, INITIAL, 0)
    said(path, values(5, "uncond"), values(5, "text"))
    found = Trajectory(path)
    assert found.guidance(0).shape == (2, 3, 5)
    with pytest.raises(InspectedError, match="asks its network twice"):
        found.noise_pred(0)
