"""Make the pictures of this folder from the running program, in terminals on a virtual X server: `make screenshots`.

`python screenshots/make.py NAME...` makes only those.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import psutil

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from tests.terminal.real import (  # noqa: E402  (the checkout is no package)
    Alacritty,
    Emulator,
    Kitty,
    SixelXterm,
    TmuxInXterm,
    Xterm,
    wait_for,
)

EXPLAINER = "sdtui.worker.explainer"
SDTUI = [sys.executable, "-m", "sdtui"]


class Shot(NamedTuple):
    """One picture of the screen."""

    name: str
    terminal: type[Emulator]
    columns: int
    rows: int
    prompt: str
    theme: str
    queue: bool = False
    """Whether it shows the queue, with jobs of every kind, while the picture is made."""
    inspect: bool = False
    """Whether it shows the model's modules, with the prompt's words found in them."""
    keys: tuple[str, ...] = ()
    """What is pressed in Inspect after a job that was looked at."""
    then: tuple[str, ...] = ()
    """What is pressed in Create after a job."""


SHOTS = (
    Shot("create", Xterm, 160, 45, "a red cat in the desert", "sdtui-dark"),
    Shot("create-light", Xterm, 160, 45, "a blue boat in the snow", "sdtui-light"),
    Shot("create-80x24", Xterm, 80, 24, "a yellow car in the city", "sdtui-dark"),
    Shot("queue", Xterm, 160, 45, "a red cat in the desert", "sdtui-dark", queue=True),
    Shot("queue-80x24", Xterm, 80, 24, "a yellow car in the city", "sdtui-dark", queue=True),
    Shot("inspect", Xterm, 160, 45, "attn2", "sdtui-dark", inspect=True),
    Shot("inspect-80x24", Xterm, 80, 24, "attn2", "sdtui-dark", inspect=True),
    Shot("live", Xterm, 160, 45, "a red cat in the desert", "sdtui-dark", keys=("L", "Down", "asterisk", *["Down"] * 6)),
    Shot("schematic", Xterm, 160, 45, "a red cat in the desert", "sdtui-dark", keys=("v", "c", "Down")),
    Shot("words", SixelXterm, 140, 40, "a red cat in the desert", "sdtui-dark", keys=("v", "v")),
    Shot("words-80x24", Xterm, 80, 24, "a yellow car in the city", "sdtui-dark", keys=("v", "v")),
    Shot("timeline", SixelXterm, 160, 45, "a red cat in the desert", "sdtui-dark", then=("alt+3", "Home", *["Right"] * 8)),
    Shot("timeline-80x24", Xterm, 80, 24, "a yellow car in the city", "sdtui-dark", then=("alt+3", *["Left"] * 6)),
    Shot("explain", SixelXterm, 160, 45, "a red cat in the desert", "sdtui-dark", then=("F12", *["s"] * 12)),
    Shot("kitty", Kitty, 140, 40, "a red cat in the desert", "sdtui-dark"),
    Shot("xterm", SixelXterm, 140, 40, "a red cat in the desert", "sdtui-dark"),
    Shot("alacritty", Alacritty, 140, 40, "a red cat in the desert", "sdtui-dark"),
    Shot("tmux", TmuxInXterm, 140, 40, "a red cat in the desert", "sdtui-dark"),
)


DENOISING = "denoising"
"""The one picture that moves."""


def _environment(home: str, theme: str, *, look: bool) -> dict[str, str]:
    names = ("CONFIG", "DATA", "STATE", "CACHE")
    runtime = Path(home, "run")
    runtime.mkdir(mode=0o700, exist_ok=True)
    return {
        **{f"XDG_{name}_HOME": f"{home}/{name.lower()}" for name in names},
        "XDG_RUNTIME_DIR": str(runtime),
        "SDTUI_GENERAL_OUTPUT_DIR": f"{home}/out",
        "SDTUI_GENERAL_THEME": theme,
        "HF_HUB_OFFLINE": "1",
        **({"SDTUI_INSPECT_LOOK": "modules", "SDTUI_INSPECT_WORDS": "true"} if look else {}),
    }


def shoot(shot: Shot) -> Path:
    """Type a prompt, generate, and take the screen when the picture is finished."""
    path = HERE / f"{shot.name}.png"
    with tempfile.TemporaryDirectory(prefix="sdtui-s-") as home:
        env = _environment(home, shot.theme, look=bool(shot.keys))
        # The worker is warm before the shot, so that the picture shows the app's usual speed.
        warm = [*SDTUI, "generate", "a green tree in the meadow", "--steps", "2"]
        subprocess.run(warm, env={**os.environ, **env}, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if shot.queue:
            _fill_queue(shot.prompt, env)
        with shot.terminal(SDTUI, columns=shot.columns, rows=shot.rows, env=env) as terminal:
            terminal.wait_for_app()
            if shot.queue:
                terminal.keys("alt+5")
            elif shot.inspect:
                _look(terminal, shot.prompt)
            else:
                terminal.type(shot.prompt)
                terminal.keys("F5")
                wait_for(lambda: len(list(Path(home, "out").glob("[!.]*.png"))) > 1, "the picture")
            if shot.keys:
                terminal.keys("alt+2")
                terminal.settled()
                for key in shot.keys:
                    terminal.keys(key)
            for key in shot.then:
                terminal.keys(key)
                if key == "F12":
                    wait_for(_explainer_rests, "the explainer", 90)
                terminal.settled()
            terminal.settled(path)
            terminal.keys("ctrl+q")
            wait_for(terminal.ended, "the end of the app")
        subprocess.run([*SDTUI, "server", "stop"], env={**os.environ, **env}, check=True, stdout=subprocess.DEVNULL)
    return path


def _explainer_rests() -> bool:
    """Whether the process that explains has imported torch and loaded the model, and waits to be told to go on."""
    found = [process for process in psutil.process_iter(["cmdline"]) if EXPLAINER in (process.info["cmdline"] or ())]
    return bool(found) and all(process.cpu_percent(1.0) < 5 for process in found)


def _look(terminal: Emulator, words: str) -> None:
    """Find these words in Inspect, and go to the second module that has them."""
    terminal.keys("alt+2")
    terminal.settled()
    terminal.keys("slash")
    terminal.type(words)
    terminal.keys("Return")
    terminal.settled()
    terminal.keys("n")


def _fill_queue(prompt: str, env: dict[str, str]) -> None:
    """Jobs that wait, one of them first, one paused and one cancelled, in a queue that is held so that it stands still."""

    def run(*arguments: str) -> str:
        done = subprocess.run([*SDTUI, *arguments], env={**os.environ, **env}, check=True, capture_output=True, text=True)
        return done.stdout

    run("queue", "hold")
    waiting = ("a blue boat in the snow", "a white house in the forest", "a yellow car in the city", "a red bird in the sky")
    jobs = [_job(run("generate", words, "--steps", "30", "--detach", "--json")) for words in (prompt, *waiting)]
    run("queue", "pause", jobs[1])
    run("queue", "cancel", jobs[2])
    run("queue", "priority", jobs[4], "1")


def _job(answer: str) -> str:
    """The name of the job that was submitted."""
    return str(json.loads(answer.splitlines()[0])["job"])


def denoise() -> Path:
    """The steps of a job as an animated picture, by the command that users have for it."""
    path = HERE / "denoising.webp"
    with tempfile.TemporaryDirectory(prefix="sdtui-s-") as home:
        env = {**os.environ, **_environment(home, "sdtui-dark", look=False)}
        commands = (
            ("generate", "a red cat in the desert", "--seed", "7"),
            (
                "timeline",
                "last",
                "--export",
                str(path),
                "--view",
                "vae",
                "--caption",
                "--size",
                "256x256",
                "--fps",
                "8",
                "--overwrite",
            ),
            ("server", "stop"),
        )
        for command in commands:
            subprocess.run([*SDTUI, *command], env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return path


def main() -> int:
    """Make every shot, or those named; the exit code says whether the programs for it are here."""
    names = sys.argv[1:] or [DENOISING, *(shot.name for shot in SHOTS)]
    if DENOISING in names:
        sys.stdout.write(f"{denoise()}\n")
    for shot in SHOTS:
        if shot.name not in names:
            continue
        if reason := shot.terminal.why_not():
            sys.stderr.write(f"{shot.name}: {reason}\n")
            return 2
        sys.stdout.write(f"{shoot(shot)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
