"""The measurement of inspect mode looks at what it says, and the modes differ in how much."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from diffusers import UNet2DConditionModel

from sdtui.bench import inspect
from sdtui.bench.figures import Figure


def test_both_models_are_measured_in_every_mode_with_the_targets_of_inspect_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect, "_PARAMS", inspect.GenerationParams(prompt="a red cat", num_inference_steps=2, seed=1))
    monkeypatch.setattr(inspect, "_CHANNELS", (16, 32, 32, 32))
    monkeypatch.setattr(inspect, "_CALLS", 1)
    monkeypatch.setattr(inspect, "prepare_environment", lambda **_: None)  # it is for a process of its own
    figures: list[Figure] = inspect.measure(1)
    for model in ("shipped model", "U-Net shaped like SD 1.x"):
        told = {figure.name.removeprefix(f"{model}: "): figure for figure in figures if figure.name.startswith(model)}
        assert {name: figure.target for name, figure in told.items() if figure.target} == {
            "blocks, medians": 1.10, "every module, medians": 1.30,
        }  # fmt: skip
        assert "a step" in told and all(figure.value > 0 for figure in told.values())


def test_calls_are_looked_at_as_the_mode_says(monkeypatch: pytest.MonkeyPatch) -> None:
    unet = UNet2DConditionModel(block_out_channels=(16, 32, 32, 32), norm_num_groups=16, cross_attention_dim=768)
    counted: list[int] = []
    real = inspect.Probe.tell

    def tell(self: inspect.Probe, taken: object, *where: object) -> None:
        counted.append(len(taken.calls) if taken is not None else 0)  # type: ignore[attr-defined]
        real(self, taken, *where)  # type: ignore[arg-type]

    monkeypatch.setattr(inspect.Probe, "tell", tell)
    for mode in ("off", "blocks", "modules"):
        inspect._calls(SimpleNamespace(unet=unet), mode)  # type: ignore[arg-type]
    off, blocks, modules = (counted[index * inspect._CALLS] for index in range(3))
    assert off == 0 < blocks < modules and len(counted) == 3 * inspect._CALLS
