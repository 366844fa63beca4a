"""Runs the benchmark scripts of ``tools/`` one after another and reads what they print.

Each case runs in a process of its own there, so that peaks of memory belong to it; a notebook only
says which scripts, and shows the answers.  Nothing else should run on the machine meanwhile.
"""

import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

__all__ = ["describe_machine", "flatten", "measured_table", "read_answers", "run_script"]

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def run_script(command: str, *, minutes: float) -> dict[str, Any]:
    """Run ``tools/<command>``; a failure is an answer too, with the last lines it said.

    ``absent`` tells what the script left out because a peer, data or a GPU was not there.
    """
    script, *words = shlex.split(command)
    if not (TOOLS / script).is_file():
        known = sorted(path.name for path in TOOLS.glob("bench_*.py"))
        raise ValueError(f"no benchmark {script!r} in tools/; expected one of {known}")
    started = time.perf_counter()
    try:
        ran = subprocess.run(
            [sys.executable, str(TOOLS / script), *words], capture_output=True, text=True,
            check=False, timeout=60 * minutes, env={**os.environ, "PYTHONPATH": str(TOOLS.parent)},
        )  # fmt: skip
        said, failed = ran.stdout, ran.returncode != 0
        problem = "\n".join(ran.stderr.splitlines()[-5:]) if failed else ""
    except subprocess.TimeoutExpired as error:
        said = error.stdout.decode() if isinstance(error.stdout, bytes) else (error.stdout or "")
        problem = f"stopped after {minutes:g} minutes"
    answers = read_answers(said)
    absent = [f"{a.get('peer') or a.get('case')}: {a['problem']}" for a in answers
              if a.get("measured") is False]  # fmt: skip
    return {
        "command": f"python tools/{command}", "seconds": time.perf_counter() - started,
        "answers": answers, "problem": problem, "absent": "; ".join(dict.fromkeys(absent)),
    }  # fmt: skip


def read_answers(text: str) -> list[Any]:
    """Every JSON object that stands in the output of a script.

    >>> read_answers('first\\n{"a": 1}\\n{"b": {"c": 2}} tail')
    [{'a': 1}, {'b': {'c': 2}}]
    """
    decoder, found, place = json.JSONDecoder(), [], 0
    while (place := text.find("{", place)) >= 0:
        try:
            value, place = decoder.raw_decode(text, place)
        except json.JSONDecodeError:
            place += 1
        else:
            found.append(value)
    return found


def flatten(answer: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested names joined by dots.

    >>> flatten({"ours": {"seconds": 2.0}, "rows": 3})
    {'ours.seconds': 2.0, 'rows': 3}
    """
    flat: dict[str, Any] = {}
    for name, value in answer.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def measured_table(answers: list[dict[str, Any]]) -> pl.DataFrame:
    """One line per number: command, case, what, value."""
    lines = []
    for answer in answers:
        for place, part in enumerate(answer["answers"]):
            flat = flatten(part)
            case = str(flat.pop("case", flat.pop("what", place + 1)))
            lines += [{"command": answer["command"], "case": case, "what": name, "value": float(v)}
                      for name, v in flat.items()
                      if isinstance(v, int | float) and not isinstance(v, bool)]  # fmt: skip
    return pl.DataFrame(lines, schema={"command": pl.String, "case": pl.String,
                                       "what": pl.String, "value": pl.Float64})  # fmt: skip


def describe_machine() -> dict[str, Any]:
    """What a reader must know to compare figures; no name of host or user."""
    import torch

    processor = ""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        named = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        processor = named[0].split(":", 1)[1].strip() if named else ""
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""
    return {"cores": os.cpu_count(), "processor": processor or platform.machine(), "gpu": gpu,
            "python": platform.python_version(), "torch": torch.__version__}  # fmt: skip
