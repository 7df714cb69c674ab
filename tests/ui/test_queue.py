"""The Queue screen: what it shows, what each key does and when, and that it stays quick and true with many jobs."""

from __future__ import annotations

import msgspec
import pytest
from rich.cells import cell_len

from sdtui.params import GenerationParams
from sdtui.protocol import (
    Cancel,
    Delete,
    DeleteEnded,
    Duplicate,
    Edit,
    GetJob,
    Hold,
    JobFailed,
    JobFinished,
    JobQueued,
    ListJobs,
    Move,
    Pause,
    QueueChanged,
    Replay,
    Resume,
    Retry,
    SetPriority,
)
from sdtui.ui.job_pages import KEPT_PAGES, PAGE
from sdtui.ui.private import KeyParser
from sdtui.ui.queue_rows import columns_for, head_text, line_spans
from sdtui.ui.screens.chooser import Chooser
from sdtui.ui.screens.queue import QueueScreen
from tests.ui.scripted import step_event
from tests.ui.scripted_queue import ScriptedQueue, row
from tests.ui.stage import Stage, stage, until

NASTY = "a [/] cat [bold red]x[/] \\[y] \u202ertl \x1b[31mred\x1b]0;title\x07 \x9b2J end"


def line_of(running: Stage, number: int) -> str:
    """The table's line of a job, as text; empty while it is not in view."""
    table = running.queue.table
    for y in range(table.size.height):
        job = table.jobs.row_at(table.first + y) if table.first + y < table.jobs.count else None
        if job is not None and job.job.endswith(f"{number:04d}"):
            return table.render_line(y).text
    return ""


def detail(running: Stage) -> str:
    return str(running.queue.detail.query_one("Static").content)


def order(client: ScriptedQueue) -> list[int]:
    return [int(job.job[-4:]) for job in client.rows]


# --- what is shown --------------------------------------------------------------------------------------------------


async def test_the_queue_shows_what_runs_what_waits_in_order_and_what_has_ended() -> None:
    async with stage(ScriptedQueue(), size=(140, 36)) as running:
        await running.open_queue()
        text = running.screen_text()
        places = [text.index(f"a red cat {number}") for number in range(1, 9)]
        assert places == sorted(places)
        assert "8/20" in line_of(running, 1)
        assert "► runs" in line_of(running, 1)
        assert line_of(running, 2).split()[:3] == ["·", "waits", "1"]
        assert line_of(running, 4).split()[:3] == ["·", "waits", "3"]
        assert "5/20" in line_of(running, 5)
        assert line_of(running, 7).startswith("✗ failed")
        assert "1 runs · 3 wait · 1 paused · 1 done · 1 failed · 1 cancelled" in text
        assert "1 Create  2 Inspect  3 Timeline  5 Queue" in text


async def test_the_running_line_moves_with_its_steps_and_nothing_is_asked_for_it() -> None:
    async with stage(ScriptedQueue(), size=(140, 36)) as running:
        await running.open_queue()
        await until(lambda: not running.queue._refreshing, "calm")
        asked = len(running.client.sent(ListJobs))
        job = running.client.job(1).job
        running.client.emit(*(step_event(job, index, 20) for index in range(8, 15)))
        await until(lambda: "15/20" in line_of(running, 1), "progress")
        assert len(running.client.sent(ListJobs)) == asked


async def test_priorities_have_a_column_only_when_a_job_has_one() -> None:
    async with stage(ScriptedQueue(), size=(140, 36)) as running:
        await running.open_queue()
        assert " prio " not in running.screen_text()
        await running.select(3)
        await running.pilot.press("plus")
        await until(lambda: "+1" in line_of(running, 3), "priority")
        assert " prio " in running.screen_text()
        assert running.client.sent(SetPriority)[-1] == SetPriority(job=running.client.job(3).job, priority=1)
        await running.pilot.press("minus")
        await until(lambda: running.client.sent(SetPriority)[-1].priority == 0, "lower")


async def test_the_detail_says_why_a_job_failed_and_what_its_worker_said_last() -> None:
    client = ScriptedQueue()
    failed = client.job(7).job
    client.recorded[failed] = [JobFailed(job=failed, message="killed", detail="CUDA error: \x1b[1mwarp [/] out of range")]
    async with stage(client, size=(140, 40)) as running:
        await running.open_queue()
        await running.select(7)
        await until(lambda: "CUDA error: warp [/] out of range" in detail(running), "log tail")
        assert "killed by signal 11 (SIGSEGV)" in detail(running)
        assert "4 workers died under it" in detail(running)
        assert [command.job for command in client.sent(Replay)] == [failed]
        assert running.screen.following.job is None  # the record of another screen's job is not followed
        await running.select(6)
        await until(lambda: "/pictures/six.png" in detail(running), "pictures")
        await running.select(7)
        await running.pilot.pause()
        assert len(client.sent(Replay)) == 1


