"""What becomes of rows on their way, a file for each kind."""
