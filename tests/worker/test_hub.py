"""Models from the hub: fetched with progress, found in the cache when nobody answers, never a pickle."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdtui.protocol import DownloadProgress, LoadModel, ModelFailed, ModelLoaded

from .fake_hub import FakeHub
from .test_process import WorkerProcess


@pytest.fixture(scope="module")
def hub(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeHub]:
    folder = tmp_path_factory.mktemp("hub")
    with_extras = folder / "tiny"
    shutil.copytree(tiny_dir, with_extras)
    (with_extras / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle beside the safetensors")
    (with_extras / "sample.mp4").write_bytes(b"not a part of the model")
    pickled = folder / "pickled"
    shutil.copytree(tiny_dir, pickled)
    weights = pickled / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    server = FakeHub({"me/tiny": with_extras, "me/pickled": pickled}, gated=("me/gated",))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def worker(hub: FakeHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    process = WorkerProcess(
        tmp_path_factory.mktemp("home"), HF_ENDPOINT=hub.endpoint, HF_HUB_OFFLINE="0", HF_HUB_DISABLE_XET="1", HF_TOKEN=""
    )
    yield process
    process.stop()


@pytest.mark.parametrize(
    ("model", "says"),
    [("me/nothing", "has no model me/nothing"), ("me/gated", "accept its terms"), ("me/pickled", "pickle")],
)
def test_what_the_hub_does_not_give_is_said(worker: WorkerProcess, model: str, says: str) -> None:
    worker.send(LoadModel(model=model))
    failed = worker.until(ModelFailed, ModelLoaded)
    assert isinstance(failed, ModelFailed) and says in failed.message, failed


def test_a_model_is_fetched_once_and_then_found_without_the_hub(worker: WorkerProcess, hub: FakeHub) -> None:
    worker.send(LoadModel(model="me/tiny", variant="fp16"))
    loaded = worker.until(ModelLoaded, ModelFailed)
    assert isinstance(loaded, ModelLoaded), loaded
    progress = [event for event in worker.seen if isinstance(event, DownloadProgress)]
    weights = sum(file.stat().st_size for file in hub.models["me/tiny"].rglob("*.safetensors"))
    assert progress and progress[-1].done_bytes == progress[-1].total_bytes >= weights
    of_model = {name.removeprefix("me/tiny/") for name in hub.fetched if name.startswith("me/tiny/")}
    assert "unet/diffusion_pytorch_model.safetensors" in of_model
    assert not any(name.endswith((".bin", ".mp4")) for name in of_model), "only what the pipeline needs"

    hub.stop()
    worker.seen.clear()
    worker.send(LoadModel(model="me/tiny"))
    again = worker.until(ModelLoaded, ModelFailed)
    assert isinstance(again, ModelLoaded), again
    assert again.info.path == loaded.info.path
    worker.send(LoadModel(model="me/other"))
    assert "not in the cache" in worker.until(ModelFailed).message
