"""Reads the store: finished results, failures and the history of runs. Writes nothing.

A result is believed when its ``manifest.json`` (written last by the runner) and its
``record.json`` are whole; anything else counts as absent and never stops the other pages.
"""

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

__all__ = ["Json", "Metric", "Node", "Result", "current_result", "gather", "home_folder", "items",
           "mapping", "profiles", "read_result", "runs"]  # fmt: skip

Json = dict[str, Any]
NODE_NAME = re.compile(r"[A-Za-z0-9_][\w-]*", re.ASCII)  # it becomes the name of a file


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of one node; ``seeds`` has one entry unless a table put several together."""

    name: str
    row: str
    segment: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    seeds: tuple[int, ...] = ()
    unit: str = ""
    better: str | None = None

    @property
    def gain(self) -> float:
        """The value with its sign turned so that more is better; missing values come last."""
        if self.value is None:
            return -math.inf
        return -self.value if self.better == "lower" else self.value


@dataclass(frozen=True, slots=True)
class Result:
    """One finished result: its folder, what the notebook recorded, and what the runner sealed."""

    node: str
    key: str
    folder: Path
    record: Json
    manifest: Json
    metrics: tuple[Metric, ...]

    def file(self, relative: object) -> Path | None:
        """A file of this result; names that leave its folder or are not there give None."""
        path = (self.folder / str(relative)).resolve()
        inside = path.is_relative_to(self.folder.resolve())
        return path if inside and path.is_file() else None

    def components(self) -> Json:
        """What the key was computed from: name -> hash or value."""
        return mapping(self.manifest.get("components"))


@dataclass(frozen=True, slots=True)
class Node:
    """What one page is made from."""

    name: str
    state: str = "not run"
    title: str = ""
    notebook: str = ""
    uses: tuple[str, ...] = ()
    used_by: tuple[str, ...] = ()
    reason: str = ""
    result: Result | None = None
    error: Json = field(default_factory=dict)
    failed: Path | None = None  # folder of the newest failed attempt

    @property
    def record(self) -> Json:
        return self.result.record if self.result else {}

    @property
    def summary(self) -> str:
        """The result in one sentence, or why there is none."""
        if self.state == "failed":
            return str(self.error.get("message") or "failed; no message was left")
        note = str(self.record.get("note") or "")
        return note if self.state in ("done", "stale") else self.reason or note or "has not run yet"


def home_folder() -> Path:
    """The folder that holds ``data``, ``notebooks`` and ``reports``."""
    return Path(os.environ.get("LINGREC_HOME") or Path(__file__).resolve().parents[2])


def profiles(home: Path) -> list[str]:
    """Profiles that have something in the store."""
    store = home / "data" / "store"
    return sorted(path.name for path in store.glob("*") if path.is_dir())


def read_result(folder: Path) -> Result | None:
    """The result in ``folder``, or None where it is absent, half-written or unreadable."""
    manifest, record = _read(folder / "manifest.json"), _read(folder / "record.json")
    if not manifest or not record:
        return None
    metrics = tuple(_metric(entry) for entry in items(record.get("metrics")) if entry.get("name"))
    node = str(record.get("node") or folder.parent.name)
    return Result(node, folder.name, folder, record, manifest, metrics)


def runs(home: Path, profile: str) -> list[Json]:
    """Finished invocations of the runner, oldest first; a torn last line is left out."""
    path = home / "data" / "store" / profile / "runs.jsonl"
    lines = path.read_text("utf-8", "replace").splitlines() if path.is_file() else []
    return [entry for line in lines if (entry := _parse(line)).get("nodes")]


def gather(home: Path, profile: str, plan: Mapping[str, Mapping[str, object]] | None) -> list[Node]:
    """Everything the pages of a profile need, in the order of the plan or of the graph.

    ``plan`` maps node -> {state, title, notebook, uses, used_by, reason}; without it the store
    alone speaks, and a node is ``failed`` or ``done``.
    """
    store = home / "data" / "store" / profile
    if plan is None:
        found = {p.name: _on_disk(store / p.name) for p in sorted(store.glob("*"))
                 if p.is_dir() and NODE_NAME.fullmatch(p.name)}  # fmt: skip
        plan = _ordered({name: entry for name, entry in found.items() if entry})
    for name in plan:
        if not NODE_NAME.fullmatch(name):
            raise ValueError(f"node name {name!r}: expected letters, digits, `_`, `-`; rename it")
    nodes = [_node(home, store / name, entry) for name, entry in plan.items()]
    return sorted(nodes, key=lambda node: node.notebook[:2])  # the order in which they are read


def _node(home: Path, folder: Path, entry: Mapping[str, object]) -> Node:
    result = current_result(folder)
    record = result.record if result else {}
    state = str(entry.get("state") or "not run")
    notebook = Path(str(entry.get("notebook") or record.get("notebook") or "")).stem
    source = home / "notebooks" / f"{notebook}.ipynb"
    return Node(
        name=folder.name,
        state=state,
        title=str(entry.get("title") or _heading(source) or record.get("title") or folder.name),
        notebook=notebook,
        uses=_names(entry.get("uses")),
        used_by=_names(entry.get("used_by")),
        reason=str(entry.get("reason") or ""),
        result=result,
        error=_read(folder / "failed" / "error.json") if state == "failed" else {},
        failed=folder / "failed" if state == "failed" else None,
    )


def _heading(notebook: Path) -> str:
    """The title that a notebook has today."""
    cells = items(_read(notebook).get("cells"))[:1]
    lines = "".join(cells[0].get("source") or ()).splitlines() if cells else []
    return next((line[2:].strip() for line in lines if line.startswith("# ")), "")


def _on_disk(folder: Path) -> Json:
    result, error = current_result(folder), _read(folder / "failed" / "error.json")
    if not result and not error:
        return {}
    inputs = mapping(result.record.get("inputs")) if result else {}
    uses = {str(mapping(entry).get("node") or "") for entry in inputs.values()} - {""}
    notebook = error.get("notebook", "") if error else ""
    return {"state": "failed" if error else "done", "uses": sorted(uses), "notebook": notebook}


def _ordered(found: dict[str, Json]) -> dict[str, Json]:
    """Sort by the graph, then by notebook name; add who uses whom."""
    graph = {name: [use for use in entry["uses"] if use in found] for name, entry in found.items()}
    for name in found:
        found[name]["used_by"] = [other for other, uses in graph.items() if name in uses]
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError:  # results of different ages can disagree about who uses whom
        order = sorted(found)
    return {name: found[name] for name in order}


def current_result(folder: Path) -> Result | None:
    """The result that the pointer file ``current`` of a node names."""
    pointer = folder / "current"
    key = pointer.read_text("utf-8", "replace").strip() if pointer.is_file() else ""
    return read_result(folder / key) if NODE_NAME.fullmatch(key) else None


def _metric(entry: Json) -> Metric:
    n, seed, better = _finite(entry.get("n")), _finite(entry.get("seed")), entry.get("better")
    return Metric(
        name=str(entry["name"]),
        row=str(entry.get("row") or ""),
        segment=str(entry.get("segment") or "all"),
        value=_finite(entry.get("value")),
        low=_finite(entry.get("low")),
        high=_finite(entry.get("high")),
        n=None if n is None else int(n),
        seeds=() if seed is None else (int(seed),),
        unit=str(entry.get("unit") or ""),
        better=str(better) if better in ("higher", "lower") else None,
    )


def _finite(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None  # type: ignore[arg-type]


def _read(path: Path) -> Json:
    try:
        return _parse(path.read_text("utf-8", "replace"))
    except OSError:
        return {}


def _parse(text: str) -> Json:
    try:
        return mapping(json.loads(text))
    except (ValueError, RecursionError):
        return {}


def mapping(value: object) -> Json:
    """The value if it is a mapping; what a record should hold but does not counts as empty."""
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[Json]:
    """The mappings of a list."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _names(value: object) -> tuple[str, ...]:
    return tuple(str(name) for name in value) if isinstance(value, Sequence | set) else ()
