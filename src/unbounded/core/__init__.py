"""The parts of which sources, stages and feeds are made: rows, blocks, cursors, buffers, the runtime."""
