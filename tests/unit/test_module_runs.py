"""What modules did, as it is kept: figures over steps, times of what holds modules, a forward played again."""

from __future__ import annotations

import pytest

from sdtui.params import GenerationParams
from sdtui.protocol import (
    JobFinished,
    JobStarted,
    ModuleRun,
    ModulesRan,
    NotANumber,
    StageFinished,
    StepFinished,
    TensorFact,
    Welcome,
)
from sdtui.ui.log_rows import LogRows
from sdtui.ui.module_runs import KEPT_RUNS, Forward, ModuleRuns, timeline
from sdtui.ui.replay import FADE_S, REPLAY_S, TICK_S, Replays
from sdtui.ui.rows import WIDE, ModuleRow, NoteRow, StepRow, row_text


def ran(path: str, milliseconds: float = 1.0, **more: object) -> ModuleRun:
    return ModuleRun(path=path, class_name="X", elapsed_s=milliseconds / 1000, **more)  # type: ignore[arg-type]


def told(*modules: ModuleRun, step: int | None = 0, network: str = "unet", job: str = "j", batch: int = 0) -> ModulesRan:
    return ModulesRan(job=job, batch_index=batch, step_index=step, network=network, modules=modules, probing_s=0.0)


def started(job: str = "j", model: str = "m") -> JobStarted:
    return JobStarted(job=job, seed=1, params=GenerationParams(prompt="x", model=model), total_images=1)


# --- figures over steps -----------------------------------------------------------------------------------------------


def test_a_modules_runs_are_kept_with_their_steps_mean_and_first_fault() -> None:
    runs = ModuleRuns()
    runs.take(started())
    runs.take(told(ran("a", 2.0), step=0))
    runs.take(told(ran("a", 4.0, fault="nan"), step=1))
    runs.take(told(ran("a", 6.0, fault="inf"), step=2, batch=1))
    trace = runs.trace("unet", "a")
    assert trace is not None
    assert trace.mean_s == pytest.approx(0.004)
    assert [seen.when for seen in trace.runs] == ["step 1", "step 2", "batch 2, step 3"]
    assert trace.fault is not None
    assert (trace.fault.when, trace.fault.run.fault) == ("step 2", "nan")
    assert trace.newest.elapsed_s == pytest.approx(0.006)
    assert runs.trace("vae", "a") is None


def test_statistics_that_a_step_leaves_out_are_those_of_the_newest_step_that_has_them() -> None:
    runs = ModuleRuns()
    runs.take(told(ran("a", mean=0.5, std=1.0, absmax=2.0), ran("b"), step=0))
    runs.take(told(ran("a", 7.0), ran("b"), step=1))
    trace, other = runs.trace("unet", "a"), runs.trace("unet", "b")
    assert trace is not None and other is not None and trace.known is not None
    newest = trace.newest
    assert (trace.known.when, newest.mean, newest.std, newest.absmax, newest.elapsed_s) == ("step 1", 0.5, 1.0, 2.0, 0.007)
    assert other.known is None and other.newest.mean is None
    runs.take(told(ran("a", mean=0.7, std=1.0, absmax=2.0), step=2))
    assert (trace.known.when, trace.newest.mean) == ("step 3", 0.7)
    runs.take(told(ran("a", fault="nan"), step=3))
    assert trace.newest.mean is None, "it gave no number"


def test_only_the_last_runs_of_a_long_job_are_kept_but_the_mean_and_the_fault_are_of_all() -> None:
    runs = ModuleRuns()
    for step in range(KEPT_RUNS + 10):
        runs.take(told(ran("a", 1.0, fault="nan" if step == 3 else ""), step=step))
    trace = runs.trace("unet", "a")
    assert trace is not None
    assert (len(trace.runs), trace.count) == (KEPT_RUNS, KEPT_RUNS + 10)
    assert trace.fault is not None
    assert trace.fault.step_index == 3


def test_a_job_that_is_not_inspected_leaves_what_the_last_one_told() -> None:
    runs = ModuleRuns()
    runs.take(started("first", "one"))
    runs.take(told(ran("a"), job="first"))
    runs.take(JobFinished(job="first", elapsed_s=1.0, images=()))
    assert runs.ended
    runs.take(started("plain", "two"))
    assert (runs.job, runs.model) == ("first", "one")
    runs.take(started("next", "two"))
    runs.take(NotANumber(job="next", batch_index=0, step_index=0, network="unet", module="b", fault="nan"))
    assert (runs.job, runs.model, runs.ended) == ("next", "two", False)
    assert runs.trace("unet", "a") is None
    assert runs.fault is not None


