"""`sdtui words`: figures in a pipe and as JSON, heat on a terminal and in a file, and one clear line for whatever is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save

from sdtui import tape
from sdtui.bench.personalities import DUMB, KITTY
from sdtui.cli.app import main
from sdtui.cli.log import log_lines
from sdtui.inspected import Inspected, WordFacts, inspected_path, tape_of, write_inspected
from sdtui.ledger import Ledger, SavedPicture
from sdtui.metadata import ImageRecord, save_png
from sdtui.params import GenerationParams
from sdtui.protocol import JobInspected
from sdtui.settings import tapes_dir
from sdtui.tape import Tape
from sdtui.ui.happenings import rows_for_happening
from tests.cli.conftest import Cli
from tests.cli.in_terminal import finished, lines, mistakes

Say = Callable[..., list[str]]
TOKENS = ("<|startoftext|>", "a</w>", "red</w>", "cat</w>", ",</w>", "a</w>", "dog</w>", "<|endoftext|>")
PX = 64


@pytest.fixture
def say(capfd: pytest.CaptureFixture[str], home: Path) -> Say:
    """Runs `sdtui words` in this process; its lines on stdout."""

    def run(*arguments: object, code: int = 0, stderr: str = "") -> list[str]:
        assert main(["words", *map(str, arguments)]) == code
        said = capfd.readouterr()
        assert re.search(stderr, said.err) if stderr else said.err == ""
        assert "Traceback" not in said.err
        return said.out.splitlines()

    return run


def a_job(home: Path, name: str = "j1", pictures: int = 2, words: bool = True, steps: int = 3) -> list[Path]:
    """An inspected job as the worker leaves it: red acts left above, cat right below, the dog nowhere; and its pictures."""
    directory = tapes_dir() / name
    directory.mkdir(parents=True)
    ledger, seeds, paths = Ledger(directory), list(range(7, 7 + pictures)), []
    for index, seed in enumerate(seeds):
        record = ImageRecord(
            params=GenerationParams(prompt="a red cat, a dog", seed=seed), model_name="tiny", scheduler_class="X", job=name,
            image_index=index, first_seed=7, version="0", torch="0", diffusers="0", device="cpu", dtype="float32",
            created_at="2026-01-01T00:00:00+00:00", elapsed_s=1.0,
        )  # fmt: skip
        (home / "out").mkdir(exist_ok=True)
        paths.append(save_png(Image.new("RGB", (PX, PX), (90, 90, 90)), home / "out", f"{name}-{{index}}", record))
        ledger.add(SavedPicture(image_index=index, path=str(paths[-1]), seed=seed, width_px=PX, height_px=PX, size_bytes=1))
    maps = np.full((pictures, len(TOKENS), 8, 8), 0.1, np.float32)
    maps[:, 2, 1, 1], maps[:, 3, 6, 6] = 10.0, 20.0
    facts = WordFacts(tokens=TOKENS, steps=steps, resolutions=((8, 8),), layers=(3,), heads=(8,)) if words else None
    whole = Inspected(
        job=name, batch_index=0, model="tiny", prompt="a red cat, a dog", seeds=tuple(seeds), width_px=PX, height_px=PX,
        steps=3, words=facts,
    )  # fmt: skip
    path = inspected_path(directory, 0)
    write_inspected(path, whole, {"words/8x8": maps} if words else {})
    written = Tape(tape_of(path), {"format": tape.FORMAT, "seeds": seeds})
    for step in range(3):
        answer = np.zeros((2 * pictures, 4, 8, 8), np.float32)
        answer[pictures:, 0, 2, 5] = step + 1
        call = {"call": str(step), "step": str(step), "timestep": "1.0", "elapsed_s": "0.1", "form": "tuple"}
        written.append(save({"0": answer}, call))
    written.close()
    return paths


# --- figures --------------------------------------------------------------------------------------------------------


def test_a_table_tells_share_centre_and_peak_of_each_word(say: Say, home: Path) -> None:
    a_job(home)
    head, *rows = say(stderr=r"^Job j1, picture 1 of 2, seed 7: 3 steps, 3 layers at 8x8$")
    assert head.split() == ["word", "share", "centre", "peak", "peak/mean"]
    assert [row.split()[0] for row in rows] == ["a", "red", "cat", "a", "dog"]
    said = {row.split()[0]: row.split() for row in rows}
    assert said["red"][2:4] == ["12,12", "12,12"] and said["cat"][2:4] == ["52,52", "52,52"]
    shares = [float(row.split()[1].removesuffix("%")) for row in rows]
    assert sum(shares) == pytest.approx(100, abs=0.3) and max(shares) == shares[2]


def test_words_are_chosen_by_name_in_any_case_and_in_a_row(say: Say, home: Path) -> None:
    a_job(home)
    assert [row.split()[0] for row in say("j1", "--word", "CAT", "--with", "red", stderr="Job j1")[1:]] == ["cat", "red"]
    found = json.loads(say("j1", "--word", "Red cat", "--json")[0])
    assert [(row["word"], row["tokens"]) for row in found["words"]] == [("red cat", [2, 3])]
    both = json.loads(say("j1", "--word", "a", "--json")[0])["words"]
    assert both[0]["tokens"] == [1, 5], "a word that stands twice is all of its places"


def test_json_says_all_of_it(say: Say, home: Path) -> None:
    paths = a_job(home)
    (line,) = say("--json", "--image", 2)
    found = json.loads(line)
    assert (found["job"], found["image"], found["seed"], found["picture"]) == ("j1", 2, 8, str(paths[1]))
    assert (found["steps"], found["resolutions"], found["layers"]) == (3, [[8, 8]], [3])
    assert sum(row["share"] for row in found["words"]) == pytest.approx(1)
    assert found["words"][2]["peak_px"] == [52, 52] and found["words"][2]["contrast"] > 10


def test_a_resumed_jobs_maps_say_of_which_steps_they_are(say: Say, home: Path) -> None:
    a_job(home, pictures=1, steps=1)
    say(stderr=r"^Job j1, seed 7: the last 1 of 3 steps, 3 layers at 8x8$")


def test_the_last_job_with_maps_is_taken(say: Say, home: Path) -> None:
    a_job(home, "old")
    a_job(home, "new", words=False)
    assert json.loads(say("--json")[0])["job"] == "old"


def test_a_picture_says_which_job_made_it_also_where_it_was_moved(say: Say, home: Path) -> None:
    paths = a_job(home)
    moved = paths[1].rename(home / "moved.png")
    found = json.loads(say(moved, "--json")[0])
    assert (found["job"], found["image"], found["picture"]) == ("j1", 2, str(moved))
    assert say(moved, "--word", "cat", "--save", home / "heat.png") == [str(home / "heat.png")]
    say(moved, "--image", 1, code=2, stderr="--image: the file is one picture")


def test_a_file_of_the_job_can_be_given(say: Say, home: Path) -> None:
    a_job(home)
    assert json.loads(say(inspected_path(tapes_dir() / "j1", 0), "--json")[0])["job"] == "j1"


def test_guidance_is_told_step_by_step(say: Say, home: Path) -> None:
    a_job(home)
    head, *rows = say("--guidance")
    assert head.split()[:2] == ["step", "mean"]
    assert [row.split()[:4] for row in rows] == [[str(n), f"{n / 64:.4f}", "44,20", "44,20"] for n in (1, 2, 3)]
    assert [row.split()[0] for row in say("--guidance", "--step", 2)[1:]] == ["2"]
    assert [row["step"] for row in json.loads(say("--guidance", "--json")[0])["guidance"]] == [1, 2, 3]


# --- pictures -------------------------------------------------------------------------------------------------------


def brightest(path: Path) -> tuple[int, int]:
    light = np.asarray(Image.open(path).convert("L"), np.int32)
    top, left = np.unravel_index(light.argmax(), light.shape)
    return int(left), int(top)


def test_the_heat_is_saved_in_the_pictures_size(say: Say, home: Path) -> None:
    a_job(home)
    target = home / "heat.png"
    assert say("--word", "cat", "--save", target) == [str(target)]
    assert Image.open(target).size == (PX, PX)
    assert all(abs(at - 52) <= 1 for at in brightest(target))
    found = json.loads(say("--word", "cat", "--with", "red", "--save", target, "--json")[0])
    assert found["saved"] == str(target)
    picture = np.asarray(Image.open(target), np.int32)
    assert picture[52, 52, 0] > picture[52, 52, 2] and picture[12, 12, 2] > picture[12, 12, 0], "orange cat, blue red"
    say("--guidance", "--save", target)
    assert all(abs(at - there) <= 1 for at, there in zip(brightest(target), (44, 20), strict=True))


def test_a_terminal_shows_the_heat(home: Path, cli: Cli) -> None:
    a_job(home)
    with finished(KITTY, "words", "--word", "cat", "--with", "red", environment=cli.environment) as (terminal, code):
        assert code == 0
        assert lines(terminal)[32] == "cat orange, red azure  job j1  seed 7"
        shown = np.asarray(terminal.picture((0, 0, 68, 32)).convert("RGB").resize((PX, PX)), np.int32)
        assert shown[52, 52, 0] > shown[52, 52, 2] and shown[12, 12, 2] > shown[12, 12, 0]
        assert not mistakes(terminal.look())


def test_a_terminal_that_cannot_draw_is_told_so(home: Path, cli: Cli) -> None:
    a_job(home)
    with finished(DUMB, "words", "--word", "cat", environment={**cli.environment, "TERM": "dumb"}) as (terminal, code):
        assert code == 3 and any("No picture can be drawn here" in line for line in lines(terminal))


# --- what can be wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nojob"], "JOB: nothing is kept of a job 'nojob'; known are j1"),
        (["j2"], "did you mean 'j1'"),
        ([".."], "cannot be a directory's name"),
        (["no/such.png"], "FILE: .*such.png cannot be read"),
        (["--word", "dgo"], "--word: 'dgo' is not in the prompt; did you mean 'dog'"),
        (["--word", "zebra"], "known are a, red, cat, dog"),
        (["--word", ""], "is not in the prompt"),
        (["--word", "cat", "--with", "\x1b[31mx"], "--with: .* is not in the prompt"),
        (["--with", "cat"], "--with: give the first word"),
        (["--step", "1"], "--step: it is for --guidance"),
        (["--guidance", "--step", "9"], "--step: 9 is too much, 3 steps"),
        (["--guidance", "--word", "cat"], "give one of them"),
        (["--image", "9"], "--image: there are maps of 2 pictures, 1 to 2; not of 9"),
        (["--save", "x.png"], "--save: say what is to be seen"),
        (["--word", "cat", "--save", "x.jpg"], "must end in .png"),
        (["--word", "cat", "--save", "/nowhere/x.png"], "--save: /nowhere/x.png cannot be written: No such file"),
        (["--image-protocol", "crayon"], "--image-protocol: 'crayon'"),
    ],
)
def test_bad_input_is_one_line(say: Say, home: Path, arguments: list[str], said: str) -> None:
    a_job(home)
    assert say(*arguments, code=2, stderr=rf"^sdtui: .*{said}[^\n]*\n$") == []


def test_without_any_inspected_job_it_is_said_how_to_make_one(say: Say) -> None:
    say(code=2, stderr="There is no job with maps of words. sdtui generate --words")


def test_jobs_without_maps_files_or_words_are_told(say: Say, home: Path) -> None:
    a_job(home, words=False)
    say("j1", code=2, stderr="was inspected without its words")
    inspected_path(tapes_dir() / "j1", 0).unlink()
    say("j1", code=2, stderr="has no maps of words, or they were removed")


def test_damaged_files_are_told(say: Say, home: Path) -> None:
    a_job(home)
    path = inspected_path(tapes_dir() / "j1", 0)
    path.write_bytes(path.read_bytes()[:-100])
    say("j1", code=2, stderr="^sdtui: .*inspected-0000.safetensors")
    path.write_bytes(b"nothing")
    say("j1", code=2, stderr="is no file of an inspected job")


def test_a_picture_that_is_gone_or_damaged_is_told(say: Say, home: Path) -> None:
    paths = a_job(home)
    paths[0].write_bytes(b"nothing")
    say("--word", "cat", "--save", home / "heat.png", code=2, stderr="cannot be read")
    paths[0].unlink()
    say("--word", "cat", "--save", home / "heat.png", code=2, stderr=r"The picture .*\.png is gone; give the file")
    assert not (home / "heat.png").exists()
    assert say("--word", "cat", stderr="Job j1"), "the figures need no picture"


def test_tapes_that_are_gone_are_told(say: Say, home: Path) -> None:
    a_job(home)
    tape_of(inspected_path(tapes_dir() / "j1", 0)).unlink()
    say("--guidance", code=2, stderr="The steps of this job are not recorded, or were removed")


# --- the log --------------------------------------------------------------------------------------------------------


def test_the_log_says_where_the_words_can_be_seen() -> None:
    event = JobInspected(job="j1", batch_index=0, path="/t/inspected-0000.safetensors", modules=54, words=5)
    (line,) = log_lines(event)
    assert "inspected" in line and "activations of 54 modules; where 5 words act: sdtui words j1" in line
    texts = [str(row) for row in rows_for_happening(event)]
    assert "where the words act: 5 words" in texts[0] and any("sdtui words j1" in text for text in texts)
    assert any("54 modules" in text for text in texts)
    assert rows_for_happening(JobInspected(job="j1", batch_index=0, path="", words=0)) == []


def test_a_real_job_with_words_can_be_asked(live: Cli) -> None:
    made = live.run("generate", "a red cat", "--steps", "2", "--words", "--seed", "7", "--output", str(live.home / "words"))
    assert made.returncode == 0, made.stderr
    asked: Any = live.run("words", made.stdout.strip(), "--word", "cat", "--json")
    found = json.loads(asked.stdout)
    assert found["prompt"] == "a red cat" and found["steps"] == 2 and found["words"][0]["contrast"] > 1
    log = live.run("jobs", found["job"])
    assert f"sdtui words {found['job']}" in log.stdout
