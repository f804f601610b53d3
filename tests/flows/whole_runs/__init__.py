"""Runs as a person starts them, in processes of their own, through kills, full disks and crowds."""
