"""Bad input gets a message that names the option or file and what would be right, exit code 2, and nothing else happens."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from sdtui.checkpoint import shipped_model_dir
from tests.cli.conftest import Cli, Refused


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([""], "PROMPT: Prompt is empty"),
        (["  \n"], "PROMPT: Prompt is empty"),
        (["x" * 100_000], "PROMPT: Prompt has 100,000 characters; at most 10,000"),
        (["cat", "--negative", "x" * 100_000], "--negative: Negative prompt has 100,000 characters"),
        (["cat", "--width", "0"], "--width: Width must be from 8 to 4096 px; it is 0."),
        (["cat", "--width", "7"], "--width: Width must be from 8"),
        (["cat", "--height", "100000"], "--height: Height must be from 8 to 4096"),
        (["cat", "--steps", "0"], "--steps: Steps must be from 1 to 1000; it is 0."),
        (["cat", "--steps", "10001"], "--steps: Steps must be from 1 to 1000"),
        (["cat", "--steps", "ten"], "--steps: Steps takes a whole number from 1 to 1000, not 'ten'."),
        (["cat", "--guidance", "nan"], "--guidance: Guidance must be from 0 to 50"),
        (["cat", "--guidance", "-1"], "--guidance: Guidance must be from 0 to 50"),
        (["cat", "--seed", "-1"], "--seed: Seed must be from 0"),
        (["cat", "--scheduler", "eular"], "--scheduler: Scheduler 'eular' is not known; the nearest one is 'euler'"),
        (["cat", "--sigmas", "karas"], "did you mean 'karras'?"),
        (["cat", "--device", "tpu"], "--device: Device 'tpu' is not one of auto, cpu"),
        (["cat", "--dtype", "int8"], "--dtype: Dtype 'int8' is not one of"),
        (["cat", "--count", "0"], "--count: Batch count must be from 1"),
        (["cat", "--name-pattern", "{sed}"], "unknown field {sed}; did you mean 'seed'?"),
        (["cat", "--name-pattern", "../x"], "may not contain '/'"),
        (["cat", "--stepz", "3"], "No such option: --stepz"),
        (["cat", "dog"], "extra argument"),
        ([], "Missing argument"),
        (["cat", "--model", "no/such/model/here"], "--model: Model folder 'no/such/model/here' does not exist"),
    ],
)
def test_a_bad_option_is_named_with_what_would_be_right(refused: Refused, arguments: list[str], said: str) -> None:
    assert said in refused("generate", *arguments)


def test_every_bad_option_is_named_at_once(refused: Refused) -> None:
    said = refused("generate", "", "--steps", "0", "--width", "wide", "--scheduler", "x")
    assert [option for option in ("PROMPT:", "--steps:", "--width:", "--scheduler:") if option not in said] == []


def test_with_json_the_reason_is_on_stdout_too(cli: Cli) -> None:
    done = cli.run("generate", "cat", "--steps", "0", "--json")
    said = json.loads(done.stdout)
    assert done.returncode == 2
    assert (said["type"], said["field"]) == ("refused", "num_inference_steps")
    assert "--steps" in done.stderr


def test_bytes_that_are_no_text_are_refused(home: Path, refused: Refused) -> None:
    assert "PROMPT: Prompt holds bytes that are not UTF-8" in refused("generate", b"cat \xff")
    assert "--output" in refused("generate", "cat", "--output", os.fsencode(home) + b"/\xff")


def test_control_sequences_in_what_was_given_never_reach_the_terminal(refused: Refused) -> None:
    evil = "\x1b]52;c;aGk=\x07[/]\x9b31m"
    for arguments in (["generate", "cat", "--model", f"/{evil}"], ["generate", "cat", f"--{evil}"], [evil], ["meta", f"/{evil}"]):
        said = refused(*arguments)
        assert "\x1b" not in said and "\x07" not in said and "\x9b" not in said


# --- the model ------------------------------------------------------------------------------------------------------


def broken_model(home: Path, how: str) -> Path:
    path = home / "model"
    if how == "missing":
        return path
    path.mkdir()
    if how == "empty":
        return path
    if how == "not a model":
        (path / "notes.txt").write_text("hello")
        return path
    for source in shipped_model_dir().rglob("*.json"):
        target = path / source.relative_to(shipped_model_dir())
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    for name in ("unet", "vae", "text_encoder"):
        source = next((shipped_model_dir() / name).glob("*.safetensors"))
        data = source.read_bytes()
        (path / name / source.name).write_bytes(data)
        if name == "unet":
            (path / name / source.name).write_bytes(data[: len(data) // 2] if how == "truncated" else b"garbage" * 1000)
    return path


@pytest.mark.parametrize("how", ["missing", "empty", "not a model", "truncated", "garbage"])
def test_a_model_that_cannot_be_loaded_is_named_before_anything_starts(home: Path, refused: Refused, how: str) -> None:
    path = broken_model(home, how)
    said = refused("generate", "cat", "--model", str(path))
    assert said.startswith("sdtui: --model: ")
    assert str(path) in said
    assert "unet" in said if how in ("truncated", "garbage") else "model_index.json" in said


# --- files and directories ------------------------------------------------------------------------------------------


def test_a_file_in_the_place_of_the_output_directory_is_named(home: Path, refused: Refused) -> None:
    (home / "out").write_text("mine")
    said = refused("generate", "cat", "--output", str(home / "out"))
    assert "out is not a directory" in said and "--output" in said


def test_an_output_directory_that_cannot_be_made_is_named(refused: Refused) -> None:
    assert "--output: /proc/nowhere cannot be written" in refused("generate", "cat", "--output", "/proc/nowhere")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[general\n", "is not valid TOML"),
        ("[general]\nthemes = 'x'\n", "unknown key 'themes' in [general]; did you mean 'theme'?"),
        ("[genral]\n", "unknown section [genral]; did you mean 'general'?"),
        ("[server]\nmax_clients = 0\n", "server.max_clients"),
    ],
)
@pytest.mark.parametrize("command", [["generate", "cat"], ["settings"]])
def test_a_bad_settings_file_is_named_with_what_would_be_right(
    home: Path, refused: Refused, text: str, said: str, command: list[str]
) -> None:
    path = home / "config" / "sdtui" / "settings.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    message = refused(*command)
    assert said in message and str(path) in message


def test_debug_shows_the_traceback_and_only_then(cli: Cli) -> None:
    done = cli.run("--debug", "generate", "cat", "--steps", "0")
    assert done.returncode == 2
    assert "Traceback" in done.stderr and done.stderr.rstrip().endswith("it is 0.")


@pytest.mark.parametrize("command", [[], ["doctor"], ["view", "a.png"]])
def test_an_unknown_image_protocol_is_named_with_the_nearest_known_one(refused: Refused, command: list[str]) -> None:
    said = refused(*command, "--image-protocol", "sixl")
    assert "--image-protocol: 'sixl' is not known; did you mean 'sixel'?" in said
