"""Moving pictures, written frame by frame: MP4, animated WebP and GIF, by FFmpeg's libraries. `av` comes with it: import it late.

None of them keeps the frames: the memory a clip takes does not grow with its length.
"""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Protocol

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

_THREADS: Final = 4
"""Each thread of an encoder holds frames of its own."""
_PALETTE_PX: Final = 48
"""Side of the picture whose colours a GIF's palette is made for: nine places for each colour. Of 64 it looks no better."""
_BT709: Final = 1
"""In ITU-T H.273's tables of primaries, transfer characteristics and matrix coefficients alike."""


class Clip(Protocol):
    """A moving picture that is written."""

    def add(self, picture: Image.Image, seconds: Fraction) -> None:
        """The next frame, RGB, and how long it stays. Raises `OSError`, `av.FFmpegError`."""

    def finish(self) -> None:
        """Write the end. Raises `OSError`, `av.FFmpegError`."""

    def close(self) -> None:
        """Let go of the file; a second time does nothing."""


class _Clip:
    """What the three have in common: a container with one stream, and the time of the next frame."""

    def __init__(self, path: Path, container: str, options: dict[str, str]) -> None:
        self._container = av.open(str(path), "w", format=container, options=options)
        self._stream: Any
        self._at = Fraction(0)
        """Seconds from the beginning to the next frame."""

    def _open(self, codec: str, size: tuple[int, int], pix_fmt: str, clock: Fraction, options: dict[str, str]) -> None:
        self._stream = self._container.add_stream(codec, options=options)
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt = pix_fmt
        self._stream.codec_context.time_base = clock
        self._stream.codec_context.thread_count = _THREADS
        self._clock = clock

    def _ticks(self) -> int:
        return round(self._at / self._clock)

    def _encode(self, frame: av.VideoFrame | None, ticks: int = 0) -> None:
        """None flushes. `ticks`: how long the last frame stays, for formats that do not see it from the next one."""
        for packet in self._stream.encode(frame):
            if ticks:
                packet.duration = ticks
            self._container.mux(packet)

    def finish(self) -> None:
        """Write the end."""
        self._encode(None)
        self._container.close()

    def close(self) -> None:
        """Let go of the file."""
        with suppress(OSError, av.FFmpegError, ValueError):
            self._container.close()


class Mp4(_Clip):
    """H.264 in MP4 with its index in front, as browsers play it: yuv420p, BT.709, a constant rate of frames.

    A frame that stays is repeated, which costs next to nothing: some players cut a long last frame short.
    """

    def __init__(self, path: Path, size: tuple[int, int], rate: Fraction) -> None:
        """Both sides of `size` must be even; `rate` is in frames a second."""
        super().__init__(path, "mp4", {"movflags": "+faststart"})
        # CRF 17 keeps the grain of noise. A lookahead of 10 frames instead of 40 keeps 15 MB less of 512x512 px.
        options = {"crf": "17", "preset": "veryfast", "rc-lookahead": "10"}
        self._open("libx264", size, "yuv420p", 1 / rate, options)
        context = self._stream.codec_context
        context.framerate = rate
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        context.color_range = ColorRange.MPEG

    def add(self, picture: Image.Image, seconds: Fraction) -> None:
        """The next frame, repeated for as long as it stays."""
        shown = _frame(picture).reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
        for _ in range(max(1, round(seconds / self._clock))):
            shown.pts, shown.time_base = self._ticks(), self._clock
            self._encode(shown)
            self._at += self._clock


class WebP(_Clip):
    """Animated WebP that plays for ever; its clock has milliseconds."""

    def __init__(self, path: Path, size: tuple[int, int], *, smooth: bool) -> None:
        """Frames of squares are kept without loss, which for them is small, quick and exact; smooth ones are not."""
        super().__init__(path, "webp", {"loop": "0"})
        if smooth:
            options = {"quality": "85", "compression_level": "2"}
        else:
            options = {"lossless": "1", "quality": "20", "compression_level": "0"}
        # `libwebp` encodes each frame alone; `libwebp_anim` would keep all of them until the end.
        self._open("libwebp", size, "yuv420p" if smooth else "bgra", Fraction(1, 1000), options)

    def add(self, picture: Image.Image, seconds: Fraction) -> None:
        """The next frame."""
        shown = _frame(picture).reformat(format=self._stream.pix_fmt)
        shown.pts, shown.time_base = self._ticks(), self._clock
        begin = self._ticks()
        self._at += seconds
        self._encode(shown, max(1, self._ticks() - begin))


class Gif(_Clip):
    """GIF that plays for ever, each frame with 256 colours of its own; its clock has hundredths of a second."""

    MOST_FPS: Final = 50
    """Browsers slow down frames that stay for less than two hundredths of a second."""

    def __init__(self, path: Path, size: tuple[int, int], last: Fraction, *, smooth: bool) -> None:
        """`last`: seconds the last frame stays. Smooth frames are dithered by error diffusion, squares are not."""
        clock = Fraction(1, 100)
        super().__init__(path, "gif", {"loop": "0", "final_delay": str(max(2, round(last / clock)))})
        self._open("gif", size, "pal8", clock, {})
        self._dither = Image.Dither.FLOYDSTEINBERG if smooth else Image.Dither.NONE

    def add(self, picture: Image.Image, seconds: Fraction) -> None:
        """The next frame."""
        shown = _in_256_colours(picture, self._dither)
        shown.pts, shown.time_base = self._ticks(), self._clock
        self._encode(shown)
        self._at += seconds


def _in_256_colours(picture: Image.Image, dither: Image.Dither) -> av.VideoFrame:
    """A frame with a palette that covers its colours.

    FFmpeg's `palettegen` and `paletteuse` look no better, and take six times as long for pictures of many colours.
    """
    few = picture.resize((_PALETTE_PX, _PALETTE_PX), Image.Resampling.NEAREST)
    palette = few.quantize(256, method=Image.Quantize.MAXCOVERAGE)
    indices = np.array(picture.quantize(palette=palette, dither=dither))
    colours = np.full((256, 4), 255, np.uint8)  # alpha, red, green, blue
    known = np.array(palette.getpalette("RGB"), np.uint8).reshape(-1, 3)
    colours[: len(known), 1:] = known
    with_palette: Any = (indices, colours)  # which PyAV's stubs do not know, but its documentation
    return av.VideoFrame.from_ndarray(with_palette, format="pal8")


def _frame(picture: Image.Image) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")
