"""The step log as plain, aligned lines: what `sdtui generate --verbose` and `sdtui jobs JOB` print."""

from __future__ import annotations

from sdtui.protocol import (
    DownloadProgress,
    ImageSaved,
    JobCancelled,
    JobFailed,
    JobFinished,
    JobQueued,
    JobStarted,
    Message,
    ModelFailed,
    ModelLoaded,
    PromptTokens,
    StageFinished,
    StepFinished,
    TensorFact,
    WorkerDied,
    WorkerReady,
    WorkerStage,
)
from sdtui.text import count_noun, format_bytes, format_seconds, safe_text

_STEP_HEAD = (
    f"{'step':>9}  {'t':>7}  {'sigma':>8}  {'latents mean, std':>19}  {'x0 mean, std':>19}  {'|guidance|':>10}  {'time':>8}"
)


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
        case ImageSaved():
            size = f"{message.width_px}x{message.height_px} px, {format_bytes(message.size_bytes)}, seed {message.seed}"
            lines = [_row("save", message.path, message.elapsed_s, size)]
        case JobFinished():
            peak = f"peak memory {format_bytes(message.peak_memory_bytes)}" if message.peak_memory_bytes else ""
            lines = [_row("done", count_noun(len(message.images), "image"), message.elapsed_s, peak)]
        case JobCancelled():
            lines = [_row("cancelled", message.job, message.latency_s, "")]
        case JobFailed():
            lines = [_row("failed", message.message, None, "")]
        case _:
            lines = []
    return [safe_text(line).rstrip() for line in lines]


def _row(stage: str, what: str, elapsed_s: float | None, more: str) -> str:
    time = format_seconds(elapsed_s) if elapsed_s is not None else ""
    return f"{stage:<11} {what:<52} {time:>9}  {more}"


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
    if message.step_index > 0:
        return [row]
    shape = f"latents {_shape(message.latents)}, noise_pred {_shape(message.noise_pred)}, x0 {_shape(message.denoised)}"
    return [f"{'denoise':<11} {shape}", _STEP_HEAD, row]


def _shape(fact: TensorFact) -> str:
    return f"{list(fact.shape)} {fact.dtype}"


def _mean_std(fact: TensorFact) -> str:
    if fact.mean is None or fact.std is None:
        return f"{'-':>19}"
    return f"{fact.mean:>+9.3f} {fact.std:>9.3f}"
