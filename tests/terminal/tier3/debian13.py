"""A Debian 13 in a folder, for terminals that are newer than this system's."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

CACHE = Path(os.environ.get("SDTUI_TERMINALS_CACHE", "/var/cache/sdtui-terminals"))
ROOT = CACHE / "trixie"
MIRROR = "http://deb.debian.org/debian"
PACKAGES = ("kitty", "tmux", "fonts-dejavu-core", "libgl1-mesa-dri", "libgl1", "libegl1")
# In a mount namespace of its own: nothing is left mounted, and nobody can remove this system through the folder.
ENTER = """
root=$1; shift
mount --make-rprivate /
mkdir -p "$root/host"
mount --bind /proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
mount --bind /tmp "$root/tmp"
mount --rbind / "$root/host"
exec chroot "$root" "$@"
"""


def inside(command: list[str]) -> list[str]:
    """A command line that runs this command in Debian 13, where this system is /host and /tmp is the same."""
    return ["unshare", "-m", "sh", "-ec", ENTER, "sh", str(ROOT), *command]


def outside(command: list[str]) -> list[str]:
    """A command line that runs, in Debian 13, a program of this system."""
    return ["chroot", "/host", *command]


def why_not() -> str:
    """What keeps Debian 13 from being there; empty where nothing does. Makes it, which takes minutes and 1 GB, if it must."""
    if ROOT.exists():
        return ""
    if os.geteuid() != 0:
        return "needs root, for debootstrap and chroot"
    if shutil.which("debootstrap") is None:
        return "debootstrap is not installed"
    part = ROOT.with_suffix(".part")
    CACHE.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(part, ignore_errors=True)
    install = f"apt-get update -q && apt-get install -y -q --no-install-recommends {' '.join(PACKAGES)}"
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["debootstrap", "--variant=minbase", "trixie", str(part), MIRROR],
        ["chroot", str(part), "sh", "-c", install],
    ):
        if subprocess.run(command, check=False, stdout=subprocess.DEVNULL, env=environment).returncode:
            return f"{command[0]} failed"
    part.rename(ROOT)
    return ""