def test_a_model_is_the_same_by_its_name_and_by_where_it_lies() -> None:
    from tests.ui.scripted import MODEL

    runs = ModuleRuns()
    runs.take_welcome(Welcome(protocol=1, version="1", pid=1, worker="ready", model=MODEL, jobs=()))
    runs.take(started("j", MODEL.model))
    runs.take(told(ran("a")))
    assert runs.is_of(MODEL.path)
    assert runs.is_of(MODEL.model)
    assert not runs.is_of("another")


def test_what_is_told_in_parts_is_one_forward() -> None:
    runs = ModuleRuns()
    runs.take(told(ran("a"), ran("b"), step=4))
    runs.take(told(ran("c"), step=4))
    assert [run.path for run in runs.forwards["unet"].modules] == ["a", "b", "c"]
    runs.take(told(ran("a"), step=5))
    assert [run.path for run in runs.forwards["unet"].modules] == ["a"]


def test_the_lines_of_the_log_are_of_the_network_that_works_in_a_stage() -> None:
    runs = ModuleRuns()
    runs.take(started())
    runs.take(StageFinished(job="j", stage="embeddings", elapsed_s=0.1, tensors=(TensorFact("x", (1, 77), "float32"),)))
    runs.take(told(ran("a"), step=None, network="text_encoder"))
    runs.take(StageFinished(job="j", stage="decode", elapsed_s=0.1))
    assert [event.stage for event in runs.lines("text_encoder") if isinstance(event, StageFinished)] == ["embeddings"]
    assert len(runs.lines("vae")) == 1
    assert runs.lines("unet") == ()


# --- when modules ran -------------------------------------------------------------------------------------------------


def test_modules_in_others_run_one_after_the_other_inside_their_time() -> None:
    spans = timeline([ran("", 10), ran("a", 4), ran("a.x", 1), ran("a.y", 2), ran("b", 5), ran("b.x", 3)])
    assert spans[""] == pytest.approx((0, 0.010))
    assert spans["a"] == pytest.approx((0, 0.004))
    assert spans["a.y"] == pytest.approx((0.001, 0.003))
    assert spans["b"] == pytest.approx((0.004, 0.009))
    assert spans["b.x"] == pytest.approx((0.004, 0.007))


def test_what_holds_modules_and_was_not_looked_at_lasts_as_long_as_they_do() -> None:
    forward = Forward(1, 0, 0, (ran("a.0.x", 2, output_bytes=10), ran("a.1.x", 3, output_bytes=20), ran("b", 1)))
    assert forward.spans["a"] == pytest.approx((0, 0.005))
    assert forward.spans["a.1"] == pytest.approx((0.002, 0.005))
    assert forward.total_s == pytest.approx(0.006)
    assert forward.times_s[""] == pytest.approx(0.006)
    assert forward.times_s["a"] == pytest.approx(0.005)
    assert forward.sizes["a"] == 30


def test_a_module_that_was_looked_at_is_not_counted_with_what_is_in_it() -> None:
    forward = Forward(1, 0, 0, (ran("a", 5), ran("a.x", 3)))
    assert forward.times_s == pytest.approx({"a": 0.005, "a.x": 0.003, "": 0.005})


def test_names_that_begin_alike_do_not_lie_in_each_other() -> None:
    spans = timeline([ran("conv", 1), ran("conv_out", 1)])
    assert spans["conv_out"] == pytest.approx((0.001, 0.002))


# --- played again -----------------------------------------------------------------------------------------------------


def test_a_forward_is_played_in_a_second_whatever_it_took_and_what_was_at_work_fades() -> None:
    replays = Replays()
    replays.take("unet", Forward(1, 0, 0, (ran("a", 1), ran("b", 1))))
    replays.advance(100.0)
    level = replays.level
    assert [level("unet", path, 100.0 + 0.25 * REPLAY_S) for path in ("a", "b", "")] == [2, 0, 2]
    later = 100.0 + 0.75 * REPLAY_S
    assert [level("unet", path, later) for path in ("a", "b")] == [1, 2]
    assert level("vae", "a", later) == 0
    over = 100.0 + REPLAY_S + TICK_S + FADE_S + 0.01
    assert [level("unet", path, over) for path in ("a", "b")] == [0, 0]


