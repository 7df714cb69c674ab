"""From a prompt to tokens and text embeddings, as the pipeline does it itself, with every part shown."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Final

import torch

from sdtui.worker.errors import JobProblem

_NEEDED: Final = frozenset(
    {"prompt", "device", "num_images_per_prompt", "do_classifier_free_guidance", "negative_prompt", "prompt_embeds", "clip_skip"}
)


def encodes_simply(pipe: Any) -> bool:
    """Whether a pipeline has one CLIP text encoder whose embeddings can be made before and given to it (SD 1.x, 2.x)."""
    encode = getattr(pipe, "encode_prompt", None)
    if encode is None or getattr(pipe, "text_encoder", None) is None or getattr(pipe, "text_encoder_2", None) is not None:
        return False
    parameters = set(inspect.signature(encode).parameters)
    return parameters >= _NEEDED and "prompt_2" not in parameters and getattr(pipe, "unet", None) is not None


@dataclass(frozen=True)
class Tokens:
    """A prompt as the model reads it: with its start and end marks, without the padding."""

    ids: tuple[int, ...]
    words: tuple[str, ...]
    cut_off: str
    max_tokens: int


def tokenize(pipe: Any, prompt: str) -> Tokens:
    """The tokens of a prompt, and the text past the limit that the model does not see."""
    tokenizer = pipe.tokenizer
    limit = int(tokenizer.model_max_length)
    converted = pipe.maybe_convert_prompt(prompt, tokenizer) if hasattr(pipe, "maybe_convert_prompt") else prompt
    ids = list(tokenizer(converted, padding="max_length", max_length=limit, truncation=True).input_ids)
    whole = list(tokenizer(converted).input_ids)
    read = ids[: min(len(whole), limit)]
    cut_off = tokenizer.decode(whole[limit - 1 : -1]) if len(whole) > limit else ""
    words = tuple(str(word) for word in tokenizer.convert_ids_to_tokens(read))
    return Tokens(tuple(read), words, cut_off, limit)


@dataclass(frozen=True)
class Embeddings:
    """What the U-Net is told: (1, n, C) each; no negative ones without guidance."""

    prompt_embeds: torch.Tensor
    negative_prompt_embeds: torch.Tensor | None


@torch.no_grad()
def encode(pipe: Any, prompt: str, negative_prompt: str, *, guided: bool, clip_skip: int, device: torch.device) -> Embeddings:
    """Embeddings by the pipeline's own `encode_prompt`, so they are its bits.

    Only `clip_skip` is done here, since diffusers' own fails with transformers 5; as in diffusers it is the prompt that
    skips, not the negative prompt.
    """
    skipped = skip_layers(pipe, prompt, clip_skip, device) if clip_skip else None
    prompt_embeds, negative_prompt_embeds = pipe.encode_prompt(
        prompt, device, 1, guided, negative_prompt, prompt_embeds=skipped, negative_prompt_embeds=None
    )
    return Embeddings(prompt_embeds, negative_prompt_embeds if guided else None)


def skip_layers(pipe: Any, prompt: str, clip_skip: int, device: torch.device) -> torch.Tensor:
    """The text encoder's hidden states `clip_skip` layers before the last, through its final layer norm: (1, n, C).

    The last of n_layers + 1 hidden states comes before that norm. Raises `JobProblem` when no layer
    would be left.
    """
    encoder, tokenizer = pipe.text_encoder, pipe.tokenizer
    layers = int(encoder.config.num_hidden_layers)
    if clip_skip >= layers:
        message = f"Clip skip must be at most {layers - 1}, as the model's text encoder has {layers} layers; it is {clip_skip}."
        raise JobProblem(message, "clip_skip")
    converted = pipe.maybe_convert_prompt(prompt, tokenizer) if hasattr(pipe, "maybe_convert_prompt") else prompt
    inputs = tokenizer(
        converted, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    )
    mask = inputs.attention_mask.to(device) if getattr(encoder.config, "use_attention_mask", False) else None
    states = encoder(inputs.input_ids.to(device), attention_mask=mask, output_hidden_states=True).hidden_states
    norm = getattr(encoder, "text_model", encoder).final_layer_norm
    normed: torch.Tensor = norm(states[-(clip_skip + 1)])
    return normed
