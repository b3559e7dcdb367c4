"""Leaderboard: many runs as one table or one HTML page."""
