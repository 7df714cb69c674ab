"""What `sdtui doctor` looks at. Torch is asked in a process of its own, so a broken one cannot take the doctor along."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import psutil

from sdtui import settings as paths
from sdtui.checkpoint import CheckpointError, check_model_folder, resolve_model, shipped_model_dir
from sdtui.cli.terminal import described
from sdtui.server.client import server_running
from sdtui.server.schema import SCHEMA_VERSION
from sdtui.server.tapes import MIB, size_of
from sdtui.settings import Settings, SettingsError, load_settings
from sdtui.terminal.capabilities import capabilities
from sdtui.text import count_noun, format_bytes, safe_text

State = Literal["ok", "warning", "wrong"]
_PROBE_TIMEOUT_S: Final = 120.0
"""The first import of torch from a cold network disk takes a minute."""
_LOW_DISK_BYTES: Final = 1 << 30
_UNENDED_TAPES_BYTES: Final = 4 << 30
"""A long job of large pictures may have as much."""
_LOW_MEMORY_BYTES: Final = 1 << 30
"""The worker with the shipped model takes about 700 MB."""
_NEEDED: Final = {"torch": "2.6", "diffusers": "0.42", "transformers": "5.6"}
_OF_COLOURS: Final = ("24-bit", "COLORTERM", "NO_COLOR")
"""What advice on colours speaks of."""
_EXTRAS: Final = {"scipy": "the LMS scheduler and beta sigmas", "torchsde": "the DPM++ SDE scheduler"}
_PROBE: Final = """
import json, torch
gpu = torch.cuda.is_available()
print(json.dumps({
    "gpus": [[torch.cuda.get_device_name(i), torch.cuda.get_device_properties(i).total_memory]
             for i in range(torch.cuda.device_count())] if gpu else [],
    "cuda": torch.version.cuda, "threads": torch.get_num_threads()}))
