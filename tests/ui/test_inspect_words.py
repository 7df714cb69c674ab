"""The words view of Inspect: which job it shows, what can be seen of it, and saving that."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdtui.inspected import write_inspected
from sdtui.protocol import JobInspected
from sdtui.settings import tapes_dir
from sdtui.ui.bindings import key_text, own_bindings, unknown_ids
from sdtui.ui.inspected_words import InspectedWords, Look, Painted
from sdtui.ui.screens import inspect_words
from sdtui.ui.screens.inspect import InspectScreen
from sdtui.ui.widgets.words_view import WordsView
from tests.ui.inspecting import NASTY, inspect, notice, open_inspect
from tests.ui.stage import Stage, stage, until
from tests.ui.word_jobs import PLACES, PROMPT, SIZE_PX, maps, write_job, write_picture, write_tape

STARTS = """
import asyncio, sys
from tests.ui.stage import stage
from tests.ui.inspecting import inspect, open_inspect

async def main():
    async with stage() as running:
        await open_inspect(running)
        inspect(running).show_view("words")
        await running.pilot.pause()
        print("heavy:", [name for name in ("torch", "sdtui.words") if name in sys.modules])

asyncio.run(main())
"""


# --- what the view shows --------------------------------------------------------------------------------------------


async def open_words(running: Stage) -> WordsView:
    """Go to the view, and wait for what it shows."""
    screen = await open_inspect(running)
    screen.show_view("words")
    await until(lambda: screen.words.path is not None or not [*tapes_dir().glob("*/inspected*")], "a job")
    await running.pilot.pause()
    if screen.words.look is not None:
        await painted(screen.words)
    return screen.words


async def painted(view: WordsView) -> np.ndarray[Any, Any]:
    """What is wished for, once it is there: (h, w, 3)."""
    await until(lambda: view.is_painted, "the picture")
    frame = view.live._frame
    assert frame is not None
    return np.frombuffer(frame.rgb, np.uint8).reshape(frame.height_px, frame.width_px, 3).astype(int)


async def press(running: Stage, *keys: str) -> np.ndarray[Any, Any]:
    await running.pilot.press(*keys)
    await running.pilot.pause()
    return await painted(inspect(running).words)


def at(picture: np.ndarray[Any, Any], word: str) -> np.ndarray[Any, Any]:
    """The colour where a word's map is highest."""
    y, x = PLACES[word]
    colour: np.ndarray[Any, Any] = picture[int(y * len(picture)), int(x * picture.shape[1])]
    return colour


def sentence(view: WordsView) -> str:
    assert view.has_class("-empty")
    return str(view.none.content)


@pytest.mark.parametrize("size", [(80, 24), (120, 36), (200, 60), (60, 50)])
async def test_the_words_stand_beside_the_picture(size: tuple[int, int]) -> None:
    write_job()
    async with stage(size=size) as running:
        view = await open_words(running)
        await until(lambda: "▀" in running.screen_text(), "the picture")
        text = running.screen_text()
        for word in PROMPT:
            assert any(line.split()[1:2] == [word] or line.split()[2:3] == [word] for line in text.splitlines()), word
        assert "Words · cat · heat 60 %" in text
        assert "j-1 · scenes-128 · 4 steps · all maps" in text
        assert "space Compare   x Heat" in text
        assert not view.lines.region.intersection(view.room.region).area
        assert view.region.contains_region(view.lines.region)
        assert view.region.contains_region(view.room.region)


@pytest.mark.parametrize("size", [(40, 12), (20, 5), (1, 1)])
async def test_too_little_room_does_no_harm(size: tuple[int, int]) -> None:
    write_job()
    async with stage(size=size) as running:
        await open_inspect(running)
        inspect(running).show_view("words")
        await running.pilot.press("down", "space", "up", "x", "d", "u", "f1", "escape")
        await running.pilot.resize_terminal(120, 36)
        await until(lambda: "▀" in running.screen_text() and "desert" in running.screen_text(), "shown when there is room")


async def test_the_shares_of_the_words_are_those_of_their_maps() -> None:
    write_job()
    async with stage() as running:
        view = await open_words(running)
        words = maps(PROMPT, 1, 16, 16)[0, 1:-1].mean((1, 2)) + maps(PROMPT, 1, 8, 8)[0, 1:-1].mean((1, 2))
        await until(lambda: view.lines.shares, "the shares")
        assert view.lines.shares == pytest.approx(words / words.sum())
        line = next(line for line in running.screen_text().splitlines() if " desert " in line)
        assert f"{words[5] / words.sum() * 100:.0f} %" in line
        assert "█" in line


