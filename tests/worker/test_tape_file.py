"""A tape gives back what was written to it, or a beginning of that: never anything else."""

from __future__ import annotations

import errno
import functools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from sdtui import ledger, tape
from sdtui.ledger import JobLock, Ledger, SavedPicture
from sdtui.tape import Tape, TapeError, job_directory, read_tape, steps_done

FINGERPRINT = {"format": tape.FORMAT, "seeds": [7], "torch": "2.13", "scheduler_config": {"beta": 0.1, "steps": 5}}
HEAD_BYTES = 28


@functools.cache
def payload(index: int, step: int | None = None) -> bytes:
    """Always the same bytes: safetensors itself puts the facts into another order each time."""
    facts = {
        "call": str(index),
        "step": str(index if step is None else step),
        "timestep": "3.5",
        "elapsed_s": "0.25",
        "form": "tuple",
    }
    return save({"0": torch.full((2, 4), float(index))}, facts)


def write(path: Path, calls: int, fingerprint: dict[str, Any] = FINGERPRINT) -> list[bytes]:
    payloads = [payload(index) for index in range(calls)]
    written = Tape(path, fingerprint)
    for one in payloads:
        written.append(one)
    written.close()
    return payloads


def reread(path: Path, fingerprint: dict[str, Any] = FINGERPRINT) -> tuple[list[bytes], str]:
    found = Tape(path, fingerprint)
    try:
        return [found.read(call) for call in found.calls], found.begun_anew
    finally:
        found.close()


def test_what_was_recorded_is_read_again_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "t.tape"
    payloads = write(path, 3)
    again = Tape(path, FINGERPRINT)
    again.append(payload(3))
    assert [(call.index, call.step_index, call.timestep, call.elapsed_s) for call in again.calls][-1] == (3, 3, 3.5, 0.25)
    again.close()
    found, why = reread(path)
    assert found == [*payloads, payload(3)] and not why
    assert torch.equal(load(found[2])["0"], torch.full((2, 4), 2.0))
    assert read_tape(path)[0] == FINGERPRINT and len(read_tape(path)[1]) == 4


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_tape_cut_or_changed_anywhere_gives_a_beginning_of_what_was_written(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "t.tape"
    path.unlink(missing_ok=True)
    payloads = write(path, 4)
    whole = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        del whole[at:]
    else:
        whole[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(whole)
    found, _ = reread(path)
    assert found == payloads[: len(found)]
    ends = [len(tape.record(tape._as_json(FINGERPRINT)))]
    for one in payloads:
        ends.append(ends[-1] + HEAD_BYTES + len(one))
    untouched = sum(at >= end for end in ends)
    assert len(found) >= untouched - 1, "whole records before the damage were dropped"
    goes_on = Tape(path, FINGERPRINT)
    goes_on.append(payload(len(found)))
    goes_on.close()
    assert reread(path)[0] == [*payloads[: len(found)], payload(len(found))], "the damaged end was not cut off"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"torch": "2.14"}, 'torch was "2.13" and is "2.14"'),
        ({"seeds": [8]}, "seeds was [7] and is [8]"),
        ({"scheduler_config": {"beta": 0.2, "steps": 5}}, 'scheduler_config was {"beta": 0.1} and is {"beta": 0.2}'),
        ({"threads": 2}, "threads was null and is 2"),
        ({"format": 2}, "the tape has format 1, and this version writes format 2"),
    ],
)
def test_a_tape_of_another_run_is_begun_anew_and_says_what_differs(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    path = tmp_path / "t.tape"
    write(path, 3)
    found, why = reread(path, FINGERPRINT | change)
    assert (found, why) == ([], says)
    assert reread(path, FINGERPRINT | change) == ([], "")


def test_a_file_that_is_no_tape_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "t.tape").write_bytes(b"\x89PNG something else" * 100)
    found, why = reread(tmp_path / "t.tape")
    assert not found and "damaged" in why
    with pytest.raises(TapeError):
        (tmp_path / "u.tape").write_bytes(b"")
        read_tape(tmp_path / "u.tape")


