"""`python -m sdtui.scratch.train`: draw, train, export and judge the small model."""

import argparse
import os
import sys
from pathlib import Path

import torch

from sdtui.scratch.evaluation import ModelError, Trial, evaluate_folder
from sdtui.scratch.progress import Report, report_for
from sdtui.scratch.stages import STAGES, MissingStage, Settings, Training
from sdtui.scratch.training import CheckpointError

INTERRUPTED = 130  # what a shell reports after ctrl-C


class UsageError(Exception):
    """Wrong input; the message names the argument."""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="sdtui train", description="Train the small latent diffusion model from scratch.")
    p.add_argument("--out", type=Path, help="folder for the trained pipeline, in diffusers layout; omitted: train only")
    p.add_argument(
        "--state", type=Path, default=Path("train-state"), help="folder of checkpoints; a second run goes on from them"
    )
    p.add_argument("--only", choices=(*STAGES, "export"), action="append", help="run this stage alone; may be repeated")
    p.add_argument("--minutes", type=float, default=120.0, help="time for all stages, over all runs; with --only for that stage")
    p.add_argument("--samples", type=int, default=0, help="train each stage on this many samples instead of by the clock")
    p.add_argument("--pool", type=int, default=24_000, metavar="N", help="how many scenes to draw")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    p.add_argument("--threads", type=int, default=0, help="CPU threads; 0: as many as there are cores")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--evaluate", type=Path, metavar="MODEL", help="judge this diffusers folder instead of training")
    p.add_argument("--images", type=int, default=300, help="how many images --evaluate generates")
    p.add_argument("--steps", type=int, default=20, help="denoising steps of --evaluate")
    p.add_argument("--guidance", type=float, default=4.0, help="guidance scale of --evaluate")
    p.add_argument("--json", action="store_true", help="one JSON object a line on stdout")
    p.add_argument("--debug", action="store_true", help="show tracebacks")
    return p


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        device = choose_device(options.device)
        check(options)
        torch.set_num_threads(1 if device.type == "cpu" and not options.evaluate else threads(options))
        with report_for(options.json) as report:
            return evaluate(options, device, report) if options.evaluate else train(options, device, report)
    except (UsageError, MissingStage, CheckpointError, ModelError, OSError) as error:
        if options.debug:
            raise
        sys.stderr.write(f"sdtui train: {error}\n")
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED


def train(options: argparse.Namespace, device: torch.device, report: Report) -> int:
    """Run the stages asked for, then export; 130 when a signal stopped it."""
    stages = options.only or [*STAGES, "export"]
    settings = Settings(
        state=options.state,
        device=device,
        minutes=options.minutes,
        samples=options.samples,
        pool_images=options.pool,
        seed=options.seed,
        threads=threads(options),
        alone=options.only is not None,
    )
    training = Training(settings, report)
    for stage in stages:
        if stage != "export" and not training.run(stage):
            report.say(stage, f"stopped; the checkpoint is in {options.state}")
            return INTERRUPTED
    if options.out is not None and "export" in stages:
        training.export(options.out)
        report.result("train_exported", {"path": str(options.out)})
    return 0


def evaluate(options: argparse.Namespace, device: torch.device, report: Report) -> int:
    """Generate images of held-out combinations and report how many the judge reads as asked for."""
    trial = Trial(options.images, options.steps, options.guidance, options.seed)
    figures = evaluate_folder(options.evaluate, options.state, device, trial, report)
    report.result("train_evaluated", figures)
    return 0


def choose_device(name: str) -> torch.device:
    """The named device, or the best there is."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device: this machine has no {name!r}") from error
    return device


def threads(options: argparse.Namespace) -> int:
    """As many as asked for, or as there are cores."""
    return int(options.threads or os.cpu_count() or 1)


def check(options: argparse.Namespace) -> None:
    """Raise UsageError for what argparse cannot see."""
    for name, least in (("minutes", 0), ("samples", 0), ("threads", 0), ("images", 1), ("steps", 1), ("pool", 4)):
        if getattr(options, name) < least:
            raise UsageError(f"--{name}: {getattr(options, name)} is below {least}")
    if options.out is None and "export" in (options.only or ()):
        raise UsageError("--out: the folder to export to is missing")
    if options.state.exists() and not options.state.is_dir():
        raise UsageError(f"--state: {options.state} is not a folder")
    if options.out is not None and options.out.exists() and not options.out.is_dir():
        raise UsageError(f"--out: {options.out} is not a folder")
    if options.evaluate is not None and not (options.evaluate / "model_index.json").is_file():
        raise UsageError(f"--evaluate: {options.evaluate} holds no model_index.json")


if __name__ == "__main__":
    raise SystemExit(main())
