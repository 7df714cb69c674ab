"""A small classifier that reads object, colour, place and side off an image; it learns from drawn scenes only."""

import itertools
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from sdtui.scratch.data import to_tensor
from sdtui.scratch.scenes import Scene, Thing, draw, held_out_combinations
from sdtui.scratch.training import Task, half_precision, step_seed
from sdtui.scratch.words import COLOURS, OBJECTS, POSITIONS, SCENES

QUESTIONS: dict[str, tuple[str, ...]] = {
    "object": tuple(OBJECTS),
    "colour": tuple(COLOURS),
    "scene": tuple(SCENES),
    "side": tuple(POSITIONS),
}


class Judge(nn.Module):
    """(B, 3, 128, 128) in [-1, 1] -> one (B, choices) a question."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 24, 48, 64, 96)
        layers: list[nn.Module] = [nn.AvgPool2d(2)]  # 64x64: generated and drawn edges look more alike
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.ReLU()]
            layers += [nn.Conv2d(after, after, 3, padding=1), nn.GroupNorm(8, after), nn.ReLU()]
        self.features = nn.Sequential(*layers)  # (B, 96, 4, 4)
        self.summary = nn.Linear(96 * 16, 96)
        self.heads = nn.ModuleList(nn.Linear(96, len(choices)) for choices in QUESTIONS.values())

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        summary = functional.relu(self.summary(self.features(images).flatten(1)))
        return [head(summary) for head in self.heads]

    @torch.no_grad()
    def read(self, images: torch.Tensor) -> list[dict[str, str]]:
        """What is on each image, in the words of QUESTIONS."""
        chosen = [logits.argmax(1).tolist() for logits in self(images)]
        return [
            {question: choices[answer] for (question, choices), answer in zip(QUESTIONS.items(), row, strict=True)}
            for row in zip(*chosen, strict=True)
        ]


def truth(scene: Scene) -> dict[str, str]:
    """What the judge should read off a drawing of this scene of one thing."""
    thing = scene.things[0]
    return {"object": thing.kind, "colour": thing.colour, "scene": scene.place, "side": thing.position}


def any_scene(rng: random.Random) -> Scene:
    """One thing of any combination: the judge must know the held-out ones as well as the others."""
    thing = Thing(rng.choice(list(OBJECTS)), rng.choice(list(COLOURS)), rng.choice(list(POSITIONS)))
    return Scene((thing,), rng.choice(list(SCENES)))


def held_out_scene(rng: random.Random) -> Scene:
    """One thing of a combination that the generator never saw in training."""
    kind, colour, place = rng.choice(held_out_combinations())
    return Scene((Thing(kind, colour, rng.choice(list(POSITIONS))),), place)


def drawn(scenes: Sequence[Scene], rng: random.Random) -> torch.Tensor:
    """(B, 3, 128, 128)."""
    return to_tensor(np.stack([np.asarray(draw(scene, rng)) for scene in scenes]))


def worn(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Drawings with the faults of a small decoder: some are blurred, all get a little noise and a shift of brightness."""
    count = len(images)
    blurred = functional.avg_pool2d(functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    share = torch.rand((count, 1, 1, 1), generator=generator)
    shift = 0.06 * torch.randn((count, 3, 1, 1), generator=generator)
    noise = 0.06 * torch.randn(images.shape, generator=generator)
    return torch.lerp(images, blurred, share) + shift + noise


def judging_task(judge: Judge, device: torch.device, seed: int, batch_size: int = 16) -> Task:
    """Cross-entropy of the four answers over freshly drawn scenes."""
    judge = judge.to(device)

    def loss(step: int, _progress: float) -> torch.Tensor:
        rng = random.Random(step_seed(seed, step))
        scenes = [any_scene(rng) for _ in range(batch_size)]
        images = worn(drawn(scenes, rng), torch.Generator().manual_seed(step_seed(seed, step))).to(device)
        with half_precision(device):
            guesses = judge(images)
        losses = []
        for guess, (question, choices) in zip(guesses, QUESTIONS.items(), strict=True):
            right = torch.tensor([choices.index(truth(scene)[question]) for scene in scenes], device=device)
            losses.append(functional.cross_entropy(guess.float(), right))
        return torch.stack(losses).mean()

    return Task("judge", nn.ModuleDict({"judge": judge}), loss, batch_size, peak_lr=2e-3, edges=("features.1.", "heads"))


def accuracy_on_drawings(judge: Judge, device: torch.device, count: int = 1000, seed: int = 1) -> dict[str, float]:
    """The share of drawn scenes of held-out combinations that the judge reads right, a question."""
    rng = random.Random(seed)
    scenes = [held_out_scene(rng) for _ in range(count)]
    readings = []
    for start in range(0, count, 50):
        readings += judge.read(drawn(scenes[start : start + 50], rng).to(device))
    return agreement([truth(scene) for scene in scenes], readings)


def agreement(asked: Sequence[dict[str, str]], readings: Sequence[dict[str, str]]) -> dict[str, float]:
    """The share of equal answers to each question that was asked, 0 to 1."""
    shares = {}
    for question in QUESTIONS:
        pairs = [(a[question], r[question]) for a, r in zip(asked, readings, strict=True) if question in a]
        if pairs:
            shares[question] = sum(a == r for a, r in pairs) / len(pairs)
    return shares


def load_judge(path: Path, device: torch.device) -> Judge:
    judge = Judge()
    judge.load_state_dict({name: weight.float() for name, weight in load_file(path).items()})
    return judge.to(device).eval()
