"""An older database becomes a newer one, whole or not at all."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import msgspec
import pytest

import sdtui
from sdtui import settings
from sdtui.params import GenerationParams
from sdtui.protocol import JobStarted, Submit, encode
from sdtui.protocol.wire import HEADER_BYTES
from sdtui.server import schema
from sdtui.server.database import Database
from sdtui.server.schema import MIGRATIONS, SCHEMA_VERSION
from sdtui.server.store import Store

PARAMS = GenerationParams(prompt="a red cat", seed=7)


@pytest.fixture
def old(home: Path) -> Path:
    """A database as the first version left it: a job of each state, one with a picture that is listed twice."""
    path = settings.database_path()
    path.parent.mkdir(parents=True)
    connection = sqlite3.connect(path)
    connection.executescript(MIGRATIONS[0] + "PRAGMA user_version = 1;")
    pack = msgspec.msgpack.encode
    for number, state in enumerate(("done", "failed", "cancelled", "running", "queued", "queued"), start=1):
        name = f"job-{number}"
        submit = Submit(job=name, params=PARAMS, output_dir="/pictures")
        ended = 3.0 if state in ("done", "failed", "cancelled") else None
        row = (number, name, state, pack(submit), pack(PARAMS), 1.0, 2.0, ended, "why" if state == "failed" else None)
        connection.execute("INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        event = encode(JobStarted(job=name, seed=7, params=PARAMS, total_images=1))[HEADER_BYTES:]
        connection.execute("INSERT INTO events VALUES (?, ?, 2.0, 'job_started', ?)", (number, name, event))
    for _ in range(2):
        connection.execute("INSERT INTO images VALUES (NULL, 'job-1', '/a.png', 7, 0, 128, 128, 9, 2.5)")
    connection.commit()
    connection.close()
    return path


def version_and_states(path: Path) -> tuple[int, dict[str, str]]:
    connection = sqlite3.connect(path)
    found = schema.version_of(connection), dict(connection.execute("SELECT job, state FROM jobs"))
    connection.close()
    return found


async def test_an_older_database_keeps_all_it_holds(old: Path) -> None:
    before = version_and_states(old)
    store = await Store.open(old)
    rows = {row.job: row for row in await store.jobs("all", 10)}
    assert {name: row.state for name, row in rows.items()} == before[1]
    assert (rows["job-1"].images, rows["job-2"].reason, rows["job-1"].params) == (("/a.png",), "why", PARAMS)
    assert [job.name for job in await store.unended()] == ["job-4", "job-5", "job-6"]
    ranks = [job.rank for job in await store.unended()]
    assert ranks == sorted(set(ranks)), "they run in the order they came"
    assert len(await store.events("job-3", 0, 10)) == 1
    await store.close()


async def test_what_was_before_is_kept_beside_it(old: Path) -> None:
    before = version_and_states(old)
    await (await Store.open(old)).close()
    copy = old.with_name(f"{old.name}.version-1")
    assert version_and_states(copy) == before
    assert copy.stat().st_mode & 0o777 == 0o600
    assert version_and_states(old)[0] == SCHEMA_VERSION


async def test_the_version_table_says_which_sdtui_did_it(old: Path) -> None:
    await (await Store.open(old)).close()
    connection = sqlite3.connect(old)
    ((version, at, by),) = connection.execute("SELECT * FROM schema_versions").fetchall()
    connection.close()
    assert (version, by) == (2, sdtui.__version__)
    assert 0 <= time.time() - at < 3600


def test_a_step_that_fails_leaves_the_database_as_it_was(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = version_and_states(old)
    broken = MIGRATIONS[1] + "INSERT INTO nowhere VALUES (1);"
    monkeypatch.setattr(schema, "MIGRATIONS", (MIGRATIONS[0], broken))
    with pytest.raises(schema.DatabaseError, match="nowhere"):
        Database(old)
    assert version_and_states(old) == before
    monkeypatch.undo()
    Database(old).close()
    assert version_and_states(old)[0] == SCHEMA_VERSION


def test_a_new_database_is_like_an_upgraded_one(old: Path, tmp_path: Path) -> None:
    def tables(path: Path) -> list[str]:
        Database(path).close()
        connection = sqlite3.connect(path)
        found = [row[0] for row in connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name")]
        connection.close()
        return found

    assert tables(old) == tables(tmp_path / "new.sqlite3")
