"""Inspect mode tells what every module gives, names the first one that gives no number, and changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import msgspec
import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from diffusers import UNet2DConditionModel

from sdtui.protocol import (
    InspectMode,
    MemoryRanOut,
    Message,
    ModuleRun,
    ModulesRan,
    NotANumber,
    PreviewOptions,
    ResumePoint,
    StageFinished,
    StepFinished,
    Submit,
)
from sdtui.worker import probes
from sdtui.worker.errors import Cancelled, JobProblem
from sdtui.worker.generate import run_job
from sdtui.worker.models import LoadedModel
from sdtui.worker.probe_figures import Call, Spot, fetch, figures_of, first_tensor, is_sound, looked_at, settle, summed_up
from sdtui.worker.probes import NETWORKS, Probe, spots
from sdtui.worker.turns import MOST, SHARE, Turns

from .conftest import a_submit
from .desk import STEPS, Desk, after_step, same

CPU = torch.device("cpu")


@pytest.fixture
def desk(model: LoadedModel, tmp_path: Path) -> Desk:
    return Desk(model, tmp_path)


def inspected(submit: Submit, mode: InspectMode = "modules") -> Submit:
    return msgspec.structs.replace(submit, inspect=mode)


def networks(pipe: Any) -> list[torch.nn.Module]:
    return [getattr(pipe, name) for name in NETWORKS if getattr(pipe, name, None) is not None]


def wrapped(pipe: Any) -> list[torch.nn.Module]:
    return [module for network in networks(pipe) for module in network.modules() if "forward" in vars(module)]


def steps_of(desk: Desk, network: str = "unet") -> dict[int | None, ModulesRan]:
    """The runs of one network's modules by step; fails where a step is told twice."""
    told = [event for event in desk.of(ModulesRan) if event.network == network]
    assert len({(event.batch_index, event.step_index) for event in told}) == len(told)
    return {event.step_index: event for event in told}


def by_path(event: ModulesRan) -> dict[str, ModuleRun]:
    return {module.path: module for module in event.modules}


# --- nothing changes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["blocks", "modules"])
@pytest.mark.parametrize("scheduler", ["default", "euler_a", "heun", "dpmpp_2m_sde", "unipc", "lcm"])
def test_the_picture_is_bit_identical(desk: Desk, latents: list[torch.Tensor], scheduler: str, mode: InspectMode) -> None:
    params = {"scheduler": scheduler, "batch_size": 2, "guidance_scale": 3.0}
    plain = desk.run(desk.submit("plain", **params), record=False)
    watched = desk.run(inspected(desk.submit("watched", **params), mode))
    assert torch.equal(latents[0], latents[1])
    assert same(plain, watched)
    assert len(desk.of(ModulesRan)) == len(desk.of(StepFinished)) + 2


def test_a_job_that_goes_on_from_its_tape_has_module_runs_only_of_steps_that_are_computed(
    desk: Desk, latents: list[torch.Tensor]
) -> None:
    whole = desk.run(desk.submit("whole", scheduler="euler_a"))
    submit = inspected(desk.submit(scheduler="euler_a"))
    stopped = desk.run(submit, stop="pause", at=after_step(1))
    assert isinstance(stopped, Cancelled) and set(steps_of(desk)) == {0, 1}
    resumed = desk.run(msgspec.structs.replace(submit, resume=ResumePoint(batch_index=0, steps_done=1, seed=7)))
    assert [step.replayed for step in desk.of(StepFinished)] == [True, False, False, False]
    assert set(steps_of(desk)) == {2, 3, 4}
    assert torch.equal(latents[0], latents[-1]) and same(whole, resumed)


def test_nothing_is_left_on_the_modules_however_a_job_ends(desk: Desk) -> None:
    pipe = desk.model.pipe
    submit = inspected(desk.submit(), "modules")
    desk.run(submit)
    assert not wrapped(pipe)
    assert isinstance(desk.run(inspected(desk.submit("j2")), stop="now", at=after_step(1)), Cancelled)
    assert not wrapped(pipe)
    handle = pipe.unet.mid_block.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(ValueError("broken")))
    with pytest.raises(ValueError, match="broken"):
        desk.run(inspected(desk.submit("j3")))
    handle.remove()
    assert not wrapped(pipe)


