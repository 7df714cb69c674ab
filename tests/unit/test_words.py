"""Where words act: words from tokens, their maps at the finest resolution, heat over a picture, guidance from a tape."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save

from sdtui import tape, words
from sdtui.answers import guidance_maps
from sdtui.inspected import Inspected, InspectedError, InspectedFile, WordFacts, write_inspected
from sdtui.tape import Tape
from sdtui.text import is_safe
from sdtui.words import HUES, Word, heat, save_png, word_map, words_of

FINE, COARSE = (8, 4), (4, 2)
RED_CAT = ("<|startoftext|>", "re", "d</w>", "cat</w>", "<|endoftext|>")


def facts_of(*tokens: str, resolutions: tuple[tuple[int, int], ...] = (FINE, COARSE)) -> WordFacts:
    return WordFacts(tokens=tokens, steps=3, resolutions=resolutions, layers=(2,) * len(resolutions))


def inspected(path: Path, arrays: dict[str, Any], facts: WordFacts | None = None) -> InspectedFile:
    whole = Inspected(
        job="j1", batch_index=0, model="tiny", prompt="red cat", seeds=(7, 8), width_px=32, height_px=64, steps=3,
        words=facts or facts_of(*RED_CAT),
    )  # fmt: skip
    write_inspected(path, whole, arrays)
    return InspectedFile(path)


@pytest.fixture
def file(tmp_path: Path) -> InspectedFile:
    """Two pictures; each token's map is its place, ten times that in the second picture; the coarse ones are a hundredth."""
    places = np.arange(5, dtype=np.float32)[None, :, None, None] * np.array([1, 10], np.float32)[:, None, None, None]
    fine = np.broadcast_to(places, (2, 5, *FINE))
    coarse = np.broadcast_to(places / 100, (2, 5, *COARSE))
    arrays = {"words/8x4": np.ascontiguousarray(fine), "words/4x2": np.ascontiguousarray(coarse)}
    return inspected(tmp_path / "inspected-0000.safetensors", arrays)


# --- words ----------------------------------------------------------------------------------------------------------


def test_tokens_become_the_words_of_the_prompt() -> None:
    assert words_of(facts_of(*RED_CAT)) == [Word("red", (1, 2)), Word("cat", (3,))]


def test_marks_and_punctuation_are_no_words() -> None:
    tokens = ("<|startoftext|>", "cat</w>", ",</w>", "<|endoftext|>", "...</w>", "dog</w>", "<|endoftext|>")
    assert [word.text for word in words_of(facts_of(*tokens))] == ["cat", "dog"]


def test_a_word_that_the_limit_cuts_off_is_a_word() -> None:
    assert words_of(facts_of("<|startoftext|>", "cat</w>", "ele", "ph", "<|endoftext|>"))[1] == Word("eleph", (2, 3))


def test_byte_symbols_are_read_as_text() -> None:
    tokens = ("<|startoftext|>", "Ã¼ber</w>", "ðŁ", "ĺº</w>", "<|endoftext|>")
    assert [word.text for word in words_of(facts_of(*tokens))] == ["über", "😺"]


def test_the_marks_of_other_tokenizers_are_left_out_at_the_ends_only() -> None:
    assert [word.text for word in words_of(facts_of("<s>", "<b></w>", "cat</w>", "</s>"))] == ["<b>", "cat"]


@given(st.lists(st.text(max_size=12), max_size=8))
def test_any_tokens_give_words_that_are_safe_to_show(tokens: list[str]) -> None:
    found = words_of(facts_of(*tokens))
    assert all(is_safe(word.text) and word.text for word in found)
    places = [place for word in found for place in word.tokens]
    assert places == sorted(set(places)) and set(places) <= set(range(len(tokens)))


# --- maps -----------------------------------------------------------------------------------------------------------


def test_a_map_is_the_mean_of_the_words_tokens_summed_over_resolutions(file: InspectedFile) -> None:
    red, cat = words_of(file.facts.words or facts_of())
    np.testing.assert_allclose(word_map(file, red, 0), np.full(FINE, 1.5 * 1.01, np.float32), rtol=1e-5)
    np.testing.assert_allclose(word_map(file, cat, 1), np.full(FINE, 30 * 1.01, np.float32), rtol=1e-5)
    assert word_map(file, cat, 0).dtype == np.float32


