"""Exports: every file is opened again by a reader that did not write it; nothing is left of what failed or was cancelled."""

from __future__ import annotations

import json
import os
import resource
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from sdtui.bench.export import run_export
from sdtui.bench.recorded import write_recorded
from sdtui.inspected import InspectedError
from sdtui.timeline.drawing import Drawing
from sdtui.timeline.export import Export, ExportCancelled, ExportError, export, missing_decodes, steps_of
from sdtui.timeline.views import NotDecoded, View, decoded_of
from sdtui.trajectory import INITIAL, Trajectory

TARGETS = ("steps.mp4", "steps.webp", "steps.gif", "steps.safetensors", "steps/")
CLIPS = TARGETS[:3]
STEPS = 5
CLOCK_S = 0.0101
"""The hundredth of a second that GIF rounds to."""
Pixels = np.ndarray[Any, Any]


@pytest.fixture
def job(tmp_path: Path) -> Trajectory:
    """Five steps of two pictures of 64x48 px."""
    return Trajectory(write_recorded(tmp_path / "job", STEPS, latents=(6, 8), pictures=2))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty directory for what is exported."""
    path = tmp_path / "out"
    path.mkdir()
    return path


def to(directory: Path, name: str) -> str:
    """A target; directories keep their slash."""
    return f"{directory}/{name}"


# --- other readers --------------------------------------------------------------------------------------------------


class Read(NamedTuple):
    """What another reader sees in a clip."""

    size: tuple[int, int]
    durations_s: list[float]
    frames: list[Pixels]
    """Empty of MP4."""


def read(path: Path) -> Read:
    return read_mp4(path) if path.suffix == ".mp4" else read_with_pillow(path)


def read_with_pillow(path: Path) -> Read:
    durations, frames = [], []
    with Image.open(path) as image:
        assert image.info["loop"] == 0, "it does not play for ever"
        for number in range(image.n_frames):
            image.seek(number)
            frames.append(np.asarray(image.convert("RGB")))
            durations.append(image.info["duration"] / 1000)
        return Read(image.size, durations, frames)


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and content of each box (ISO/IEC 14496-12, 4.2)."""
    at = 0
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        yield kind, data[at + 8 : at + size]
        at += size


def inside(data: bytes, *kinds: bytes) -> bytes:
    for kind in kinds:
        data = next(content for found, content in boxes(data) if found == kind)
    return data


def read_mp4(path: Path) -> Read:
    """From the tables of samples alone: stsz has their number, stts their durations (14496-12, 8.6.1.2 and 8.7.3.2)."""
    data = path.read_bytes()
    order = [kind for kind, _ in boxes(data)]
    assert order.index(b"moov") < order.index(b"mdat"), "a browser would have to load all of it first"
    media = inside(data, b"moov", b"trak", b"mdia")
    (scale,) = struct.unpack(">I", inside(media, b"mdhd")[12:16])
    table = inside(media, b"minf", b"stbl")
    (samples,) = struct.unpack(">I", inside(table, b"stsz")[8:12])
    times = inside(table, b"stts")
    runs = struct.iter_unpack(">II", times[8 : 8 + 8 * struct.unpack(">I", times[4:8])[0]])
    durations = [ticks / scale for count, ticks in runs for _ in range(count)]
    assert len(durations) == samples
    kind, entry = next(boxes(inside(table, b"stsd")[8:]))
    assert kind == b"avc1"
    profile, level = inside(entry[78:], b"avcC")[1::2][:2]
    assert profile == 100 and level <= 51, "High profile, of a level that browsers decode"
    return Read(struct.unpack(">HH", entry[24:28]), durations, [])