"""


class Check(msgspec.Struct, frozen=True):
    """One line of the doctor: what was looked at, how it is, what was found, and what to do where it is not well."""

    name: str
    state: State
    found: str
    advice: str = ""


def all_checks() -> Iterator[Check]:
    """Every check, quick ones first."""
    yield _python()
    yield from _packages()
    yield from _extras()
    yield _settings_file()
    yield from _models()
    yield _memory()
    yield from _directories()
    yield _database()
    yield _tapes()
    yield _runtime()
    yield _socket()
    yield _server()
    yield from _terminal()
    yield from _device()


def _python() -> Check:
    return Check("python", "ok", f"{platform.python_version()} at {sys.executable}")


def _packages() -> Iterator[Check]:
    for name, minimum in _NEEDED.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            yield Check(name, "wrong", "not installed", f"Install it: {sys.executable} -m pip install '{name}>={minimum}'")
            continue
        old = _numbers(found) < _numbers(minimum)
        advice = f"At least {minimum} is needed: {sys.executable} -m pip install '{name}>={minimum}'" if old else ""
        yield Check(name, "wrong" if old else "ok", found, advice)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("+", maxsplit=1)[0].split(".")[:2] if part.isdecimal())


def _extras() -> Iterator[Check]:
    for name, use in _EXTRAS.items():
        try:
            yield Check(name, "ok", version(name))
        except PackageNotFoundError:
            advice = f"Only {use} need it: {sys.executable} -m pip install {name}"
            yield Check(name, "warning", "not installed", advice)


def _settings() -> Settings:
    """The settings, or the defaults where the file is bad, so that the other checks can go on."""
    try:
        return load_settings()
    except SettingsError:
        return Settings()


def _settings_file() -> Check:
    path = paths.settings_path()
    try:
        load_settings()
    except SettingsError as error:
        return Check("settings", "wrong", str(error), f"Correct {path}, or move it away: without it the defaults hold.")
    return Check("settings", "ok", str(path) if path.exists() else f"defaults (no {path})")


def _models() -> Iterator[Check]:
    yield _model("shipped model", shipped_model_dir, "Install sdtui again: the package is not complete.")
    name = _settings().general.model
    yield _model("chosen model", lambda: resolve_model(name), "Change model in the settings; sdtui models lists what is here.")


def _model(name: str, find: Callable[[], Path | str], advice: str) -> Check:
    try:
        found = find()
        if isinstance(found, Path):
            check_model_folder(found, allow_pickle=_settings().worker.allow_pickle)
    except CheckpointError as error:
        return Check(name, "wrong", str(error), advice)
    return Check(name, "ok", str(found))


def _memory() -> Check:
    memory = psutil.virtual_memory()
    found = f"{format_bytes(memory.available)} of {format_bytes(memory.total)} free"
    if memory.available < _LOW_MEMORY_BYTES:
        return Check("memory", "warning", found, "The worker may be killed by the system; end other programs.")
    return Check("memory", "ok", found)


def _directories() -> Iterator[Check]:
    yield _directory("pictures", paths.output_dir(_settings()), "Change output_dir in the settings, or give --output.")
    yield _directory("settings dir", paths.config_dir(), "Set XDG_CONFIG_HOME to a directory of yours.")
    yield _directory("data dir", paths.data_dir(), "Set XDG_DATA_HOME to a directory of yours.")
    yield _directory("state dir", paths.state_dir(), "Set XDG_STATE_HOME to a directory of yours.")
    yield _directory("cache dir", paths.cache_dir(), "Set XDG_CACHE_HOME to a directory of yours.")


def _directory(name: str, path: Path, advice: str) -> Check:
    """Whether files can be made in a directory that exists, or that can be made."""
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    if not there.is_dir():
        return Check(name, "wrong", f"{path}: {there} is a file", advice)
    if not os.access(there, os.W_OK | os.X_OK):
        return Check(name, "wrong", f"{path}: {there} may not be written", advice)
    free = psutil.disk_usage(str(there)).free
    found = f"{path}, {format_bytes(free)} free"
    if free < _LOW_DISK_BYTES:
        return Check(name, "warning", found, "The disk is nearly full; free some space.")
    return Check(name, "ok", found)


def _database() -> Check:
    """Its version, read without a change to it: opening it to write would upgrade it."""
    path = paths.database_path()
    if not path.exists():
        return Check("database", "ok", f"none yet ({path})")
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            version: int = database.execute("PRAGMA user_version").fetchone()[0]
            count: int = database.execute("SELECT count(*) FROM jobs").fetchone()[0]
    except sqlite3.Error as error:
        return Check("database", "wrong", f"{path}: {error}", "Move it away to start a new one; pictures are not in it.")
    found = f"version {version}, {count_noun(count, 'job')}, {format_bytes(path.stat().st_size)}, {path}"
    if version > SCHEMA_VERSION:
        advice = f"This sdtui knows versions up to {SCHEMA_VERSION}: use the newer sdtui, or move the file away."
        return Check("database", "wrong", found, advice)
    if path.stat().st_mode & 0o077:
        return Check("database", "warning", f"{found}: others may read it", f"It holds every prompt: chmod 600 {path}")
    return Check("database", "ok", found)


def _tapes() -> Check:
    """What the recorded steps take of the disk; those of jobs that have not ended are not counted against the budget."""
    size, budget = size_of(paths.tapes_dir()), _settings().server.tape_budget_mb * MIB
    found = f"{format_bytes(size)} of recorded steps; those of ended jobs may take {format_bytes(budget)}"
    if size > budget + _UNENDED_TAPES_BYTES:
        return Check("tapes", "warning", found, "The server clears them as it runs; sdtui queue clear forgets ended jobs.")
    return Check("tapes", "ok", found)


def _socket() -> Check:
    """Whether only its owner can reach the server."""
    try:
        path = paths.socket_path()
        mode = path.lstat().st_mode
    except (SettingsError, OSError):
        return Check("socket", "ok", "none yet")
    if not stat.S_ISSOCK(mode):
        return Check("socket", "wrong", f"{path} is no socket", "Remove it; the server makes its own.")
    if mode & 0o077:
        return Check("socket", "wrong", f"{path} has mode {mode & 0o777:04o}: others may connect", f"chmod 600 {path}")
    return Check("socket", "ok", f"{path}, mode {mode & 0o777:04o}")


def _runtime() -> Check:
    try:
        return Check("runtime dir", "ok", str(paths.runtime_dir()))
    except SettingsError as error:
        return Check("runtime dir", "wrong", str(error), "The server's socket needs it.")


def _server() -> Check:
    try:
        pid = server_running()
    except SettingsError as error:
        return Check("server", "wrong", str(error), "See the line before.")
    return Check("server", "ok", f"runs with process id {pid}" if pid else "not running; it is started when needed")


def _terminal() -> Iterator[Check]:
    """What it says when it is asked, and what to do where it could show more."""
    if not capabilities().is_terminal:
        yield Check("terminal", "ok", "stdout is none; the app needs one, the other commands do not")
        return
    from sdtui.cli.picture import asked_terminal

    with asked_terminal() as (report, verdict):
        pass
    known = report.capabilities
    found = f"{known.width_cells}x{known.height_cells} cells, {described(known, verdict)}"
    small = known.width_cells < 80 or known.height_cells < 24
    yield Check("terminal", "warning" if small else "ok", found, "The app wants at least 80x24 cells." if small else "")
    best = verdict.way(verdict.best)
    of_colours = [sentence for sentence in verdict.advice if any(word in sentence for word in _OF_COLOURS)]
    of_text = [sentence for sentence in verdict.advice if "UTF-8" in sentence]
    others = " ".join(sentence for sentence in verdict.advice if sentence not in (*of_colours, *of_text))
    shown = f"{best.name}: {best.why}" if best.usable else f"cannot be drawn: {best.why}"
    yield Check("pictures", "ok" if best.usable else "warning", shown, others)
    few = verdict.colours != "truecolor"
    yield Check("colours", "warning" if few else "ok", f"{verdict.colours} (by {verdict.colours_from})", " ".join(of_colours))
    yield Check("text", "ok" if known.utf8 else "warning", "UTF-8" if known.utf8 else "not UTF-8", " ".join(of_text))


def _device() -> Iterator[Check]:
    """What torch finds, asked in another process."""
    advice = f"See what it says: {sys.executable} -c 'import torch'"
    try:
        probe = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, timeout=_PROBE_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        yield Check("device", "wrong", f"importing torch took more than {_PROBE_TIMEOUT_S:.0f} s", advice)
        return
    try:
        found: dict[str, Any] = json.loads(probe.stdout)
    except ValueError:
        lines = probe.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {probe.returncode}"]
        yield Check("device", "wrong", f"torch does not work: {safe_text(lines[-1], limit=200)}", advice)
        return
    for index, (name, total_bytes) in enumerate(found["gpus"]):
        yield Check("device", "ok", f"cuda:{index} {name}, {format_bytes(total_bytes)}, CUDA {found['cuda']}")
    if not found["gpus"]:
        why = "this torch is built without CUDA" if found["cuda"] is None else "torch finds no usable CUDA device"
        yield Check("device", "ok", f"cpu with {found['threads']} threads; {why}")
