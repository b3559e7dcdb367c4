"""Sweeps: grids of harness runs described by a YAML file, run in parallel and resumable."""
