"""Small pictures of the tensors that a sampling function makes, by what its variables are."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from PIL import Image

from sdtui.protocol import TensorPicture
from sdtui.text import safe_text
from sdtui.worker.linear import LinearMap
from sdtui.worker.previews import shrink, to_rgb

MAX_PX: Final = 256
"""The longer side: as many pixels as a terminal shows in half of its width, and 200 kB."""
RESULT_PX: Final = 512
"""The longer side of the finished picture, which is 800 kB then."""
_LATENTS: Final = frozenset({"latents", "latent_input", "noise", "encoded"})
_PREDICTIONS: Final = ("noise_pred", "noise_pred_uncond", "noise_pred_text")
_PIXELS: Final = frozenset({"decoded", "pixels", "result", "array"})
_AT_ONCE: Final = 2
"""Pictures beside each other: those without and with the prompt."""
_SPREADS: Final = 3.0
"""Standard deviations from the middle of the colours to their end; 0.3 % of normally distributed numbers lie outside."""
_GOLDEN: Final = 0.618034
"""Multiples of it, modulo 1, lie far from each other, so that tokens of near numbers have different colours."""
_MARK: Final = (150, 150, 150)
_FILL: Final = (40, 40, 40)
_BELOW: Final = (90, 150, 255)
_ABOVE: Final = (255, 140, 60)


@dataclass(frozen=True)
class Pictures:
    """Makes them for one model and one function."""

    function: str
    tokenizer: Any
    linear: LinearMap | None
    """Latents to colours; None for a VAE of another kind."""

    @torch.no_grad()
    def of(self, name: str, tensor: torch.Tensor) -> TensorPicture | None:
        """The picture of a variable; None for what is not looked at as one."""
        if name == "tokens" and tensor.ndim == 2:
            return self._token_strip(tensor)
        if name == "embeddings" and tensor.ndim == 3:
            return heat(tensor)
        if name in _PIXELS:
            return self._pixels(name, tensor)
        if tensor.ndim != 4 or not tensor.numel():
            return None
        if name in _LATENTS:
            return self._latents(tensor)
        return first_channels(tensor) if name in _PREDICTIONS else None

    def words(self, tokens: torch.Tensor) -> tuple[tuple[str, ...], ...]:
        """(B, n) token ids -> for each row its tokens as the tokenizer spells them, to the first end mark."""
        rows = []
        for ids in tokens.tolist():
            read = ids[: ids.index(self._end) + 1] if self._end in ids else ids
            rows.append(tuple(safe_text(str(word)) for word in self.tokenizer.convert_ids_to_tokens(read)))
        return tuple(rows)

    @property
    def _end(self) -> Any:
        return self.tokenizer.eos_token_id

    def _token_strip(self, tokens: torch.Tensor) -> TensorPicture:
        """Each token in a colour of its number; marks are grey, and what fills up the row, which nobody is to read, is dark."""
        rgb = torch.tensor([self._row_of_colours(ids) for ids in tokens.tolist()], dtype=torch.uint8)
        return _framed(rgb, "a column for each token, in a colour of its number; marks grey, what fills up the row dark")

    def _row_of_colours(self, ids: list[int]) -> list[tuple[int, int, int]]:
        end = ids.index(self._end) if self._end in ids else len(ids)
        marks = {self.tokenizer.bos_token_id, self._end}
        return [_FILL if at > end else _MARK if token in marks else _colour_of(token) for at, token in enumerate(ids)]

    def _latents(self, tensor: torch.Tensor) -> TensorPicture | None:
        if self.linear is None or tensor.shape[1] != len(self.linear.weights):
            return first_channels(tensor)
        finite = tensor.float().nan_to_num(0.0, 0.0, 0.0)
        spread = float(finite.std(correction=0))
        divisor = max(1.0, spread)  # latents begin as strong as the scheduler's first sigma, which no colour could show
        parts = [self.linear(shrink(part, MAX_PX // 2) / divisor) for part in finite[:_AT_ONCE]]
        divided = f", divided by their spread {spread:.3g}" if divisor > 1 else ""
        return _framed(_beside(parts), f"latents in colours by linear factors{divided}")

    def _pixels(self, name: str, tensor: torch.Tensor) -> TensorPicture | None:
        if tensor.ndim == 3 and tensor.shape[-1] == 3 and tensor.dtype == torch.uint8:
            return _framed(to_rgb(shrink(tensor.permute(2, 0, 1).float() / 127.5 - 1, MAX_PX)), "the picture itself")
        if tensor.ndim != 4:
            return None
        one, last = tensor[0].float(), tensor.shape[-1] == 3 and tensor.shape[1] != 3
        one = one.permute(2, 0, 1) if last else one
        if len(one) != 3:
            return None
        unit = name == "result" or (name == "pixels" and (last or self.function == "text_to_image"))
        one = one * 2 - 1 if unit else one
        return _framed(to_rgb(shrink(one, MAX_PX)), f"the picture, {'0 to 1' if unit else '-1 to 1'} as black to white")


def _colour_of(token: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(token * _GOLDEN % 1.0, 0.55, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def heat(tensor: torch.Tensor) -> TensorPicture:
    """(B, n, C) -> B blocks under each other, a row for each of n, C from left to right: blue below 0, orange above."""
    values = tensor.detach().float().nan_to_num(0.0, 0.0, 0.0)
    batch, rows, columns = values.shape
    height, width = max(1, min(rows, MAX_PX // batch - 1)), min(columns, MAX_PX)
    if (height, width) != (rows, columns):
        values = F.interpolate(values[:, None], size=(height, width), mode="area")[:, 0]
    strength = (values / (_SPREADS * values.std(correction=0)).clamp_min(1e-12)).clamp(-1, 1).cpu()[..., None]
    below, above = torch.tensor(_BELOW), torch.tensor(_ABOVE)
    rgb = (strength.clamp_min(0) * above - strength.clamp_max(0) * below).round().to(torch.uint8)
    gap = torch.full((1, width, 3), 128, dtype=torch.uint8)
    stacked = torch.cat([part for block in rgb for part in (gap, block)][1:])
    return _framed(stacked, "tokens from top to bottom, features from left to right; blue below 0, orange above")


def first_channels(tensor: torch.Tensor) -> TensorPicture | None:
    """(B, C, h, w) -> the first three channels as red, green and blue, the first two of the batch beside each other."""
    if tensor.shape[1] < 3:
        return None
    values = tensor[:_AT_ONCE, :3].float().nan_to_num(0.0, 0.0, 0.0)
    reach = (_SPREADS * values.std(correction=0)).clamp_min(1e-12)
    parts = [to_rgb(shrink(part, MAX_PX // 2)) for part in values / reach]
    span = f"{-float(reach):.2g} to {float(reach):.2g}"
    return _framed(_beside(parts), f"the first three channels as red, green and blue, {span}")


def result_picture(image: Image.Image) -> TensorPicture:
    """The finished picture, made smaller where it is large."""
    shown = image.convert("RGB")
    shown.thumbnail((RESULT_PX, RESULT_PX), Image.Resampling.LANCZOS)
    what = "the picture" if shown.size == image.size else f"the picture, made smaller from {image.width}x{image.height}"
    return TensorPicture(width_px=shown.width, height_px=shown.height, rgb=shown.tobytes(), what=what)


def _beside(parts: list[torch.Tensor]) -> torch.Tensor:
    """(h, w, 3) each -> one, from left to right, with a grey column between."""
    gap = torch.full((parts[0].shape[0], 1, 3), 128, dtype=torch.uint8, device=parts[0].device)
    return torch.cat([part for one in parts for part in (gap, one)][1:], dim=1)


def _framed(rgb: torch.Tensor, what: str) -> TensorPicture:
    height, width, _ = rgb.shape
    return TensorPicture(width_px=width, height_px=height, rgb=rgb.contiguous().cpu().numpy().tobytes(), what=what)