# --- clips ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLIPS)
def test_a_clip_has_every_step_for_its_time_and_holds_the_last(name: str, job: Trajectory, out: Path) -> None:
    path = export(job, Export(fps=12.0, hold_s=1.5, caption=False), to(out, name))
    assert path == out / name and list(out.iterdir()) == [path]
    found = read(path)
    assert found.size == (64, 48)
    if name.endswith(".mp4"):  # whose last frame is repeated
        assert len(found.durations_s) == STEPS - 1 + 18
        assert found.durations_s == pytest.approx([1 / 12] * len(found.durations_s))
    else:
        assert len(found.durations_s) == STEPS
        assert found.durations_s == pytest.approx([1 / 12] * 4 + [1.5], abs=CLOCK_S)
        assert sum(found.durations_s[:-1]) == pytest.approx(4 / 12, abs=CLOCK_S), "the rounding adds up"


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize("fps", [1.0, 30.0, 50.0])
def test_the_last_step_stays_as_long_as_the_others_at_least(name: str, fps: float, job: Trajectory, out: Path) -> None:
    found = read(export(job, Export(fps=fps, hold_s=0.0), to(out, name)))
    assert len(found.durations_s) == STEPS
    assert found.durations_s == pytest.approx([1 / fps] * STEPS, abs=CLOCK_S)


@pytest.mark.parametrize("name", CLIPS)
def test_steps_that_look_alike_have_a_frame_each(name: str, job: Trajectory, tmp_path: Path, out: Path) -> None:
    for step in range(STEPS):
        full_picture(job, step, (90, 60, 30))
    found = read(export(job, Export(view="vae", hold_s=0.0, caption=False), to(out, name)))
    assert len(found.durations_s) == STEPS
    for pixels in found.frames:
        assert np.abs(pixels.astype(int) - (90, 60, 30)).max() <= 4


@pytest.mark.parametrize("view", ["rgb", "guidance", "channel"])
def test_squares_in_webp_are_exact(view: View, job: Trajectory, out: Path) -> None:
    wanted = Export(view=view, channel=2, picture=1)
    found = read(export(job, wanted, to(out, "steps.webp")))
    drawing = Drawing(job, wanted, range(STEPS))
    for step, pixels in enumerate(found.frames):
        assert np.array_equal(pixels, np.asarray(drawing.draw(step)))


@pytest.mark.parametrize(("name", "most"), [("steps.webp", 8), ("steps.gif", 12)])
def test_smooth_frames_are_close_to_what_was_drawn(name: str, most: float, job: Trajectory, out: Path) -> None:
    wanted = Export(view="denoised", size=(256, 192))
    found = read(export(job, wanted, to(out, name)))
    drawing = Drawing(job, wanted, range(STEPS))
    for step, pixels in enumerate(found.frames):
        drawn = np.asarray(drawing.draw(step), int)
        assert np.abs(pixels - drawn).mean() < most
        other = np.asarray(drawing.draw((step + 3) % STEPS), int)
        assert np.abs(pixels - drawn).mean() < np.abs(pixels - other).mean()


def test_an_mp4_has_the_colours_that_were_drawn(job: Trajectory, out: Path) -> None:
    import av

    for step, colour in enumerate(((200, 30, 40), (20, 180, 60), (10, 40, 220), (128, 128, 128), (250, 250, 250))):
        full_picture(job, step, colour)
    path = export(job, Export(view="vae", fps=5, hold_s=0, caption=False), to(out, "steps.mp4"))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt, stream.codec_context.colorspace) == (
            "h264",
            "yuv420p",
            1,
        )
        frames = [frame.reformat(format="rgb24").to_ndarray() for frame in container.decode(stream)]
    assert len(frames) == STEPS
    assert [np.abs(frames[0].mean((0, 1)) - (200, 30, 40)).max() < 6, np.abs(frames[2].mean((0, 1)) - (10, 40, 220)).max() < 6]


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed")
@pytest.mark.parametrize("name", CLIPS)
def test_ffprobe_counts_the_same_frames(name: str, job: Trajectory, out: Path) -> None:
    path = export(job, Export(hold_s=0.0, size=(64, 48)), to(out, name))
    if name.endswith(".webp"):  # which ffprobe cannot read
        return
    entries = "stream=nb_read_frames,codec_name,pix_fmt,profile,color_space"
    command = ["ffprobe", "-v", "error", "-count_frames", "-show_entries", entries, "-of", "json", str(path)]
    stream = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["streams"][0]
    assert stream["nb_read_frames"] == str(STEPS)
    if name.endswith(".mp4"):
        assert (stream["codec_name"], stream["pix_fmt"], stream["profile"]) == ("h264", "yuv420p", "High")


