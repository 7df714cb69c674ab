"""A run without numbers has the shapes of a real one, and the figures that are known of Stable Diffusion."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import nn
from torch.utils._pytree import tree_leaves

from sdtui.params import SHIPPED_MODEL
from sdtui.protocol import DryModule, DryRunDone, DryStage, RunDry, encode
from sdtui.worker.inspector.build import build
from sdtui.worker.inspector.dry_run import run_dry
from sdtui.worker.inspector.live import Allocations
from sdtui.worker.inspector.opened import open_model
from sdtui.worker.inspector.problem import InspectionProblem

from .models import sd14, write_folder

CLIP_TINY = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 77, "projection_dim": 32,
}  # fmt: skip
T5_TINY = {"vocab_size": 32, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4}
VAE_TINY = {
    "block_out_channels": [8, 8, 16, 16], "norm_num_groups": 8, "layers_per_block": 1, "latent_channels": 4,
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
}  # fmt: skip


def dry(model: Path | str, **options: Any) -> DryRunDone:
    return run_dry(open_model(str(model)), RunDry(request=1, model=str(model), **options))


def stage(run: DryRunDone, name: str) -> DryStage:
    return next(stage for stage in run.stages if stage.component == name)


def at(stage: DryStage, path: str) -> DryModule:
    return next(module for module in stage.modules if module.path == path)


# --- the figures of SD 1.4 ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sd14(tmp_path_factory.mktemp("sd14"))


@pytest.fixture(scope="module")
def guided(sd: Path) -> DryRunDone:
    """One step at 512x512 with guidance, in half precision."""
    return dry(sd)


def test_a_step_has_the_multiply_adds_that_are_known_of_it(sd: Path, guided: DryRunDone) -> None:
    assert (guided.width_px, guided.height_px, guided.dtype, guided.skipped) == (512, 512, "float16", ())
    assert [stage.component for stage in guided.stages] == ["text_encoder", "unet", "vae"]
    unet, alone = stage(guided, "unet"), stage(dry(sd, guidance=False), "unet")
    assert (unet.parameters, unet.batch_size, alone.batch_size) == (859_520_964, 2, 1)
    assert alone.macs == 401_636_720_640
    assert unet.macs == 2 * alone.macs
    assert round(unet.macs / 1e9, 1) == 803.3
    assert round(stage(guided, "vae").macs / 1e9) == 1257
    assert round(stage(guided, "text_encoder").macs / 1e9, 1) == 13.3


def test_its_blocks_share_them_as_is_known(guided: DryRunDone) -> None:
    unet = stage(guided, "unet")
    known = {
        "down_blocks.0": 109.6, "down_blocks.1": 68.4, "down_blocks.2": 63.8, "down_blocks.3": 7.6, "mid_block": 12.1,
        "up_blocks.0": 25.8, "up_blocks.1": 151.5, "up_blocks.2": 166.8, "up_blocks.3": 197.6,
    }  # fmt: skip
    assert {path: round(at(unet, path).macs / 1e9, 1) for path in known} == known
    assert at(unet, "").macs == unet.macs
    top = [module for module in unet.modules if module.path and "." not in module.path]
    blocks = sum(at(unet, path).macs for path in known)
    assert blocks + sum(module.macs for module in top if module.path != "mid_block") == unet.macs, "nothing is counted twice"


def test_a_convolution_has_the_multiply_adds_of_its_formula(guided: DryRunDone) -> None:
    unet = stage(guided, "unet")
    first = at(unet, "conv_in")
    assert first.inputs[0].shape == (2, 4, 64, 64) and first.outputs[0].shape == (2, 320, 64, 64)
    assert first.macs == 2 * 64 * 64 * 320 * 4 * 3 * 3
    assert first.output_bytes == 2 * 320 * 64 * 64 * 2
    attention = at(unet, "down_blocks.0.attentions.0.transformer_blocks.0.attn1")
    scores, projections = 2 * 2 * 4096 * 4096 * 320, 4 * 2 * 4096 * 320 * 320
    assert attention.macs == scores + projections


def test_weights_and_peak_are_those_of_the_dtype(sd: Path, guided: DryRunDone) -> None:
    parameters = sum(stage.parameters for stage in guided.stages)
    assert parameters == 859_520_964 + 83_653_863 + 123_060_480
    assert guided.weight_bytes == pytest.approx(2 * parameters, rel=1e-5)
    assert guided.peak_bytes == guided.weight_bytes + stage(guided, "vae").peak_bytes, "decoding holds the most"
    full = dry(sd, dtype="float32")
    assert full.weight_bytes == pytest.approx(2 * guided.weight_bytes, rel=1e-5)
    for before, after in zip(guided.stages, full.stages, strict=True):
        assert after.peak_bytes == pytest.approx(2 * before.peak_bytes, rel=0.05)
        assert after.macs == before.macs


def test_attention_keeps_no_scores(sd: Path) -> None:
    large = stage(dry(sd, width_px=1024, height_px=1024, guidance=False), "unet")
    scores = 8 * 16_384 * 16_384 * 2
    assert large.peak_bytes < scores, "the scores of one layer would be four gigabytes"
    assert round(2 * large.macs / 1e9) == 4674


def test_more_pictures_cost_in_proportion(sd: Path, guided: DryRunDone) -> None:
    four = dry(sd, batch_size=4)
    assert stage(four, "unet").macs == 4 * stage(guided, "unet").macs
    assert stage(four, "vae").macs == 4 * stage(guided, "vae").macs
    assert stage(four, "text_encoder").macs == stage(guided, "text_encoder").macs, "they share a prompt"
    assert four.weight_bytes == guided.weight_bytes


# --- against a real run ---------------------------------------------------------------------------------------------


@contextmanager
def shapes_of(network: nn.Module) -> Iterator[dict[str, tuple[Any, Any]]]:
    """The shapes of every module's inputs and of its output, in a real run."""
    seen: dict[str, tuple[Any, Any]] = {}

    def hook(path: str) -> Any:
        def note(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            values = tree_leaves([*args, *kwargs.values()])
            inputs = [tuple(value.shape) for value in values if isinstance(value, torch.Tensor)]
            seen.setdefault(path, (inputs, tuple(output.shape) if isinstance(output, torch.Tensor) else None))

        return note

    handles = [module.register_forward_hook(hook(path), with_kwargs=True) for path, module in network.named_modules()]
    yield seen
    for handle in handles:
        handle.remove()


def test_shapes_are_those_of_a_real_job(tiny_dir: Path, plain_pipe: StableDiffusionPipeline) -> None:
    run = dry(tiny_dir, width_px=64, height_px=128, batch_size=2, dtype="float32")
    with shapes_of(plain_pipe.unet) as unet, shapes_of(plain_pipe.vae) as vae, torch.no_grad():
        plain_pipe("a cat", width=64, height=128, num_images_per_prompt=2, num_inference_steps=1, guidance_scale=4.0)
    for name, real in (("unet", unet), ("vae", vae)):
        modules = {module.path: module for module in stage(run, name).modules}
        assert modules.keys() == real.keys()
        for path, (inputs, output) in real.items():
            assert [fact.shape for fact in modules[path].inputs] == inputs, path
            if output is not None:
                assert [fact.shape for fact in modules[path].outputs] == [output], path


def test_the_peak_is_that_of_a_real_forward(tiny_dir: Path, plain_pipe: StableDiffusionPipeline) -> None:
    told = stage(dry(tiny_dir, width_px=512, height_px=512, dtype="float32", guidance=False), "vae")
    vae = plain_pipe.vae
    real = Allocations([*vae.parameters(), *vae.buffers()])
    with torch.no_grad(), real:
        vae.decode(torch.zeros(1, 4, 64, 64))
    assert told.peak_bytes == pytest.approx(real.peak_bytes, rel=0.05)
    assert real.live_bytes < real.peak_bytes / 3, "what is freed is noticed"


def test_the_shipped_model_runs_at_its_own_size() -> None:
    run = dry(SHIPPED_MODEL)
    assert (run.width_px, run.height_px) == (128, 128)
    assert stage(run, "unet").modules[0].outputs[0].shape == (2, 4, 16, 16)
    assert len(encode(run)) < 1_000_000


# --- other families -------------------------------------------------------------------------------------------------


def test_sdxl_gets_pooled_text_and_sizes(tmp_path: Path) -> None:
    unet = {
        "sample_size": 8, "block_out_channels": [32, 64], "layers_per_block": 1, "norm_num_groups": 8,
        "cross_attention_dim": 64, "attention_head_dim": [2, 4], "transformer_layers_per_block": [1, 2],
        "addition_embed_type": "text_time", "addition_time_embed_dim": 8, "use_linear_projection": True,
        "projection_class_embeddings_input_dim": 6 * 8 + 32, "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    }  # fmt: skip
    parts = {
        "text_encoder": ("transformers", "CLIPTextModel", CLIP_TINY),
        "text_encoder_2": ("transformers", "CLIPTextModelWithProjection", CLIP_TINY),
        "unet": ("diffusers", "UNet2DConditionModel", unet),
        "vae": ("diffusers", "AutoencoderKL", VAE_TINY),
    }
    run = dry(write_folder(tmp_path / "xl", parts, "StableDiffusionXLPipeline"))
    assert run.skipped == () and [stage.component for stage in run.stages] == [*parts]
    inputs = {fact.name: fact.shape for fact in stage(run, "unet").modules[0].inputs}
    assert inputs["added_cond_kwargs.text_embeds"] == (2, 32) and inputs["added_cond_kwargs.time_ids"] == (2, 6)
    assert inputs["encoder_hidden_states"] == (2, 77, 64)


def test_sd3_joins_the_tokens_of_three_encoders(tmp_path: Path) -> None:
    transformer = {
        "sample_size": 16, "patch_size": 2, "in_channels": 4, "num_layers": 1, "attention_head_dim": 8,
        "num_attention_heads": 4, "joint_attention_dim": 32, "caption_projection_dim": 32, "pooled_projection_dim": 64,
        "out_channels": 4, "pos_embed_max_size": 16,
    }  # fmt: skip
    parts = {
        "text_encoder": ("transformers", "CLIPTextModelWithProjection", CLIP_TINY),
        "text_encoder_3": ("transformers", "T5EncoderModel", T5_TINY),
        "transformer": ("diffusers", "SD3Transformer2DModel", transformer),
        "vae": ("diffusers", "AutoencoderKL", VAE_TINY),
    }
    run = dry(write_folder(tmp_path / "sd3", parts, "StableDiffusion3Pipeline"))
    assert run.skipped == () and [stage.component for stage in run.stages] == [*parts]
    assert stage(run, "text_encoder_3").modules[0].inputs[0].shape == (2, 256)
    assert stage(run, "transformer").modules[0].outputs[0].shape == (2, 4, 16, 16)
    t5 = stage(run, "text_encoder_3")
    assert t5.weight_bytes == 2 * t5.parameters + 2 * 64 * 32, "one matrix of T5 stays in float32"


def test_flux_is_told_the_guidance_and_runs_once(tmp_path: Path) -> None:
    transformer = {
        "patch_size": 1, "in_channels": 16, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16,
        "num_attention_heads": 2, "joint_attention_dim": 32, "pooled_projection_dim": 32, "axes_dims_rope": [4, 4, 8],
        "guidance_embeds": True,
    }  # fmt: skip
    parts = {
        "text_encoder": ("transformers", "CLIPTextModel", CLIP_TINY),
        "text_encoder_2": ("transformers", "T5EncoderModel", T5_TINY),
        "transformer": ("diffusers", "FluxTransformer2DModel", transformer),
        "vae": ("diffusers", "AutoencoderKL", VAE_TINY),
    }
    run = dry(write_folder(tmp_path / "flux", parts, "FluxPipeline"), width_px=128, height_px=64, batch_size=3)
    assert run.skipped == () and [stage.component for stage in run.stages] == [*parts]
    assert stage(run, "text_encoder_2").modules[0].inputs[0].shape == (1, 512)
    assert stage(run, "transformer").modules[0].outputs[0].shape == (3, 8 * 4, 16)


# --- what cannot be run ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"width_px": 500}, "width must be a multiple of 8 up to 16,384 pixels, not 500"),
        ({"height_px": -8}, "height must be"),
        ({"width_px": 2**40}, "width must be"),
        ({"batch_size": 0}, "batch must be from 1 to 1,024, not 0"),
        ({"batch_size": 10**9}, "batch must be"),
    ],
)
def test_odd_sizes_are_refused_by_name(tiny_dir: Path, options: dict[str, int], says: str) -> None:
    with pytest.raises(InspectionProblem, match=says):
        dry(tiny_dir, **options)


def test_a_stage_that_cannot_be_run_is_left_out_and_said(tmp_path: Path) -> None:
    folder = sd14(tmp_path / "odd", unet={"class_embed_type": "timestep"}, vae={"block_out_channels": [1, 2]})
    run = dry(folder, width_px=64, height_px=64)
    assert [stage.component for stage in run.stages] == ["text_encoder"]
    assert [reason.partition(":")[0] for reason in run.skipped] == ["vae", "unet"]
    assert "class embeddings" in run.skipped[1]


def test_a_model_of_which_nothing_can_be_run_is_an_error(tmp_path: Path) -> None:
    parts = {"transformer": ("diffusers", "PixArtTransformer2DModel", {"num_layers": 1, "sample_size": 8})}
    with pytest.raises(InspectionProblem, match="What a PixArtTransformer2DModel takes is not known here"):
        dry(write_folder(tmp_path / "pixart", parts, "PixArtAlphaPipeline"))


def test_no_number_is_computed(sd: Path) -> None:
    """859 million parameters on the meta device take no memory, whatever the dtype."""
    network = build(*_unet(sd))
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}


def _unet(folder: Path) -> tuple[Any, Any]:
    import json

    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel, json.loads((folder / "unet" / "config.json").read_text())
