"""Checkpoint input and output: find, diagnose, read shard by shard, and write."""
