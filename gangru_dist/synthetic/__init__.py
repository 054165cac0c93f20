"""The made-up market behind `--bars synthetic` (DESIGN 3)."""
