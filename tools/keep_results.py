"""Keep the figures of finished nodes as JSON.

    python tools/keep_results.py PROFILE NODE … --out docs/results/NAME.json [--busy]

Kept are each node's metrics, note, parameters, seconds and commit, the command that makes them, and
the kind of machine. Run it where the nodes were run; --busy says that others used the machine.
"""

import argparse
import json
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any, cast

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lib.data.files import read_json, write_atomic  # noqa: E402

DIGITS = 6


def machine() -> dict[str, object]:
    """Kind of processor, cores and Python; nothing that names the host."""
    model = platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = [line for line in info.read_text("utf-8").splitlines() if "model name" in line]
        model = lines[0].partition(":")[2].strip() if lines else model
    return {"processor": model, "cores": os.cpu_count(), "python": platform.python_version()}


def node_results(profile: str, node: str) -> dict[str, object]:
    """The record of a finished node, shortened."""
    folder = ROOT / "data" / "store" / profile / node
    pointer = folder / "current"
    if not pointer.is_file():
        raise SystemExit(f"{node} has not finished: python run_all.py {profile} --until {node}")
    record = cast(dict[str, Any], read_json(folder / pointer.read_text().strip() / "record.json"))
    metrics: dict[str, dict[str, list[float | None]]] = {}
    for each in record["metrics"]:
        name = each["name"] if each["segment"] == "all" else f"{each['name']}, {each['segment']}"
        numbers = [each["value"], each["low"], each["high"]]
        rounded = [None if v is None else float(f"{v:.{DIGITS}g}") for v in numbers]
        metrics.setdefault(each["row"], {})[name] = rounded if rounded[1] is not None else rounded[:1]  # fmt: skip  # noqa: E501
    return {
        "notebook": record["notebook"], "note": record["note"], "git": record["git"],
        "parameters": record["parameters"], "seconds": record["seconds"],
        "peak_memory_bytes": record["peak_memory_bytes"], "metrics": metrics,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("profile")
    parser.add_argument("nodes", nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--about", default="")
    parser.add_argument("--busy", action="store_true")
    options = parser.parse_args()
    nodes = {node: node_results(options.profile, node) for node in options.nodes}
    until = " ".join(f"--until {node}" for node in options.nodes)
    told = {
        "about": options.about, "command": f"python run_all.py {options.profile} {until}",
        "machine": machine(), "machine_was_busy": options.busy, "nodes": nodes,
        "metrics_are": "row -> name -> [value, low, high], the last two where there is an interval",
    }  # fmt: skip
    text = json.dumps(told, sort_keys=True, allow_nan=False, ensure_ascii=False, indent=1)
    flat = re.sub(r"\[\s+([^\[\]{}]+?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", text)
    write_atomic(options.out, f"{flat}\n".encode())


if __name__ == "__main__":
    main()
