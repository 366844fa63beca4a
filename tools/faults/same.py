"""Whether two results of a node are the same, byte for byte but for what a clock measured.

A file may differ only where it holds seconds, rows per second or bytes of memory: a column of a
table or a key of JSON that says so by its name, or a file of a node that measures nothing else.
"""

import re
from pathlib import Path
from typing import cast

import polars as pl

from lib.data.files import read_json
from lib.pipeline.store import Result

__all__ = ["differences", "lasting"]

CLOCK = re.compile(r"second|minute|per_second|/s\b|memory|peak|speed|rows/s|ms\b", re.IGNORECASE)
HASHED = re.compile(r"sha256|bytes|second")
EVENTS = re.compile(r"(events\.out\.tfevents)\.\d+\..*")  # TensorBoard: time, host, process, number
STOPWATCHES = {"91_measure_speed"}  # every number there is a time


def differences(good: Result, now: Result | None) -> list[str]:
    """The outputs and figures that are not those of the undisturbed run."""
    if now is None:
        return ["no result"]
    before, after = contents(good), contents(now)
    lost = [f"missing: {name}" for name in sorted(before.keys() - after.keys())]
    new = [f"new: {name}" for name in sorted(after.keys() - before.keys())]
    if good.manifest["notebook"] in STOPWATCHES:
        return lost + new
    return lost + new + [
        f"differs: {name}" for name in sorted(before.keys() & after.keys())
        if before[name] != after[name]
        and not only_clocks(good.folder / name, now.folder / name)
    ]  # fmt: skip


def lasting(name: str) -> str:
    """The name of a file without what belongs to one run of the process that wrote it.

    >>> lasting("outputs/tensorboard/events.out.tfevents.1795224338.host.4736.0")
    'outputs/tensorboard/events.out.tfevents'
    """
    return EVENTS.sub(r"\1", name)


def contents(result: Result) -> dict[str, str]:
    """The hash of each output and figure; the record and the executed notebook hold times."""
    files = cast(dict[str, dict[str, str]], result.manifest["files"])
    return {lasting(name): entry["sha256"] for name, entry in files.items()
            if name.startswith(("outputs/", "figures/"))}  # fmt: skip


def only_clocks(good: Path, now: Path) -> bool:
    """Whether two files are equal once measured times are left out."""
    if good.name == "events.out.tfevents":
        return True  # each record holds its time of day
    if good.suffix in {".parquet", ".csv"}:
        read = pl.read_parquet if good.suffix == ".parquet" else read_text
        frames = [read(path) for path in (good, now)]
        kept = [[name for name in frame.columns if not CLOCK.search(name)] for frame in frames]
        return kept[0] == kept[1] and frames[0].select(kept[0]).equals(frames[1].select(kept[1]))
    if good.suffix == ".json":
        pattern = HASHED if good.name == "manifest.json" else CLOCK  # its files are compared too
        return without_clocks(read_json(good), pattern) == without_clocks(read_json(now), pattern)
    return False


def read_text(path: Path) -> pl.DataFrame:
    """A CSV file as it is written."""
    return pl.read_csv(path, infer_schema=False)


def without_clocks(value: object, clock: re.Pattern[str] = CLOCK) -> object:
    """JSON without the keys that say they are times.

    >>> without_clocks({"rows": [{"seconds": 1.5, "auc": 0.5}]})
    {'rows': [{'auc': 0.5}]}
    """
    if isinstance(value, dict):
        return {lasting(str(k)): without_clocks(v, clock) for k, v in value.items()
                if not clock.search(str(k))}  # fmt: skip
    return [without_clocks(item, clock) for item in value] if isinstance(value, list) else value
