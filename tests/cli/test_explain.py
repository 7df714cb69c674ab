"""`sdtui explain`: a sampling function line by line, as text or JSON, by a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdtui.cli.app import main
from sdtui.params import GenerationParams
from sdtui.protocol import DownloadProgress, ExplainerReply, ExplainerRequest, ExplainingFailed, Message, StartExplaining
from sdtui.scratch.explanations import EXPLANATIONS, code_of
from sdtui.server.explainer import ExplainerError
from sdtui.settings import Settings
from sdtui.worker.cancellation import CancelToken
from sdtui.worker.explainer.explaining import Explaining
from tests.cli.conftest import Cli, Refused

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers")  # of numpy, in its schedulers
Say = Callable[..., tuple[list[str], str]]
CAT = ("a red cat in the desert", "--negative", "moon", "--seed", "7", "--steps", "4", "--width", "64", "--height", "64")
DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def explaining() -> Explaining:
    """What the process holds, here: its imports and its model are there once for all tests."""
    return Explaining(Settings(), lambda _: None)


@pytest.fixture
def asked() -> list[ExplainerRequest]:
    """What was asked."""
    return []


@pytest.fixture
def here(explaining: Explaining, asked: list[ExplainerRequest], monkeypatch: pytest.MonkeyPatch) -> None:
    """The explainer answers in this process; that it does so from its own, other tests say."""

    class Here:
        def __init__(self, *, on_message: Callable[[Message], None]) -> None:
            self._on_message = on_message

        async def request(self, message: ExplainerRequest) -> ExplainerReply:
            asked.append(message)
            if isinstance(message, StartExplaining):
                self._on_message(DownloadProgress(model="m\x1b[31m", file="f", done_bytes=1 << 20, total_bytes=2 << 20))
            reply = explaining.answer(message, CancelToken())
            if isinstance(reply, ExplainingFailed):
                raise ExplainerError(reply.message, field=reply.field, line=reply.line, detail=reply.detail)
            return reply

        async def close(self) -> None:
            pass

    monkeypatch.setattr("sdtui.cli.explain.Explainer", Here)


@pytest.fixture
def say(here: None, capfd: pytest.CaptureFixture[str]) -> Say:
    """Runs `sdtui explain` in this process; its lines on stdout, and what it says on stderr."""

    def run(*arguments: object, code: int = 0) -> tuple[list[str], str]:
        assert main(["explain", *map(str, arguments)]) == code
        said = capfd.readouterr()
        return said.out.splitlines(), said.err

    return run


def numbered(lines: list[str]) -> list[int]:
    """The numbers of the function's lines that are shown."""
    return [int(found[1]) for line in lines if (found := re.match(r" {1,4}(\d+)  ", line))]


# --- the transcript -------------------------------------------------------------------------------------------------


def test_it_shows_stages_lines_tensors_and_values(say: Say) -> None:
    lines, errors = say(*CAT, "--scheduler", "euler", "--no-notes")
    assert re.fullmatch(r"text_to_image of sdtui/scratch/text_to_image.py, on .+, in float32", lines[0])
    assert lines[1].startswith("text_to_image(pipe, prompt='a red cat in the desert', negative_prompt='moon', ")
    assert [line[:24] for line in lines if line.startswith("---")] == [
        "--- what to draw: words ", "--- where to begin: nois", "--- denoise: each step t", "--- from latents to pixe",
    ]  # fmt: skip
    at = lines.index('   41  tokens = tokenizer(prompts, **padded, return_tensors="pt").input_ids  # (2, 77)')
    assert re.fullmatch(r" {8}tokens  \(2, 77\)  int64  on cpu  min \d+  mean [\d.]+  max 772", lines[at + 1])
    assert lines[at + 2 : at + 4] == [
        "        tokens[0] = <|startoftext|> moon</w> <|endoftext|>",
        "        tokens[1] = <|startoftext|> a</w> red</w> cat</w> in</w> the</w> desert</w> <|endoftext|>",
    ]
    assert "        prompts = ['moon', 'a red cat in the desert']" in lines
    latents = [line for line in lines if line.startswith("        latents  ")]
    assert len(latents) == 3, "the first ones, and those of the first and the last step"
    assert all(
        re.fullmatch(r" {8}latents  \(1, 4, 8, 8\)  float32  on cpu  min \S+  mean \S+  max \S+", line) for line in latents
    )
    assert lines[-1] == "        returns a picture, 64x64, RGB"
    assert "Fetching m: f 1 MiB of 2 MiB" in errors


