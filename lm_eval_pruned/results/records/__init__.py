"""Run records: read results and samples files of the harness."""
