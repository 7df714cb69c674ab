"""What the explainer cannot do."""

from __future__ import annotations

import torch

from sdtui.worker.errors import JobProblem, is_out_of_memory, one_line, traceback_text


class ExplainingProblem(Exception):
    """A request that cannot be answered; one sentence for the user, and what is known besides."""

    def __init__(self, message: str, *, field: str | None = None, line: int | None = None, detail: str = "") -> None:
        super().__init__(message)
        self.field, self.line, self.detail = field, line, detail


def problem_of(error: BaseException, device: torch.device | None, line: int | None = None) -> ExplainingProblem:
    """What an error of loading or of a line means for the user; `device` is where it happened, as far as that is known."""
    cause = error.__cause__ or error
    if is_out_of_memory(cause):
        return _without_memory(device, line, traceback_text(error))
    if isinstance(error, JobProblem):
        return ExplainingProblem(str(error), field=error.field)
    where = f"Line {line} failed: " if line is not None else ""
    return ExplainingProblem(f"{where}{one_line(error)}", line=line, detail=traceback_text(error))


def _without_memory(device: torch.device | None, line: int | None, detail: str) -> ExplainingProblem:
    where = f" at line {line}" if line is not None else ""
    if device is None or device.type == "cpu":
        message = f"There is not enough memory{where}. Explain a smaller picture or model, or end what else is running."
        return ExplainingProblem(message, field="width", line=line, detail=detail)
    message = (
        f"{device} has not enough memory{where}: the worker may hold a model there too. "
        "Explain it on the CPU with --device cpu (device: cpu), or a smaller picture."
    )
    return ExplainingProblem(message, field="device", line=line, detail=detail)
