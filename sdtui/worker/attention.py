"""Where the words act: cross-attention maps of a U-Net, summed while it works; nothing that is computed changes.

DAAM (Tang et al. 2022, eq. 4 to 6): what each latent pixel pays to each token is softmax(q k' / sqrt(d)), here the mean over
heads, summed over layers and steps. `forward` of each `attn2` and of its `to_q` and `to_k` is wrapped on the instance, as in
`cancellation.py`, and the softmax taken once more from their outputs, whatever kernel the attention itself uses.
"""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from diffusers.models.attention_processor import Attention

if TYPE_CHECKING:
    import numpy as np

_CHUNK: Final = 1 << 19
"""Scores that are held at a time on a CPU: two megabytes, which its caches hold."""
_GPU_CHUNK: Final = 1 << 24
_HALVINGS: Final = 8
"""No U-Net makes its latents smaller more often."""


@dataclass(frozen=True)
class Extent:
    """What a batch's maps are of."""

    pictures: int
    tokens: int
    """So many of the text's tokens have maps, from the first one on."""
    text_length: int
    """Keys of an attention that looks at the text: the tokens with their padding."""
    height: int
    """Of the latents."""
    width: int


@dataclass(frozen=True)
class WordSums:
    """The maps of a batch, in the host's memory."""

    steps: int
    """How often the network was asked; replayed steps do not ask it."""
    maps: dict[tuple[int, int], np.ndarray[Any, Any]]
    """For each height and width, the finest first: (B, tokens, h, w) float32."""
    layers: tuple[int, ...]
    """Of each resolution."""
    heads: tuple[int, ...]


@dataclass
class _Seen:
    """What one attention was given in the call that runs."""

    name: str
    query: torch.Tensor | None = None
    key: torch.Tensor | None = None


class AttentionMaps:
    """Sums the maps of one pipeline's U-Net, one batch at a time; without `begin` it does nothing."""

    def __init__(self, on_looked: Callable[[float], None] = lambda _: None) -> None:
        """`on_looked` is told the seconds that each look took."""
        self._on_looked = on_looked
        self._extent: Extent | None = None
        self._sums: dict[int, torch.Tensor] = {}
        """For each number of latent pixels: (B, pixels, tokens) float32, on the device."""
        self._calls: Counter[tuple[int, str]] = Counter()
        self._heads: dict[int, int] = {}

    @contextmanager
    def attached(self, pipe: Any) -> Iterator[None]:
        """While this lasts, the cross-attention of the pipeline's U-Net is looked at.

        It must last longer than a job's remedies: offloading takes `forward` as it finds it, and puts it back.
        """
        before: list[tuple[torch.nn.Module, Any]] = []
        try:
            for name, attention in cross_attentions(pipe):
                seen = _Seen(name)
                for module, wrapped in (
                    (attention.to_q, _keeping(attention.to_q.forward, seen, "query")),
                    (attention.to_k, _keeping(attention.to_k.forward, seen, "key")),
                    (attention, self._looking(attention.forward, attention, seen)),
                ):
                    before.append((module, vars(module).get("forward")))
                    vars(module)["forward"] = wrapped
            yield
        finally:
            for module, forward in before:
                if forward is None:
                    vars(module).pop("forward", None)
                else:
                    vars(module)["forward"] = forward
            self.forget()

    def begin(self, extent: Extent) -> None:
        """A batch begins; what was summed before is let go."""
        self.forget()
        self._extent = extent

    def forget(self) -> None:
        """Sum nothing until the next `begin`."""
        self._extent = None
        self._sums, self._heads = {}, {}
        self._calls.clear()

    def take(self) -> WordSums | None:
        """The batch's maps, once its last step is done; None where no cross-attention to the text was asked."""
        extent, sums, calls, heads = self._extent, self._sums, dict(self._calls), self._heads
        self.forget()
        if extent is None or not sums:
            return None
        pixels = sorted(sums, reverse=True)
        maps = {}
        for count in pixels:
            height, width = _rows(extent, count) or (1, count)
            by_token = sums[count].transpose(1, 2).reshape(extent.pictures, extent.tokens, height, width)
            maps[height, width] = by_token.contiguous().cpu().numpy()
        layers = Counter(count for count, _ in calls)
        return WordSums(
            steps=max(calls.values()),
            maps=maps,
            layers=tuple(layers[count] for count in pixels),
            heads=tuple(heads[count] for count in pixels),
        )

    def _looking(self, forward: Callable[..., Any], attention: Attention, seen: _Seen) -> Callable[..., Any]:
        @functools.wraps(forward)
        def look(*args: Any, **kwargs: Any) -> Any:
            try:
                output = forward(*args, **kwargs)
                if self._extent is not None and seen.query is not None and seen.key is not None:
                    began = time.perf_counter()
                    mask = kwargs.get("attention_mask", args[2] if len(args) > 2 else None)
                    self._add(self._extent, attention, seen, mask)
                    self._on_looked(time.perf_counter() - began)
            finally:
                seen.query = seen.key = None
            return output

        return look

    def _add(self, extent: Extent, attention: Attention, seen: _Seen, mask: torch.Tensor | None) -> None:
        """Add one call's maps to the sums."""
        query, key, pictures = seen.query, seen.key, extent.pictures
        if query is None or key is None or query.ndim != 3 or key.shape[:-1] != (len(query), extent.text_length):
            return
        asked, pixels, _ = query.shape  # asked: B, or 2B with guidance, where the prompt's half is the last
        if asked not in (pictures, 2 * pictures) or _rows(extent, pixels) is None:
            return
        if mask is not None:
            mask = attention.prepare_attention_mask(mask, extent.text_length, asked, out_dim=4)[-pictures:].float()
        sums = self._sums.get(pixels)
        if sums is None:
            sums = self._sums[pixels] = query.new_zeros((pictures, pixels, extent.tokens), dtype=torch.float32)
        with torch.no_grad():
            add_maps(sums, query[-pictures:], key[-pictures:], heads=attention.heads, scale=attention.scale, mask=mask)
        self._calls[pixels, seen.name] += 1
        self._heads[pixels] = attention.heads


