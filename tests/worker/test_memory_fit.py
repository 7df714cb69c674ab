"""Which parameters make a job fit: what is named fits, by the figures of the case and by a dry run of what is named."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest

from sdtui.protocol import RunDry
from sdtui.worker.inspector.dry_run import run_dry
from sdtui.worker.inspector.opened import open_model
from sdtui.worker.memory_advice import job_advice, loading_advice, next_time, shortage_text
from sdtui.worker.memory_fit import Fit, Need, Place, Refusal, Work

from .inspector.models import sd14

GIB, MIB = 1 << 30, 1 << 20
OFFLOADED = ("model_offload", "sequential_offload")
NAME = "NVIDIA GeForce RTX 3070"


def a_work(px: int = 512, batch_size: int = 1, dtype: str = "float32", *, guided: bool = True) -> Work:
    return Work(px, px, batch_size, guided, dtype)


def sd_need(work: Work) -> Need:
    """Stable Diffusion 1.4, as the dry run has it: 4.0 GiB of weights in float32, 768 MiB for the decoding of 512x512 px."""
    half = 1 if work.dtype == "float32" else 2
    pictures = work.pixels / 512**2 * work.batch_size
    guided = 2 if work.guided else 1
    weights = {"embeddings": 469 * MIB // half, "denoise": 3278 * MIB // half, "decode": 319 * MIB // half}
    peaks = {"embeddings": 7 * MIB, "denoise": 130 * MIB * guided * pictures / half, "decode": 768 * MIB * pictures / half}
    return Need(weights, {stage: int(peak) for stage, peak in peaks.items()}, tile_px=512)


def a_card(total: float, room: float, others: float = 0, *, offloads: bool = True, ram: float = 12) -> Place:
    figures = [int(part * GIB) for part in (total, room, others)]
    return Place("cuda:0", NAME, *figures, half_dtype="float16", offloads=offloads, ram_bytes=int(ram * GIB))


def a_cpu(room: float, others: float = 0, half: str = "bfloat16") -> Place:
    return Place("cpu", "", 16 * GIB, int(room * GIB), int(others * GIB), half)


CASES: Mapping[str, tuple[Place, Work, Refusal, tuple[str, ...], str | None]] = {
    "8 GB, SD at float32, attention without a fused kernel": (
        a_card(7.79, 7.1), a_work(), Refusal("denoise", 2 * GIB, int(1.19 * GIB), scores_bytes=2 * GIB),
        ("in stage denoise: 2.0 GiB more were needed, 1.2 GiB are free.", "at least 7.9 GiB, and there is room for 7.1 GiB",
         "Dtype float16 (--dtype float16), about 4.0 GiB, as the weights shrink from 4.0 GiB to 2.0 GiB",
         "; or Width 384 and Height 384 (--width 384 --height 384), about 5.7 GiB."), "dtype",
    ),
    "a tile that does not fit on a card of 4 GB": (
        a_card(3.9, 3.3), a_work(1024), Refusal("decode", GIB, 20 * MIB, remedies=("vae_tiling", *OFFLOADED)),
        ("in stage decode", "Dtype float16 (--dtype float16)", "kept off the device; that comes by itself, and is slower"),
        "dtype",
    ),
    "another program holds 5 GiB": (
        a_card(7.79, 2.2, 5), a_work(), Refusal("denoise", 256 * MIB, 20 * MIB, remedies=OFFLOADED),
        ("20 MiB are free, other programs hold about 5.0 GiB.", "Dtype float16", "would fit without the other programs"), "dtype",
    ),
    "eight at a time": (
        a_card(7.79, 6.9), a_work(batch_size=8), Refusal("denoise", GIB, 300 * MIB, pictures=8),
        ("Batch size 5 (--batch-size 5), about 6.2 GiB; or Dtype float16 (--dtype float16)",), "batch_size",
    ),
    "1024x1024 in half precision": (
        a_card(2.0, 1.2), a_work(1024, dtype="float16"), Refusal("denoise", GIB, 300 * MIB, remedies=OFFLOADED),
        ("Width 704 and Height 704 (--width 704 --height 704)", "or Guidance 1 (--guidance 1)"), "width",
    ),
    "half precision, all remedies, no guidance": (
        a_card(2.0, 0.05), a_work(dtype="float16", guided=False), Refusal("denoise", GIB, 5 * MIB, remedies=OFFLOADED),
        ("Width 64 and Height 64 (--width 64 --height 64)",), "width",
    ),
    "nothing that can be set": (
        a_card(2.0, 1.9, offloads=False), a_work(64, dtype="float16", guided=False), Refusal("denoise"),
        ("about 2.0 GiB, and there is room for 1.9 GiB", "Nothing that can be set makes it fit: it would take about 2.0 GiB",
         "Device cpu (--device cpu), about 4.0 GiB of the 12.0 GiB that are free"), "device",
    ),
    "a CPU": (
        a_cpu(5.1, 1.2), a_work(1024), Refusal("decode", GIB, remedies=("vae_tiling",)),
        ("The memory of the CPU (16.0 GiB) ran out in stage decode: 1.0 GiB more were needed, other programs hold about 1.2 GiB.",
         "It takes about 5.2 GiB, and there is room for 5.1 GiB.", "Dtype bfloat16 (--dtype bfloat16)"), "dtype",
    ),
    "a CPU without figures": (
        a_cpu(8), a_work(1024), Refusal("denoise"), ("It takes more than the 8.0 GiB that there is room for.",), "dtype",
    ),
    "a CPU that computes in float32 alone": (
        a_cpu(5.3, half=""), a_work(1024), Refusal("denoise", 512 * MIB), ("Width 896 and Height 896",), "width",
    ),
    "a CPU too small for the weights": (
        a_cpu(3.5, half=""), a_work(), Refusal("denoise", GIB),
        ("Nothing that can be set makes it fit: even with Width 64, Height 64 and Guidance 1",
         "it would take about 4.0 GiB. Close other programs, or use a smaller model."), None,
    ),
    "room enough, but in pieces": (
        a_card(7.79, 7.1), a_work(768), Refusal("denoise", 2 * GIB, GIB, cached_bytes=3 * GIB),
        ("It takes about 6.0 GiB of the 7.1 GiB that there is room for, but 3.0 GiB of that are in pieces that are too small",
         "PYTORCH_ALLOC_CONF=expandable_segments:True", "Dtype float16 (--dtype float16)"), "dtype",
    ),
    "nobody says anything": (
        Place("cuda:0"), a_work(), Refusal("denoise"), ("memory of cuda:0 ran out", "--width, --height"), "width",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_message_says_what_was_needed_what_there_is_and_what_would_make_it_fit(case: str) -> None:
    place, work, refusal, says, field = CASES[case]
    advice = job_advice(place, work, sd_need(work), refusal)
    for part in says:
        assert part in advice.message
    assert advice.field == field
    assert len(advice.message) < 600 and "\n" not in advice.message and "  " not in advice.message


@pytest.mark.parametrize("case", [case for case in CASES if CASES[case][0].room_bytes and "pieces" not in case])
def test_what_is_named_fits_by_the_same_figures_and_what_was_refused_does_not(case: str) -> None:
    place, work, refusal, *_ = CASES[case]
    fit = Fit(place, work, sd_need(work), refusal)
    assert not any(fit.fits(fit.work, way) for way in fit.ways if way == fit.way)
    for switch in fit.switches():
        assert switch.need_bytes <= place.room_bytes
        assert switch.to != fit.work


def test_what_did_not_help_is_said() -> None:
    tried = "fewer pictures are made at a time"
    advice = job_advice(a_card(7.79, 7.1), a_work(), sd_need(a_work()), Refusal("denoise"), tried=tried)
    assert f"It did not help that {tried}." in advice.message


@pytest.mark.parametrize(
    ("place", "dtype", "says", "field"),
    [
        (a_card(3.9, 3.3), "float32",
         ("M does not fit into the memory of cuda:0 (NVIDIA GeForce RTX 3070, 3.9 GiB): its weights take 4.0 GiB in float32, "
          "there is room for 3.3 GiB.", "Dtype float16 (--dtype float16), about 2.5 GiB with a picture of 512x512 px, "
          "as the weights shrink from 4.0 GiB to 2.0 GiB"), "dtype"),
        (a_card(1.9, 1.3), "float32", ("would not fit with Dtype float16 (--dtype float16) either", "weights take 2.0 GiB then",
                                       "Device cpu (--device cpu), about 4.9 GiB of the 12.0 GiB"), "device"),
        (a_card(1.9, 1.3, ram=2), "float16", ("There is no smaller dtype to set. A smaller model may fit.",), None),
        (a_card(7.8, 1.3, 5, ram=2), "float16", ("As it is it would fit without the other programs, which hold about 5.0 GiB",),
         None),
        (a_card(2.5, 2.1), "float32", ("Dtype float16", "Parts of the model are then kept off the device"), "dtype"),
        (a_cpu(3.5), "float32", ("the memory of the CPU (16.0 GiB)", "Dtype bfloat16 (--dtype bfloat16)"), "dtype"),
    ],
    ids=range(6),
)  # fmt: skip
def test_a_model_that_cannot_be_loaded_says_with_which_dtype_it_could(
    place: Place, dtype: str, says: tuple[str, ...], field: str | None
) -> None:
    work = a_work(dtype=dtype)
    advice = loading_advice("M", place, work, sd_need(work), Refusal())
    for part in says:
        assert part in advice.message
    assert advice.field == field


def test_a_model_of_unknown_size_is_halved_all_the_same() -> None:
    advice = loading_advice("M", a_card(3.9, 3.3), a_work(), Need(), Refusal())
    assert "Dtype float16 (--dtype float16) would halve what its weights take." in advice.message and advice.field == "dtype"


def test_the_next_job_is_told_what_helps_without_a_remedy() -> None:
    work = a_work(batch_size=4)
    refusal = Refusal("denoise", 2 * GIB, GIB, pictures=4)
    assert next_time(a_card(7.79, 7.1), work, sd_need(work), refusal, pictures=2) == (
        "For the next job: Batch size 2 (--batch-size 2); or Dtype float16 (--dtype float16)."
    )
    large = a_work(1024)
    wish = next_time(a_card(7.79, 7.1), large, sd_need(large), Refusal("decode", 2 * GIB, GIB), pictures=1)
    assert "Dtype float16" in wish and "(--width 768 --height 768)" in wish and "Batch size" not in wish
    assert "float16" not in next_time(
        a_card(7.79, 7.1), a_work(2048, dtype="float16"), sd_need(a_work(2048, dtype="float16")), Refusal("decode"), pictures=1
    )


def test_a_shortage_while_the_job_goes_on_says_what_is_free_now() -> None:
    text = shortage_text(a_cpu(5), Refusal("decode", 4096), free_now_bytes=GIB)
    assert text == "The memory of the CPU (16.0 GiB) ran out in stage decode: 4 kB more were needed, 1.0 GiB are free now."


@pytest.mark.parametrize(("width", "height"), [(1024, 1024), (1024, 576), (512, 768), (200, 120)])
def test_a_smaller_picture_keeps_its_proportions_and_what_the_model_can_take(width: int, height: int) -> None:
    work = dataclasses.replace(a_work(), width_px=width, height_px=height)
    need = dataclasses.replace(sd_need(work), weights={})
    room = sum(need.peaks.values())
    found = [switch.to for switch in Fit(Place("cpu", room_bytes=room), work, need, Refusal("denoise")).switches()]
    smaller = next(to for to in found if to.pixels < work.pixels)
    assert smaller.width_px % 8 == smaller.height_px % 8 == 0
    assert smaller.width_px / smaller.height_px == pytest.approx(width / height, rel=0.15)


def test_attentions_scores_shrink_with_the_square_of_the_pixels() -> None:
    work = a_work(1024)
    place, need = Place("cpu", room_bytes=4 * GIB), Need({}, {"denoise": GIB})
    half = dataclasses.replace(work, width_px=512, height_px=512)
    plain = Fit(place, work, need, Refusal("denoise", 8 * GIB))
    scores = Fit(place, work, need, Refusal("denoise", 8 * GIB, scores_bytes=8 * GIB))
    assert plain.need_bytes(half) == 2 * GIB
    assert scores.need_bytes(half) == 8 * GIB // 16


@pytest.fixture(scope="module")
def sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sd14(tmp_path_factory.mktemp("sd14"))


def dry(folder: Path, work: Work) -> Need:
    request = RunDry(
        request=1, model=str(folder), width_px=work.width_px, height_px=work.height_px, batch_size=work.batch_size,
        guidance=work.guided, dtype=work.dtype,  # type: ignore[arg-type]  # a Literal
    )  # fmt: skip
    stages = {"text_encoder": "embeddings", "unet": "denoise", "vae": "decode"}
    done = run_dry(open_model(str(folder)), request)
    weights = {stages[stage.component]: stage.weight_bytes for stage in done.stages}
    return Need(weights, {stages[stage.component]: stage.peak_bytes for stage in done.stages})


def test_the_rules_of_growth_are_those_of_the_networks(sd: Path) -> None:
    """From one run the others are told: of pictures, pixels, bytes of a number, and guidance."""
    work = a_work()
    fit = Fit(Place("cpu"), work, dry(sd, work), Refusal("load"))
    for other in (
        dataclasses.replace(work, width_px=768, height_px=384, dtype="float16"),
        dataclasses.replace(work, batch_size=3, guided=False),
    ):
        found = dry(sd, other)
        decoded_alone = max(found.peaks["denoise"], found.peaks["decode"] / other.batch_size)
        assert fit.weights(other.dtype) == pytest.approx(found.weight_bytes, rel=0.001)
        assert fit.need_bytes(other) == pytest.approx(found.weight_bytes + 1.25 * decoded_alone, rel=0.01)