def test_mp4_has_even_sides(job: Trajectory, out: Path) -> None:
    assert read_mp4(export(job, Export(size=(99, 51), caption=False), to(out, "steps.mp4"))).size == (100, 52)
    assert read_with_pillow(export(job, Export(size=(99, 51), caption=False), to(out, "steps.gif"))).size == (99, 51)
    width, height = read_mp4(export(job, Export(size=(99, 51)), to(out, "captioned.mp4"))).size
    assert width == 100 and height > 52 and height % 2 == 0


# --- pictures of the steps ------------------------------------------------------------------------------------------


def test_pictures_are_named_by_step_and_timestep(job: Trajectory, out: Path) -> None:
    path = export(job, Export(view="rgb", every=2, include_initial=True, caption=False), to(out, "steps/"))
    assert path == out / "steps"
    names = sorted(picture.name for picture in path.iterdir())
    assert names == ["step_0000_initial.png", "step_0002_t0799.png", "step_0004_t0400.png", "step_0005_t0200.png"]
    drawing = Drawing(job, Export(view="rgb", caption=False), range(STEPS))
    with Image.open(path / "step_0004_t0400.png") as picture:
        assert picture.size == (64, 48) and np.array_equal(np.asarray(picture), np.asarray(drawing.draw(3)))


@pytest.mark.parametrize(
    ("every", "initial", "chosen"),
    [(1, False, [0, 1, 2, 3, 4]), (2, False, [1, 3, 4]), (5, True, [-1, 4]), (99, False, [4]), (3, True, [-1, 2, 4])],
)
def test_every_so_many_steps_are_taken_and_the_last(every: int, initial: bool, chosen: list[int], job: Trajectory) -> None:
    assert steps_of(job, Export(every=every, include_initial=initial)) == chosen


def test_a_directory_keeps_what_is_not_of_an_export(job: Trajectory, out: Path) -> None:
    (out / "notes.txt").write_text("mine")
    (out / "step_1.png").write_text("mine, too")
    export(job, Export(), out)
    assert len(list(out.glob("step_*_t*.png"))) == STEPS
    with pytest.raises(ExportError, match="has pictures of steps already") as raised:
        export(job, Export(), out)
    assert raised.value.field == "target"
    export(job, Export(every=STEPS), out, overwrite=True)
    assert {path.name for path in out.iterdir()} == {"notes.txt", "step_1.png", "step_0005_t0200.png"}


# --- captions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(16, 16), (64, 200), (512, 64), (640, 480), (4096, 300)])
def test_a_caption_lies_below_the_picture_and_says_the_step(size: tuple[int, int], job: Trajectory) -> None:
    wanted = Export(view="guidance", size=size)
    drawing = Drawing(job, wanted, range(STEPS))
    bare = Drawing(job, Export(view="guidance", size=size, caption=False), range(STEPS))
    first, last = (np.asarray(drawing.draw(step)) for step in (0, 4))
    assert first.shape == (drawing.height_px, drawing.width_px, 3) and drawing.height_px > size[1]
    assert np.array_equal(first[: size[1]], np.asarray(bare.draw(0)))
    strips = first[size[1] :], last[size[1] :]
    assert all(strip.max() > 200 and strip.min() < 30 for strip in strips) and not np.array_equal(*strips)
    if min(size) >= 200:
        assert all(strip[:, -3:].max() < 30 for strip in strips), "nothing of it is cut off"


def test_a_larger_picture_has_a_larger_caption(job: Trajectory) -> None:
    strips = [Drawing(job, Export(size=(side, side)), range(STEPS)).height_px - side for side in (512, 1024, 2048)]
    assert strips[0] * 1.8 < strips[1] and strips[1] * 1.8 < strips[2]


