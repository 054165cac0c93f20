"""`gangru report` from a checkout: the same flags, the same code."""

from gangru_dist.commands.jobs import run

if __name__ == "__main__":
    raise SystemExit(run("report"))
