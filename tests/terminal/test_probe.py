"""The probe on real pseudo-terminals: whatever they do, no key is lost, no answer is left, and the modes are as before."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest

from sdtui.terminal import queries
from sdtui.terminal.inside_tmux import ask_tmux, read_tmux
from sdtui.terminal.parser import AnswerParser
from sdtui.terminal.probe import start_probe
from sdtui.terminal.report import Report
from sdtui.terminal.tmux import passthrough

from .outside import Outside, wait_until

LAST = queries.ATTRIBUTES
ENVIRON = {"TERM": "xterm-256color", "LANG": "C.UTF-8"}
ANSWERS = b"\x1bP>|kitty(0.41.1)\x1b\\\x1b[>1;4000;41c\x1b[6;20;10t\x1b[4;480;800t\x1b[?2026;2$y\x1b[0n"
DA1 = b"\x1b[?62;c"
PATIENT_S = 20.0
"""Where the answer is sure to come: a busy machine may take its time."""


def answering(*parts: bytes, gate: threading.Event | None = None, latency_s: float = 0.0):
    """Send the parts once everything was asked: after a gate is opened, or a time."""

    def react(outside: Outside, received: bytes) -> None:
        if LAST in received and not outside.sent_all.is_set():
            if gate is not None:
                gate.wait(PATIENT_S)
            threading.Event().wait(latency_s)
            for part in parts:
                outside.send(part)
            outside.sent_all.set()

    return react


def silent(outside: Outside, received: bytes) -> None:
    outside.sent_all.set()


def probe_of(outside: Outside, **options):
    return start_probe(ENVIRON, outside.slave, outside.slave, **options)


@pytest.mark.parametrize("latency_s", [0.0, 0.04, 0.15, 0.4])
def test_answers_come_at_any_latency(latency_s):
    with Outside(answering(ANSWERS + DA1, latency_s=latency_s)) as outside:
        probe = probe_of(outside)
        report = probe.collect(PATIENT_S)
        assert report.complete
        assert report.answers.name == "kitty(0.41.1)"
        assert report.answers.cell_px == (10, 20)
        assert report.raw == ANSWERS + DA1
        probe.finish()
        assert termios.tcgetattr(outside.slave) == outside.before
        assert outside.waiting() == b""


def test_late_answers_are_taken_in_at_the_end_of_a_command():
    gate = threading.Event()
    with Outside(answering(ANSWERS, DA1, gate=gate)) as outside:
        probe = probe_of(outside, for_app=False)
        report = probe.collect(0.02)
        assert report.asked
        assert not report.complete
        gate.set()
        assert probe.finish(PATIENT_S) == b""
        assert probe.report().complete
        assert termios.tcgetattr(outside.slave) == outside.before
        assert outside.waiting() == b""


def test_late_answers_are_taken_out_of_the_apps_input_by_the_same_parser():
    gate = threading.Event()
    with Outside(answering(b"a" + ANSWERS, b"b" + DA1 + b"c", gate=gate)) as outside:
        probe = probe_of(outside)
        probe.collect(0.02)
        before = probe.hand_over()
        assert before == outside.before
        gate.set()
        typed = b""
        while b"c" not in typed:
            typed += probe.parser.feed(os.read(outside.slave, 7))
        assert typed == b"abc"
        assert probe.parser.done


def test_what_is_typed_before_between_and_after_is_given_back_in_order():
    with Outside(answering(b"one\x1b[A", ANSWERS, b"two\x1b", DA1 + b"three")) as outside:
        outside.send(b"zero\n")
        wait_until(lambda: _readable(outside.slave), "a line in the input")
        probe = probe_of(outside)
        probe.collect(PATIENT_S)
        outside.sent_all.wait(PATIENT_S)
        left = outside.waiting()
        assert probe.take_unread() + left == b"zero\rone\x1b[Atwo\x1bthree"
        assert probe.take_unread() == b""
        probe.restore()


def test_a_command_gives_what_was_typed_back_to_the_terminal_or_to_the_caller():
    with Outside(answering(b"ls\r", ANSWERS, DA1)) as outside:
        probe = probe_of(outside, for_app=False)
        probe.collect(PATIENT_S)
        left = probe.finish()
        assert (outside.waiting() + left).replace(b"\n", b"\r") == b"ls\r"
        assert termios.tcgetattr(outside.slave) == outside.before


def test_a_lone_escape_typed_at_a_silent_terminal_is_given_back():
    with Outside(answering(b"\x1b")) as outside:
        probe = probe_of(outside)
        outside.sent_all.wait(PATIENT_S)
        probe.collect(0.1)
        assert probe.parser.pending
        assert probe.unread + probe.parser.flush() == b"\x1b"
        probe.restore()


def test_a_silent_terminal_costs_the_deadline_and_no_key():
    with Outside(silent) as outside:
        probe = probe_of(outside)
        report = probe.collect(0.05)
        assert (report.asked, report.complete) == (True, False)
        assert report.answers.device_attributes is None
        assert probe.finish(0.06) == b""
        assert termios.tcgetattr(outside.slave) == outside.before


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x1bP>|kit",
        b"\x1b[?62;4",
        b"\x1b_Gi=1935963001;OK",
        b"\x1b]10;rgb:1/2",
        b"\x00\xff\x9b\x9d" * 100,
        b"\x1b" * 3000,
        b"\x1b[;;;;c\x1bP\x1b]",
    ],
)
def test_nonsense_and_half_a_sequence_do_no_harm(nonsense):
    with Outside(answering(nonsense)) as outside:
        probe = probe_of(outside)
        outside.sent_all.wait(PATIENT_S)
        report = probe.collect(0.1)
        assert not report.complete
        assert Report.from_json(report.to_json()) == report
        probe.finish(0.1)
        assert termios.tcgetattr(outside.slave) == outside.before


@pytest.mark.parametrize("flood", [b"x" * 5_000_000, b"\x1bP>|" + b"x" * 5_000_000, b"\x1bP>|xxx\x1b\\" * 400_000])
def test_megabytes_neither_fill_the_memory_nor_hold_up_the_start(flood):
    with Outside(answering(flood)) as outside:
        probe = probe_of(outside)
        report = probe.collect(0.3)
        assert not report.complete
        assert len(probe.unread) <= (1 << 20) + (1 << 16)
        assert len(report.raw) <= 1 << 16
        probe.restore()
        assert termios.tcgetattr(outside.slave) == outside.before


def test_a_terminal_that_dies_in_the_middle_is_no_error():
    def die(outside: Outside, received: bytes) -> None:
        outside.send(ANSWERS[:20])
        os.close(outside.master)
        outside.sent_all.set()

    with Outside(die) as outside:
        probe = probe_of(outside)
        report = probe.collect(PATIENT_S)
        assert not report.complete
        probe.finish(PATIENT_S)


def test_a_terminal_that_was_hung_up_before_is_no_error():
    with Outside() as outside:
        os.close(outside.master)
        probe = probe_of(outside)
        assert not probe.collect().complete
        probe.finish()


def test_a_terminal_that_takes_no_output_is_not_waited_for():
    with Outside() as outside:
        termios.tcflow(outside.slave, termios.TCOOFF)
        probe = probe_of(outside)
        report = probe.collect()
        assert not report.asked
        assert "no output" in report.why_not
        termios.tcflow(outside.slave, termios.TCOON)
        probe.finish()
        assert termios.tcgetattr(outside.slave) == outside.before


def test_questions_that_do_not_fit_at_once_are_sent_when_there_is_room(monkeypatch):
    monkeypatch.setattr(queries, "_SAVE", b"\x1b[m" * 100_000)  # no line buffers so much
    outside = Outside(answering(DA1))
    probe = probe_of(outside)
    assert probe._unsent
    assert not probe.collect(0.05).complete
    with outside:
        assert probe.collect(PATIENT_S).complete
        probe.finish()
        assert outside.received == queries.questions(probe.report().capabilities, {}).text


def test_a_window_without_a_size_is_asked_all_the_same():
    with Outside(answering(ANSWERS + DA1), size=(0, 0, 0, 0)) as outside:
        probe = probe_of(outside)
        report = probe.collect(PATIENT_S)
        probe.finish()
        assert report.complete
        assert report.capabilities.width_cells == 0


def test_a_pipe_a_file_and_a_closed_descriptor_are_no_terminals(tmp_path):
    reading, writing = os.pipe()
    with Outside(silent) as outside, (tmp_path / "file").open("wb") as file:
        for inside, out in [(reading, outside.slave), (outside.slave, file.fileno()), (-1, outside.slave), (outside.slave, 9999)]:
            with start_probe(ENVIRON, inside, out) as probe:
                report = probe.collect()
                assert not report.asked
                assert "is no terminal" in report.why_not
        assert outside.received == b""
    os.close(reading)
    os.close(writing)


def test_two_different_terminals_are_left_alone():
    with Outside(silent) as first, Outside(silent) as second:
        assert not start_probe(ENVIRON, first.slave, second.slave).collect().asked
        assert (first.received, second.received) == (b"", b"")


@pytest.mark.parametrize("term", ["", "dumb", "unknown", "linux", "eterm-color"])
def test_a_terminal_that_would_print_the_questions_is_sent_nothing(term):
    with Outside(silent) as outside:
        with start_probe({**ENVIRON, "TERM": term}, outside.slave, outside.slave) as probe:
            report = probe.collect()
        assert not report.asked
        assert report.why_not
        assert outside.received == b""
        assert termios.tcgetattr(outside.slave) == outside.before


@pytest.mark.parametrize(
    "environ",
    [
        {"TERM": "screen-256color"},
        {"TERM": "xterm", "STY": "1.pts"},
        {"TERM": "xterm", "TERM_PROGRAM": "Apple_Terminal"},
        {"TERM": "rxvt-unicode"},
    ],
)
def test_where_strings_may_be_shown_none_are_sent(environ):
    with Outside(answering(b"\x1b[>83;40900;0c" + DA1)) as outside:
        with start_probe({**ENVIRON, **environ}, outside.slave, outside.slave) as probe:
            report = probe.collect(PATIENT_S)
        assert report.complete
        assert not any(begin in outside.received for begin in (b"\x1b_", b"\x1bP", b"\x1b]"))


def test_inside_tmux_without_its_socket_no_picture_command_is_sent():
    with Outside(answering(DA1)) as outside:
        with start_probe({**ENVIRON, "TERM": "tmux-256color"}, outside.slave, outside.slave) as probe:
            report = probe.collect(PATIENT_S)
        assert "tmux itself" in report.why_not
        assert b"\x1b_" not in outside.received


def test_print_of_a_simple_terminal_is_wiped_and_nothing_else():
    with Outside(answering(b"\x1b[?3;5R", b"\x1b[?3;37R", DA1)) as outside, probe_of(outside) as probe:
        probe.collect(PATIENT_S)
        wait_until(lambda: outside.received.endswith(b"\x1b[32X"), "the wiping of 32 cells")


def test_nothing_is_wiped_where_the_cursor_stayed():
    with Outside(answering(b"\x1b[?3;5R", b"\x1b[?3;5R", DA1)) as outside:
        with probe_of(outside) as probe:
            probe.collect(PATIENT_S)
        assert outside.received.endswith(LAST)


def test_an_interrupt_while_waiting_restores_the_terminal():
    with Outside(silent) as outside:
        probe = probe_of(outside)
        timer = threading.Timer(0.1, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            probe.collect(PATIENT_S)
        assert termios.tcgetattr(outside.slave) == outside.before


def test_an_error_between_asking_and_collecting_restores_the_terminal():
    with Outside(silent) as outside:
        with pytest.raises(RuntimeError), probe_of(outside):
            raise RuntimeError
        assert termios.tcgetattr(outside.slave) == outside.before


def test_keys_are_not_echoed_and_arrive_at_once_while_asking():
    with Outside(silent) as outside:
        probe = probe_of(outside)
        local = termios.tcgetattr(outside.slave)[3]
        assert not local & (termios.ECHO | termios.ICANON)
        assert local & termios.ISIG
        probe.restore()


BACKGROUND = """
import fcntl, json, os, signal, sys, termios
os.setsid()
slave = os.open(sys.argv[1], os.O_RDWR)
fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
child = os.fork()
if not child:
    os.setpgid(0, 0)
    from sdtui.terminal.probe import start_probe
    probe = start_probe({"TERM": "xterm"}, slave, slave)
    report = probe.collect()
    probe.finish()
    print(json.dumps([report.asked, report.why_not]), flush=True)
    os._exit(0)
