"""The panel: one row per (date, asset), sorted, unique; its store and its dense form."""
