"""``python -m lib.report PROFILE``: pages from the store alone."""

import sys

from lib.report.render import render_all
from lib.report.results import home_folder, profiles

if __name__ == "__main__":
    known = profiles(home_folder())
    if len(sys.argv) != 2 or sys.argv[1] not in known:
        sys.exit(f"usage: python -m lib.report PROFILE; the store has {', '.join(known) or 'none'}")
    sys.stdout.write(f"{render_all(home_folder(), sys.argv[1])}\n")
