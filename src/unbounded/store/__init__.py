"""Checkpoints, on the disk or at a URL."""
