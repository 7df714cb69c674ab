"""A pickle is read on request, by `weights_only`: tensors come out, and code does not run."""

from __future__ import annotations

import pickle
import subprocess
from pathlib import Path

import pytest
import torch

from sdtui.anatomy.read import open_anatomy
from sdtui.anatomy.structs import Anatomy, PickleRefused
from sdtui.bench.layouts import sd1
from sdtui.worker.inspector.pickles import read_pickle
from sdtui.worker.inspector.problem import InspectionProblem


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[list[str]]]:
        return subprocess.check_output, (["touch", str(self.path)],)


def written(path: Path, held: object, *, zipped: bool = True) -> str:
    torch.save(held, path, _use_new_zipfile_serialization=zipped)
    return str(path)


def shapes(anatomy: Anatomy) -> dict[str, tuple[tuple[int, ...], str]]:
    return {
        weight.key: (weight.shape, weight.dtype)
        for component in anatomy.components
        for module in component.modules
        for weight in module.weights
    }


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "the old format"])
def test_a_checkpoint_of_training_code_is_the_tree_of_its_names(tmp_path: Path, zipped: bool) -> None:
    held = {name: torch.zeros(shape).half() for name, shape in sd1(channels=32, context=64, vae_channels=32, words=100).items()}
    path = written(tmp_path / "v1.ckpt", {"state_dict": held, "global_step": 7, "callbacks": {"x": [1, None]}}, zipped=zipped)
    found = read_pickle(path)
    assert [component.name for component in found.components] == ["unet", "vae", "text_encoder"]
    assert shapes(found) == {name: (tuple(tensor.shape), "F16") for name, tensor in held.items()}
    assert found.problems == ("It is a pickle, read with weights_only: its numbers were not looked at.",)
    assert found.parameters == sum(tensor.numel() for name, tensor in held.items() if not name.endswith("position_ids"))


def test_a_textual_inversion_and_a_lora_are_known(tmp_path: Path) -> None:
    embedding = {"string_to_token": {"*": torch.tensor(265)}, "string_to_param": {"*": torch.zeros(2, 768)}, "name": "x"}
    assert read_pickle(written(tmp_path / "word.pt", embedding)).parameters >= 2 * 768
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    lora = {
        f"{layer}.lora_down.weight": torch.zeros(4, 768), f"{layer}.lora_up.weight": torch.zeros(320, 4),
        f"{layer}.alpha": torch.tensor(2.0),
    }  # fmt: skip
    found = read_pickle(written(tmp_path / "style.pt", lora))
    assert found.kind == "lora"
    assert any(module.settings.get("alpha") == "2" for component in found.components for module in component.modules)


def test_code_in_a_pickle_is_refused_and_does_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    for name, write in (
        ("zip.ckpt", lambda path: torch.save({"state_dict": Bomb(mark)}, path)),
        ("plain.ckpt", lambda path: path.write_bytes(pickle.dumps({"state_dict": Bomb(mark)}))),
    ):
        write(tmp_path / name)
        with pytest.raises(PickleRefused) as refused:
            open_anatomy(str(tmp_path / name))
        assert refused.value.path == tmp_path / name
        with pytest.raises(InspectionProblem) as problem:
            read_pickle(str(tmp_path / name))
        assert str(problem.value).count("\n") == 0
    assert not mark.exists()


def test_what_is_no_pickle_or_holds_no_tensor_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "noise.ckpt").write_bytes(b"\x80\x02garbage")
    (tmp_path / "zip.ckpt").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "empty.ckpt").write_bytes(b"")
    written(tmp_path / "numbers.ckpt", {"epoch": 3, "deep": {"a": {"b": {"c": {"d": {"e": torch.zeros(1)}}}}}})
    whole = Path(written(tmp_path / "torn.ckpt", {"a.weight": torch.zeros(64, 64)}))
    whole.write_bytes(whole.read_bytes()[:-3000])
    for name in ("noise.ckpt", "zip.ckpt", "empty.ckpt", "numbers.ckpt", "torn.ckpt", "none.ckpt"):
        with pytest.raises(InspectionProblem) as problem:
            read_pickle(str(tmp_path / name))
        assert name in str(problem.value) and "\n" not in str(problem.value)
