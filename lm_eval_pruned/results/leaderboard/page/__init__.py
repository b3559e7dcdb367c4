"""The leaderboard as a page: one HTML file with its data, style and scripts in it, which loads nothing."""
