"""Which component a tensor of a single file belongs to, by its name.

The layouts are those of the first releases: CompVis' and Stability's training code (`model.diffusion_model`,
`first_stage_model`, `cond_stage_model`, `conditioner.embedders`), SD3's, and bare components.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from sdtui.anatomy.structs import Kind

_PREFIXES: Final = (
    ("model.diffusion_model.", "unet"),
    ("model_ema.", "unet_ema"),
    ("first_stage_model.", "vae"),
    ("cond_stage_model.transformer.", "text_encoder"),
    ("cond_stage_model.", "text_encoder"),
    ("conditioner.embedders.0.transformer.", "text_encoder"),
    ("conditioner.embedders.0.model.", "text_encoder_2"),  # SDXL's refiner has the second one alone
    ("conditioner.embedders.1.model.", "text_encoder_2"),
    ("conditioner.embedders.0.", "text_encoder"),
    ("conditioner.embedders.1.", "text_encoder_2"),
    ("text_encoders.clip_l.transformer.", "text_encoder"),
    ("text_encoders.clip_g.transformer.", "text_encoder_2"),
    ("text_encoders.t5xxl.transformer.", "text_encoder_3"),
    ("text_encoders.clip_l.", "text_encoder"),
    ("text_encoders.clip_g.", "text_encoder_2"),
    ("text_encoders.t5xxl.", "text_encoder_3"),
    ("control_model.", "controlnet"),
    ("safety_checker.", "safety_checker"),
    ("unet.", "unet"),
    ("vae.", "vae"),
    ("text_encoder.", "text_encoder"),
    ("text_encoder_2.", "text_encoder_2"),
)
_BY_FIRST: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    first: tuple(entry for entry in _PREFIXES if entry[0].startswith(f"{first}."))
    for first in {prefix.partition(".")[0] for prefix, _ in _PREFIXES}
}
_BARE: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("controlnet", ("controlnet_cond_embedding.", "controlnet_down_blocks.", "zero_convs.", "input_hint_block.")),
    ("unet", ("input_blocks.", "time_embedding.linear_1.", "mid_block.attentions.0.transformer_blocks.")),
    ("transformer", ("double_blocks.", "joint_blocks.", "single_transformer_blocks.", "transformer_blocks.", "blocks.0.")),
    ("image_encoder", ("vision_model.", "visual.")),
    (
        "text_encoder",
        ("text_model.", "embeddings.token_embedding", "encoder.block.", "token_embedding.", "transformer.resblocks."),
    ),
    ("vae", ("decoder.", "quant_conv.", "encoder.conv_in.")),
)
"""Names that only one component has, for files that hold one alone; the first that is met wins."""
_KINDS: Final[dict[str, Kind]] = {
    "unet": "unet", "transformer": "transformer", "vae": "vae", "controlnet": "controlnet", "text_encoder": "text encoder",
    "text_encoder_2": "text encoder", "text_encoder_3": "text encoder",
}  # fmt: skip
_ORDER: Final = (
    "unet", "transformer", "controlnet", "vae", "text_encoder", "text_encoder_2", "text_encoder_3", "image_encoder",
    "safety_checker", "tokenizer", "tokenizer_2", "tokenizer_3", "scheduler", "feature_extractor", "unet_ema", "other",
)  # fmt: skip


def component_rank(name: str) -> tuple[int, str]:
    """Where a component stands among others: what does the most first."""
    return _ORDER.index(name) if name in _ORDER else len(_ORDER), name


def split(names: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
    """Components in order, each with the names of its tensors and their paths in it; what has no prefix is one component."""
    found: dict[str, list[tuple[str, str]]] = {}
    rest: list[tuple[str, str]] = []
    for name in names:
        for prefix, component in _BY_FIRST.get(name.partition(".")[0], ()):
            if name.startswith(prefix):
                found.setdefault(component, []).append((name, name[len(prefix) :]))
                break
        else:
            rest.append((name, name))
    if rest:
        bare = bare_component(name for name, _ in rest)
        found.setdefault(bare if bare not in found and bare else "other" if found else "weights", []).extend(rest)
    if "unet" in found and any(path.startswith(("joint_blocks.", "double_blocks.")) for _, path in found["unet"]):
        found["transformer"] = found.pop("unet")
    return {name: found[name] for name in sorted(found, key=component_rank)}


def bare_component(names: Iterable[str]) -> str:
    """What a file without prefixes holds; empty when that is no component known here."""
    listed = list(names)
    for component, beginnings in _BARE:
        if any(name.startswith(beginnings) for name in listed):
            return component
    return ""


def kind_of(components: Mapping[str, Any]) -> Kind:
    """What a file with these components is."""
    known = [name for name in components if name not in ("other", "unet_ema")]
    if len(known) == 1:
        return _KINDS.get(known[0], "weights")
    return "checkpoint" if known else "weights"
