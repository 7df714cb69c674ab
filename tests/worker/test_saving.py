"""Each picture is saved exactly once, wherever the process dies; a disk that is full costs patience and nothing else."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sdtui.ledger import Ledger
from sdtui.metadata import ImageRecord, StorageProblem, UnsavedPicture, read_png
from sdtui.params import GenerationParams
from sdtui.protocol import ImageSaved, JobFinished, ResumePoint, StorageFreed, StorageFull
from sdtui.worker import saving
from sdtui.worker.errors import Cancelled, JobProblem
from sdtui.worker.models import LoadedModel

from .desk import Desk, same

SYSCALLS = ("open", "write", "fsync", "fdatasync", "link", "replace", "unlink", "ftruncate", "close")
RECORD = ImageRecord(
    params=GenerationParams(prompt="a", seed=7, width=8, height=8), model_name="m", scheduler_class="S", job="j1", first_seed=7,
    version="1", torch="2", diffusers="0", device="cpu", dtype="float32", created_at="2026-01-01T00:00:00+00:00", elapsed_s=1.0,
)  # fmt: skip


def a_picture(directory: Path) -> UnsavedPicture:
    return UnsavedPicture(Image.new("RGB", (8, 8), (1, 2, 3)), directory, "{seed}", RECORD)


def run_until_killed(root: Path, at: int) -> int:
    """Save a picture in a process that ends, without any clean-up, before its `at`th call of the system; its exit code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    count = 0

    def dying(real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == at:
                os._exit(9)
            return real(*args, **kwargs)

        return call

    try:
        for name in SYSCALLS:
            setattr(os, name, dying(getattr(os, name)))
        a_picture(root / "out").save(Ledger(root))
        os._exit(0)
    finally:
        os._exit(1)


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
def test_a_picture_is_saved_once_wherever_the_process_dies(tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not links:

        def refuse(*_: Any, **__: Any) -> None:
            raise PermissionError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "link", refuse)
    died = 0
    for at in range(1, 100):
        root = tmp_path / str(at)
        (root / "out").mkdir(parents=True)
        code = run_until_killed(root, at)
        found = a_picture(root / "out").save(Ledger(root))
        assert [path.name for path in (root / "out").iterdir()] == ["7.png"], f"killed before call {at}"
        assert read_png(Path(found.path)).record == RECORD
        assert a_picture(root / "out").save(Ledger(root)) == found
        assert len((root / "saved.jsonl").read_bytes().splitlines()) == 1
        if code == 0:
            break
        assert code == 9
        died += 1
    assert died > 10, "the calls of the system were not met"


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("name", ["write", "fsync", "fdatasync", "link", "open"])
def test_a_disk_that_fails_at_any_call_can_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: int
) -> None:
    picture, ledger = a_picture(tmp_path / "out"), Ledger(tmp_path)
    failed = 0
    for at in range(1, 10):
        count = 0
        real = getattr(os, name)

        def call(*args: Any, at: int = at, real: Any = real, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == at:
                raise OSError(error, os.strerror(error))
            return real(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(os, name, call)
            try:
                picture.save(ledger)
            except StorageProblem as problem:
                assert str(tmp_path) in problem.path and problem.needed_bytes > 0
                failed += 1
    assert failed
    saved = picture.save(ledger)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [Path(saved.path).name]
    assert Ledger(tmp_path).saved == {0: saved}


# --- in a job ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def desk(model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(saving, "RETRY_S", 0.01)
    monkeypatch.setattr(saving, "_LOOK_S", 0.001)
    return Desk(model, tmp_path)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """`full_disk(n)`: the next n pictures do not fit."""
    left = 0
    real = os.fsync

    def fsync(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    def fill(tries: int) -> None:
        nonlocal left
        left = tries
        monkeypatch.setattr(os, "fsync", fsync)

    return fill


def test_a_full_disk_is_waited_for_and_told_once(desk: Desk, full_disk: Callable[[int], None]) -> None:
    whole = desk.run(desk.submit("whole", scheduler="euler"))
    full_disk(5)
    assert same(whole, desk.run(desk.submit("late", scheduler="euler")))
    kinds = [type(event) for event in desk.events if isinstance(event, (StorageFull, StorageFreed, ImageSaved, JobFinished))]
    assert kinds == [StorageFull, StorageFreed, ImageSaved, JobFinished]
    told = desk.of(StorageFull)[0]
    assert told.path == str(desk.root / "out-late") and told.needed_bytes > 0
    assert told.path in told.message and "are free" in told.message and "by itself" in told.message


@pytest.mark.parametrize("stop", ["now", "pause", "after_step"])
def test_a_job_that_waits_for_the_disk_can_be_stopped_and_loses_no_step(
    desk: Desk, full_disk: Callable[[int], None], stop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = desk.run(desk.submit("whole", scheduler="euler"))
    full_disk(1_000_000)
    stopped = desk.run(desk.submit("late", scheduler="euler"), stop=stop, at=lambda event: isinstance(event, StorageFull))
    assert isinstance(stopped, Cancelled) and stopped.stop == stop and stopped.progress.steps_done == 5
    assert not list((desk.root / "out-late").iterdir())
    full_disk(0)
    assert same(whole, desk.run(desk.submit("late", ResumePoint(seed=7, steps_done=5), scheduler="euler")))
    assert desk.network_calls == 0


def test_an_output_directory_that_vanished_is_made_again(desk: Desk) -> None:
    submit = desk.submit(scheduler="euler")

    def remove(event: Any) -> bool:
        if getattr(event, "stage", "") == "denoise":
            (desk.root / "out-j1").rmdir() if (desk.root / "out-j1").exists() else None
        return False

    paths = desk.run(submit, stop="now", at=remove)
    assert isinstance(paths, list) and Path(paths[0]).is_file()


def test_a_directory_that_may_not_be_written_ends_the_job(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from sdtui.metadata import OutputError

    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OutputError, match="Permission denied"):
        desk.run(desk.submit())


def test_a_disk_that_is_full_at_the_start_may_have_room_at_the_end(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from sdtui.worker import generate

    def refuse(_: Path, error: int) -> None:
        raise StorageProblem("full", "/x", 0) from OSError(error, os.strerror(error))

    monkeypatch.setattr(generate, "prepare_output", lambda path: refuse(path, errno.ENOSPC))
    assert isinstance(desk.run(desk.submit()), list)
    monkeypatch.setattr(generate, "prepare_output", lambda path: refuse(path, errno.EROFS))
    with pytest.raises(JobProblem):
        desk.run(desk.submit("other"))


def test_the_warm_up_needs_no_disk(desk: Desk, full_disk: Callable[[int], None]) -> None:
    from sdtui.worker.warm_up import warm_up

    full_disk(1_000_000)
    warm_up(desk.model, lambda: False)
    assert not list(desk.root.iterdir())
