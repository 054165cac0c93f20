"""What every floor stands on: storage, records, errors, names, the log."""
