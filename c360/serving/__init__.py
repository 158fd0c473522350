"""Windows into a running worker: health, readiness, metrics. They look in and change nothing."""