async def test_the_heat_lies_where_the_chosen_word_acts() -> None:
    write_job()
    async with stage() as running:
        view = await open_words(running)
        cat = await painted(view)
        assert at(cat, "cat").sum() > at(cat, "desert").sum() + 100
        desert = await press(running, "down", "down", "down")
        assert view.look == Look(0, (5,))
        assert "Words · desert" in running.screen_text()
        assert at(desert, "desert").sum() > at(desert, "cat").sum() + 100
        await press(running, "home")
        assert view.word == 0
        await press(running, "up", "end", "down")
        assert view.word == len(PROMPT) - 1


async def test_two_words_are_compared_in_two_hues_until_the_held_one_is_let_go() -> None:
    write_job()
    async with stage() as running:
        view = await open_words(running)
        alone = await painted(view)
        await press(running, "space")
        assert "“cat” is held" in notice(inspect(running))
        both = await press(running, "end")
        assert view.look == Look(0, (5, 2))
        assert "Words · desert and cat" in running.screen_text()
        assert running.screen_text().count("●") == 2
        cat, desert = at(both, "cat"), at(both, "desert")
        assert min(cat.sum(), desert.sum()) > 100
        assert np.abs(cat / cat.sum() - desert / desert.sum()).max() > 0.2
        single = await press(running, "enter", "up", "up", "up")
        assert view.held is None
        assert (single == alone).all()


async def test_the_heat_gets_stronger_and_weaker_and_stands_alone() -> None:
    path = write_job()
    Image.new("RGB", (SIZE_PX, SIZE_PX), (0, 0, 255)).save(Path.home() / "j-1-0.png")
    async with stage() as running:
        view = await open_words(running)
        seen = {"heat 60 %": await painted(view)}
        for label in ("heat 90 %", "heat alone", "heat 30 %"):
            seen[label] = await press(running, "x")
            assert label in running.screen_text()
        far = {label: np.abs(at(picture, "cat") - (0, 0, 255)).sum() for label, picture in seen.items()}
        assert far["heat 30 %"] < far["heat 60 %"] < far["heat 90 %"]
        corner = seen["heat alone"][-1, 0]
        assert np.ptp(corner) < 120, "no blue picture below"
        again = await press(running, "x")
        assert (again == seen["heat 60 %"]).all()
        assert path.exists()


async def test_maps_of_one_resolution_are_seen_by_themselves() -> None:
    write_job()
    async with stage() as running:
        view = await open_words(running)
        whole = await painted(view)
        fine = await press(running, "u")
        assert "4 steps · 16×16" in running.screen_text()
        coarse = await press(running, "u")
        assert "4 steps · 8×8" in running.screen_text()
        assert (fine != coarse).any()
        assert (await press(running, "u") == whole).all()


async def test_the_pictures_of_a_batch_are_gone_through() -> None:
    write_job(images=2)
    async with stage() as running:
        view = await open_words(running)
        first = await painted(view)
        second = await press(running, "w")
        assert "picture 2 of 2" in running.screen_text()
        assert np.abs(second[:, ::-1] - first).mean() < 3
        assert (await press(running, "w") == first).all()
        await press(running, "W")
        assert view.image == 1


async def test_a_map_is_made_once_a_word() -> None:
    path = write_job()
    words = InspectedWords(path)
    first = words._map(2, 0, ())
    words.paint(Look(0, (2,), strength=0.9), 32)
    assert words._map(2, 0, ()) is first
    assert words._map(2, 0, ((8, 8),)) is not first


async def test_a_held_key_paints_no_more_than_what_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    write_job()
    async with stage() as running:
        view = await open_words(running)
        go_on, looks = threading.Event(), []
        paint = InspectedWords.paint

        def slowly(self: InspectedWords, look: Look, px: int) -> Painted:
            looks.append(look.words)
            go_on.wait(10)
            return paint(self, look, px)

        monkeypatch.setattr(InspectedWords, "paint", slowly)
        await running.pilot.press("home", "down", "down", "down", "down", "down")
        assert view.word == 5
        assert "Words · desert" in running.screen_text(), "the key was answered before anything was painted"
        go_on.set()
        await painted(view)
        assert looks == [(0,), (5,)]


