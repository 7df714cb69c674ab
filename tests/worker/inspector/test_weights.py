"""A tensor's figures are those of its numbers, whatever they are, and however large the tensor is."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sdtui.bench.layouts import write_sparse
from sdtui.protocol import MeasureWeight, WeightMeasured, encode
from sdtui.worker.inspector import weights
from sdtui.worker.inspector.opened import open_model
from sdtui.worker.inspector.problem import InspectionProblem
from sdtui.worker.inspector.weights import BINS, measure

KEY = "conv_in.weight"


def figures(folder: Path, tensor: torch.Tensor, *, singular_values: bool = False) -> WeightMeasured:
    path = folder / "model.safetensors"
    before = torch.full((3,), 7.0)  # another tensor lies in front of it
    save_file({"a.bias": before, KEY: tensor, "z.bias": before.clone()}, path)
    return ask(path, KEY, singular_values=singular_values)


def ask(path: Path, key: str, *, singular_values: bool = False) -> WeightMeasured:
    anatomy = open_model(str(path))
    name = anatomy.components[0].name
    return measure(anatomy, MeasureWeight(request=5, model=str(path), component=name, key=key, singular_values=singular_values))


@pytest.fixture(params=[1 << 20, 100], ids=["in one piece", "in pieces"])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_PIECE", request.param)


@pytest.mark.usefixtures("piece")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_figures_are_those_of_the_numbers(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    tensor = (torch.randn(32, 4, 3, 3) * 3 + 1).to(dtype)
    exact = tensor.to(torch.float64)
    found = figures(tmp_path, tensor)
    assert (found.request, found.shape, found.count) == (5, (32, 4, 3, 3), 1152)
    assert (found.minimum, found.maximum) == (float(exact.min()), float(exact.max()))
    assert found.mean == pytest.approx(float(exact.mean()), rel=1e-12)
    assert found.std == pytest.approx(float(exact.std(correction=0)), rel=1e-12)
    assert found.norm == pytest.approx(float(exact.norm()), rel=1e-12)
    assert sum(found.histogram) == 1152 and len(found.histogram) == BINS
    edges = torch.linspace(float(exact.min()), float(exact.max()), BINS + 1, dtype=torch.float64)
    counted = torch.histogram(exact.flatten(), bins=edges)[0]
    assert (counted - torch.tensor(found.histogram)).abs().sum() <= 4, "numbers on an edge may fall to either side"


@pytest.mark.usefixtures("piece")
def test_what_is_no_number_is_counted_and_left_out(tmp_path: Path) -> None:
    tensor = torch.arange(400, dtype=torch.float32)
    tensor[3], tensor[200], tensor[201] = math.nan, math.inf, -math.inf
    tensor[10:30] = 0
    found = figures(tmp_path, tensor)
    assert (found.nans, found.infinities, found.count) == (1, 2, 400)
    assert found.zeros == 21 / 400
    assert (found.minimum, found.maximum, sum(found.histogram)) == (0.0, 399.0, 397)
    finite = tensor[tensor.isfinite()].double()
    assert found.mean == pytest.approx(float(finite.mean()))
    assert found.std == pytest.approx(float(finite.std(correction=0)))


def test_a_tensor_of_nothing_but_nan_has_no_figures(tmp_path: Path) -> None:
    found = figures(tmp_path, torch.full((5, 5), math.nan))
    assert (found.minimum, found.maximum, found.mean, found.std, found.norm) == (None,) * 5
    assert (found.nans, sum(found.histogram)) == (25, 0)
    assert json.dumps(found.mean) == "null" and encode(found)


@pytest.mark.parametrize("value", [0.0, -2.5, 1e300])
def test_a_constant_is_all_in_one_bin(tmp_path: Path, value: float) -> None:
    found = figures(tmp_path, torch.full((300,), value, dtype=torch.float64))
    assert (found.minimum, found.maximum, found.mean) == (value, value, pytest.approx(value))
    assert found.std == pytest.approx(0, abs=abs(value) * 1e-12)
    assert max(found.histogram) == 300


def test_an_empty_tensor_and_a_single_number(tmp_path: Path) -> None:
    empty = figures(tmp_path, torch.zeros(0, 4))
    assert (empty.count, empty.minimum, empty.zeros, sum(empty.histogram)) == (0, None, 0.0, 0)
    assert figures(tmp_path, torch.tensor(3.0)).mean == 3.0


def test_numbers_at_the_ends_of_the_range_do_not_overflow(tmp_path: Path) -> None:
    found = figures(tmp_path, torch.tensor([-1.7e308, 1.7e308, 0.0], dtype=torch.float64))
    assert found.norm is None or math.isfinite(found.norm)
    assert sum(found.histogram) == 3 and found.histogram[0] == found.histogram[-1] == 1
    assert found.mean == pytest.approx(0)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool])
def test_whole_numbers_are_numbers(tmp_path: Path, dtype: torch.dtype) -> None:
    found = figures(tmp_path, torch.tensor([0, 1, 1, 1], dtype=dtype))
    assert (found.minimum, found.maximum, found.mean, found.zeros) == (0.0, 1.0, 0.75, 0.25)


def test_the_mean_of_many_equal_digits_is_not_lost(tmp_path: Path) -> None:
    tensor = torch.full((200_000,), 1e6, dtype=torch.float64)
    tensor[::2] += 1e-3
    found = figures(tmp_path, tensor)
    assert found.std == pytest.approx(5e-4, rel=1e-3)


# --- singular values ------------------------------------------------------------------------------------------------


def test_singular_values_are_those_of_the_matrix(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tensor = torch.randn(8, 2, 3, 3)
    found = figures(tmp_path, tensor, singular_values=True)
    exact = torch.linalg.svdvals(tensor.double().reshape(8, 18))
    assert found.singular_values == pytest.approx(exact.tolist()) and found.note == ""
    assert figures(tmp_path, tensor).singular_values is None, "they were not asked for"


@pytest.mark.parametrize(
    ("tensor", "why"),
    [
        (torch.zeros(7), "no matrix"),
        (torch.zeros(0, 3), "no matrix"),
        (torch.full((3, 3), math.nan), "NaN"),
        (torch.zeros(2049, 2049), "too large"),
    ],
)
def test_where_there_are_no_singular_values_it_is_said_why(tmp_path: Path, tensor: torch.Tensor, why: str) -> None:
    found = figures(tmp_path, tensor, singular_values=True)
    assert found.singular_values is None and why in found.note


# --- files ----------------------------------------------------------------------------------------------------------


def test_a_large_tensor_is_never_in_memory_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_sparse(tmp_path / "large.safetensors", {"embeddings.token_embedding.weight": (4096, 2048)})
    longest, real = 0, torch.frombuffer

    def watched(data: bytearray, dtype: torch.dtype) -> torch.Tensor:
        nonlocal longest
        longest = max(longest, len(data))
        return real(data, dtype=dtype)

    monkeypatch.setattr(torch, "frombuffer", watched)
    found = ask(path, "embeddings.token_embedding.weight")
    assert (found.count, found.zeros) == (4096 * 2048, 1.0)
    assert 0 < longest <= 4 << 20


def test_a_file_that_ends_while_it_is_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_sparse(tmp_path / "short.safetensors", {KEY: (4096, 2048)})
    real = weights.locate_tensor

    def cut(*args: object) -> object:
        found = real(*args)  # type: ignore[arg-type]
        with path.open("r+b") as file:
            file.truncate(1_000_000)
        return found

    monkeypatch.setattr(weights, "locate_tensor", cut)
    with pytest.raises(InspectionProblem, match="ended while it was read"):
        ask(path, KEY)


def test_a_tensor_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = write_sparse(tmp_path / "model.safetensors", {KEY: (1, 4, 1, 1)})
    with pytest.raises(InspectionProblem, match=r"no tensor 'conv_out\.weight'"):
        ask(path, "conv_out.weight")
    with pytest.raises(InspectionProblem, match="no component 'vae'"):
        measure(open_model(str(path)), MeasureWeight(request=1, model=str(path), component="vae", key=KEY))


def test_a_dtype_that_is_not_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    header = json.dumps({KEY: {"dtype": "C64", "shape": [2], "data_offsets": [0, 16]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    with pytest.raises(InspectionProblem, match="'C64' are not read"):
        ask(path, KEY)
