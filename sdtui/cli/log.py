"""The step log as plain, aligned lines: what `sdtui generate --verbose` and `sdtui jobs JOB` print."""

from __future__ import annotations

from sdtui.protocol import (
    DownloadProgress,
    ImageSaved,
    JobCancelled,
    JobFailed,
    JobFinished,
    JobInspected,
    JobInterrupted,
    JobPaused,
    JobQueued,
    JobResumed,
    JobStarted,
    MemoryRanOut,
    Message,
    ModelFailed,
    ModelLoaded,
    ModuleRun,
    ModulesRan,
    NotANumber,
    PromptTokens,
    StageFinished,
    StepFinished,
    StorageFreed,
    StorageFull,
    TensorFact,
    WorkerDied,
    WorkerReady,
    WorkerStage,
)
from sdtui.text import count_noun, format_bytes, format_seconds, safe_text

_STEP_HEAD = (
    f"{'step':>9}  {'t':>7}  {'sigma':>8}  {'latents mean, std':>19}  {'x0 mean, std':>19}  {'|guidance|':>10}  {'time':>8}"
)
_FAULTS = {"nan": "NaN", "inf": "infinity"}
_MODULE_HEAD = f"{'':<11} {'module':<60} {'class':<24} {'output':<28} {'mean':>9} {'std':>9} {'absmax':>9} {'time':>9}"


def log_lines(message: Message) -> list[str]:  # noqa: PLR0912  (one case a message)
    """A message as lines of the log; empty for those that say nothing there."""
    match message:
        case WorkerStage(state="finished"):
            lines = [_row("worker", message.stage, message.elapsed_s, message.detail)]
        case WorkerReady():
            lines = [_row("worker", f"{message.device_name} ({message.device}), {message.dtype}", None, message.why)]
        case DownloadProgress():
            lines = [_row("download", message.file, None, _bytes_of(message.done_bytes, message.total_bytes))]
        case ModelLoaded():
            info = message.info
            count = f"{sum(info.parameters.values()):,} parameters, {info.device} {info.dtype}"
            lines = [_row("model", f"{info.model} ({info.pipeline_class})", message.elapsed_s, count)]
        case ModelFailed():
            lines = [_row("model", message.model, None, message.message)]
        case WorkerDied():
            lines = [_row("worker", "died", None, message.reason)]
        case JobQueued():
            lines = [_row("job", message.job, None, f"{count_noun(message.position, 'job')} before it")]
        case JobStarted():
            lines = [_row("start", _settings_of(message), None, "")]
        case PromptTokens():
            lines = _token_lines(message)
        case StageFinished():
            lines = _stage_lines(message)
        case StepFinished():
            lines = _step_lines(message)
        case ModulesRan():
            lines = _module_lines(message)
        case ImageSaved():
            size = f"{message.width_px}x{message.height_px} px, {format_bytes(message.size_bytes)}, seed {message.seed}"
            lines = [_row("save", message.path, message.elapsed_s, size)]
        case JobFinished():
            peak = f"peak memory {format_bytes(message.peak_memory_bytes)}" if message.peak_memory_bytes else ""
            lines = [_row("done", count_noun(len(message.images), "image"), message.elapsed_s, peak)]
            lines += _further(message.advice)
        case JobCancelled():
            lines = [_row("cancelled", _kept(message), message.latency_s, message.detail)]
        case _:
            lines = _way_lines(message)
    return [safe_text(line).rstrip() for line in lines]


def _way_lines(message: Message) -> list[str]:
    """What came in a job's way, and how it went on."""
    match message:
        case JobResumed():
            return [_row("resumed", resumed_at(message), None, message.detail)]
        case JobPaused():
            return [_row("paused", f"after {_steps(message.batch_index, message.steps_done)}", message.latency_s, "")]
        case JobInterrupted():
            return [_row("interrupted", _attempt(message), None, message.reason), *_further(message.log_tail)]
        case MemoryRanOut():
            return [
                _row("memory", f"ran out in {message.stage}: trying {remedy(message)}", None, _memory(message)),
                *_further(message.message),
            ]
        case NotANumber():
            return [_row("fault", f"{_place(message)}: {_FAULTS[message.fault]}", None, _step_of(message).strip())]
        case JobInspected():
            return _inspected_lines(message)
        case StorageFull():
            needs = f"{format_bytes(message.needed_bytes)} needed" if message.needed_bytes else ""
            return [_row("disk", message.path, None, needs), *_further(message.message)]
        case StorageFreed():
            return [_row("disk", f"written after all: {message.path}", message.waited_s, "")]
        case JobFailed():
            return [_row("failed", message.message, None, "")]
        case _:
            return []


def _inspected_lines(message: JobInspected) -> list[str]:
    modules = f"activations of {count_noun(message.modules, 'module')}" if message.modules else ""
    words = f"where {count_noun(message.words, 'word')} act: sdtui words {message.job}" if message.words else ""
    return [_row("inspected", "; ".join(filter(None, (modules, words))) or "nothing to show", None, message.path)]


def _row(stage: str, what: str, elapsed_s: float | None, more: str) -> str:
    time = format_seconds(elapsed_s) if elapsed_s is not None else ""
    return f"{stage:<11} {what:<52} {time:>9}  {more}"


def _further(text: str) -> list[str]:
    """The lines of a text below a row."""
    return [f"{'':<11} {line}" for line in text.splitlines()]


def _steps(batch_index: int, steps_done: int) -> str:
    batch = f" of batch {batch_index + 1}" if batch_index else ""
    return f"{count_noun(steps_done, 'step')}{batch}"