def test_of_the_loop_the_first_and_the_last_step_are_in_full_and_one_line_is_for_each_between(say: Say) -> None:
    lines, _ = say(*CAT, "--scheduler", "euler", "--no-notes")
    steps = [line for line in lines if line.startswith("step ")]
    assert [step[:11] for step in steps] == ["step 1 of 4", "step 2 of 4", "step 3 of 4", "step 4 of 4"]
    assert all(re.search(r"t = [\d.]+  latents min \S+  mean \S+  max \S+  [\d.]+ m?s$", step) for step in steps[1:3])
    shown = numbered(lines)
    assert [shown.count(line) for line in (54, 57, 61)] == [3, 2, 2], "the loop's head finds nothing left, too"
    assert lines[lines.index("   54  for t in scheduler.timesteps:") + 1].strip().startswith("t = tensor(")
    assert "        no timestep is left" in lines
    in_full, _ = say(*CAT, "--scheduler", "euler", "--no-notes", "--every-step")
    assert [numbered(in_full).count(line) for line in (54, 57, 61)] == [5, 4, 4]
    assert [line for line in in_full if line.startswith("step ")] == [
        line.split("  latents")[0].replace("step  ", "step ") for line in steps
    ]


def test_each_line_is_explained_once(say: Say) -> None:
    lines, _ = say(*CAT)
    text = " ".join(line.strip().removeprefix("# ") for line in lines)
    shown = {code_of(line[7:]) for line in lines if re.match(r" {1,4}\d+  ", line)}
    assert len(shown) == 25
    wanted = {EXPLANATIONS[code] for code in shown}
    assert {sentence: text.count(sentence) for sentence in EXPLANATIONS.values()} == {
        sentence: int(sentence in wanted) for sentence in EXPLANATIONS.values()
    }
    assert max(len(line) for line in lines if line.startswith("        # ")) <= 110


def test_a_transcript_without_guidance_leaves_its_lines_out(say: Say) -> None:
    lines, _ = say(*CAT, "--guidance", "1")
    assert "        guided = False" in lines and 58 in numbered(lines) and 60 not in numbered(lines)


def test_an_initial_image_is_explained_as_image_to_image(say: Say, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (200, 30, 30)).save(tmp_path / "red.png")
    lines, _ = say(*CAT, "--init", tmp_path / "red.png", "--strength", "0.5")
    assert lines[0].startswith("image_to_image of sdtui/scratch/image_to_image.py")
    assert any(re.match(r" {8}encoded  \(1, 4, 8, 8\)", line) for line in lines)
    assert len([line for line in lines if line.startswith("step ")]) == 2


def test_the_picture_is_saved_where_it_is_told(say: Say, tmp_path: Path) -> None:
    lines, _ = say(*CAT, "--output", tmp_path / "new" / "cat.png")
    assert lines[-1] == f"Saved {tmp_path / 'new' / 'cat.png'}"
    assert np.asarray(Image.open(tmp_path / "new" / "cat.png")).shape == (64, 64, 3)
    assert say(*CAT, "--output", tmp_path / "new" / "cat.png")[0][-1].endswith("cat-2.png")


def test_without_an_output_none_is_saved(say: Say, home: Path) -> None:
    say(*CAT)
    assert list(home.rglob("*.png")) == []


# --- JSON -----------------------------------------------------------------------------------------------------------


def test_json_is_an_object_a_line_and_has_every_step(say: Say, tmp_path: Path) -> None:
    lines, _ = say(*CAT, "--scheduler", "euler", "--json", "--output", tmp_path / "cat.png")
    started, *ran, saved = map(json.loads, lines)
    assert (started["type"], started["function"], started["params"]["seed"]) == ("explaining_started", "text_to_image", 7)
    assert {line["type"] for line in ran} == {"line_ran"} and ran[-1]["finished"]
    assert [line["step_index"] for line in ran if line["line"] == 57] == [0, 1, 2, 3]
    assert set(started["notes"]) == {str(line) for line in started["lines"]}
    (tokens,) = next(line for line in ran if line["line"] == 41)["made"]
    assert (tokens["name"], tokens["shape"], tokens["words"][0]) == (
        "tokens", [2, 77], ["<|startoftext|>", "moon</w>", "<|endoftext|>"],
    )  # fmt: skip
    assert saved == {"type": "explained_saved", "request": 0, "path": str(tmp_path / "cat.png")} | {"request": saved["request"]}


def test_with_json_a_problem_is_on_stdout_too(say: Say) -> None:
    lines, errors = say(*CAT, "--count", "2", "--json", code=2)
    said = json.loads(lines[0])
    assert (said["type"], said["field"]) == ("explaining_failed", "batch_count") and "--count: Batch count must be 1" in errors
    lines, _ = say("cat", "--steps", "0", "--json", code=2)
    assert json.loads(lines[0])["type"] == "refused"


