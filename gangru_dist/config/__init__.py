"""The settings of a run: their declaration, presets and sources, and what they identify."""
