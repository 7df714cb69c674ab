"""`sdtui generate --init`: what is taken, what is refused before the server is asked, and what a job begins with in lists."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image

from sdtui.cli.app import main
from sdtui.params import GenerationParams
from sdtui.protocol import (
    BranchPoint,
    Edit,
    GetJob,
    JobChanged,
    JobQueued,
    Jobs,
    ListJobs,
    Message,
    Submit,
)
from sdtui.settings import initial_dir
from tests.cli.conftest import TIMEOUT_S, Cli, Refused, make_cli
from tests.cli.scripted_server import row, scripted_server
from tests.initial_images import BAD, ODD, PictureServer, encoded, long_path, plain, serving_pictures

Submitted = Callable[..., GenerationParams]


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    """A picture of 96x64 pixels."""
    path = tmp_path / "red cat.png"
    path.write_bytes(encoded(plain()))
    return path


@pytest.fixture
def submitted(home: Path, capfd: pytest.CaptureFixture[str]) -> Submitted:
    """Runs `sdtui generate cat --detach` with options against a server that takes every job; the parameters that it got."""

    def script(command: Message) -> Sequence[Message]:
        assert isinstance(command, Submit)
        return [JobQueued(job=command.job, params=command.params, position=0)]

    def run(*arguments: str) -> GenerationParams:
        with scripted_server(make_cli(home).socket, script) as commands:
            assert main(["generate", "cat", "--detach", *arguments]) == 0, capfd.readouterr().err
        (submit,) = commands
        assert isinstance(submit, Submit)
        return submit.params

    return run


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[PictureServer]:
    """A server of pictures, which this test's settings allow."""
    monkeypatch.setenv("SDTUI_NETWORK_PRIVATE_ADDRESSES", "true")
    with serving_pictures() as pictures:
        yield pictures


def kept() -> list[Path]:
    return sorted(initial_dir().iterdir()) if initial_dir().exists() else []


# --- what is taken --------------------------------------------------------------------------------------------------


def test_the_job_begins_with_a_copy_that_outlives_the_file(submitted: Submitted, cat: Path) -> None:
    params = submitted("--init", str(cat), "--strength", "0.6", "--resize", "fill")
    (copy,) = kept()
    assert (params.init_image, params.strength, params.resize) == (str(copy), 0.6, "fill")
    assert copy.name.endswith("-red_cat.png") and copy.read_bytes() == cat.read_bytes()
    assert submitted("--init", str(copy)).init_image == str(copy), "what is kept is not kept twice"
    assert kept() == [copy]


