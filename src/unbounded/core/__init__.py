"""What sources, stages and feeds are built from: rows, blocks, cursors, the input buffer, the prefetcher."""
