"""The settings of a run: declared, read, named, and what they identify."""