def test_hooks_that_a_remedy_puts_on_and_takes_off_leave_nothing_behind(desk: Desk) -> None:
    unet = desk.model.pipe.unet
    looked_at = [module for _, module in spots(SimpleNamespace(unet=unet), "modules")]
    probe = Probe("j", "modules", CPU, lambda _: None)
    with probe.attached(desk.model.pipe):
        for module in looked_at:
            add_hook_to_module(module, ModelHook())
        unet(torch.zeros(1, 4, 8, 8), 1, torch.zeros(1, 77, 32))
        taken = probe.take()
        for module in looked_at:
            remove_hook_from_module(module)
    assert taken is not None and len(taken.calls) > 50
    assert not wrapped(desk.model.pipe)


def test_without_inspect_mode_no_module_is_wrapped_for_it_and_nothing_is_told(desk: Desk) -> None:
    seen: list[int] = []

    def look(event: Message) -> bool:
        if isinstance(event, StepFinished):
            leaves = [module for module in wrapped(desk.model.pipe) if not any(True for _ in module.children())]
            seen.append(len(leaves))
        return False

    desk.run(desk.submit(), stop="now", at=look)
    assert seen == [0] * (STEPS + 1)
    assert not desk.of(ModulesRan) and not desk.of(NotANumber)
    desk.run(inspected(desk.submit("j2")), stop="now", at=look)
    assert seen[-1] > 50, "with it they are"


# --- what is told -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 3])
def test_the_figures_of_every_module_are_those_of_its_output(desk: Desk, monkeypatch: pytest.MonkeyPatch, every: int) -> None:
    """All of them in the first step; then those of blocks, and of the others that have their turn."""
    monkeypatch.setattr(Turns, "end", lambda turns, *_: setattr(turns, "every", every))
    pipe = desk.model.pipe
    steps: list[dict[str, list[torch.Tensor]]] = []
    with ExitStack() as hooks:
        for path, module in pipe.unet.named_modules():

            def keep(_module: object, _arguments: object, output: Any, path: str = path) -> None:
                tensor = first_tensor(output)
                if tensor is not None:
                    steps[-1].setdefault(path, []).append(tensor.detach().clone())

            hooks.callback(module.register_forward_hook(keep).remove)
        hooks.callback(pipe.unet.register_forward_pre_hook(lambda *_: steps.append({})).remove)
        desk.run(inspected(desk.submit()))
    blocks = {spot.path for spot, _ in spots(SimpleNamespace(unet=pipe.unet), "blocks")}
    passing = {path for path, module in pipe.unet.named_modules() if isinstance(module, torch.nn.Dropout | torch.nn.Identity)}
    known: list[set[str]] = []
    for step, outputs in enumerate(steps):
        told = by_path(steps_of(desk)[step])
        assert set(outputs) - passing == set(told) and len(told) > 60
        assert max(map(len, outputs.values())) > 1, "an activation is shared"
        known.append({path for path in told if told[path].mean is not None})
        for path in told:
            _check(told[path], outputs[path], has_figures=path in known[-1])
    assert known[0] == set(told) and all(blocks <= paths for paths in known)
    assert set.union(*known[1 : 1 + every]) == set(told), "each has its turn"
    assert every == 1 or all(len(paths - blocks) < len(told) / 2 for paths in known[1:])


def _check(run: ModuleRun, tensors: list[torch.Tensor], *, has_figures: bool) -> None:
    first, values = tensors[0], torch.cat([tensor.flatten() for tensor in tensors]).double()
    expected = (tuple(first.shape), "float32", len(tensors), "")
    assert (run.shape, run.dtype, run.calls, run.fault) == expected, run.path
    assert run.output_bytes == first.numel() * 4 and run.elapsed_s >= 0
    if not has_figures:
        assert (run.mean, run.std, run.absmax) == (None, None, None), run.path
        return
    assert run.mean == pytest.approx(float(values.mean()), abs=1e-5 + 1e-4 * float(values.std())), run.path
    assert run.std == pytest.approx(float(values.std(correction=0)), rel=1e-3, abs=1e-6), run.path
    assert run.absmax == pytest.approx(float(values.abs().max())), run.path


