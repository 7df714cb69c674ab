"""The tensors of Stable Diffusion 1.x in the layout it was first released in, made by rule from its configuration,
and files that have such a header and no data: sparse, so a checkpoint of 4 GB takes a few kB.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

Shapes = dict[str, tuple[int, ...]]
BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8}


def _layer(name: str, *shape: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _resnet(name: str, inputs: int, outputs: int, time: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _layer(f"{name}.in_layers.0", inputs)
    yield from _layer(f"{name}.in_layers.2", outputs, inputs, 3, 3)
    yield from _layer(f"{name}.emb_layers.1", outputs, time)
    yield from _layer(f"{name}.out_layers.0", outputs)
    yield from _layer(f"{name}.out_layers.3", outputs, outputs, 3, 3)
    if inputs != outputs:
        yield from _layer(f"{name}.skip_connection", outputs, inputs, 1, 1)


def _transformer(name: str, width: int, context: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _layer(f"{name}.norm", width)
    yield from _layer(f"{name}.proj_in", width, width, 1, 1)
    block = f"{name}.transformer_blocks.0"
    for attention, source in (("attn1", width), ("attn2", context)):
        yield f"{block}.{attention}.to_q.weight", (width, width)
        yield f"{block}.{attention}.to_k.weight", (width, source)
        yield f"{block}.{attention}.to_v.weight", (width, source)
        yield from _layer(f"{block}.{attention}.to_out.0", width, width)
    yield from _layer(f"{block}.ff.net.0.proj", 8 * width, width)
    yield from _layer(f"{block}.ff.net.2", width, 4 * width)
    for norm in ("norm1", "norm2", "norm3"):
        yield from _layer(f"{block}.{norm}", width)
    yield from _layer(f"{name}.proj_out", width, width, 1, 1)


def unet(channels: int = 320, context: int = 768, inputs: int = 4) -> Shapes:
    """A U-Net of four levels with two residual blocks each, as SD 1.x has it (Rombach et al. 2022, table 14)."""
    found: Shapes = {}
    widths, time = [channels * factor for factor in (1, 2, 4, 4)], 4 * channels
    found.update(_layer("time_embed.0", time, channels))
    found.update(_layer("time_embed.2", time, time))
    found.update(_layer("input_blocks.0.0", channels, inputs, 3, 3))
    skips, width, number = [channels], channels, 1
    for level, wide in enumerate(widths):
        for _ in range(2):
            found.update(_resnet(f"input_blocks.{number}.0", width, wide, time))
            if level < 3:
                found.update(_transformer(f"input_blocks.{number}.1", wide, context))
            width, number = wide, number + 1
            skips.append(width)
        if level < 3:
            found.update(_layer(f"input_blocks.{number}.0.op", width, width, 3, 3))
            number += 1
            skips.append(width)
    found.update(_resnet("middle_block.0", width, width, time))
    found.update(_transformer("middle_block.1", width, context))
    found.update(_resnet("middle_block.2", width, width, time))
    for number in range(12):
        level = 3 - number // 3
        found.update(_resnet(f"output_blocks.{number}.0", width + skips.pop(), widths[level], time))
        width = widths[level]
        if level < 3:
            found.update(_transformer(f"output_blocks.{number}.1", width, context))
        if number % 3 == 2 and level > 0:
            found.update(_layer(f"output_blocks.{number}.{2 if level < 3 else 1}.conv", width, width, 3, 3))
    found.update(_layer("out.0", channels))
    found.update(_layer("out.2", 4, channels, 3, 3))
    return found


def _vae_resnet(name: str, inputs: int, outputs: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _layer(f"{name}.norm1", inputs)
    yield from _layer(f"{name}.conv1", outputs, inputs, 3, 3)
    yield from _layer(f"{name}.norm2", outputs)
    yield from _layer(f"{name}.conv2", outputs, outputs, 3, 3)
    if inputs != outputs:
        yield from _layer(f"{name}.nin_shortcut", outputs, inputs, 1, 1)


def _vae_middle(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _vae_resnet(f"{name}.block_1", width, width)
    yield from _layer(f"{name}.attn_1.norm", width)
    for part in ("q", "k", "v", "proj_out"):
        yield from _layer(f"{name}.attn_1.{part}", width, width, 1, 1)
    yield from _vae_resnet(f"{name}.block_2", width, width)


def vae(channels: int = 128) -> Shapes:
    """The KL autoencoder with a factor of eight that SD 1.x, 2.x and SDXL share in shape."""
    found: Shapes = {}
    widths = [channels * factor for factor in (1, 2, 4, 4)]
    found.update(_layer("encoder.conv_in", channels, 3, 3, 3))
    width = channels
    for level, wide in enumerate(widths):
        for block in range(2):
            found.update(_vae_resnet(f"encoder.down.{level}.block.{block}", width, wide))
            width = wide
        if level < 3:
            found.update(_layer(f"encoder.down.{level}.downsample.conv", width, width, 3, 3))
    found.update(_vae_middle("encoder.mid", width))
    found.update(_layer("encoder.norm_out", width))
    found.update(_layer("encoder.conv_out", 8, width, 3, 3))
    found.update(_layer("quant_conv", 8, 8, 1, 1))
    found.update(_layer("post_quant_conv", 4, 4, 1, 1))
    found.update(_layer("decoder.conv_in", width, 4, 3, 3))
    found.update(_vae_middle("decoder.mid", width))
    for level in (3, 2, 1, 0):
        for block in range(3):
            found.update(_vae_resnet(f"decoder.up.{level}.block.{block}", width, widths[level]))
            width = widths[level]
        if level > 0:
            found.update(_layer(f"decoder.up.{level}.upsample.conv", width, width, 3, 3))
    found.update(_layer("decoder.norm_out", width))
    found.update(_layer("decoder.conv_out", 3, width, 3, 3))
    return found


def clip(width: int = 768, layers: int = 12, words: int = 49408) -> Shapes:
    """CLIP's text model as transformers names it."""
    found: Shapes = {
        "text_model.embeddings.position_ids": (1, 77),
        "text_model.embeddings.token_embedding.weight": (words, width),
        "text_model.embeddings.position_embedding.weight": (77, width),
    }
    for number in range(layers):
        layer = f"text_model.encoder.layers.{number}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            found.update(_layer(f"{layer}.self_attn.{part}", width, width))
        found.update(_layer(f"{layer}.layer_norm1", width))
        found.update(_layer(f"{layer}.layer_norm2", width))
        found.update(_layer(f"{layer}.mlp.fc1", 4 * width, width))
        found.update(_layer(f"{layer}.mlp.fc2", width, 4 * width))
    found.update(_layer("text_model.final_layer_norm", width))
    return found


def sd1(*, channels: int = 320, context: int = 768, inputs: int = 4, vae_channels: int = 128, words: int = 49408) -> Shapes:
    """A whole checkpoint under the names of the training code; smaller figures make a small one."""
    parts = (
        ("model.diffusion_model.", unet(channels, context, inputs)),
        ("first_stage_model.", vae(vae_channels)),
        ("cond_stage_model.transformer.", clip(context, 12, words)),
    )
    return {prefix + name: shape for prefix, shapes in parts for name, shape in shapes.items()}


def write_sparse(path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str = "F32", **metadata: str) -> Path:
    """A safetensors file with this header and as many bytes of nothing as it promises."""
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    offset = 0
    for name, shape in shapes.items():
        kind = "I64" if name.endswith("position_ids") else dtype
        count = 1
        for size in shape:
            count *= size
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [offset, offset + count * BYTES[kind]]}
        offset += count * BYTES[kind]
    body = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(body).to_bytes(8, "little") + body)
        file.truncate(8 + len(body) + offset)
    return path
