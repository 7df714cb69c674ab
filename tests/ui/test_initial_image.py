"""The initial image in the Create screen: what one types, what is said of it, how it is seen, and what is sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from PIL import Image
from textual.content import Content
from textual.events import Paste

from sdtui import initial_image
from sdtui.params import GenerationParams
from sdtui.protocol import BranchPoint, Edit, ListJobs, Submit
from sdtui.settings import Inspect, Network, Settings, initial_dir
from sdtui.ui.screens import create_initial
from sdtui.ui.screens.picture_chooser import PictureChooser
from tests.initial_images import BAD, BLUE, ODD, RED, PictureServer, encoded, long_path, plain, serving_pictures
from tests.ui.scripted import ScriptedClient
from tests.ui.scripted_queue import ScriptedQueue, row
from tests.ui.stage import Stage, stage, until

ALLOWED = Settings(inspect=Inspect(estimate=False), network=Network(private_addresses=True))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(create_initial, "TYPING_S", 0.02)


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    """A picture of 96x64 pixels."""
    path = tmp_path / "red cat.png"
    path.write_bytes(encoded(plain()))
    return path


@pytest.fixture
def server() -> Iterator[PictureServer]:
    with serving_pictures() as pictures:
        yield pictures


def note(running: Stage, name: str = "init_image") -> str:
    return running.screen.form.row(name).note


def error(running: Stage, name: str = "init_image") -> str:
    return running.screen.form.row(name).error


def title(running: Stage) -> str:
    return Content.from_markup(running.screen.picture.border_subtitle or "").plain


def kept() -> list[Path]:
    return sorted(initial_dir().iterdir()) if initial_dir().exists() else []


async def paste(running: Stage, text: str) -> None:
    """Drop or paste a source into its field."""
    editor = running.screen.form.row("init_image").editor
    editor.focus()
    await running.pilot.pause()
    editor.value = ""
    await until(lambda: running.screen.initial.is_known, "nothing to look at")
    running.app.screen.post_message(Paste(text))
    await until(lambda: running.screen.form.has_initial_image or not text.strip(), "pasted")


async def begin_with(running: Stage, path: Path | str) -> None:
    """Name a picture, and wait until it was looked at."""
    await paste(running, str(path))
    await until(lambda: running.screen.initial.is_known, "looked at")


async def generate(running: Stage) -> None:
    running.screen.prompt.load_text("a cat")
    await running.pilot.press("f5")


async def sent(running: Stage, count: int = 1) -> GenerationParams:
    """The parameters of the newest job, once so many were submitted."""
    await until(lambda: len(running.client.sent(Submit)) == count, f"{count} submitted")
    return running.client.sent(Submit)[-1].params


# --- what is said -------------------------------------------------------------------------------------------------------


async def test_the_size_that_the_picture_will_have_is_told_and_follows_the_form(cat: Path) -> None:
    async with stage() as running:
        form = running.screen.form
        await begin_with(running, cat)
        assert note(running) == "128×80 px from 96×64"  # 128x85, down to a multiple of 8
        assert form.row("height").editor.placeholder == "80"
        for name, text, size in (
            ("resize", "fill", "128×128"),
            ("width", "256", "256×128"),
            ("resize", "fit", "192×128"),
            ("height", "64", "96×64"),
        ):
            form.row(name).text = text
            await until(lambda size=size: note(running) == f"{size} px from 96×64", f"{size} for {name} {text}")
        form.row("init_image").text = ""
        await until(lambda: not note(running), "nothing to say")
        form.row("height").text = ""
        assert form.row("height").editor.placeholder == "128"


async def test_the_strength_says_how_many_steps_run_and_is_dim_without_an_initial_image(cat: Path) -> None:
    async with stage() as running:
        form = running.screen.form
        assert form.row("strength").unused and form.row("resize").unused and not note(running, "strength")
        await begin_with(running, cat)
        assert not form.row("strength").unused and not form.row("resize").unused
        for steps, strength, words in (("40", "0.75", "30 of 40 steps will run"), ("1", "1", "1 of 1 step will run")):
            form.row("num_inference_steps").text, form.row("strength").text = steps, strength
            await until(lambda words=words: note(running, "strength") == words, words)
        form.row("num_inference_steps").text = "many"
        await until(lambda: not note(running, "strength"), "steps that are none")
        form.row("num_inference_steps").text = "20"
        await until(lambda: note(running, "strength") == "20 of 20 steps will run", "steps again")
        form.row("init_image").text = ""
        await until(lambda: form.row("strength").unused and not note(running, "strength"), "dim again")


async def test_a_strength_that_cannot_be_is_said_under_it_and_nothing_is_sent(cat: Path) -> None:
    async with stage() as running:
        await begin_with(running, cat)
        row_of = running.screen.form.row("strength")
        for strength, words in (
            ("-1", "Strength must be from 0 to 1; it is -1.0."),
            ("1.5", "Strength must be from 0 to 1; it is 1.5."),
            ("0.04", "Strength 0.04 of 20 steps leaves none to run; at least 0.05 is needed"),
        ):
            row_of.text = strength
            await until(lambda words=words: words in error(running, "strength"), words)
            running.screen.prompt.focus()
            await generate(running)
            await until(lambda: row_of.editor.has_focus, "at the field")
        assert not running.client.sent(Submit) and not kept()
        running.screen.form.row("init_image").text = ""  # without an initial image it does not matter
        await until(lambda: not error(running, "strength"), "right again")


async def test_a_picture_that_cannot_be_is_said_under_its_field_and_nothing_is_sent(tmp_path: Path) -> None:
    for name, (content, _) in BAD.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
    async with stage() as running:
        row_of = running.screen.form.row("init_image")
        for name, (_, words) in BAD.items():
            await paste(running, str(tmp_path / name))
            await until(lambda words=words, name=name: words in error(running) and name in error(running), words)
            await until(lambda: row_of.query_one(".error").region.height > 0, "to be read")
            running.screen.prompt.focus()
            await generate(running)
            await until(lambda: row_of.editor.has_focus, "at the field")
            assert words in error(running) and words in str(running.screen.help_line.content)
        assert not running.client.sent(Submit) and not kept()
        assert running.screen.picture.has_class("-empty")


async def test_odd_pictures_and_odd_names_are_taken(tmp_path: Path) -> None:
    for name, content in ODD.items():
        (tmp_path / name).write_bytes(content)
    async with stage() as running:
        for count, name in enumerate(ODD, start=1):
            await begin_with(running, tmp_path / name)
            assert (note(running), error(running)) == ("128×80 px from 96×64", "")
            await generate(running)
            with Image.open((await sent(running, count)).init_image) as image:
                assert image.size == (96, 64)


async def test_a_path_of_hundreds_of_characters_is_taken_and_one_that_no_system_has_is_refused(tmp_path: Path) -> None:
    async with stage() as running:
        await begin_with(running, long_path(tmp_path))
        assert note(running) == "128×80 px from 96×64"
        await generate(running)
        assert (await sent(running)).init_image == str(kept()[0])
        await running.finished()
        await paste(running, "/" + "x" * 9000)
        await until(lambda: "of at most 4,096 characters" in error(running) or "too long" in error(running), "said")
        await running.pilot.press("f5")
        await until(lambda: "of at most 4,096 characters" in str(running.screen.help_line.content), "refused")
        assert len(running.client.sent(Submit)) == 1


async def test_what_is_pasted_or_dropped_is_understood_and_stays_as_it_was(cat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(cat.parent))
    monkeypatch.chdir(cat.parent)
    written = ("'{}'", "\n\n{}\nand more\n", "file://{}", "~/red cat.png", "red\\ cat.png")
    async with stage() as running:
        for count, text in enumerate((way.format(cat) for way in written), start=1):
            await begin_with(running, text)
            assert (note(running), error(running)) == ("128×80 px from 96×64", "")
            await generate(running)
            assert (await sent(running, count)).init_image == str(kept()[0])
            assert running.screen.form.text("init_image") == text.strip().splitlines()[0]


async def test_nothing_a_terminal_would_act_on_is_pasted() -> None:
    async with stage() as running:
        await paste(running, "\x1b]52;c;aGk=\x07/tmp/\x1b[31m[/]\u202ecat\x07.png")
        assert running.screen.form.text("init_image") == "/tmp/[/]cat.png"
        await until(lambda: error(running) == "The initial image /tmp/[/]cat.png does not exist.", "said as text")


# --- how it is seen -----------------------------------------------------------------------------------------------------


def colours(running: Stage) -> set[tuple[int, ...]]:
    cells = running.screen.picture._live._cells
    rows = cells.rows if cells is not None else ()
    return {tuple(row.front[at : at + 3]) for row in rows for at in range(0, len(row.front), 3)}


def is_seen(running: Stage) -> bool:
    """Both of its colours, as near as scaling leaves them."""
    return all(
        any(max(abs(one - other) for one, other in zip(colour, shown, strict=True)) < 8 for shown in colours(running))
        for colour in (RED, BLUE)
    )


async def test_the_initial_image_is_seen_before_the_job_and_goes_as_it_came(cat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLORTERM", "truecolor")
    async with stage() as running:
        await begin_with(running, cat)
        await until(lambda: is_seen(running), "seen")
        assert title(running) == running.screen.progress.text == "initial image 128×80 px"
        running.screen.form.row("init_image").text = ""
        await until(lambda: running.screen.picture.has_class("-empty"), "gone")
        assert running.screen.progress.text == "Ready."
        assert running.screen.picture.border_subtitle == ""


async def test_a_finished_picture_comes_back_when_the_initial_image_goes(cat: Path) -> None:
    async with stage() as running:
        await generate(running)
        await running.finished()
        finished = running.screen.picture.saved
        assert finished is not None
        await begin_with(running, cat)
        await until(lambda: title(running) == "initial image 128×80 px", "the initial image")
        assert running.screen.picture.saved is None, "what is shown is no finished picture"
        running.screen.form.row("init_image").text = ""
        await until(lambda: running.screen.picture.saved == finished, "the finished one")
        assert title(running) == finished.name


async def test_a_job_at_work_is_not_disturbed(cat: Path) -> None:
    async with stage(ScriptedClient(hold=True)) as running:
        await generate(running)
        await until(lambda: title(running).startswith("x0"), "a preview")
        await begin_with(running, cat)
        await running.pilot.pause()
        assert title(running).startswith("x0")
        running.client.go.set()
        await running.finished()


async def test_the_size_is_told_once_the_model_is_known(cat: Path) -> None:
    client = ScriptedClient()
    model = client.welcome.model
    client.welcome = msgspec.structs.replace(client.welcome, model=None)
    async with stage(client, connect=client.connect) as running:
        await begin_with(running, cat)
        assert note(running) == "96×64 px"
        assert title(running) == "initial image 96×64 px"
        running.screen.take_model(model)
        await until(lambda: note(running) == "128×80 px from 96×64", "the model's size")


async def test_looking_is_done_by_one_thread_at_a_time_and_never_by_the_loop(cat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    at_once: list[int] = []
    lock, busy = threading.Lock(), threading.Event()
    read = initial_image.read_initial_image

    def slow(path: Path) -> Image.Image:
        threads.append(threading.current_thread())
        at_once.append(int(lock.acquire(blocking=False)))
        busy.wait(0.2)
        lock.release()
        return read(path)

    monkeypatch.setattr(initial_image, "read_initial_image", slow)
    async with stage() as running:
        await paste(running, str(cat))
        for width in ("64", "72", "80", "88", "96"):
            running.screen.form.row("width").text = width
            await running.pilot.pause(0.03)
        await until(lambda: note(running) == "96×64 px from 96×64", "what was typed last")
        assert threading.main_thread() not in threads
        assert set(at_once) == {1} and len(threads) < 6


# --- what is sent -------------------------------------------------------------------------------------------------------


async def test_the_job_begins_with_a_copy_and_the_form_keeps_what_was_typed(cat: Path) -> None:
    async with stage() as running:
        await begin_with(running, cat)
        running.screen.form.row("strength").text = "0.6"
        await generate(running)
        params = await sent(running)
        (copy,) = kept()
        assert (params.init_image, params.strength, params.resize) == (str(copy), 0.6, "fit")
        assert initial_image.digest_of_file(copy) == initial_image.digest_of_file(cat)
        assert running.screen.form.text("init_image") == str(cat)
        await running.finished()
        assert running.screen.picture.saved is not None


async def test_a_job_without_an_initial_image_says_nothing_of_one() -> None:
    async with stage() as running:
        await generate(running)
        params = await sent(running)
        assert params.init_image is None and not kept()
        await running.finished()


async def test_a_url_is_fetched_when_it_is_needed_and_once(server: PictureServer) -> None:
    async with stage(settings=ALLOWED) as running:
        await begin_with(running, f"{server.url}/cat.png?token=1")
        assert note(running) == "F5 fetches it." and not server.asked
        await generate(running)
        assert (await sent(running)).init_image == str(kept()[0])
        await running.finished()
        await until(lambda: note(running) == "128×80 px from 96×64", "what it is")
        await running.pilot.press("f5")
        await sent(running, 2)
        assert server.asked == ["/cat.png?token=1"]
        assert running.screen.form.text("init_image") == f"{server.url}/cat.png?token=1"


async def test_an_address_without_a_picture_is_said_under_the_field(server: PictureServer) -> None:
    async with stage(settings=ALLOWED) as running:
        for path, words in (
            ("page", "is a web page"),
            ("nothing", "answered 404 Not Found"),
            ("huge", "is larger than 20 MiB"),
        ):
            await begin_with(running, f"{server.url}/{path}")
            assert note(running) == "F5 fetches it."
            running.screen.prompt.focus()
            await generate(running)
            await until(lambda words=words: words in error(running), words)
            await running.pilot.pause()
            assert words in error(running) and running.screen.form.row("init_image").editor.has_focus
            assert running.screen.progress.text == "The initial image cannot be used."
        assert not running.client.sent(Submit) and not kept()


async def test_private_addresses_are_not_asked_unless_the_settings_say_so(server: PictureServer) -> None:
    async with stage() as running:
        await begin_with(running, f"{server.url}/cat.png")
        await generate(running)
        await until(lambda: "private_addresses in [network]" in error(running), "refused")
        assert not server.asked


async def test_while_one_is_fetched_f5_starts_no_second_and_the_key_that_cancels_stops_it(server: PictureServer) -> None:
    async with stage(settings=ALLOWED) as running:
        await begin_with(running, f"{server.url}/never")
        await generate(running)
        await until(lambda: server.asked, "asked")
        await until(lambda: running.screen.progress.text.startswith("taking in the initial image"), "said below the picture")
        await until(lambda: note(running).startswith("on its way"), "said under the field")
        await running.pilot.press("f5")
        await until(lambda: "still on its way" in running.toasts(), "refused")
        assert "cancel" in {binding.binding.action for binding in running.screen.active_bindings.values() if binding.enabled}
        await running.pilot.press("ctrl+x")
        await until(lambda: running.screen.progress.text == "Stopped; nothing was sent.", "stopped")
        await until(lambda: note(running) == "F5 fetches it.", "as before")
        assert server.asked == ["/never"] and not running.client.sent(Submit)
        await begin_with(running, f"{server.url}/cat.png")
        await running.pilot.press("f5")
        await sent(running)


async def test_the_app_can_be_left_while_one_is_fetched(server: PictureServer) -> None:
    async with stage(settings=ALLOWED) as running:
        await begin_with(running, f"{server.url}/never")
        await generate(running)
        await until(lambda: server.asked, "asked")
        taking = running.screen.initial._taking
    assert taking is not None and taking.cancelled.is_set()


async def test_a_running_job_keeps_its_progress_while_the_next_ones_picture_is_fetched(server: PictureServer) -> None:
    client = ScriptedClient(hold=True)
    async with stage(client, settings=ALLOWED) as running:
        await generate(running)
        await until(lambda: running.screen.following.steps_done, "at work")
        said = running.screen.progress.text
        await begin_with(running, f"{server.url}/never")
        await running.pilot.press("f5")
        await until(lambda: note(running).startswith("on its way"), "said under the field")
        assert running.screen.progress.text == said
        await running.pilot.press("ctrl+x")
        await until(lambda: note(running) == "F5 fetches it.", "stopped")
        assert not running.screen.following.over, "the job goes on"
        client.go.set()
        await running.finished()


# --- jobs that are there already ----------------------------------------------------------------------------------------


def from_image(path: Path) -> GenerationParams:
    return GenerationParams(prompt="a red cat", init_image=str(path), strength=0.45, resize="crop", seed=7)


async def test_editing_a_queued_job_fills_the_fields_and_takes_another_picture_in(cat: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.png"
    other.write_bytes(encoded(plain(64, 64)))
    stored = initial_image.take_in(str(cat), initial_dir()).path
    async with stage(ScriptedQueue([row(2, "queued", params=from_image(stored))])) as running:
        await running.open_queue()
        await running.select(2)
        await running.pilot.press("e")
        form = running.screen.form
        await until(lambda: form.text("init_image") == str(stored), "filled in")
        assert (form.text("strength"), form.text("resize")) == ("0.45", "crop")
        await until(lambda: note(running) == "128×128 px from 96×64", "looked at")
        await begin_with(running, other)
        await running.pilot.press("f5")
        await until(lambda: running.client.sent(Edit), "sent")
        params = running.client.sent(Edit)[0].params
        assert Path(params.init_image).name.endswith("-other.png") and Path(params.init_image).parent == initial_dir()
        assert msgspec.structs.replace(params, init_image=str(stored)) == from_image(stored)
        await until(lambda: not form.has_initial_image, "the user's own form comes back")


async def test_an_edit_that_is_left_while_its_picture_is_fetched_is_not_sent(server: PictureServer) -> None:
    async with stage(ScriptedQueue([row(2, "queued")]), settings=ALLOWED) as running:
        await running.open_queue()
        await running.select(2)
        await running.pilot.press("e")
        await until(lambda: running.screen.edited is not None, "editing")
        await begin_with(running, f"{server.url}/never")
        await running.pilot.press("f5")
        await until(lambda: server.asked, "asked")
        taking = running.screen.initial._taking
        await running.pilot.press("escape")
        assert taking is not None and taking.cancelled.is_set()
        await until(lambda: not running.screen.initial.is_taking, "stopped")
        assert not running.client.sent(Edit)


async def test_the_queue_says_what_a_job_begins_with() -> None:
    kept_as = Path("/store/0123456789abcdef-red_cat.png")
    rows = [
        row(2, "queued", params=from_image(kept_as)),
        row(3, "queued", branch=BranchPoint(job="20260101-000000-0002", step=8)),
        row(4, "queued"),
    ]
    async with stage(ScriptedQueue(rows), size=(200, 40)) as running:
        await running.open_queue()
        await running.select(2)
        assert "begins with red_cat.png, crop, strength 0.45" in running.screen_text()
        await running.select(3)
        assert "branch of   20260101-000000-0002 at step 8" in running.screen_text()
        await running.select(4)
        assert "begins with" not in running.screen_text() and "branch of" not in running.screen_text()


async def test_the_settings_of_the_shown_job_can_be_taken_over(cat: Path) -> None:
    async with stage() as running:
        await begin_with(running, cat)
        running.screen.form.row("strength").text = "0.45"
        await generate(running)
        await running.finished()
        running.screen.action_reset_form()
        running.screen.prompt.load_text("")
        await until(lambda: not running.screen.form.has_initial_image, "reset")
        running.screen.action_take_settings()
        await running.pilot.pause()
        form = running.screen.form
        assert (form.text("init_image"), form.text("strength")) == (str(kept()[0]), "0.45")
        assert running.screen.prompt.text == "a cat"


async def test_the_finished_picture_that_is_shown_can_be_begun_with() -> None:
    async with stage() as running:
        names = {command.title for command in running.app.get_system_commands(running.screen)}
        assert "Use this picture as initial image" not in names
        await generate(running)
        await running.finished()
        names = {command.title for command in running.app.get_system_commands(running.screen)}
        assert "Use this picture as initial image" in names
        finished = running.screen.picture.saved
        running.screen.action_use_picture()
        await until(lambda: note(running) == "128×128 px from 128×128", "looked at")
        assert running.screen.form.text("init_image") == str(finished)


# --- the dialog ---------------------------------------------------------------------------------------------------------


def jobs_with_pictures(directory: Path, count: int) -> list:
    """Done jobs, newest first, each with one picture; job 3 has two, the picture of job 2 is gone."""
    rows = []
    for number in range(count, 0, -1):
        paths = [directory / f"{number}-{at}.png" for at in range(2 if number == 3 else 1)]
        for path in paths if number != 2 else ():
            path.write_bytes(encoded(plain(32, 32)))
        rows.append(row(number, "done", images=tuple(map(str, paths))))
    return rows


async def open_chooser(running: Stage) -> PictureChooser:
    await running.pilot.press("ctrl+o")
    await until(lambda: isinstance(running.app.screen, PictureChooser), "the dialog")
    chooser = running.app.screen
    assert isinstance(chooser, PictureChooser)
    return chooser


async def test_a_finished_picture_is_chosen_from_those_there_are(tmp_path: Path) -> None:
    rows = [*jobs_with_pictures(tmp_path, 4), row(9, "failed"), row(8, "cancelled")]
    async with stage(ScriptedQueue(rows)) as running:
        chooser = await open_chooser(running)
        await until(lambda: len(chooser._made) == 4, "the pictures")
        assert [Path(made.path).stem for made in chooser._made] == ["4-0", "3-1", "3-0", "1-0"]
        await until(lambda: "a red cat 4" in running.screen_text(), "the prompt of the newest")
        await running.pilot.press("down", "j", "down")
        await until(lambda: "a red cat 1\n" in running.screen_text() or "a red cat 1 " in running.screen_text(), "another")
        await running.pilot.press("enter")
        await until(lambda: running.app.screen is running.screen, "closed")
        assert running.screen.form.text("init_image") == str(tmp_path / "1-0.png")
        await until(lambda: note(running) == "128×128 px from 32×32", "looked at")
        chooser = await open_chooser(running)
        await until(lambda: chooser.query_one("OptionList").highlighted == 3, "the cursor is on what is chosen")
        await running.pilot.press("escape")
        await until(lambda: running.app.screen is running.screen, "closed")
        assert running.screen.form.text("init_image") == str(tmp_path / "1-0.png")


async def test_the_dialog_shows_the_picture_under_the_cursor(tmp_path: Path) -> None:
    async with stage(ScriptedQueue(jobs_with_pictures(tmp_path, 1))) as running:
        chooser = await open_chooser(running)
        live = chooser.query_one("LivePicture")
        await until(lambda: live._cells is not None, "drawn")
        front = live._cells.rows[0].front
        assert tuple(front[:3]) == RED and tuple(front[-3:]) == BLUE


async def test_older_pictures_are_asked_for_when_the_cursor_comes_near(tmp_path: Path) -> None:
    async with stage(ScriptedQueue(jobs_with_pictures(tmp_path, 130))) as running:
        chooser = await open_chooser(running)
        await until(lambda: len(chooser._made) == 50, "a page")
        assert len(running.client.sent(ListJobs)) == 1
        await running.pilot.press("end")
        await until(lambda: len(chooser._made) == 100, "the next")
        await running.pilot.press("end")
        await until(lambda: len(chooser._made) == 130, "all that are there")
        await running.pilot.press("end", "home")
        assert [command.offset for command in running.client.sent(ListJobs)] == [0, 50, 100]


async def test_without_pictures_the_dialog_says_so() -> None:
    async with stage(ScriptedQueue([row(1, "queued"), row(2, "failed")])) as running:
        await open_chooser(running)
        await until(lambda: "No finished pictures yet" in running.screen_text(), "said")
        await running.pilot.press("enter", "escape")
        await until(lambda: running.app.screen is running.screen, "closed")


async def test_a_damaged_picture_is_said_in_the_dialog(tmp_path: Path) -> None:
    rows = jobs_with_pictures(tmp_path, 1)
    (tmp_path / "1-0.png").write_bytes(b"no picture")
    async with stage(ScriptedQueue(rows)) as running:
        await open_chooser(running)
        await until(lambda: "1-0.png: cannot identify" in running.screen_text(), "said")


async def test_in_a_narrow_terminal_everything_of_it_can_be_seen(cat: Path) -> None:
    async with stage(size=(80, 24)) as running:
        running.screen.show_field("init_image")
        await begin_with(running, cat)
        await running.pilot.pause()
        text = running.screen_text()
        for words in ("Image to image", "Initial image", "128×80 px from 96×64"):
            assert words in text
        await running.pilot.press("tab", "tab")
        text = running.screen_text()
        for words in ("128×80 px from 96×64", "Strength", "16 of 20 steps will run", "Resize"):
            assert words in text
