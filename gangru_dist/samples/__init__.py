"""The universe of each day, its standardized samples and its labels (SPEC 3)."""