def test_chosen_resolutions_are_summed_at_the_finest_of_the_file(file: InspectedFile) -> None:
    np.testing.assert_allclose(word_map(file, Word("cat", (3,)), 0, [COARSE]), np.full(FINE, 0.03, np.float32), rtol=1e-5)
    with pytest.raises(InspectedError, match="maps of 8x4, 4x2, and none of those"):
        word_map(file, Word("cat", (3,)), 0, [(5, 5)])


def test_a_map_is_enlarged_by_cubic_curves_and_never_below_nothing(tmp_path: Path) -> None:
    coarse = np.zeros((2, 5, *COARSE), np.float32)
    coarse[0, 3, 0, 0] = 1.0
    arrays = {"words/8x4": np.zeros((2, 5, *FINE), np.float32), "words/4x2": coarse}
    found = word_map(inspected(tmp_path / "inspected-0000.safetensors", arrays), Word("cat", (3,)), 0)
    assert found.min() == 0 and found.max() == found[:2, :2].max() > 0.9
    assert found[-2:].max() == 0


def test_values_that_are_no_numbers_count_as_none(tmp_path: Path) -> None:
    fine = np.full((2, 5, *FINE), np.nan, np.float32)
    arrays = {"words/8x4": fine, "words/4x2": np.ones((2, 5, *COARSE), np.float32)}
    found = word_map(inspected(tmp_path / "inspected-0000.safetensors", arrays), Word("cat", (3,)), 0)
    np.testing.assert_allclose(found, np.ones(FINE, np.float32), rtol=1e-5)


@pytest.mark.parametrize("image", [-1, 2])
def test_a_picture_that_is_not_in_the_batch_is_told(file: InspectedFile, image: int) -> None:
    with pytest.raises(InspectedError, match="The batch has 2 pictures"):
        word_map(file, Word("cat", (3,)), image)


@pytest.mark.parametrize("tokens", [(), (5,), (-1,)])
def test_tokens_that_have_no_maps_are_told(file: InspectedFile, tokens: tuple[int, ...]) -> None:
    with pytest.raises(InspectedError, match="no maps of the word 'cat'"):
        word_map(file, Word("cat", tokens), 0)


def test_facts_that_promise_more_than_there_is_are_told(tmp_path: Path) -> None:
    facts = facts_of(*RED_CAT, resolutions=((1 << 40, 1 << 40), FINE))
    huge = inspected(tmp_path / "inspected-0000.safetensors", {"words/8x4": np.ones((2, 5, *FINE), np.float32)}, facts)
    with pytest.raises(InspectedError, match="has no words"):
        word_map(huge, Word("cat", (3,)), 0, [FINE])


def test_arrays_that_do_not_fit_the_facts_are_told(tmp_path: Path) -> None:
    path = tmp_path / "inspected-0000.safetensors"
    short = inspected(path, {"words/8x4": np.zeros((2, 4, *FINE), np.float32)})
    with pytest.raises(InspectedError, match="another shape"):
        word_map(short, Word("cat", (3,)), 0, [FINE])
    short = inspected(path, {"words/8x4": np.zeros((2, 5, *FINE), np.float32)})
    with pytest.raises(InspectedError, match="has no words/4x2"):
        word_map(short, Word("cat", (3,)), 0, [COARSE])
    write_inspected(
        path, Inspected(job="j", batch_index=0, model="", prompt="", seeds=(1,), width_px=8, height_px=8, steps=1), {}
    )
    with pytest.raises(InspectedError, match="no maps of words"):
        word_map(InspectedFile(path), Word("cat", (3,)), 0)


# --- heat -----------------------------------------------------------------------------------------------------------


def test_heat_is_brightest_where_the_word_acts() -> None:
    values = np.zeros(FINE, np.float32)
    values[1, 1] = 5.0
    hot = heat(Image.new("RGB", (32, 64), (90, 90, 90)), [values])
    light = np.asarray(hot.convert("L"), np.int32)
    assert hot.size == (32, 64) and np.unravel_index(light.argmax(), light.shape) in {(11, 11), (11, 12), (12, 11), (12, 12)}