def test_what_takes_a_thousandth_of_the_time_is_bright_at_one_moment_too() -> None:
    replays = Replays()
    replays.take("unet", Forward(1, 0, 0, (ran("a", 499), ran("tiny", 1), ran("b", 500))))
    replays.advance(0.0)
    assert 2 in [replays.level("unet", "tiny", tick * TICK_S) for tick in range(round(REPLAY_S / TICK_S) + 1)]


def test_a_replay_is_played_to_its_end_and_then_the_newest_that_came_meanwhile() -> None:
    replays = Replays()
    first, second, third = (Forward(number, 0, number, (ran("a", 1),)) for number in range(3))
    replays.take("unet", first)
    replays.advance(0.0)
    replays.take("unet", second)
    replays.take("unet", third)
    replays.advance(REPLAY_S / 2)
    assert replays.playing is not None
    assert replays.playing.forward is first
    replays.advance(REPLAY_S + 0.01)
    assert replays.playing.forward is third
    replays.advance(REPLAY_S + 0.01 + REPLAY_S + TICK_S + FADE_S + 0.01)
    assert replays.idle


# --- rows of the log --------------------------------------------------------------------------------------------------


def step_row(index: int) -> StepRow:
    from tests.ui.scripted import step_event

    event = step_event("j", index, 20)
    assert isinstance(event, StepFinished)
    return StepRow(event)


def test_rows_of_modules_stand_below_their_step_while_they_are_unfolded() -> None:
    rows = LogRows()
    for step in range(3):
        rows.append([step_row(step)])
        rows.append_modules(told(ran("a"), ran("b"), step=step))
    assert len(rows.shown) == 3
    rows.toggle()
    assert [type(row) for row in rows.shown] == [StepRow, ModuleRow, ModuleRow] * 3
    rows.append([NoteRow("end")])
    assert isinstance(rows.shown[-1], NoteRow)
    rows.toggle()
    assert len(rows.shown) == 4


def test_dropping_the_oldest_rows_drops_those_of_their_modules() -> None:
    rows = LogRows()
    rows.toggle()
    for step in range(10):
        rows.append([step_row(step)])
        rows.append_modules(told(ran("a"), step=step))
    rows.drop(4)
    assert isinstance(rows.shown[0], StepRow | ModuleRow)
    assert [row.step.step_index for row in rows.shown if isinstance(row, StepRow)] == [4, 5, 6, 7, 8, 9]
    assert sum(isinstance(row, ModuleRow) for row in rows.shown) == 6
    assert [type(row) for row in rows.shown[-2:]] == [StepRow, ModuleRow]


def test_rows_of_modules_are_bounded_and_the_newest_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdtui.ui.log_rows.MOST_INNER", 100)
    rows = LogRows()
    for step in range(50):
        rows.append([step_row(step)])
        rows.append_modules(told(*(ran(str(number)) for number in range(10)), step=step))
    rows.toggle()
    assert sum(isinstance(row, ModuleRow) for row in rows.shown) <= 100
    assert isinstance(rows.shown[-1], ModuleRow)
    assert len([row for row in rows.shown if isinstance(row, StepRow)]) == 50


def test_the_last_row_of_a_module_of_what_holds_it_or_of_its_network_is_found() -> None:
    rows = LogRows()
    rows.append([NoteRow("words", target=("text_encoder", "")), step_row(0)])
    rows.append_modules(told(ran("a.0"), step=0))
    rows.append([step_row(1)])
    rows.append_modules(told(ran("a.0", 9.0), step=1))
    found = rows.last_of(("unet", "a.0.conv"))
    assert isinstance(found, ModuleRow)
    assert found.run.elapsed_s == pytest.approx(0.009)
    assert rows.last_of(("text_encoder", "layers.0")) is rows.shown[0]
    assert rows.last_of(("unet", "")) is rows.shown[2]
    assert rows.last_of(("transformer", "")) is rows.shown[2]
    assert rows.last_of(("vae", "decoder")) is None


@pytest.mark.parametrize("width", [44, 74, 120])
def test_a_modules_row_fits_and_shows_the_end_of_its_path(width: int) -> None:
    path = "down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0"
    row = ModuleRow("unet", ran(path, 1.5, shape=(2, 1280, 64, 64), mean=-0.1, std=1.0, absmax=3.0))
    text = row_text(row, width)
    assert len(text) <= width
    assert "to_out.0 " in text
    assert ("[2, 1280, 64, 64]" if width >= WIDE else " 2×1280×64×64 ") in text
    short = row_text(ModuleRow("unet", ran("up_blocks.2.attentions.1.transformer_blocks.0", fault="nan")), width)
    assert short.lstrip().startswith("up")
    assert short.endswith("NaN")
