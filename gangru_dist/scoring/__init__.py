"""From trained models to the factor table."""
