"""``python -m lib.pipeline``: the same command line as ``run_all.py``."""

import sys

from lib.pipeline.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