def _kept(message: JobCancelled) -> str:
    parts = (
        f"{count_noun(len(message.images), 'image')} finished before" if message.images else "",
        f"{count_noun(message.kept_steps, 'step')} kept" if message.kept_steps else "",
    )
    return ", ".join(filter(None, parts))


def resumed_at(message: JobResumed) -> str:
    """From where a job goes on."""
    images = f", {count_noun(message.images_done, 'image')} done" if message.images_done else ""
    if not message.steps_done:
        return f"begins batch {message.batch_index + 1} anew{images}"
    return f"goes on after {_steps(message.batch_index, message.steps_done)}{images}"


def _attempt(message: JobInterrupted) -> str:
    if not message.attempt:
        return "goes on with the next server"
    if message.attempt > message.max_attempts:
        return f"workers died under it {message.attempt} times"
    return f"goes on with a new worker, {message.attempt} of {message.max_attempts}"


def remedy(message: MemoryRanOut) -> str:
    """What is tried next, in words."""
    words = message.remedy.replace("_", " ")
    return words.replace("vae", "VAE") if words.startswith("vae ") else words


def _memory(message: MemoryRanOut) -> str:
    parts = (
        f"{format_bytes(message.needed_bytes)} needed" if message.needed_bytes else "",
        f"{format_bytes(message.free_bytes)} free" if message.free_bytes else "",
    )
    return ", ".join(filter(None, parts))


def _bytes_of(done: int, total: int) -> str:
    return f"{format_bytes(done)} of {format_bytes(total)}" if total else format_bytes(done)


def _settings_of(message: JobStarted) -> str:
    params = message.params
    scheduler = params.scheduler if params.sigmas == "default" else f"{params.scheduler} {params.sigmas}"
    return (
        f"{params.model}, {params.width}x{params.height} px, {params.num_inference_steps} steps, {scheduler}, "
        f"guidance {params.guidance_scale:g}, seed {message.seed}, {count_noun(message.total_images, 'image')}"
    )


def _token_lines(message: PromptTokens) -> list[str]:
    which = message.which.replace("_", " ")
    words = (word.removesuffix("</w>") for word in message.words)  # CLIP's mark of a word's end
    lines = [
        _row("tokens", f"{which}: {len(message.ids)} of {message.max_tokens}", message.elapsed_s, ""),
        f"{'':<11} words  {' | '.join(words)}",
        f"{'':<11} ids    {' '.join(map(str, message.ids))}",
    ]
    if message.cut_off:
        lines.append(f"{'':<11} the model does not see: {message.cut_off}")
    return lines


def _stage_lines(message: StageFinished) -> list[str]:
    lines = [_row(message.stage, "", message.elapsed_s, message.detail)]
    return lines + [f"{'':<11} {_tensor(tensor)}" for tensor in message.tensors]


def _tensor(fact: TensorFact) -> str:
    stats = f"mean {fact.mean:+.4f}, std {fact.std:.4f}" if fact.mean is not None and fact.std is not None else ""
    return f"{fact.name:<34} {list(fact.shape)!s:<17} {fact.dtype:<9} {stats}  {fact.note}"


def _step_lines(message: StepFinished) -> list[str]:
    sigma = f"{message.sigma:.4f}" if message.sigma is not None else "-"
    guidance = f"{message.guidance_norm:.4f}" if message.guidance_norm is not None else "-"
    preview = f"  preview {format_seconds(message.preview_s)}" if message.preview_s else ""
    row = (
        f"{f'{message.step_index + 1}/{message.total_steps}':>9}  {message.timestep:>7.1f}  {sigma:>8}  "
        f"{_mean_std(message.latents)}  {_mean_std(message.denoised)}  {guidance:>10}  "
        f"{format_seconds(message.elapsed_s):>8}  {format_bytes(message.memory_bytes)}{preview}"
    )
    if message.replayed:
        row += "  from the tape"
    if message.step_index > 0:
        return [row]
    shape = f"latents {_shape(message.latents)}, noise_pred {_shape(message.noise_pred)}, x0 {_shape(message.denoised)}"
    return [f"{'denoise':<11} {shape}", _STEP_HEAD, row]


def _module_lines(message: ModulesRan) -> list[str]:
    count = f"{message.network}{_step_of(message)}: {count_noun(len(message.modules), 'module')}"
    head = _row("modules", count, None, f"looking took {format_seconds(message.probing_s)}")
    return [head, _MODULE_HEAD, *(_module_line(message.network, module) for module in message.modules)]


def _module_line(network: str, module: ModuleRun) -> str:
    output = f"{list(module.shape)} {module.dtype}" if module.dtype else "-"
    figures = " ".join(
        f"{_figure(value, sign):>9}" for value, sign in ((module.mean, "+"), (module.std, ""), (module.absmax, ""))
    )
    notes = (f"{module.calls} calls" if module.calls > 1 else "", _FAULTS.get(module.fault, ""))
    return (
        f"{'':<11} {module.path or network:<60} {module.class_name:<24} {output:<28} {figures} "
        f"{format_seconds(module.elapsed_s):>9}  {', '.join(filter(None, notes))}"
    )


def _figure(value: float | None, sign: str) -> str:
    return "-" if value is None else f"{value:{sign}.4g}"


def _step_of(message: ModulesRan | NotANumber) -> str:
    return f" step {message.step_index + 1}" if message.step_index is not None else ""


def _place(message: NotANumber) -> str:
    if message.given:
        return f"what the {message.network} was given"
    return ".".join(filter(None, (message.network, message.module)))


def _shape(fact: TensorFact) -> str:
    return f"{list(fact.shape)} {fact.dtype}"


def _mean_std(fact: TensorFact) -> str:
    if fact.mean is None or fact.std is None:
        return f"{'-':>19}"
    return f"{fact.mean:>+9.3f} {fact.std:>9.3f}"
