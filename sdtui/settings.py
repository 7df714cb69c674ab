"""TOML settings, environment and paths.

Settings live in `$XDG_CONFIG_HOME/sdtui/settings.toml`; each key can be overridden by `SDTUI_<SECTION>_<KEY>`.
State lives where the XDG variables say, so setting them isolates a test or a second user completely.
"""

from __future__ import annotations

import difflib
import os
import stat
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta
from platformdirs import user_cache_path, user_config_path, user_data_path, user_pictures_path, user_state_path

APP: Final = "sdtui"


class SettingsError(Exception):
    """A settings or theme file that cannot be used; the text names the file, the line or key, and what would be right."""


class General(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[general]`"""

    theme: str = "sdtui-dark"
    model: str = "scenes-128"
    """The model that a new form starts with."""
    output_dir: str = ""
    """Where pictures go; empty: `sdtui` in the pictures directory."""
    name_pattern: str = "{date}-{seed}-{job}"
    """File name without ending; `{date} {time} {job} {seed} {index} {model} {prompt}` are filled in."""


class Server(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[server]`"""

    idle_timeout_s: Annotated[float, Meta(ge=1)] = 1800.0
    """The server leaves after so long with no client and no job."""
    max_clients: Annotated[int, Meta(ge=1, le=1000)] = 32
    max_queued: Annotated[int, Meta(ge=1, le=100_000)] = 20_000
    max_attempts: Annotated[int, Meta(ge=0, le=100)] = 3
    """A job is begun again after so many workers died under it; after one more it fails."""
    tape_budget_mb: Annotated[int, Meta(ge=0, le=10_000_000)] = 2000
    """Tapes of ended jobs are kept up to this size, the newest ones; 0 keeps none."""


class Preview(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[preview]`"""

    method: Literal["auto", "linear", "vae", "off"] = "auto"
    max_per_s: Annotated[float, Meta(gt=0, le=60)] = 15.0
    budget: Annotated[float, Meta(gt=0, le=1)] = 0.02
    """`auto` uses the full VAE only while previews stay below this share of the time."""


Notify = Literal["off", "auto", "bell", "osc9", "osc99"]
ImageProtocol = Literal["auto", "kitty", "iterm2", "sixel", "sextant", "quadrant", "half"]


class Terminal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[terminal]`"""

    image_protocol: ImageProtocol = "auto"
    """How pictures are drawn; `auto`: the best that the terminal says it can."""
    notify: Notify = "off"
    """How the end of a job is announced: a bell, a desktop notice (OSC 9, OSC 99), or `auto`, what the terminal knows."""
    notify_after_s: Annotated[float, Meta(ge=0)] = 5.0
    """Only jobs that took so long are announced."""


class Worker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[worker]`"""

    threads: Annotated[int, Meta(ge=0, le=1024)] = 0
    """CPU threads for torch; 0: all cores."""
    offline: bool = False
    """Never ask the hub, use the cache alone."""
    tape: bool = True
    """Record each step, so that a job can go on after a crash and its steps can be looked at later."""
    allow_pickle: bool = False
    """Load `.bin` and `.ckpt` weights too, with torch's `weights_only`; a pickle can run code when it is read."""
    command: str = ""
    """How the server starts the worker, such as `nice -n 5 python -m sdtui.worker`; empty: with its own Python."""


class Inspect(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[inspect]`"""

    look: Literal["off", "blocks", "modules"] = "off"
    """What jobs of the Create screen show of their networks while they run; `sdtui bench inspect` says what it costs."""
    words: bool = False
    """They also keep where each word of the prompt acts."""
    estimate: bool = True
    """Estimate the memory that a job will need, in a process beside, when nothing else is at work."""


class Network(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[network]`"""

    private_addresses: bool = False
    """Fetch initial images from private and local addresses too."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything in `settings.toml`."""

    general: General = General()
    server: Server = Server()
    preview: Preview = Preview()
    terminal: Terminal = Terminal()
    worker: Worker = Worker()
    inspect: Inspect = Inspect()
    network: Network = Network()
    keymap: dict[str, str] = {}
    """Keys by binding id: `"create.generate" = "f5,ctrl+j"`."""


_SECTIONS: Final = {
    "general": General,
    "server": Server,
    "preview": Preview,
    "terminal": Terminal,
    "worker": Worker,
    "inspect": Inspect,
    "network": Network,
}


def config_dir() -> Path:
    """Where `settings.toml` and the user's `themes/` lie."""
    return user_config_path(APP)


def data_dir() -> Path:
    """Where the database lies."""
    return user_data_path(APP)


def state_dir() -> Path:
    """Where logs and the prompt history lie."""
    return user_state_path(APP)


def cache_dir() -> Path:
    """What can be made again: fitted preview factors, downloaded lists."""
    return user_cache_path(APP)


def settings_path() -> Path:
    """The user's settings file, whether it exists or not."""
    return config_dir() / "settings.toml"


def database_path() -> Path:
    """Jobs, images and events."""
    return data_dir() / "sdtui.sqlite3"


def database_lock_path() -> Path:
    """Held by the one server that works on the database; says its process id and where its socket is."""
    return data_dir() / "server.lock"


def tapes_dir() -> Path:
    """One directory a job: its recorded steps, and which of its pictures are saved."""
    return data_dir() / "tapes"


def initial_dir() -> Path:
    """Copies of the initial images that jobs begin from, each under the hash of its bytes."""
    return data_dir() / "initial"


def worker_record_path() -> Path:
    """Which worker process a server started, so that the next server can end it if it was left behind."""
    return data_dir() / "worker.json"


def server_log_path() -> Path:
    """The server's log."""
    return state_dir() / "server.log"


def worker_log_path() -> Path:
    """What the worker and its libraries print."""
    return state_dir() / "worker.log"


def history_path() -> Path:
    """Prompts that were used, one JSON string a line, oldest first."""
    return state_dir() / "prompts.jsonl"


def output_dir(settings: Settings) -> Path:
    """Where pictures go, absolute."""
    chosen = settings.general.output_dir
    return Path(chosen).expanduser().absolute() if chosen else user_pictures_path() / APP


def runtime_dir() -> Path:
    """A directory of the user's own, mode 0700, for the socket; made if missing.

    `XDG_RUNTIME_DIR` where it is absolute, as its specification demands, else `sdtui-<uid>` in the temporary directory.
    Raises `SettingsError` when what lies there belongs to somebody else, is a link, or is open to others: a socket in it
    could be swapped.
    """
    base = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    path = base / APP if base.is_absolute() else Path(tempfile.gettempdir()) / f"{APP}-{os.getuid()}"
    try:
        path.mkdir(mode=0o700, parents=base.is_absolute(), exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise SettingsError(
            f"The runtime directory {path} cannot be used: {error.strerror}. Set XDG_RUNTIME_DIR to one of yours."
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise SettingsError(
            f"The runtime directory {path} must be a directory of yours with mode 0700. Remove it, or set XDG_RUNTIME_DIR."
        )
    return path


def socket_path() -> Path:
    """The server's Unix-domain socket."""
    return runtime_dir() / "server.sock"


def load_settings(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings in force. A missing file is all defaults. Raises `SettingsError`."""
    path = path or settings_path()
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raw = {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from error
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    _check_keys(raw, path)
    try:
        msgspec.convert(raw, Settings)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{path}: {_readable(error)}") from error
    from_environment = _apply_environment(raw, environ)
    try:
        return msgspec.convert(raw, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"The environment ({', '.join(from_environment)}): {_readable(error)}") from error


def _readable(error: msgspec.ValidationError) -> str:
    text, _, where = str(error).partition(" - at `$.")
    return f"{where.rstrip('`')}: {text}" if where else text


def _check_keys(raw: Mapping[str, Any], path: Path) -> None:
    for section, body in raw.items():
        if section == "keymap":
            continue
        if section not in _SECTIONS:
            raise SettingsError(f"{path}: unknown section [{section}]; {nearest(section, [*_SECTIONS, 'keymap'])}")
        if not isinstance(body, dict):
            raise SettingsError(f"{path}: {section} must be a section, written [{section}].")
        known = _SECTIONS[section].__struct_fields__
        for key in body:
            if key not in known:
                raise SettingsError(f"{path}: unknown key {key!r} in [{section}]; {nearest(key, known)}")


def nearest(name: str, known: Any) -> str:
    """`did you mean 'theme'?`, for a name that is not known."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(names)}."


def _apply_environment(raw: dict[str, Any], environ: Mapping[str, str]) -> list[str]:
    """Put the values of the environment in; the names of the variables that were there."""
    names = []
    for section, kind in _SECTIONS.items():
        for key in kind.__struct_fields__:
            name = f"SDTUI_{section}_{key}".upper()
            if name in environ:
                raw.setdefault(section, {})[key] = environ[name]
                names.append(name)
    return names


def save_setting(section: str, key: str, value: str | int | float | bool, path: Path | None = None) -> None:
    """Write one value into the settings file; the user's comments and order stay.

    Raises `SettingsError`, also for a value or a file that could not be read back; then nothing is written.
    """
    import tomlkit  # late: it takes longer to import than everything else here, and most runs only read

    path = path or settings_path()
    try:
        document = tomlkit.parse(path.read_text("utf-8")) if path.exists() else tomlkit.document()
        _check_keys(document, path)
        document.setdefault(section, tomlkit.table())[key] = value
        _check_keys(document, path)
        msgspec.convert(document.unwrap(), Settings)
        write_atomically(path, tomlkit.dumps(document).encode())
    except msgspec.ValidationError as error:
        raise SettingsError(f"{path}: {_readable(error)}") from error
    except (OSError, UnicodeDecodeError, tomlkit.exceptions.TOMLKitError) as error:
        raise SettingsError(f"{path} could not be written: {error}") from error


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` under a temporary name in the same directory, then rename: readers see all of it or nothing.

    A link is followed: settings often lie in a repository of dotfiles.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
