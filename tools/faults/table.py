"""The matrix on disk, and as a page of ``docs/``."""

import json
import os
import platform
import re
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from lib.data.files import read_json, write_atomic, write_json
from tools.faults.trial import Fault, Verdict

__all__ = ["Matrix", "page"]

COMMAND = "make faults"
Pairs = dict[str, dict[str, dict[str, Any]]]


class Matrix:
    """Verdicts by node and fault; every one is on disk before the next begins."""

    def __init__(self, path: Path, faults: Sequence[Fault]) -> None:
        self.path, self.faults = path, faults
        self.pairs = cast(Pairs, read_json(path)) if path.exists() else {}

    def forget(self) -> None:
        """The code has changed, so nothing that was seen counts."""
        self.pairs = {}
        write_json(self.path, self.pairs)

    def take_over(self, other: Path) -> None:
        """Pairs that another run has and this one lacks."""
        for node, row in cast(Pairs, read_json(other)).items():
            self.pairs[node] = row | self.pairs.get(node, {})
        write_json(self.path, self.pairs)

    def has(self, node: str, fault: str) -> bool:
        return fault in self.pairs.get(node, {})

    def well(self, fault: str) -> set[str]:
        """The nodes that stood a fault."""
        return {n for n, row in self.pairs.items() if row.get(fault, {}).get("state") == "ok"}

    def add(self, node: str, fault: str, verdict: Verdict) -> None:
        self.pairs.setdefault(node, {})[fault] = asdict(verdict)
        write_json(self.path, self.pairs)

    def problems(self) -> int:
        return sum(v["state"] == "problem" for row in self.pairs.values() for v in row.values())

    def summary(self, n_nodes: int) -> str:
        states = [v["state"] for row in self.pairs.values() for v in row.values()]
        ok, bad = states.count("ok"), self.problems()
        return (
            f"{len(states)} of {n_nodes * len(self.faults)} pairs tried: {ok} ok, {bad} problems, "
            f"{len(states) - ok - bad} cannot happen"
        )

    def keep_earlier(self, path: Path) -> None:
        """Published pairs that this run lacks; each says at which commit it was tried."""
        told = cast(dict[str, Any], read_json(path))
        for node, row in cast(Pairs, told["pairs"]).items():
            kept = {fault: {"commit": told["commit"]} | verdict for fault, verdict in row.items()}
            self.pairs[node] = kept | self.pairs.get(node, {})

    def publish(self, root: Path, notebooks: Mapping[str, str], busy: bool) -> None:
        """Write the verdicts as JSON and the table as a page."""
        names = ["git", "-C", str(root), "log", "-1", "--format=%h", "--",
                 "lib", "notebooks", "params", "run_all.py"]  # fmt: skip
        commit = subprocess.run(names, capture_output=True, text=True, check=False).stdout.strip()
        told = {
            "about": "Every fault on every notebook of the smoke profile", "command": COMMAND,
            "commit": commit or os.environ.get("LINGREC_COMMIT", ""), "busy machine": busy,
            "machine": f"{os.cpu_count()} cores, {platform.system()}",
            "summary": self.summary(len(notebooks)), "pairs": self.pairs,
        }  # fmt: skip
        text = json.dumps(told, sort_keys=True, ensure_ascii=False, indent=1)
        flat = re.sub(r"\[\s+\]", "[]", text)
        write_atomic(root / "docs" / "results" / "faults.json", f"{flat}\n".encode())
        write_atomic(root / "docs" / "faults.md", page(told, self.faults, notebooks).encode())


def page(told: Mapping[str, Any], faults: Sequence[Fault], notebooks: Mapping[str, str]) -> str:
    """The page: what each fault is, the table, and a note for everything that is not a tick."""
    pairs = cast(Pairs, told["pairs"])
    lines = [
        "# Bad days", "",
        "What happens to each notebook when something goes wrong. Every pair of a fault and a node "
        "of the smoke profile is staged in a copy of the project with a finished store: the fault "
        "strikes while the node runs (or before), the exit code and the message are compared with "
        "what is expected, and the last good result must be whole. Then the fault is taken away, "
        "the node runs again, and its outputs and figures must be those of an undisturbed run, "
        "byte for byte but for measured times. Where a fault left the node's folder as it was, "
        "byte for byte and without a checkpoint, the run that made its damaged result again "
        "stands for that.", "",
        f"`{told['command']}` makes this page again; it resumes, and `python -m tools.faults "
        "--only FAULT --node NODE` narrows it. "
        f"{told['summary']}. Commit {told['commit'] or 'unknown'}{others(pairs)}; {told['machine']}"
        f"{', busy' if told['busy machine'] else ''}. Each message stands in "
        "`docs/results/faults.json`.", "", "## The faults", "",
        "| | fault | what is done | what is expected | an example |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for number, fault in enumerate(faults, start=1):
        lines.append(f"| {number} | {fault.name} | {fault.about} | {fault.expected} | "
                     f"{example(pairs, fault.name)} |")  # fmt: skip
    heads = " | ".join(str(number) for number in range(1, len(faults) + 1))
    lines += ["", "## The matrix", "", "✓ as expected · – cannot happen here · ✗ see below · "
              f"blank: not tried{spared(pairs)}", "", f"| notebook | node | {heads} |",
              "|---|---|" + "---|" * len(faults)]  # fmt: skip
    notes: list[str] = []
    for node, notebook in sorted(notebooks.items(), key=lambda item: (item[1], item[0])):
        marks = [mark(pairs.get(node, {}).get(fault.name), f"{node}, {fault.name}", notes)
                 for fault in faults]  # fmt: skip
        lines.append(f"| {notebook} | {node} | {' | '.join(marks)} |")
    lines += ["", "## What was not as expected", "", *(notes or ["Nothing."]), ""]
    return "\n".join(lines)


def spared(pairs: Pairs) -> str:
    """Why some faults cannot happen, and to how many nodes."""
    why = Counter(v["state"] for row in pairs.values() for v in row.values()
                  if v["state"] not in {"ok", "problem"})  # fmt: skip
    told = ", ".join(f"{reason} ({n})" for reason, n in sorted(why.items()))
    return f". Why it cannot: {told}" if told else ""


def others(pairs: Pairs) -> str:
    """How many pairs are of an earlier commit."""
    commits = Counter(v["commit"] for row in pairs.values() for v in row.values() if "commit" in v)
    told = ", ".join(f"{n} at {commit}" for commit, n in sorted(commits.items()))
    return f" (but {told})" if told else ""


def mark(verdict: Mapping[str, Any] | None, place: str, notes: list[str]) -> str:
    """The sign of one pair; a problem adds a note."""
    if verdict is None:
        return ""
    if verdict["state"] == "problem":
        said = "".join(f" - {as_code(text)}" for text in verdict["said"][-1:])
        notes.append(f"- **{place}**: {'; '.join(verdict['problems'])}{said}")
        return "✗"
    return "✓" if verdict["state"] == "ok" else "–"


def example(pairs: Pairs, fault: str) -> str:
    """The shortest message that was right, of those that name the node, as code in a table cell."""
    right = {node: row[fault]["said"][-1:] for node, row in pairs.items()
             if row.get(fault, {}).get("state") == "ok"}  # fmt: skip
    said = [(node not in line, len(line), line) for node, lines in right.items() for line in lines]
    return as_code(min(said)[-1]) if said else ""


def as_code(text: str) -> str:
    """Any text as code in a line of a table."""
    return f"`{text.replace('|', '¦').replace('`', chr(39))}`"
