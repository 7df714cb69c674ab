"""One forward of each network without weights and without numbers: shapes, multiply-adds, and the memory it would take."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sdtui.anatomy.structs import Anatomy
from sdtui.params import BY_FIELD
from sdtui.protocol import DryRunDone, DryStage, RunDry
from sdtui.worker.errors import one_line
from sdtui.worker.inspector.feeds import Plan, feed
from sdtui.worker.inspector.fused import FusedAttention
from sdtui.worker.inspector.live import Allocations
from sdtui.worker.inspector.opened import open_component
from sdtui.worker.inspector.problem import InspectionProblem
from sdtui.worker.inspector.traffic import Traffic

_STAGES: Final = ("text_encoder", "text_encoder_2", "text_encoder_3", "unet", "transformer", "vae")
"""In the order in which a job runs them."""
_DENOISERS: Final = ("unet", "transformer")
_FLOPS_A_MAC: Final = 2
_SD_FACTOR: Final = 8
_LARGEST_PX: Final = 16_384
_LARGEST_BATCH: Final = 1_024
HOW: Final = (
    "All weights in this dtype, and of the stages the one with the most activations alive at once, operation by operation "
    "with fused attention; without what the device's context, its allocator and its convolutions take besides."
)


def run_dry(anatomy: Anatomy, request: RunDry) -> DryRunDone:
    """Run every stage that the model has. Raises `InspectionProblem`; a stage that cannot be run is in `skipped`."""
    networks, skipped = _networks(anatomy)
    plan = _plan(request, networks)
    stages: list[DryStage] = []
    for name in networks:
        try:
            stages.append(_stage(name, plan))
        except InspectionProblem as error:
            skipped.append(f"{name}: {error}")
    if not stages:
        raise InspectionProblem(" ".join(skipped) or "The model has neither text encoder, denoiser nor VAE.")
    weight_bytes = sum(stage.weight_bytes for stage in stages)
    return DryRunDone(
        request=request.request,
        width_px=plan.width_px,
        height_px=plan.height_px,
        batch_size=plan.batch_size,
        guidance=plan.guidance,
        dtype=request.dtype,
        stages=tuple(stages),
        weight_bytes=weight_bytes,
        peak_bytes=weight_bytes + max(stage.peak_bytes for stage in stages),
        how=HOW,
        skipped=tuple(skipped),
    )


def _networks(anatomy: Anatomy) -> tuple[dict[str, nn.Module], list[str]]:
    """The networks of the stages, in order, and why others are not there."""
    found: dict[str, nn.Module] = {}
    skipped = []
    for name in _STAGES:
        if anatomy.component(name) is None:
            continue
        opened = open_component(anatomy, name)
        if opened.network is None:
            skipped.append(f"{name}: {opened.why}")
        else:
            found[name] = opened.network
    return found, skipped


def _plan(request: RunDry, networks: Mapping[str, nn.Module]) -> Plan:
    """The run with its sizes; those that were left open are the model's own. Raises `InspectionProblem`."""
    factor = _factor(networks.get("vae"))
    own_height, own_width = _own_size(networks, factor)
    width, height = request.width_px or own_width, request.height_px or own_height
    multiple = _multiple(networks, factor)
    for name, size in (("width", width), ("height", height)):
        if not multiple <= size <= _LARGEST_PX or size % multiple:
            raise InspectionProblem(f"The {name} must be a multiple of {multiple} up to {_LARGEST_PX:,} pixels, not {size:,}.")
    if not 1 <= request.batch_size <= _LARGEST_BATCH:
        raise InspectionProblem(f"The batch must be from 1 to {_LARGEST_BATCH:,}, not {request.batch_size:,}.")
    dtype = getattr(torch, request.dtype)
    for network in networks.values():
        _convert(network, dtype)
    return Plan(width, height, request.batch_size, request.guidance, dtype, factor, networks)


def _convert(network: Any, dtype: torch.dtype) -> None:
    """To a dtype, as loading does: transformers keeps in float32 what float16 is too narrow for, as T5's `wo`."""
    kept = set(getattr(network, "_keep_in_fp32_modules_strict", None) or ())
    if dtype == torch.float16 or type(network).__module__.startswith("diffusers."):
        kept |= set(getattr(network, "_keep_in_fp32_modules", None) or ())
    nn.Module.to(network, dtype)  # that of diffusers warns, even where nothing is kept
    for path, module in network.named_modules():
        if kept.intersection(path.split(".")):
            nn.Module.to(module, torch.float32)


def _factor(vae: Any) -> int:
    levels = vae.config.get("block_out_channels") if vae is not None else None
    return int(2 ** (len(levels) - 1)) if levels else _SD_FACTOR


def _own_size(networks: Mapping[str, Any], factor: int) -> tuple[int, int]:
    """Height and width that the denoiser, or else the VAE, was made for; Flux says none and is at home at a megapixel."""
    largest = int(BY_FIELD["width"].spec.maximum or 4096)
    for name in _DENOISERS:
        if name in networks:
            size = networks[name].config.get("sample_size") or 128
            height, width = size if isinstance(size, tuple | list) else (size, size)
            return min(int(height) * factor, largest), min(int(width) * factor, largest)
    vae = networks.get("vae")
    side = int(vae.config.get("sample_size") or 512) if vae is not None else 512
    return side, side


def _multiple(networks: Mapping[str, Any], factor: int) -> int:
    transformer = networks.get("transformer")
    if transformer is None:
        return math.lcm(_SD_FACTOR, factor)
    packed = 2 if type(transformer).__name__.startswith("Flux") else int(transformer.config.get("patch_size") or 1)
    return factor * packed


def _stage(name: str, plan: Plan) -> DryStage:
    network = plan.networks[name]
    forward = feed(name, plan)
    counter = FlopCounterMode(display=False)
    traffic = Traffic(network, lambda: counter.get_total_flops() // _FLOPS_A_MAC)
    tensors = [*network.parameters(), *network.buffers()]
    allocations = Allocations(tensors)
    try:
        with torch.no_grad(), traffic.watched(), counter, allocations, FusedAttention():
            forward.run()
    except Exception as error:
        raise InspectionProblem(f"its forward cannot be followed: {one_line(error)}") from error
    return DryStage(
        component=name,
        class_name=type(network).__name__,
        batch_size=forward.batch_size,
        macs=counter.get_total_flops() // _FLOPS_A_MAC,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        weight_bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        activation_bytes=allocations.made_bytes,
        peak_bytes=allocations.peak_bytes,
        modules=traffic.modules(),
    )
