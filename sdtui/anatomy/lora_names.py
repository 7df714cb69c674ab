"""The names in LoRA files -> the module that is changed, and which part of the change a tensor is.

Two ways of writing are known: kohya-ss' (`lora_unet_down_blocks_0_….lora_down.weight`, with `alpha`; all dots but the last
turned into underscores), and peft's as diffusers saves it (`unet.down_blocks.0.….lora_A.weight`), with the older
`to_q_lora.down.weight` of diffusers itself.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Format = Literal["kohya", "peft", "diffusers"]
Role = Literal["down", "up", "mid", "alpha", "dora", "other"]

_SUFFIXES: Final[tuple[tuple[str, Role, Format], ...]] = (
    (".lora_down.weight", "down", "kohya"),
    (".lora_up.weight", "up", "kohya"),
    (".lora_mid.weight", "mid", "kohya"),
    (".alpha", "alpha", "kohya"),
    (".dora_scale", "dora", "kohya"),
    (".lora_A.weight", "down", "peft"),
    (".lora_B.weight", "up", "peft"),
    (".lora_A.default.weight", "down", "peft"),
    (".lora_B.default.weight", "up", "peft"),
    (".lora_magnitude_vector", "dora", "peft"),
    (".lora_linear_layer.down.weight", "down", "diffusers"),
    (".lora_linear_layer.up.weight", "up", "diffusers"),
    ("_lora.down.weight", "down", "diffusers"),
    ("_lora.up.weight", "up", "diffusers"),
    (".lora.down.weight", "down", "diffusers"),
    (".lora.up.weight", "up", "diffusers"),
)
_OTHER_CHANGES: Final = (
    ".hada_w1_a", ".hada_w1_b", ".hada_w2_a", ".hada_w2_b", ".hada_t1", ".hada_t2", ".lokr_w1", ".lokr_w2", ".lokr_w1_a",
    ".lokr_w1_b", ".lokr_w2_a", ".lokr_w2_b", ".lokr_t2", ".diff", ".diff_b", ".oft_blocks", ".on_input",
)  # fmt: skip
"""LyCORIS' LoHa, LoKr and whole differences; IA3 and OFT: shown by name, without rank."""
_KOHYA_TARGETS: Final = (
    ("lora_unet_", "unet"),
    ("lora_te1_", "text_encoder"),
    ("lora_te2_", "text_encoder_2"),
    ("lora_te3_", "text_encoder_3"),
    ("lora_te_", "text_encoder"),
    ("lora_transformer_", "transformer"),
    ("lycoris_", "unet"),
)
_DOTTED_TARGETS: Final = (
    ("unet.", "unet"),
    ("transformer.", "transformer"),
    ("text_encoder.", "text_encoder"),
    ("text_encoder_2.", "text_encoder_2"),
    ("text_encoder_3.", "text_encoder_3"),
    ("base_model.model.", "unet"),
    ("diffusion_model.", "unet"),
)
_WORDS: Final = (
    "add_embedding", "add_k_proj", "add_q_proj", "add_v_proj", "c_fc", "c_proj", "context_embedder", "conv_in", "conv_out",
    "conv_shortcut", "double_blocks", "down_blocks", "emb_layers", "ff_context", "final_layer", "final_layer_norm",
    "img_attn", "img_in", "img_mlp", "img_mod", "in_layers", "input_blocks", "joint_blocks", "k_proj", "label_emb", "layer_norm1",
    "layer_norm2", "linear_1", "linear_2", "mid_block", "middle_block", "out_layers", "out_proj", "output_blocks", "pos_embed",
    "position_embedding", "proj_in", "proj_mlp", "proj_out", "q_proj", "self_attn", "single_blocks", "single_transformer_blocks",
    "skip_connection", "text_model", "text_projection", "time_embed", "time_emb_proj", "time_embedding", "time_text_embed",
    "to_add_out", "to_k", "to_k_ip", "to_out", "to_q", "to_v", "to_v_ip", "token_embedding", "transformer_blocks", "txt_attn",
    "txt_in", "txt_mlp", "txt_mod", "up_blocks", "v_proj", "vector_in", "x_embedder", "norm_out", "time_in", "guidance_in",
    "in_layer", "out_layer", "adaLN_modulation", "encoder_hid_proj",
)  # fmt: skip
"""Names of modules that have an underscore of their own."""
_LONG_WORDS: Final = {tuple(word.split("_")) for word in _WORDS}
_MOST_PARTS: Final = max(len(word) for word in _LONG_WORDS)


class LoraKey(NamedTuple):
    """What a tensor's name says: which component and module it changes, and its part in the change."""

    component: str
    path: str
    """Dotted. From kohya's names it is restored by known words, see `dotted`."""
    role: Role
    tensor: str
    """The tensor's own name: what stands behind the module's."""
    format: Format


def parse_key(name: str) -> LoraKey | None:
    """The parts of a name; None for one that belongs to no known kind of change."""
    for suffix, role, style in _SUFFIXES:
        if name.endswith(suffix) and len(name) > len(suffix):
            return _located(name[: -len(suffix)], role, suffix.lstrip("._"), style)
    for suffix in _OTHER_CHANGES:
        if name.endswith(suffix) and len(name) > len(suffix):
            return _located(name[: -len(suffix)], "other", suffix[1:], "kohya")
    return None


def _located(stem: str, role: Role, tensor: str, style: Format) -> LoraKey | None:
    for prefix, component in _KOHYA_TARGETS:
        if stem.startswith(prefix):
            return LoraKey(component, dotted(stem[len(prefix) :]), role, tensor, "kohya")
    for prefix, component in _DOTTED_TARGETS:
        if stem.startswith(prefix):
            path = stem[len(prefix) :].replace(".processor.", ".").replace(".to_out_lora", ".to_out.0")
            return LoraKey(component, path, role, tensor, "peft" if style == "kohya" and role == "alpha" else style)
    if style != "kohya" or role != "alpha":
        return LoraKey("unet", stem.replace(".processor.", "."), role, tensor, style)
    return None


def dotted(flat: str) -> str:
    """`down_blocks_0_attentions_0_proj_in` as `down_blocks.0.attentions.0.proj_in`: underscores inside known words stay."""
    parts = flat.split("_")
    found: list[str] = []
    index = 0
    while index < len(parts):
        for length in range(min(_MOST_PARTS, len(parts) - index), 1, -1):
            if tuple(parts[index : index + length]) in _LONG_WORDS:
                break
        else:
            length = 1
        found.append("_".join(parts[index : index + length]))
        index += length
    return ".".join(found)


def flat(path: str) -> str:
    """A dotted path as kohya writes it; how a module is found whatever underscores it has."""
    return path.replace(".", "_")
