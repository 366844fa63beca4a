"""What a node's page shows beyond the node itself: tables, figures, cells, provenance."""

import base64
import struct
from pathlib import Path

from lib.pipeline.store import Json, Result, mapping
from lib.report.metrics import items
from lib.report.nodes import Node
from lib.report.notebook import shown_cells
from lib.report.tables import Table, data_table, metric_tables, plain_table
from lib.report.text import duration, size

__all__ = ["build"]

PNG = b"\x89PNG\r\n\x1a\n"
ANSWER = "answer"  # what a table or a figure is called that a page has to open with
MAX_FILES = 40


def build(node: Node, source: Path, folder: Path, result: Result | None) -> Json:
    """Everything ``node.j2`` needs; ``result`` is None where a failure is shown instead."""
    record = result.record if result else {}
    figures = [_figure(result, entry) for entry in items(record.get("figures")) if result]
    seconds = {cell.get("index"): cell.get("seconds") for cell in items(record.get("cells"))}
    cells, trouble = list[Json](), ""
    if result or node.state == "failed":
        try:
            numbers = {str(figure["name"]): i for i, figure in enumerate(figures, start=1)}
            cells = shown_cells(folder / "executed.ipynb", source, seconds, numbers)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            trouble = f"Its executed notebook cannot be read ({type(error).__name__})."
    return {
        "record": record, "result": result, "figures": figures, "cells": cells, "trouble": trouble,
        "tables": _tables(node, result) if result else [],
        "provenance": _provenance(result) if result else [],
    }  # fmt: skip


def _file(result: Result, entry: Json) -> Path | None:
    """A file of this result; names that leave its folder or are not there give None."""
    path = (result.folder / str(entry.get("path"))).resolve()
    inside = path.is_relative_to(result.folder.resolve())
    return path if inside and path.is_file() else None


def _tables(node: Node, result: Result) -> list[Table]:
    """A table that the notebook calls ``answer`` first, then the metrics, then the others."""
    answer, others = list[Table](), list[Table]()
    for entry in items(result.record.get("tables")):
        caption = str(entry.get("caption") or entry.get("name") or "Table")
        path, note = _file(result, entry), "The file of this table is missing from the store."
        tables = answer if entry.get("name") == ANSWER else others
        try:
            if path is not None:
                tables.append(data_table(path, caption))
                continue
        except (ValueError, OSError) as error:  # pyarrow's errors are one or the other
            note = f"The file cannot be read ({type(error).__name__})."
        tables.append(Table(caption, (), (), (note,)))
    return [*answer, *metric_tables(node.metrics), *others]


def _figure(result: Result, entry: Json) -> Json:
    """A picture as base64, with the size at which its 150 dpi were meant to be seen."""
    path = _file(result, entry)
    data = path.read_bytes() if path else b""
    if not data.startswith(PNG) or len(data) < 24:
        data = b""
    width, height = struct.unpack(">II", data[16:24]) if data else (0, 0)
    return {
        "name": entry.get("name"), "alt": str(entry.get("alt") or "No description was given."),
        "caption": str(entry.get("caption") or ""), "data": base64.b64encode(data).decode(),
        "width": round(width * 96 / 150), "height": round(height * 96 / 150),
    }  # fmt: skip


def _provenance(result: Result) -> list[Table]:
    """All that the result depends on; no host, user or absolute path is ever in a record."""
    record, manifest, parts = result.record, result.manifest, result.parts
    git, defaults = mapping(record.get("git")), str(record.get("defaults") or "")
    state = "changed since that commit" if git.get("dirty") else "as committed"
    files = [(name, size(mapping(entry).get("bytes")), mapping(entry).get("sha256"))
             for name, entry in mapping(manifest.get("files")).items()]  # fmt: skip
    more = f" (the first {MAX_FILES} of {len(files)})" if len(files) > MAX_FILES else ""
    tables = [
        plain_table("Code and machine", ("what", "value"), [
            ("key", manifest.get("key")), ("git commit", git.get("commit")),
            ("working tree", state if git else ""), ("lock file", parts.get("lock")),
            ("device", record.get("device")), ("wall time", duration(record.get("seconds"))),
            ("peak memory", size(record.get("peak_memory_bytes"))),
            ("peak memory, GPU", size(record.get("gpu_peak_memory_bytes") or None)),
            *mapping(record.get("versions")).items(),
        ]),
        plain_table("Parameters", ("name", "value", "from"), [
            (name, value, "default" if repr(name) in defaults else "set by the profile")
            for name, value in mapping(record.get("parameters")).items()
        ]),
        plain_table("Inputs", ("name", "from", "sha256"), [
            (name, " ".join(str(entry.get(k) or "") for k in ("node", "path")), entry.get("hash"))
            for name, entry in mapping(record.get("inputs")).items()
        ]),
        plain_table(f"Files of this result{more}", ("file", "size", "sha256"), files[:MAX_FILES]),
        plain_table("Time per cell", ("cell", "first line", "time"), [
            (cell.get("index"), cell.get("title"), duration(cell.get("seconds")))
            for cell in items(record.get("cells"))
        ]),
        plain_table("Parts of the key", ("part", "hash or value"), [
            (name, value) for name, value in parts.items() if not name.startswith("param.")
        ]),
    ]  # fmt: skip
    return [table for table in tables if table.rows]
