"""What feeding costs, beside what people use today: `python -m benchmarks` measures all of it.

Every figure comes out of one run in which all sides take turns, so that a busy machine slows them alike:
read the ratios, and the microseconds only beside them.
"""
