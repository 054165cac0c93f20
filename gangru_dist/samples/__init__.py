"""Which assets count on a day, their standardized samples and their labels (SPEC 3)."""
