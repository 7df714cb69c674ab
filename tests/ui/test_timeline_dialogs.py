"""What the Timeline screen makes: full pictures of steps, branches, and files."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from textual.content import Content

from sdtui.params import GenerationParams
from sdtui.protocol import (
    BranchPoint,
    DecodeStep,
    JobFailed,
    JobQueued,
    Message,
    Refused,
    StepDecoded,
    StepNotDecoded,
    Submit,
)
from sdtui.settings import tapes_dir
from sdtui.timeline import export as export_module
from sdtui.timeline.views import decoded_path
from sdtui.trajectory import INITIAL
from sdtui.ui.screens.timeline_branch import CHANGEABLE, BranchDialog
from sdtui.ui.screens.timeline_export import ExportDialog
from tests.ui.stage import Stage, stage, until
from tests.ui.test_timeline_jobs import ScriptedTimeline, name
from tests.ui.timeline_jobs import notice, open_timeline, pixel, press, timeline, title, write_steps


class Decoder(ScriptedTimeline):
    """Decodes steps to pictures of one colour, says no, or leaves them waiting; branches are refused, or queued and not run."""

    def __init__(self, **options: Any) -> None:
        super().__init__([], **options)
        self.answer: str = "decoded"
        self.refusal: Refused | JobFailed | None = None

    async def send(self, command: Message) -> None:
        if isinstance(command, DecodeStep):
            self.log.append(command)
            self.emit(*self._decode(command))
        elif isinstance(command, Submit):
            self.log.append(command)
            answer = JobQueued(job=command.job, params=command.params, position=0)
            self.emit(answer if self.refusal is None else self._of(command.job))
        else:
            await super().send(command)

    def _of(self, job: str) -> Message:
        assert self.refusal is not None
        return type(self.refusal)(job=job, message=self.refusal.message, field=self.refusal.field)

    def _decode(self, command: DecodeStep) -> list[Message]:
        place = {
            "job": command.job,
            "batch_index": command.batch_index,
            "step_index": command.step_index,
            "picture": command.picture,
        }
        if self.answer == "decoded":
            path = write_decoded(command.job, command.step_index, command.batch_index, command.picture)
            return [StepDecoded(**place, path=str(path), elapsed_s=0.25)]
        if self.answer == "refused":
            return [Refused(job=command.job, message="There is no such job.")]
        return [StepNotDecoded(**place, message=self.answer)] if self.answer else []


def write_decoded(job: str, step: int, batch: int = 0, picture: int = 0) -> Path:
    """The picture of a step, as green as its number."""
    path = decoded_path(tapes_dir() / job / f"batch-{batch:04d}.steps", picture, step)
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (128, 128), (0, 10 * (step + 2), 0)).save(path)
    return path


def files_of(directory: Path) -> list[Path]:
    return [*directory.iterdir()]


# --- decoding -------------------------------------------------------------------------------------------------------


async def test_one_key_decodes_the_step_and_shows_it() -> None:
    write_steps(name(1), batch=0, pictures=2)
    client = Decoder()
    async with stage(client, size=(160, 40)) as running:
        screen = await open_timeline(running)
        await press(running, "w", "left", "d")
        await until(lambda: title(screen.one) == "x0 prediction, full VAE · 128×128", "the full picture")
        assert pixel(screen.one) == (0, 60, 0)
        (asked,) = client.sent(DecodeStep)
        assert (asked.job, asked.batch_index, asked.picture, asked.step_index) == (name(1), 0, 1, 4)
        assert notice(screen) == "Step 5 decoded in 250 ms."
        await press(running, "left")
        assert "not decoded: d decodes it" in title(screen.one)
        assert "◆" in running.screen_text()
        await press(running, "right", "d")
        assert len(client.sent(DecodeStep)) == 1  # it is there


async def test_pictures_that_are_there_are_shown_at_once_also_of_the_beginning() -> None:
    write_steps(name(1))
    write_decoded(name(1), 5)
    write_decoded(name(1), INITIAL)
    async with stage(Decoder(), size=(160, 40)) as running:
        screen = await open_timeline(running)
        await press(running, "V")
        assert pixel(screen.one) == (0, 70, 0)
        await press(running, "home")
        assert pixel(screen.one) == (0, 10, 0)
        assert title(screen.one) == "x0 prediction, full VAE · before the first step · 128×128"


async def test_while_a_step_is_decoded_the_border_says_so_and_other_steps_can_be_looked_at() -> None:
    write_steps(name(1))
    client = Decoder()
    client.answer = ""
    async with stage(client, size=(160, 40)) as running:
        screen = await open_timeline(running)
        await press(running, "d")
        await until(lambda: "decoding with the full VAE" in title(screen.one), "it is said")
        await press(running, "left")
        assert "not decoded: d decodes it" in title(screen.one)
        await press(running, "right", "d", "d")
        assert "decoding with the full VAE" in title(screen.one)
        assert len(client.sent(DecodeStep)) == 1
        path = write_decoded(name(1), 5)
        client.emit(StepDecoded(job=name(1), batch_index=0, step_index=5, picture=0, path=str(path), elapsed_s=2.5))
        await until(lambda: "full VAE · 128×128" in title(screen.one), "it is there")
        await press(running, "v")
        client.emit(StepDecoded(job="other", batch_index=0, step_index=5, picture=0, path=str(path), elapsed_s=2.5))
        await running.pilot.pause()


@pytest.mark.parametrize(
    ("answer", "words"), [("The VAE is \x1b[31mgone.", "The VAE is gone."), ("refused", "There is no such job.")]
)
async def test_a_step_that_is_not_decoded_says_why_and_can_be_asked_for_again(answer: str, words: str) -> None:
    write_steps(name(1))
    client = Decoder()
    client.answer = answer
    async with stage(client, size=(160, 40)) as running:
        screen = await open_timeline(running)
        await press(running, "d")
        await until(lambda: words in title(screen.one), "the border")
        assert notice(screen) == f"Step 6 is not decoded: {words}"
        client.answer = "decoded"
        await press(running, "d")
        await until(lambda: "full VAE · 128×128" in title(screen.one), "the picture")


async def test_a_server_that_goes_ends_the_waiting() -> None:
    write_steps(name(1))
    client = Decoder()
    client.answer = ""
    async with stage(client, size=(160, 40)) as running:
        screen = await open_timeline(running)
        await press(running, "d")
        await until(lambda: client.sent(DecodeStep), "it is asked for")
        client.drop()
        await until(lambda: "not decoded: The server has gone." in title(screen.one), "the border")


async def test_both_jobs_that_are_compared_are_decoded() -> None:
    write_steps(name(1), age_s=5)
    write_steps(name(2))
    client = Decoder()
    async with stage(client, size=(200, 50)) as running:
        screen = await open_timeline(running)
        await running.pilot.press("D")
        await until(lambda: running.app.screen is not screen, "the list")
        await running.pilot.press("enter")
        await until(lambda: screen.other is not None, "the other job")
        await press(running, "d")
        await until(lambda: all("full VAE · 128" in title(picture) for picture in (screen.one, screen.two)), "both pictures")
        assert {command.job for command in client.sent(DecodeStep)} == {name(1), name(2)}


# --- branching ------------------------------------------------------------------------------------------------------


async def open_branch(running: Stage, *keys: str) -> BranchDialog:
    await press(running, *keys, "b")
    await until(lambda: isinstance(running.app.screen, BranchDialog), "the dialog")
    dialog = running.app.screen
    assert isinstance(dialog, BranchDialog)
    await until(lambda: said(dialog), "what it says")
    return dialog


def said(dialog: BranchDialog | ExportDialog) -> str:
    return str(dialog.note.content)


async def test_a_branch_changes_the_prompt_from_the_shown_step_on_and_is_followed() -> None:
    write_steps(name(1), pictures=2, batch_count=3, negative_prompt="dogs", guidance_scale=6.5)
    client = Decoder()
    async with stage(client, size=(120, 40)) as running:
        screen = await open_timeline(running)
        dialog = await open_branch(running, "w", "left", "left")
        assert "Branch after step 4 of job 0001" in running.screen_text()
        assert "Nothing is changed: 2 steps would run anew and give the same picture." in said(dialog)
        dialog._prompt("prompt").load_text("a blue cat")
        await until(lambda: said(dialog) == "4 steps of the parent are taken over, 2 steps run anew.", "the note")
        await running.pilot.press("f5")
        await until(lambda: client.sent(Submit), "the branch")
        (sent,) = client.sent(Submit)
        assert sent.branch == BranchPoint(job=name(1), step=4, batch_index=0, picture=1)
        assert sent.params == GenerationParams(
            prompt="a blue cat", negative_prompt="dogs", guidance_scale=6.5, seed=8, width=128, height=128,
            num_inference_steps=6, scheduler="ddim",
        )  # fmt: skip
        assert sent.output_dir == str(Path.home() / "Pictures" / "sdtui")
        await until(lambda: screen.job == sent.job and running.app.screen is screen, "it is followed")
        await until(lambda: "no recorded step yet" in screen.one.sentence, "what it waits for")
        assert sent.job in running.screen.following.own


async def test_every_field_is_checked_before_anything_is_sent() -> None:
    write_steps(name(1))
    client = Decoder()
    async with stage(client, size=(120, 44)) as running:
        await open_timeline(running)
        dialog = await open_branch(running, "left", "left")
        dialog._prompt("prompt").load_text("  ")
        for field, text in (("guidance_scale", "much"), ("seed", "-1"), ("num_inference_steps", "0")):
            dialog._rows[field].text = text
        await running.pilot.press("f5")
        await running.pilot.pause()
        text = running.screen_text()
        for words in ("Guidance takes a number", "Seed must be from 0", "Steps must be from 1", "Prompt is empty"):
            assert words in text, words
        assert not client.sent(Submit)
        assert running.app.focused is dialog._prompt("prompt")
        await running.pilot.press("escape")
        await until(lambda: running.app.screen is timeline(running), "it is left")


@pytest.mark.parametrize(
    ("params", "changes", "words"),
    [
        ({"scheduler": "ddim"}, {"seed": "9"}, "Another seed changes nothing here: DDIM draws no noise in its steps."),
        ({"scheduler": "euler_a"}, {"seed": "9"}, "4 steps of the parent are taken over, 2 steps run anew."),
        ({"scheduler": "ddim"}, {"seed": "9", "guidance_scale": "2"}, "The seed makes no difference: DDIM draws no noise"),
        ({"scheduler": "default"}, {"seed": "9"}, "Another seed changes nothing here: DDIM draws no noise in its steps."),
        ({"scheduler": "ddim"}, {"scheduler": "euler"}, "nearest noise level"),
        ({"scheduler": "ddim"}, {"seed": ""}, "Nothing is changed"),
    ],
)
async def test_the_dialog_says_what_a_change_does(params: dict[str, Any], changes: dict[str, str], words: str) -> None:
    write_steps(name(1), **params)
    async with stage(Decoder(), size=(120, 44)) as running:
        await open_timeline(running)
        dialog = await open_branch(running, "left", "left")
        for field, text in changes.items():
            dialog._rows[field].text = text
        await until(lambda: words in said(dialog), words)


@pytest.mark.parametrize("kind", [Refused, JobFailed])
async def test_what_the_server_says_against_a_branch_stands_at_its_field(kind: Any) -> None:
    write_steps(name(1))
    client = Decoder()
    client.refusal = kind(job="", message="Guidance must stay.", field="guidance_scale")
    async with stage(client, size=(120, 44)) as running:
        await open_timeline(running)
        dialog = await open_branch(running, "left", "left")
        await running.pilot.press("f5")
        await until(lambda: said(dialog) == "Guidance must stay.", "the note")
        assert dialog._rows["guidance_scale"].error == "Guidance must stay."
        assert running.app.focused is dialog._rows["guidance_scale"].editor
        client.refusal = None
        await running.pilot.press("f5")
        await until(lambda: running.app.screen is timeline(running), "the second try")
        assert len({command.job for command in client.sent(Submit)}) == 2


async def test_a_branch_that_fails_later_is_told_of() -> None:
    write_steps(name(1))
    client = Decoder()
    async with stage(client, size=(120, 44)) as running:
        screen = await open_timeline(running)
        await open_branch(running, "left")
        await running.pilot.press("f5")
        await until(lambda: running.app.screen is screen and screen.job != name(1), "the branch")
        client.emit(JobFailed(job=str(screen.job), message="Job 1 has nothing to branch from: gone.", field="branch"))
        await until(lambda: "nothing to branch from: gone." in notice(screen), "the notice")


@pytest.mark.parametrize(
    ("key", "words"), [("end", "No step is left to run after the last one"), ("home", "A branch takes over 1 step or more")]
)
async def test_the_ends_of_a_job_cannot_be_branched_from(key: str, words: str) -> None:
    write_steps(name(1))
    async with stage(Decoder()) as running:
        screen = await open_timeline(running)
        await press(running, key, "b")
        assert words in notice(screen)
        assert running.app.screen is screen


async def test_the_dialog_offers_what_may_change_and_reaches_it_by_keys_in_little_room() -> None:
    write_steps(name(1))
    async with stage(Decoder(), size=(80, 24)) as running:
        await open_timeline(running)
        dialog = await open_branch(running, "left")
        box = dialog.query_one("#branch-box").region
        assert box.bottom <= 24 and box.right <= 80
        seen = set()
        for _ in range(10):
            focused = running.app.focused
            seen.add(getattr(focused, "field", None) or focused.parent.field.name)
            assert box.contains_region(focused.region)
            await running.pilot.press("tab")
        assert seen == {*CHANGEABLE}


# --- exporting ------------------------------------------------------------------------------------------------------


async def open_export(running: Stage, *keys: str) -> ExportDialog:
    await press(running, *keys, "e")
    await until(lambda: isinstance(running.app.screen, ExportDialog), "the dialog")
    dialog = running.app.screen
    assert isinstance(dialog, ExportDialog)
    await running.pilot.pause()
    return dialog


def fill(dialog: ExportDialog, **values: str) -> None:
    for field, value in values.items():
        dialog._rows[field].editor.value = value


async def test_the_shown_view_is_written_with_a_bar_and_its_path_is_said(tmp_path: Path) -> None:
    write_steps(name(1), steps=6)
    async with stage(Decoder(), size=(120, 40)) as running:
        screen = await open_timeline(running)
        dialog = await open_export(running, "v")
        assert Content.from_markup(dialog.query_one("#export-box").border_title).plain == "Export job 0001 · latents x_t"
        fill(dialog, target=str(tmp_path / "steps.gif"), fps="5", every="2", caption="no", include_initial="yes")
        await running.pilot.press("f5")
        await until(lambda: running.app.screen is screen, "it is written")
        assert notice(screen) == f"Saved {tmp_path / 'steps.gif'}"
        with Image.open(tmp_path / "steps.gif") as clip:
            assert (clip.format, clip.n_frames, clip.size) == ("GIF", 4, (128, 128))


async def test_the_name_that_is_offered_can_be_taken() -> None:
    write_steps(name(1), steps=3)
    async with stage(Decoder(), size=(120, 40)) as running:
        screen = await open_timeline(running)
        await open_export(running, "down")
        await running.pilot.press("enter")
        await until(lambda: running.app.screen is screen, "it is written")
        assert (Path.home() / "Pictures" / "sdtui" / f"{name(1)}-channel-1.mp4").stat().st_size > 0


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"fps": "0"}, "Steps a second: It must be from 1 to 60 frames a second; it is 0."),
        ({"fps": "fast"}, "Steps a second: It takes a number, not 'fast'."),
        ({"hold_s": "nan"}, "Hold the last: It must be from 0 to 60 seconds; it is nan."),
        ({"every": "1.5"}, "Every: It takes a whole number, not '1.5'."),
        ({"every": "0"}, "Every: It must be 1 or more; it is 0."),
        ({"target": ""}, "File: The name of the file is empty"),
        ({"target": "~/a.txt"}, "File: ~/a.txt must end in one of .mp4"),
        ({"target": "~/not/there/a.mp4"}, "File: The directory"),
        ({"include_initial": "yes"}, "Beginning: There is no x0 prediction before the first step."),
    ],
)
async def test_bad_values_are_said_at_their_fields(values: dict[str, str], words: str) -> None:
    write_steps(name(1), steps=3)
    async with stage(Decoder(), size=(120, 40)) as running:
        await open_timeline(running)
        dialog = await open_export(running)
        fill(dialog, **{"target": "~/a.mp4", **values})
        await running.pilot.press("f5")
        await until(lambda: said(dialog).startswith(words), words)
        field = next(iter(values))
        assert running.app.focused is dialog._rows[field].editor
        assert not (Path.home() / "a.mp4").exists()


async def test_what_is_there_is_only_replaced_when_it_is_said() -> None:
    write_steps(name(1), steps=3)
    there = Path.home() / "a.webp"
    there.write_bytes(b"mine")
    async with stage(Decoder(), size=(120, 40)) as running:
        screen = await open_timeline(running)
        dialog = await open_export(running)
        fill(dialog, target=str(there))
        await running.pilot.press("f5")
        await until(lambda: "is there already" in said(dialog), "it is said")
        assert there.read_bytes() == b"mine"
        fill(dialog, overwrite="yes")
        await running.pilot.press("f5")
        await until(lambda: running.app.screen is screen, "it is written")
        assert there.read_bytes()[:4] == b"RIFF"


async def test_full_pictures_that_are_missing_are_made_first_once_all_else_is_right() -> None:
    write_steps(name(1), steps=6)
    write_decoded(name(1), 1)
    client = Decoder()
    async with stage(client, size=(120, 40)) as running:
        screen = await open_timeline(running)
        dialog = await open_export(running, "V")
        fill(dialog, target="~/a.txt", every="2", fps="5")
        await running.pilot.press("f5")
        await until(lambda: "must end in one of" in said(dialog), "what is wrong")
        assert not client.sent(DecodeStep)
        fill(dialog, target="~/a.gif")
        await running.pilot.press("f5")
        await until(lambda: running.app.screen is screen, "it is written")
        assert [command.step_index for command in client.sent(DecodeStep)] == [3, 5]
        with Image.open(Path.home() / "a.gif") as clip:
            assert clip.n_frames == 3


@pytest.mark.parametrize("answer", ["The VAE is gone.", "refused"])
async def test_an_export_ends_with_the_step_that_cannot_be_decoded(answer: str) -> None:
    write_steps(name(1), steps=6)
    client = Decoder()
    client.answer = answer
    async with stage(client, size=(120, 40)) as running:
        await open_timeline(running)
        dialog = await open_export(running, "V")
        fill(dialog, target="~/a.gif")
        await running.pilot.press("f5")
        await until(lambda: "Step 1 is not decoded: The" in said(dialog), "it is said")
        assert len(client.sent(DecodeStep)) == 1


async def test_decoding_for_an_export_can_be_cancelled() -> None:
    write_steps(name(1), steps=6)
    client = Decoder()
    client.answer = ""
    async with stage(client, size=(120, 40)) as running:
        await open_timeline(running)
        dialog = await open_export(running, "V")
        fill(dialog, target="~/a.gif")
        await running.pilot.press("f5")
        await until(lambda: "0 / 6 steps decoded" in said(dialog), "the bar")
        await running.pilot.press("escape")
        await until(lambda: "Cancelled; nothing is left" in said(dialog), "it is said")
        assert len(client.sent(DecodeStep)) == 1


async def test_an_export_can_be_cancelled_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_steps(name(1), steps=6)
    begun, go = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    real = export_module.export

    def slow(*wanted: Any, progress: Any, **options: Any) -> Any:
        def told(done: int, total: int) -> None:
            progress(done, total)
            loop.call_soon_threadsafe(begun.set)
            go.wait(10)

        return real(*wanted, progress=told, **options)

    monkeypatch.setattr(export_module, "export", slow)
    async with stage(Decoder(), size=(120, 40)) as running:
        screen = await open_timeline(running)
        dialog = await open_export(running)
        fill(dialog, target=str(tmp_path / "a.gif"))
        await running.pilot.press("f5")
        await asyncio.wait_for(begun.wait(), 10)
        await until(lambda: "1 / 6 frames" in said(dialog), "the bar")
        await running.pilot.press("escape")
        go.set()
        await until(lambda: "Cancelled; nothing is left" in said(dialog), "it is said")
        assert not files_of(tmp_path)
        await running.pilot.press("escape")
        await until(lambda: running.app.screen is screen, "it is left")
