"""An anomaly detector for streams of readings: what `unbounded train` trains."""
