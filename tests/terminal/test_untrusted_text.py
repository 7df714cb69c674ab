"""Text that anybody may have written reaches no terminal as anything but text: read back from a real pseudo-terminal."""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sdtui.bench.terminal import Terminal
from sdtui.params import GenerationParams
from sdtui.protocol import (
    GetJob,
    ImageSaved,
    JobCancelled,
    JobChanged,
    JobFailed,
    JobInterrupted,
    JobQueued,
    JobResumed,
    Jobs,
    JobStarted,
    ListJobs,
    MemoryRanOut,
    Message,
    PromptTokens,
    QueueChanged,
    Refused,
    Replay,
    ReplayDone,
    ServerStatus,
    StageFinished,
    StageStarted,
    Status,
    StorageFull,
    Submit,
    TensorFact,
    Welcome,
    WorkerDied,
)
from tests.cli.conftest import Cli, make_cli
from tests.cli.scripted_server import IDLE, Script, row, scripted_server, step

DEADLINE_S = 60.0
ATTACKS: Final = {
    "clipboard": "\x1b]52;c;b3duZWQ=\x07",
    "title": "\x1b]0;owned\x1b\\",
    "link": "\x1b]8;;http://owned\x07",
    "notice": "\x1b]9;owned\x07",
    "cursor": "\x1b[66;66H",
    "colour": "\x1b[38;2;66;66;66m",
    "alternate screen": "\x1b[?1047h",
    "question": "\x1b[66c",
    "DCS": "\x1bP+q6f776e6564\x1b\\",
    "APC": "\x1b_Ga=T,i=66;b3duZWQ=\x1b\\",
    "PM": "\x1b^owned\x1b\\",
    "SOS": "\x1bXowned\x1b\\",
    "reset": "\x1bc",
    "8-bit CSI": "\x9b66;66H",
    "8-bit OSC": "\x9d0;owned\x9c",
    "bell": "\x07",
    "backspace": "\x08\x08",
    "shift out": "\x0e",
    "delete": "\x7f",
    "line drawn over": "\rowned",
    "right to left": "\u202e",
    "isolate": "\u2066",
    "zero width": "\u200b",
    "byte order mark": "\ufeff",
    "tag": "\U000e0041",
    "line separator": "\u2028",
}
MARKUP: Final = "[@click=app.quit]evil[/] [link=http://owned]evil[/link] [/] [bold red]"
EVIL: Final = f"begin {''.join(ATTACKS.values())} {MARKUP} end"


def arrived(output: bytes) -> list[str]:
    """The attacks that the program passed on, by name."""
    return [name for name, attack in ATTACKS.items() if attack.encode() in output]


