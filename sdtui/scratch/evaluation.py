"""The judgement: images of combinations the training never saw, read by a classifier that never saw a generated image."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from PIL import Image
from safetensors.torch import save_file

from sdtui.scratch.data import to_tensor
from sdtui.scratch.judge import Judge, accuracy_on_drawings, agreement, judging_task, load_judge
from sdtui.scratch.progress import Report
from sdtui.scratch.scenes import held_out_combinations
from sdtui.scratch.training import Budget, Trainer
from sdtui.scratch.words import POSITIONS, SCENES, article

JUDGE_FILE = "judge.safetensors"
JUDGE_SAMPLES = 12_000
BATCH = 10


def judge_for(model: Path, state: Path, device: torch.device, seed: int, report: Report) -> Judge:
    """The judge beside the model or in the state folder; trained first if there is none."""
    for path in (model / JUDGE_FILE, state / JUDGE_FILE):
        if path.exists():
            return load_judge(path, device)
    judge = Judge()
    trainer = Trainer(judging_task(judge, device, seed), Budget(samples=JUDGE_SAMPLES), state / "judge.pt", report)
    if not trainer.run():
        raise KeyboardInterrupt
    save_file({name: weight.half().contiguous() for name, weight in judge.state_dict().items()}, state / JUDGE_FILE)
    return judge.eval()


def asked_for(count: int, seed: int) -> list[tuple[str, dict[str, str]]]:
    """`count` prompts in plain words with what they ask for, over held-out combinations; every third says left or right."""
    rng = random.Random(seed)
    combinations = held_out_combinations()
    rng.shuffle(combinations)
    found = []
    for index in range(count):
        kind, colour, place = combinations[index % len(combinations)]
        wanted = {"object": kind, "colour": colour, "scene": place}
        where = ""
        if index % 3 == 0:
            wanted["side"] = rng.choice(("left", "right"))
            where = f" {POSITIONS[wanted['side']][0]}"
        found.append((f"{article(f'{colour} {kind}')}{where} {SCENES[place][0]}", wanted))
    return found


def generate(
    pipeline: StableDiffusionPipeline, prompts: list[str], first_seed: int, steps: int, guidance: float
) -> list[Image.Image]:
    """One image a prompt; image i of all has seed `first_seed + i`, whatever the batch."""
    generators = [torch.Generator().manual_seed(first_seed + i) for i in range(len(prompts))]
    result: Any = pipeline(prompts, num_inference_steps=steps, guidance_scale=guidance, generator=generators)
    images: list[Image.Image] = result.images
    return images


class ModelError(Exception):
    """A folder that is no pipeline."""


def open_pipeline(model: Path) -> StableDiffusionPipeline:
    """The pipeline of the folder, in float32. Raises ModelError."""
    try:
        pipeline: StableDiffusionPipeline = DiffusionPipeline.from_pretrained(model, dtype=torch.float32, local_files_only=True)
    except Exception as error:  # whatever is wrong with a stranger's files, it is their fault
        raise ModelError(f"--evaluate: {model} cannot be loaded: {str(error).splitlines()[0]}") from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@dataclass(frozen=True)
class Trial:
    """How many images, how made."""

    images: int = 300
    steps: int = 20
    guidance: float = 4.0
    seed: int = 0


def evaluate_folder(model: Path, state: Path, device: torch.device, trial: Trial, report: Report) -> dict[str, object]:
    """The judge's accuracy on drawings and on the generated images, a question, as shares from 0 to 1."""
    judge = judge_for(model, state, device, trial.seed, report)
    pipeline = open_pipeline(model).to(device)
    questions = asked_for(trial.images, trial.seed)
    readings: list[dict[str, str]] = []
    for start in range(0, trial.images, BATCH):
        prompts = [prompt for prompt, _ in questions[start : start + BATCH]]
        made = generate(pipeline, prompts, trial.seed + start, trial.steps, trial.guidance)
        readings += judge.read(to_tensor(np.stack([np.asarray(image) for image in made])).to(device))
        report.step("evaluate", len(readings) / trial.images, {"images": len(readings)})
    drawings = accuracy_on_drawings(judge, device)
    generated = agreement([wanted for _, wanted in questions], readings)
    figures: dict[str, object] = {"images": trial.images, "steps": trial.steps, "guidance_scale": trial.guidance}
    figures |= {f"drawn_{question}": share for question, share in drawings.items()}
    return figures | {f"generated_{question}": share for question, share in generated.items()}