def test_what_a_job_began_with_has_no_timestep(job: Trajectory) -> None:
    wanted = Export(view="rgb", include_initial=True, size=(300, 200))
    drawing = Drawing(job, wanted, [INITIAL, 0])
    begin, first = (np.asarray(drawing.draw(step))[200:] for step in (INITIAL, 0))
    assert (begin > 200).sum() * 2 < (first > 200).sum()


def test_views_that_stand_for_pictures_are_smooth_and_the_others_squares(job: Trajectory) -> None:
    for view, smooth in (("denoised", True), ("latents", True), ("rgb", False), ("guidance", False), ("difference", False)):
        pixels = np.asarray(Drawing(job, Export(view=view, caption=False), [2]).draw(2))  # 8 px for each latent pixel
        squares = pixels.reshape(6, 8, 8, 8, 3)
        assert (np.ptp(squares, axis=(1, 3)).max() == 0) is not smooth


# --- latents --------------------------------------------------------------------------------------------------------


def test_latents_are_read_by_the_library(job: Trajectory, out: Path) -> None:
    path = export(job, Export(picture=1, every=2, include_initial=True), to(out, "steps.safetensors"))
    with safe_open(path, "numpy") as file:
        names = set(file.keys())
        numbers = ("0001", "0003", "0004")
        assert names == {"latents/initial"} | {f"{kind}/{number}" for kind in ("latents", "denoised") for number in numbers}
        assert np.array_equal(file.get_tensor("latents/initial"), job.latents(INITIAL)[1:])
        assert np.array_equal(file.get_tensor("latents/0003"), job.latents(3)[1:])
        assert np.array_equal(file.get_tensor("denoised/0004"), job.denoised(4)[1:])
        told = file.metadata()
    assert (told["prompt"], told["model"], json.loads(told["seed"])) == ("a red cat", "none", 8)
    assert json.loads(told["steps"]) == [-1, 1, 3, 4]
    assert json.loads(told["timesteps"]) == [None] + [job.steps[step].timestep for step in (1, 3, 4)]
    assert json.loads(told["sigmas"]) == [None] + [job.steps[step].sigma for step in (1, 3, 4)]
    assert json.loads(told["params"])["width"] == 64


def test_latents_need_neither_a_view_nor_a_tape(tmp_path: Path, out: Path) -> None:
    job = Trajectory(write_recorded(tmp_path / "job", 2, linear=False, guided=False, channels=16))
    with safe_open(export(job, Export(view="vae"), to(out, "x.safetensors")), "numpy") as file:
        assert file.get_tensor("latents/0001").shape == (1, 16, 64, 64)


# --- full pictures --------------------------------------------------------------------------------------------------


def full_picture(job: Trajectory, step: int, colour: tuple[int, int, int], size: tuple[int, int] = (64, 48)) -> Path:
    path = decoded_of(job, step, 0)
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def test_steps_that_the_vae_has_not_decoded_are_named(job: Trajectory, out: Path) -> None:
    wanted = Export(view="vae", every=2, include_initial=True)
    full_picture(job, 3, (1, 2, 3))
    assert missing_decodes(job, wanted) == [INITIAL, 1, 4]
    assert missing_decodes(job, Export(every=2)) == []
    with pytest.raises(NotDecoded, match="3 steps"):
        export(job, wanted, to(out, "steps.mp4"))
    for step in (INITIAL, 1, 4):
        full_picture(job, step, (1, 2, 3), (80, 80))
    assert missing_decodes(job, wanted) == []
    assert read_with_pillow(export(job, wanted, to(out, "steps.gif"))).durations_s[0] == pytest.approx(0.125, abs=CLOCK_S)


@pytest.mark.parametrize("name", TARGETS[:3] + TARGETS[4:])
def test_a_full_picture_that_cannot_be_read_ends_it(name: str, job: Trajectory, out: Path) -> None:
    for step in range(STEPS):
        full_picture(job, step, (1, 2, 3))
    decoded_of(job, 3, 0).write_bytes(b"nothing")
    with pytest.raises(InspectedError, match=r"0003\.png cannot be read"):
        export(job, Export(view="vae"), to(out, name))
    assert list(out.iterdir()) == []


