"""Settings, environment and paths."""

from __future__ import annotations

import os
import stat
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sdtui import settings
from sdtui.settings import Settings, SettingsError, load_settings, save_setting, write_atomically

COMMENTED = """\
# my settings
[general]
theme = "sdtui-light"  # easier on the eyes

[server]
# a day
idle_timeout_s = 86400
"""


@pytest.fixture
def path(home: Path) -> Path:
    file = settings.settings_path()
    file.parent.mkdir(parents=True)
    return file


def test_no_file_means_all_defaults() -> None:
    assert load_settings(environ={}) == Settings()


def test_a_file_is_read(path: Path) -> None:
    path.write_text(COMMENTED)
    found = load_settings(environ={})
    assert found.general.theme == "sdtui-light"
    assert found.server.idle_timeout_s == 86400
    assert found.preview == Settings().preview


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[general\n", ["not valid TOML", "line 1"]),
        ("[general]\ntheem = 'x'", ["'theem'", "[general]", "did you mean 'theme'?"]),
        ("[general]\nzzzzzz = 1", ["'zzzzzz'", "known are theme, model"]),
        ("[sever]\nmax_clients = 3", ["[sever]", "did you mean 'server'?"]),
        ("[general]\ntheme = 3", ["general.theme", "Expected `str`, got `int`"]),
        ("[server]\nmax_clients = '3'", ["server.max_clients", "Expected `int`, got `str`"]),
        ("[server]\nmax_clients = 0", ["server.max_clients", ">= 1"]),
        ("[server]\nidle_timeout_s = nan", ["server.idle_timeout_s", ">= 1"]),
        ("[preview]\nmethod = 'magic'", ["preview.method", "magic"]),
        ("[network]\nprivate_addresses = 'yes'", ["network.private_addresses", "Expected `bool`"]),
        ("[network]\nprivate_adresses = true", ["[network]", "did you mean 'private_addresses'?"]),
        ("[keymap]\n'create.generate' = 5", ["keymap", "Expected `str`"]),
        ("general = 3", ["general must be a section, written [general]"]),
        ("keymap = 3", ["keymap"]),
    ],
)
def test_a_mistake_is_named_with_its_file(path: Path, text: str, parts: list[str]) -> None:
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(environ={})
    assert all(part in str(caught.value) for part in [str(path), *parts]), caught.value


def test_bytes_that_are_no_text_are_named(path: Path) -> None:
    path.write_bytes(b"\xff\xfe[general]")
    with pytest.raises(SettingsError, match="not valid TOML"):
        load_settings(environ={})


def test_a_file_that_cannot_be_read_is_named(path: Path) -> None:
    path.mkdir()
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        load_settings(environ={})


def test_the_environment_comes_before_the_file(path: Path) -> None:
    path.write_text(COMMENTED)
    found = load_settings(
        environ={"SDTUI_SERVER_IDLE_TIMEOUT_S": "5", "SDTUI_WORKER_OFFLINE": "true", "SDTUI_GENERAL_MODEL": "a/b"}
    )
    assert (found.server.idle_timeout_s, found.worker.offline, found.general.model) == (5.0, True, "a/b")
    assert found.general.theme == "sdtui-light"


def test_private_addresses_are_allowed_only_where_somebody_says_so(path: Path) -> None:
    assert not load_settings(environ={}).network.private_addresses
    assert load_settings(environ={"SDTUI_NETWORK_PRIVATE_ADDRESSES": "true"}).network.private_addresses
    save_setting("network", "private_addresses", True)
    assert load_settings(environ={}).network.private_addresses


def test_a_mistake_in_the_environment_is_not_blamed_on_the_file() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(environ={"SDTUI_SERVER_MAX_CLIENTS": "many"})
    assert "SDTUI_SERVER_MAX_CLIENTS" in str(caught.value)
    assert "settings.toml" not in str(caught.value)


def test_saving_keeps_comments_and_order(path: Path) -> None:
    path.write_text(COMMENTED)
    save_setting("general", "theme", "sdtui-dark")
    save_setting("preview", "max_per_s", 5.0)
    text = path.read_text()
    assert text.startswith(COMMENTED.replace('"sdtui-light"', '"sdtui-dark"'))
    assert load_settings(environ={}).preview.max_per_s == 5.0


def test_saving_makes_the_file_and_its_directory() -> None:
    save_setting("keymap", "create.generate", "f5,ctrl+j")
    assert load_settings(environ={}).keymap == {"create.generate": "f5,ctrl+j"}


