"""A stream for one trainer: its batches are handed out, acknowledged and saved."""
