"""Data sets: reads rows from data sets of other libraries."""
