"""What this terminal can show, found out by asking it, and pictures drawn as it can. Knows no Textual.

    with start_probe() as probe:                        # sdtui.terminal.probe
        verdict = judge(probe.collect())                # sdtui.terminal.verdict
    sink = make_sink(verdict.best, verdict, verdict.cell or USUAL_CELL)   # sdtui.terminal.sinks, .picture
    sys.stdout.buffer.write(sink.inline(read_picture(path), 64, 30))      # sdtui.terminal.picture

Nothing is imported here: the probe runs before the first frame of an app, and what it does not need would cost time.
"""
