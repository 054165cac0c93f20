"""The synthetic market behind `--bars synthetic`."""