# --- which job ------------------------------------------------------------------------------------------------------


async def test_without_an_inspected_job_the_view_says_how_to_have_one() -> None:
    async with stage(size=(80, 24)) as running:
        view = await open_words(running)
        assert "No job was inspected yet." in running.screen_text()
        assert "`sdtui generate --words`" in running.screen_text()
        await running.pilot.press("down", "space", "x", "d", "e", "u", "w", "comma", "full_stop", "left")
        assert view.look is None


async def test_a_job_without_maps_says_how_to_have_them() -> None:
    write_job(mapped=False)
    async with stage(size=(80, 24)) as running:
        view = await open_words(running)
        assert "Job j-1 kept no maps of its words." in sentence(view)
        assert "sdtui generate --words" in running.screen_text()


async def test_an_empty_prompt_has_no_words() -> None:
    write_job(words=())
    async with stage() as running:
        assert sentence(await open_words(running)) == "The prompt of job j-1 has no words."


async def test_older_and_newer_jobs_are_gone_through_and_the_word_stays() -> None:
    write_job("j-1", ("the", "cat"), age_s=2)
    write_job("j-2", ("a", "house"), age_s=1, mapped=False)
    write_job("j-3")
    async with stage() as running:
        view = await open_words(running)
        assert view.path is not None and view.path.parent.name == "j-3"
        await running.pilot.press("comma")
        await until(lambda: "Job j-2 kept no maps" in running.screen_text(), "the one before")
        await running.pilot.press("J")
        await until(lambda: "j-1 · scenes-128" in running.screen_text(), "the first one")
        assert "Words · cat" in running.screen_text()
        await running.pilot.press("comma")
        await until(lambda: notice(inspect(running)) == "There is no older inspected job.", "the end is said")
        await running.pilot.press("full_stop")
        await until(lambda: view.path is not None and view.path.parent.name == "j-2", "on the way back")
        await running.pilot.press("K")
        await until(lambda: view.opened is not None and view.opened.facts.job == "j-3", "the newest")


async def test_a_job_that_is_inspected_now_is_shown_unless_an_older_one_was_chosen() -> None:
    write_job("j-1", age_s=9)
    write_job("j-2", age_s=8)
    async with stage() as running:
        view = await open_words(running)
        path = write_job("j-3", age_s=7)
        running.client.emit(JobInspected(job="j-3", batch_index=0, path=str(path), words=8))
        await until(lambda: view.opened is not None and view.opened.facts.job == "j-3", "the new one")
        await running.pilot.press("comma")
        await until(lambda: view.opened is not None and view.opened.facts.job == "j-2", "an older one")
        path = write_job("j-4", age_s=6)
        running.client.emit(JobInspected(job="j-4", batch_index=0, path=str(path), words=8))
        await running.pilot.pause()
        await painted(view)
        assert view.opened is not None and view.opened.facts.job == "j-2"


async def test_the_view_looks_again_when_it_is_shown_again() -> None:
    async with stage() as running:
        view = await open_words(running)
        await running.pilot.press("alt+1")
        write_job()
        await running.pilot.press("alt+2")
        await until(lambda: view.opened is not None, "the job that was inspected meanwhile")
        await until(lambda: "▀" in running.screen_text(), "its picture")


async def test_every_view_is_a_key_away() -> None:
    write_job()
    async with stage() as running:
        screen = await open_inspect(running)
        await running.pilot.press("v", "v")
        assert screen.words.has_focus
        assert "/ Find" not in running.screen_text()
        await running.pilot.press("slash", "n", "s", "f", "D")
        assert screen.words.has_focus
        assert isinstance(running.app.screen, InspectScreen)
        await running.pilot.press("v")
        assert screen.tree_lines.has_focus
        assert "/ Find" in running.screen_text()


# --- what may be wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 4, 200, -1])
async def test_a_torn_file_is_one_sentence(keep: int) -> None:
    path = write_job()
    path.write_bytes(path.read_bytes()[:keep])
    async with stage() as running:
        view = await open_words(running)
        await until(lambda: view.path is not None, "the file")
        assert "inspected-0000.safetensors" in sentence(view)
        assert "Traceback" not in running.screen_text()
        assert view.look is None
        whole = write_job("j-2")
        running.client.emit(JobInspected(job="j-2", batch_index=0, path=str(whole), words=8))
        await until(lambda: "▀" in running.screen_text(), "the next job is shown all the same")


