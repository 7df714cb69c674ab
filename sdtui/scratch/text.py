"""The text encoder's head start: it learns to say what a caption names before it learns to steer the U-Net.

The large models' text encoder comes trained, too (CLIP, Radford et al. 2021); here a minute of reading captions takes its place.
"""

import random
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer

from sdtui.scratch.architecture import MAX_LENGTH, TEXT_WIDTH
from sdtui.scratch.captions import caption
from sdtui.scratch.scenes import Scene, sample_scene
from sdtui.scratch.training import Task, half_precision, step_seed
from sdtui.scratch.words import COLOURS, OBJECTS, SCENES

# What is asked of a caption: the left or only object, its colour, the right object or none, its colour, the place.
QUESTIONS = (len(OBJECTS), len(COLOURS), len(OBJECTS) + 1, len(COLOURS) + 1, len(SCENES))
EDGES = ("embedding", "heads")


class Tokens:
    """Captions to token ids, padded with the end token as SD 1.4 does, so that the padding can carry the whole caption."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = CLIPTokenizer.from_pretrained(folder)

    def ids(self, captions: list[str]) -> torch.Tensor:
        """(B, 77) int64."""
        batch = self._tokenizer(captions, padding="max_length", max_length=MAX_LENGTH, truncation=True, return_tensors="pt")
        ids: torch.Tensor = batch["input_ids"]
        return ids


def answers(scene: Scene) -> list[int]:
    """The right answer to each of QUESTIONS."""
    kinds, colours = list(OBJECTS), list(COLOURS)
    first, second = scene.things[0], scene.things[1] if len(scene.things) == 2 else None
    return [
        kinds.index(first.kind),
        colours.index(first.colour),
        kinds.index(second.kind) if second else len(kinds),
        colours.index(second.colour) if second else len(colours),
        list(SCENES).index(scene.place),
    ]


class CaptionReader(nn.Module):
    """The text encoder and one linear answer a question, read off the end token."""

    def __init__(self, encoder: CLIPTextModel) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleList(nn.Linear(TEXT_WIDTH, choices) for choices in QUESTIONS)

    def forward(self, ids: torch.Tensor) -> list[torch.Tensor]:
        """(B, 77) -> one (B, choices) a question."""
        pooled = self.encoder(ids).pooler_output.float()  # (B, 128)
        return [head(pooled) for head in self.heads]


def reading_task(encoder: CLIPTextModel, tokens: Tokens, device: torch.device, seed: int, batch_size: int = 32) -> Task:
    """Cross-entropy of the five answers, over freshly written captions."""
    reader = CaptionReader(encoder).to(device)

    def loss(step: int, _progress: float) -> torch.Tensor:
        rng = random.Random(step_seed(seed, step))
        scenes = [sample_scene(rng, two_share=0.4) for _ in range(batch_size)]
        ids = tokens.ids([caption(scene, rng) for scene in scenes]).to(device)
        right = torch.tensor([answers(scene) for scene in scenes], device=device)  # (B, 5)
        with half_precision(device):
            guesses = reader(ids)
        return torch.stack([functional.cross_entropy(g, right[:, i]) for i, g in enumerate(guesses)]).mean()

    return Task("text", nn.ModuleDict({"reader": reader}), loss, batch_size, peak_lr=2e-3, edges=EDGES)
