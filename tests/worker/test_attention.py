"""The words' maps are those of DAAM's definition, and taking them changes nothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module, remove_hook_from_module
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor

from sdtui.inspected import InspectedFile
from sdtui.protocol import JobInspected, Submit
from sdtui.worker import attention
from sdtui.worker.attention import AttentionMaps, Extent, add_maps, cross_attentions
from sdtui.worker.errors import Cancelled
from sdtui.worker.models import LoadedModel, ModelRequest, load_model

from .desk import Desk, after_step, same
from .test_probes import wrapped

TOKENS = 4  # start, red, cat, end
STEPS = 3


@pytest.fixture
def desk(model: LoadedModel, tmp_path: Path) -> Desk:
    return Desk(model, tmp_path)


def with_words(submit: Submit, **fields: Any) -> Submit:
    return msgspec.structs.replace(submit, words=True, **fields)


class StoringProcessor(AttnProcessor):
    """The attention of diffusers written out, which keeps the probabilities of those that look at the prompt."""

    def __init__(self, kept: list[tuple[str, int, torch.Tensor]], name: str) -> None:
        super().__init__()
        self._kept, self._name = kept, name

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        real = attn.get_attention_scores

        def scores(query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
            probabilities = real(query, key, mask)
            self._kept.append((self._name, attn.heads, probabilities.clone()))
            return probabilities

        if encoder_hidden_states is not None:
            attn.get_attention_scores = scores
        try:
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask)
        finally:
            vars(attn).pop("get_attention_scores", None)


def by_definition(
    pipe: Any, seeds: list[int], size: tuple[int, int], guidance: float, prompt: str = "red cat"
) -> dict[tuple[int, int], np.ndarray[Any, Any]]:
    """DAAM's sums by storing every probability of a plain run: (B, tokens, h, w) for each resolution."""
    kept: list[tuple[str, int, torch.Tensor]] = []
    own = pipe.unet.attn_processors
    pipe.unet.set_attn_processor({name: StoringProcessor(kept, name) for name in own})
    try:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        pipe(
            prompt, negative_prompt="", num_inference_steps=STEPS,
            guidance_scale=guidance, num_images_per_prompt=len(seeds), generator=generators,
            height=size[0], width=size[1], output_type="latent",
        )  # fmt: skip
    finally:
        pipe.unet.set_attn_processor(own)
    sums: dict[tuple[int, int], Any] = defaultdict(float)
    height, width = size[0] // 8, size[1] // 8
    shapes = {height * width: (height, width), -(-height // 2) * -(-width // 2): (-(-height // 2), -(-width // 2))}
    count = len(pipe.tokenizer(prompt).input_ids)
    for _, heads, probabilities in kept:
        shape = shapes[probabilities.shape[1]]
        each = probabilities.view(-1, heads, *probabilities.shape[1:])[-len(seeds) :].double()  # (B, heads, pixels, 77)
        sums[shape] = sums[shape] + each.mean(1).transpose(1, 2)[:, :count].reshape(len(seeds), count, *shape)
    return {shape: found.float().numpy() for shape, found in sums.items()}


def the_file(desk: Desk) -> InspectedFile:
    (told,) = desk.of(JobInspected)
    return InspectedFile(Path(told.path))


# --- the definition -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seeds", "size", "guidance"),
    [([7], (64, 64), 4.0), ([7, 8], (64, 64), 4.0), ([7], (64, 64), 1.0), ([7, 8], (64, 96), 1.0), ([7], (72, 56), 4.0)],
)
def test_the_maps_are_those_of_the_definition(
    desk: Desk, plain_pipe: Any, seeds: list[int], size: tuple[int, int], guidance: float
) -> None:
    params = {"prompt": "red cat", "batch_size": len(seeds), "height": size[0], "width": size[1], "guidance_scale": guidance}
    desk.run(with_words(desk.submit(num_inference_steps=STEPS, **params)))
    expected = by_definition(plain_pipe, seeds, size, guidance)
    found = the_file(desk)
    facts = found.facts.words
    assert facts is not None and facts.resolutions == tuple(sorted(expected, reverse=True)) and len(expected) == 2
    assert facts.tokens == ("<|startoftext|>", "red</w>", "cat</w>", "<|endoftext|>")
    asked = STEPS + 1  # PNDM asks once more
    assert (facts.steps, facts.layers, facts.heads) == (asked, (3, 1), (4, 4))
    for (height, width), wanted in expected.items():
        maps = found.array(f"words/{height}x{width}")
        assert maps.dtype == np.float32 and maps.shape == wanted.shape == (len(seeds), TOKENS, height, width)
        np.testing.assert_allclose(maps, wanted, rtol=1e-4, atol=1e-6)
    everything = found.array("words/{}x{}".format(*facts.resolutions[0])).sum(axis=1)
    assert (everything < asked * facts.layers[0]).all(), "the padding gets some, too"


def test_the_maps_of_sdxl_are_those_of_the_definition(xl: LoadedModel, tmp_path: Path) -> None:
    desk = Desk(xl, tmp_path)
    desk.run(with_words(desk.submit(num_inference_steps=STEPS, prompt="red cat", batch_size=2)))
    xl.pipe.scheduler = type(xl.own_scheduler).from_config(xl.own_scheduler.config)
    expected = by_definition(xl.pipe, [7, 8], (64, 64), 4.0)
    found = the_file(desk)
    assert found.facts.words is not None and found.facts.words.layers == (8,) and found.facts.words.steps == STEPS
    np.testing.assert_allclose(found.array("words/4x4"), expected[4, 4], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("chunk", [1, 500, 1 << 19])
def test_sums_are_the_same_however_few_heads_are_taken_at_a_time(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(attention, "_CHUNK", chunk)
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 6, 12, generator=generator) * 3
    key = torch.randn(2, 5, 12, generator=generator) * 3
    mask = torch.randn(2, 4, 1, 5, generator=generator)
    sums = torch.ones(2, 6, 3)
    kept = query.clone(), key.clone()
    add_maps(sums, query, key, heads=4, scale=0.5, mask=mask)
    split = [tensor.view(2, -1, 4, 3).transpose(1, 2).double() for tensor in (query, key)]
    wanted = torch.softmax(split[0] @ split[1].transpose(-1, -2) * 0.5 + mask, -1).mean(1)[..., :3]
    torch.testing.assert_close(sums - 1, wanted.float(), rtol=1e-4, atol=1e-6)
    assert torch.equal(query, kept[0]) and torch.equal(key, kept[1])


def test_half_precision_is_summed_in_whole(model: LoadedModel) -> None:
    query, key = torch.full((1, 4, 8), 200.0, dtype=torch.float16), torch.full((1, 3, 8), 200.0, dtype=torch.float16)
    sums = torch.zeros(1, 4, 3)
    add_maps(sums, query, key, heads=1, scale=1.0)  # the scores are 320,000, more than float16 holds
    torch.testing.assert_close(sums, torch.full((1, 4, 3), 1 / 3))


def test_an_attention_mask_is_respected(model: LoadedModel) -> None:
    unet = model.pipe.unet
    text, open_to = torch.randn(1, 77, 32, generator=torch.Generator().manual_seed(0)), torch.ones(1, 77)
    open_to[:, 2:] = 0
    maps = AttentionMaps()
    with maps.attached(model.pipe), torch.no_grad():
        maps.begin(Extent(pictures=1, tokens=4, text_length=77, height=8, width=8))
        unet(torch.zeros(1, 4, 8, 8), 1, text, encoder_attention_mask=open_to)
        found = maps.take()
    assert found is not None
    np.testing.assert_allclose(found.maps[8, 8][0, :2].sum(axis=0), np.full((8, 8), 3.0), rtol=1e-5)
    assert found.maps[8, 8][0, 2:].max() < 1e-6


# --- nothing changes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("inspect", ["off", "modules"])
def test_the_picture_is_bit_identical(desk: Desk, latents: list[torch.Tensor], guidance: float, inspect: Any) -> None:
    params = {"scheduler": "euler_a", "batch_size": 2, "guidance_scale": guidance}
    plain = desk.run(desk.submit("plain", **params), record=False)
    seen = desk.run(with_words(desk.submit("seen", **params), inspect=inspect))
    assert torch.equal(latents[0], latents[1]) and same(plain, seen)
    assert the_file(desk).facts.words is not None


def test_the_shipped_model_gives_the_same_picture_and_its_maps(
    latents: list[torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    desk = Desk(load_model(ModelRequest("scenes-128")), tmp_path)
    params = {"prompt": "a red cat on a hill", "num_inference_steps": 2, "batch_size": 2}
    plain = desk.run(desk.submit("plain", **params), record=False)
    seen = desk.run(with_words(desk.submit("seen", **params), inspect="blocks"))
    assert torch.equal(latents[0], latents[1]) and same(plain, seen)
    facts = the_file(desk).facts
    assert facts.words is not None and facts.words.resolutions[0][0] > 4 and desk.of(JobInspected)[0].words == 6


def test_looking_at_the_words_is_no_part_of_the_modules_time(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from sdtui.protocol import ModulesRan

    clock = iter(range(1 << 30))  # every look at it is a second, and a map takes a thousand
    monkeypatch.setattr(attention.time, "perf_counter", lambda: next(clock))
    real = AttentionMaps._add

    def slow(*arguments: Any) -> None:
        real(*arguments)
        for _ in range(1000):
            next(clock)

    monkeypatch.setattr(AttentionMaps, "_add", slow)
    desk.run(with_words(desk.submit(num_inference_steps=1, scheduler="euler"), inspect="blocks"))
    told = next(event for event in desk.of(ModulesRan) if event.network == "unet")
    root = next(module for module in told.modules if not module.path)
    assert told.probing_s > 4000 > 1000 > root.elapsed_s


def test_modules_tell_the_same_with_the_maps_and_without(desk: Desk) -> None:
    from sdtui.protocol import ModulesRan

    def told() -> Counter[tuple[int | None, str, str, int]]:
        runs = desk.of(ModulesRan)
        return Counter((event.step_index, event.network, run.path, run.calls) for event in runs for run in event.modules)

    desk.run(msgspec.structs.replace(desk.submit("without"), inspect="modules"))
    without = told()
    desk.run(with_words(desk.submit("with"), inspect="modules"))
    assert told() == without


# --- hooks ----------------------------------------------------------------------------------------------------------


def test_nothing_is_left_on_the_modules_however_a_job_ends(desk: Desk) -> None:
    desk.run(with_words(desk.submit(), inspect="modules"))
    assert not wrapped(desk.model.pipe)
    assert isinstance(desk.run(with_words(desk.submit("j2")), stop="now", at=after_step(1)), Cancelled)
    assert not wrapped(desk.model.pipe)
    handle = desk.model.pipe.unet.mid_block.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(ValueError("broken")))
    with pytest.raises(ValueError, match="broken"):
        desk.run(with_words(desk.submit("j3")))
    handle.remove()
    assert not wrapped(desk.model.pipe)


def test_offloading_leaf_by_leaf_is_no_hindrance(model: LoadedModel) -> None:
    maps, unet = AttentionMaps(), model.pipe.unet
    text = torch.randn(1, 77, 32, generator=torch.Generator().manual_seed(0))
    found = []
    with maps.attached(model.pipe), torch.no_grad():
        for offloaded in (False, True):
            leaves = [part for _, one in cross_attentions(model.pipe) for part in (one.to_q, one.to_k)] if offloaded else []
            for leaf in leaves:
                add_hook_to_module(leaf, AlignDevicesHook(execution_device="cpu", offload=False))
            maps.begin(Extent(pictures=1, tokens=4, text_length=77, height=8, width=8))
            unet(torch.zeros(1, 4, 8, 8), 1, text)
            found.append(maps.take())
            for leaf in leaves:
                remove_hook_from_module(leaf)
    assert not wrapped(model.pipe) and found[0] is not None and found[1] is not None
    assert np.array_equal(found[0].maps[8, 8], found[1].maps[8, 8]) and found[0].maps[8, 8].max() > 0


def test_sliced_attention_has_the_same_maps(desk: Desk) -> None:
    desk.run(with_words(desk.submit("whole")))
    whole = the_file(desk).array("words/8x8")
    desk.model.pipe.enable_attention_slicing(1)
    try:
        desk.run(with_words(desk.submit("sliced")))
    finally:
        desk.model.pipe.disable_attention_slicing()
    np.testing.assert_allclose(the_file(desk).array("words/8x8"), whole, rtol=1e-4, atol=1e-6)


def test_attention_to_something_else_than_the_text_is_left_out(model: LoadedModel) -> None:
    maps = AttentionMaps()
    with maps.attached(model.pipe), torch.no_grad():
        maps.begin(Extent(pictures=1, tokens=4, text_length=77, height=8, width=8))
        model.pipe.unet(torch.zeros(1, 4, 8, 8), 1, torch.zeros(1, 12, 32))
        assert maps.take() is None
        maps.begin(Extent(pictures=1, tokens=4, text_length=77, height=8, width=8))
        model.pipe.unet(torch.zeros(3, 4, 8, 8), 1, torch.zeros(3, 77, 32))  # neither one answer a picture nor two
        assert maps.take() is None
        model.pipe.unet(torch.zeros(1, 4, 8, 8), 1, torch.zeros(1, 77, 32))
        assert maps.take() is None, "nobody began"


def test_a_network_of_another_kind_has_no_cross_attentions() -> None:
    assert cross_attentions(SimpleNamespace(transformer=torch.nn.Linear(1, 1))) == []
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1, cross_attention_dim=8,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"), attention_head_dim=4,
    )  # fmt: skip
    assert [name for name, _ in cross_attentions(SimpleNamespace(unet=unet))] == [
        "mid_block.attentions.0.transformer_blocks.0.attn2"
    ]
