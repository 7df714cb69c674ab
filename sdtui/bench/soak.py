"""Hundreds of jobs while worker and server are killed at random: what is lost, what differs, and what leaks.

The figures compare like with like: the server that lives last from its 50th job on, a worker that nobody kills from its
20th, and workers of early and of late lives after as many jobs.
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Final

import msgspec
import psutil
from PIL import Image

from sdtui.bench.figures import Figure
from sdtui.bench.isolation import isolated
from sdtui.bench.soak_run import Life, Session, run_session
from sdtui.params import GenerationParams
from sdtui.protocol import PreviewOptions, Submit

FLAT: Final = 1.05
"""Memory at the end over memory at the start."""
STILL: Final = 1.02
"""The same over the last jobs, when every cache is full."""
_LAST_JOBS: Final = 100
_PAGE_CACHE: Final = "; SQLite's page cache, at most 2 MB, fills in its first 500 jobs"
STEPS: Final = 4
SERVER_WARM_JOBS: Final = 50
WORKER_WARM_JOBS: Final = 20
_COMPARED: Final = 20
"""Killed jobs that are run once more, undisturbed, at the end."""
_SCHEDULERS: Final = ("default", "euler_a", "dpmpp_2m_sde", "ddim", "heun", "lcm", "unipc", "dpmpp_sde")
_PROMPTS: Final = ("a red cat in the desert", "a blue bird over the sea", "a green tree at night")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a soak does; the same seed picks the same jobs and the same moments."""

    jobs: int = 500
    kill_every: int = 5
    seed: int = 1

    @property
    def last_server_kill(self) -> int:
        """After this job the server is left alone, so that its memory can be compared over a long life."""
        return self.jobs // 2

    @property
    def last_worker_kill(self) -> int:
        """After this job the worker is left alone."""
        return self.jobs * 4 // 5


def measure(plan: Plan) -> list[Figure]:
    """Run the soak in a place of its own and say what became of everything."""
    with isolated() as root:
        chance = random.Random(plan.seed)
        submits = [soak_job(number, root / "pictures", chance) for number in range(plan.jobs)]
        session = run_session(
            submits,
            chance,
            kill_every=plan.kill_every,
            last_server_kill=plan.last_server_kill,
            last_worker_kill=plan.last_worker_kill,
            compared=_COMPARED,
        )
        return [*_losses(session, root / "pictures", plan), *_memory(session), *_leaks(session)]


def soak_job(number: int, output_dir: Path, chance: random.Random) -> Submit:
    """One of many kinds of short jobs."""
    params = GenerationParams(
        prompt=chance.choice(_PROMPTS),
        num_inference_steps=STEPS,
        scheduler=chance.choice(_SCHEDULERS),
        seed=chance.randrange(1 << 31),
        batch_size=chance.choice((1, 1, 1, 2)),
        batch_count=chance.choice((1, 1, 1, 2)),
    )
    name = f"soak-{number:04d}"
    return Submit(job=name, params=params, output_dir=str(output_dir), name_pattern="{job}-{seed}", preview=PreviewOptions())


# --- what was lost --------------------------------------------------------------------------------------------------


def _losses(session: Session, pictures: Path, plan: Plan) -> list[Figure]:
    ended = Counter(row.state for row in session.rows.values())
    lost = len(session.submitted) - ended["done"]
    expected = {name: submit.params.batch_size * submit.params.batch_count for name, submit in session.submitted.items()}
    files = Counter("-".join(path.name.split("-")[:2]) for path in pictures.glob("soak-*"))
    too_many = sum(max(0, files[name] - wanted) for name, wanted in expected.items())
    recorded = sum(abs(len(set(session.rows[name].images)) - wanted) for name, wanted in expected.items() if name in session.rows)
    broken = [path for path in pictures.iterdir() if not _opens(path)]
    differing = [pair for pair in session.compared if _pixels(pair[0]) != _pixels(pair[1])]
    kills = ", ".join(f"{count} x {what}" for what, count in sorted(session.kills.items()))
    resumed = f"{session.resumed} jobs went on from their tape, {session.replayed_steps} steps were not computed again"
    return [
        _count("jobs lost", lost, f"of {plan.jobs} x {STEPS} steps; kills: {kills}"),
        _count("second images", too_many, f"{sum(files.values())} files of {sum(expected.values())} pictures"),
        _count("pictures not as the database has them", recorded),
        _count("pictures that do not open", len(broken), "half-written files under any name count"),
        _count("pictures that differ from undisturbed runs", len(differing), f"of {len(session.compared)} compared; {resumed}"),
    ]


def _count(name: str, value: int, note: str = "", target: int = 0) -> Figure:
    return Figure(bench="soak", name=name, value=value, unit="", target=target, note=note)


def _opens(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError):
        return False
    return True


def _pixels(path: str) -> bytes:
    with Image.open(path) as image:
        return image.tobytes()


# --- what grew ------------------------------------------------------------------------------------------------------


def _memory(session: Session) -> list[Figure]:
    figures = []
    for kind, warm in (("server", SERVER_WARM_JOBS), ("worker", WORKER_WARM_JOBS)):
        life = _last_life(session, kind)
        if life is None or len(life.samples) < warm + 10:
            continue
        start, end = _around(life, warm), _around(life, len(life.samples))
        note = f"{start / 1e6:.1f} MB after job {warm} of its life, {end / 1e6:.1f} MB after {len(life.samples)}"
        note += _PAGE_CACHE if kind == "server" else ""
        figures.append(_ratio(f"memory of the last {kind}", end / start, note))
        before = _around(life, max(warm, len(life.samples) - _LAST_JOBS))
        figures.append(_ratio(f"memory of the last {kind}, last {_LAST_JOBS} jobs", end / before, "", STILL))
    early = [life.samples[1].rss_bytes for life in session.lives if life.kind == "worker" and len(life.samples) > 1]
    if len(early) >= 10:
        fifth = len(early) // 5
        first, last = median(early[:fifth]), median(early[-fifth:])
        note = f"{first / 1e6:.1f} MB in the first lives, {last / 1e6:.1f} MB in the last; medians of {fifth}"
        figures.append(_ratio("memory of a worker after 2 jobs", last / first, note))
    return figures


def _ratio(name: str, value: float, note: str, target: float = FLAT) -> Figure:
    return Figure(bench="soak", name=name, value=value, unit="x", target=target, note=note)


def _around(life: Life, number: int) -> float:
    """The median of ten samples up to this one: single ones depend on what is just being written."""
    return median(sample.rss_bytes for sample in life.samples[number - 10 : number])


def _last_life(session: Session, kind: str) -> Life | None:
    lives = [life for life in session.lives if life.kind == kind]
    return lives[-1] if lives else None


def _leaks(session: Session) -> list[Figure]:
    figures = []
    for kind, warm in (("server", SERVER_WARM_JOBS), ("worker", WORKER_WARM_JOBS)):
        life = _last_life(session, kind)
        if life is None or len(life.samples) < warm + 10:
            continue
        for what in ("files", "threads"):
            start = max(getattr(sample, what) for sample in life.samples[warm - 10 : warm])
            end = max(getattr(sample, what) for sample in life.samples[-10:])
            figures.append(_count(f"{what} more at the end, last {kind}", end - start, f"{start} and {end}"))
    left = sum(1 for life in session.lives[:-1] if life.ended and psutil.pid_exists(life.pid) and life.is_same())
    figures.append(_count("processes left behind", left, f"{len(session.lives)} servers and workers lived"))
    return figures
