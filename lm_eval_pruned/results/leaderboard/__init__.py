"""Leaderboard: many runs as one table or page."""