async def test_maps_of_another_shape_than_was_said_are_one_sentence() -> None:
    path = write_job()
    facts = InspectedWords(path).facts
    write_inspected(path, facts, {f"words/{n}x{n}": np.zeros((1, 3, n, n), np.float32) for n in (16, 8)})
    async with stage() as running:
        assert "another shape" in sentence(await open_words(running))


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
async def test_maps_that_are_no_numbers_do_no_harm(value: float) -> None:
    path = write_job()
    facts = InspectedWords(path).facts
    shape = (1, len(PROMPT) + 2)
    write_inspected(path, facts, {f"words/{n}x{n}": np.full((*shape, n, n), value, np.float32) for n in (16, 8)})
    async with stage() as running:
        view = await open_words(running)
        await until(lambda: view.lines.shares or view.has_class("-empty"), "something is said")
        await running.pilot.press("down")


async def test_a_file_that_goes_while_it_is_shown_is_one_sentence() -> None:
    path = write_job()
    async with stage() as running:
        view = await open_words(running)
        path.unlink()
        await running.pilot.press("down", "u")
        await until(lambda: view.has_class("-empty"), "a sentence")
        assert "cannot be read" in sentence(view)


async def test_where_the_picture_is_gone_the_heat_lies_on_grey() -> None:
    write_job()
    (Path.home() / "j-1-0.png").unlink()
    async with stage() as running:
        view = await open_words(running)
        seen = await painted(view)
        assert "No such file or directory; the heat lies on grey." in notice(inspect(running))
        assert "heat 60 % on grey" in running.screen_text()
        assert seen[-1, 0].min() > 20
        write_picture(tapes_dir() / "j-1", 0)
        view.look_again()
        await until(lambda: "on grey ─" not in running.screen_text(), "it is back")


async def test_a_job_without_a_ledger_has_its_heat_on_grey() -> None:
    write_job(saved=False)
    async with stage() as running:
        await open_words(running)
        assert "No picture of this job is noted; the heat lies on grey." in notice(inspect(running))


async def test_hostile_words_are_shown_as_they_are_and_harmless() -> None:
    hostile = (
        "[/]",
        "[bold",
        "\x1b[31mred\x1b]0;t\x07",
        "\u202ertl",
        "猫が好き",
        "👩\u200d🚀",
        "שלום",
        "../../etc/passwd",
        NASTY,
    )
    path = write_job("j-1", hostile)
    async with stage(size=(80, 24)) as running:
        view = await open_words(running)
        for _ in hostile:
            await press(running, "space", "up")
        text = running.screen_text()
        assert "[bold" in text and "猫が好き" in text and "../../etc" in text
        assert "\x1b" not in text and "\u202e" not in text
        assert len({line.rstrip()[-1] for line in text.splitlines()[2:19]}) == 1, "the border is straight"
        assert view.opened is not None
        for index in range(len(view.opened.words)):
            saved, _ = InspectedWords(path).save(Look(0, (index,)))
            assert saved.parent == Path.home()


# --- guidance -------------------------------------------------------------------------------------------------------


async def test_the_guidance_of_each_step_is_seen_from_the_tape() -> None:
    write_tape(write_job().parent)
    async with stage() as running:
        view = await open_words(running)
        await running.pilot.press("d")
        await until(lambda: view.step == 0, "the guidance")
        await painted(view)
        text = running.screen_text()
        assert "Guidance · step 1" in text
        assert any(line.split()[1:4:2] == ["1", "0.50"] or "0.50" in line for line in text.splitlines())
        last = await press(running, "right", "right", "right")
        assert view.step == 2
        assert "Guidance · step 3 of 4" in running.screen_text()
        assert last[-1, 0].sum() > last[0, 0].sum() + 100, "it acts in the lower half alone"
        await press(running, "left")
        assert view.step == 1
        await running.pilot.press("d")
        assert view.step is None
        assert "Words · cat" in running.screen_text()


async def test_a_job_without_guidance_or_tape_keeps_its_words() -> None:
    directory = write_job().parent
    async with stage() as running:
        view = await open_words(running)
        await running.pilot.press("d")
        await until(lambda: "batch-0000.tape" in notice(inspect(running)), "there is no tape")
        write_tape(directory, guided=False)
        await running.pilot.press("d")
        await until(lambda: "guidance" in notice(inspect(running)), "there is none")
        assert view.step is None
        assert "Words · cat" in running.screen_text()


