"""Which job the Timeline screen shows: what Create follows, what is chosen, what grows, and what is said where nothing is."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sdtui.protocol import (
    BranchPoint,
    GetJob,
    JobDeleted,
    JobFinished,
    JobRow,
    Jobs,
    JobStarted,
    ListJobs,
    Message,
    QueueChanged,
    StepFinished,
)
from sdtui.settings import tapes_dir
from sdtui.tape import record
from sdtui.trajectory import INITIAL, Trajectory
from sdtui.ui.screens.chooser import Chooser
from sdtui.ui.screens.timeline import NO_JOB
from tests.ui.scripted import step_event
from tests.ui.scripted_queue import ScriptedQueue, row
from tests.ui.stage import Stage, stage, until
from tests.ui.timeline_jobs import grow, notice, open_timeline, press, settled, timeline, write_steps


def name(number: int) -> str:
    """As in `ScriptedQueue`."""
    return f"20260101-000000-{number:04d}"


class ScriptedTimeline(ScriptedQueue):
    """Lists all jobs, too, in pages as small as is wanted."""

    page = 200

    def _answer(self, command: Message) -> list[Message] | None:
        if isinstance(command, ListJobs) and command.which == "all":
            found = tuple(self.rows[command.offset : command.offset + min(command.limit, self.page)])
            return [Jobs(jobs=found, total=len(self.rows), which="all", offset=command.offset)]
        return super()._answer(command)


def family() -> list[JobRow]:
    """A parent with two branches, one of which has a branch, and one job alone."""

    def branch(number: int, of: int, step: int) -> JobRow:
        return row(number, "done", branch=BranchPoint(job=name(of), step=step))

    return [row(9, "done"), branch(4, 1, 5), branch(3, 2, 4), branch(2, 1, 3), row(1, "done")]


def write_family() -> None:
    for age, number in enumerate((9, 4, 3, 2, 1)):
        write_steps(name(number), age_s=age, prompt=f"a red cat {number}")


async def choose(running: Stage, key: str, *more: str) -> list[str]:
    """Open the list with a key, press others, and return its lines."""
    screen = running.app.screen
    await running.pilot.press(key)
    await until(lambda: isinstance(running.app.screen, Chooser), "the list")
    chooser = running.app.screen
    assert isinstance(chooser, Chooser)
    lines = [label for _, label in chooser._choices]
    await running.pilot.press(*more)
    if more:
        await until(lambda: running.app.screen is screen, "the list is closed")
    return lines


# --- which job ------------------------------------------------------------------------------------------------------


async def test_the_newest_recorded_job_is_shown_while_create_follows_none() -> None:
    write_steps(name(1), age_s=10)
    write_steps(name(2), age_s=5)
    async with stage(ScriptedTimeline([])) as running:
        assert (await open_timeline(running)).job == name(2)


async def test_the_job_that_create_follows_is_shown_once() -> None:
    write_steps(name(1), age_s=10)
    write_steps(name(2), age_s=5)
    client = ScriptedTimeline([row(1, "running", steps_done=3, total_steps=6)])
    client.welcome = msgspec.structs.replace(client.welcome, jobs=tuple(client.rows), queue=client.status())
    async with stage(client) as running:
        await until(lambda: running.screen.following.job == name(1), "it is followed")
        screen = await open_timeline(running)
        await until(lambda: screen.job == name(1), "the followed job")
        await press(running, "full_stop")
        await until(lambda: screen.job == name(2), "the newer one")
        await running.pilot.press("alt+1", "alt+3")
        await running.pilot.pause()
        assert screen.job == name(2)  # what was chosen stays


async def test_a_followed_job_without_steps_leaves_the_newest_one_there() -> None:
    write_steps(name(2))
    async with stage(ScriptedTimeline([])) as running:
        running.screen.following.follow(name(1))
        running.screen.following.over = True
        assert (await open_timeline(running)).job == name(2)


async def test_a_key_of_the_queue_shows_the_steps_of_its_job() -> None:
    write_steps(name(6))
    async with stage(ScriptedTimeline()) as running:
        await running.open_queue()
        await running.select(6)
        await running.pilot.press("t")
        await until(lambda: running.app.screen is running.app._made.get("timeline"), "the screen")
        screen = timeline(running)
        await until(lambda: screen.job == name(6) and screen.record is not None, "the job")


async def test_a_job_is_opened_at_a_step() -> None:
    write_steps(name(1), steps=8)
    async with stage(ScriptedTimeline([])) as running:
        for step, shown in ((3, 3), (INITIAL, INITIAL), (99, 7)):
            await running.app.show_timeline(name(1), step)
            screen = timeline(running)
            await until(lambda screen=screen, shown=shown: screen.record is not None and screen.step == shown, "the step")


async def test_older_and_newer_jobs_are_turned_to_until_there_is_none() -> None:
    for number in (1, 2, 3):
        write_steps(name(number), age_s=-number)
    async with stage(ScriptedTimeline([])) as running:
        screen = await open_timeline(running)
        await running.pilot.press("comma")
        await until(lambda: screen.job == name(2), "the older one")
        await running.pilot.press("comma")
        await until(lambda: screen.job == name(1), "the oldest one")
        await running.pilot.press("comma")
        await until(lambda: "There is no older job" in notice(screen), "the notice")
        await running.pilot.press("left")
        assert notice(screen) == ""


async def test_the_pictures_of_a_batch_then_the_next_batch_are_turned_to() -> None:
    for batch in (0, 1):
        write_steps(name(1), batch=batch, pictures=2, batch_count=2)
    async with stage(ScriptedTimeline([]), size=(120, 36)) as running:
        screen = await open_timeline(running)
        await press(running, "left")
        seen = []
        for key in ("w", "w", "w", "w", "W"):
            before = screen.record
            await running.pilot.press(key)
            await until(lambda before=before: screen.record is not before, "another picture")
            await settled(screen)
            record = screen.record
            assert record is not None
            seen.append((record.facts.batch_index, record.picture_in_batch, record.seed, screen.step))
        assert seen == [(0, 1, 8, 4), (1, 0, 7, 4), (1, 1, 8, 4), (0, 0, 7, 4), (1, 1, 8, 4)]
        assert "2/2 of batch 2/2" in running.screen_text()


# --- the list and the family ----------------------------------------------------------------------------------------


async def test_the_list_shows_branches_below_their_parents_with_states_and_prompts() -> None:
    write_family()
    write_steps(name(7), age_s=20, prompt="of no server")
    async with stage(ScriptedTimeline(family()), size=(120, 36)) as running:
        screen = await open_timeline(running)
        lines = await choose(running, "o", "escape")
        assert [line.split("  ")[0].rstrip() for line in lines[:2]] == ["✓ 0009", "✓ 0001"]
        assert [line.index("0") // 2 for line in lines] == [1, 1, 2, 2, 3, 1]
        assert [line.strip("└ ✓·")[:4] for line in lines] == ["0009", "0001", "0004", "0002", "0003", "0007"]
        assert "from step 5" in lines[2] and "done" in lines[2] and "a red cat 4" in lines[2]
        assert lines[5].endswith("of no server")
        assert screen.job == name(9)
        await choose(running, "o", "down", "down", "enter")
        await until(lambda: screen.job == name(4), "the branch")


async def test_one_key_goes_to_the_parent_at_the_step_of_the_branch() -> None:
    write_family()
    async with stage(ScriptedTimeline(family())) as running:
        screen = await open_timeline(running)
        assert screen.check_action("go_to_parent", ()) is None
        for job, parent, step in ((3, 2, 3), (2, 1, 2)):
            await running.app.show_timeline(name(job))
            await until(lambda job=job: screen.row is not None and screen.row.job == name(job), "what is known of it")
            await running.pilot.press("u")
            await until(lambda parent=parent: screen.job == name(parent), "the parent")
            assert screen.step == step


async def test_a_parent_that_is_gone_is_named() -> None:
    write_steps(name(4))
    async with stage(ScriptedTimeline(family()), size=(120, 36)) as running:
        screen = await open_timeline(running)
        lines = await choose(running, "o", "escape")
        assert "from step 5 of 0001" in lines[0]
        await until(lambda: screen.row is not None, "what is known of it")
        await running.pilot.press("u")
        await until(lambda: "not recorded, or were removed" in screen.one.sentence, "the sentence")
        assert screen.job == name(1)


async def test_jobs_on_later_pages_are_found() -> None:
    write_family()
    client = ScriptedTimeline(family())
    client.page = 2
    async with stage(client, size=(120, 36)) as running:
        await open_timeline(running)
        assert len([line for line in await choose(running, "o", "escape") if "done" in line]) == 5
        assert [command.offset for command in client.sent(ListJobs) if command.which == "all"] == [0, 2, 4]


async def test_without_a_server_the_files_say_what_there_is() -> None:
    write_steps(name(1), prompt="a red cat", age_s=3)
    write_steps(name(2), prompt="a blue dog")
    (tapes_dir() / name(3)).mkdir()
    (tapes_dir() / name(3) / "batch-0000.steps").write_bytes(b"torn")

    async def nobody(**_: Any) -> Any:
        raise OSError("there is none")

    async with stage(connect=nobody, size=(120, 36)) as running:
        await running.app.show_timeline(name(1))
        screen = timeline(running)
        await until(lambda: screen.record is not None, "the job")
        await until(lambda: "No server: steps can be looked at" in notice(screen), "the notice")
        lines = await choose(running, "o", "escape")
        assert [words in line for words, line in zip(("cannot be read", "a blue dog", "a red cat"), lines, strict=True)] == [
            True
        ] * 3
        await running.pilot.press("d")
        await until(lambda: "There is no server to decode with" in notice(screen), "what is said")


# --- comparing ------------------------------------------------------------------------------------------------------


async def compare(running: Stage) -> list[str]:
    screen = timeline(running)
    lines = await choose(running, "D", "enter")
    await until(lambda: screen.other is not None, "the other job")
    await settled(screen)
    return lines


async def test_two_jobs_of_as_many_steps_are_compared_step_by_step() -> None:
    write_steps(name(1), steps=6, age_s=5, prompt="the other")
    write_steps(name(2), steps=6)
    async with stage(ScriptedTimeline([]), size=(200, 60)) as running:
        screen = await open_timeline(running)
        lines = await compare(running)
        assert len(lines) == 1 and lines[0].endswith("the other")
        await press(running, "left", "left")
        assert [side.step for side in screen.sides()] == [3, 3]
        text = running.screen_text()
        assert "0002 · 4/6 · a red cat" in text and "0001 · 4/6 · the other" in text
        assert len(screen.curves._charts[0].curves) == 2
        assert screen.two.region.area and screen.two.picture.region.area
        await press(running, "D")
        assert screen.other is None and not screen.two.region.area
        assert len(screen.curves._charts[0].curves) == 1


async def test_jobs_of_other_lengths_are_compared_at_the_nearest_noise_level_and_the_title_says_so() -> None:
    write_steps(name(1), steps=20, age_s=5)
    write_steps(name(2), steps=5)
    async with stage(ScriptedTimeline([]), size=(200, 60)) as running:
        screen = await open_timeline(running)
        await compare(running)
        assert screen.record is not None and screen.other is not None
        assert notice(screen) == "5 and 20 steps: beside each one is that of the nearest noise level."
        for step, key in ((4, "left"), (3, "left"), (2, "left"), (1, "left")):
            one, other = screen.sides()
            assert one.step == step
            levels = [facts.ratio for facts in screen.other.trajectory.steps]
            level = screen.record.trajectory.steps[step].ratio
            assert other.step == min(range(20), key=lambda at: abs(levels[at] - level))
            await press(running, key)
        assert "nearest σ" in running.screen_text()
        await press(running, "home")
        assert [side.step for side in screen.sides()] == [INITIAL, INITIAL]
        await running.pilot.press("escape")
        assert screen.other is None


async def test_a_compared_job_that_is_deleted_leaves() -> None:
    write_steps(name(1), age_s=5)
    write_steps(name(2))
    client = ScriptedTimeline([])
    async with stage(client) as running:
        screen = await open_timeline(running)
        await compare(running)
        client.emit(JobDeleted(job=name(1)))
        await until(lambda: screen.other is None, "it is left")
        assert "Job 0001, which was compared, was deleted." in notice(screen)
        assert screen.job == name(2)


async def test_alone_there_is_nothing_to_compare_with() -> None:
    write_steps(name(1))
    async with stage(ScriptedTimeline([])) as running:
        screen = await open_timeline(running)
        await running.pilot.press("D")
        await until(lambda: notice(screen) == "There is no other job with recorded steps.", "the notice")


# --- growing --------------------------------------------------------------------------------------------------------


def step(job: str, index: int, total: int, batch: int = 0) -> StepFinished:
    return step_event(job, index, total, batch)


async def running_job(client: ScriptedTimeline, running: Stage, job: str) -> None:
    client.emit(QueueChanged(queued=0, running=job))
    await until(lambda: timeline(running).running == job, "it runs")


async def test_a_running_job_grows_and_is_followed_only_from_its_last_step() -> None:
    path = write_steps(name(1), steps=3, total=8)
    client = ScriptedTimeline([])
    async with stage(client, size=(120, 36)) as running:
        screen = await open_timeline(running)
        assert "Recorded up to step 3 of 8 steps." in notice(screen)
        await running_job(client, running, name(1))
        assert notice(screen) == ""
        assert "▸" in running.screen_text() or "●" in running.screen_text()
        grow(path, [3], 8)
        client.emit(step(name(1), 3, 8))
        await until(lambda: screen.step == 3, "it is followed")
        await settled(screen)
        assert "4 / 8" in running.screen_text()
        await press(running, "left")
        grow(path, [4, 5], 8)
        client.emit(step(name(1), 5, 8))
        await until(lambda: screen.record is not None and screen.record.count == 6, "it has grown")
        await until(lambda: len(next(iter(screen._figures.values())).step) == 6, "and so have the curves")
        assert screen.step == 2
        await running.pilot.pause()
        assert "▸" in running.screen_text()
        await running.pilot.press("end")
        grow(path, [6, 7], 8)
        client.emit(step(name(1), 7, 8), JobFinished(job=name(1), elapsed_s=1.0, images=()), QueueChanged(queued=0, running=None))
        await until(lambda: screen.step == 7, "its end")
        await until(lambda: screen.running is None, "it runs no more")
        assert notice(screen) == ""


async def test_steps_that_come_faster_than_they_are_read_are_all_followed() -> None:
    path = write_steps(name(1), steps=1, total=60)
    client = ScriptedTimeline([])
    async with stage(client) as running:
        screen = await open_timeline(running)
        await running_job(client, running, name(1))
        for index in range(1, 60):
            grow(path, [index], 60)
            client.emit(step(name(1), index, 60))
            if index % 7 == 0:
                await asyncio.sleep(0)
        client.emit(JobFinished(job=name(1), elapsed_s=1.0, images=()), QueueChanged(queued=0, running=None))
        await until(lambda: screen.step == 59, "the last one")
        await settled(screen)
        assert "60 / 60" in running.screen_text()


async def test_the_job_that_is_compared_grows_too() -> None:
    path = write_steps(name(1), steps=2, total=6, age_s=5)
    write_steps(name(2), steps=6)
    client = ScriptedTimeline([])
    async with stage(client, size=(160, 40)) as running:
        screen = await open_timeline(running)
        await compare(running)
        assert [side.step for side in screen.sides()] == [5, 1]
        grow(path, [2, 3], 6)
        client.emit(step(name(1), 3, 6))
        await until(lambda: [side.step for side in screen.sides()] == [5, 3], "it has grown")


async def test_a_step_that_is_told_of_before_it_is_written_is_waited_for() -> None:
    path = write_steps(name(1), steps=2, total=5)
    client = ScriptedTimeline([])
    async with stage(client) as running:
        screen = await open_timeline(running)
        await running_job(client, running, name(1))
        client.emit(step(name(1), 2, 5))
        await until(lambda: screen.growth.steps == 3, "it was told")
        grow(path, [2], 5)
        await until(lambda: screen.step == 2, "it came")


async def test_a_job_that_waits_is_shown_from_its_first_step_on() -> None:
    client = ScriptedTimeline([row(2, "queued")])
    async with stage(client) as running:
        await running.app.show_timeline(name(2))
        screen = timeline(running)
        await until(lambda: "no recorded step yet" in screen.one.sentence, "the sentence")
        assert screen.check_action("play", ()) is None
        client.change(2, state="running")
        client.emit(JobStarted(job=name(2), seed=1, params=client.rows[0].params, total_images=1))
        path = write_steps(name(2), steps=0, total=4)
        await until(lambda: screen.record is not None, "its file")
        grow(path, [0], 4)
        client.emit(step(name(2), 0, 4))
        await until(lambda: screen.step == 0, "its first step")
        await settled(screen)
        assert screen.one.sentence == ""


async def test_the_next_batch_is_followed() -> None:
    write_steps(name(1), steps=3, batch_count=2)
    client = ScriptedTimeline([])
    async with stage(client) as running:
        screen = await open_timeline(running)
        await running_job(client, running, name(1))
        write_steps(name(1), steps=1, total=3, batch=1, batch_count=2)
        client.emit(step(name(1), 0, 3, batch=1))
        await until(lambda: screen.record is not None and screen.record.facts.batch_index == 1, "the next batch")
        assert screen.step == 0


async def test_a_file_that_is_begun_anew_is_opened_again() -> None:
    path = write_steps(name(1), steps=5)
    client = ScriptedTimeline([])
    async with stage(client) as running:
        screen = await open_timeline(running)
        await running_job(client, running, name(1))
        path.unlink()
        write_steps(name(1), steps=1, total=5, prompt="another one")
        client.emit(step(name(1), 0, 5))
        await until(lambda: screen.record is not None and screen.record.params.prompt == "another one", "it is opened again")
        assert screen.step == 0


# --- what is not there ----------------------------------------------------------------------------------------------


async def test_where_nothing_is_recorded_a_sentence_says_what_to_do() -> None:
    async with stage(ScriptedTimeline([])) as running:
        screen = await open_timeline(running)
        assert screen.one.sentence == NO_JOB
        await running.pilot.press("left", "v", "space", "d", "b", "e", "D", "w", "u", "p", "end")
        await running.pilot.press("o")
        await until(lambda: "There is no job with recorded steps." in notice(screen), "the notice")


async def test_recording_that_is_off_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDTUI_WORKER_TAPE", "false")
    async with stage(ScriptedTimeline()) as running:
        screen = await open_timeline(running)
        await until(lambda: "worker.tape is off" in screen.one.sentence, "the sentence")
        await running.app.show_timeline(name(6))
        await until(lambda: "The steps of job 0006 are not recorded: worker.tape is off" in screen.one.sentence, "of a job")


def damage_version(path: Path) -> None:
    facts = msgspec.structs.replace(Trajectory(path).facts, version=99)
    path.write_bytes(record(msgspec.json.encode(facts)))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_version, "has version 99; this sdtui reads 1"),
        (lambda path: path.write_bytes(b"nothing"), "is damaged at its beginning"),
        (lambda path: path.write_bytes(record(b'{"job": 1}')), "holds no steps"),
        (lambda path: path.unlink(), "did not keep the latents"),
        (lambda path: shutil.rmtree(path.parent), "not recorded, or were removed"),
    ],
)
async def test_a_file_that_cannot_be_used_is_said_in_a_sentence(damage: Any, words: str) -> None:
    path = write_steps(name(1))
    damage(path)
    async with stage(ScriptedTimeline([])) as running:
        await running.app.show_timeline(name(1))
        screen = timeline(running)
        await until(lambda: words in screen.one.sentence, words)
        await running.pilot.press("left", "v", "d", "e", "b", "space")
        assert "Traceback" not in running.screen_text()


async def test_a_name_that_leads_elsewhere_is_refused() -> None:
    async with stage(ScriptedTimeline([])) as running:
        await running.app.show_timeline("../../etc")
        await until(lambda: "cannot be a directory's name" in timeline(running).one.sentence, "the sentence")


async def test_of_a_torn_file_is_shown_what_is_whole() -> None:
    path = write_steps(name(1), steps=6, total=6)
    os.truncate(path, path.stat().st_size - 100)
    async with stage(ScriptedTimeline([])) as running:
        screen = await open_timeline(running)
        assert screen.step == 4
        assert notice(screen) == "Recorded up to step 5 of 6 steps."
        assert "5 / 6" in running.screen_text()


async def test_steps_that_are_removed_while_they_are_shown_are_missed_calmly() -> None:
    write_steps(name(1))
    async with stage(ScriptedTimeline([])) as running:
        screen = await open_timeline(running)
        shutil.rmtree(tapes_dir() / name(1))
        await running.pilot.press("left")
        await until(lambda: "The steps of job 0001 were removed" in screen.one.sentence, "the sentence")
        assert screen.record is None
        await running.pilot.press("right", "v", "p")


async def test_a_job_that_is_deleted_while_it_is_shown_is_missed_calmly() -> None:
    write_steps(name(1))
    client = ScriptedTimeline([])
    async with stage(client) as running:
        screen = await open_timeline(running)
        client.emit(JobDeleted(job=name(1)))
        await until(lambda: "Job 0001 was deleted" in screen.one.sentence, "the sentence")
        await running.pilot.press("left", "v", "b", "e")


async def test_a_server_that_goes_leaves_the_steps_there() -> None:
    write_steps(name(1))
    client = ScriptedTimeline([row(1, "done")])
    async with stage(client) as running:
        screen = await open_timeline(running)
        client.drop()
        await until(lambda: "No server" in notice(screen), "the notice")
        await press(running, "left", "left")
        assert screen.step == 3
        assert screen.one.sentence == ""
        await until(lambda: notice(screen) == "", "it is there again")
        assert client.sent(GetJob)
