"""What the leaderboard and CBLUE are handed."""
