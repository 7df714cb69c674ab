"""`python -m sdtui.bench`: which measurement, how often, and as a table or as JSON."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from sdtui.bench.figures import Figure, as_table

_ROUNDS_FOR_ONE_OF_PICTURES: Final = 5
"""One round of pictures takes two minutes."""


def _overhead(rounds: int) -> list[Figure]:
    from sdtui.bench.overhead import measure

    return measure(rounds)


def _inspect(rounds: int) -> list[Figure]:
    from sdtui.bench.inspect import measure

    return measure(rounds)


def _inspect_tree(rounds: int) -> list[Figure]:
    from sdtui.bench.inspect_tree import measure

    return measure(rounds)


def _start(rounds: int) -> list[Figure]:
    from sdtui.bench.start import measure

    return measure(rounds)


def _stall(rounds: int) -> list[Figure]:
    from sdtui.bench.live import measure_stall, run_jobs

    return measure_stall(run_jobs(rounds))


def _first_step(rounds: int) -> list[Figure]:
    from sdtui.bench.live import measure_first_step, run_jobs

    return measure_first_step(run_jobs(rounds))


def _live(rounds: int) -> list[Figure]:
    """Both of the above from the same jobs."""
    from sdtui.bench.live import measure_first_step, measure_stall, run_jobs

    session = run_jobs(rounds)
    return [*measure_stall(session), *measure_first_step(session)]


def _export(rounds: int) -> list[Figure]:
    """What files of a job's steps cost."""
    from sdtui.bench.export import measure

    return measure(rounds)


def _queue(rounds: int) -> list[Figure]:
    """What a queue of ten thousand jobs costs."""
    from sdtui.bench.long_queue import measure

    return measure(rounds)


def _timeline(rounds: int) -> list[Figure]:
    """Scrubbing through steps: from the key to the frame, and the gaps of the loop meanwhile."""
    from sdtui.bench.timeline import measure

    return measure(rounds)


def _terminal(rounds: int) -> list[Figure]:
    """Pictures: what frames cost, what the terminal holds, how long asking it takes, and whether they flicker."""
    from sdtui.bench import flicker, picture_costs, pictures

    few = max(1, rounds // _ROUNDS_FOR_ONE_OF_PICTURES)
    figures = [*pictures.measure(few), *picture_costs.measure_memory(), *picture_costs.measure_probe(rounds)]
    return [*figures, *flicker.measure(few)]


BENCHES: Final[dict[str, Sequence[Callable[[int], list[Figure]]]]] = {
    "overhead": (_overhead,),
    "inspect": (_inspect_tree, _inspect),
    "start": (_start,),
    "stall": (_stall,),
    "first-step": (_first_step,),
    "terminal": (_terminal,),
    "queue": (_queue,),
    "timeline": (_timeline,),
    "export": (_export,),
    "all": (_start, _live, _overhead, _terminal),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 when it could be measured, whether or not a target is met."""
    parser = argparse.ArgumentParser(
        prog="sdtui bench",
        description="Measure speed, as ratios within one run. Targets are for a machine that does nothing else.",
        epilog="Example: sdtui bench overhead --rounds 10 --json",
    )
    parser.add_argument("which", choices=(*BENCHES, "soak"), help="what to measure; soak kills worker and server meanwhile")
    parser.add_argument(
        "--rounds", type=_rounds, default=5, metavar="N", help="how often, 1 to 1000; pictures a fifth of that  [5]"
    )
    parser.add_argument("--jobs", type=_rounds, default=500, metavar="N", help="soak: how many jobs, 1 to 1000  [500]")
    parser.add_argument("--kill-every", type=_rounds, default=5, metavar="N", help="soak: a kill every so many jobs  [5]")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="soak: picks jobs and moments  [1]")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args(arguments)
    # Threads that wait by spinning make each other slow where other programs run, and the figures mere noise.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    figures = _soak(options) if options.which == "soak" else _figures(options.which, options.rounds)
    if options.json:
        for figure in figures:
            sys.stdout.write(msgspec.json.encode({**msgspec.to_builtins(figure), "met": figure.met}).decode() + "\n")
    else:
        sys.stdout.write(as_table(figures) + "\n")
    return 0


def _figures(which: str, rounds: int) -> list[Figure]:
    return [figure for measure in BENCHES[which] for figure in measure(rounds)]


def _soak(options: argparse.Namespace) -> list[Figure]:
    from sdtui.bench.soak import Plan, measure

    return measure(Plan(jobs=options.jobs, kill_every=options.kill_every, seed=options.seed))


def _rounds(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"{value} is not from 1 to 1000")
    return value


if __name__ == "__main__":
    sys.exit(main())
