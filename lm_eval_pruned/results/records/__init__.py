"""Records of finished runs, read from the harness's results and samples files."""
