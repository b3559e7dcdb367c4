"""Faults around a run: torn files, full disks, kills, adversarial input; nothing is lost, and the user is told."""