def test_each_network_is_told_once_a_step_or_stage_in_the_order_in_which_its_modules_begin(desk: Desk) -> None:
    desk.run(inspected(desk.submit(), "blocks"))
    told = [(event.network, event.step_index) for event in desk.of(ModulesRan)]
    assert told == [("text_encoder", None), *(("unet", step) for step in range(STEPS + 1)), ("vae", None)]
    paths = [module.path for module in steps_of(desk)[0].modules]
    assert paths[0] == "" and paths.index("down_blocks.0.resnets.0") < paths.index("mid_block.resnets.0")
    assert paths.index("mid_block.resnets.1") < paths.index("up_blocks.0.resnets.0")
    assert paths.index("mid_block.attentions.0") < paths.index("mid_block.attentions.0.transformer_blocks.0")
    decoder = by_path(steps_of(desk, "vae")[None])
    assert {"decoder", "decoder.mid_block.resnets.0", "decoder.up_blocks.0.upsamplers.0"} <= set(decoder)
    assert decoder["decoder"].shape == (1, 3, 64, 64)
    layers = by_path(steps_of(desk, "text_encoder")[None])
    assert layers["encoder.layers.0"].calls == 2, "prompt and negative prompt"
    assert all(module.memory_bytes > 0 for module in (*decoder.values(), *layers.values()))
    events = [type(event) for event in desk.events if isinstance(event, StepFinished | ModulesRan | StageFinished)]
    assert events[events.index(StepFinished) + 1] is ModulesRan, "a step's modules follow it"


def test_a_preview_by_the_vae_is_no_part_of_the_job(desk: Desk) -> None:
    submit = msgspec.structs.replace(desk.submit(), preview=PreviewOptions(method="vae", max_per_s=10_000))
    desk.run(inspected(submit))
    assert set(steps_of(desk, "vae")) == {None}
    assert by_path(steps_of(desk, "vae")[None])["decoder"].calls == 1


def test_what_memory_ended_is_not_counted_with_what_was_made_after_it(desk: Desk) -> None:
    refusals = iter([RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes.")])

    def refuse(*_: Any) -> None:
        if (error := next(refusals, None)) is not None:
            raise error

    handle = desk.model.pipe.unet.conv_out.register_forward_pre_hook(refuse)
    desk.run(inspected(desk.submit(batch_size=2)))
    handle.remove()
    assert len(desk.of(MemoryRanOut)) == 1
    runs = [event for event in desk.of(ModulesRan) if event.network == "unet"]
    assert all(by_path(event)[path].calls == 1 for event in runs for path in ("", "conv_in", "mid_block.resnets.0"))
    assert {event.modules[0].shape[0] for event in runs} == {2}, "one picture with guidance"


def test_a_pipeline_that_runs_as_a_whole_is_looked_at_too(xl: LoadedModel, tmp_path: Path) -> None:
    desk = Desk(xl, tmp_path)
    plain, watched = desk.run(desk.submit("plain")), desk.run(inspected(desk.submit("watched")))
    assert same(plain, watched)
    told = [(event.network, event.step_index) for event in desk.of(ModulesRan)]
    assert told == [
        ("text_encoder", None), ("text_encoder_2", None), *(("unet", step) for step in range(STEPS)), ("vae", None)
    ]  # fmt: skip
    assert not wrapped(xl.pipe)


def test_the_blocks_of_sd_1_are_its_resnets_transformers_and_samplers_and_the_network() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768)
    found = [spot for spot, _ in spots(SimpleNamespace(unet=unet), "blocks")]
    kinds = [spot.class_name for spot in found]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "UNet2DConditionModel": 1, "ResnetBlock2D": 22, "Transformer2DModel": 16, "BasicTransformerBlock": 16,
        "Downsample2D": 3, "Upsample2D": 3,
    }  # fmt: skip
    everything = spots(SimpleNamespace(unet=unet), "modules")
    passing = sum(isinstance(module, torch.nn.Dropout | torch.nn.Identity) for module in unet.modules())
    assert len(everything) == len(list(unet.modules())) - passing and [spot for spot, _ in everything if spot.is_block] == found


