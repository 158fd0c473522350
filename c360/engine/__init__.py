"""The exactly-once batch engine: poll, process, commit, at its own pace. Knows partitions and transactions, no customers."""
