"""What a node's page shows beyond the node itself: tables, figures, cells, provenance."""

import base64
import struct
from pathlib import Path

from lib.pipeline.store import Json, Result
from lib.report.metrics import Metric
from lib.report.notebook import shown_cells
from lib.report.tables import Table, data_table, metric_tables, plain_table
from lib.report.text import duration, size

__all__ = ["build"]

PNG = b"\x89PNG\r\n\x1a\n"
ANSWER = "answer"  # what a table or a figure is called that a page has to open with
MAX_FILES = 40


def build(
    record: Json, metrics: tuple[Metric, ...], result: Result | None, folder: Path, source: Path
) -> Json:
    """Everything ``node.j2`` needs; ``result`` is None where there is only a failure to show."""
    figures = [_figure(result, entry) for entry in record["figures"]] if result else []
    numbers = {figure["name"]: i for i, figure in enumerate(figures, start=1)}
    seconds = {cell["index"]: cell["seconds"] for cell in record["cells"]}
    cells, trouble = list[Json](), ""
    try:
        cells = shown_cells(folder / "executed.ipynb", source, seconds, numbers)
    except FileNotFoundError:
        pass  # it has not run yet
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        trouble = f"Its executed notebook cannot be read ({type(error).__name__})."
    return {
        "record": record, "result": result, "figures": figures, "cells": cells, "trouble": trouble,
        "tables": _tables(record, metrics, result) if result else [],
        "provenance": _provenance(record, result) if result else [],
    }  # fmt: skip


def _tables(record: Json, metrics: tuple[Metric, ...], result: Result) -> list[Table]:
    """A table that the notebook calls ``answer`` first, then the metrics, then the others."""
    answer, others = list[Table](), list[Table]()
    for entry in record["tables"]:
        caption = entry["caption"] or entry["name"]
        try:
            table = data_table(result.file(entry["path"]), caption)
        except (OSError, ValueError) as error:  # pyarrow's errors are one or the other
            note = f"The file of this table cannot be read ({type(error).__name__})."
            table = Table(caption, (), (), (note,))
        (answer if entry["name"] == ANSWER else others).append(table)
    return [*answer, *metric_tables(metrics), *others]


def _figure(result: Result, entry: Json) -> Json:
    """A picture as base64, with the size at which its 150 dpi were meant to be seen."""
    try:
        data = result.file(entry["path"]).read_bytes()
    except OSError:
        data = b""
    if not data.startswith(PNG):
        return entry | {"data": ""}
    width, height = (round(side * 96 / 150) for side in struct.unpack(">II", data[16:24]))
    return entry | {"data": base64.b64encode(data).decode(), "width": width, "height": height}


def _provenance(record: Json, result: Result) -> list[Table]:
    """All that the result depends on; no host, user or absolute path is ever in a record."""
    git, parts, files = record["git"], result.parts, result.manifest["files"]
    state = "changed since that commit" if git.get("dirty") else "as committed"
    more = f" (the first {MAX_FILES} of {len(files)})" if len(files) > MAX_FILES else ""
    tables = [
        plain_table("Code and machine", ("what", "value"), [
            ("key", result.manifest["key"]), ("git commit", git.get("commit")),
            ("working tree", state if git else ""), ("lock file", parts.get("lock")),
            ("device", record["device"]), ("wall time", duration(record["seconds"])),
            ("peak memory", size(record["peak_memory_bytes"])),
            ("peak memory, GPU", size(record["gpu_peak_memory_bytes"] or None)),
            *record["versions"].items(),
        ]),
        plain_table("Parameters", ("name", "value", "from"), [
            (name, value, "default" if name in record["defaults"] else "set by the profile")
            for name, value in record["parameters"].items()
        ]),
        plain_table("Inputs", ("name", "from", "sha256"), [
            (name, f"{entry['node']} {entry['path']}", entry["hash"])
            for name, entry in record["inputs"].items()
        ]),
        plain_table(f"Files of this result{more}", ("file", "size", "sha256"), [
            (name, size(entry["bytes"]), entry["sha256"])
            for name, entry in [*files.items()][:MAX_FILES]
        ]),
        plain_table("Time per cell", ("cell", "first line", "time"), [
            (cell["index"], cell["title"], duration(cell["seconds"])) for cell in record["cells"]
        ]),
        plain_table("Parts of the key", ("part", "hash or value"), [
            (name, value) for name, value in parts.items() if not name.startswith("param.")
        ]),
    ]  # fmt: skip
    return [table for table in tables if table.rows]
