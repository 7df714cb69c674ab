"""What an inspected job leaves on disk, and that no disk, no end and no shortage of memory makes that cost the job."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from sdtui.answers import guidance_maps
from sdtui.inspected import InspectedFile, files_of, inspected_path, newest, tape_of
from sdtui.protocol import ImageSaved, JobFinished, JobInspected, MemoryRanOut, ResumePoint, StageFinished, Submit
from sdtui.words import word_map, words_of
from sdtui.worker import inspection, journal
from sdtui.worker.errors import Cancelled
from sdtui.worker.models import LoadedModel

from .desk import STEPS, Desk, after_step, same

ASKED = STEPS + 1  # PNDM asks once more


@pytest.fixture
def desk(model: LoadedModel, tmp_path: Path) -> Desk:
    return Desk(model, tmp_path)


def with_words(submit: Submit, **fields: Any) -> Submit:
    return msgspec.structs.replace(submit, words=True, **fields)


def test_each_batch_has_a_file_that_is_told_when_its_pictures_are_saved(desk: Desk) -> None:
    desk.run(with_words(desk.submit(batch_size=2, batch_count=2)))
    kinds = [type(event) for event in desk.events if isinstance(event, ImageSaved | JobInspected | JobFinished)]
    assert kinds == [ImageSaved, ImageSaved, JobInspected, ImageSaved, ImageSaved, JobInspected, JobFinished]
    told = desk.of(JobInspected)
    assert [event.batch_index for event in told] == [0, 1] and [event.words for event in told] == [3, 3]
    files = files_of(desk.directory())
    assert [str(path) for path in files] == [event.path for event in told] and newest(desk.root / "tapes", words=True) in files
    facts = InspectedFile(files[1]).facts
    assert (facts.job, facts.batch_index, facts.seeds, facts.steps) == ("j1", 1, (9, 10), STEPS)
    assert (facts.width_px, facts.height_px, facts.prompt) == (64, 64, "a red cat")
    assert facts.words is not None and facts.words.steps == ASKED
    assert [word.text for word in words_of(facts.words)] == ["a", "red", "cat"]


def test_word_maps_and_guidance_are_there_for_each_picture_of_a_batch(desk: Desk) -> None:
    desk.run(with_words(desk.submit(batch_size=2)))
    file = InspectedFile(files_of(desk.directory())[0])
    assert file.facts.words is not None
    cat = words_of(file.facts.words)[-1]
    one, other = (word_map(file, cat, image) for image in range(2))
    assert one.shape == other.shape == (8, 8) and one.min() > 0 and not np.array_equal(one, other)
    guidance = guidance_maps(tape_of(file.path))
    assert len(guidance) == ASKED and guidance[0].shape == (2, 8, 8) and guidance[0].min() >= 0 < guidance[0].max()


def test_activations_and_words_lie_in_one_file(desk: Desk) -> None:
    desk.run(with_words(desk.submit(batch_size=2), inspect="blocks"))
    (told,) = desk.of(JobInspected)
    file = InspectedFile(Path(told.path))
    assert told.modules == len(file.facts.sheets) > 10 and told.words == 3 and file.facts.words is not None
    assert {facts.network for facts in file.facts.sheets} == {"unet", "vae", "text_encoder"}
    for index, facts in enumerate(file.facts.sheets):
        sheet, histogram = file.array(f"sheet/{index}"), file.array(f"histogram/{index}")
        assert sheet.ndim == 3 and sheet.dtype == np.uint8 and len(sheet) <= facts.channels
        assert histogram.dtype == np.int64 and histogram.sum() > 0
    found = file.sheet("unet", "mid_block.attentions.0.transformer_blocks.0")
    assert found is not None and found[0].step_index is not None


def test_activations_alone_are_kept_too(desk: Desk) -> None:
    desk.run(msgspec.structs.replace(desk.submit(), inspect="blocks"))
    (told,) = desk.of(JobInspected)
    assert told.modules > 10 and told.words == 0 and InspectedFile(Path(told.path)).facts.words is None
    assert newest(desk.root / "tapes", words=True) is None and newest(desk.root / "tapes") == Path(told.path)


def test_a_job_that_nobody_inspects_leaves_nothing(desk: Desk) -> None:
    desk.run(desk.submit())
    assert not desk.of(JobInspected) and not files_of(desk.directory())


def test_a_resumed_job_has_maps_of_the_steps_that_it_made(desk: Desk) -> None:
    submit = with_words(desk.submit(scheduler="euler_a"))
    assert isinstance(desk.run(submit, stop="pause", at=after_step(1)), Cancelled)
    assert not desk.of(JobInspected)
    desk.run(msgspec.structs.replace(submit, resume=ResumePoint(batch_index=0, steps_done=2, seed=7)))
    facts = InspectedFile(files_of(desk.directory())[0]).facts
    assert facts.words is not None and (facts.words.steps, facts.steps) == (STEPS - 2, STEPS)


def test_a_resumed_job_that_made_no_step_has_no_maps(desk: Desk) -> None:
    submit = with_words(desk.submit(scheduler="euler_a"))
    assert isinstance(desk.run(submit, stop="pause", at=after_step(STEPS - 1)), Cancelled)
    desk.run(msgspec.structs.replace(submit, resume=ResumePoint(batch_index=0, steps_done=STEPS, seed=7)))
    assert desk.of(JobFinished) and not desk.of(JobInspected)


def test_parts_of_a_batch_that_memory_split_have_a_file_each(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = desk.run(desk.submit("whole", batch_size=3))
    unet = desk.model.pipe.unet

    def refuse(_module: object, arguments: tuple[torch.Tensor, ...]) -> None:
        if arguments[0].shape[0] > 2 * 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes.")

    handle = unet.mid_block.register_forward_pre_hook(refuse)
    try:
        split = desk.run(with_words(desk.submit("split", batch_size=3)))
    finally:
        handle.remove()
    assert desk.of(MemoryRanOut) and isinstance(split, list) and len(split) == len(whole)
    files = [InspectedFile(Path(event.path)) for event in desk.of(JobInspected)]
    assert sum(len(file.facts.seeds) for file in files) == 3 and len(files) > 1
    assert [seed for file in files for seed in file.facts.seeds] == [7, 8, 9]
    for file in files:
        assert file.facts.batch_index == 0 and file.facts.words is not None and file.facts.words.steps == ASKED
        maps = file.array("words/8x8")
        assert len(maps) == len(file.facts.seeds) and np.isfinite(maps).all()
        assert len(guidance_maps(tape_of(file.path))[0]) == len(file.facts.seeds)


def test_a_full_disk_costs_the_file_and_not_the_job(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    plain = desk.run(desk.submit("plain"))
    monkeypatch.setattr(inspection, "write_inspected", full)
    with caplog.at_level(logging.WARNING):
        seen = desk.run(with_words(desk.submit("full")))
    assert same(plain, seen) and desk.of(JobFinished) and not desk.of(JobInspected)
    assert "what was inspected is not kept" in caplog.text and "No space left" in caplog.text


def test_a_job_without_a_directory_is_made_all_the_same(
    model: LoadedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from sdtui.worker.generate import run_job

    events: list[Any] = []
    submit = with_words(Desk(model, tmp_path).submit())
    with caplog.at_level(logging.INFO):
        paths = run_job(model, submit, emit=events.append, cancelled=lambda: False)
    assert len(paths) == 1 and not any(isinstance(event, JobInspected) for event in events)
    assert "has no directory" in caplog.text


def test_a_network_without_cross_attention_says_so(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "cross_attentions", lambda _: [])
    assert isinstance(desk.run(with_words(desk.submit())), list)
    denoise = next(event for event in desk.of(StageFinished) if event.stage == "denoise")
    assert "no maps of words: UNet2DConditionModel has no cross-attention to the prompt's tokens" in denoise.detail
    assert not desk.of(JobInspected)


def test_hostile_prompts_are_kept_harmless(desk: Desk) -> None:
    desk.run(with_words(desk.submit(prompt="[bold]cat[/] \x1b[31mred\x07 <|endoftext|> \U000e0041 cat")))
    facts = InspectedFile(files_of(desk.directory())[0]).facts
    assert facts.words is not None and "\x1b" not in facts.prompt
    assert [word.text for word in words_of(facts.words)][-1] == "cat"


def test_files_and_tapes_are_named_after_each_other(tmp_path: Path) -> None:
    assert inspected_path(tmp_path, 3).name == "inspected-0003.safetensors"
    assert tape_of(inspected_path(tmp_path, 3)).name == "batch-0003.tape"
    assert tape_of(inspected_path(tmp_path / "inspected", 3, (2, 1))) == tmp_path / "inspected" / "batch-0003-002-001.tape"
    assert journal.inspected_path is inspected_path
