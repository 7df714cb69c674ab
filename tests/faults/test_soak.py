"""What the soak would say if something were lost, made twice, broken, different, or leaking."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import msgspec
from PIL import Image

from sdtui.bench.figures import Figure
from sdtui.bench.soak import Plan, _leaks, _losses, _memory, soak_job
from sdtui.bench.soak_run import Life, Sample, Session
from sdtui.protocol import JobRow

PLAN = Plan(jobs=3)


def a_session(pictures: Path) -> Session:
    """Three jobs that went well, with their pictures."""
    pictures.mkdir()
    session = Session()
    chance = random.Random(1)
    for number in range(PLAN.jobs):
        submit = soak_job(number, pictures, chance)
        count = submit.params.batch_size * submit.params.batch_count
        paths = [pictures / f"{submit.job}-{index}.png" for index in range(count)]
        for path in paths:
            Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
        session.submitted[submit.job] = submit
        session.rows[submit.job] = JobRow(
            job=submit.job, state="done", params=submit.params, created_at=1.0, images=tuple(map(str, paths))
        )
    return session


def values(figures: list[Figure]) -> dict[str, float]:
    return {figure.name: figure.value for figure in figures}


def changed(session: Session, job: str, **fields: Any) -> None:
    session.rows[job] = msgspec.structs.replace(session.rows[job], **fields)


def test_where_all_went_well_every_count_is_zero(tmp_path: Path) -> None:
    figures = _losses(a_session(tmp_path / "p"), tmp_path / "p", PLAN)
    assert set(values(figures).values()) == {0}
    assert all(figure.met for figure in figures)


def test_a_job_that_did_not_end_well_or_is_gone_is_lost(tmp_path: Path) -> None:
    session = a_session(tmp_path / "p")
    changed(session, "soak-0000", state="failed")
    del session.rows["soak-0001"]
    assert values(_losses(session, tmp_path / "p", PLAN))["jobs lost"] == 2


def test_a_second_picture_a_broken_one_and_a_half_written_one_are_counted(tmp_path: Path) -> None:
    session = a_session(tmp_path / "p")
    Image.new("RGB", (8, 8)).save(tmp_path / "p" / "soak-0000-0-2.png")
    (tmp_path / "p" / ".sdtui-soak-0001-0.part").write_bytes(b"\x89PNG")
    (tmp_path / "p" / "soak-0002-0.png").write_bytes(b"")
    changed(session, "soak-0002", images=())
    found = values(_losses(session, tmp_path / "p", PLAN))
    assert found["second images"] == 1
    assert found["pictures that do not open"] == 2
    assert found["pictures not as the database has them"] >= 1


def test_a_picture_that_differs_is_counted(tmp_path: Path) -> None:
    session = a_session(tmp_path / "p")
    first, second, third = (f"{tmp_path}/p/soak-000{number}-0.png" for number in range(3))
    session.compared = [(first, first), (second, third)]
    assert values(_losses(session, tmp_path / "p", PLAN))["pictures that differ from undisturbed runs"] == 1


def test_memory_files_and_threads_that_grow_are_told(tmp_path: Path) -> None:
    session = Session()
    server, worker = Life("server", os.getpid()), Life("worker", os.getpid())
    server.samples = [Sample(100_000_000 + number * 100_000, 20, 3) for number in range(200)]
    worker.samples = [Sample(300_000_000, 20 + number // 10, 3) for number in range(100)]
    session.lives = [server, worker]
    memory, leaks = _memory(session), _leaks(session)
    found = values(memory)
    assert found["memory of the last server"] > 1.1
    assert found["memory of the last worker"] == 1.0
    assert found["memory of the last server, last 100 jobs"] > 1.05
    assert [figure.met for figure in memory] == [False, False, True, True]
    assert values(leaks)["files more at the end, last worker"] == 8
    assert values(leaks)["threads more at the end, last worker"] == values(leaks)["files more at the end, last server"] == 0


def test_the_same_seed_gives_the_same_jobs(tmp_path: Path) -> None:
    one, same, other = ([soak_job(number, tmp_path, random.Random(seed)) for number in range(5)] for seed in (1, 1, 2))
    assert one == same != other
