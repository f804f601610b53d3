"""Speed and memory, as ratios; see README.md."""