async def test_hostile_prompts_are_plain_text_in_the_table_and_the_detail() -> None:
    client = ScriptedQueue([row(1, "queued", NASTY, reason=NASTY, images=(f"/p/{NASTY}.png",), copy_of=NASTY)])
    async with stage(client, size=(240, 60)) as running:
        await running.open_queue()
        shown = "a [/] cat [bold red]x[/] \\[y] rtl red  end"
        assert shown in line_of(running, 1)
        assert shown in detail(running)
        for text in (running.screen_text().replace("\n", ""), detail(running).replace("\n", "")):
            assert text.isprintable()


async def test_a_queue_that_cannot_go_on_says_so_on_both_screens() -> None:
    async with stage(ScriptedQueue([row(1, "queued")]), size=(80, 24)) as running:
        await running.open_queue()
        running.client.trouble = "The disk is full: 3 MB are needed in /pictures [/]."
        running.client.tell()
        await until(lambda: "The disk is full: 3 MB are needed in /pictures [/]." in running.screen_text(), "here")
        await running.pilot.press("alt+1")
        await until(lambda: "The disk is full" in running.screen.progress.text, "in Create")
        assert "The disk is full" in running.screen.header.status


@pytest.mark.parametrize("size", [(80, 24), (120, 36), (200, 60)])
async def test_nothing_overlaps_and_the_selected_job_is_described(size: tuple[int, int]) -> None:
    async with stage(ScriptedQueue(), size=size) as running:
        await running.open_queue()
        regions = [running.queue.query_one(part).region for part in ("#header", "#jobs", "#detail", "#say", "#keys")]
        assert all(region.area and region.right <= size[0] and region.bottom <= size[1] for region in regions)
        assert not any(one.overlaps(other) for at, one in enumerate(regions) for other in regions[:at])
        assert regions[1].height >= 10
        assert "runs for" in running.screen_text()
        assert all(len(line.rstrip()) <= size[0] for line in running.screen_text().splitlines())


@pytest.mark.parametrize("size", [(40, 12), (20, 5), (1, 1)])
async def test_a_tiny_terminal_does_not_end_the_app(size: tuple[int, int]) -> None:
    async with stage(ScriptedQueue(), size=size) as running:
        await running.open_queue()
        await running.pilot.press("down", "end", "slash", "x", "escape")
        await running.pilot.resize_terminal(120, 36)
        await until(lambda: "a red cat 8" in running.screen_text(), "shown when there is room")


@pytest.mark.parametrize("priorities", [False, True])
def test_columns_fill_the_width_and_give_way_to_the_prompt(priorities: bool) -> None:
    for width in range(36, 240):
        columns = columns_for(width, priorities=priorities)
        line = "".join(text for text, _ in line_spans(row(1, "running", "x" * 300, steps_done=8, total_steps=20), 1, columns))
        assert cell_len(line) == cell_len(head_text(columns)) == width
        prompt = next(column.width for column in columns if column.title == "prompt")
        assert prompt >= (30 if width >= 100 else 12), width


# --- keys -----------------------------------------------------------------------------------------------------------


async def test_keys_that_are_impossible_for_the_selected_job_are_dim_and_do_nothing() -> None:
    possible = {
        1: {"open", "pause", "cancel", "copy"},
        2: {"open", "pause", "cancel", "edit", "copy", "move_up", "more"},
        5: {"open", "pause", "cancel", "copy"},
        6: {"open", "delete", "copy"},
        7: {"open", "retry", "delete", "copy"},
        8: {"open", "retry", "delete", "copy"},
    }
    keys = {"pause": "p", "cancel": "c", "edit": "e", "retry": "r", "delete": "x", "move_up": "K", "more": "plus"}
    async with stage(ScriptedQueue()) as running:
        await running.open_queue()
        for number, wanted in possible.items():
            await running.select(number)
            active = {entry.binding.id: entry.enabled for entry in running.app.screen.active_bindings.values()}
            enabled = {name for name in (*keys, "open", "copy") if active[f"queue.{name}"]}
            assert enabled == wanted, number
            asked = len(running.client.log)
            for name, key in keys.items():
                if name not in wanted:
                    await running.pilot.press(key)
            commands = [command for command in running.client.log[asked:] if not isinstance(command, ListJobs | Replay)]
            assert commands == []
            assert isinstance(running.app.screen, QueueScreen)