_, status = os.waitpid(child, os.WUNTRACED)
print(json.dumps([os.WIFSTOPPED(status)]))
"""


def test_a_process_of_the_background_is_not_stopped_and_asks_nothing():
    with Outside(silent) as outside:
        done = subprocess.run(
            [sys.executable, "-c", BACKGROUND, os.ttyname(outside.slave)], capture_output=True, timeout=60, check=False, text=True
        )
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        assert answers[-1] == [False], done.stderr
        asked, why_not = answers[0]
        assert not asked
        assert "background" in why_not
        assert outside.received == b""


def test_a_report_can_be_saved_and_its_raw_bytes_give_the_same_answers_again():
    with Outside(answering(ANSWERS + DA1)) as outside, probe_of(outside) as probe:
        report = Report.from_json(probe.collect(PATIENT_S).to_json())
    parser = AnswerParser()
    assert parser.feed(report.raw) == b""
    assert parser.answers() == report.answers
    assert report.capabilities.width_cells == 80


def test_the_probe_imports_nothing_slow():
    code = "import sys; before = set(sys.modules); import sdtui.terminal.probe; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    slow = {"numpy", "PIL", "textual", "rich", "subprocess", "asyncio", "torch"}
    assert not slow & {name.partition(".")[0] for name in done.stdout.split()}


def test_a_tmux_that_hangs_is_not_waited_for(tmp_path):
    program = tmp_path / "tmux"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    assert ask_tmux({"PATH": f"{tmp_path}:{os.environ['PATH']}", "TMUX": "/nowhere,1,0"}, timeout_s=0.1) is None


def test_tmuxs_own_words_are_understood():
    tmux = read_tmux("3.5a|xterm-kitty|kitty(0.41.1)|256,RGB,sixel|1|1|1|1\n")
    assert (tmux.version, tmux.outer_name, tmux.features) == ("3.5a", "kitty(0.41.1)", ("256", "RGB", "sixel"))
    assert tmux.passes_on
    assert not read_tmux("3.5a|xterm|||1|1|2|on").passes_on
    assert not read_tmux("3.3a|xterm|||1|0|1|on").passes_on
    assert not read_tmux("3.3a|xterm|||1|1|1|0").passes_on
    assert read_tmux("3.2a|xterm|||1|1|1|").passes_on
    assert read_tmux("no server running") is None


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_a_real_tmux_shows_nothing_of_the_questions(tmp_path: Path):
    socket, answer, title = "sdtui-probe-test", tmp_path / "report.json", tmp_path / "title"
    script = Path(__file__).with_name("record.py")
    inside = f"printf abc; {sys.executable} {script} {answer}; tmux display-message -p '#{{pane_title}}' > {title}; sleep 60"
    tmux = ["tmux", "-L", socket, "-f", os.devnull]
    environ = {**os.environ, "TMUX_TMPDIR": str(tmp_path)}
    subprocess.run([*tmux, "new-session", "-d", "-x", "80", "-y", "24", inside], check=True, env=environ)
    try:
        wait_until(lambda: title.exists() and title.read_text(), "the title of the pane")
        report = Report.from_json(answer.read_bytes())
        screen = subprocess.run([*tmux, "capture-pane", "-p"], check=True, env=environ, capture_output=True, text=True).stdout
        assert report.complete
        assert report.tmux is not None
        assert report.why_not == "tmux does not pass on what is meant for the terminal around it."
        assert (report.answers.name or "").startswith("tmux")
        assert "Gi=" not in title.read_text()
        assert screen.split() == ["abc"]
        assert answer.with_suffix(".left").read_bytes() == b""
    finally:
        subprocess.run([*tmux, "kill-server"], check=False, env=environ, capture_output=True)


def _readable(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], 0)[0])


def test_each_question_for_the_outer_terminal_is_wrapped_for_itself():
    wrapped = passthrough(b"\x1b_Ga=q\x1b\\")
    assert wrapped == b"\x1bPtmux;\x1b\x1b_Ga=q\x1b\x1b\\\x1b\\"
