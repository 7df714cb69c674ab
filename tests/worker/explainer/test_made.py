"""What is told of variables, and the pictures of tensors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sdtui.protocol import TensorPicture
from sdtui.text import is_safe
from sdtui.worker.explainer.made import Variables, is_tensor, made_tensor, told
from sdtui.worker.explainer.pictures import MAX_PX, RESULT_PX, Pictures, first_channels, heat, result_picture
from sdtui.worker.models import LoadedModel


def seen(variables: Variables, values: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, how) for name, how, _ in variables.see(values)]


def pixels(picture: TensorPicture | None) -> np.ndarray[Any, Any]:
    assert picture is not None and len(picture.rgb) == 3 * picture.width_px * picture.height_px
    return np.frombuffer(picture.rgb, np.uint8).reshape(picture.height_px, picture.width_px, 3)


@pytest.fixture
def pictures(model: LoadedModel) -> Pictures:
    return Pictures("text_to_image", model.pipe.tokenizer, model.previews.linear)


# --- which variables --------------------------------------------------------------------------------------------------


def test_new_rebound_and_written_into_are_told_apart() -> None:
    variables, latents, number = Variables(), torch.zeros(2), 1000
    assert seen(variables, {"latents": latents, "number": number}) == [("latents", "new"), ("number", "new")]
    assert seen(variables, {"latents": latents, "number": number}) == []
    latents += 1
    assert seen(variables, {"latents": latents, "number": number}) == [("latents", "changed")]
    assert seen(variables, {"latents": latents.clone(), "number": number, "more": 1}) == [("latents", "rebound"), ("more", "new")]
    assert seen(variables, {}) == []


def test_an_equal_object_is_another_object() -> None:
    variables = Variables()
    variables.see({"latents": torch.zeros(2)})
    assert seen(variables, {"latents": torch.zeros(2)}) == [("latents", "rebound")]


def test_tensors_without_a_version_are_followed_by_identity() -> None:
    with torch.inference_mode():
        latents = torch.zeros(2)
    variables = Variables()
    assert seen(variables, {"latents": latents}) == [("latents", "new")]
    assert seen(variables, {"latents": latents}) == []


class FakeScheduler:
    """What a scheduler keeps."""

    def __init__(self) -> None:
        self.timesteps, self.sigmas = torch.arange(3), np.arange(3)


def test_what_the_scheduler_keeps_is_told_once_it_changes() -> None:
    variables, scheduler = Variables(), FakeScheduler()
    assert seen(variables, {"scheduler": scheduler}) == [("scheduler", "new")], "it had those before the function did"
    scheduler.timesteps = torch.arange(5)
    assert seen(variables, {"scheduler": scheduler}) == [("scheduler.timesteps", "rebound")]
    assert seen(variables, {"scheduler": scheduler}) == []


def test_a_change_from_outside_is_no_line_s() -> None:
    variables = Variables()
    variables.see({"guidance_scale": 4.0})
    changed = 9.0
    variables.change("guidance_scale", changed)
    assert seen(variables, {"guidance_scale": changed}) == [] and variables.get("guidance_scale") == 9.0


# --- figures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "figures"),
    [
        (torch.tensor([1.0, 2.0, 6.0]), (1.0, 3.0, 6.0, math.sqrt(14 / 3), 0)),
        (torch.tensor([1.0, math.nan, 3.0, math.inf]), (1.0, 2.0, 3.0, 1.0, 2)),
        (torch.tensor([math.nan, -math.inf]), (None, None, None, None, 2)),
        (torch.tensor([60000.0, 60000.0], dtype=torch.float16), (60000.0, 60000.0, 60000.0, 0.0, 0)),
        (torch.tensor([[1, 2], [3, 2]]), (1.0, 2.0, 3.0, math.sqrt(0.5), 0)),
        (torch.tensor([True, False]), (0.0, 0.5, 1.0, 0.5, 0)),
        (torch.tensor([1e300, -1e300], dtype=torch.float64), (-1e300, 0.0, 1e300, None, 0)),
        (torch.empty(0, 4), (None, None, None, None, 0)),
        (torch.tensor([1j]), (None, None, None, None, 0)),
        (np.array([[0, 255]], np.uint8), (0.0, 127.5, 255.0, 127.5, 0)),
        (np.array(["word"]), (None, None, None, None, 0)),
    ],
    ids=str,
)
def test_figures_are_of_the_finite_numbers(pictures: Pictures, value: Any, figures: tuple[float | None, ...]) -> None:
    made = made_tensor("x", "new", value, pictures)
    assert (made.low, made.mean, made.high, made.std, made.faults) == pytest.approx(figures)
    assert made.shape == value.shape and not made.dtype.startswith("torch.")


def test_looking_writes_to_nothing(pictures: Pictures) -> None:
    names = ("latents", "noise_pred", "decoded", "embeddings", "tokens")
    shapes = ((2, 4, 8, 8), (2, 4, 8, 8), (1, 3, 64, 64), (2, 77, 32), (2, 77))
    for name, shape in zip(names, shapes, strict=True):
        tensor = torch.randint(0, 9, shape) if name == "tokens" else torch.randn(shape)
        before, version = tensor.clone(), tensor._version
        assert made_tensor(name, "new", tensor, pictures).picture is not None
        assert torch.equal(tensor, before) and tensor._version == version


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (torch.tensor(999), "tensor(999)"),
        (torch.Size((1, 4)), "(1, 4)"),
        ((1,), "(1,)"),
        (["a"] * 20, "['a', 'a', 'a', 'a', 'a', 'a', 'a', 'a', …]"),
        ({"eta": 0.0, "of": None}, "{'eta': 0.0, 'of': None}"),
        (torch.Generator().manual_seed(3), "a generator on cpu, seed 3"),
        (torch.nn.Linear(2, 3), "Linear, 9 parameters"),
        (torch.device("cpu"), "cpu"),
        (torch.float16, "torch.float16"),
        (Image.new("RGB", (4, 2)), "a picture, 4x2, RGB"),
        (object(), "object"),
        ([torch.zeros(2, 3)], "[a tensor of (2, 3)]"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,  # no address in a name
)
def test_values_are_told_in_few_words(value: Any, text: str) -> None:
    assert told(value) == text


@pytest.mark.parametrize("value", ["\x1b[31mred\x07", "a\u202eb", "x" * 10_000, ["[/] \x00"], {"\x9b31m": 1}])
def test_told_values_are_safe_and_short(value: Any) -> None:
    assert is_safe(told(value)) and len(told(value)) <= 160


def test_single_numbers_are_values_and_no_tensors() -> None:
    assert not is_tensor(torch.tensor(1)) and is_tensor(torch.zeros(1)) and is_tensor(np.zeros(1)) and not is_tensor([1])


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_tokens_are_marks_words_and_filling(pictures: Pictures, model: LoadedModel) -> None:
    tokenizer = model.pipe.tokenizer
    tokens = tokenizer(["", "red cat"], padding="max_length", max_length=77, return_tensors="pt").input_ids
    assert pictures.words(tokens) == (
        ("<|startoftext|>", "<|endoftext|>"),
        ("<|startoftext|>", "red</w>", "cat</w>", "<|endoftext|>"),
    )
    strip = pixels(pictures.of("tokens", tokens))
    assert strip.shape == (2, 77, 3)
    kinds = [[tuple(int(value) for value in colour) for colour in row] for row in strip]
    mark, filling = kinds[0][0], kinds[0][2]
    assert kinds[0] == [mark, mark] + [filling] * 75
    assert kinds[1][0] == kinds[1][3] == mark and set(kinds[1][4:]) == {filling}
    assert len({mark, filling, kinds[1][1], kinds[1][2]}) == 4


def test_latents_as_strong_as_the_first_sigma_are_shown_all_the_same(pictures: Pictures) -> None:
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    latents /= latents.std(correction=0)
    faint, strong = pictures.of("latents", latents), pictures.of("latents", latents * 14.6)
    assert faint is not None and strong is not None
    assert np.abs(pixels(faint).astype(int) - pixels(strong)).max() <= 1
    assert "divided" not in faint.what and strong.what.endswith("divided by their spread 14.6")


def test_two_latents_stand_beside_each_other(pictures: Pictures) -> None:
    assert pixels(pictures.of("latent_input", torch.zeros(2, 4, 8, 6))).shape == (8, 13, 3)


def test_latents_of_another_vae_are_shown_by_channels(model: LoadedModel) -> None:
    picture = Pictures("text_to_image", model.pipe.tokenizer, None).of("latents", torch.randn(1, 4, 8, 8))
    assert picture is not None and picture.what.startswith("the first three channels")
    assert first_channels(torch.zeros(1, 2, 8, 8)) is None


@pytest.mark.parametrize(
    ("function", "name", "shape", "white"),
    [
        ("text_to_image", "decoded", (1, 3, 4, 6), 1.0),
        ("text_to_image", "pixels", (1, 3, 4, 6), 1.0),
        ("image_to_image", "pixels", (1, 4, 6, 3), 1.0),
        ("image_to_image", "pixels", (1, 3, 4, 6), 1.0),
        ("image_to_image", "result", (1, 3, 4, 6), 1.0),
    ],
)
def test_pixels_are_the_picture_whatever_their_range_and_order(
    model: LoadedModel, function: str, name: str, shape: tuple[int, ...], white: float
) -> None:
    pictures = Pictures(function, model.pipe.tokenizer, model.previews.linear)
    lowest = -1.0 if name == "decoded" or (function, shape[1], name) == ("image_to_image", 3, "pixels") else 0.0
    tensor = torch.full(shape, lowest)
    tensor.flatten()[-1] = white
    tensor = torch.full(shape, white) if shape[1] != 3 else tensor
    values = pixels(pictures.of(name, tensor))
    assert values.shape == (4, 6, 3) and values.max() == 255 and values[0, 0, 0] == (255 if shape[1] != 3 else 0)


def test_an_array_is_the_picture_and_large_ones_are_made_smaller(pictures: Pictures) -> None:
    array = np.random.default_rng(0).integers(0, 255, (16, 8, 3), np.uint8)
    made = made_tensor("array", "new", array, pictures)
    assert np.array_equal(pixels(made.picture), array)
    large = made_tensor("array", "new", np.full((1000, 500, 3), 7, np.uint8), pictures).picture
    assert large is not None and (large.width_px, large.height_px) == (MAX_PX // 2, MAX_PX) and set(large.rgb) == {7}


def test_heat_says_where_numbers_are_and_of_which_sign() -> None:
    values = torch.zeros(2, 5, 8)
    values[0, 1, 2], values[1, 4, 7] = 10.0, -10.0
    shown = pixels(heat(values)).astype(int)
    assert shown.shape == (11, 8, 3), "two blocks with a row between"
    above, below = shown[1, 2], shown[6 + 4, 7]
    assert above[0] > above[2] and below[2] > below[0] and shown[0, 0].sum() == 0
    assert pixels(heat(torch.randn(2, 77, 768))).shape == (155, MAX_PX, 3)
    assert max(pixels(heat(torch.randn(2, 4000, 8))).shape) <= MAX_PX


@pytest.mark.parametrize("name", ["latents", "noise_pred", "decoded", "embeddings"])
@pytest.mark.parametrize("fill", [math.nan, math.inf, 0.0])
def test_what_is_no_number_has_a_picture_too(pictures: Pictures, name: str, fill: float) -> None:
    shape = {"decoded": (1, 3, 8, 8), "embeddings": (2, 7, 8)}.get(name, (2, 4, 8, 8))
    assert pixels(pictures.of(name, torch.full(shape, fill))).size


@pytest.mark.parametrize(
    ("name", "shape"), [("noise", (3,)), ("other", (1, 4, 8, 8)), ("decoded", (1, 4, 8, 8)), ("latents", (0, 4, 8, 8))]
)
def test_what_is_no_picture_has_none(pictures: Pictures, name: str, shape: tuple[int, ...]) -> None:
    assert pictures.of(name, torch.zeros(shape)) is None


def test_the_result_is_itself_or_made_smaller() -> None:
    small = Image.new("RGB", (64, 32), (1, 2, 3))
    assert pixels(result_picture(small)).tolist() == np.asarray(small).tolist()
    large = result_picture(Image.new("RGB", (2048, 1024), (1, 2, 3)))
    assert (large.width_px, large.height_px) == (RESULT_PX, RESULT_PX // 2) and "2048x1024" in large.what