async def test_p_pauses_and_resumes() -> None:
    async with stage(ScriptedQueue(), size=(140, 36)) as running:
        await running.open_queue()
        await running.select(2)
        await running.pilot.press("p")
        await until(lambda: "paused" in line_of(running, 2), "paused")
        await running.pilot.press("p")
        await until(lambda: "waits" in line_of(running, 2), "resumed")
        job = running.client.job(2).job
        assert (running.client.sent(Pause), running.client.sent(Resume)) == ([Pause(job=job)], [Resume(job=job)])


async def test_a_waiting_job_is_cancelled_at_once_and_the_selection_goes_with_it() -> None:
    async with stage(ScriptedQueue(), size=(140, 36)) as running:
        await running.open_queue()
        await running.select(3)
        await running.pilot.press("c")
        await until(lambda: "cancelled" in line_of(running, 3), "cancelled")
        assert running.client.sent(Cancel) == [Cancel(job=running.client.job(3).job)]
        await until(lambda: running.queue.table.cursor == 4, "cursor on it")
        await until(lambda: "– cancelled" in detail(running), "detail")


async def test_a_running_job_is_stopped_when_the_user_says() -> None:
    async with stage(ScriptedQueue(), size=(140, 36)) as running:
        await running.open_queue()
        await running.select(1)
        await running.pilot.press("delete")
        await until(lambda: isinstance(running.app.screen, Chooser), "chooser")
        await running.pilot.press("escape")
        assert running.client.sent(Cancel) == []
        await running.pilot.press("c", "down", "down", "enter")
        await until(lambda: running.client.sent(Cancel), "cancel")
        assert running.client.sent(Cancel)[0].when == "after_step"
        await until(lambda: "stopped in 6.0 ms" in running.screen_text(), "how long it took")
        await until(lambda: "– cancelled" in detail(running), "detail")


@pytest.mark.parametrize(
    ("key", "to", "after"),
    [
        ("shift+down", "down", [1, 2, 4, 3]),
        ("J", "down", [1, 2, 4, 3]),
        ("shift+up", "up", [1, 3, 2, 4]),
        ("K", "up", [1, 3, 2, 4]),
        ("T", "first", [1, 3, 2, 4]),
        ("B", "last", [1, 2, 4, 3]),
    ],
)
async def test_moving_keeps_the_selection_on_the_job(key: str, to: str, after: list[int]) -> None:
    async with stage(ScriptedQueue(), size=(140, 36)) as running:
        await running.open_queue()
        await running.select(3)
        await running.pilot.press(key)
        await until(lambda: running.queue.table.cursor == after.index(3), "cursor follows")
        assert running.client.sent(Move) == [Move(job=running.client.job(3).job, to=to)]
        assert order(running.client)[:4] == after
        assert running.queue.table.selected.job.endswith("0003")


async def test_copies_take_the_seed_or_draw_a_new_one() -> None:
    async with stage(ScriptedQueue()) as running:
        await running.open_queue()
        await running.select(6)
        await running.pilot.press("d", "D")
        await until(lambda: len(running.client.sent(Duplicate)) == 2, "copies")
        one, other = running.client.sent(Duplicate)
        assert (one.same_seed, other.same_seed) == (True, False)
        assert {one.new_job, other.new_job} <= running.screen.following.own
        assert running.queue.table.selected.job.endswith("0006")


async def test_retry_queues_a_failed_job_again_as_the_users_own() -> None:
    async with stage(ScriptedQueue(), size=(140, 36)) as running:
        await running.open_queue()
        await running.select(7)
        await running.pilot.press("r")
        await until(lambda: "waits" in line_of(running, 7), "waits")
        assert running.client.sent(Retry)[0].job in running.screen.following.own
        await until(lambda: running.queue.table.cursor == 1, "cursor follows")


async def test_a_record_is_deleted_only_when_the_user_says_so_twice() -> None:
    async with stage(ScriptedQueue(), size=(140, 36)) as running:
        await running.open_queue()
        await running.select(6)
        await running.pilot.press("x", "enter")  # the first choice is to keep it
        assert running.client.sent(Delete) == []
        await running.pilot.press("x", "down", "enter")
        await until(lambda: not line_of(running, 6), "gone")
        await until(lambda: running.queue.table.selected.job.endswith("0007"), "the next one is selected")
        await running.pilot.press("X", "down", "enter")
        await until(lambda: "2 records deleted" in running.screen_text(), "all ended ones")
        assert len(running.client.sent(DeleteEnded)) == 1
        await until(lambda: running.queue.table.jobs.count == 5, "only the queue is left")


