"""What kitty holds: images with their frames, and what a program that sends a command learns."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec
import numpy as np

from sdtui.bench.screen.kitty_command import CHUNK_BYTES, Command, Refused, pixels
from sdtui.bench.screen.kitty_placements import Placement, Placements
from sdtui.bench.screen.pixels import Rgba

QUOTA_BYTES: Final = 320 << 20
"""kitty's `STORAGE_LIMIT`."""


class KittyImage(msgspec.Struct, kw_only=True):
    """An image in the terminal's memory."""

    id: int
    number: int
    frames: list[Rgba]
    bytes_held: int
    shown: int = 0
    """Index of the frame to draw."""


class Outcome(NamedTuple):
    """The answer, empty where none is wanted, and how far the cursor moves right and down."""

    answer: bytes = b""
    right: int = 0
    down: int = 0


class KittyGraphics:
    """Takes the text of each `APC G`; what is wrong with one goes to `errors`."""

    def __init__(
        self, cell_px: tuple[int, int], errors: list[str], *, placeholders: bool, frames: bool, quota_bytes: int = QUOTA_BYTES
    ) -> None:
        self.cell_px = cell_px
        self.images: dict[int, KittyImage] = {}
        self.placements = Placements()
        self.evicted = 0
        """Images dropped because the quota was reached."""
        self.transmissions = 0
        """Complete pictures that were sent, frames included."""
        self._errors, self._placeholders, self._frames, self._quota = errors, placeholders, frames, quota_bytes
        self._loading: Command | None = None
        self._chunks: list[bytes] = []
        self._anonymous = 0

    @property
    def bytes_held(self) -> int:
        """All that pixels take."""
        return sum(image.bytes_held for image in self.images.values())

    @property
    def unfinished(self) -> bool:
        """Whether chunks are still to come."""
        return self._loading is not None

    def take(self, body: bytes, row: int, column: int) -> Outcome:
        """Carry out a command that came while the cursor was there."""
        try:
            command = Command.parse(body)
        except ValueError as error:
            self._errors.append(f"graphics command ignored: {error}")
            return Outcome()
        if ("U" in command.keys and not self._placeholders) or (command.action in "fac" and not self._frames):
            self._errors.append(f"graphics command not known to this terminal: {command}")
            return Outcome()
        try:
            return self._carry_out(command, row, column)
        except Refused as error:
            self._loading = None
            if command.action != "q":
                self._errors.append(f"{error} ({command})")
            return Outcome(_answer(command, str(error)) if command.number("q") < 2 else b"")

    def _carry_out(self, command: Command, row: int, column: int) -> Outcome:
        if command.action in "tTfq":
            complete = self._assemble(command)
            if complete is None:
                return Outcome()
            first, payload = complete
            moved = self._receive(first, command, payload, row, column)
            quiet = max(first.number("q"), command.number("q")) > 0
            return moved if quiet else moved._replace(answer=_answer(first, "OK"))
        if self._loading is not None:
            raise Refused("EINVAL:a transmission is not complete")
        if command.action == "p":
            moved = self._place(command, self._image(command), row, column)
            return moved if command.number("q") else moved._replace(answer=_answer(command, "OK"))
        if command.action == "d":
            self._delete(command, row, column)
        elif command.action == "a":
            self._choose_frame(command)
        else:
            raise Refused(f"EINVAL:a={command.action} is not modelled")
        return Outcome()

    def _assemble(self, command: Command) -> tuple[Command, bytes] | None:
        """The first chunk's command and the whole payload, once there is no more to come."""
        if len(command.payload) > CHUNK_BYTES:
            self._errors.append(f"a chunk of {len(command.payload)} bytes, at most {CHUNK_BYTES}")
        first = self._loading
        if first is None:
            first, self._chunks = command, []
        else:
            _check_continuation(first, command)
        more = command.number("m") == 1
        if more and len(command.payload) % 4:
            self._errors.append("a chunk that is no multiple of 4 bytes, with more to come")
        self._chunks.append(command.payload)
        self._loading = first if more else None
        return None if more else (first, b"".join(self._chunks))

    def _receive(self, first: Command, last: Command, payload: bytes, row: int, column: int) -> Outcome:
        rgba, held = pixels(first, payload)
        if first.action == "q":
            return Outcome()
        self.transmissions += 1
        if first.action == "f":
            self._edit(self._image(first), first, last, rgba, held)
            return Outcome()
        image = self._store(first, rgba, held)
        return self._place(first, image, row, column) if first.action == "T" else Outcome()

    def _store(self, command: Command, rgba: Rgba, held: int) -> KittyImage:
        identity, number = command.number("i"), command.number("I")
        if identity and number:
            raise Refused("EINVAL:both i and I")
        if identity:
            self._free(identity)
        elif number:
            identity = 1 + max(0, *self.images)
        else:
            self._anonymous -= 1
            identity = self._anonymous
        self._make_room(held)
        self.images[identity] = KittyImage(id=identity, number=number, frames=[rgba], bytes_held=held)
        return self.images[identity]

    def _make_room(self, wanted: int) -> None:
        """As kitty does: first what is not on the screen, then what is oldest."""
        placed = self.placements.images
        for identity in sorted(self.images, key=lambda known: known in placed):
            if self.bytes_held + wanted <= self._quota:
                return
            self._free(identity)
            self.evicted += 1

    def _edit(self, image: KittyImage, first: Command, last: Command, rgba: Rgba, held: int) -> None:
        """Which frame is edited, the last chunk says; without a number there the data become a new frame."""
        number = last.number("r")
        if number != first.number("r"):
            self._errors.append("the last chunk of a frame does not repeat r: the data become another frame")
        height, width = image.frames[0].shape[:2]
        left, top = first.number("x"), first.number("y")
        if left + rgba.shape[1] > width or top + rgba.shape[0] > height:
            raise Refused(f"EINVAL:a frame of {rgba.shape[1]}x{rgba.shape[0]} pixels in an image of {width}x{height}")
        if not 1 <= number <= len(image.frames):
            base = first.number("c")
            below = image.frames[base - 1] if 1 <= base <= len(image.frames) else np.zeros((height, width, 4), np.uint8)
            self._make_room(held)
            image.frames.append(below)
            image.bytes_held += held
            number = len(image.frames)
        image.frames[number - 1] = _composed(image.frames[number - 1], rgba, left, top, replace=first.number("X") == 1)

    def _image(self, command: Command) -> KittyImage:
        identity, number = command.number("i"), command.number("I")
        for image in reversed(self.images.values()):
            if (identity and image.id == identity) or (not identity and number and image.number == number):
                return image
        raise Refused(f"ENOENT:no image {identity or number}")

    def _choose_frame(self, command: Command) -> None:
        image = self._image(command)
        if 1 <= command.number("c") <= len(image.frames):
            image.shown = command.number("c") - 1

    def _place(self, command: Command, image: KittyImage, row: int, column: int) -> Outcome:
        height, width = image.frames[0].shape[:2]
        left, top = min(command.number("x"), width), min(command.number("y"), height)
        source = (command.number("w") or width - left, command.number("h") or height - top)
        placement = Placement(
            image=image.id,
            id=command.number("p"),
            row=row,
            column=column,
            columns=command.number("c"),
            rows=command.number("r"),
            source=(left, top, min(source[0], width - left), min(source[1], height - top)),
            offset=(command.number("X"), command.number("Y")),
            z=command.number("z"),
            virtual=command.number("U") == 1,
        )
        if min(placement.source[2:]) <= 0:
            raise Refused("EINVAL:a part outside the image")
        self.placements.put(placement)
        columns, rows = placement.size(self.cell_px)
        stays = placement.virtual or command.number("C") == 1
        return Outcome() if stays else Outcome(right=columns, down=rows - 1)

    def _delete(self, command: Command, row: int, column: int) -> None:
        what = command.keys.get("d", "a")
        touched: set[int] = set()
        if what in "aA":
            touched = self.placements.remove_visible()
        elif what in "cC":
            touched = self.placements.remove_visible(lambda placement: placement.covers(row, column, self.cell_px))
        elif what in "zZ":
            touched = self.placements.remove_visible(lambda placement: placement.z == command.number("z"))
        elif what in "iInN":
            wanted = command.number(what.lower() if what in "iI" else "I")
            held = [image.id for image in self.images.values() if wanted == (image.id if what in "iI" else image.number)]
            for identity in held[-1:]:
                self.placements.remove_image(identity, command.number("p"))
                touched = {identity}
        else:
            raise Refused(f"EINVAL:d={what} is not modelled")
        if what.isupper():
            self._free_all(touched - self.placements.images)

    def _free(self, identity: int) -> None:
        self.images.pop(identity, None)
        self.placements.remove_image(identity)

    def _free_all(self, identities: set[int]) -> None:
        for identity in identities:
            self._free(identity)

    def clear_screen(self) -> None:
        """ED 2 takes what is visible, and frees what is then nowhere."""
        self._free_all(self.placements.remove_visible() - self.placements.images)


