"""Leaderboard page: one HTML file that contains its data, style and scripts, and loads nothing."""
