"""Run notebooks: ``python run_all.py [PROFILE]``; ``python run_all.py --help`` tells the rest."""

import sys

try:
    from lib.pipeline.cli import main
except ModuleNotFoundError as error:
    sys.exit(f"{error}. Use the project's environment: `make environment`, then .venv/bin/python")

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
