"""The drawn images and the cached latents that the training reads; the i-th scene is the same on every machine."""

import functools
import multiprocessing
import random
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from sdtui.scratch.scenes import IMAGE_PX, Scene, draw, sample_scene

HELD_OUT_IMAGES = 512  # the last of the pool; never trained on, they measure the autoencoder


def scene_at(index: int, seed: int = 0) -> Scene:
    """The pool's scene of this index."""
    return sample_scene(_rng(index, seed))


def image_at(index: int, seed: int = 0) -> np.ndarray:
    """The pool's image of this index, (128, 128, 3) uint8."""
    rng = _rng(index, seed)
    return np.asarray(draw(sample_scene(rng), rng))


def draw_pool(path: Path, count: int, seed: int = 0, processes: int = 1, tell: Callable[[int], None] | None = None) -> None:
    """Draw `count` images into one .npy file, (count, 128, 128, 3) uint8, written under another name until it is complete."""
    unfinished = path.with_suffix(".part")
    pool = np.lib.format.open_memmap(unfinished, "w+", np.uint8, (count, IMAGE_PX, IMAGE_PX, 3))
    # spawn: a forked child of a process with threads (torch, a UI) may hang
    context = multiprocessing.get_context("spawn")
    # ctrl-C reaches the whole process group; ending the workers is the parent's part
    with context.Pool(processes, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)) as workers:
        for index, image in enumerate(workers.imap(functools.partial(image_at, seed=seed), range(count), chunksize=64)):
            pool[index] = image
            if tell is not None and index % 500 == 499:
                tell(index + 1)
    pool.flush()
    del pool
    unfinished.rename(path)


def open_pool(path: Path) -> np.ndarray:
    """The pool, read from the disk as it is needed."""
    images: np.ndarray = np.load(path, mmap_mode="r")
    return images


def training_count(pool: np.ndarray) -> int:
    """How many of the pool's images are for training; the rest are held out (a quarter at most)."""
    return len(pool) - min(HELD_OUT_IMAGES, len(pool) // 4)


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """(B, h, w, 3) uint8 -> (B, 3, h, w) in [-1, 1], channels last."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def random_crops(pool: np.ndarray, count: int, size_px: int, rng: np.random.Generator) -> torch.Tensor:
    """`count` square crops of random training images, (count, 3, size_px, size_px) in [-1, 1]."""
    indices = rng.integers(training_count(pool), size=count)
    corners = rng.integers(0, pool.shape[1] - size_px + 1, size=(count, 2))
    crops = [pool[i, y : y + size_px, x : x + size_px] for i, (y, x) in zip(indices, corners, strict=True)]
    return to_tensor(np.stack(crops))


def _rng(index: int, seed: int) -> random.Random:
    return random.Random(seed * 1_000_000_007 + index * 7919 + 1)