@pytest.mark.parametrize("name", ODD)
def test_odd_pictures_and_odd_names_are_taken(submitted: Submitted, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(ODD[name])
    copy = Path(submitted("--init", str(tmp_path / name)).init_image or "")
    with Image.open(copy) as image:
        assert image.size == (96, 64)


@pytest.mark.parametrize("written", ["'{}'", "file://{}", "~/red cat.png", "red cat.png"])
def test_a_source_is_written_as_people_write_it(
    submitted: Submitted, cat: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    monkeypatch.setenv("HOME", str(cat.parent))
    monkeypatch.chdir(cat.parent)
    assert submitted("--init", written.format(cat)).init_image == str(kept()[0])


def test_a_path_of_hundreds_of_characters_is_taken(submitted: Submitted, tmp_path: Path) -> None:
    assert submitted("--init", str(long_path(tmp_path))).init_image == str(kept()[0])


def test_files_called_as_words_for_nothing_are_files(submitted: Submitted, cat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(cat.parent)
    cat.rename(cat.parent / "auto")
    assert submitted("--init", "auto").init_image == str(kept()[0])


def test_a_size_as_the_way_to_resize_is_exact_at_that_size(submitted: Submitted, cat: Path) -> None:
    for more in ([], ["--width", "768"], ["--width", "768", "--height", "512"]):
        params = submitted("--init", str(cat), "--resize", "768x512", *more)
        assert (params.width, params.height, params.resize) == (768, 512, "exact")


def test_a_url_is_fetched_once_and_said(submitted: Submitted, server: PictureServer, capfd: pytest.CaptureFixture[str]) -> None:
    copy = submitted("--init", f"{server.url}/cat.png?token=secret").init_image
    said = capfd.readouterr()
    assert copy == str(kept()[0]) and Path(copy).name.endswith("-cat.png")
    assert f"Fetching {server.url}/cat.png?…; Ctrl-C leaves." in said.err
    assert "secret" not in said.err and said.out.count("\n") == 1
    assert server.asked == ["/cat.png?token=secret"]


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BAD)
def test_a_picture_that_cannot_be_is_bad_input_before_any_server_starts(refused: Refused, tmp_path: Path, name: str) -> None:
    content, words = BAD[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    said = refused("generate", "cat", "--init", str(tmp_path / name))
    assert said.startswith("sdtui: --init: ") and words in said and name in said
    assert said.count("\n") == 1 and not kept()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--strength", "0.5"], "--strength: It says what becomes of an initial image, and there is none; name one with --init."),
        (["--resize", "fill"], "--resize: It says what becomes of an initial image"),
        (["--resize", "64x64"], "--resize: It says what becomes of an initial image"),
        (["--init", "CAT", "--strength", "-1"], "--strength: Strength must be from 0 to 1; it is -1.0."),
        (["--init", "CAT", "--strength", "1.5"], "--strength: Strength must be from 0 to 1; it is 1.5."),
        (["--init", "CAT", "--strength", "0"], "--strength: Strength 0 of 20 steps leaves none to run"),
        (["--init", "CAT", "--strength", "0.04"], "leaves none to run; at least 0.05 is needed, or more steps."),
        (["--init", "CAT", "--resize", "stretch"], "--resize: Resize 'stretch' is not one of fit, exact, fill, crop"),
        (["--init", "CAT", "--resize", "0x64"], "--width: Width must be from 8 to 4096 px; it is 0."),
        (["--init", "CAT", "--resize", "64x"], "--resize: Resize '64x' is not one of"),
        (
            ["--init", "CAT", "--resize", "768x512", "--width", "512"],
            "--resize: 768x512 and --width 512 say different things; give one of them.",
        ),
        (["--init", "CAT", "--resize", "768x512", "--height", "768"], "768x512 and --height 768 say different things"),
        (["--init", ""], "--init: The name is empty; give a file or a URL, or leave it out."),
        (["--init", "x" * 5000], "--init: Initial image takes the path of a picture or a URL, of at most 4,096 characters."),
        (["--init", "/tmp"], "--init: The initial image /tmp is a directory"),
        (["--init", "ftp://example.org/cat.png"], "--init: The initial image ftp://example.org/cat.png cannot be fetched"),
        (["--init", "http://127.0.0.1:1/cat.png"], "private_addresses in [network]"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_what_is_wrong_is_named_with_what_would_be_right(refused: Refused, cat: Path, arguments: list[str], said: str) -> None:
    assert said in refused("generate", "cat", *(str(cat) if word == "CAT" else word for word in arguments))
    assert not kept()


@pytest.mark.parametrize(
    ("path", "words"),
    [("page", "is a web page"), ("nothing", "answered 404 Not Found"), ("huge", "is larger than 20 MiB")],
)
def test_an_address_without_a_picture_is_named(refused: Refused, server: PictureServer, path: str, words: str) -> None:
    said = refused("generate", "cat", "--init", f"{server.url}/{path}")
    assert "--init: " in said and words in said and not kept()


def test_ctrl_c_while_fetching_leaves_at_once_and_keeps_nothing(cli: Cli, server: PictureServer) -> None:
    cli.environment["SDTUI_NETWORK_PRIVATE_ADDRESSES"] = "true"
    with cli.start("generate", "cat", "--init", f"{server.url}/never") as process:
        assert process.stderr is not None
        assert "Fetching" in process.stderr.readline()
        end = time.monotonic() + TIMEOUT_S
        while not server.asked and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        assert process.wait(10) == 130
    assert said == "Left; nothing was queued.\n"
    assert not kept() and not cli.socket.exists()


def test_with_json_the_refusal_names_the_field(home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "cat", "--json", "--init", str(tmp_path / "no.png")]) == 2
    said = json.loads(capfd.readouterr().out)
    assert (said["type"], said["field"]) == ("refused", "init_image")
    assert said["message"].startswith("--init: The initial image ")


# --- jobs that are there already ------------------------------------------------------------------------------------

Edited = Callable[..., tuple[int, GenerationParams | None, str]]


@pytest.fixture
def edited(home: Path, capfd: pytest.CaptureFixture[str]) -> Edited:
    """Runs `sdtui queue edit` on a job with these parameters: exit code, what the server was asked to take, stderr."""

    def run(before: GenerationParams, *arguments: str) -> tuple[int, GenerationParams | None, str]:
        there = msgspec.structs.replace(row("j"), params=before)
        with scripted_server(make_cli(home).socket, lambda _: [JobChanged(job="j", row=there)]) as commands:
            code = main(["queue", "edit", "j", *arguments])
        assert commands[0] == GetJob(job="j")
        edits = [command.params for command in commands if isinstance(command, Edit)]
        return code, edits[0] if edits else None, capfd.readouterr().err

    return run


NOISE = GenerationParams(prompt="a cat")
FROM_IMAGE = msgspec.structs.replace(NOISE, init_image="/store/gone.png", strength=0.5, resize="crop")


def test_a_waiting_job_is_given_another_initial_image(edited: Edited, cat: Path) -> None:
    code, params, _ = edited(NOISE, "--init", str(cat), "--strength", "0.7", "--resize", "64x32")
    assert code == 0
    assert params == msgspec.structs.replace(NOISE, init_image=str(kept()[0]), strength=0.7, resize="exact", width=64, height=32)


def test_the_initial_image_stays_is_used_otherwise_or_is_taken_away(edited: Edited) -> None:
    assert edited(FROM_IMAGE, "--steps", "30")[1] == msgspec.structs.replace(FROM_IMAGE, num_inference_steps=30)
    assert edited(FROM_IMAGE, "--strength", "0.9")[1] == msgspec.structs.replace(FROM_IMAGE, strength=0.9)
    assert edited(FROM_IMAGE, "--init", "")[1] == msgspec.structs.replace(FROM_IMAGE, init_image=None)
    assert not kept()


@pytest.mark.parametrize(
    ("before", "arguments", "said"),
    [
        (NOISE, ["--init", "/no/cat.png"], "--init: The initial image /no/cat.png does not exist."),
        (NOISE, ["--strength", "0.5"], "--strength: It says what becomes of an initial image"),
        (FROM_IMAGE, ["--init", "", "--strength", "0.5"], "--strength: It says what becomes of an initial image"),
        (FROM_IMAGE, ["--steps", "1"], "--strength: Strength 0.5 of 1 step leaves none to run"),
    ],
)
def test_an_edit_that_cannot_be_is_named(edited: Edited, before: GenerationParams, arguments: list[str], said: str) -> None:
    code, params, err = edited(before, *arguments)
    assert (code, params) == (2, None) and said in err


def test_lists_say_what_a_job_begins_with(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    branch = BranchPoint(job="20260101-120000-abcd", step=8)
    plain_job = row("n")
    rows: tuple[Any, ...] = (
        plain_job,
        msgspec.structs.replace(row("i"), params=msgspec.structs.replace(NOISE, init_image="/s/0123456789abcdef-red cat.png")),
        row("b", branch=branch),
    )

    def lines(*jobs: Any) -> list[str]:
        def script(command: Message) -> Sequence[Message]:
            assert isinstance(command, ListJobs)
            return [Jobs(jobs=jobs, total=len(jobs), which=command.which)]

        with scripted_server(make_cli(home).socket, script):
            assert main(["jobs"]) == 0
        return capfd.readouterr().out.splitlines()

    head, noise, image, branched = lines(*rows)
    at = head.index("begins with")
    assert noise[at:].split() == ["a", "cat"]
    assert image[at:].startswith("red cat.png, strength 0.8 ")
    assert branched[at:].startswith("branch of 20260101-120000-abcd at step 8  a cat")
    assert "begins with" not in lines(plain_job)[0], "no column where there is nothing to say"
