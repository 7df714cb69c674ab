"""Pictures of what is forming: the linear factors, and which method when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from sdtui.checkpoint import shipped_model_dir
from sdtui.protocol import PreviewOptions
from sdtui.worker import linear
from sdtui.worker.previews import Previewer, PreviewKit, shrink, to_rgb


@pytest.fixture(scope="module")
def shipped_vae() -> Any:
    return AutoencoderKL.from_pretrained(shipped_model_dir() / "vae")


def striped_pictures() -> list[torch.Tensor]:
    """(3, 128, 128) pictures of another kind than those that the factors are fitted to."""
    generator = torch.Generator().manual_seed(99)
    pictures = []
    for width in (16, 32, 64):
        columns = torch.arange(128) // width
        colours = torch.rand(3, 8, generator=generator) * 2 - 1
        pictures.append(colours[:, columns][:, None, :].expand(3, 128, 128).contiguous())
    return pictures


def test_linear_factors_explain_pictures_that_they_were_not_fitted_to(shipped_vae: Any) -> None:
    factors = linear.fit(shipped_vae)
    assert factors is not None and factors.r2 > 0.7
    to_colours = linear.LinearMap.of(factors, torch.device("cpu"))
    for picture in striped_pictures():
        with torch.no_grad():
            latents = linear.encode(shipped_vae, picture[None])
        assert latents is not None
        shown = to_colours(latents[0]).permute(2, 0, 1).float() / 127.5 - 1
        small = F.adaptive_avg_pool2d(picture, (16, 16))
        unexplained = (shown - small).square().mean() / (small - small.mean((1, 2), keepdim=True)).square().mean()
        assert unexplained < 0.5, "a picture of one colour would leave 1"


def test_factors_are_fitted_once_for_each_vae(shipped_vae: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = linear.load_or_fit(shipped_vae)
    assert linear.factors_path(linear.vae_digest(shipped_vae)).is_file()
    monkeypatch.setattr(linear, "fit", lambda _: pytest.fail("fitted again"))
    assert linear.load_or_fit(shipped_vae) == first


def test_other_weights_have_another_digest(shipped_vae: Any) -> None:
    before = linear.vae_digest(shipped_vae)
    with torch.no_grad():
        bias = shipped_vae.decoder.conv_out.bias
        bias.add_(1e-3)
        after = linear.vae_digest(shipped_vae)
        bias.sub_(1e-3)
    assert before != after


def test_a_broken_cache_file_is_fitted_anew(shipped_vae: Any) -> None:
    path = linear.factors_path(linear.vae_digest(shipped_vae))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"{ not json")
    factors = linear.load_or_fit(shipped_vae)
    assert factors is not None
    assert linear.load_or_fit(shipped_vae) == factors


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(shipped_vae: Any, home: Path) -> None:
    (home / "cache").write_text("a file where the directory should be")
    assert linear.load_or_fit(shipped_vae) is not None


def test_what_is_no_picture_vae_gets_no_linear_preview() -> None:
    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config: dict[str, Any] = {}
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def encode(self, pictures: torch.Tensor) -> Any:
            raise ValueError("five dimensions, please")

    assert linear.fit(Odd()) is None


def test_a_vae_that_overflows_in_half_precision_is_fitted_in_float32_and_put_back() -> None:
    vae = AutoencoderKL.from_pretrained(shipped_model_dir() / "vae", dtype=torch.float16)
    with torch.no_grad():
        vae.encoder.conv_in.weight.mul_(30_000)
    before = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    first = linear.encode(vae, linear.fit_pictures()[0][None])
    assert first is not None and not torch.isfinite(first).all(), "it does overflow"
    assert linear.fit(vae) is not None
    assert vae.dtype == torch.float16
    assert all(torch.equal(tensor, before[name]) for name, tensor in vae.state_dict().items())


def a_kit(vae_s: float | None) -> PreviewKit:
    factors = linear.LinearFactors(((0.0,) * 3,) * 4, (0.0,) * 3, 0.0)
    per_px = None if vae_s is None else vae_s / 4096
    return PreviewKit(object(), linear.LinearMap.of(factors, torch.device("cpu")), per_px)


@pytest.mark.parametrize(
    ("vae_s", "step_s", "budget", "expected"),
    [
        (None, 1.0, 0.02, "linear"),
        (0.010, 1.0, 0.02, "vae"),
        (0.030, 1.0, 0.02, "linear"),
        (0.030, 1.0, 0.5, "vae"),
        (0.010, 0.001, 0.02, "linear"),
        (0.001, 0.001, 0.02, "vae"),
    ],
)
def test_auto_takes_the_full_vae_only_within_its_budget(vae_s: float | None, step_s: float, budget: float, expected: str) -> None:
    previewer = Previewer(a_kit(vae_s), PreviewOptions(max_per_s=10, budget=budget), picture_px=4096)
    assert previewer.method(step_s) == expected


def test_what_was_asked_for_is_taken_whatever_it_costs() -> None:
    kit = a_kit(100.0)
    assert Previewer(kit, PreviewOptions(method="vae"), 4096).method(0.01) == "vae"
    assert Previewer(kit, PreviewOptions(method="linear"), 4096).method(0.01) == "linear"
    assert Previewer(PreviewKit(None, kit.linear), PreviewOptions(method="vae"), 4096).method(0.01) == "linear"


def test_pictures_shrink_by_averaging_and_never_grow() -> None:
    picture = torch.arange(4.0).reshape(1, 2, 2).expand(3, 2, 2)
    assert torch.equal(shrink(picture, 1), torch.full((3, 1, 1), 1.5))
    assert shrink(picture, 8) is picture
    assert shrink(torch.zeros(3, 100, 50), 10).shape == (3, 10, 5)


def test_values_outside_the_range_are_cut_and_no_number_is_black() -> None:
    picture = torch.tensor([-9.0, -1.0, 0.0, 1.0, 9.0, float("nan")]).expand(3, 1, 6)
    assert to_rgb(picture)[0, :, 0].tolist() == [0, 0, 128, 255, 255, 0]
