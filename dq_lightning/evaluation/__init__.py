"""Generation and the metrics that score it, one file a metric."""
