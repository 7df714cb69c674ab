"""How two models' tensors differ in their numbers, read side by side in pieces."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

from sdtui.anatomy.diff import Pair, pairs
from sdtui.anatomy.structs import Anatomy, Component
from sdtui.checkpoint import CheckpointError
from sdtui.protocol import CompareWeights, WeightDifference, WeightsCompared
from sdtui.text import safe_text
from sdtui.worker.inspector.opened import component_of
from sdtui.worker.inspector.problem import InspectionProblem
from sdtui.worker.inspector.weights import locate_tensor

_MOST: Final = 5_000
"""Tensors in one answer; SDXL's U-Net has 1,680."""


def compare(left: Anatomy, right: Anatomy, request: CompareWeights) -> WeightsCompared:
    """The differences in the numbers of a component's branch. Raises `InspectionProblem`."""
    one, two = component_of(left, request.component), component_of(right, request.component)
    found = pairs(left, right, request.component, request.path)
    if not found:
        where = ".".join(part for part in (request.component, request.path) if part)
        raise InspectionProblem(f"At {safe_text(where, limit=160)} the models have no tensor of the same name and shape.")
    try:
        told = [_difference(pair, one, two) for pair in found]
    except OSError as error:
        named = safe_text(str(error.filename or request.other), limit=300)
        raise InspectionProblem(f"{named} cannot be read: {error.strerror}.") from error
    except CheckpointError as error:
        raise InspectionProblem(str(error)) from error
    differing = sorted((difference for difference in told if difference is not None), key=_share, reverse=True)
    return WeightsCompared(
        request=request.request,
        component=request.component,
        path=request.path,
        other=request.other,
        compared=len(found),
        same=len(found) - len(differing),
        differences=tuple(differing[:_MOST]),
    )


def _share(difference: WeightDifference) -> float:
    if difference.faults:
        return math.inf
    return difference.change / difference.norm if difference.norm else difference.change and math.inf


def _difference(pair: Pair, left: Component, right: Component) -> WeightDifference | None:
    """None where all numbers are the same."""
    here, _, _ = locate_tensor(Path(left.files[pair.left.file]), pair.left.key)
    there, _, _ = locate_tensor(Path(right.files[pair.right.file]), pair.right.key)
    squares = change_squares = absmax = 0.0
    changed = faults = 0
    for one, two in zip(here.pieces(), there.pieces(), strict=True):
        differs = (one != two) & ~(one.isnan() & two.isnan())
        count = int(differs.sum())
        if count:
            sound = one.isfinite() & two.isfinite()
            faults += int((differs & ~sound).sum())
            change = (two - one)[sound]
            change_squares += float(change.square().sum())
            absmax = max(absmax, float(change.abs().max()) if len(change) else 0.0)
            changed += count
        squares += float(one.nan_to_num(0.0, 0.0, 0.0).square().sum())
    if not changed:
        return None
    return WeightDifference(
        path=pair.path,
        name=pair.left.name,
        norm=math.sqrt(squares),
        change=math.sqrt(change_squares),
        absmax=absmax,
        changed=changed / here.numbers,
        faults=faults,
    )