# --- what goes wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("when", [0, 3])
def test_nothing_is_left_of_what_was_cancelled(name: str, when: int, job: Trajectory, out: Path) -> None:
    told: list[tuple[int, int]] = []
    with pytest.raises(ExportCancelled):
        export(job, Export(), to(out, name), progress=lambda *done: told.append(done), cancelled=lambda: len(told) >= when)
    assert told == [(done, STEPS) for done in range(1, when + 1)]
    assert list(out.iterdir()) == []
    before = export(job, Export(), to(out, name), progress=lambda *done: told.append(done))
    assert told[-1] == (STEPS, STEPS) and list(out.iterdir()) == [before]


@pytest.mark.parametrize("name", TARGETS)
def test_an_interrupt_leaves_what_was_there(name: str, job: Trajectory, out: Path) -> None:
    path = export(job, Export(), to(out, name))
    before = {file: file.read_bytes() for file in [path, *path.glob("*")] if file.is_file()}

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(job, Export(every=2), to(out, name), overwrite=True, progress=interrupt)
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("name", TARGETS)
def test_a_step_that_cannot_be_read_ends_it(name: str, job: Trajectory, out: Path) -> None:
    damaged = job.steps[2]
    with job.path.open("r+b") as file:
        file.seek(damaged.offset)
        file.write(b"\xff" * damaged.length)
    with pytest.raises(InspectedError, match="Step 2"):
        export(job, Export(view="rgb"), to(out, name))
    assert list(out.iterdir()) == []


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file may grow beyond this: the kernel refuses the write, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", TARGETS)
def test_a_full_disk_is_told_and_nothing_is_left(name: str, job: Trajectory, out: Path) -> None:
    with full_disk(1000), pytest.raises(ExportError, match="cannot be written: File too large") as raised:
        export(job, Export(view="rgb", size=(256, 256)), to(out, name))
    assert raised.value.field == "target"
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("name", TARGETS[:4])
def test_a_file_that_is_there_is_replaced_only_when_that_is_wanted(name: str, job: Trajectory, out: Path) -> None:
    (out / name).write_bytes(b"mine")
    with pytest.raises(ExportError, match="is there already; choose another name, or overwrite it"):
        export(job, Export(), to(out, name))
    assert (out / name).read_bytes() == b"mine"
    path = export(job, Export(), to(out, name), overwrite=True)
    assert path.stat().st_size > 100 and list(out.iterdir()) == [path]


@pytest.mark.parametrize("name", TARGETS[:4])
def test_a_name_that_is_taken_meanwhile_is_not_taken_away(name: str, job: Trajectory, out: Path) -> None:
    with pytest.raises(ExportError, match="is there already"):
        export(job, Export(), to(out, name), progress=lambda done, total: (out / name).write_bytes(b"theirs") and None)
    assert {path: path.read_bytes() for path in out.iterdir()} == {out / name: b"theirs"}


@pytest.mark.parametrize("name", TARGETS[:4])
def test_a_file_may_be_read_by_those_whom_the_umask_lets(name: str, job: Trajectory, out: Path) -> None:
    umask = os.umask(0o027)
    try:
        assert export(job, Export(), to(out, name)).stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(umask)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("steps.avi", r"must end in one of \.mp4, \.webp, \.gif, \.safetensors, or be a directory"),
        ("steps.mp4.part", "must end in one of"),
        ("nowhere/steps.mp4", "nowhere is not there; make it first"),
        ("nowhere/steps/", "nowhere is not there; make it first"),
        ("file/steps.mp4", "file is not there; make it first"),
        ("file/", "is there already, and is no file that could be replaced"),
        ("file", "is there already, and is no file that could be replaced"),
        (f"{'x' * 300}.mp4", "cannot be written: File name too long"),
        ("pipe.mp4", "is there already, and is no file that could be replaced"),
    ],
)
def test_a_target_that_cannot_be_is_told(target: str, said: str, job: Trajectory, out: Path) -> None:
    (out / "file").write_text("a file")
    os.mkfifo(out / "pipe.mp4")
    before = set(out.iterdir())
    with pytest.raises(ExportError, match=said) as raised:
        export(job, Export(), to(out, target), overwrite=True)
    assert raised.value.field == "target" and set(out.iterdir()) == before


