"""What each network takes in a pipeline: inputs of the right shapes, without numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import torch
from torch import nn

from sdtui.worker.inspector.problem import InspectionProblem

_T5_TOKENS: Final = {"SD3Transformer2DModel": 256, "FluxTransformer2DModel": 512}
"""How long the pipelines make the prompt for T5."""
_CLIP_TOKENS: Final = 77
_TIME_IDS: Final = 6
"""SDXL is told size, crop and target size, two figures each."""


class Plan(NamedTuple):
    """What a run is asked to be."""

    width_px: int
    height_px: int
    batch_size: int
    guidance: bool
    dtype: torch.dtype
    factor: int
    """Pixels of a latent's side."""
    networks: Mapping[str, nn.Module]


class Feed(NamedTuple):
    """One forward, ready to be called, and the batch that it takes."""

    batch_size: int
    run: Callable[[], Any]


def feed(name: str, plan: Plan) -> Feed:
    """The forward of a component. Raises `InspectionProblem` for a class whose inputs are not known here."""
    network: Any = plan.networks[name]
    kind = type(network).__name__
    if name.startswith("text_encoder"):
        return _text_encoder(network, kind, plan)
    if name == "vae":
        return _decoder(network, kind, plan)
    make = {"UNet2DConditionModel": _unet, "SD3Transformer2DModel": _sd3, "FluxTransformer2DModel": _flux}.get(kind)
    if make is None:
        raise InspectionProblem(f"What a {kind} takes is not known here.")
    return make(network, plan)


def _text_encoder(network: Any, kind: str, plan: Plan) -> Feed:
    """Prompt and negative prompt; pictures of one prompt share its embeddings."""
    config = network.config
    tokens = getattr(config, "max_position_embeddings", 0)
    if kind == "T5EncoderModel":
        tokens = next((_T5_TOKENS[type(other).__name__] for other in _denoisers(plan)), _T5_TOKENS["FluxTransformer2DModel"])
    if not tokens:
        raise InspectionProblem(f"What a {kind} takes is not known here.")
    batch = 2 if _is_guided(plan) else 1
    return Feed(batch, lambda: network(torch.zeros(batch, tokens, dtype=torch.long, device="meta"), return_dict=True))


def _denoisers(plan: Plan) -> list[nn.Module]:
    return [network for network in plan.networks.values() if type(network).__name__ in _T5_TOKENS]


def _is_guided(plan: Plan) -> bool:
    """Flux is told the guidance as a number, and has no negative prompt."""
    return plan.guidance and not any(type(network).__name__ == "FluxTransformer2DModel" for network in plan.networks.values())


def _decoder(network: Any, kind: str, plan: Plan) -> Feed:
    if not hasattr(network, "decode"):
        raise InspectionProblem(f"A {kind} does not decode pictures.")
    channels = int(network.config.get("latent_channels") or 4)
    return Feed(plan.batch_size, lambda: network.decode(_zeros(plan, plan.batch_size, channels, *_latent(plan))))


def _latent(plan: Plan) -> tuple[int, int]:
    return plan.height_px // plan.factor, plan.width_px // plan.factor


def _zeros(plan: Plan, *shape: int) -> torch.Tensor:
    return torch.zeros(*shape, dtype=plan.dtype, device="meta")


def _unet(network: Any, plan: Plan) -> Feed:
    """Latents (B, C, h, w), timestep, text (B, tokens, width), and what SDXL and others add."""
    config, batch = network.config, plan.batch_size * (2 if plan.guidance else 1)
    context = config.encoder_hid_dim or config.cross_attention_dim
    width = context if isinstance(context, int) else context[0]
    extra: dict[str, Any] = {}
    if config.addition_embed_type == "text_time":
        extra["added_cond_kwargs"] = lambda: _text_and_time(config, plan, batch)
    elif config.addition_embed_type is not None:
        raise InspectionProblem(f"What a U-Net with {config.addition_embed_type!r} embeddings takes is not known here.")
    if config.class_embed_type is not None or config.num_class_embeds is not None:
        raise InspectionProblem("What a U-Net with class embeddings takes is not known here.")
    if config.time_cond_proj_dim is not None:
        extra["timestep_cond"] = lambda: _zeros(plan, batch, config.time_cond_proj_dim)

    def run() -> Any:
        sample = _zeros(plan, batch, config.in_channels, *_latent(plan))
        text = _zeros(plan, batch, _tokens(plan), width)
        return network(sample, _time(), text, **{name: make() for name, make in extra.items()})

    return Feed(batch, run)


def _time(batch: int = 0) -> torch.Tensor:
    return torch.zeros((batch,) if batch else (), device="meta")


def _tokens(plan: Plan) -> int:
    found = plan.networks.get("text_encoder") or plan.networks.get("text_encoder_2")
    return int(getattr(getattr(found, "config", None), "max_position_embeddings", _CLIP_TOKENS))


def _text_and_time(config: Any, plan: Plan, batch: int) -> dict[str, torch.Tensor]:
    """The pooled text's width is what the embedding takes besides the time ids; the refiner has one id less."""
    projected = getattr(getattr(plan.networks.get("text_encoder_2"), "config", None), "projection_dim", None)
    takes, each = int(config.projection_class_embeddings_input_dim), int(config.addition_time_embed_dim)
    ids = (takes - projected) // each if isinstance(projected, int) else _TIME_IDS
    return {"text_embeds": _zeros(plan, batch, takes - ids * each), "time_ids": _zeros(plan, batch, ids)}


def _sd3(network: Any, plan: Plan) -> Feed:
    """Latents (B, C, h, w), both CLIPs' tokens followed by T5's, their pooled text, timestep."""
    config, batch = network.config, plan.batch_size * (2 if plan.guidance else 1)
    tokens = _CLIP_TOKENS + _T5_TOKENS["SD3Transformer2DModel"]  # without T5 the pipeline fills up with zeros
    return Feed(
        batch,
        lambda: network(
            hidden_states=_zeros(plan, batch, config.in_channels, *_latent(plan)),
            encoder_hidden_states=_zeros(plan, batch, tokens, config.joint_attention_dim),
            pooled_projections=_zeros(plan, batch, config.pooled_projection_dim),
            timestep=_time(batch),
        ),
    )


def _flux(network: Any, plan: Plan) -> Feed:
    """Patches of 2x2 latents as tokens (B, h/2 * w/2, 4C), T5's tokens, pooled text, timestep, places, and the guidance."""
    config, batch = network.config, plan.batch_size
    height, width = _latent(plan)
    patches, tokens = (height // 2) * (width // 2), _T5_TOKENS["FluxTransformer2DModel"]
    return Feed(
        batch,
        lambda: network(
            hidden_states=_zeros(plan, batch, patches, config.in_channels),
            encoder_hidden_states=_zeros(plan, batch, tokens, config.joint_attention_dim),
            pooled_projections=_zeros(plan, batch, config.pooled_projection_dim),
            timestep=_zeros(plan, batch),
            img_ids=_zeros(plan, patches, 3),
            txt_ids=_zeros(plan, tokens, 3),
            guidance=_zeros(plan, batch) if config.guidance_embeds else None,
        ),
    )
