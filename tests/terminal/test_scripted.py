"""The terminal that other tests run programs in: what it answers, how far away and how slow it is, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from sdtui.bench.personalities import (
    ALACRITTY,
    DUMB,
    FOOT,
    HALF,
    ITERM2,
    KITTY,
    NONSENSE,
    OLD_KITTY,
    PLAIN,
    SILENT,
    TMUX,
    XTERM,
    XTERM_JS,
    Personality,
    flooding,
)
from sdtui.bench.terminal import Terminal
from tests.terminal.encoders import difference, gradient, textual_image

DEADLINE_S = 20.0
ANSWERED = "[answered]"
# Writes its argument, reads the number of bytes that is its second one, and shows them.
ASK = f"""
import os, sys, tty
tty.setraw(0)
os.write(1, sys.argv[1].encode("latin-1"))
got = b""
while len(got) < int(sys.argv[2]):
    got += os.read(0, 1)
print(ascii(got), "{ANSWERED}", flush=True)
"""
STATUS, DA1 = "\x1b[5n", "\x1b[c"


def ask(question: str, answer: bytes, personality: Personality, **more: object) -> Terminal:
    """A program that waits for this answer, and shows it."""
    command = [sys.executable, "-c", ASK, question, str(len(answer))]
    terminal = Terminal(command, personality=personality, columns=200, **more)
    try:
        terminal.wait_for(ascii(answer), DEADLINE_S)
        terminal.wait_for(ANSWERED, DEADLINE_S)
    finally:
        terminal.close()
    return terminal


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.005)


def descriptors_open() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# --- what a program sees


@pytest.mark.parametrize(("cell_px", "pixels"), [((8, 17), (800, 510)), (None, (0, 0))])
def test_the_window_has_a_size_and_is_the_programs_own_terminal(cell_px: tuple[int, int] | None, pixels: tuple) -> None:
    code = (
        "import fcntl, os, struct, termios;"
        "size = struct.unpack('HHHH', fcntl.ioctl(1, termios.TIOCGWINSZ, bytes(8)));"
        "tty = os.open('/dev/tty', os.O_RDWR);"
        "print(size, os.environ['TERM'], os.tcgetpgrp(tty) == os.getpgrp(), 'COLUMNS' in os.environ)"
    )
    with Terminal([sys.executable, "-c", code], columns=100, rows=30, cell_px=cell_px, personality=KITTY) as terminal:
        terminal.wait_for(f"(30, 100, {pixels[0]}, {pixels[1]}) xterm-kitty True False", DEADLINE_S)


def test_a_change_of_size_is_told() -> None:
    code = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGWINCH, lambda *_: print('now', os.get_terminal_size().columns, flush=True))\n"
        "print('ready', flush=True)\n"
        "while True: signal.pause()"
    )
    with Terminal([sys.executable, "-c", code]) as terminal:
        terminal.wait_for("ready", DEADLINE_S)
        terminal.resize(77, 20, (10, 20))
        terminal.wait_for("now 77", DEADLINE_S)
        assert terminal.picture().size == (770, 400)


# --- answers


@pytest.mark.parametrize(
    ("personality", "question", "answer"),
    [
        (KITTY, "\x1b[>q" + DA1, b"\x1bP>|kitty(0.41.1)\x1b\\\x1b[?62;c"),
        (KITTY, "\x1b[14t\x1b[16t\x1b[18t", b"\x1b[4;680;1600t\x1b[6;17;8t\x1b[8;40;200t"),
        (KITTY, "\x1b[?2026$p\x1b[?9999$p", b"\x1b[?2026;2$y\x1b[?9999;0$y"),
        (KITTY, "\x1b]11;?\x1b\\", b"\x1b]11;rgb:0000/0000/0000\x1b\\"),
        (KITTY, "\x1b[48:2:10:20:30m\x1bP$qm\x1b\\\x1b[49m", b"\x1bP1$r0;48:2:10:20:30m\x1b\\"),
        (KITTY, "\x1b[3;7H\x1b[?6n", b"\x1b[?3;7R"),
        (KITTY, "\x1b_Gi=9,a=q,s=1,v=1,f=24;AAAA\x1b\\" + DA1, b"\x1b_Gi=9;OK\x1b\\\x1b[?62;c"),
        (KITTY, "\x1b_Gi=9,a=t,q=1,s=1,v=1,f=24;AAAA\x1b\\\x1b_Gi=9,a=p,U=1\x1b\\", b"\x1b_Gi=9;OK\x1b\\"),
        (KITTY, "\x1b_Gi=9,a=p,q=1\x1b\\", b"\x1b_Gi=9;ENOENT:no image 9\x1b\\"),
        (KITTY, "\x1b_Gi=9,a=p,q=2\x1b\\" + STATUS, b"\x1b[0n"),
        (OLD_KITTY, "\x1b_Gi=9,a=t,q=2,s=1,v=1,f=24;AAAA\x1b\\\x1b_Gi=9,a=p,U=1\x1b\\" + STATUS, b"\x1b[0n"),
        (
            OLD_KITTY,
            "\x1b_Gi=9,a=t,q=2,s=1,v=1,f=24;AAAA\x1b\\\x1b_Gi=9,a=f,r=1,s=1,v=1,f=24;AAAA\x1b\\",
            b"\x1b_Gi=9,r=1;OK\x1b\\",
        ),
        (XTERM, "\x1b[16t" + DA1, b"\x1b[?64;1;2;4;6;9;15;16;17;18;21;22;28;29c"),
        (XTERM, "\x1b[?1;1;0S\x1b[?2;1;0S", b"\x1b[?1;0;256S\x1b[?2;0;2000;2000S"),
        (XTERM, "\x1b_Gi=9,a=q,s=1,v=1,f=24;AAAA\x1b\\" + STATUS, b"\x1b[0n"),
        (FOOT, "\x1b[>c\x1b[?2026$p", b"\x1b[>1;011301;0c\x1b[?2026;2$y"),
        (ALACRITTY, "\x1b[>q\x1b[16t" + DA1, b"\x1b[?6c"),
        (XTERM_JS, "\x1b[>q" + DA1, b"\x1b[?62;4;9;22c"),
        (ITERM2, "\x1b]1337;ReportCellSize\x1b\\", b"\x1b]1337;ReportCellSize=17.0;8.0;1.0\x1b\\"),
        (TMUX, "\x1b[>q", b"\x1bP>|tmux 3.3a\x1b\\"),
        (TMUX, "\x1bPtmux;\x1b\x1b[c\x1b\\", b"\x1b[?62;c"),
        (TMUX, "\x1bPtmux;\x1b\x1b_Gi=9,a=q,s=1,v=1,f=24;AAAA\x1b\x1b\\\x1b\\", b"\x1b_Gi=9;OK\x1b\\"),
        (TMUX, "\x1b_Gi=9,a=q,s=1,v=1,f=24;AAAA\x1b\\" + STATUS, b"\x1b[0n"),
        (PLAIN, "\x1b[>c\x1b[>q\x1b[16t" + DA1, b"\x1b[6;17;8t\x1b[?62;22c"),
        (HALF, DA1, b"\x1b[?"),
        (NONSENSE, DA1, b"\x1b[?\xff\x1b_Gi=;\x1b\x1b]9;\x1b[999;999x"),
    ],
)
def test_each_terminal_answers_in_its_own_way(personality: Personality, question: str, answer: bytes) -> None:
    ask(question, answer, personality)


@pytest.mark.parametrize("personality", [SILENT, DUMB])
def test_a_silent_terminal_says_nothing_but_takes_keys(personality: Personality) -> None:
    with Terminal([sys.executable, "-c", ASK, STATUS + DA1, "3"], personality=personality) as terminal:
        terminal.wait_until(lambda _: terminal.read_bytes >= len(STATUS + DA1), "the question")
        terminal.type("key")
        terminal.wait_for(f"b'key' {ANSWERED}", DEADLINE_S)
        assert [happening.data for happening in terminal.happenings if happening.kind == "sent"] == [b"key"]


def test_megabytes_reach_a_program_that_reads_and_stop_none_that_does_not() -> None:
    length = (4 << 20) + 6
    counter = (
        "import os, tty; tty.setraw(0); os.write(1, b'\\x1b[c')\n"
        f"left = {length}\n"
        "while left: left -= len(os.read(0, min(left, 65536)))\n"
        "print('all of it', flush=True)"
    )
    with Terminal([sys.executable, "-c", counter], personality=flooding()) as terminal:
        terminal.wait_for("all of it", DEADLINE_S)
    deaf = "import os, tty, time; tty.setraw(0); os.write(1, b'\\x1b[c'); print('deaf', flush=True); time.sleep(1000)"
    with Terminal([sys.executable, "-c", deaf], personality=flooding()) as terminal:
        terminal.wait_for("deaf", DEADLINE_S)
    assert terminal.process.returncode == -signal.SIGTERM


# --- far away, and slow


def test_answers_and_keys_arrive_so_much_later_and_in_their_order() -> None:
    latency_s = 0.05
    with Terminal([sys.executable, "-c", ASK, STATUS, "8"], latency_s=latency_s) as terminal:
        terminal.wait_until(lambda _: terminal.read_bytes >= len(STATUS), "the question")
        asked = terminal.happenings[-1].at_s
        typed = [terminal.type(text) for text in ("ab", "cd")]
        terminal.wait_for(ANSWERED, DEADLINE_S)
    sent = [happening for happening in terminal.happenings if happening.kind == "sent"]
    assert b"".join(happening.data for happening in sent) == b"\x1b[0nabcd"
    assert sent[0].at_s - asked >= latency_s and sent[-1].at_s - typed[-1] >= latency_s


def test_the_status_report_comes_when_everything_before_it_was_drained() -> None:
    much = "x" * 60_000
    terminal = ask(much + STATUS, b"\x1b[0n", PLAIN, bytes_per_s=300_000)
    before = 0
    for happening in terminal.happenings:
        if happening.kind == "sent":
            break
        before += len(happening.data)
    assert before == len(much + STATUS)


def test_a_slow_terminal_reads_no_faster_than_it_says_and_the_program_waits() -> None:
    reading, writing = os.pipe()
    size = 400_000
    code = f"import os\nfor _ in range({size // 1000}): os.write(1, b'x' * 1000)\nos.write({writing}, b'!')"
    os.set_blocking(reading, False)
    with Terminal([sys.executable, "-c", code], bytes_per_s=20_000, pass_fds=[writing]) as terminal:
        terminal.wait_until(lambda _: terminal.read_bytes > 10_000, "a part")
        with pytest.raises(BlockingIOError):
            os.read(reading, 1)  # more than the terminal's buffers hold is left
        slices = [happening for happening in terminal.happenings if happening.kind == "read"]
        first, last = slices[0].at_s, slices[-1].at_s
        assert last - first >= sum(len(happening.data) for happening in slices[:-1]) / 20_000 - 0.011
        terminal.bytes_per_s = None
        assert terminal.wait_for_end(DEADLINE_S) == 0
        assert os.read(reading, 1) == b"!" and terminal.read_bytes == size
    os.close(reading)
    os.close(writing)


def test_it_waits_for_time_to_pass_without_working() -> None:
    with Terminal(["cat"], latency_s=0.5, bytes_per_s=1000) as terminal:
        before = time.process_time()
        terminal.type("x\r")
        terminal.wait_for("x", DEADLINE_S)
        assert time.process_time() - before < 0.25


# --- the screen


@pytest.mark.parametrize("at_once", [True, False])
def test_what_the_program_draws_can_be_looked_at_also_when_it_is_decoded_late(tmp_path: Path, at_once: bool) -> None:
    source = gradient(160, 170)
    file = tmp_path / "drawing"
    file.write_bytes(textual_image("tgp", source, 20, 10).replace(b"\r\n", b"\n"))
    with Terminal(["cat", str(file)], personality=KITTY, decode_at_once=at_once) as terminal:
        assert terminal.wait_for_end(DEADLINE_S) == 0
        assert difference(terminal.picture((0, 0, 20, 10)), source) == 0
        assert not terminal.look().finish()


def test_what_textual_writes_is_understood_without_an_error() -> None:
    with Terminal([sys.executable, "-m", "sdtui.bench.hello"], personality=KITTY) as terminal:
        terminal.wait_until(lambda screen: "Hello, world" in screen.text(), "hello")
        terminal.type("é")
        terminal.wait_until(lambda screen: "You typed é" in screen.text(), "the key")
        terminal.type("\x11")
        assert terminal.wait_for_end(DEADLINE_S) == 0
        assert terminal.look().finish() == []
        assert 1049 not in terminal.look().modes


def test_what_does_not_appear_is_a_timeout_that_shows_the_screen() -> None:
    with Terminal(["echo", "other"]) as terminal, pytest.raises(TimeoutError, match=r"wanted(.|\n)*other"):
        terminal.wait_until(lambda screen: "wanted" in screen.text(), "wanted", 1.0)


# --- the end


def test_a_terminal_that_dies_hangs_up_the_program() -> None:
    code = "import os, time\nos.write(1, b'x' * 100)\ntime.sleep(1000)"
    with Terminal([sys.executable, "-c", code], dies_after_bytes=50) as terminal:
        assert terminal.process.wait(DEADLINE_S) == -signal.SIGHUP
        assert terminal.read_bytes == 50


def test_nothing_is_left_of_a_terminal_not_even_of_a_stubborn_program_with_children() -> None:
    code = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])\n"
        "print('child', child.pid, '.', flush=True)\n"
        "while True: print('x' * 1000)"
    )
    descriptors, threads = descriptors_open(), threading.active_count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sdtui.bench.terminal._END_S", 0.3)
        with Terminal([sys.executable, "-c", code], bytes_per_s=100_000) as terminal:
            terminal.wait_until(lambda screen: " .\n" in screen.text(), "its child")
            child = int(terminal.output().split()[1])
    assert terminal.process.returncode == -signal.SIGKILL
    until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE, "the child's end")
    assert descriptors_open() == descriptors and threading.active_count() == threads
    terminal.close()


def test_the_status_of_a_program_that_ends_by_itself_is_kept() -> None:
    with Terminal(["sh", "-c", "echo bye; exit 3"]) as terminal:
        assert terminal.wait_for_end(DEADLINE_S) == 3
        assert "bye" in terminal.text()
    with Terminal(["no-such-program"]) as terminal:
        assert terminal.wait_for_end(DEADLINE_S) == 127
    with pytest.raises(subprocess.TimeoutExpired), Terminal(["cat"]) as terminal:
        terminal.wait_for_end(0.05)


def test_time_stamps_never_go_back() -> None:
    with Terminal(["sh", "-c", "for i in 1 2 3; do echo $i; done"], personality=replace(PLAIN, name="another")) as terminal:
        terminal.wait_for_end(DEADLINE_S)
        assert all(one.at_s <= next_one.at_s for one, next_one in pairwise(terminal.happenings))
