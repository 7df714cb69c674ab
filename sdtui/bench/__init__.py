"""Measurements, as ratios in one run. Started by `sdtui bench` in a process of its own."""
