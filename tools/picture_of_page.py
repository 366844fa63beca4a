"""A picture of a page of the report, small enough to commit.

    python tools/picture_of_page.py reports/demo/sasrec.html docs/pictures/report.png
    python tools/picture_of_page.py reports/index.html out.png --width 390 --height 844 --dark

Chromium draws the page from disk; the picture keeps 64 colours, which a page has no more of.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
         "--disable-background-networking", "--disable-sync",
         "--disable-component-update")  # fmt: skip


def draw(page: Path, picture: Path, *, width: int, height: int, dark: bool, colours: int) -> int:
    """Draw the top of a page; the number of bytes it became."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("Chromium is not installed (Debian: apt-get install chromium)")
    if not page.is_file():
        sys.exit(f"{page} is not there: run a profile first, its pages are made at the end")
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        command = [chromium, *FLAGS, *scheme, f"--user-data-dir={folder}/home",
                   f"--window-size={width},{height}", f"--screenshot={shot}",
                   page.resolve().as_uri()]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        with Image.open(shot) as image:
            image.convert("RGB").quantize(colours).save(picture, optimize=True)
    return picture.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--width", type=int, default=1000)
    parser.add_argument("--height", type=int, default=1100)
    parser.add_argument("--colours", type=int, default=64)
    parser.add_argument("--dark", action="store_true")
    options = vars(parser.parse_args())
    print(f"{draw(**options) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
