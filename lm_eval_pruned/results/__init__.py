"""Finished runs: read the harness's results files, merge seeds, compare runs, and present or check them."""
