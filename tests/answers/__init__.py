"""Questions that mean the same have the same answer, wherever they are asked."""
