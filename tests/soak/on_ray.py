"""One job with a Ray of its own, also where it would be too small to need one.

python -m tests.soak.on_ray train --storage ...
"""

import sys

from gangru_dist import commands
from gangru_dist.panel import build

if __name__ == "__main__":
    build.SMALL_BYTES = 0
    raise SystemExit(commands.main(sys.argv[1:]))
