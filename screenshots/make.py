"""Make the pictures of this folder from the running program, in xterm on a virtual X server: `make screenshots`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from tests.terminal.real import Xterm, missing_tools, wait_for  # noqa: E402  (the checkout is no package)

SDTUI = [sys.executable, "-m", "sdtui"]
SHOTS = (
    # name, columns, rows, prompt, theme
    ("create", 160, 45, "a red cat in the desert", "sdtui-dark"),
    ("create-light", 160, 45, "a blue boat in the snow", "sdtui-light"),
    ("create-80x24", 80, 24, "a yellow car in the city", "sdtui-dark"),
)


def _environment(home: str, theme: str) -> dict[str, str]:
    names = ("CONFIG", "DATA", "STATE", "CACHE")
    runtime = Path(home, "run")
    runtime.mkdir(mode=0o700, exist_ok=True)
    return {
        **{f"XDG_{name}_HOME": f"{home}/{name.lower()}" for name in names},
        "XDG_RUNTIME_DIR": str(runtime),
        "SDTUI_GENERAL_OUTPUT_DIR": f"{home}/out",
        "SDTUI_GENERAL_THEME": theme,
        "HF_HUB_OFFLINE": "1",
    }


def shoot(name: str, columns: int, rows: int, prompt: str, theme: str) -> Path:
    """Type a prompt, generate, and take the screen when the picture is finished."""
    with tempfile.TemporaryDirectory(prefix="sdtui-s-") as home:
        env = _environment(home, theme)
        # The worker is warm before the shot, so that the picture shows the app's usual speed.
        warm = [*SDTUI, "generate", "a green tree in the meadow", "--steps", "2"]
        subprocess.run(warm, env={**os.environ, **env}, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with Xterm(SDTUI, columns=columns, rows=rows, env=env) as xterm:
            xterm.wait_for_app()
            xterm.type(prompt)
            xterm.keys("F5")
            wait_for(lambda: len(list(Path(home, "out").glob("[!.]*.png"))) > 1, "the picture")
            shot = HERE / f"{name}.png"
            xterm.settled(shot)
            xterm.keys("ctrl+q")
            wait_for(xterm.ended, "the end of the app")
        subprocess.run([*SDTUI, "server", "stop"], env={**os.environ, **env}, check=True, stdout=subprocess.DEVNULL)
    return shot


def main() -> int:
    """Make every shot; the exit code says whether the programs for it are here."""
    missing = missing_tools(*Xterm.needed())
    if missing:
        sys.stderr.write(f"To make the screenshots, install: {', '.join(missing)}.\n")
        return 2
    for row in SHOTS:
        sys.stdout.write(f"{shoot(*row)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