def _check_continuation(first: Command, command: Command) -> None:
    """Further chunks carry `m`; what they repeat must be what the first one said."""
    if first.action == "f" and "a" not in command.keys:
        raise Refused("EINVAL:a further chunk of a frame must repeat a=f")
    for key, value in command.keys.items():
        if key not in "mqr" and value != first.keys.get(key):
            raise Refused(f"EINVAL:{key}={value} within a transmission that is not complete")


def _composed(frame: Rgba, rgba: Rgba, left: int, top: int, *, replace: bool) -> Rgba:
    """The frame with a picture laid on it, or put in its place."""
    frame = frame.copy()
    target = frame[top : top + rgba.shape[0], left : left + rgba.shape[1]]
    if replace:
        target[:] = rgba
    else:
        share = rgba[..., 3:].astype(np.float32) / 255
        target[..., :3] = np.rint(rgba[..., :3] * share + target[..., :3] * (1 - share))
        target[..., 3] = np.maximum(target[..., 3], rgba[..., 3])
    return frame


def _answer(command: Command, text: str) -> bytes:
    named = [f"{key}={command.keys[key]}" for key in "iIp" if command.number(key)]
    if not named or named[0].startswith("p"):
        return b""
    if command.action == "f" and command.number("r"):
        named.append(f"r={command.number('r')}")
    return f"\x1b_G{','.join(named)};{text}\x1b\\".encode()
