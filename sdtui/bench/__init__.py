"""Speed, as ratios within one run, never as an asserted time: `sdtui bench`, `python -m sdtui.bench`."""
