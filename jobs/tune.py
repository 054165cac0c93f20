"""`gangru tune` from a checkout: the same flags, the same code."""

from gangru_dist.commands.tune import run

if __name__ == "__main__":
    raise SystemExit(run())
