"""Sources of rows, and their logs."""
