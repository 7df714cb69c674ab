"""LoRA files of each way of writing, on models of both layouts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from sdtui.anatomy.files import read_tensors
from sdtui.anatomy.lora import Lora, read_lora
from sdtui.anatomy.lora_fit import change_norms, fit
from sdtui.anatomy.lora_names import dotted, flat
from sdtui.anatomy.read import open_anatomy
from sdtui.anatomy.structs import Anatomy
from sdtui.anatomy.tree import ModuleTree
from sdtui.bench.layouts import sd1, unet, write_sparse

BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0"
TO_K = f"{BLOCK}.attn2.to_k"
ORIGINAL_TO_K = "input_blocks.4.1.transformer_blocks.0.attn2.to_k"
Arrays = dict[str, np.ndarray]


def factors(down: str, up: str, *, rank: int = 4, inputs: int = 768, outputs: int = 64, seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    return {
        down: rng.standard_normal((rank, inputs)).astype(np.float16),
        up: rng.standard_normal((outputs, rank)).astype(np.float16),
    }


def kohya(path: str, prefix: str = "lora_unet_", alpha: float | None = 2.0, **figures: int) -> Arrays:
    name = prefix + flat(path)
    more = {} if alpha is None else {f"{name}.alpha": np.array(alpha, np.float16)}
    return factors(f"{name}.lora_down.weight", f"{name}.lora_up.weight", **figures) | more


def lora_file(tmp_path: Path, arrays: Mapping[str, np.ndarray]) -> tuple[Path, Lora]:
    path = tmp_path / "lora.safetensors"
    save_file(dict(arrays), path)
    return path, read_lora(read_tensors(path))


WAYS: dict[str, tuple[Arrays, str]] = {
    "kohya": (kohya(TO_K), "kohya"),
    "peft": (factors(f"unet.{TO_K}.lora_A.weight", f"unet.{TO_K}.lora_B.weight"), "peft"),
    "peft with an adapter": (factors(f"unet.{TO_K}.lora_A.default.weight", f"unet.{TO_K}.lora_B.default.weight"), "peft"),
    "peft's own": (factors(f"base_model.model.{TO_K}.lora_A.weight", f"base_model.model.{TO_K}.lora_B.weight"), "peft"),
    "old diffusers": (
        factors(f"unet.{BLOCK}.attn2.processor.to_k_lora.down.weight", f"unet.{BLOCK}.attn2.processor.to_k_lora.up.weight"),
        "diffusers",
    ),
    "older diffusers": (
        factors(f"{BLOCK}.attn2.processor.to_k_lora.down.weight", f"{BLOCK}.attn2.processor.to_k_lora.up.weight"),
        "diffusers",
    ),
    "diffusers": (factors(f"unet.{TO_K}.lora.down.weight", f"unet.{TO_K}.lora.up.weight"), "diffusers"),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_of_writing_names_the_module(tmp_path: Path, way: str) -> None:
    arrays, style = WAYS[way]
    _, lora = lora_file(tmp_path, arrays)
    (pair,) = lora.pairs
    assert (pair.component, pair.path, pair.rank, pair.inputs, pair.kind) == ("unet", TO_K, 4, 768, "LoRA")
    assert pair.alpha == (2.0 if way == "kohya" else None) and pair.scale == (0.5 if way == "kohya" else 1.0)
    assert lora.format == style and lora.unknown == ()
    assert (lora.family.name, lora.family.sure) == ("SD 1.x", 0.95)


def test_the_file_is_shown_as_trees_with_rank_and_alpha(tmp_path: Path) -> None:
    text = "text_model.encoder.layers.0.self_attn.q_proj"
    path, _ = lora_file(tmp_path, kohya(TO_K) | kohya(text, "lora_te_", alpha=8) | {"strange": np.zeros(3)})
    anatomy = open_anatomy(path)
    assert anatomy.kind == "lora" and [component.name for component in anatomy.components] == ["unet", "text_encoder", "other"]
    for component, where, alpha in zip(anatomy.components, (TO_K, text), ("2", "8"), strict=False):
        module = ModuleTree(component).module(where)
        assert module and module.settings == {"change": "LoRA", "rank": "4", "alpha": alpha}
        assert module.total_parameters == 4 * 768 + 64 * 4, "alpha is no parameter"
    assert "1 key in no change" in anatomy.components[2].problems[0]


@pytest.mark.parametrize(
    ("arrays", "family"),
    [
        (kohya(TO_K, inputs=1024), "SD 2.x"),
        (kohya(TO_K, inputs=2048), "SDXL"),
        (kohya("text_model.encoder.layers.0.mlp.fc1", "lora_te2_"), "SDXL"),
        (kohya("double_blocks_0_img_attn_qkv") | kohya("single_blocks_0_linear1"), "Flux"),
        (kohya(f"{BLOCK}.attn1.to_q"), "unknown"),
    ],
)
def test_the_base_model_is_guessed_from_what_is_changed(tmp_path: Path, arrays: Arrays, family: str) -> None:
    assert lora_file(tmp_path, arrays)[1].family.name == family


def test_other_kinds_of_change_are_named_and_a_lost_half_is_a_problem(tmp_path: Path) -> None:
    half = kohya(f"{BLOCK}.attn1.to_v")
    del half[f"lora_unet_{flat(BLOCK)}_attn1_to_v.lora_up.weight"]
    loha = {f"lora_unet_{flat(BLOCK)}_attn1_to_q.hada_w{n}_{c}": np.ones((2, 2)) for n in (1, 2) for c in "ab"}
    lokr = {f"lora_unet_{flat(BLOCK)}_attn1_to_k.lokr_w{n}": np.ones((2, 2)) for n in (1, 2)}
    dora = kohya(TO_K) | {f"lora_unet_{flat(TO_K)}.dora_scale": np.ones((64, 1))}
    path, lora = lora_file(tmp_path, half | loha | lokr | dora)
    kinds = {pair.path.rpartition(".")[2] if "attn1" in pair.path else "dora": pair.kind for pair in lora.pairs}
    assert kinds == {"to_v": "half a pair", "to_q": "LoHa", "to_k": "LoKr", "dora": "DoRA"}
    module = ModuleTree(open_anatomy(path).components[0]).module(f"{BLOCK}.attn1.to_v")
    assert module and module.problems == ("up factor is missing",)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_norm_is_that_of_the_change_itself(tmp_path: Path, dtype: type) -> None:
    rng = np.random.default_rng(1)
    down, up = rng.standard_normal((4, 6, 3, 3)).astype(dtype), rng.standard_normal((8, 4, 1, 1)).astype(dtype)
    name = "lora_unet_down_blocks_0_resnets_0_conv1"
    arrays = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": np.array(1.0, dtype)}
    path, lora = lora_file(tmp_path, arrays)
    ((pair, norm),) = change_norms(lora, read_tensors(path))
    change = up.reshape(8, 4).astype(np.float64) @ down.reshape(4, -1).astype(np.float64) * 1 / 4
    assert pair.path == "down_blocks.0.resnets.0.conv1"
    assert norm == pytest.approx(np.linalg.norm(change), rel=1e-9)


def test_bfloat16_is_read_without_torch(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file as save_torch

    name = f"lora_unet_{flat(TO_K)}"
    down, up = torch.randn(4, 6).bfloat16(), torch.randn(5, 4).bfloat16()
    alpha = torch.tensor(3.0).bfloat16()
    save_torch(
        {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": alpha}, tmp_path / "x.safetensors"
    )
    tensors = read_tensors(tmp_path / "x.safetensors")
    lora = read_lora(tensors)
    ((pair, norm),) = change_norms(lora, tensors)
    assert pair.alpha == 3.0
    assert norm == pytest.approx((up.double() @ down.double()).norm().item() * 3 / 4, rel=1e-9)


@pytest.fixture(scope="module")
def first_layout(tmp_path_factory: pytest.TempPathFactory) -> Anatomy:
    """A checkpoint as it was first released."""
    path = tmp_path_factory.mktemp("base") / "sd1.safetensors"
    return open_anatomy(write_sparse(path, sd1(channels=32, vae_channels=32, words=100)))


def test_a_lora_with_diffusers_names_fits_a_model_in_the_first_layout(tmp_path: Path, first_layout: Anatomy) -> None:
    text = "text_model.encoder.layers.0.self_attn.q_proj"
    extra = {
        f"lora_unet_down_blocks_9_nothing.{part}": array for part, array in factors("lora_down.weight", "lora_up.weight").items()
    }
    _, lora = lora_file(tmp_path, kohya(TO_K) | kohya(text, "lora_te_") | extra | kohya(f"{BLOCK}.attn1.to_q", inputs=99))
    found = fit(lora, first_layout)
    assert set(found.at("unet")) == {ORIGINAL_TO_K, ORIGINAL_TO_K.replace("attn2.to_k", "attn1.to_q")}
    assert set(found.at("text_encoder")) == {text}
    assert [pair.path for pair in found.nowhere] == ["down_blocks.9.nothing"]
    problems = {path: placed.problem for path, placed in found.at("unet").items()}
    assert (
        problems[ORIGINAL_TO_K] == "" and "takes 99 inputs, and the module has 64" in problems[ORIGINAL_TO_K[:-10] + "attn1.to_q"]
    )


def test_a_lora_in_the_first_layout_fits_a_folder_of_diffusers(tmp_path: Path) -> None:
    original = "input_blocks_1_1_transformer_blocks_0_attn2_to_k"
    arrays = kohya(original, inputs=128) | kohya("text_model_encoder_layers_0_mlp_fc1", "lora_te_", inputs=128)
    _, lora = lora_file(tmp_path, arrays)
    found = fit(lora, open_anatomy("scenes-128"))
    assert set(found.at("unet")) == {"down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"}
    assert set(found.at("text_encoder")) == {"encoder.layers.0.mlp.fc1"}, "saved without `text_model.` since transformers 5.6"


def test_the_words_of_kohyas_names_are_found_again() -> None:
    paths = {name.rpartition(".")[0] for name in unet(32)} | {TO_K, "mid_block.attentions.0.proj_in", "time_embedding.linear_1"}
    assert [path for path in sorted(paths) if dotted(flat(path)) != path] == []
