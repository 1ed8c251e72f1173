"""`python -m manyfill`, which is also what torchrun starts."""

import os
import sys

from manyfill.cli import main

if __name__ == "__main__":
    code = main()
    if os.environ.get("WORLD_SIZE", "1") != "1":
        # All is written. A usual exit may abort in gloo's threads, and torchrun would see a failure in a finished run.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
