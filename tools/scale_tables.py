"""The table of times in docs/scale.md, from the measured rates in docs/results.

    python tools/scale_tables.py            # write it
    python tools/scale_tables.py --check    # say whether it is up to date; changes nothing

A time is events divided by a measured rate: the step is assumed to stay linear, on one machine of
the kind that was measured. Each line names the file and the command the rate comes from.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lib.data.files import write_atomic  # noqa: E402
from tools.readme import fill  # noqa: E402

EVENTS = (40_000_000, 1_000_000_000, 100_000_000_000)
PAGE = ROOT / "docs" / "scale.md"


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """Where a rate stands: ``count / seconds`` of a file, both as ways into its JSON."""

    name: str
    file: str
    command: str  # way to the command
    seconds: str  # way to seconds, or to milliseconds if it ends in _ms or says so
    count: float | str  # events of that measurement, or the way to them
    scale: float = 1.0  # of the seconds: 1e-3 for milliseconds
    unit: str = "events"


STEPS = (
    Step(name="click CSV to the common schema", file="click_data", command="growth.command",
         seconds="growth.seconds.16M", count=16e6),
    Step(name="parquet of 119 columns with sequences to shards", file="click_data",
         command="toss.command", seconds="", count="toss.rows_per_second"),
    Step(name="the same with co-visit features", file="click_data", command="toss.command",
         seconds="", count="toss.with_covisits.rows_per_second"),
    Step(name="reviews to histories", file="sequence_data", command="histories.command",
         seconds="histories.seconds", count="histories.reviews"),
    Step(name="reading shards in batches", file="dare_bench", command="shards.command",
         seconds="", count="shards.medians.shards.rows_per_second"),
    Step(name="DeepFM, one epoch, one thread", file="scale", command="processes.command",
         seconds="", count="processes.lines.0.rows_per_cpu_second"),
    Step(name="DARE, newest 60 of 400 events, one thread", file="dare_bench",
         command="sequences.command", seconds="",
         count="sequences.medians.top 60.rows_per_cpu_second"),
    Step(name="full softmax over 349,000 items, alone", file="training", command="command",
         seconds="cross-entropy, 349,000 items, 1,600 positions, d=128.ours.seconds", count=1600),
    Step(name="softmax over 8,192 of 200,000 items, alone, one thread", file="scale",
         command="softmax.command", seconds="softmax.lines.2.sampled_cpu_ms", count=512,
         scale=1e-3),
    Step(name="exact first ten of 349,000 items, one thread, per user", file="scale",
         command="search.command", seconds="search.random.exact_cpu_ms_per_query", count=1,
         scale=1e-3, unit="users"),
)  # fmt: skip


def look_up(told: Any, way: str) -> Any:
    """Follow dots; a name may hold dots and commas of its own.

    >>> look_up({"a, b.c": {"d": [5]}}, "a, b.c.d.0")
    5
    """
    if not way:
        return told
    if isinstance(told, list):
        head, _, rest = way.partition(".")
        return look_up(told[int(head)], rest)
    for name in sorted(told, key=len, reverse=True):
        if way == name or way.startswith(f"{name}."):
            return look_up(told[name], way[len(name) + 1 :])
    raise SystemExit(f"no {way!r} among {sorted(told)}")


def rate_of(step: Step, told: Mapping[str, Any]) -> float:
    count = look_up(told, step.count) if isinstance(step.count, str) else step.count
    seconds = look_up(told, step.seconds) * step.scale if step.seconds else 1.0
    return float(count / seconds)


def in_words(seconds: float) -> str:
    """
    >>> [in_words(s) for s in (3, 600, 40_000, 1e6, 1e9)]
    ['3 s', '10 min', '11 h', '12 days', '32 years']
    """
    for size, name, least in ((31_557_600, "years", 1.5), (86_400, "days", 2), (3_600, "h", 1.5),
                              (60, "min", 1.5)):  # fmt: skip
        if seconds >= least * size:
            return f"{seconds / size:,.0f} {name}"
    return f"{seconds:,.0f} s"


def time_table(folder: Path) -> str:
    lines = ["| step | measured rate | 40 million | 1 billion | 100 billion | from |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for step in STEPS:
        told = json.loads((folder / f"{step.file}.json").read_text("utf-8"))
        if step.command.partition(".")[0] not in told:
            lines.append(f"| {step.name} | *not measured yet* | | | | {step.file} |")
            continue
        rate = rate_of(step, told)
        times = " | ".join(in_words(events / rate) for events in EVENTS)
        command = look_up(told, step.command)
        lines.append(f"| {step.name} | {rate:,.0f} {step.unit}/s | {times} | "
                     f"[{step.file}](results/{step.file}.json), `{command}` |")  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only compare")
    options = parser.parse_args()
    text = PAGE.read_text("utf-8")
    made = fill(text, {"times": time_table(ROOT / "docs" / "results")}, page="docs/scale.md")
    if options.check:
        sys.exit(0 if made == text else "docs/scale.md is old: python tools/scale_tables.py")
    write_atomic(PAGE, made.encode())


if __name__ == "__main__":
    main()
