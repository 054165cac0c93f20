"""`python -m gangru_dist COMMAND …`: the same as `gangru`."""

from gangru_dist.commands import main

raise SystemExit(main())