def cross_attentions(pipe: Any) -> list[tuple[str, Attention]]:
    """The attentions of a pipeline's U-Net that look at the prompt, in their order; none for other kinds of networks."""
    unet = getattr(pipe, "unet", None)
    found = unet.named_modules() if isinstance(unet, torch.nn.Module) else ()
    return [
        (name, module)
        for name, module in found
        if name.rpartition(".")[2] == "attn2"
        and isinstance(module, Attention)
        and getattr(module, "to_k", None) is not None
        and module.norm_q is None
        and module.norm_k is None
    ]


def add_maps(
    sums: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    *,
    heads: int,
    scale: float,
    mask: torch.Tensor | None = None,
) -> None:
    """Add the mean over heads of softmax(q k' scale + mask) to `sums`, a few pictures or heads at a time.

    sums: (B, pixels, tokens) float32; query: (B, pixels, C); key: (B, text, C), its first tokens are those of `sums`;
    mask: (B, heads, 1, text). All is computed in float32, as float16 overflows in some models.
    """
    pictures, pixels, tokens = sums.shape
    text = key.shape[1]
    queries = query.reshape(pictures, pixels, heads, -1).transpose(1, 2)  # (B, heads, pixels, d)
    keys = key.reshape(pictures, text, heads, -1).permute(0, 2, 3, 1)  # (B, heads, d, text)
    chunk = _GPU_CHUNK if sums.device.type == "cuda" else _CHUNK
    for rows in _slices(pictures, chunk // (heads * pixels * text)):
        for part in _slices(heads, chunk // (pixels * text)):
            scores = torch.matmul(queries[rows, part].float() * scale, keys[rows, part].float())  # (rows, part, pixels, text)
            if mask is not None:
                scores += mask[rows, part]
            sums[rows] += torch.softmax(scores, dim=-1)[..., :tokens].sum(dim=1).div_(heads)


def _slices(count: int, at_a_time: int) -> list[slice]:
    step = min(max(1, at_a_time), count)
    return [slice(first, first + step) for first in range(0, count, step)]


def _keeping(forward: Callable[..., Any], seen: _Seen, name: str) -> Callable[..., Any]:
    @functools.wraps(forward)
    def keep(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        setattr(seen, name, output)
        return output

    return keep


def _rows(extent: Extent, pixels: int) -> tuple[int, int] | None:
    """Height and width of so many latent pixels: the latents, halved and rounded up as the network's convolutions do it."""
    height, width = extent.height, extent.width
    for _ in range(_HALVINGS):
        if height * width == pixels:
            return height, width
        height, width = -(-height // 2), -(-width // 2)
    return None
