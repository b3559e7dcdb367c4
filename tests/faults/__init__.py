"""Faults around a run: torn files, full disks, kills, hostile input; nothing is lost, and the user is told."""
