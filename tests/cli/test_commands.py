"""The commands that need no worker: help, version, meta, models, settings, doctor, server."""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sdtui import __version__
from sdtui.cli import checks
from sdtui.cli.app import COMMANDS, main
from sdtui.params import FIELDS
from sdtui.server.database import Database
from sdtui.server.schema import SCHEMA_VERSION
from sdtui.text import is_safe
from tests.cli.conftest import Cli

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line in this process: exit code, stdout, stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        said = capfd.readouterr()
        return code, said.out, said.err

    return call


def test_the_version_is_a_result(run: Run) -> None:
    assert run("--version") == (0, f"sdtui {__version__}\n", "")


def test_the_help_names_every_command_and_the_exit_codes(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert [name for name in COMMANDS if name not in out] == []
    for exit_code in ("0 done", "2 bad input", "3 failed", "130"):
        assert exit_code in out


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("train", "bench")])
def test_every_command_explains_itself_with_an_example(run: Run, command: str) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0
    assert "Usage: sdtui" in out
    assert f"Example: sdtui {command}" in out


def test_every_parameter_is_an_option_with_its_own_help(run: Run) -> None:
    _, out, _ = run("generate", "--help")
    words = " ".join(out.split())
    for field in FIELDS:
        if field.spec.flag:
            assert f"--{field.spec.flag}" in words
            assert " ".join(field.spec.help.split()[:3]) in words


HEAVY = (
    "torch",
    "diffusers",
    "transformers",
    "huggingface_hub",
    "accelerate",
    "textual",
    "textual_image",
    "rich",
    "numpy",
    "PIL",
)


