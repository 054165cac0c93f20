"""The lowest package: storage, records, errors, registries, the log."""
