"""A simulated machine for tests: threads, time and a disk, all decided by a seed."""