# --- what is wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([""], "PROMPT: Prompt is empty"),
        (["cat", "--steps", "ten"], "--steps: Steps takes a whole number"),
        (["cat", "--model", "/no/such/model"], "--model: Model folder '/no/such/model' does not exist"),
        (["cat", "--output", "cat.jpg"], "--output: 'cat.jpg' does not end in .png."),
        (["cat", "--output", "/dev/null/cat.png"], "--output: /dev/null is not a directory"),
        (["cat", "--init", "/no/such.png"], "--init: "),
        (["cat", "--stepz", "3"], "No such option: --stepz"),
    ],
)
def test_a_bad_option_is_named_before_a_process_is_started(refused: Refused, arguments: list[str], said: str) -> None:
    assert said in refused("explain", *arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--width", "66"], "--width: Width must be a multiple of 8 px for this model; it is 66. Near it: 64 or 72."),
        (["--batch-size", "2"], "--batch-size: Batch size must be 1 in explain mode"),
        (["--clip-skip", "1"], "--clip-skip: Clip skip must be 0"),
        (["--scheduler", "lcm", "--steps", "51"], "--steps: LCMScheduler takes at most 50 steps"),
    ],
)
def test_what_only_the_process_knows_is_named_too(say: Say, arguments: list[str], said: str) -> None:
    lines, errors = say("a red cat", *arguments, code=2)
    assert lines == [] and errors.splitlines()[-1].startswith(f"sdtui: {said}")


def test_a_line_that_fails_is_told_after_those_before_it(
    say: Say, explaining: Explaining, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(*CAT)
    assert explaining._model is not None

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("broken weights")

    monkeypatch.setattr(explaining._model.pipe.vae, "decode", fail)
    lines, errors = say(*CAT, code=3)
    assert lines[-1].strip() == "no timestep is left", "the last line that ran"
    assert errors.splitlines()[-1] == "sdtui: Line 64 failed: RuntimeError: broken weights"


def test_the_app_is_opened_on_a_terminal_alone(say: Say, asked: list[ExplainerRequest], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[GenerationParams] = []

    def show(params: GenerationParams) -> int:
        opened.append(params)
        return 0

    monkeypatch.setattr("sdtui.cli.explain._show_on_the_screen", show)
    say(*CAT)
    assert opened == [] and asked
    asked.clear()
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    say(*CAT, "--plain")
    assert opened == [] and asked
    asked.clear()
    assert say(*CAT)[0] == [] and asked == []
    assert (opened[0].prompt, opened[0].negative_prompt, opened[0].width) == (CAT[0], "moon", 64)


# --- the real process -----------------------------------------------------------------------------------------------


def explainers_of(pid: int) -> list[int]:
    """The explainer processes that a process has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if b"sdtui.worker.explainer" in Path(f"/proc/{child}/cmdline").read_bytes()]


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_the_real_process_tells_the_same_and_leaves_nothing_behind(cli: Cli, say: Say) -> None:
    done = cli.run("explain", *CAT, "--scheduler", "euler_a", "--no-notes")
    assert (done.returncode, done.stderr) == (0, "")
    lines, _ = say(*CAT, "--scheduler", "euler_a", "--no-notes")

    def without_times(text: list[str]) -> list[str]:
        return [re.sub(r"[\d.]+ m?s$", "", re.sub(r", on .+, in", ", in", line)) for line in text]

    shown = without_times(done.stdout.splitlines())
    assert [re.sub(r"-?[\d.]+(e-\d+)?", "n", line) for line in shown] == [
        re.sub(r"-?[\d.]+(e-\d+)?", "n", line) for line in without_times(lines)
    ]
    assert not cli.socket.exists(), "no server is needed"


def test_ctrl_c_ends_it_quietly_with_its_process(cli: Cli) -> None:
    process = cli.start("explain", "a red cat", "--steps", "1000", "--every-step", "--no-notes")
    assert process.stdout is not None and process.stderr is not None
    for line in process.stdout:
        if line.startswith("step 3 "):
            break
    (explainer,) = explainers_of(process.pid)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, errors) == (130, "")
    until = time.monotonic() + DEADLINE_S
    while not is_gone(explainer) and time.monotonic() < until:
        time.sleep(0.01)
    assert is_gone(explainer)


def test_a_reader_that_leaves_ends_it_without_a_word(cli: Cli) -> None:
    process = cli.start("explain", "a red cat", "--steps", "50", "--every-step")
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()
    assert process.wait(DEADLINE_S) == 141
    assert process.stderr.read() == ""
    process.stderr.close()


def test_the_command_needs_no_torch() -> None:
    code = (
        "import sys, sdtui.cli.explain; print([m for m in ('torch', 'diffusers', 'numpy', 'PIL', 'textual') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
