"""Which family a model belongs to, from the names and shapes of its tensors, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

Shapes = Mapping[str, tuple[int, ...]]


class Family(NamedTuple):
    """A family's name, how sure it is from 0 to 1, and what it was told by."""

    name: str
    sure: float
    why: str


UNKNOWN: Final = Family("unknown", 0.0, "")
_BY_CONTEXT: Final = {768: "SD 1.x", 1024: "SD 2.x", 2048: "SDXL", 1280: "SDXL refiner"}
"""How wide the text is that cross-attention reads: CLIP ViT-L, OpenCLIP ViT-H, both of SDXL's, OpenCLIP ViT-bigG."""
_BY_PIPELINE: Final = (
    ("StableDiffusionXL", "SDXL"),
    ("StableDiffusion3", "SD3"),
    ("Flux", "Flux"),
)
_IN_CHANNELS: Final = {9: " inpainting", 8: " with a picture to edit", 5: " with depth"}
"""What an SD U-Net takes besides the four channels of its latents."""
_FIRST_CONVOLUTIONS: Final = ("input_blocks.0.0.weight", "conv_in.weight")


def guess_family(shapes: Shapes, *, pipeline_class: str = "") -> Family:
    """The family of a whole model or of its denoiser; `shapes` may have any prefix before the denoiser's names."""
    names = shapes.keys()
    found = _by_transformer(names) or _by_unet(shapes)
    for beginning, family in _BY_PIPELINE:
        if pipeline_class.startswith(beginning) and (found is None or not found.name.startswith(family)):
            return Family(family, 0.9, f"the pipeline is a {pipeline_class}")
    return found or _by_text_encoder(shapes) or UNKNOWN


def _by_transformer(names: Iterable[str]) -> Family | None:
    for name in names:
        if "single_blocks." in name or "single_transformer_blocks." in name or "_single_blocks_" in name:
            return Family("Flux", 0.9, "it has double and single transformer blocks")
        if "joint_blocks" in name or "attn.add_q_proj" in name or "attn_add_q_proj" in name:
            sure = 0.95 if "joint_blocks" in name else 0.6
            return Family("SD3", sure, "its transformer's blocks join picture and text")
    return None


def _by_unet(shapes: Shapes) -> Family | None:
    for name, shape in shapes.items():
        if len(shape) == 2 and _is_context_key(name):
            family = _BY_CONTEXT.get(shape[1])
            why = f"cross-attention reads text that is {shape[1]:,} wide"
            if family is None:
                return Family("unknown", 0.0, f"{why}, as in no family that is known here")
            return Family(family + _takes(shapes), 0.95, why)
    return None


def _is_context_key(name: str) -> bool:
    return name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))


def _takes(shapes: Shapes) -> str:
    for name, shape in shapes.items():
        if len(shape) == 4 and name.endswith(_FIRST_CONVOLUTIONS) and "encoder" not in name and "first_stage" not in name:
            return _IN_CHANNELS.get(shape[1], "")
    return ""


def _by_text_encoder(shapes: Shapes) -> Family | None:
    for name, shape in shapes.items():
        if len(shape) == 2 and name.endswith("token_embedding.weight"):
            family = {768: "SD 1.x", 1024: "SD 2.x", 1280: "SDXL"}.get(shape[1])
            if family:
                return Family(family, 0.5, f"a text encoder {shape[1]:,} wide")
    return None


def family_of_lora(context_widths: Iterable[int], targets: Iterable[str], names: Iterable[str]) -> Family:
    """The base model a LoRA was made for: `context_widths` are the inputs of its keys and values in cross-attention."""
    listed = list(names)
    found = _by_transformer(listed)
    if found:
        return found
    widths = sorted(set(context_widths))
    for width in widths:
        if width in _BY_CONTEXT:
            return Family(_BY_CONTEXT[width], 0.95, f"it changes cross-attention to text that is {width:,} wide")
    if "text_encoder_2" in set(targets):
        return Family("SDXL", 0.8, "it changes a second text encoder")
    if widths:
        return Family(
            "unknown", 0.0, f"it changes cross-attention to text {widths[0]:,} wide, as in no family that is known here"
        )
    return UNKNOWN


def family_of_embedding(shapes: Shapes) -> Family:
    """The family of a textual inversion, by how wide its vectors are."""
    widths = {shape[-1] for shape in shapes.values() if shape}
    if {768, 1280} <= widths:
        return Family("SDXL", 0.95, "vectors for both text encoders, 768 and 1,280 wide")
    family = {768: "SD 1.x", 1024: "SD 2.x", 1280: "SDXL"}.get(max(widths, default=0))
    return Family(family, 0.8, f"vectors {max(widths):,} wide") if family else UNKNOWN
