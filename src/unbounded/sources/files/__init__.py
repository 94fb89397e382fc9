"""Files: reads rows from files: Parquet, Arrow IPC, CSV, JSON lines, tar shards and TFRecord."""