async def test_a_job_without_maps_has_its_guidance_all_the_same() -> None:
    write_tape(write_job(mapped=False).parent)
    async with stage() as running:
        view = await open_words(running)
        assert view.has_class("-empty")
        await running.pilot.press("d")
        await until(lambda: "Guidance · step 1" in running.screen_text() and "▀" in running.screen_text(), "the guidance")
        await running.pilot.press("d")
        assert "kept no maps" in sentence(view)


# --- saving ---------------------------------------------------------------------------------------------------------


async def saved(running: Stage) -> Path:
    inspect(running).show_notice("")
    await running.pilot.press("e")
    await until(lambda: notice(inspect(running)).startswith("Saved "), "it is saved")
    return Path(notice(inspect(running)).removeprefix("Saved ").partition(" on grey")[0])


async def test_what_is_seen_is_saved_beside_the_picture_and_never_over_another() -> None:
    write_job()
    async with stage(size=(200, 60)) as running:
        await open_words(running)
        first, second = await saved(running), await saved(running)
        assert (first, second) == (Path.home() / "j-1-0-words-cat.png", Path.home() / "j-1-0-words-cat-2.png")
        picture = np.asarray(Image.open(first)).astype(int)
        assert picture.shape == (SIZE_PX, SIZE_PX, 3)
        assert at(picture, "cat").sum() > at(picture, "desert").sum() + 100
        await press(running, "space", "end")
        assert (await saved(running)).name == "j-1-0-words-desert-cat.png"
        await press(running, "x", "x")
        alone = np.asarray(Image.open(await saved(running)))
        assert alone.shape == (SIZE_PX, SIZE_PX, 3)


async def test_the_guidance_and_the_heat_on_grey_are_saved_too() -> None:
    write_tape(write_job().parent)
    (Path.home() / "j-1-0.png").unlink()
    async with stage(size=(200, 60)) as running:
        view = await open_words(running)
        await running.pilot.press("d")
        await until(lambda: view.step == 0, "the guidance")
        await press(running, "right")
        assert (await saved(running)).name == "j-1-0-guidance-2.png"
        assert "on grey" in notice(inspect(running))


async def test_a_picture_of_unknown_place_is_saved_where_pictures_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDTUI_GENERAL_OUTPUT_DIR", str(Path.home() / "out"))
    write_job(saved=False)
    async with stage(size=(200, 60)) as running:
        await open_words(running)
        assert await saved(running) == Path.home() / "out" / "j-1-0-words-cat.png"


async def test_a_disk_that_is_full_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    write_job()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async with stage() as running:
        await open_words(running)
        monkeypatch.setattr("sdtui.words.save_png", full)
        await running.pilot.press("e")
        await until(lambda: notice(inspect(running)) == "Not saved: No space left on device", "the reason")
        assert not [*Path.home().glob("*-words-*")], "nothing half-made stays"


# --- keys and imports -----------------------------------------------------------------------------------------------


def test_the_keys_can_be_mapped_and_are_told_in_the_help() -> None:
    ids = {str(binding.id): "f9" for binding in own_bindings(WordsView)}
    assert len(ids) == 15
    assert not unknown_ids(ids)
    there = [one for one in own_bindings(InspectScreen) if one.action.partition("(")[0] not in inspect_words.OF_A_MODEL]
    taken = {key for binding in there for key in binding.key.split(",")}
    own = {key for binding in own_bindings(WordsView) for key in binding.key.split(",")}
    assert not own & taken, "the others are about the model, and not there in this view"
    assert all(len(key_text(key)) == 1 or key in ("space", "enter", "home", "end") for key in own)


def test_of_the_screens_keys_only_those_of_no_model_work_in_the_view() -> None:
    actions = {binding.action.partition("(")[0] for binding in own_bindings(InspectScreen)}
    assert actions - inspect_words.OF_A_MODEL == {"turn_view", "leave", "reconnect"}
    assert actions >= inspect_words.OF_A_MODEL


def test_the_view_without_a_job_reads_nothing_that_is_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", STARTS], check=False, capture_output=True, text=True, timeout=120)
    assert "heavy: []" in done.stdout, done.stdout + done.stderr
