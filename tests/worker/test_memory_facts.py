"""Where the figures come from: the device, the limits of the process, the model; and the whole way to the job's failure."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from diffusers import StableDiffusionPipeline

from sdtui.params import SHIPPED_MODEL, GenerationParams
from sdtui.protocol import JobFailed, JobFinished, LoadModel, MemoryRanOut, ModelLoaded
from sdtui.worker import memory, memory_facts, remedies, service
from sdtui.worker.errors import JobProblem, ModelProblem, Shortage
from sdtui.worker.memory_fit import Place, Refusal, Work
from sdtui.worker.models import LoadedModel, ModelRequest, load_model

from .conftest import a_submit
from .desk import Desk
from .inspector.models import sd14
from .test_process import WorkerProcess, a_job

GIB, MIB = 1 << 30, 1 << 20
CUDA = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79 GiB of which 1.19 GiB is free. "
    "Process 1234 has 1.50 GiB memory in use. Including non-PyTorch memory, this process has 5.00 GiB memory in use. Of the "
    "allocated memory 4.40 GiB is allocated by PyTorch, and 100.00 MiB is reserved by PyTorch but unallocated. If reserved but "
    "unallocated memory is large try setting PYTORCH_ALLOC_CONF=expandable_segments:True to avoid fragmentation."
)
CPU = torch.device("cpu")


# --- the allocators' words ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "total", "own", "cached", "others"),
    [
        (CUDA, 7.79, 5.0, 100 / 1024, 1.6),
        # An older one, and a container, where the driver does not say which process is this one.
        ("Tried to allocate 496.00 MiB. GPU 0 has a total capacty of 14.75 GiB of which 235.06 MiB is free. Process 20398 has "
         "14.52 GiB memory in use. Of the allocated memory 14.06 GiB is allocated by PyTorch", 14.75, 0, 0, 0),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", 0, 0, 0, 0),
    ],
    ids=["two processes", "a container", "no figures"],
)  # fmt: skip
def test_who_holds_the_memory_is_read(text: str, total: float, own: float, cached: float, others: float) -> None:
    found = Shortage.of(RuntimeError(text))
    figures = (found.total_bytes, found.own_bytes, found.cached_bytes, found.others_bytes)
    assert [figure / GIB for figure in figures] == pytest.approx([total, own, cached, others], abs=0.001)


def test_numpys_largest_units_are_read() -> None:
    assert Shortage.of(MemoryError("Unable to allocate 1.00 EiB for an array")).needed_bytes == 1 << 60


# --- the device -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card of 8 GB: 2 GiB free, 4 GiB in torch's hands, the rest held by others and the driver."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2 * GIB, 8 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 4 * GIB)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA \x1b[31mGeForce")


@pytest.mark.usefixtures("gpu")
def test_a_gpus_room_is_what_is_free_and_what_torch_holds() -> None:
    place = memory_facts.place_of(torch.device("cuda", 0), Shortage(), 3 * GIB)
    assert (place.device, place.total_bytes, place.room_bytes) == ("cuda:0", 8 * GIB, 6 * GIB)
    assert (place.others_bytes, place.half_dtype, place.offloads) == (3 * GIB // 2, "float16", True)
    assert place.name == "NVIDIA GeForce" and place.ram_bytes == pytest.approx(memory.available_bytes(CPU), rel=0.2)
    told = memory_facts.place_of(torch.device("cuda", 0), Shortage.of(RuntimeError(CUDA)), 3 * GIB)
    assert told.others_bytes / GIB == pytest.approx(1.6, abs=0.001), "the allocator knows better"
    assert told.total_bytes / GIB == pytest.approx(7.79)


@pytest.mark.parametrize(("fast", "model_bytes", "half"), [(True, 4 * GIB, "bfloat16"), (True, MIB, ""), (False, 4 * GIB, "")])
def test_a_cpu_has_a_half_dtype_only_for_large_models(
    monkeypatch: pytest.MonkeyPatch, fast: bool, model_bytes: int, half: str
) -> None:
    monkeypatch.setattr(memory_facts, "has_bfloat16", lambda: fast)
    place = memory_facts.place_of(CPU, Shortage(), model_bytes)
    assert (place.half_dtype, place.offloads, place.is_cpu) == (half, False, True)
    assert place.room_bytes - model_bytes == pytest.approx(memory.available_bytes(CPU), rel=0.2)


def limited(code: str) -> str:
    """What a process prints that has 4 GiB of address space at most."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (4 * GIB, resource.RLIM_INFINITY))

    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, preexec_fn=limit, timeout=60)
    return done.stdout


def test_a_limit_of_the_address_space_is_what_there_is() -> None:
    code = """
from types import SimpleNamespace
from sdtui.worker import memory
cpu = SimpleNamespace(type="cpu")
print(memory.total_bytes(cpu), memory.available_bytes(cpu), memory.others_bytes(cpu))
"""
    total, available, others = map(int, limited(code).split())
    assert total == 4 * GIB and 3 * GIB < available < 4 * GIB and others == 0


