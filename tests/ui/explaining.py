"""An explainer in memory: runs a small function line by line, behind the interface of `sdtui.server.explainer.Explainer`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from sdtui.params import GenerationParams
from sdtui.protocol import (
    Advance,
    DownloadProgress,
    ExplainedSaved,
    ExplainingStarted,
    ExplainStage,
    LineRan,
    LinesRan,
    MadeTensor,
    Message,
    SaveExplained,
    StartExplaining,
    TensorPicture,
)
from sdtui.server.explainer import ExplainerError
from sdtui.ui.screens import explain
from sdtui.ui.screens.explain import ExplainScreen
from tests.ui.inspecting import NASTY
from tests.ui.stage import Stage, until

FIRST = 22
SOURCE = '''\
@torch.no_grad()
def text_to_image(pipe, prompt, guidance_scale: float = 7.5):
    """A picture of the prompt."""
    guided = guidance_scale > 1

    # --- what to draw: words become numbers ---
    tokens = tokenizer(prompt).input_ids  # (2, 77)
    latents = noise * scheduler.init_noise_sigma

    # --- denoise: step by step ---
    for t in scheduler.timesteps:
        noise_pred = unet(latents, t).sample
        if guided:
            noise_pred = noise_pred_uncond + guidance_scale * (noise_pred_text - noise_pred_uncond)
        latents = scheduler.step(noise_pred, t, latents).prev_sample

    # --- from latents to pixels ---
    return Image.fromarray(latents)
'''
GUIDED, TOKENS, LATENTS, LOOP, UNET, IF, GUIDE, STEP, RETURN = 25, 28, 29, 32, 33, 34, 35, 36, 39
LINES = (GUIDED, TOKENS, LATENTS, LOOP, UNET, IF, GUIDE, STEP, RETURN)
STAGES = {27: "what to draw: words become numbers", 31: "denoise: step by step", 38: "from latents to pixels"}


def square(red: int, side_px: int = 4) -> TensorPicture:
    """A picture of one colour."""
    return TensorPicture(width_px=side_px, height_px=side_px, rgb=bytes((red, 60, 90)) * side_px**2, what="by linear factors")


def tensor(name: str, *shape: int, mean: float = 0.25, **more: Any) -> MadeTensor:
    """A tensor with figures that can be told apart."""
    figures = {"low": -3.5, "mean": mean, "high": 4.25, "std": 1.125, "how": "new", "dtype": "float32", "device": "cpu"}
    return MadeTensor(name=name, shape=shape, **(figures | more))


class ScriptedExplainer:
    """Answers as the process does; `log` keeps what was asked."""

    def __init__(self, *, steps: int = 3, chunk: int = 4, problem: ExplainerError | None = None, hold: bool = False) -> None:
        self.steps = steps
        self.chunk = chunk
        """Lines in one reply."""
        self.problem = problem
        """What the next request is answered with."""
        self.log: list[Any] = []
        self.closed = False
        self.pid: int | None = 4711
        self.tell: Callable[[Message], None] = lambda _: None
        self.go = asyncio.Event()
        """With `hold` each request waits for it."""
        if not hold:
            self.go.set()
        self.guidance = 0.0
        self._todo: Iterator[LineRan] = iter(())
        self._next: LineRan | None = None

    def __call__(self, tell: Callable[[Message], None]) -> ScriptedExplainer:
        """In place of the class."""
        self.tell = tell
        return self

    def asked(self, kind: type[Any]) -> list[Any]:
        """The requests of a kind."""
        return [message for message in self.log if isinstance(message, kind)]

    async def request(self, message: Any) -> Any:
        """As `Explainer.request`."""
        self.log.append(message)
        await self.go.wait()
        if self.problem is not None:
            problem, self.problem = self.problem, None
            raise problem
        match message:
            case StartExplaining():
                return self._start(message.params)
            case Advance():
                return self._advance(message)
            case SaveExplained():
                return ExplainedSaved(request=0, path=message.path)

    async def close(self) -> None:
        """The process ends."""
        self.closed = True

    def _start(self, params: GenerationParams) -> ExplainingStarted:
        self.guidance = params.guidance_scale
        self._todo = self._lines()
        self._next = next(self._todo)
        return ExplainingStarted(
            request=0,
            function="text_to_image",
            file="sdtui/scratch/text_to_image.py",
            first_line=FIRST,
            source=SOURCE,
            next_line=GUIDED,
            lines=LINES,
            notes={line: f"Why {line} is there {NASTY}" for line in LINES},
            stages=tuple(ExplainStage(line=line, title=title) for line, title in STAGES.items()),
            given={},
            params=msgspec.structs.replace(params, seed=params.seed if params.seed is not None else 1234, width=128, height=128),
            total_steps=self.steps,
            device="cpu",
            device_name="CPU, 2 threads",
            dtype="float32",
        )

    def _advance(self, message: Advance) -> LinesRan:
        if message.guidance_scale is not None:
            self.guidance = message.guidance_scale
        ran: list[LineRan] = []
        stopped = False
        while self._next is not None and not stopped and len(ran) < self.chunk:
            line, self._next = self._next, next(self._todo, None)
            ran.append(msgspec.structs.replace(line, next_line=self._next.line if self._next else None, finished=not self._next))
            stopped = self._stops(message.to, line)
        finished = self._next is None
        picture = square(250, 128) if finished and ran else None
        return LinesRan(request=0, lines=tuple(ran), stopped=stopped or finished, finished=finished, picture=picture)

    def _stops(self, to: str, line: LineRan) -> bool:
        if to == "line" or self._next is None:
            return to == "line"
        crossed = any(line.line < stage <= self._next.line for stage in STAGES)
        return to == "stage" and (crossed or (self._next.line == LOOP and line.line != LATENTS))

    def _lines(self) -> Iterator[LineRan]:
        yield LineRan(line=GUIDED, next_line=None, values={"guided": str(self.guidance > 1)})
        words = (("<|startoftext|>", f"{NASTY}</w>", "des", "ert</w>", "<|endoftext|>"),)
        yield LineRan(
            line=TOKENS, next_line=None, made=(tensor("tokens", 2, 77, dtype="int64", low=0.0, high=49407.0, words=words),)
        )
        yield LineRan(line=LATENTS, next_line=None, made=(tensor("latents", 1, 4, 16, 16, mean=0.5, picture=square(1)),))
        for step in range(self.steps):
            there = {
                "next_line": None,
                "step_index": step,
                "total_steps": self.steps,
                "timestep": 900.0 - step,
                "elapsed_s": 0.048,
            }
            yield LineRan(line=LOOP, values={"t": f"tensor({900 - step})"}, **there)
            yield LineRan(line=UNET, made=(tensor("noise_pred", 2, 4, 16, 16, picture=square(10 + step)),), **there)
            yield LineRan(line=IF, **there)
            guided = tensor("noise_pred", 1, 4, 16, 16, mean=self.guidance, how="rebound", picture=square(20 + step))
            yield LineRan(line=GUIDE, made=(guided,), **there)
            latents = tensor("latents", 1, 4, 16, 16, mean=step + 1.0, how="rebound", picture=square(30 + step))
            yield LineRan(line=STEP, made=(latents,), **there)
        yield LineRan(line=RETURN, next_line=None, values={"return": "a picture, 128x128, RGB"})


def downloading() -> DownloadProgress:
    """A model on its way."""
    return DownloadProgress(model="x/y", file="unet.safetensors", done_bytes=3 << 20, total_bytes=9 << 20)


async def open_explain(running: Stage, explainer: ScriptedExplainer, monkeypatch: pytest.MonkeyPatch) -> ExplainScreen:
    """Open it with F12, as the user does, and wait until the function is there."""
    screen = await begin_explain(running, explainer, monkeypatch)
    await until(lambda: screen.run is not None and screen.busy is None, "the function")
    await running.pilot.pause()
    return screen


async def begin_explain(running: Stage, explainer: ScriptedExplainer, monkeypatch: pytest.MonkeyPatch) -> ExplainScreen:
    """Open it with F12."""
    monkeypatch.setattr(explain, "_make_explainer", explainer)
    running.screen.prompt.load_text("a red cat")
    await running.pilot.press("f12")
    await until(lambda: isinstance(running.app.screen, ExplainScreen), "the screen")
    screen = running.app.screen
    assert isinstance(screen, ExplainScreen)
    await running.pilot.pause()
    return screen


async def press(running: Stage, *keys: str) -> None:
    """Press keys one after the other, and wait until what each began is done."""
    screen = running.app.screen
    for key in keys:
        await running.pilot.press(key)
        await until(lambda: not isinstance(screen, ExplainScreen) or screen.busy is None, f"what {key} began")
    await running.pilot.pause()


def made(screen: ExplainScreen) -> str:
    """What is said of the line that is read."""
    return screen.made.view.text


def said(screen: ExplainScreen) -> str:
    """The line above the keys."""
    return str(screen.say.content)


def source(screen: ExplainScreen) -> list[str]:
    """The lines of the source that are in view, with their marks."""
    return [screen.source.render_line(y).text.rstrip() for y in range(screen.source.size.height)]


def marked(screen: ExplainScreen, mark: str) -> list[int]:
    """The numbers of the lines in view with this mark."""
    return [int(row.split()[1]) for row in source(screen) if row.startswith(mark)]