@pytest.mark.parametrize("arguments", [["--help"], ["generate", "x", "--steps", "0"], ["settings"], ["meta", "nothing.png"]])
def test_a_command_imports_nothing_heavy_that_it_does_not_need(cli: Cli, arguments: list[str]) -> None:
    code = (
        "import sys; from sdtui.cli.app import main; main(sys.argv[1:]);"
        f"print('heavy:', sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=cli.environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_generate_never_imports_torch_or_the_app(cli: Cli) -> None:
    modules = [f"sdtui.cli.{path.stem}" for path in Path(checks.__file__).parent.glob("[!_]*.py")]
    code = (
        f"import sys, importlib; [importlib.import_module(m) for m in {modules!r}];"
        f"print(sorted(set({HEAVY[:6]!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=cli.environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# --- meta -----------------------------------------------------------------------------------------------------------


def picture_with(path: Path, text: str) -> str:
    info = PngInfo()
    info.add_itxt("parameters", text)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return str(path)


def test_meta_shows_a1111s_parameters_without_anything_a_terminal_would_act_on(run: Run, home: Path) -> None:
    evil = "a cat \x1b]52;c;aGk=\x07[/]\x1b[2J\nSteps: 20, Sampler: \x1b[31mEuler, Seed: 1"
    code, out, err = run("meta", picture_with(home / "a.png", evil))
    assert (code, err) == (0, "")
    assert "a cat [/]" in out and "Euler" in out
    assert is_safe(out)


def test_meta_of_what_has_none_or_is_no_picture_is_bad_input(run: Run, home: Path) -> None:
    Image.new("RGB", (8, 8)).save(home / "plain.png")
    (home / "text.png").write_text("hello")
    for name, said in (
        ("plain.png", "says nothing of how it was made"),
        ("text.png", "is not a PNG"),
        ("none.png", "No such file"),
    ):
        code, out, err = run("meta", str(home / name))
        assert (code, out) == (2, "")
        assert said in err and name in err


# --- models ---------------------------------------------------------------------------------------------------------


def test_the_shipped_model_is_listed_and_so_is_what_is_broken(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(home / "hub"))
    snapshot = home / "hub" / "models--somebody--broken" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model_index.json").write_text("{")
    code, out, err = run("models")
    assert code == 0
    assert "scenes-128" in out and "shipped" in out
    assert "somebody/broken" in out and "somebody/broken" in err
    models = [json.loads(line) for line in run("models", "--json")[1].splitlines()]
    assert [model["name"] for model in models] == ["scenes-128", "somebody/broken"]
    assert bool(models[0]["problem"]) is False and models[1]["problem"]


# --- settings -------------------------------------------------------------------------------------------------------


def test_settings_show_what_is_in_force_and_where_it_comes_from(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDTUI_GENERAL_THEME", "nord")
    assert 'theme = "nord"' in run("settings")[1]
    assert json.loads(run("settings", "show", "--json")[1])["general"]["theme"] == "nord"
    assert run("settings", "path")[1] == f"{home}/config/sdtui/settings.toml\n"


# --- doctor ---------------------------------------------------------------------------------------------------------


def test_the_doctor_finds_this_installation_usable(cli: Cli) -> None:
    done = cli.run("doctor", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = {check["name"]: check for check in map(json.loads, done.stdout.splitlines())}
    for name in (
        "python",
        "torch",
        "diffusers",
        "settings",
        "shipped model",
        "memory",
        "data dir",
        "runtime dir",
        "server",
        "device",
    ):
        assert found[name]["state"] in ("ok", "warning"), found[name]
    assert "not running" in found["server"]["found"]
    assert not cli.socket.exists()


@pytest.fixture
def no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch is asked elsewhere; these tests are about other lines."""
    monkeypatch.setattr(checks, "_PROBE", 'print(\'{"gpus": [], "cuda": null, "threads": 1}\')')


@pytest.mark.usefixtures("no_probe")
def test_the_doctor_says_what_is_wrong_and_what_to_do(run: Run, home: Path) -> None:
    (home / "data").write_text("a file")
    (home / "run").chmod(0o755)
    (home / "run" / "sdtui").mkdir(mode=0o755)
    (home / "config" / "sdtui").mkdir(parents=True)
    (home / "config" / "sdtui" / "settings.toml").write_text("[genral]\n")
    code, out, err = run("doctor")
    assert code == 3
    wrong = re.findall(r"^WRONG +(.+?)  ", out, re.MULTILINE)
    assert wrong == ["settings", "data dir", "runtime dir", "server"]
    assert "did you mean 'general'?" in out and "Set XDG_DATA_HOME" in out and "mode 0700" in out
    assert "4 things must be put right" in err


def line_of(out: str, name: str) -> str:
    return next(line for line in out.splitlines() if line[9:].startswith(f"{name} "))


@pytest.mark.usefixtures("no_probe")
def test_the_doctor_looks_at_the_database_the_tapes_and_the_socket(run: Run, home: Path) -> None:
    out = run("doctor")[1]
    assert [line_of(out, name)[:7].strip() for name in ("database", "tapes", "socket")] == ["ok"] * 3
    database = home / "data" / "sdtui" / "sdtui.sqlite3"
    Database(database).close()
    tape = home / "data" / "sdtui" / "tapes" / "j" / "0.tape"
    tape.parent.mkdir(parents=True)
    with tape.open("wb") as file:
        file.truncate(8 << 30)
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(home / "run" / "sdtui" / "server.sock"))
        (home / "run" / "sdtui" / "server.sock").chmod(0o666)
        code, out, _ = run("doctor")
    assert code == 3
    assert re.search(rf"^ok .*version {SCHEMA_VERSION}, 0 jobs", line_of(out, "database"))
    assert re.search(r"^warning .*8.0 GiB of recorded steps", line_of(out, "tapes"))
    assert re.search(r"^WRONG .*server.sock has mode 0666: others may connect", line_of(out, "socket"))
    database.chmod(0o644)
    assert re.search(r"^warning .*others may read it", line_of(run("doctor")[1], "database"))
    with closing(sqlite3.connect(database)) as newer:
        newer.execute("PRAGMA user_version = 99")
    assert re.search(r"^WRONG .*version 99", line_of(run("doctor")[1], "database"))
    database.write_bytes(b"no database" * 1000)
    assert re.search(r"^WRONG .*not a database", line_of(run("doctor")[1], "database"))


def test_a_torch_that_does_not_work_is_a_line_of_the_doctor(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_PROBE", "raise ImportError('libcudart.so.12: \\x1b[31mcannot open')")
    code, out, _ = run("doctor")
    assert code == 3
    assert "torch does not work: ImportError: libcudart.so.12: cannot open" in out


# --- server ---------------------------------------------------------------------------------------------------------


def test_without_a_server_its_status_is_a_failure_and_stopping_it_is_none(run: Run) -> None:
    code, out, err = run("server", "status")
    assert (code, out) == (3, "") and "No server is running" in err
    assert run("server", "stop") == (0, "", "No server is running.\n")
    code, out, err = run("server", "log")
    assert (code, out) == (0, "") and "server.log" in err


def test_a_stale_socket_is_no_server(run: Run, cli: Cli) -> None:
    cli.socket.parent.mkdir(mode=0o700)
    code = "import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(cli.socket)], check=True)
    assert cli.socket.exists()
    assert run("server", "status")[0] == 3


# --- programs of their own ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("command", "module"), [("train", "sdtui.scratch.train"), ("bench", "sdtui.bench")])
def test_train_and_bench_pass_every_argument_on(run: Run, monkeypatch: pytest.MonkeyPatch, command: str, module: str) -> None:
    became: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _path, arguments: became.append(arguments))
    run(command, "all", "--json", "--help", "-x")
    assert became == [[sys.executable, "-m", module, "all", "--json", "--help", "-x"]]


def test_a_program_of_its_own_gives_its_own_exit_code(cli: Cli) -> None:
    done = cli.run("bench", "--no-such-option")
    assert done.returncode == 2
    assert "usage: sdtui bench" in done.stderr


def test_stdout_that_is_closed_early_is_no_error(cli: Cli) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = cli.run("settings", stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