@pytest.mark.parametrize("version", [1, 2])
def test_a_containers_limit_is_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    inner = tmp_path / ("" if version == 2 else "memory") / "a" / "b"
    inner.mkdir(parents=True)
    membership = tmp_path / "membership"
    membership.write_text("0::/a/b\n" if version == 2 else "5:devices:/\n4:cpu,memory:/a/b\n0::/\n")
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    monkeypatch.setattr(memory, "_MEMBERSHIP", membership)
    unlimited = "max" if version == 2 else str(2**63 - 4096)
    for folder, most in ((inner, unlimited), (inner.parent, str(100 * MIB))):
        (folder / names[0]).write_text(most)
        (folder / names[1]).write_text(str(60 * MIB))
        (folder / "memory.stat").write_text(f"anon 5\ninactive_file {10 * MIB}\ntotal_inactive_file {10 * MIB}\n")
    assert memory.total_bytes(CPU) == 100 * MIB
    assert memory.available_bytes(CPU) == 50 * MIB, "what is only cached does not count"
    assert memory.others_bytes(CPU) == 0


# --- the model ------------------------------------------------------------------------------------------------------------


def test_a_job_is_estimated_from_the_model_that_is_loaded(model: LoadedModel) -> None:
    params = GenerationParams(prompt="x", width=128, height=64, batch_size=2)
    work = memory_facts.work_of(model.pipe, model.info, params)
    assert work == Work(128, 64, 2, guided=True, dtype="float32", multiple_px=8)
    need = memory_facts.need_of(model.pipe, model.info.path, work)
    assert set(need.weights) == set(need.peaks) == {"embeddings", "denoise", "decode"}
    assert need.weight_bytes == pytest.approx(4 * sum(model.info.parameters.values()), rel=0.01)
    assert need.tile_px == 64
    alone = memory_facts.need_of(model.pipe, model.info.path, memory_facts.work_of(model.pipe, model.info, GenerationParams()))
    assert need.peaks["decode"] == pytest.approx(4 * alone.peaks["decode"], rel=0.05)
    assert not memory_facts.need_of(model.pipe, "/no/such/model", work).peaks, "an estimate that fails hides nothing"


def test_attentions_scores_are_known_by_their_size(model: LoadedModel) -> None:
    work = Work(64, 64, 1, guided=True, dtype="float32")
    heads = {module.heads for module in model.pipe.unet.modules() if hasattr(module, "heads")}
    scores = 2 * max(heads) * 64**2 * 4
    refused = Refusal("denoise", int(scores * 1.003))
    assert memory_facts.scores_bytes(model.pipe, work, refused) == 2 * refused.needed_bytes
    assert memory_facts.scores_bytes(model.pipe, work, Refusal("decode", scores)) == 0
    assert memory_facts.scores_bytes(model.pipe, work, Refusal("denoise", int(scores * 1.4))) == 0


# --- to the job's failure -------------------------------------------------------------------------------------------------


@pytest.fixture
def desk(model: LoadedModel, tmp_path: Path) -> Desk:
    return Desk(model, tmp_path)


@pytest.fixture
def on_a_card(monkeypatch: pytest.MonkeyPatch, model: LoadedModel) -> Iterator[None]:
    """The denoiser refuses, as on a card of 8 GB with a desktop on it."""

    def refuse(*_: Any) -> None:
        raise torch.OutOfMemoryError(CUDA)

    def place(device: torch.device, shortage: Shortage, model_bytes: int) -> Place:
        assert model_bytes >= 4 * sum(model.info.parameters.values())
        return Place("cuda:0", "a card", shortage.total_bytes, 6 * GIB, shortage.others_bytes, "float16")

    monkeypatch.setattr(remedies, "place_of", place)
    handle = model.pipe.unet.register_forward_pre_hook(refuse)
    yield
    handle.remove()


@pytest.mark.usefixtures("on_a_card")
def test_a_job_fails_with_the_parameter_that_makes_it_fit(desk: Desk) -> None:
    with pytest.raises(JobProblem) as problem:
        desk.run(desk.submit(batch_size=2))
    message = str(problem.value)
    assert "ran out in stage denoise: 2.0 GiB more were needed, 1.2 GiB are free, other programs hold about 1.6 GiB." in message
    assert "fewer pictures are made at a time" in message
    assert "Dtype float16" in message and problem.value.field == "dtype"
    told = desk.of(MemoryRanOut)[0]
    assert "other programs hold about 1.6 GiB. Tried again with the same seeds" in told.message
    assert (told.needed_bytes, told.free_bytes) == (2 * GIB, int(1.19 * GIB))


