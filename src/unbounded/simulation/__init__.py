"""A simulated machine for tests: schedules of threads by a seed, a clock that waits move, a disk that crashes."""