@hypothesis_settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.text())
def test_any_text_that_is_saved_is_read_back(value: str) -> None:
    save_setting("general", "name_pattern", value)
    assert load_settings(environ={}).general.name_pattern == value


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("general", "theem", "x", "did you mean 'theme'"),
        ("sever", "max_clients", 3, "did you mean 'server'"),
        ("server", "max_clients", "many", "server.max_clients"),
        ("server", "max_clients", 0, ">= 1"),
    ],
)
def test_a_setting_that_could_not_be_read_back_is_not_written(
    path: Path, section: str, key: str, value: str | int, message: str
) -> None:
    path.write_text(COMMENTED)
    with pytest.raises(SettingsError, match=message):
        save_setting(section, key, value)
    assert path.read_text() == COMMENTED


@pytest.mark.parametrize("content", [b"[general", b"general = 3\n", b"\xff"])
def test_a_broken_file_is_not_overwritten(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(SettingsError):
        save_setting("general", "theme", "sdtui-dark")
    assert path.read_bytes() == content


def test_a_failed_write_leaves_the_old_file_and_nothing_else(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text(COMMENTED)

    def full_disk(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(SettingsError, match="No space left"):
        save_setting("general", "theme", "sdtui-dark")
    assert path.read_text() == COMMENTED
    assert list(path.parent.iterdir()) == [path]


def test_a_link_to_the_settings_stays_a_link(path: Path, home: Path) -> None:
    real = home / "dotfiles.toml"
    real.write_text(COMMENTED)
    path.symlink_to(real)
    save_setting("general", "theme", "sdtui-dark")
    assert path.is_symlink()
    assert tomllib.loads(real.read_text())["general"]["theme"] == "sdtui-dark"


def test_a_file_is_written_as_a_whole(home: Path) -> None:
    target = home / "deep" / "file"
    write_atomically(target, b"one")
    write_atomically(target, b"two")
    assert target.read_bytes() == b"two"
    assert list(target.parent.iterdir()) == [target]


def test_everything_lies_where_the_xdg_variables_say(home: Path) -> None:
    assert settings.settings_path() == home / "config" / "sdtui" / "settings.toml"
    assert settings.database_path().parent == home / "data" / "sdtui"
    assert settings.initial_dir() == home / "data" / "sdtui" / "initial"
    assert settings.server_log_path().parent == settings.history_path().parent == home / "state" / "sdtui"
    assert settings.cache_dir() == home / "cache" / "sdtui"
    assert settings.socket_path() == home / "run" / "sdtui" / "server.sock"


def test_pictures_go_where_the_settings_say(home: Path) -> None:
    assert settings.output_dir(Settings()).is_absolute()
    chosen = Settings(general=settings.General(output_dir="~/art"))
    assert settings.output_dir(chosen) == home / "art"


def test_the_runtime_directory_is_private() -> None:
    assert stat.S_IMODE(settings.runtime_dir().stat().st_mode) == 0o700


def test_without_xdg_the_runtime_directory_is_in_the_temporary_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(home))
    for value in (None, "", "relative/run"):
        if value is None:
            monkeypatch.delenv("XDG_RUNTIME_DIR")
        else:
            monkeypatch.setenv("XDG_RUNTIME_DIR", value)
        assert settings.runtime_dir() == home / f"sdtui-{os.getuid()}"


def test_a_runtime_directory_that_others_can_enter_is_refused(home: Path) -> None:
    (home / "run" / "sdtui").mkdir(mode=0o700)
    (home / "run" / "sdtui").chmod(0o750)
    with pytest.raises(SettingsError, match="must be a directory of yours with mode 0700"):
        settings.runtime_dir()


def test_a_runtime_directory_that_is_a_link_is_refused(home: Path) -> None:
    (home / "elsewhere").mkdir(mode=0o700)
    (home / "run" / "sdtui").symlink_to(home / "elsewhere")
    with pytest.raises(SettingsError, match="must be a directory of yours"):
        settings.runtime_dir()


def test_a_runtime_directory_of_somebody_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    settings.runtime_dir()
    stranger = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: stranger)
    with pytest.raises(SettingsError, match="must be a directory of yours"):
        settings.runtime_dir()


def test_a_runtime_directory_that_cannot_be_made_says_what_to_set(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "file").touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / "file"))
    with pytest.raises(SettingsError, match="Set XDG_RUNTIME_DIR"):
        settings.runtime_dir()
