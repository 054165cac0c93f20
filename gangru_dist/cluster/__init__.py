"""Start Ray or join a cluster, and spread work over it."""