def controls(output: bytes) -> set[str]:
    """Every control and format character in what a program wrote that has no reason to write any."""
    text = output.decode()  # what is no UTF-8 has no business here either
    return {character for character in text if unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp")} - {"\r", "\n"}


@contextmanager
def sdtui(*arguments: str, columns: int = 200) -> Iterator[Terminal]:
    """`sdtui` in a pseudo-terminal."""
    command = [sys.executable, "-m", "sdtui", *arguments]
    with Terminal(command, columns=columns, rows=40, environment={"LC_ALL": "C.UTF-8", "COLORTERM": "truecolor"}) as terminal:
        yield terminal


def output_of(*arguments: str) -> tuple[bytes, Terminal]:
    """All that a command wrote, until it ended."""
    with sdtui(*arguments) as terminal:
        terminal.wait_for_end(DEADLINE_S)
        return terminal.output(), terminal


@pytest.fixture
def cli(home: Path) -> Cli:
    """Where the server of this test listens."""
    return make_cli(home)


def evil(message: Message) -> Message:
    """The message with every text in it replaced, but for the job's name and what is one of a few words."""
    data = msgspec.to_builtins(message)
    texts = {
        "message",
        "detail",
        "reason",
        "path",
        "cut_off",
        "log_tail",
        "stage",
        "advice",
        "remedy",
        "prompt",
        "model",
        "trouble",
    }

    def replaced(value: object, key: str = "") -> object:
        if isinstance(value, dict):
            return {name: replaced(entry, name) for name, entry in value.items()}
        if isinstance(value, list | tuple):
            return [replaced(entry, key) for entry in value]
        return EVIL if key in texts and isinstance(value, str) else value

    return msgspec.convert(replaced(data), type(message))


PARAMS = GenerationParams(prompt=EVIL, negative_prompt=EVIL, seed=7, width=128, height=128, scheduler=EVIL, model=EVIL)
QUEUED = JobQueued(job="j", params=PARAMS, position=0)
RECORD: Final[tuple[Message, ...]] = (
    QUEUED,
    JobStarted(job="j", seed=7, params=PARAMS, total_images=1),
    *map(
        evil,
        (
            StageStarted(job="j", stage="x"),
            PromptTokens(job="j", which="prompt", ids=(1,), words=(EVIL,), cut_off="x", max_tokens=77),
            StageFinished(job="j", stage="x", elapsed_s=1, detail="x", tensors=(TensorFact(EVIL, (1,), EVIL, note=EVIL),)),
            JobInterrupted(job="j", reason="x", attempt=1, max_attempts=3, log_tail="x"),
            JobResumed(job="j", batch_index=0, steps_done=0, images_done=0, detail="x"),
            MemoryRanOut(job="j", batch_index=0, stage="x", remedy="x", message="x"),
            StorageFull(job="j", path="x", message="x"),
            ImageSaved(job="j", path="x", seed=7, image_index=0, width_px=8, height_px=8, size_bytes=1, elapsed_s=0.1),
        ),
    ),
    step("j", 0),
)
FAILED = evil(JobFailed(job="j", message="x", detail="x"))
ROWS = tuple(
    msgspec.structs.replace(row(f"j{number}" if number else "j", state, reason=EVIL), params=PARAMS, images=(EVIL,))
    for number, state in enumerate(("running", "queued", "paused", "failed", "done"))
)
BUSY = msgspec.structs.replace(IDLE, jobs=ROWS[:1], queue=QueueChanged(queued=1, running="j", paused=1, trouble=EVIL))


def hostile(command: Message) -> Sequence[Message | None]:
    """A server whose every text is an attack."""
    match command:
        case ListJobs(which=which):
            rows = {"all": ROWS, "queue": ROWS[:3], "ended": ROWS[3:]}[which]
            return [Jobs(jobs=rows, total=len(rows), which=which)]
        case Replay(job=job):
            return [*RECORD, WorkerDied(reason=EVIL, exit_code=1, log_tail=EVIL), FAILED, ReplayDone(job=job)]
        case GetJob(job=job):
            return [JobChanged(job=job, row=ROWS[3])]
        case Submit(job=job):
            return [Refused(message=EVIL, field=EVIL, job=job)]
        case Status():
            texts = dict.fromkeys(("version", "worker", "socket", "database", "log"), EVIL)
            numbers = dict.fromkeys(("pid", "uptime_s", "idle_s", "idle_timeout_s", "clients", "queued"), 1)
            return [
                msgspec.convert({"type": "server_status", "running": EVIL, "worker_pid": 1, **texts, **numbers}, ServerStatus)
            ]
        case _:
            return [Refused(message=EVIL, field=EVIL, job=getattr(command, "job", None))]


def test_the_attacks_would_be_seen() -> None:
    raw = EVIL.encode()
    assert arrived(raw) == list(ATTACKS)
    assert {"\x1b", "\x9b", "\u202e", "\u2028", "\x07"} <= controls(raw)
    code = "import sys, json; sys.stdout.write(json.loads(sys.argv[1]))"
    with Terminal([sys.executable, "-c", code, json.dumps(EVIL)], environment={"LC_ALL": "C.UTF-8"}) as terminal:
        terminal.wait_for_end(DEADLINE_S)
        assert set(ATTACKS) - set(arrived(terminal.output())) == set()


# --- commands that write lines ----------------------------------------------------------------------------------------


def check_lines(*arguments: str) -> None:
    """Nothing but text, with the markup in it as it was written."""
    output, terminal = output_of(*arguments)
    assert (arrived(output), controls(output)) == ([], set())
    text = output.decode()
    assert "begin" in text
    assert "[@click=app.quit]evil[/]" in text.replace("\r\n", "") or "end" not in text, "markup is text"
    assert terminal.look().title == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("jobs",), ("jobs", "--queue"), ("queue",), ("jobs", "j"), ("queue", "pause", "j"), ("queue", "delete", "j"),
        ("queue", "hold"), ("server", "status"), ("generate", "x", "--detach"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_a_server_says_is_shown_as_text(cli: Cli, arguments: tuple[str, ...]) -> None:
    with scripted_server(cli.socket, hostile, BUSY):
        check_lines(*arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ("meta", f"/{EVIL}"),
        ("view", f"/{EVIL}"),
        ("generate", "x", "--model", f"/{EVIL}"),
        ("generate", "x", "--scheduler", EVIL),
        ("generate", "x", "--steps", EVIL),
        ("generate", "x", "--output", f"/proc/{EVIL}"),
        ("generate", "x", "--name-pattern", f"{{{EVIL}}}"),
        ("generate", "x", f"--{EVIL}"),
        ("jobs", "--state", EVIL),
        ("queue", "clear", "--older-than", EVIL),
        ("queue", "move", "j", EVIL),
        ("doctor", "--replay", f"/{EVIL}"),
        ("--image-protocol", EVIL),
        (EVIL,),
    ],
    ids=lambda arguments: " ".join(arguments).partition("begin")[0],
)
def test_what_was_given_comes_back_as_text(cli: Cli, arguments: tuple[str, ...]) -> None:
    output, terminal = output_of(*arguments)
    assert (arrived(output), controls(output)) == ([], set())
    assert terminal.process.returncode in (2, 3)
    assert b"Traceback" not in output and b"Unexpected" not in output


@pytest.mark.parametrize("key", ["parameters", "sdtui"])
def test_what_a_picture_says_of_itself_is_shown_as_text(home: Path, key: str) -> None:
    info = PngInfo()
    if key == "parameters":
        info.add_itxt("parameters", f"{EVIL}\nNegative prompt: {EVIL}\nSteps: 20, Sampler: {EVIL}, Seed: 7, Model: x")
    else:
        record = {
            "params": {"prompt": EVIL, "model": EVIL, "scheduler": EVIL},
            **dict.fromkeys(("model_name", "scheduler_class", "job", "version", "torch", "diffusers", "device", "dtype"), EVIL),
            **{"created_at": EVIL, "first_seed": 7, "elapsed_s": 1.0, "inexact": [EVIL]},
        }
        info.add_text("sdtui", json.dumps(record))
    Image.new("RGB", (8, 8)).save(home / "evil.png", pnginfo=info)
    check_lines("meta", str(home / "evil.png"))


def test_a_record_that_cannot_be_read_and_a_models_name_are_shown_as_text(
    cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = PngInfo()
    info.add_text("parameters", "a cat\nSteps: 20, Sampler: x, Seed: 1")
    info.add_text("sdtui", json.dumps({"params": {EVIL: 1, "device": 3}}))
    Image.new("RGB", (8, 8)).save(home / "broken.png", pnginfo=info)
    assert controls(output_of("meta", str(home / "broken.png"))[0]) == set()
    monkeypatch.setenv("HF_HUB_CACHE", str(home / "hub"))
    name = EVIL.replace("/", "").replace("\0", "")[:120]
    snapshot = home / "hub" / f"models--{name}--x" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model_index.json").write_text(json.dumps({"_class_name": EVIL, "unet": [EVIL, EVIL]}))
    output, _ = output_of("models")
    assert (arrived(output), controls(output)) == ([], set())
    assert b"begin" in output


def test_what_stands_in_the_settings_and_in_the_log_is_shown_as_text(cli: Cli, home: Path) -> None:
    path = home / "config" / "sdtui" / "settings.toml"
    path.parent.mkdir(parents=True)
    path.write_text(f"[general]\n{json.dumps(EVIL)} = 1\n")
    log = home / "state" / "sdtui" / "server.log"
    log.parent.mkdir(parents=True)
    log.write_text(EVIL.replace("\r", ""))
    for arguments in (("settings",), ("server", "log"), ("doctor", "--image-protocol", "half")):
        output, _ = output_of(*arguments)
        assert arrived(output) == []
        assert controls(output) == set() or arguments[0] == "doctor"


# --- commands and the app, which write sequences of their own ----------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [("attach", "j"), ("attach", "j", "-v"), ("attach", "j", "--no-preview"), ("generate", "x", "-v")], ids=" ".join
)
def test_beside_a_bar_it_is_text_too(cli: Cli, arguments: tuple[str, ...]) -> None:
    with scripted_server(cli.socket, hostile, BUSY):
        output, terminal = output_of(*arguments)
    assert arrived(output) == []
    assert "[@click=app.quit]evil[/]" in terminal.text().replace("\n", "")
    assert terminal.look().title == ""


def test_in_the_table_that_stays_current_it_is_text_too(cli: Cli) -> None:
    with scripted_server(cli.socket, hostile, BUSY), sdtui("jobs", "--watch") as terminal:
        terminal.wait_until(lambda screen: "paused" in screen.text() and "begin" in screen.text(), "the table")
        terminal.type("\x03")
        terminal.wait_for_end(DEADLINE_S)
        assert arrived(terminal.output()) == []
        assert "evil" in terminal.text()


def in_app(script: Script, welcome: Welcome, drive: Callable[[Terminal], None]) -> Terminal:
    """The app in a pseudo-terminal against a scripted server, after `drive` has used it.

    It still runs when that is done, and has passed no attack on.
    """
    with scripted_server(make_cli(Path.home()).socket, script, welcome), sdtui(columns=160) as terminal:
        terminal.wait_until(lambda screen: "Prompt" in screen.text(), "the form", DEADLINE_S)
        drive(terminal)
        assert terminal.process.poll() is None, "the app runs: no markup was an action"
        terminal.type("\x11")
        terminal.wait_for_end(DEADLINE_S)
        pointers = re.compile(rb"\x1b\]22;[a-z-]+\x07")  # the mouse's, which Textual chooses
        assert arrived(pointers.sub(b"", terminal.output())) == []
        return terminal


def test_a_record_in_the_app_is_text(cli: Cli) -> None:
    def drive(terminal: Terminal) -> None:
        terminal.wait_until(lambda screen: "begin" in screen.text() and "evil" in screen.text(), "the record", DEADLINE_S)

    assert "owned" not in in_app(hostile, BUSY, drive).look().title


def test_the_queue_in_the_app_is_text(cli: Cli) -> None:
    def drive(terminal: Terminal) -> None:
        terminal.type("\x1b5")
        terminal.wait_until(lambda screen: "paused" in screen.text() and "begin" in screen.text(), "the queue", DEADLINE_S)
        terminal.type("p")
        terminal.wait_until(lambda screen: "evil" in screen.text(), "the refusal", DEADLINE_S)

    in_app(hostile, BUSY, drive)


def test_a_prompt_that_is_pasted_into_the_app_is_text(cli: Cli) -> None:
    def drive(terminal: Terminal) -> None:
        terminal.type(f"\x1b[200~{MARKUP} \u202e\u200b\x9b66;66H\x07 end\x1b[201~")
        terminal.wait_until(lambda screen: "[@click=app.quit]evil[/]" in screen.text(), "the prompt", DEADLINE_S)
        terminal.type("\x1b[15~")
        terminal.wait_until(lambda screen: "begin" in screen.text(), "the refusal", DEADLINE_S)

    in_app(hostile, IDLE, drive)


def test_a_job_that_was_cancelled_with_a_reason_is_text(cli: Cli) -> None:
    def script(command: Message) -> Sequence[Message | None]:
        if isinstance(command, Submit):
            end = JobCancelled(job=command.job, detail=EVIL, latency_s=0.1)
            return [msgspec.structs.replace(QUEUED, job=command.job), end]
        return []

    with scripted_server(cli.socket, script):
        output, _ = output_of("generate", "x")
    assert arrived(output) == [] and b"evil" in output
