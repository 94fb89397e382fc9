"""A stream at work for one trainer: batches handed out, acknowledged, saved."""