def test_lightness_grows_with_the_value() -> None:
    ramp = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 64)
    light = np.asarray(heat(Image.new("RGB", (64, 1)), [ramp], 1.0).convert("L"), np.int32)[0]
    assert (np.diff(light) >= 0).all() and light[0] < 5 and light[-1] > 230


def test_strength_goes_from_the_picture_to_the_heat_alone() -> None:
    picture = Image.new("RGB", (4, 4), (10, 200, 30))
    values = np.eye(4, dtype=np.float32)
    assert heat(picture, [values], 0.0).tobytes() == picture.tobytes()
    assert heat(picture, [values], 1.0).tobytes() == heat(Image.new("RGB", (4, 4)), [values], 1.0).tobytes()


def test_two_words_have_a_hue_each_and_are_white_where_both_are_strong() -> None:
    one = np.array([[1, 0], [1, 0]], np.float32)
    other = np.array([[0, 1], [1, 0]], np.float32)
    picture = np.asarray(heat(Image.new("RGB", (2, 2)), [one, other], 1.0))
    assert tuple(picture[0, 0]) == HUES[0] and tuple(picture[0, 1]) == HUES[1]
    assert tuple(picture[1, 0]) == (255, 255, 255) and tuple(picture[1, 1]) == (0, 0, 0)


@pytest.mark.parametrize("values", [np.zeros((3, 3)), np.full((3, 3), np.nan), np.full((3, 3), 2.0), np.full((3, 3), np.inf)])
def test_a_map_without_differences_heats_nothing(values: np.ndarray[Any, Any]) -> None:
    cold = np.asarray(heat(Image.new("RGBA", (6, 6), (200, 200, 200, 0)), [values], 0.5))
    assert len(np.unique(cold.reshape(-1, 3), axis=0)) == 1


