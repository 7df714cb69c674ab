"""When memory runs out the job is tried again in ways that need less, with the same seeds; what is broken is not used again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
import torch

from sdtui.metadata import read_png
from sdtui.params import GenerationParams
from sdtui.protocol import JobFinished, MemoryRanOut, ResumePoint, StageFinished, StepFinished
from sdtui.worker.errors import Cancelled, JobProblem, Shortage, is_device_broken, is_out_of_memory
from sdtui.worker.memory_fit import Place
from sdtui.worker.models import LoadedModel
from sdtui.worker.remedies import Ladder

from .desk import STEPS, Desk, same

GIB = 1 << 30
CUDA = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79 GiB of which 512.00 MiB is free. "
    "Including non-PyTorch memory, this process has 7.2 GiB memory in use."
)
CPU = "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes. Error"


class AcceleratorError(RuntimeError):
    """As torch names the errors of a GPU."""


@pytest.mark.parametrize(
    ("error", "needed", "free"),
    [
        (torch.OutOfMemoryError(CUDA), 2 * GIB, GIB // 2),
        (RuntimeError(CUDA), 2 * GIB, GIB // 2),
        (AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"), 0, 0),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), 0, 0),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), 0, 0),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. the workspace needs more memory than there is"), 0, 0),
        (RuntimeError("FIND was unable to find an engine to execute this computation"), 0, 0),
        (RuntimeError(CPU), 4096, 0),
        (RuntimeError("[enforce fail] not enough memory: you tried to allocate 12345 bytes."), 12345, 0),
        (RuntimeError("MPS backend out of memory Tried to allocate 1.50 GB on private pool."), 3 * GIB // 2, 0),
        (RuntimeError("could not create a primitive"), 0, 0),
        (MemoryError("std::bad_alloc"), 0, 0),
        (MemoryError("Unable to allocate 1.00 GiB for an array with shape (1,) and data type float64"), GIB, 0),
    ],
    ids=range(13),
)  # fmt: skip
def test_every_allocators_refusal_is_read(error: Exception, needed: int, free: int) -> None:
    assert is_out_of_memory(error) and not is_device_broken(error)
    shortage = Shortage.of(error)
    assert (shortage.needed_bytes, shortage.free_bytes) == (needed, free)


@pytest.mark.parametrize(
    ("error", "broken"),
    [
        (AcceleratorError("CUDA error: an illegal memory access was encountered"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`"), True),
        (RuntimeError("CUDA error: no kernel image is available for execution on the device"), False),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. Was a non-contiguous input passed?"), False),
        (RuntimeError("could not create a primitive descriptor for a convolution"), False),
        (RuntimeError("shapes do not match"), False),
        (ValueError("CUDA error: in a message of something else"), False),
    ],
    ids=range(9),
)  # fmt: skip
def test_a_device_that_is_broken_is_told_from_one_that_is_full(error: Exception, broken: bool) -> None:
    assert not is_out_of_memory(error) and is_device_broken(error) is broken


@pytest.fixture
def desk(model: LoadedModel, tmp_path: Path) -> Desk:
    return Desk(model, tmp_path)


@pytest.fixture
def short_of_memory(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[int, ...]]]:
    """`short_of_memory("unet", "forward", times=2, when=...)`: such calls fail; gives the shapes that were asked for."""

    def make(
        part: str, method: str, *, times: int = 1, when: Callable[[torch.Tensor], bool] = lambda _: True, text: str = CPU
    ) -> list[tuple[int, ...]]:
        owner = getattr(model.pipe, part)
        real = getattr(owner, method)
        asked: list[tuple[int, ...]] = []
        left = times

        def call(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            nonlocal left
            asked.append(tuple(tensor.shape))
            if left and when(tensor):
                left -= 1
                raise RuntimeError(text)
            return real(tensor, *args, **kwargs)

        monkeypatch.setitem(vars(owner), method, call)
        return asked

    return make


def test_a_decode_is_tried_in_slices_then_in_tiles_from_the_same_latents(
    desk: Desk, short_of_memory: Callable[..., Any], model: LoadedModel
) -> None:
    whole = desk.run(desk.submit("whole", scheduler="euler", batch_size=2))
    short_of_memory("vae", "decode", times=2)
    submit = msgspec.structs.replace(desk.submit("short", scheduler="euler", batch_size=2), preview=no_previews())
    paths = desk.run(submit)
    assert isinstance(paths, list) and same(whole, paths), "in one tile and in slices the bits are the same"
    told = desk.of(MemoryRanOut)
    assert [(event.stage, event.remedy, event.needed_bytes) for event in told] == [
        ("decode", "vae_slicing", 4096), ("decode", "vae_tiling", 4096),
    ]  # fmt: skip
    assert told[0].free_bytes > 0 and "same seeds" in told[0].message
    assert desk.network_calls == STEPS, "the latents were made again"
    record = read_png(Path(paths[0])).record
    assert record is not None and record.memory_remedies == ("vae_slicing", "vae_tiling")
    decoded = [event.detail for event in desk.of(StageFinished) if event.stage == "decode"]
    assert decoded == ["vae slicing; vae tiling"]
    advice = desk.of(JobFinished)[0].advice
    assert "Memory ran out, so the pictures are decoded one after the other" in advice and "(--batch-size 1)" in advice
    assert not model.pipe.vae.use_slicing and not model.pipe.vae.use_tiling, "the next job decodes as ever"


def test_a_decode_that_never_fits_makes_the_batch_smaller_in_the_end(desk: Desk, short_of_memory: Callable[..., Any]) -> None:
    short_of_memory("vae", "decode", times=99, when=lambda latents: latents.shape[0] > 1)
    submit = msgspec.structs.replace(desk.submit("short", scheduler="euler", batch_size=2), preview=no_previews())
    paths = desk.run(submit)
    remedies = ["vae_slicing", "vae_tiling", "smaller_batch"]
    assert [(event.stage, event.remedy) for event in desk.of(MemoryRanOut)] == [("decode", remedy) for remedy in remedies]
    assert same(paths, [desk.run(desk.submit(f"alone-{seed}", scheduler="euler", seed=seed))[0] for seed in (7, 8)])  # type: ignore[index]


def no_previews() -> Any:
    from sdtui.protocol import PreviewOptions

    return PreviewOptions(method="off")


def test_a_batch_that_does_not_fit_is_halved_with_each_pictures_own_seed(desk: Desk, short_of_memory: Callable[..., Any]) -> None:
    short_of_memory("unet", "forward", times=99, when=lambda sample: sample.shape[0] > 2)  # guided: 2 for each picture
    paths = desk.run(desk.submit("short", scheduler="euler_a", batch_size=4))
    assert isinstance(paths, list) and len(set(paths)) == 4
    assert [event.remedy for event in desk.of(MemoryRanOut)] == ["smaller_batch", "smaller_batch"]
    assert {event.batch_index for event in desk.of(StepFinished)} == {0}
    for index, path in enumerate(paths):
        record = read_png(Path(path)).record
        assert record is not None and (record.params.seed, record.batch_size, record.first_seed) == (7 + index, 1, 7 + index)
        assert record.memory_remedies == ("smaller_batch",)
    alone = [desk.run(desk.submit(f"alone-{seed}", scheduler="euler_a", seed=seed)) for seed in (7, 8, 9, 10)]
    assert all(same(one, [path]) for one, path in zip(alone, paths, strict=True))


def test_a_resumed_job_begins_with_the_remedies_that_helped(desk: Desk, short_of_memory: Callable[..., Any]) -> None:
    asked = short_of_memory("unet", "forward", times=99, when=lambda sample: sample.shape[0] > 4)
    params = {"scheduler": "euler", "batch_size": 4}
    whole = desk.run(desk.submit("whole", **params))
    second_part = iter([False] * STEPS + [False, True] + [False] * 100)

    def at(event: Any) -> bool:
        return isinstance(event, StepFinished) and next(second_part)

    stopped = desk.run(desk.submit("cut", **params), stop="pause", at=at)
    assert isinstance(stopped, Cancelled) and (stopped.progress.steps_done, len(stopped.progress.paths)) == (2, 2)
    asked.clear()
    assert same(whole, desk.run(desk.submit("cut", ResumePoint(seed=7, steps_done=2), **params)))
    assert asked == [(4, 4, 8, 8)] * (STEPS - 2), "it ran out of memory again, or made steps again"


def test_a_step_that_fails_once_goes_on_from_the_tape(desk: Desk, model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with offloading, which a CPU has not: the remedy here is one that does nothing."""
    from sdtui.worker import remedies

    monkeypatch.setattr(remedies.Ladder, "_next", lambda self, *_: "model_offload" if not self.in_force else None)
    monkeypatch.setattr(
        remedies.Ladder, "_force", lambda self, remedy, *_: self._rungs.append(remedies._Rung(remedy, lambda: None))
    )
    whole = desk.run(desk.submit("whole", scheduler="dpmpp_2m_sde"))
    calls = 0

    def fail_once(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise RuntimeError(CPU)

    handle = model.pipe.unet.mid_block.register_forward_pre_hook(fail_once)
    try:
        assert same(whole, desk.run(desk.submit("short", scheduler="dpmpp_2m_sde")))
    finally:
        handle.remove()
    assert [event.step_index for event in desk.of(StepFinished)] == list(range(STEPS)), "a step was told twice"
    assert calls == STEPS + 1, "recorded steps were computed again"


def test_a_ladder_at_its_end_says_what_was_needed_and_what_would_help(desk: Desk, short_of_memory: Callable[..., Any]) -> None:
    short_of_memory("unet", "forward", times=99, text=CUDA)
    with pytest.raises(JobProblem) as problem:
        desk.run(desk.submit(batch_size=2))
    message = str(problem.value)
    assert "2.0 GiB more were needed, 512 MiB are free" in message
    assert "did not help that fewer pictures are made at a time" in message and "To make it fit: " in message
    assert [event.remedy for event in desk.of(MemoryRanOut)] == ["smaller_batch"]


def test_offloading_is_tried_on_a_gpu_and_taken_back(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    class Pipe:
        vae = unet = transformer = None
        components: ClassVar[dict[str, Any]] = {}

        def __getattr__(self, name: str) -> Any:
            return lambda *args, **_: done.append(" ".join([name, *map(str, args)]))

    from sdtui.worker import remedies

    monkeypatch.setattr(remedies, "available_bytes", lambda _: 1)
    monkeypatch.setattr(remedies, "place_of", lambda *_: Place("cuda:0"))
    ladder = Ladder(
        job="j",
        pipe=Pipe(),
        device=torch.device("cuda"),
        info=model.info,
        params=GenerationParams(),
        emit=lambda event: done.append(event.remedy),
    )
    failures = iter([True, True, False])

    def attempt() -> str:
        if next(failures):
            raise torch.OutOfMemoryError(CUDA)
        return "well"

    assert ladder.run(0, lambda: "denoise", lambda: 1, attempt) == "well"
    assert [step for step in done if step.endswith("offload")] == [
        "enable_model_cpu_offload", "model_offload", "enable_sequential_cpu_offload", "sequential_offload",
    ]  # fmt: skip
    done.clear()
    assert ladder.undo()
    assert done[-1] == "to cuda" and "remove_all_hooks" in done


def test_a_real_allocator_refuses_and_the_job_is_done_all_the_same(tiny_dir: Path, tmp_path: Path) -> None:
    """The address space is limited to what one picture needs; a batch meets the real error of torch's allocator."""
    code = f"""
import os, resource, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
os.environ["XDG_CACHE_HOME"] = {str(tmp_path / "cache")!r}
import torch
from pathlib import Path
from sdtui.protocol import *
from sdtui.worker.generate import run_job
from sdtui.worker.models import ModelRequest, load_model
from tests.worker.conftest import a_submit
torch.set_num_threads(1)
model = load_model(ModelRequest({str(tiny_dir)!r}))
root, events = Path({str(tmp_path)!r}), []
off = PreviewOptions(method="off")
submit = a_submit(root / "a", off, guidance_scale=1.0, num_inference_steps=1, width=512, height=512)
run_job(model, submit, emit=lambda _: None, cancelled=lambda: False)
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmPeak"))
resource.setrlimit(resource.RLIMIT_AS, (int(peak.split()[1]) * 1024 + (64 << 20), resource.RLIM_INFINITY))
submit = a_submit(root / "b", off, guidance_scale=1.0, num_inference_steps=1, width=512, height=512, batch_size=8)
run_job(model, submit, emit=events.append, cancelled=lambda: False)
told = [event for event in events if isinstance(event, MemoryRanOut)]
assert told, "memory did not run out"
assert len(events[-1].images) == 8
print("REMEDIES", [event.remedy for event in told])
"""
    # One arena, and what is freed goes back at once: holes in the heap would count against the limit, a new arena is 64 MiB.
    malloc = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "1048576"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=150, env={**os.environ, **malloc})
    assert done.returncode == 0, done.stderr[-3000:]
    assert "REMEDIES" in done.stdout, done.stdout
