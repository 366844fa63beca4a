"""Builds small stores as the runner leaves them, without running anything."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import lib.report
from lib.pipeline.profile import Home
from lib.pipeline.store import Result, Store, mapping
from lib.report.metrics import read_record
from lib.report.nodes import Node
from lib.studies import figures

LOCK = hashlib.sha256(b"lock").hexdigest()


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def metric(name, value, **fields):
    plain = {"row": "", "segment": "all", "low": None, "high": None, "n": None, "seed": 1,
             "unit": "", "better": None}  # fmt: skip
    return plain | {"name": name, "value": value} | fields


def code(source, outputs=(), tags=()):
    return {"cell_type": "code", "id": f"c{sha(source.encode('utf-8', 'replace'))[:7]}", "execution_count": 1,
            "metadata": {"tags": list(tags)}, "source": source, "outputs": list(outputs)}  # fmt: skip


def prose(source):
    return {"cell_type": "markdown", "id": f"m{sha(source.encode('utf-8', 'replace'))[:7]}", "metadata": {},
            "source": source}  # fmt: skip


def notebook(cells):
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def picture():
    """A small real figure."""
    rows = [figures.Row("model", 0.7, 0.68, 0.72), figures.Row("baseline", 0.65, 0.62, 0.68)]
    return figures.plot_intervals(rows, xlabel="AUC")


def states(home: Path, profile: str = "demo"):
    """What the runner would say of a store: a node with a failure failed, the others are done."""
    store, found = Store(Home(home), profile), {}
    for folder in sorted(store.root.glob("*")):
        result, error = store.current(folder.name), store.failure(folder.name)
        if folder.is_dir() and (result or error):
            inputs = mapping(result.record.get("inputs")) if result else {}
            uses = {entry["node"] for entry in inputs.values() if mapping(entry).get("node")}
            found[folder.name] = {"state": "failed" if error else "done", "uses": sorted(uses),
                                  "notebook": error.get("notebook", "") if error else ""}  # fmt: skip
    for name, state in found.items():
        state["used_by"] = [other for other in found if name in found[other]["uses"]]
    return found


def nodes(home: Path, profile: str, given) -> list[Node]:
    """Nodes as the runner would give them; what a state leaves out is as the record has it."""
    store, made = Store(Home(home), profile), []
    for name, state in given.items():
        result, error = store.current(name), store.failure(name)
        record = read_record(result)
        known = {"title": record["title"] or name, "notebook": record["notebook"]}
        fields = known | {key: value for key, value in state.items() if value}
        made.append(Node(name, **fields, result=result, error=error or {}))
    return sorted(made, key=lambda node: node.notebook[:2])


def render(home: Path, profile: str = "demo", given=None, about="") -> Path:
    given = states(home, profile) if given is None else given
    return lib.report.render_all(home, profile, nodes(home, profile, given), about)


def result(*metrics, node="node", parameters=None, components=None) -> Result:
    """A result that is on no disk."""
    made = Result(node, "k", Path("k"), {"components": components or {}, "files": {}, "key": "k"})
    rows = [dataclasses.asdict(metric) for metric in metrics]
    made.__dict__["record"] = {"parameters": parameters or {}, "metrics": rows}
    return made


def add_result(home: Path, node: str, *, profile="demo", key="a" * 12, cells=None, figure=None,
               table=None, inputs=None, components=None, **record) -> Path:  # fmt: skip
    """One complete result, made current; ``record`` overrides fields of record.json."""
    folder = home / "data" / "store" / profile / node / key
    (folder / "outputs" / "tables").mkdir(parents=True, exist_ok=True)
    (folder / "figures").mkdir(exist_ok=True)
    notebook_name = record.get("notebook", f"50_{node}")
    title = record.get("title", f"What does {node} show?")
    cells = cells or [prose(f"# {title}\n\nWhy we ask."), code("import lib"), code("run.finish()")]
    (folder / "executed.ipynb").write_text(json.dumps(notebook(cells)), "utf-8")
    tables, pictures = [], []
    if table is not None:
        pq.write_table(pa.table(table), folder / "outputs" / "tables" / "t.parquet")
        tables = [{"name": "t", "caption": "A table", "path": "outputs/tables/t.parquet"}]
    if figure is not None:
        figure.savefig(folder / "figures" / "f.png", dpi=150)
        pictures = [{"name": "f", "path": "figures/f.png", "alt": "Two rows with intervals",
                     "caption": "Both rows."}]  # fmt: skip
    fields = {
        "schema": 1, "node": node, "notebook": notebook_name, "title": title,
        "note": f"{node} did what it should.", "parameters": {"seed": 1, "epochs": 3},
        "defaults": ["seed"], "metrics": [], "tables": tables, "figures": pictures,
        "inputs": {name: {"node": name, "key": "a" * 12, "hash": sha(name.encode()), "path": "x"}
                   for name in inputs or ()},
        "cells": [{"index": i, "title": "a cell", "seconds": 0.25}
                  for i, cell in enumerate(cells) if cell["cell_type"] == "code"],
        "started": "2026-11-20T10:00:00+00:00", "seconds": 12.5, "peak_memory_bytes": 350_000_000,
        "device": "cpu", "versions": {"python": "3.11.9", "torch": "2.13.0"},
        "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
    } | record  # fmt: skip
    (folder / "record.json").write_text(json.dumps(fields), "utf-8")
    parts = {"schema": 1, "code": sha(b"code"), "lock": LOCK, "python": "3.11", "device": "cpu",
             "lib/run.py": sha(b"run"), **{f"param.{n}": v for n, v in fields["parameters"].items()},
             } | (components or {})  # fmt: skip
    files = {str(p.relative_to(folder)): {"sha256": sha(p.read_bytes()), "bytes": p.stat().st_size}
             for p in sorted(folder.rglob("*")) if p.is_file()}  # fmt: skip
    manifest = {"schema": 1, "node": node, "profile": profile, "key": key * 5, "files": files,
                "components": parts}  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    (folder.parent / "current").write_text(f"{key}\n")
    return folder


def add_failure(home: Path, node: str, *, profile="demo", cells=None, **error) -> Path:
    folder = home / "data" / "store" / profile / node / "failed"
    folder.mkdir(parents=True, exist_ok=True)
    fields = {
        "node": node, "notebook": f"50_{node}", "cell": 1, "title": "train the model",
        "place": "lib/train/loop.py:87", "message": "ValueError: loss is nan",
        "lines": ["Traceback (most recent call last)", "ValueError: loss is nan"],
        "reproduce": f"python run_all.py {profile} --only {node}", "peak_memory_bytes": 10**9,
        "log": f"data/store/{profile}/{node}/log.txt",
    } | error  # fmt: skip
    (folder / "error.json").write_text(json.dumps(fields), "utf-8")
    cells = cells or [prose("# Title"), code("train(model)")]
    (folder / "executed.ipynb").write_text(json.dumps(notebook(cells)), "utf-8")
    return folder


def add_run(home: Path, keys: dict, *, profile="demo", started="2026-11-20T10:00:00+00:00"):
    path = home / "data" / "store" / profile / "runs.jsonl"
    nodes = {node: {"key": key, "state": "done", "seconds": 2.0} for node, key in keys.items()}
    line = {"run": started, "started": started, "seconds": 80.0, "nodes": nodes}
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
