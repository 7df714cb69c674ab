"""Two models' numbers are compared as they are, in whatever dtype, layout and pieces they lie."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sdtui.protocol import CompareWeights, WeightsCompared
from sdtui.worker.inspector import weights
from sdtui.worker.inspector.opened import open_model
from sdtui.worker.inspector.problem import InspectionProblem
from sdtui.worker.inspector.weights_diff import compare


def compared(folder: Path, left: dict[str, torch.Tensor], right: dict[str, torch.Tensor], path: str = "") -> WeightsCompared:
    one, two = folder / "one.safetensors", folder / "two.safetensors"
    save_file(left, one)
    save_file(right, two)
    here = open_model(str(one))
    request = CompareWeights(request=3, model=str(one), other=str(two), component=here.components[0].name, path=path)
    return compare(here, open_model(str(two)), request)


@pytest.fixture(params=[1 << 20, 100], ids=["in one piece", "in pieces"])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_PIECE", request.param)


@pytest.mark.usefixtures("piece")
def test_changes_are_those_of_the_numbers_and_the_greatest_share_comes_first(tmp_path: Path) -> None:
    torch.manual_seed(0)
    left = {f"{name}.weight": torch.randn(16, 4, 3, 3) for name in ("a", "b", "c")}
    change = torch.zeros(16, 4, 3, 3)
    change[:, 0] = torch.randn(16, 3, 3)
    right = {"a.weight": left["a.weight"] + 0.1 * change, "b.weight": left["b.weight"] + change, "c.weight": left["c.weight"]}
    found = compared(tmp_path, left, right)
    assert (found.request, found.compared, found.same) == (3, 3, 1)
    assert [entry.path for entry in found.differences] == ["b", "a"]
    first = found.differences[0]
    exact = right["b.weight"].double() - left["b.weight"].double()
    assert first.norm == pytest.approx(float(left["b.weight"].double().norm()), rel=1e-12)
    assert first.change == pytest.approx(float(exact.norm()), rel=1e-12)
    assert first.absmax == float(exact.abs().max())
    assert first.changed == 0.25
    assert not first.faults


@pytest.mark.usefixtures("piece")
def test_another_dtype_alone_is_no_change(tmp_path: Path) -> None:
    left = {"a.weight": torch.randn(8, 32).half()}
    assert compared(tmp_path, left, {"a.weight": left["a.weight"].float()}).same == 1
    changed = compared(tmp_path, left, {"a.weight": left["a.weight"].bfloat16()})
    assert changed.differences[0].change / changed.differences[0].norm < 2**-8


@pytest.mark.usefixtures("piece")
def test_what_is_not_finite_is_counted_beside_the_change(tmp_path: Path) -> None:
    left = torch.arange(400, dtype=torch.float32).reshape(20, 20)
    left[0, :3] = torch.tensor([math.nan, math.inf, math.inf])
    right = left.clone()
    right[0, 2] = -math.inf
    right[19, 0] = math.nan
    right[19, 1] += 3
    (only,) = compared(tmp_path, {"a.weight": left}, {"a.weight": right}).differences
    assert (only.faults, only.change, only.absmax, only.changed) == (2, 3.0, 3.0, 3 / 400)
    assert "2 of them not finite on one side" in only.told
    assert compared(tmp_path, {"a.weight": left}, {"a.weight": left.clone()}).same == 1


def test_a_change_from_zero_is_told_as_it_is(tmp_path: Path) -> None:
    (only,) = compared(tmp_path, {"a.weight": torch.zeros(4, 4)}, {"a.weight": torch.ones(4, 4)}).differences
    assert only.told == "changed from 0 to a norm of 4, a number at most by 1; all numbers"


def test_a_branch_alone_is_read_and_one_that_is_in_neither_is_said(tmp_path: Path) -> None:
    left = {"down.a.weight": torch.zeros(2, 2), "downer.weight": torch.zeros(2, 2), "up.weight": torch.zeros(2, 2)}
    right = {name: tensor + 1 for name, tensor in left.items()}
    assert compared(tmp_path, left, right, "down").compared == 1
    assert compared(tmp_path, left, right).compared == 3
    with pytest.raises(InspectionProblem, match=r"At \w+.mid the models have no tensor of the same name and shape"):
        compared(tmp_path, left, right, "mid")


def test_tensors_of_other_shapes_are_left_to_the_comparison_of_structure(tmp_path: Path) -> None:
    left = {"a.weight": torch.zeros(4, 4), "b.weight": torch.zeros(4, 4)}
    right = {"a.weight": torch.zeros(4, 8), "b.weight": torch.zeros(4, 4, 1, 1)}
    found = compared(tmp_path, left, right)
    assert (found.compared, found.same) == (1, 1)
