"""Training on data that never ends."""
