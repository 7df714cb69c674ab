"""What a crash leaves behind is found and taken away, and nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from sdtui.server.leftover import end_leftover, record_worker, remove_parts


def touch(directory: Path, name: str, age_s: float = 0.0) -> Path:
    path = directory / name
    path.touch()
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_half_written_pictures_of_a_job_go_and_those_of_others_stay(tmp_path: Path) -> None:
    mine = touch(tmp_path, ".sdtui-one-0.part")
    others = [touch(tmp_path, name) for name in (".sdtui-two-0.part", "one-0.part", ".sdtui-one-0.png", "picture.png")]
    remove_parts(tmp_path, "one")
    assert not mine.exists()
    assert all(other.exists() for other in others)


def test_old_files_of_nobody_go_and_new_ones_may_be_in_use(tmp_path: Path) -> None:
    old = touch(tmp_path, ".sdtui-0123456789abcdef.part", age_s=7200)
    new = touch(tmp_path, ".sdtui-0123456789abcde0.part")
    named = touch(tmp_path, ".sdtui-two-0.part", age_s=7200)
    remove_parts(tmp_path)
    assert (old.exists(), new.exists(), named.exists()) == (False, True, True)


def test_a_directory_that_is_gone_is_no_trouble(tmp_path: Path) -> None:
    remove_parts(tmp_path / "nowhere", "one")


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=True)


def test_the_recorded_worker_is_ended(tmp_path: Path) -> None:
    process = sleeper()
    record_worker(tmp_path / "worker.json", process.pid)
    assert end_leftover(tmp_path / "worker.json") == process.pid
    assert process.wait(10) == -9


def test_another_process_with_its_number_is_left_alone(tmp_path: Path) -> None:
    process = sleeper()
    try:
        path = tmp_path / "worker.json"
        record_worker(path, process.pid)
        path.write_bytes(path.read_bytes().replace(b'"start_time":"', b'"start_time":"9'))
        assert end_leftover(path) is None
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_without_a_readable_record_nothing_is_ended(tmp_path: Path) -> None:
    assert end_leftover(tmp_path / "none.json") is None
    (tmp_path / "bad.json").write_bytes(b"{")
    assert end_leftover(tmp_path / "bad.json") is None
    record_worker(tmp_path / "gone.json", 2**22 + 1)
    assert not (tmp_path / "gone.json").exists()
