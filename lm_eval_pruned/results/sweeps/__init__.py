"""Sweeps: grids of runs of the harness, each in a process and a folder of its own, that go on where they were."""
