"""Runs as records of Every Eval Ever, schema 0.3.0: one for each results file of the harness."""

# Endings of a file of records, and of a folder.
FILE, FOLDER = ".eee.json", ".eee"
