"""One run: its places, its claim, and the typed records it keeps as JSON."""