def test_a_disk_that_fills_leaves_whole_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.tape"
    payloads = write(path, 2)
    open_tape = Tape(path, FINGERPRINT)
    real = os.write

    def half(descriptor: int, data: Any) -> int:
        if len(data) < 100:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, bytes(data)[:90])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="No space"):
        open_tape.append(payload(2))
    monkeypatch.undo()
    assert reread(path)[0] == payloads
    open_tape.append(payload(2))
    open_tape.close()
    assert reread(path)[0] == [*payloads, payload(2)]


def test_a_step_counts_when_it_has_all_its_calls(tmp_path: Path) -> None:
    two_a_step = Tape(tmp_path / "t.tape", FINGERPRINT)
    counts = []
    for index in range(5):
        two_a_step.append(payload(index, step=index // 2))
        counts.append(steps_done(two_a_step.calls))
    two_a_step.close()
    assert counts[1:] == [1, 1, 2, 2]
    assert steps_done([]) == 0


@pytest.mark.parametrize("name", ["..", ".", "../x", "a/b", "", "x" * 65, "-x", "a\x00b", "\n"])
def test_a_jobs_name_cannot_leave_the_directory(tmp_path: Path, name: str) -> None:
    with pytest.raises(TapeError, match="cannot be a directory's name"):
        job_directory(tmp_path, name)
    assert job_directory(tmp_path, "20260101-120000-ab12") == tmp_path / "20260101-120000-ab12"


# --- the ledger -----------------------------------------------------------------------------------------------------


def a_picture(index: int, path: str = "/p.png") -> SavedPicture:
    return SavedPicture(image_index=index, path=path, seed=7 + index, width_px=8, height_px=8, size_bytes=3)


def test_the_ledger_is_read_again_without_a_torn_line(tmp_path: Path) -> None:
    first = Ledger(tmp_path)
    first.add(a_picture(0))
    first.add(a_picture(1))
    with (tmp_path / "saved.jsonl").open("ab") as file:
        file.write(b'{"image_index":2,"pa')
    again = Ledger(tmp_path)
    assert again.saved == {0: a_picture(0), 1: a_picture(1)}
    again.add(a_picture(2))
    assert set(Ledger(tmp_path).saved) == {0, 1, 2}, "a torn line swallowed the one behind it"
    assert len((tmp_path / "saved.jsonl").read_bytes().splitlines()) == 3


def test_a_picture_that_was_about_to_be_saved_counts_by_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    found = Ledger(tmp_path)
    found.announce(a_picture(0, str(path)), ledger.file_digest(b"abc"))
    assert Ledger(tmp_path).find(0) is None, "it never got its name"
    path.write_bytes(b"xyz")
    assert Ledger(tmp_path).find(0) is None, "somebody else's file"
    path.write_bytes(b"abc")
    assert Ledger(tmp_path).find(0) == a_picture(0, str(path))
    assert Ledger(tmp_path).saved == {0: a_picture(0, str(path))}


# --- one worker a job -----------------------------------------------------------------------------------------------


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds the job, until its stdin ends."""
    code = "import sys; from pathlib import Path; from sdtui.ledger import JobLock; "
    code += f"JobLock(Path({str(tmp_path)!r})); print(flush=True); sys.stdin.read()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()


def test_a_job_that_another_worker_holds_is_waited_for(tmp_path: Path, holder: subprocess.Popen[bytes]) -> None:
    def let_go() -> None:
        holder.kill()

    JobLock(tmp_path, wait_s=60, look=let_go).release()


def test_a_job_that_another_worker_keeps_is_refused(tmp_path: Path, holder: subprocess.Popen[bytes]) -> None:
    with pytest.raises(TapeError, match="Another worker still runs this job"):
        JobLock(tmp_path, wait_s=0.0)
    began = time.monotonic()
    with pytest.raises(KeyError):
        JobLock(tmp_path, wait_s=600, look=lambda: {}["asked to stop"])
    assert time.monotonic() - began < 300