async def test_h_holds_the_queue_and_says_so_until_it_goes_on() -> None:
    async with stage(ScriptedQueue()) as running:
        await running.open_queue()
        await running.pilot.press("H")
        await until(lambda: "Held: nothing begins until H." in running.screen_text(), "held")
        assert "held" in running.queue.header.status
        await running.pilot.press("H")
        await until(lambda: "Held" not in running.screen_text(), "goes on")
        assert running.client.sent(Hold) == [Hold(on=True), Hold(on=False)]


async def test_enter_shows_the_job_in_create_with_its_whole_log() -> None:
    client = ScriptedQueue()
    done = client.job(6)
    queued = JobQueued(job=done.job, params=done.params, position=0)
    steps = [step_event(done.job, index, 3) for index in range(3)]
    client.recorded[done.job] = [queued, *steps, JobFinished(job=done.job, elapsed_s=1.5, images=done.images)]
    async with stage(client) as running:
        await running.open_queue()
        await running.select(6)
        await running.pilot.press("enter")
        await until(lambda: running.app.screen is running.screen, "Create")
        await until(lambda: running.screen.progress.text == "done in 1.5 s", "its end")
        assert running.screen.following.pinned
        assert len([line for line in running.log_text().splitlines() if line.strip()[:1].isdigit()]) == 3


async def test_editing_fills_the_form_says_so_and_gives_back_what_was_written() -> None:
    params = GenerationParams(prompt="a blue [/] boat", negative_prompt="fog", num_inference_steps=31, seed=5, width=256)
    client = ScriptedQueue()
    client.change(3, params=params)
    async with stage(client) as running:
        await running.type("my own draft")
        await running.open_queue()
        await running.select(3)
        await running.pilot.press("e")
        screen = running.screen
        await until(lambda: screen.prompt.text == "a blue [/] boat", "the job's prompt")
        assert "editing job 0003" in running.screen_text()
        assert (screen.negative.text, screen.form.text("num_inference_steps")) == ("fog", "31")
        await running.type("s")
        await running.pilot.press("f5")
        await until(lambda: client.sent(Edit), "edit")
        assert client.sent(Edit)[0].params == msgspec.structs.replace(params, prompt="a blue [/] boats")
        await until(lambda: isinstance(running.app.screen, QueueScreen), "back in the queue")
        assert (screen.prompt.text, screen.negative.text) == ("my own draft", "")
        assert screen.form.text("num_inference_steps") == "20"
        await until(lambda: "a blue [/] boats" in line_of(running, 3), "changed")


async def test_escape_leaves_a_job_as_it_was() -> None:
    async with stage(ScriptedQueue()) as running:
        await running.open_queue()
        await running.select(3)
        await running.pilot.press("e")
        await until(lambda: running.screen.edited is not None, "editing")
        await running.type("x")
        await running.pilot.press("escape")
        assert running.screen.edited is None
        assert running.screen.prompt.text == ""
        assert running.client.sent(Edit) == []


# --- finding --------------------------------------------------------------------------------------------------------


async def test_find_shows_only_what_matches_and_escape_shows_all_again() -> None:
    client = ScriptedQueue([row(1, "running"), row(2, "queued", "a Blue boat"), *(row(n, "done") for n in range(3, 700))])
    client.change(650, params=GenerationParams(prompt="the blue [/] moon"))
    async with stage(client, size=(140, 36)) as running:
        await running.open_queue()
        await running.pilot.press("slash", "b", "l", "u", "e")
        await until(lambda: running.queue.search is not None and running.queue.search.complete, "all were read")
        await until(lambda: running.queue.table.jobs.count == 2, "both")
        assert "the blue [/] moon" in running.screen_text()
        await running.pilot.press("enter", "down")
        await until(lambda: running.queue.table.selected.job.endswith("0650"), "selected")
        await running.pilot.press("slash", "escape")
        await until(lambda: running.queue.table.jobs.count == 699, "all")
        assert running.queue.search is None


# --- many jobs, and the server -------------------------------------------------------------------------------------


async def test_ten_thousand_jobs_are_asked_for_page_by_page() -> None:
    client = ScriptedQueue([row(0, "running"), *(row(number, "queued") for number in range(1, 10_000))])
    async with stage(client, size=(200, 60)) as running:
        await running.open_queue()
        assert sum(command.limit for command in client.sent(ListJobs)) <= 4 * PAGE
        assert len(running.app.screen.query("*")) < 20
        table = running.queue.table
        await running.pilot.press("end")
        await until(lambda: "a red cat 9999" in running.screen_text(), "the last one")
        assert table.cursor == 9_999
        for _ in range(60):
            await running.pilot.press("pageup")
        await until(lambda: table.selected is not None, "selected")
        assert sum(command.limit for command in client.sent(ListJobs)) <= 200 * PAGE
        assert len(running.queue.pages._rows) <= KEPT_PAGES
        assert all(command.limit <= PAGE for command in client.sent(ListJobs))


