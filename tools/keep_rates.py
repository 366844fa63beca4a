"""Keep how fast the nodes of a profile made by ``run_all.py init`` were, for its next estimates.

    python tools/keep_rates.py NAME --clicks FILE [--busy]     the words that init was called with

Run it after ``run_all.py NAME`` has finished. Kept are, by notebook, the work that was planned
(what its time grows with), the seconds of its cells without imports, and the kind of machine. A
later run of the same profile replaces an earlier one.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lib.data.files import read_json, write_atomic  # noqa: E402
from lib.studies.proposal import parse, propose  # noqa: E402
from lib.studies.proposal_cost import RATES, read_rates  # noqa: E402
from tools.keep_results import machine  # noqa: E402


def seconds_of(profile: str, node: str) -> float | None:
    """Seconds of a finished node's cells, without the first, which imports."""
    folder = ROOT / "data" / "store" / profile / node
    if not (folder / "current").is_file():
        return None
    result = folder / (folder / "current").read_text("utf-8").strip()
    record = cast("dict[str, Any]", read_json(result / "record.json"))
    return round(sum(float(cell["seconds"]) for cell in record["cells"][1:]), 2)


def main() -> None:
    words = [word for word in sys.argv[1:] if word != "--busy"]
    options = parse(words)
    with tempfile.TemporaryDirectory() as scratch:
        planned = propose(ROOT, options, Path(scratch))
    rates = read_rates(ROOT)
    known = rates.get("notebooks", {})
    for node in planned.nodes:
        seconds = seconds_of(options.name, node.name)
        if seconds is None:
            continue
        place = f"{options.name}/{node.name}"
        runs = [run for run in known.get(node.notebook, []) if run["node"] != place]
        runs.append({"node": place, "work": round(node.work), "seconds": seconds})
        known[node.notebook] = sorted(runs, key=lambda run: run["node"])
    here = machine()
    told = {
        "about": "Seconds of finished nodes beside their planned work; run_all.py init reads it",
        "command": "python tools/keep_rates.py NAME and the words of init",
        "machine": f"{here['cores']} cores of {here['processor']}",
        "machine_was_busy": "--busy" in sys.argv or bool(rates.get("machine_was_busy")),
        "notebooks": dict(sorted(known.items())),
    }
    write_atomic(ROOT / RATES, f"{json.dumps(told, indent=1, ensure_ascii=False)}\n".encode())


if __name__ == "__main__":
    main()
