"""Write requirements.lock and environment.yml from pyproject.toml: ``make lock``.

pip resolves the tree; we keep names and exact versions. Two things are left out on purpose:
addresses (each user has an index of their own) and torch's accelerator packages, which the torch
wheel of each platform pins itself.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ACCELERATOR_PREFIXES = ("nvidia-", "cuda-", "triton")


def resolve_pins() -> list[str]:
    """Ask pip for the whole tree of ``.[dev]`` without installing it."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run",
                   "--ignore-installed", "--report", str(report), f"{ROOT}[dev]",
                   "pip", "setuptools", "wheel"]  # fmt: skip
        subprocess.run(command, check=True)
        packages = [entry["metadata"] for entry in json.loads(report.read_text())["install"]]
    pins = {
        package["name"].lower().replace("_", "-"): package["version"].split("+")[0]
        for package in packages
    }
    pins.pop("lingrec")
    return [
        f"{name}=={version}"
        for name, version in sorted(pins.items())
        if not name.startswith(ACCELERATOR_PREFIXES)
    ]


def render_environment(pins: list[str]) -> str:
    """The same pins for conda: it brings Python and pip, pip brings the rest.

    >>> print(render_environment(["numpy==2.4.6"]).splitlines()[-1])
          - numpy==2.4.6
    """
    head = ["name: lingrec", "channels: [conda-forge]", "dependencies:", "  - python=3.11",
            "  - pip", "  - pip:", "      - -e ."]  # fmt: skip
    return "\n".join([*head, *(f"      - {pin}" for pin in pins)]) + "\n"


def main() -> None:
    pins = resolve_pins()
    note = "# Made by `make lock` from pyproject.toml. Do not edit by hand.\n"
    (ROOT / "requirements.lock").write_text(note + "\n".join(pins) + "\n")
    (ROOT / "environment.yml").write_text(note + render_environment(pins))
    print(f"{len(pins)} pins written to requirements.lock and environment.yml")


if __name__ == "__main__":
    main()
