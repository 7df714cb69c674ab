"""Models from the Hugging Face hub: fetched with progress, taken from the cache without a network, a pickle only if asked for."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import huggingface_hub
from diffusers import DiffusionPipeline
from diffusers.pipelines import pipeline_utils
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from tqdm.std import tqdm  # type: ignore[import-untyped]  # its stubs are a package of their own

from sdtui.protocol import DownloadProgress, Message
from sdtui.worker.cancellation import raise_if
from sdtui.worker.errors import ModelProblem, one_line

Emit = Callable[[Message], None]
_log: Final = logging.getLogger(__name__)
_REPORT_INTERVAL_S: Final = 0.2
"""Five reports a second are as many as anybody reads."""


def fetch(
    model: str,
    revision: str | None,
    variant: str | None,
    *,
    offline: bool,
    emit: Emit,
    cancelled: Callable[[], bool],
    allow_pickle: bool = False,
) -> Path:
    """The folder of a hub model, downloaded where it is not in the cache. Raises `ModelProblem`, `Cancelled`.

    The files are those that diffusers would take: safetensors, of `variant` where there are such; pickles only where they are
    allowed and there is nothing else.
    """
    download = functools.partial(
        DiffusionPipeline.download,
        model,
        revision=revision,
        use_safetensors=None if allow_pickle else True,
        trust_remote_code=False,
        safety_checker=None,
    )
    with _reported(model, emit, cancelled):
        try:
            try:
                return Path(_download_or_cached(download, variant, offline=offline))
            except ValueError as error:
                if variant is None or f"variant={variant}" not in str(error):
                    raise
            _log.warning("%s has no %s weights; the plain ones are taken.", model, variant)
            return Path(_download_or_cached(download, None, offline=offline))
        except Exception as error:
            raise _explain(model, revision, error, offline=offline) from error


def _download_or_cached(download: Callable[..., str], variant: str | None, *, offline: bool) -> str:
    try:
        return download(variant=variant, local_files_only=offline)
    except Exception as error:
        if offline or not _is_network_error(error):
            raise
    return download(variant=variant, local_files_only=True)  # nobody answers: the cache may have it


def _is_network_error(error: BaseException) -> bool:
    """Whether the hub was not reached at all, whichever HTTP library huggingface_hub uses in this version."""
    names = {base.__name__ for base in type(error).__mro__}
    return bool(names & {"TransportError", "ConnectionError", "Timeout"})


def fetch_component(model: str, revision: str | None, component: str, *, offline: bool, allow_pickle: bool = False) -> Path:
    """The folder of a hub model with one more component in it, such as the safety checker. Raises `ModelProblem`."""
    patterns = [f"{component}/*.json", f"{component}/*.safetensors", *([f"{component}/*.bin"] if allow_pickle else [])]
    try:
        return Path(
            huggingface_hub.snapshot_download(model, revision=revision, allow_patterns=patterns, local_files_only=offline)
        )
    except Exception as error:
        raise _explain(model, revision, error, offline=offline) from error


def _explain(model: str, revision: str | None, error: Exception, *, offline: bool) -> ModelProblem:
    """What went wrong with the hub, as a sentence that says what to do; diffusers often wraps the reason in another error."""
    reasons = _chain(error)

    def is_any(*kinds: type[BaseException]) -> bool:
        return any(isinstance(reason, kinds) for reason in reasons)

    if is_any(GatedRepoError):
        return ModelProblem(
            f"Model {model} is gated: accept its terms on huggingface.co/{model}, then set HF_TOKEN or run `hf auth login`."
        )
    if is_any(RevisionNotFoundError):
        return ModelProblem(f"Model {model} has no revision {revision!r}.", "revision")
    if is_any(RepositoryNotFoundError):
        return ModelProblem(f"The hub has no model {model}, or it is private: then set HF_TOKEN or run `hf auth login`.")
    if is_any(LocalEntryNotFoundError, OfflineModeIsEnabled) or any(_is_network_error(reason) for reason in reasons):
        why = "sdtui is offline" if offline or is_any(OfflineModeIsEnabled) else "the hub does not answer"
        return ModelProblem(f"Model {model} is not in the cache, and {why}. Connect, or name a folder.")
    if is_any(EntryNotFoundError):
        return ModelProblem(f"Model {model} is not a diffusers model: it has no model_index.json.")
    if is_any(HfHubHTTPError):
        return ModelProblem(f"The hub did not give model {model}: {one_line(error)}")
    if any(isinstance(reason, OSError) and "safetensors" in str(reason) for reason in reasons):
        return ModelProblem(f"Model {model} has no safetensors weights, only pickles, which can run any code when they are read.")
    return ModelProblem(f"Model {model} could not be fetched: {one_line(error)}")


def _chain(error: BaseException) -> list[BaseException]:
    """An exception and those that it came from."""
    found: list[BaseException] = []
    reason: BaseException | None = error
    while reason is not None and reason not in found:
        found.append(reason)
        reason = reason.__cause__ or reason.__context__
    return found


@contextmanager
def _reported(model: str, emit: Emit, cancelled: Callable[[], bool]) -> Iterator[None]:
    """Give diffusers' download our progress bar, which reports instead of drawing."""
    original = pipeline_utils.snapshot_download
    pipeline_utils.snapshot_download = functools.partial(original, tqdm_class=_reporting_bar(model, emit, cancelled))
    try:
        yield
    finally:
        pipeline_utils.snapshot_download = original


def _reporting_bar(model: str, emit: Emit, cancelled: Callable[[], bool]) -> type[Any]:
    """A tqdm class for huggingface_hub. Of its bars the one that counts bytes written, over all files, reports."""

    class Bar(tqdm):  # type: ignore[misc]  # a base class without types
        def __init__(self, *args: Any, **options: Any) -> None:
            reports = options.get("unit") == "B" and not str(options.get("desc", "")).startswith("Downloading")
            super().__init__(*args, **{**options, "disable": True})
            self._reports, self._reported_at = reports, 0.0
            self.n, self.total = options.get("initial") or 0, options.get("total") or 0

        def update(self, n: float | None = 1) -> None:
            raise_if(cancelled)
            self.n += n or 0
            now = time.monotonic()
            if self._reports and (now - self._reported_at >= _REPORT_INTERVAL_S or self.n >= self.total > 0):
                self._reported_at = now
                emit(DownloadProgress(model=model, file="", done_bytes=int(self.n), total_bytes=int(self.total)))

    return Bar