async def test_a_burst_of_changes_is_fetched_together() -> None:
    async with stage(ScriptedQueue()) as running:
        await running.open_queue()
        asked = len(running.client.sent(ListJobs))
        for number in range(100, 400):
            running.client.rows.insert(4, row(number, "queued"))
            running.client.tell()
        await until(lambda: running.queue.table.jobs.count == 308, "all of them")
        assert len(running.client.sent(ListJobs)) - asked < 40


async def test_the_selection_stays_on_a_job_while_others_come_and_go() -> None:
    async with stage(ScriptedQueue(), size=(140, 36)) as running:
        await running.open_queue()
        await running.select(4)
        running.client.rows.insert(1, row(50, "queued"))
        running.client.tell()
        await until(lambda: running.queue.table.cursor == 4, "one line lower")
        running.client.end(1, "done")
        running.client.tell()
        await until(lambda: running.queue.table.cursor == 3, "one line higher")
        assert running.queue.table.selected.job.endswith("0004")


async def test_the_first_job_that_ends_appears_below_the_queue() -> None:
    async with stage(ScriptedQueue([row(1, "running"), row(2, "queued")]), size=(140, 36)) as running:
        await running.open_queue()
        running.client.end(2, "cancelled")
        running.client.tell()
        await until(lambda: "– cancelled" in line_of(running, 2), "below")
        assert running.queue.table.cursor == 0


async def test_a_selected_job_that_ends_far_away_is_found_again() -> None:
    rows = [row(1, "running"), *(row(number, "queued") for number in range(2, 400)), row(900, "done")]
    async with stage(ScriptedQueue(rows), size=(140, 36)) as running:
        await running.open_queue()
        await running.select(3)
        running.client.end(3, "failed")
        running.client.tell()
        await until(lambda: running.queue.table.cursor == 398, "among those that ended")
        await until(lambda: "✗ failed" in detail(running), "detail")


async def test_a_selected_job_that_another_window_deleted_is_let_go_without_a_word() -> None:
    async with stage(ScriptedQueue(), size=(140, 36)) as running:
        await running.open_queue()
        await running.select(7)
        running.client.rows.remove(running.client.job(7))
        running.client.tell()
        await until(lambda: running.queue.table.selected.job.endswith("0008"), "what is in its line")
        await until(lambda: running.client.sent(GetJob), "it was looked for")
        assert "no such job" not in running.toasts()


async def test_a_lost_server_is_said_and_the_list_is_asked_for_again() -> None:
    async with stage(ScriptedQueue()) as running:
        await running.open_queue()
        running.client.drop()
        await until(lambda: "No server; what is shown may be old" in running.screen_text(), "said")
        assert "a red cat 3" in running.screen_text()
        running.client.rows.append(row(77, "done", "after the loss"))
        await running.pilot.press("f8")
        await until(lambda: "after the loss" in running.screen_text(), "again")
        assert "No server" not in running.screen_text()


async def test_the_queues_state_from_before_the_screen_was_made_is_known() -> None:
    async with stage(ScriptedQueue()) as running:
        running.client.emit(QueueChanged(queued=3, running=None, held=True))
        await until(lambda: "held" in running.screen.header.status, "Create knows")
        await running.open_queue()
        await until(lambda: "Held" in running.screen_text(), "so does the queue")


async def test_a_picture_that_the_terminal_draws_is_put_away_while_the_queue_is_shown() -> None:
    class Sink:
        def hide(self) -> list[bytes]:
            return [b"hide"]

    async with stage(ScriptedQueue()) as running:
        live = running.screen.picture._live
        sent: list[bytes] = []
        live._display.command = sent.extend
        live._sink, live._on_screen = Sink(), True
        await running.pilot.press("f1", "escape")
        assert sent == []  # a dialog lets the screen below draw itself
        await running.open_queue()
        assert sent == [b"hide"]
        live._sink = None


def test_alt_and_a_digit_is_that_key_and_no_character_of_a_mac() -> None:
    parser = KeyParser(False)
    keys = [message.key for digit in "15" for message in parser.feed(f"\x1b{digit}")]
    assert keys == ["alt+1", "alt+5"]
    assert [message.key for message in parser.feed("∞")] == ["infinity"]
