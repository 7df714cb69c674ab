"""Latents to small RGB pictures by one linear map, fitted by least squares to the VAE that is loaded.

For pictures x in [-1, 1]: z = (mode of encode(x) - shift) scaling_factor, y = x averaged to the latents' size; the
(C + 1, 3) map with bias solves the normal equations (Z'Z) W = Z'Y in float64. One pass, no gradient descent.
"""

from __future__ import annotations

import hashlib
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import torch
import torch.nn.functional as F

from sdtui.settings import cache_dir, write_atomically
from sdtui.trajectory import LinearFactors

FIT_PX: Final = 128
"""Side of the pictures: 256 latent pixels each at an eighth, and a large VAE on a CPU still encodes one in half a second."""
FIT_PICTURES: Final = 16
_DIGEST_VALUES: Final = 256
"""Values of each tensor that go into the digest; training changes all of them."""
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class LinearMap:
    """The factors as tensors on a device, scaled so that colours come out from 0 to 255."""

    factors: LinearFactors
    weights: torch.Tensor
    """(C, 3), float32"""
    bias: torch.Tensor
    """(3,)"""

    @classmethod
    def of(cls, factors: LinearFactors, device: torch.device) -> LinearMap:
        """Put the factors where the latents are."""
        weights = torch.tensor(factors.weights, device=device) * 127.5
        bias = (torch.tensor(factors.bias, device=device) + 1.0) * 127.5 + 0.5  # the half rounds when the fraction is cut
        return cls(factors, weights, bias)

    def __call__(self, latents: torch.Tensor) -> torch.Tensor:
        """(C, h, w) latents as the sampler holds them -> (h, w, 3) uint8."""
        channels, height, width = latents.shape
        rgb = torch.addmm(self.bias, latents.float().reshape(channels, -1).T, self.weights)  # (h w, 3)
        return rgb.clamp_(0, 255).to(torch.uint8).view(height, width, 3)


def vae_digest(vae: Any) -> str:
    """A hash that names a VAE by its configuration and samples of all its weights, in milliseconds."""
    digest = hashlib.sha256(repr(sorted((key, repr(value)) for key, value in vae.config.items() if key[0] != "_")).encode())
    for name, tensor in sorted(vae.state_dict().items()):
        flat = tensor.detach().reshape(-1)
        stride = max(1, flat.numel() // _DIGEST_VALUES)
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(flat[::stride][: 2 * _DIGEST_VALUES].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:32]


def factors_path(digest: str) -> Path:
    """Where the factors of a VAE are kept."""
    return cache_dir() / "preview" / f"{digest}.json"


def load_or_fit(vae: Any) -> LinearFactors | None:
    """The factors of a VAE, from the cache or fitted now; None for a VAE that does not encode pictures to latents."""
    path = factors_path(vae_digest(vae))
    try:
        return msgspec.json.decode(path.read_bytes(), type=LinearFactors)
    except (OSError, msgspec.DecodeError):
        pass
    factors = fit(vae)
    if factors is not None:
        try:
            write_atomically(path, msgspec.json.encode(factors))
        except OSError as error:
            _log.warning("The preview factors could not be kept in %s: %s", path, error)
    return factors


def fit(vae: Any) -> LinearFactors | None:
    """Fit the factors to a VAE; None when it is of another kind, or gives values that are not finite.

    A VAE that overflows in half precision, as SDXL's does, is asked in float32 and put back, which loses no bit.
    """
    factors = _fit(vae)
    dtype = next(vae.parameters()).dtype
    if factors is None and dtype != torch.float32:
        vae.to(torch.float32)
        try:
            factors = _fit(vae)
        finally:
            vae.to(dtype)
    return factors


@torch.no_grad()
def _fit(vae: Any) -> LinearFactors | None:
    z_rows, y_rows = [], []
    for picture in fit_pictures():
        latents = encode(vae, picture[None])
        if latents is None or latents.ndim != 4 or not bool(torch.isfinite(latents).all()):
            return None
        _, channels, height, width = latents.shape
        z_rows.append(latents[0].double().cpu().reshape(channels, -1).T)  # (h w, C)
        y_rows.append(F.adaptive_avg_pool2d(picture, (height, width)).double().reshape(3, -1).T)  # (h w, 3)
    return _solve(torch.cat(z_rows), torch.cat(y_rows))


def _solve(z: torch.Tensor, y: torch.Tensor) -> LinearFactors | None:
    """Least squares of (n, C) latents with bias against (n, 3) colours."""
    z = torch.cat([z, torch.ones(len(z), 1, dtype=z.dtype)], dim=1)  # (n, C + 1)
    solution = torch.linalg.lstsq(z.T @ z, z.T @ y).solution  # (C + 1, 3)
    r2 = float(1 - (y - z @ solution).square().sum() / (y - y.mean(0)).square().sum())
    if not math.isfinite(r2):
        return None
    rows = [(float(row[0]), float(row[1]), float(row[2])) for row in solution]
    return LinearFactors(tuple(rows[:-1]), rows[-1], r2)


def encode(vae: Any, pictures: torch.Tensor) -> torch.Tensor | None:
    """(B, 3, H, W) in [-1, 1] -> latents (B, C, h, w) as the sampler holds them; None when this VAE does not do that."""
    parameter = next(vae.parameters())
    try:
        encoded = vae.encode(pictures.to(parameter.device, parameter.dtype))
    except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError):
        return None
    if hasattr(encoded, "latent_dist"):
        latents: torch.Tensor = encoded.latent_dist.mode()
    elif hasattr(encoded, "latents"):
        latents = encoded.latents
    else:
        return None
    scale = vae.config.get("scaling_factor", 1.0) or 1.0
    shift = vae.config.get("shift_factor", 0.0) or 0.0
    return (latents - shift) * scale


def fit_pictures() -> list[torch.Tensor]:
    """(3, H, W) pictures in [-1, 1]: smooth random colours at several scales, each with discs and bars of flat colour."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.meshgrid(torch.linspace(0, 1, FIT_PX), torch.linspace(0, 1, FIT_PX), indexing="ij")
    pictures = []
    for index in range(FIT_PICTURES):
        cells = 2 ** (index % 4 + 1)
        coarse = torch.rand(1, 3, cells, cells, generator=generator) * 2 - 1
        picture = F.interpolate(coarse, size=(FIT_PX, FIT_PX), mode="bilinear", align_corners=True)[0]
        for _ in range(index % 5):
            x, y, size, angle = torch.rand(4, generator=generator).tolist()
            colour = torch.rand(3, 1, generator=generator) * 2 - 1
            disc = (columns - x).square() + (rows - y).square() < (0.05 + 0.2 * size) ** 2
            bar = ((columns - x) * math.cos(angle * math.pi) + (rows - y) * math.sin(angle * math.pi)).abs() < 0.02 + 0.1 * size
            picture[:, disc if angle < 0.5 else bar] = colour
        pictures.append(picture)
    return pictures
