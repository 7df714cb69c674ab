"""What a picture says of itself: A1111's grammar, names that stay in their directory, files that are whole or not there."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sdtui.metadata import (
    ImageRecord,
    OutputError,
    file_stem,
    infotext,
    initial_name,
    parse_infotext,
    prepare_output,
    read_png,
    save_png,
)
from sdtui.protocol import BranchPoint
from sdtui.schedulers import SCHEDULERS
from sdtui.text import is_safe, safe_text
from tests.unit.records import PARAMS, RECORD


def record(**changes: Any) -> ImageRecord:
    """`RECORD` with parameters or fields of its own changed."""
    own = {name: value for name, value in changes.items() if name in ImageRecord.__struct_fields__}
    params = {name: value for name, value in changes.items() if name not in own}
    return msgspec.structs.replace(RECORD, params=msgspec.structs.replace(PARAMS, **params), **own)


def picture() -> Image.Image:
    return Image.new("RGB", (16, 8), (200, 30, 60))


# --- the grammar; the oracle is A1111's own regular expression and its reading of the lines -------------------------

A1111_PARAMETER = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


def as_a1111_reads(text: str) -> dict[str, str]:
    *lines, last = text.strip().split("\n")
    pairs = A1111_PARAMETER.findall(last)
    if len(pairs) < 3:
        lines.append(last)
        pairs = []
    prompt, negative, in_negative = "", "", False
    for raw in lines:
        line = raw.strip()
        if line.startswith("Negative prompt:"):
            in_negative, line = True, line[16:].strip()
        if in_negative:
            negative += ("" if negative == "" else "\n") + line
        else:
            prompt += ("" if prompt == "" else "\n") + line
    read = {"Prompt": prompt, "Negative prompt": negative}
    for key, raw in pairs:
        value = json.loads(raw) if raw and raw[0] == '"' and raw[-1] == '"' else raw
        size = re.match(r"^(\d+)x(\d+)$", value)
        read |= {f"{key}-1": size[1], f"{key}-2": size[2]} if size else {key: value}
    return read


hostile_text = st.one_of(
    st.text(max_size=80),
    st.text(alphabet='ab ,:"\\\n\r\t\x00\x1b[]{}\x85\u2028', max_size=80),
    st.lists(
        st.sampled_from(["Steps: 3", "Negative prompt:", " Negative prompt: x", "a: b, c: d, e: f", "cat", "", '"', "\\"]),
        max_size=6,
    ).map("\n".join),
)
some_records = st.builds(
    lambda prompt, negative, model, scheduler, sigmas, guidance, seed, skip, batch, source, strength: record(
        prompt=prompt,
        negative_prompt=negative,
        model_name=model,
        scheduler=scheduler,
        sigmas=sigmas,
        guidance_scale=guidance,
        seed=seed,
        clip_skip=skip,
        batch_size=batch,
        init_image=source,
        strength=strength,
    ),
    hostile_text,
    hostile_text,
    hostile_text,
    st.sampled_from([spec.name for spec in SCHEDULERS]),
    st.sampled_from(["default", "karras", "exponential", "beta"]),
    st.floats(0, 50),
    st.integers(0, 2**53 - 1),
    st.integers(0, 11),
    st.integers(1, 4),
    st.none() | hostile_text,
    st.floats(0, 1),
)


@given(some_records)
def test_any_record_is_read_back_by_a1111s_parser_and_by_ours_alike(made: ImageRecord) -> None:
    read = parse_infotext(infotext(made))
    assert read == as_a1111_reads(infotext(made))
    assert read["Steps"] == "20"
    assert read["Seed"] == str(made.params.seed)
    assert (read["Size-1"], read["Size-2"]) == ("128", "64")
    assert float(read["CFG scale"]) == made.params.guidance_scale
    assert re.fullmatch(r"\d+x\d+", made.model_name) or read.get("Model", "") == safe_text(made.model_name).strip()
    assert read.get("Clip skip") == (str(made.params.clip_skip + 1) if made.params.clip_skip else None)
    strength = read.get("Denoising strength")
    assert (None if strength is None else float(strength)) == (
        made.params.strength if made.params.init_image is not None else None
    )


@given(some_records)
def test_no_prompt_can_pass_for_a_keyword_of_the_grammar(made: ImageRecord) -> None:
    text = infotext(made)
    lines = [line.strip() for line in text.split("\n")]
    assert sum(line.startswith("Steps: ") for line in lines) == 1
    assert lines[-1].startswith("Steps: ")
    assert sum(line.startswith("Negative prompt:") for line in lines) <= 1
    assert is_safe(text)


@given(st.text(alphabet="abc xyz(1.2)<lora:n:0.8>", min_size=1, max_size=60), st.text(alphabet="moon, blur", max_size=30))
def test_ordinary_prompts_are_read_back_as_they_were(prompt: str, negative: str) -> None:
    read = parse_infotext(infotext(record(prompt=prompt, negative_prompt=negative)))
    assert (read["Prompt"], read["Negative prompt"]) == (prompt.strip(), negative.strip())


def test_the_infotext_has_a1111s_keys_in_a1111s_order() -> None:
    made = record(
        negative_prompt="moon", scheduler="dpmpp_2m", sigmas="karras", guidance_scale=7.0, clip_skip=1, model_hash="6ce0161689"
    )
    assert infotext(made) == (
        "a red cat\nNegative prompt: moon\n"
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 7, Size: 128x64, "
        "Model hash: 6ce0161689, Model: scenes-128, Clip skip: 2, RNG: CPU, Version: sdtui 0.1.0"
    )


def test_the_denoising_strength_stands_where_a1111_writes_it_and_only_with_an_initial_image() -> None:
    made = record(clip_skip=1, init_image="/store/0123456789abcdef-cat.png", strength=0.6)
    assert "Model: scenes-128, Denoising strength: 0.6, Clip skip: 2, " in infotext(made)
    assert "/store" not in infotext(made), "whoever is sent the picture need not know where files lie here"
    assert "Denoising" not in infotext(record(clip_skip=1, strength=0.6))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/store/initial/0123456789abcdef-red cat.png", "red cat.png"),
        ("/home/me/cat.png", "cat.png"),
        ("/store/0123456789ABCDEF-cat.png", "0123456789ABCDEF-cat.png"),  # the store writes small letters
        ("/store/0123456789abcdef-", "0123456789abcdef-"),
        ("/store/\x1b[31m[b]\n.png", "[b] .png"),
        ("/" + "x" * 200, "x" * 79 + "…"),
        ("/", "/"),
    ],
)
def test_an_initial_image_is_called_what_it_was_called_before_it_was_kept(path: str, name: str) -> None:
    assert initial_name(path) == name


def test_values_with_commas_or_colons_are_quoted() -> None:
    made = record(model_name='owner: "a, b"')
    assert r'Model: "owner: \"a, b\""' in infotext(made)
    assert parse_infotext(infotext(made))["Model"] == 'owner: "a, b"'


def test_a_last_line_with_fewer_than_three_pairs_belongs_to_the_prompt() -> None:
    assert parse_infotext("a cat\nSteps: 20, Sampler: Euler") == {
        "Prompt": "a cat\nSteps: 20, Sampler: Euler",
        "Negative prompt": "",
    }


def test_hostile_parameter_lines_are_read_in_bounded_steps() -> None:
    for line in ("a" * 65_000, 'k:"' * 20_000, "ab " * 20_000, 'k: "\\' * 12_000, "a: b, " * 10_000, "a" * 10_000_000):
        assert "Prompt" in parse_infotext(line)


# --- writing and reading a file -------------------------------------------------------------------------------------


def test_a_saved_picture_is_read_back_with_nothing_lost(tmp_path: Path) -> None:
    made = record(prompt='猫 "cat"\x1b[31m,\n\x00\ud7ff', negative_prompt="[/] \u202e", inexact=("channels_last",))
    path = save_png(picture(), tmp_path, "{seed}", made)
    read = read_png(path)
    assert read.record == made
    assert (read.width_px, read.height_px) == (16, 8)
    assert read.infotext == infotext(made)
    assert read.fields["Steps"] == "20"
    with Image.open(path) as image:
        assert image.tobytes() == picture().tobytes()


def test_initial_image_and_branch_are_read_back_and_need_not_be_there(tmp_path: Path) -> None:
    made = record(
        init_image="/store/0123456789abcdef-猫.png",
        strength=0.35,
        resize="exact",
        init_image_digest="0123456789abcdef" * 2,
        branch=BranchPoint(job="20260101-110000-cd34", step=8, picture=1),
    )
    assert read_png(save_png(picture(), tmp_path, "{seed}", made)).record == made
    older = msgspec.to_builtins(RECORD)
    for name in ("init_image_digest", "branch"):
        del older[name]
    for name in ("init_image", "strength", "resize"):
        del older["params"][name]
    path, info = tmp_path / "older.png", PngInfo()
    info.add_text("sdtui", json.dumps(older))
    picture().save(path, pnginfo=info)
    assert read_png(path).record == RECORD


def test_our_json_is_ascii_so_no_reader_prints_a_control_sequence(tmp_path: Path) -> None:
    path = save_png(picture(), tmp_path, "{seed}", record(prompt="\x1b]52;c;aGk=\x07 \x9b31m 猫"))
    with Image.open(path) as image:
        text = image.text["sdtui"]  # type: ignore[attr-defined]
    assert text.isascii() and text.isprintable()


def test_a_version_of_a_class_of_its_own_is_written_as_text(tmp_path: Path) -> None:
    class TorchVersion(str):
        """As torch.__version__ is."""

    path = save_png(picture(), tmp_path, "{seed}", record(torch=TorchVersion("2.13.0+cpu")))
    read = read_png(path).record
    assert read is not None and read.torch == "2.13.0+cpu"


@pytest.mark.parametrize(("prompt", "kind"), [("café", b"tEXt"), ("猫", b"iTXt")])
def test_parameters_are_latin_1_text_where_that_does_and_utf_8_else(tmp_path: Path, prompt: str, kind: bytes) -> None:
    data = save_png(picture(), tmp_path, "{seed}", record(prompt=prompt)).read_bytes()
    assert kind + b"parameters\0" in data


def test_a_picture_of_a1111_is_read_by_its_parameters(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    info = PngInfo()
    info.add_text("parameters", "1girl, solo\nNegative prompt: bad\nSteps: 20, Sampler: Euler a, CFG scale: 7, Size: 512x768")
    picture().save(path, pnginfo=info)
    read = read_png(path)
    assert read.record is None
    assert read.fields == {
        "Prompt": "1girl, solo",
        "Negative prompt": "bad",
        "Steps": "20",
        "Sampler": "Euler a",
        "CFG scale": "7",
        "Size-1": "512",
        "Size-2": "768",
    }


def test_a_record_of_another_form_leaves_the_parameters_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    info = PngInfo()
    info.add_text("sdtui", '{"params": 3}')
    info.add_text("parameters", "a cat\nSteps: 20, Sampler: Euler, Seed: 1")
    picture().save(path, pnginfo=info)
    read = read_png(path)
    assert read.record is None and "sdtui" in read.problem
    assert read.fields["Prompt"] == "a cat"


# --- names ----------------------------------------------------------------------------------------------------------


def test_every_field_of_the_pattern_is_filled_in() -> None:
    stem = file_stem("{date}_{time}_{job}_{seed}_{index}_{model}_{prompt}", record(image_index=4))
    assert re.fullmatch(r"2026-01-0[12]_\d{6}_20260101-120000-ab12_7_004_scenes-128_a_red_cat", stem)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [("{sed}", "'seed'"), ("{}", "unknown field"), ("{seed:9999999999}", "alone"), ("{seed!r}", "alone")],
)
def test_a_bad_field_in_the_pattern_is_named(pattern: str, said: str) -> None:
    with pytest.raises(OutputError, match=re.escape(said)) as caught:
        file_stem(pattern, RECORD)
    assert caught.value.field == "name_pattern"


@pytest.mark.parametrize("pattern", ["../{seed}", "/tmp/{seed}", "{seed", "{seed.__class__}", "{seed[0]}"])
def test_a_pattern_that_leaves_the_directory_or_cannot_be_read_is_refused(pattern: str) -> None:
    with pytest.raises(OutputError):
        file_stem(pattern, RECORD)


@given(hostile_text, hostile_text, st.sampled_from(["{prompt}", "{model}{prompt}", "{prompt}-{seed}", ".{prompt}", "-{model} "]))
def test_no_prompt_or_model_name_gives_a_name_outside_the_directory(prompt: str, model: str, pattern: str) -> None:
    stem = file_stem(pattern, record(prompt=prompt * 20, model_name=model))
    assert stem and not set('/\\\0\n:*?"<>|') & set(stem)
    assert is_safe(stem)
    assert not stem.startswith((".", "-")) and not stem.endswith((".", " "))
    assert len(f"{stem}-99999.png".encode()) <= 200


@given(hostile_text, st.sampled_from(["{prompt}", "..{prompt}", "{prompt}/..", "{prompt}{prompt}{prompt}{prompt}"]))
def test_a_saved_picture_is_a_file_in_the_directory_that_was_given(prompt: str, pattern: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "out"
        try:
            path = save_png(picture(), directory, pattern, record(prompt=f"../{prompt}"))
        except OutputError:
            assert "/" in pattern
            return
        assert path.resolve().parent == directory.resolve()
        assert list(directory.iterdir()) == [path] and not path.is_symlink()


@pytest.mark.parametrize("prompt", ["CON", "nul", "com1", "LPT9.txt", "aux.tar.gz"])
def test_a_name_that_other_systems_reserve_is_not_given(prompt: str) -> None:
    stem = file_stem("{prompt}", record(prompt=prompt))
    assert stem == f"{prompt}_"
    assert file_stem("{prompt}", record(prompt="control")) == "control"


def test_a_link_in_the_place_of_a_picture_is_neither_followed_nor_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "cat.png").symlink_to(tmp_path / "precious")
    path = save_png(picture(), tmp_path / "out", "cat", RECORD)
    assert path.name == "cat-2.png"
    assert not (tmp_path / "precious").exists() and (tmp_path / "out" / "cat.png").is_symlink()


def test_a_directory_behind_links_is_where_the_picture_goes(tmp_path: Path) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    path = save_png(picture(), tmp_path / "link" / "deep", "../cat".replace("/", "{seed}"), RECORD)
    assert [path.name] == [file.name for file in (tmp_path / "real" / "deep").iterdir()]


# --- never overwriting, never half-written --------------------------------------------------------------------------


def test_a_taken_name_gets_a_number(tmp_path: Path) -> None:
    names = [save_png(picture(), tmp_path, "cat", RECORD).name for _ in range(3)]
    assert names == ["cat.png", "cat-2.png", "cat-3.png"]


def test_what_lies_under_the_name_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_text("mine")
    (tmp_path / "cat-2.png").symlink_to(tmp_path / "nowhere")
    path = save_png(picture(), tmp_path, "cat", RECORD)
    assert path.name == "cat-3.png"
    assert (tmp_path / "cat.png").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


def save_from_many_threads(directory: Path, count: int) -> list[Path]:
    barrier = threading.Barrier(count)
    paths: list[Path] = []

    def save() -> None:
        barrier.wait()
        paths.append(save_png(picture(), directory, "cat", RECORD))

    threads = [threading.Thread(target=save) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return paths


def test_writers_at_the_same_time_get_names_of_their_own(tmp_path: Path) -> None:
    paths = save_from_many_threads(tmp_path, 12)
    assert len(set(paths)) == 12
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_a_file_system_without_hard_links_does_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    paths = save_from_many_threads(tmp_path, 8)
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    assert all(read_png(path).record == RECORD for path in paths)


def test_the_users_umask_decides_who_may_read_the_picture(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = save_png(picture(), tmp_path, "cat", RECORD)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 40 kB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=40k", "none", str(directory)]
    mounted = shutil.which("mount") and subprocess.run(command, capture_output=True, check=False).returncode == 0
    if not mounted:
        pytest.skip("this user may not mount a small disk; the simulated one is tested beside it")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


def test_a_real_full_disk_is_said_with_what_is_free_and_leaves_nothing(tiny_disk: Path) -> None:
    noise = Image.frombytes("RGB", (128, 128), os.urandom(128 * 128 * 3))
    with pytest.raises(OutputError, match=r"full: the picture needs 50 kB, 41 kB are free"):
        save_png(noise, tiny_disk, "cat", RECORD)
    assert not list(tiny_disk.iterdir())


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"disk .* is full: the picture needs .*--output") as caught:
        save_png(picture(), tmp_path, "cat", RECORD)
    assert caught.value.field == "output"
    assert not list(tmp_path.iterdir())


@pytest.fixture
def files_of_at_most_200_bytes() -> Iterator[None]:
    """The kernel stops a write in the middle, as a full disk or a quota does."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("files_of_at_most_200_bytes")
def test_a_write_that_stops_half_way_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        save_png(picture(), tmp_path, "cat", RECORD)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A directory that this process may not write to, also when the tests run as root."""
    directory = tmp_path / "theirs"
    directory.mkdir(mode=0o555)
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield directory
    os.seteuid(user)


@pytest.mark.parametrize("write", [lambda path: save_png(picture(), path, "cat", RECORD), prepare_output])
def test_an_unwritable_directory_is_named_with_what_to_do(read_only: Path, write: Any) -> None:
    with pytest.raises(OutputError, match=r"theirs cannot be written: Permission denied.*--output"):
        write(read_only)


@pytest.mark.parametrize("write", [lambda path: save_png(picture(), path, "cat", RECORD), prepare_output])
@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_in_the_directorys_place_is_named(tmp_path: Path, write: Any, below: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="a file is in its place"):
        write(tmp_path / "file" / below)
    assert (tmp_path / "file").read_text() == "mine"


def test_preparing_makes_the_directory_and_leaves_it_empty(tmp_path: Path) -> None:
    prepare_output(tmp_path / "a" / "b")
    assert not list((tmp_path / "a" / "b").iterdir())
