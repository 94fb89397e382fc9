"""Checkpoints on the disk, and the one door to the file system."""