@pytest.mark.parametrize("target", ["", "  ", "a\0b.mp4"])
def test_a_name_that_no_file_can_have_is_told(target: str, job: Trajectory) -> None:
    with pytest.raises(ExportError, match="empty, or no file can have it"):
        export(job, Export(), target)


@pytest.mark.parametrize("name", ["a:b.mp4", "100%d.gif", "ünï 猫.webp", "-x.mp4", "Steps.MP4"])
def test_a_name_means_a_file_whatever_ffmpeg_thinks_of_it(name: str, job: Trajectory, out: Path) -> None:
    directory = out / "http:"
    directory.mkdir()
    assert len(read_any(export(job, Export(hold_s=0), to(directory, name)))) == STEPS


def read_any(path: Path) -> list[float]:
    return (read_mp4(path) if path.suffix.lower() == ".mp4" else read_with_pillow(path)).durations_s


@pytest.mark.parametrize(
    ("wanted", "field", "said"),
    [
        ({"fps": 0}, "fps", "from 1 to 60 frames a second; it is 0"),
        ({"fps": 1000}, "fps", "it is 1000"),
        ({"fps": float("nan")}, "fps", "it is nan"),
        ({"fps": 51}, "fps", "GIF shows at most 50 frames a second"),
        ({"hold_s": -1}, "hold_s", "from 0 to 60 seconds; it is -1"),
        ({"hold_s": float("inf")}, "hold_s", "it is inf"),
        ({"every": 0}, "every", "1 or more; it is 0"),
        ({"size": (0, 64)}, "size", "from 16 to 4096 px; one is 0"),
        ({"size": (64, 50_000)}, "size", "one is 50000"),
        ({"picture": 2}, "picture", "2 pictures, and none with the number 3"),
        ({"picture": -1}, "picture", "none with the number 0"),
        ({"view": "channel", "channel": 4}, "channel", "4 channels, and none with the number 5"),
        ({"view": "fire"}, "view", "'fire' is no view; there are denoised"),
        ({"view": "guidance", "include_initial": True}, "include_initial", "no guidance before the first step"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_told_with_its_field(
    wanted: dict[str, Any], field: str, said: str, job: Trajectory, out: Path
) -> None:
    with pytest.raises(ExportError, match=said) as raised:
        export(job, Export(**wanted), to(out, "steps.gif"))
    assert raised.value.field == field and list(out.iterdir()) == []


def test_a_view_that_a_job_has_not_is_told(tmp_path: Path, out: Path) -> None:
    job = Trajectory(write_recorded(tmp_path / "job", 2, linear=False, guided=False))
    for view in ("denoised", "guidance"):
        with pytest.raises(ExportError) as raised:
            export(job, Export(view=view), to(out, "steps.gif"))
        assert raised.value.field == "view"
    empty = Trajectory(write_recorded(tmp_path / "empty", 0, total=4))
    with pytest.raises(ExportError, match="No step of this job is recorded yet"):
        export(empty, Export(), to(out, "steps.gif"))


@pytest.mark.parametrize("name", TARGETS)
def test_of_a_running_job_what_is_there_is_written(name: str, tmp_path: Path, out: Path) -> None:
    job = Trajectory(write_recorded(tmp_path / "job", 3, total=20, latents=(6, 8)))
    path = export(job, Export(hold_s=0), to(out, name))
    if path.is_dir():
        assert len(list(path.iterdir())) == 3
    elif path.suffix == ".safetensors":
        with safe_open(path, "numpy") as file:
            assert len(file.keys()) == 6
    else:
        assert len(read_any(path)) == 3


# --- memory ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLIPS)
def test_memory_does_not_grow_with_the_steps(name: str, tmp_path: Path, out: Path) -> None:
    """Sixty frames of 320x320 px are 18 MB; the encoders keep none of them."""
    few, many = (
        run_export(write_recorded(tmp_path / str(steps), steps, latents=(40, 40)), to(out, name))[1] for steps in (20, 80)
    )
    assert (many - few) / 1024 < 6