# --- no numbers -------------------------------------------------------------------------------------------------------


@pytest.fixture
def poisoned(model: LoadedModel) -> Iterator[Callable[[float], None]]:
    """`poisoned(value)` puts a value into one weight of the U-Net's middle; it is taken back afterwards."""
    bias = model.pipe.unet.mid_block.resnets[0].conv1.bias
    before = bias.detach().clone()

    def poison(value: float) -> None:
        with torch.no_grad():
            bias[3] = value

    yield poison
    with torch.no_grad():
        bias.copy_(before)


@pytest.mark.parametrize("every", [1, MOST])
@pytest.mark.parametrize(
    ("mode", "value", "module", "fault"),
    [
        ("modules", math.nan, "mid_block.resnets.0.conv1", "nan"),
        ("modules", -math.inf, "mid_block.resnets.0.conv1", "inf"),
        ("blocks", math.nan, "mid_block.resnets.0", "nan"),
    ],
)
def test_the_first_module_that_gives_no_number_is_named_with_its_step_once(
    desk: Desk,
    poisoned: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
    mode: InspectMode,
    value: float,
    module: str,
    fault: str,
    every: int,
) -> None:
    monkeypatch.setattr(Turns, "end", lambda turns, *_: setattr(turns, "every", every))

    def after_second(event: Message) -> bool:
        if isinstance(event, StepFinished) and event.step_index == 1:
            poisoned(value)
        return False

    with pytest.raises(JobProblem, match=f"dtype float32. The first module that gave .* is unet.{module} in step 3.$"):
        desk.run(inspected(desk.submit(scheduler="euler"), mode), stop="now", at=after_second)
    (told,) = desk.of(NotANumber)
    assert (told.network, told.module, told.step_index, told.fault, told.given) == ("unet", module, 2, fault, False)
    runs = by_path(steps_of(desk)[2])
    assert runs[module].fault == fault and runs[module].absmax is None
    assert runs["down_blocks.0.resnets.0"].fault == ""


def test_no_module_is_blamed_for_what_the_network_was_given(desk: Desk) -> None:
    calls = iter(range(100))

    def spoil(_module: object, arguments: tuple[Any, ...]) -> Any:
        return (arguments[0] * math.nan, *arguments[1:]) if next(calls) == 1 else None

    handle = desk.model.pipe.unet.register_forward_pre_hook(spoil)
    with pytest.raises(JobProblem, match=r"The unet was given a NaN already in step 2\.$"):
        desk.run(inspected(desk.submit(scheduler="euler")))
    handle.remove()
    (told,) = desk.of(NotANumber)
    assert (told.network, told.step_index, told.given) == ("unet", 1, True)


# --- figures ----------------------------------------------------------------------------------------------------------

SPOT = Spot("unet", "mid_block", "Block", is_block=True)


def a_call(tensor: torch.Tensor, figures: Any = ()) -> Call:
    figures = figures_of(tensor) if figures == () else figures
    return Call(SPOT, 0, (tuple(tensor.shape), tensor.dtype, tensor.nbytes), figures, 0.5, 7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-3.0, 0.01), (500.0, 0.5), (0.0, 0.0)])
def test_figures_hold_where_the_mean_is_far_above_the_spread(dtype: torch.dtype, mean: float, std: float) -> None:
    tensor = (torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(3)) * std + mean).to(dtype)
    values = tensor.double()
    found = figures_of(tensor)
    assert found is not None
    expected = (float(values.mean()), float(values.std(correction=0)), float(values.min()), float(values.max()))
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    "tensor", [torch.zeros(3, dtype=torch.int64), torch.zeros(0), torch.zeros(2, dtype=torch.bool), torch.zeros(2) + 1j]
)
def test_what_holds_no_floats_has_no_figures(tensor: torch.Tensor) -> None:
    run = summed_up([a_call(tensor)])
    assert (run.mean, run.std, run.absmax, run.fault) == (None, None, None, "")
    assert run.shape == tuple(tensor.shape)


