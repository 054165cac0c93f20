"""The made-up market behind `--bars synthetic`."""
