"""Search for settings: space and objective as data, proposals by Optuna, trials by Ray Tune."""