def test_a_picture_is_saved_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "heat.png"
    save_png(Image.new("RGB", (3, 2), (1, 2, 3)), target)
    assert Image.open(target).getpixel((0, 0)) == (1, 2, 3)
    umask = os.umask(0)
    os.umask(umask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~umask
    before = target.read_bytes()
    monkeypatch.setattr(words.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        save_png(Image.new("RGB", (3, 2)), target)
    assert target.read_bytes() == before and list(tmp_path.iterdir()) == [target]


# --- guidance -------------------------------------------------------------------------------------------------------


def payload(call: int, step: int, answer: np.ndarray[Any, Any]) -> bytes:
    facts = {"call": str(call), "step": str(step), "timestep": "3.5", "elapsed_s": "0.25", "form": "tuple"}
    return save({"0": answer}, facts)


def as_bfloat16(image: bytes) -> bytes:
    """A float32 safetensors image with the upper halves of its values only."""
    begin = 8 + int.from_bytes(image[:8], "little")
    header = json.loads(image[8:begin])
    header["0"]["dtype"] = "BF16"
    header["0"]["data_offsets"] = [0, (len(image) - begin) // 2]
    data = (np.frombuffer(image[begin:], np.uint32) >> 16).astype("<u2").tobytes()
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + data


def a_tape(path: Path, *payloads: bytes, pictures: int = 2) -> Path:
    written = Tape(path, {"format": tape.FORMAT, "seeds": list(range(pictures))})
    for image in payloads:
        written.append(image)
    written.close()
    return path


def answers(scale: float, pictures: int = 2) -> np.ndarray[Any, Any]:
    """Without the prompt zeros, with it (3, 4, 0, 0) times the scale, so that the norm is five times that."""
    both = np.zeros((2 * pictures, 4, 2, 3), np.float32)
    both[pictures:, 0], both[pictures:, 1] = 3 * scale, 4 * scale
    return both


def test_guidance_is_the_norm_over_channels_at_each_step(tmp_path: Path) -> None:
    path = a_tape(tmp_path / "batch-0000.tape", *(payload(step, step, answers(step + 1)) for step in range(3)))
    found = guidance_maps(path)
    assert [step.shape for step in found] == [(2, 2, 3)] * 3 and found[0].dtype == np.float32
    np.testing.assert_allclose([step.mean() for step in found], [5, 10, 15], rtol=1e-6)


def test_half_precision_tapes_are_read(tmp_path: Path) -> None:
    half = payload(0, 0, answers(1).astype(np.float16))
    brain = as_bfloat16(payload(1, 1, answers(2)))
    found = guidance_maps(a_tape(tmp_path / "batch-0000.tape", half, brain))
    np.testing.assert_allclose([step.mean() for step in found], [5, 10], rtol=1e-6)


def test_a_pipeline_that_asks_twice_a_step_has_guidance_too(tmp_path: Path) -> None:
    uncond, text = np.split(answers(1), 2)
    found = guidance_maps(a_tape(tmp_path / "batch-0000.tape", payload(0, 0, text), payload(1, 0, uncond)))
    assert len(found) == 1 and found[0].mean() == pytest.approx(5)


def test_without_guidance_that_is_said(tmp_path: Path) -> None:
    path = a_tape(tmp_path / "batch-0000.tape", payload(0, 0, np.split(answers(1), 2)[0]))
    with pytest.raises(InspectedError, match="no guidance"):
        guidance_maps(path)


def test_answers_that_are_no_pictures_have_no_map(tmp_path: Path) -> None:
    path = a_tape(tmp_path / "batch-0000.tape", payload(0, 0, np.zeros((4, 16, 64), np.float32)))
    with pytest.raises(InspectedError, match="no pictures of channels"):
        guidance_maps(path)


def test_a_tape_that_is_gone_empty_or_something_else_is_told(tmp_path: Path) -> None:
    with pytest.raises(InspectedError, match=r"not recorded, or were removed: .*batch-0000\.tape is not there"):
        guidance_maps(tmp_path / "batch-0000.tape")
    with pytest.raises(InspectedError, match="holds no steps"):
        guidance_maps(a_tape(tmp_path / "empty.tape"))
    (tmp_path / "other.tape").write_bytes(b"not a tape")
    with pytest.raises(InspectedError, match="no fingerprint"):
        guidance_maps(tmp_path / "other.tape")
    with pytest.raises(InspectedError, match="cannot be read"):
        guidance_maps(tmp_path)


def test_an_answer_of_another_type_is_told(tmp_path: Path) -> None:
    path = a_tape(tmp_path / "batch-0000.tape", payload(0, 0, answers(1).astype(np.int32)))
    with pytest.raises(InspectedError, match="I32"):
        guidance_maps(path)


# --- figures --------------------------------------------------------------------------------------------------------


def test_shares_are_of_the_words_alone_and_add_up_to_one(file: InspectedFile) -> None:
    for image in range(2):  # red is tokens 1 and 2, cat is token 3
        assert words.shares(file, image) == pytest.approx([0.5, 0.5])
        assert words.shares(file, image, [COARSE]) == pytest.approx([0.5, 0.5])
    with pytest.raises(InspectedError, match="The batch has 2 pictures"):
        words.shares(file, 2)


def test_shares_of_maps_that_are_empty_are_nothing(tmp_path: Path) -> None:
    arrays = {"words/8x4": np.zeros((2, 5, *FINE), np.float32), "words/4x2": np.zeros((2, 5, *COARSE), np.float32)}
    assert words.shares(inspected(tmp_path / "inspected-0000.safetensors", arrays), 0) == [0.0, 0.0]


def test_a_spread_says_centre_peak_and_contrast() -> None:
    values = np.ones((4, 8), np.float32)
    values[1, 6] = 5.0
    found = words.spread_of(values)
    assert found.centre == found.peak == pytest.approx((6.5 / 8, 1.5 / 4)) and found.contrast == pytest.approx(5 / values.mean())
    values[3, 6] = 5.0
    assert words.spread_of(values).centre == pytest.approx((6.5 / 8, 2.5 / 4))


def test_a_flat_map_lies_in_the_middle() -> None:
    assert words.spread_of(np.zeros((4, 8), np.float32)).centre == (0.5, 0.5)
