"""One run: its folders, its claim on a name, and the typed records it keeps as JSON."""