def test_calls_in_parts_have_the_figures_of_the_whole() -> None:
    tensor = torch.randn(4, 100, generator=torch.Generator().manual_seed(5)) + torch.arange(4)[:, None]
    whole, parts = summed_up([a_call(tensor)]), summed_up([a_call(part) for part in tensor.split(1)])
    assert (parts.calls, parts.elapsed_s, parts.shape) == (4, 2.0, (1, 100))
    assert (parts.mean, parts.std, parts.absmax) == pytest.approx((whole.mean, whole.std, whole.absmax), rel=1e-5)


@pytest.mark.parametrize("count", [1, 4096, 3 * 8192, 3 * 8192 + 5])
@pytest.mark.parametrize("fault", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_one_pass_finds_what_is_no_number_wherever_it_lies(count: int, fault: float, dtype: torch.dtype) -> None:
    tensor = torch.randn(count, generator=torch.Generator().manual_seed(4)).to(dtype)
    assert is_sound(tensor) == (dtype == torch.float32) and looked_at(tensor, all_figures=False) is None
    for place in {0, count // 2, count - 1}:
        faulty = tensor.clone()
        faulty[place] = fault
        assert not is_sound(faulty)
        run = summed_up([a_call(faulty, looked_at(faulty, all_figures=False))])
        assert (run.fault, run.mean) == ("nan" if math.isnan(fault) else "inf", None)


@pytest.mark.filterwarnings("error")
def test_squares_that_overflow_are_no_fault() -> None:
    tensor = torch.full((100,), 1e30)
    probe = Probe("j", "modules", CPU, lambda _: None)
    with probe.attached(SimpleNamespace()):  # a warning would be a failure
        assert not is_sound(tensor), "it asks for a closer look"
        assert summed_up([a_call(tensor, looked_at(tensor, all_figures=False))]).fault == ""


def test_where_the_statistics_of_one_call_are_not_known_those_of_all_are_not() -> None:
    known = a_call(torch.ones(3))
    unknown = Call(SPOT, 1, known.tensor, None, 0.5)
    run = summed_up([known, unknown])
    assert (run.mean, run.std, run.absmax, run.fault, run.calls) == (None, None, None, "", 2)


def test_extremes_alone_come_from_a_device_for_modules_that_have_no_turn() -> None:
    pairs = [(-1.0, 2.0), (math.nan, math.nan), (0.0, math.inf)]
    calls = [Call(SPOT, 0, None, tuple(torch.tensor(value) for value in pair), 0.0) for pair in pairs]
    calls.insert(1, a_call(torch.ones(3), tuple(torch.tensor(value) for value in (1.0, 0.0, 1.0, 1.0))))
    settle(fetch(calls))
    assert calls[0].figures is None and calls[1].figures == (1.0, 0.0, 1.0, 1.0)
    assert [call.fault for call in calls] == ["", "", "nan", "inf"]


# --- turns ------------------------------------------------------------------------------------------------------------


def a_step(turns: Turns, *, figures_s: float, call_s: float = 1.0, rest_s: float = 0.0, modules: int = 100) -> int:
    """How many modules had their turn in a step of so many, each of whose statistics took that long."""
    turns.begin()
    having = sum(turns.has(number) for number in range(modules))
    for _ in range(having):
        turns.took(figures_s)
    turns.end(call_s, rest_s + having * figures_s, modules)
    return having


def test_modules_keep_their_turn_where_a_step_calls_the_network_twice(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Turns, "end", lambda turns, *_: setattr(turns, "every", 2))
    events: list[Any] = []
    probe = Probe("j", "modules", CPU, events.append)
    with probe.attached(model.pipe), torch.no_grad():
        for step in range(3):
            for _ in range(2):
                model.pipe.unet(torch.ones(1, 4, 8, 8), 1, torch.ones(1, 77, 32))
            probe.tell(probe.take(), 0, step)
    first, *later = [{path for path, run in by_path(event).items() if run.mean is not None} for event in events]
    blocks = {spot.path for spot, _ in spots(SimpleNamespace(unet=model.pipe.unet), "blocks")}
    assert all(blocks < told < first for told in later) and set.union(*later) == first


def test_as_many_have_their_turn_as_fit_into_the_share() -> None:
    turns = Turns()
    assert a_step(turns, figures_s=SHARE * 2.9 / 100) == 100, "all in the first step"
    assert [a_step(turns, figures_s=SHARE * 2.9 / 100) for _ in range(6)] == [33, 33, 34] * 2
    cheap, dear = Turns(), Turns()
    assert [a_step(cheap, figures_s=1e-6) for _ in range(3)] == [100] * 3
    assert [a_step(dear, figures_s=1e-6, rest_s=1.0) for _ in range(1 + MOST)] == [100, *[13] * 3, *[12] * 4, 13]


def test_a_step_that_was_disturbed_does_not_count() -> None:
    turns = Turns()
    for figures_s in (1e-6, 1.0, 1e-6):
        assert a_step(turns, figures_s=figures_s) == 100


def test_what_a_module_gives_on_from_its_child_is_looked_at_once_unless_it_was_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    monkeypatch.setattr(probes, "looked_at", lambda tensor, **_: looks.append(tensor.numel()))
    network = torch.nn.Sequential(torch.nn.Sequential(torch.nn.Linear(3, 5)), torch.nn.ReLU(inplace=True))
    probe = Probe("j", "modules", CPU, lambda _: None)
    with probe.attached(SimpleNamespace(vae=network)), torch.no_grad():
        network(torch.ones(2, 3))
    assert looks == [6, 10, 10], "given, the linear one, and what the activation changed in place"


@pytest.mark.parametrize("fault", ["nan", "inf"])
def test_a_fault_in_one_of_several_calls_is_kept(fault: Literal["nan", "inf"]) -> None:
    run = summed_up([a_call(torch.ones(3)), a_call(torch.tensor([1.0, float(fault)]))])
    assert (run.fault, run.mean, run.absmax) == (fault, None, None)


def test_figures_that_come_from_a_device_are_settled_in_their_calls() -> None:
    tensors = [torch.full((4,), float(value), dtype=dtype) for value in range(3) for dtype in (torch.float32, torch.float16)]
    calls = [a_call(tensor, tuple(torch.tensor(float(value), dtype=tensor.dtype) for value in figures_of(tensor) or ()))
             for tensor in tensors]  # fmt: skip
    settle(fetch(calls))
    assert [call.figures for call in calls] == [figures_of(tensor) for tensor in tensors]


def test_on_a_gpu_modules_are_timed_by_its_events_which_are_used_again(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device is a stand-in that counts; its events say when they were reached."""
    made: list[Any] = []
    clock = iter(range(100_000))

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing
            made.append(self)

        def record(self, stream: str) -> None:
            assert stream == "stream"
            self.at_ms = next(clock)

        def elapsed_time(self, later: Any) -> float:
            return float(later.at_ms - self.at_ms)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: "stream")
    stats = {"allocated_bytes": {"all": {"current": 4096}}}
    monkeypatch.setattr(torch.cuda, "memory_stats_as_nested_dict", lambda _device: stats)
    events: list[Any] = []
    probe = Probe("j", "blocks", torch.device("cuda"), events.append)
    with probe.attached(model.pipe), torch.no_grad():
        for step in range(3):
            model.pipe.unet(torch.zeros(1, 4, 8, 8), 1, torch.zeros(1, 77, 32))
            probe.tell(probe.take(), 0, step)
    first, second, third = (event.modules for event in events)
    count = len(first)
    assert len(made) == 2 * count, "of the first step only"
    assert first[0].elapsed_s == pytest.approx((2 * count - 1) / 1000), "the network begins first and ends last"
    assert [module.elapsed_s for module in second] == [module.elapsed_s for module in third]
    assert {module.memory_bytes for module in first} == {4096}


def test_a_job_that_saves_nothing_is_inspected_as_well(model: LoadedModel, tmp_path: Path) -> None:
    events: list[Message] = []
    submit = inspected(a_submit(tmp_path / "out"), "blocks")
    run_job(model, submit, emit=events.append, cancelled=lambda: False, save=False)
    assert any(isinstance(event, ModulesRan) for event in events)
