"""The sentences that a user reads when memory ran out: what was needed, what there is, who has the rest, and what to set.

Each parameter is named as the form names it and as the command line takes it: `Dtype float16 (--dtype float16)`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final, NamedTuple

from sdtui.params import BY_FIELD
from sdtui.text import format_bytes
from sdtui.worker.memory_fit import Fit, Need, Place, Refusal, Switch, Work

_WORTH_CLOSING_BYTES: Final = 256 << 20
"""What other programs must hold to be spoken of: a desktop's share is always there."""
_NO_GUIDANCE: Final = 1
_WHOLE_PIECES: Final = "PYTORCH_ALLOC_CONF=expandable_segments:True"


class Advice(NamedTuple):
    """What to say, and which parameter to go to."""

    message: str
    field: str | None = None


def shortage_text(place: Place, refusal: Refusal, *, free_now_bytes: int = 0) -> str:
    """That memory ran out, where, how much was asked for and how much there is.

    `free_now_bytes` is said where the allocator said nothing: what is free since the try was given up.
    """
    needed = f"{format_bytes(refusal.needed_bytes)} more were needed" if refusal.needed_bytes else ""
    free = f"{format_bytes(refusal.free_bytes)} are free" if refusal.free_bytes else ""
    free = free or (f"{format_bytes(free_now_bytes)} are free now" if free_now_bytes else "")
    stage = f" in stage {refusal.stage}" if refusal.stage else ""
    return f"The memory of {_device(place)} ran out{stage}{_figures(needed, free, _others(place))}."


def job_advice(place: Place, work: Work, need: Need, refusal: Refusal, *, tried: str = "") -> Advice:
    """Why a job failed for want of memory, and what makes it fit. `tried` is what did not help."""
    in_vain = f" It did not help that {tried}." if tried else ""
    fix = _fix(Fit(place, work, need, refusal))
    return Advice(f"{shortage_text(place, refusal)}{in_vain} {fix.message}", fix.field)


def loading_advice(model: str, place: Place, work: Work, need: Need, refusal: Refusal) -> Advice:
    """Why a model could not be loaded, and with which dtype, or where else, it could. `work` is what it was made for."""
    fit = Fit(place, work, need, dataclasses.replace(refusal, stage="load"))
    takes = f"its weights take {format_bytes(need.weight_bytes)} in {work.dtype}" if need.weight_bytes else ""
    room = f"there is room for {format_bytes(place.room_bytes)}" if place.room_bytes else ""
    fix = _fix_loading(fit)
    figures = _figures(takes, room, _others(place))
    return Advice(f"Model {model} does not fit into the memory of {_device(place)}{figures}. {fix.message}", fix.field)


def next_time(place: Place, work: Work, need: Need, refusal: Refusal, *, pictures: int) -> str:
    """What to set so that a job like one that was done all the same needs no remedy; empty where nothing does.

    `pictures` is how many at a time did fit in the end.
    """
    fit = Fit(place, work, need, refusal, remedied=False)
    wishes = [_named(work, dataclasses.replace(work, batch_size=pictures))] if pictures < work.batch_size else []
    found = fit.switches() if place.room_bytes else []
    wishes += [_named(fit.work, switch.to) for switch in found if not (wishes and switch.to.batch_size < work.batch_size)]
    if fit.place.others_bytes >= _WORTH_CLOSING_BYTES and fit.fits(fit.work, more_bytes=place.others_bytes):
        wishes.append(f"close the other programs, which hold about {format_bytes(place.others_bytes)}")
    return f"For the next job: {'; or '.join(dict.fromkeys(wishes))}." if wishes else ""


# --- what makes it fit ----------------------------------------------------------------------------------------------------


def _fix(fit: Fit) -> Advice:
    if not fit.place.room_bytes:
        return Advice("A smaller picture needs less (--width, --height), and so do fewer at a time (--batch-size).", "width")
    found = fit.switches()
    if not found:
        return _nothing_fits(fit, f"{_balance(fit)} {_least(fit)}")
    fixes = "; or ".join(f"{_named(fit.work, switch.to)}, {_cost(fit, switch)}" for switch in found)
    return Advice(f"{_balance(fit)} To make it fit: {fixes}.{_slower(found)}{_closing(fit)}", _changed(fit.work, found[0].to)[0])


def _balance(fit: Fit) -> str:
    takes, room = fit.need_bytes(fit.work, fit.way), fit.place.room_bytes
    if fit.in_pieces:
        return (
            f"It takes about {format_bytes(takes)} of the {format_bytes(room)} that there is room for, but "
            f"{format_bytes(fit.refusal.cached_bytes)} of that are in pieces that are too small; fewer are left where the "
            f"server is started with {_WHOLE_PIECES} in its environment."
        )
    if round(takes / room, 2) <= 1:
        return f"It takes more than the {format_bytes(room)} that there is room for."
    much = "at least" if fit.measured else "about"
    return f"It takes {much} {format_bytes(takes)}, and there is room for {format_bytes(room)}."