def test_a_model_that_the_device_refuses_names_the_dtype(tmp_path: Path, tiny_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pipe: Any, *_: Any) -> Any:
        raise torch.OutOfMemoryError(CUDA)

    held: list[int] = []

    def place(device: torch.device, shortage: Shortage, model_bytes: int, *, loaded: bool) -> Place:
        held.append(model_bytes)
        return Place("cuda:0", "a card", shortage.total_bytes, 3 * model_bytes // 4, 0, "float16")

    monkeypatch.setattr(StableDiffusionPipeline, "to", refuse)
    monkeypatch.setattr(memory_facts, "place_of", place)
    with pytest.raises(
        ModelProblem, match=r"does not fit into the memory of cuda:0 \(a card, 7.8 GiB\): its weights take"
    ) as found:
        load_model(ModelRequest(str(tiny_dir), dtype="float32"))
    assert "Dtype float16 (--dtype float16)" in str(found.value) and "with a picture of 64x64 px" in str(found.value)
    assert found.value.field == "dtype" and held[0] > MIB


def test_sd_at_float32_is_told_what_half_of_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tutorial's case on a card of 4 GB: from configurations alone the weights of both dtypes are known."""
    from sdtui.worker.hardware import Hardware

    monkeypatch.setattr(
        memory_facts, "place_of", lambda *_, **__: Place("cuda:0", "a card", 4 * GIB, int(3.3 * GIB), 0, "float16", True)
    )
    hardware = Hardware(torch.device("cuda", 0), torch.float32, "")
    problem = memory_facts.too_large("sd", sd14(tmp_path / "sd"), hardware, torch.OutOfMemoryError(CUDA))
    assert str(problem) == (
        "Model sd does not fit into the memory of cuda:0 (a card, 4.0 GiB): its weights take 4.0 GiB in float32, there is room "
        "for 3.3 GiB. To make it fit: Dtype float16 (--dtype float16), about 2.5 GiB with a picture of 512x512 px, "
        "as the weights shrink from 4.0 GiB to 2.0 GiB."
    )


def refused() -> tuple[Exception, weakref.ref[torch.Tensor]]:
    """What torch's allocator says to an absurd request, and a tensor that the failed call held."""

    def call() -> None:
        tensor = torch.zeros(1 << 20)
        held.append(weakref.ref(tensor))
        torch.empty(1 << 60, dtype=torch.uint8)

    held: list[weakref.ref[torch.Tensor]] = []
    try:
        call()
    except RuntimeError as error:
        return error, held[0]
    raise AssertionError("an exbibyte was there")


def test_a_shortage_outside_of_the_stages_is_explained_too(model: LoadedModel) -> None:
    error, held = refused()
    assert held() is not None, "the traceback holds it"
    submit = a_submit(Path(), width=512, height=256)
    message, field = service._explain(error, model, submit)
    assert held() is None, "and it is counted as free"
    assert "The memory of the CPU (" in message and "1073741824.0 GiB more were needed" in message
    assert "Nothing that can be set makes it fit" in message and field is None


def test_a_shortage_before_a_model_is_there_says_what_there_is() -> None:
    message, field = service._explain(refused()[0], None, a_submit(Path()))
    assert re.match(r"The memory of the CPU \(.* GiB\) ran out in stage load: 1073741824.0 GiB more were needed", message)
    assert "--dtype" in message and field == "model"


def test_what_is_no_shortage_stays_what_it_is(model: LoadedModel) -> None:
    assert service._explain(ValueError("no"), model, a_submit(Path())) == ("ValueError: no", None)


@pytest.mark.xdist_group("worker-process")
def test_a_real_worker_short_of_memory_names_a_size_and_that_size_fits(tmp_path: Path) -> None:
    """The address space of the process is limited while it runs; torch's allocator refuses, and then it does not."""
    malloc = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "1048576"}
    worker = WorkerProcess(tmp_path, **malloc)
    try:
        worker.send(LoadModel(model=SHIPPED_MODEL))
        worker.until(ModelLoaded)
        pid, params = worker.process.pid, {"num_inference_steps": 1, "scheduler": "ddim"}
        used = psutil.Process(pid).memory_info().vms
        resource.prlimit(pid, resource.RLIMIT_AS, (used + 64 * MIB, resource.RLIM_INFINITY))
        worker.send(a_job("large", Path(SHIPPED_MODEL), tmp_path, **params, width=768, height=768))
        failed = worker.until(JobFailed, JobFinished)
        assert isinstance(failed, JobFailed), "memory did not run out"
        assert "The memory of the CPU" in failed.message and "more were needed" in failed.message
        size = re.search(r"To make it fit: Width (\d+) and Height \1 \(--width \1 --height \1\)", failed.message)
        assert size is not None, failed.message
        assert failed.field == "width"
        worker.send(a_job("fits", Path(SHIPPED_MODEL), tmp_path, **params, width=int(size[1]), height=int(size[1])))
        assert isinstance(end := worker.until(JobFinished, JobFailed), JobFinished), end
    finally:
        worker.stop()