def _cost(fit: Fit, switch: Switch, picture: str = "") -> str:
    cost = f"about {format_bytes(switch.need_bytes)}{picture}"
    if switch.to.dtype != fit.work.dtype and fit.need.weight_bytes:
        before, after = format_bytes(fit.need.weight_bytes), format_bytes(fit.weights(switch.to.dtype))
        cost += f", as the weights shrink from {before} to {after}"
    return cost


def _slower(found: Sequence[Switch]) -> str:
    if found[0].way == "whole":
        return ""
    return " Parts of the model are then kept off the device; that comes by itself, and is slower."


def _fix_loading(fit: Fit) -> Advice:
    work = fit.work
    half = fit.place.half_dtype if work.dtype == "float32" else ""
    to_half = _named(work, dataclasses.replace(work, dtype=half)) if half else ""
    if half and not fit.need.weight_bytes:
        return Advice(f"{to_half} would halve what its weights take.", "dtype")
    found = fit.switches() if fit.place.room_bytes else []
    if found:
        fixed, to = found[0], found[0].to
        picture = f" with a picture of {to.width_px}x{to.height_px} px" if fit.need.peaks else ""
        return Advice(
            f"To make it fit: {_named(work, to)}, {_cost(fit, fixed, picture)}.{_slower(found)}{_closing(fit)}",
            _changed(work, to)[0],
        )
    if half:
        return _nothing_fits(
            fit, f"It would not fit with {to_half} either: its weights take {format_bytes(fit.weights(half))} then."
        )
    return _nothing_fits(fit, "There is no smaller dtype to set.")


def _nothing_fits(fit: Fit, why: str) -> Advice:
    """Honestly that no parameter helps, and where else there is room."""
    closing, cpu = _closing(fit), _cpu(fit)
    if not closing and not cpu:
        closing = " Close other programs, or use a smaller model." if fit.place.is_cpu else " A smaller model may fit."
    return Advice(f"{why}{closing}{cpu}", "device" if cpu else None)


def _least(fit: Fit) -> str:
    least = fit.least()
    changes = _named(fit.work, least.to)
    even = f"even with {changes} it" if changes else "it"
    return f"Nothing that can be set makes it fit: {even} would take about {format_bytes(least.need_bytes)}."


def _closing(fit: Fit) -> str:
    others = fit.place.others_bytes
    if others < _WORTH_CLOSING_BYTES or not any(fit.fits(fit.work, way, more_bytes=others) for way in fit.ways):
        return ""
    return f" As it is it would fit without the other programs, which hold about {format_bytes(others)}."


def _cpu(fit: Fit) -> str:
    """Where the computer's own memory has room for what the GPU has not."""
    place, work = fit.place, dataclasses.replace(fit.work, dtype="float32")
    if place.is_cpu or not fit.need.weight_bytes or not fit.fits(work, more_bytes=place.ram_bytes - place.room_bytes):
        return ""
    figures = f"about {format_bytes(fit.need_bytes(work))} of the {format_bytes(place.ram_bytes)} that are free"
    return f" The CPU has room for it, and is slow: Device cpu (--device cpu), {figures}."


# --- words ----------------------------------------------------------------------------------------------------------------


def _figures(*parts: str) -> str:
    figures = ", ".join(filter(None, parts))
    return f": {figures}" if figures else ""


def _device(place: Place) -> str:
    inside = ", ".join(
        filter(None, ("" if place.is_cpu else place.name, format_bytes(place.total_bytes) if place.total_bytes else ""))
    )
    name = "the CPU" if place.is_cpu else place.device
    return f"{name} ({inside})" if inside else name


def _others(place: Place) -> str:
    if place.others_bytes < _WORTH_CLOSING_BYTES:
        return ""
    return f"other programs hold about {format_bytes(place.others_bytes)}"


def _changed(work: Work, to: Work) -> list[str]:
    """The parameters that differ, by their names."""
    return [
        field
        for field, differs in (
            ("dtype", work.dtype != to.dtype),
            ("batch_size", work.batch_size != to.batch_size),
            ("width", work.width_px != to.width_px),
            ("height", work.height_px != to.height_px),
            ("guidance_scale", work.guided != to.guided),
        )
        if differs
    ]


def _named(work: Work, to: Work) -> str:
    """The parameters that differ, as the form and as the command line name them."""
    values = {
        "dtype": to.dtype,
        "batch_size": to.batch_size,
        "width": to.width_px,
        "height": to.height_px,
        "guidance_scale": _NO_GUIDANCE,
    }
    fields = _changed(work, to)
    labels = [f"{BY_FIELD[field].spec.label} {values[field]}" for field in fields]
    flags = " ".join(f"--{BY_FIELD[field].spec.flag} {values[field]}" for field in fields)
    return f"{_listed(labels)} ({flags})" if fields else ""


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))
