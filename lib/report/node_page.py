"""What a node's page shows: the error, facts, tables, figures, the notebook, the provenance."""

import base64
import struct
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from lib.report.notebook import convert_notebook
from lib.report.results import Json, Node, Result, items, mapping
from lib.report.tables import Cell, Table, cut, data_table, metric_tables
from lib.report.text import make_scrub

__all__ = ["build", "duration", "moment"]

PNG = b"\x89PNG\r\n\x1a\n"
MAX_FILES = 40
BANNERS = {
    "stale": "This result is older than its code, parameters or inputs.",
    "blocked": "This node did not run, because a node it uses has no result.",
    "not run": "This node has not run yet.",
    "corrupt": "Files of this result were changed after they were written; do not trust it.",
    "last good result": "This is the last good result. A newer attempt failed.",
}


def build(node: Node, home: Path, links: Mapping[str, str], *, earlier: bool) -> Json:
    """Everything ``node.j2`` needs beyond the node itself; ``earlier``: the last good result."""
    failing = node.state == "failed" and not earlier
    result = None if failing else node.result
    record = result.record if result else {}
    state = "last good result" if earlier else node.state
    figures = [_figure(result, entry) for entry in items(record.get("figures"))] if result else []
    body, trouble = _body(node, home, links, result, figures)
    return {
        "state": state,
        "note": str(record.get("note") or ""),
        "facts": _facts(result) if result else [],
        "error": _error(node.error) if failing else None,
        "banner": " ".join(filter(None, [BANNERS.get(state, ""), trouble])),
        "last_good": f"{node.name}.last-good.html" if failing and node.result else "",
        "tables": _tables(result) if result else [],
        "figures": figures,
        "body": body,
        "provenance": _provenance(result) if result else [],
    }


def duration(seconds: object) -> str:
    """A time for people.

    >>> duration(0.42), duration(185), duration(3720), duration(None)
    ('0.4 s', '3 min 05 s', '1 h 02 min', '')
    """
    if not isinstance(seconds, int | float):
        return ""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def moment(value: object) -> str:
    """A start time to the minute, from ISO text.

    >>> moment("2026-11-20T10:15:42+00:00")
    '2026-11-20 10:15 UTC'
    """
    try:
        when = datetime.fromisoformat(str(value))
        return f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError):
        return cut(str(value or ""), 40)


def size(amount: object) -> str:
    """Bytes for people.

    >>> size(2_500_000), size(350_000_000), size(None)
    ('2.5 MB', '350 MB', '')
    """
    if not isinstance(amount, int | float):
        return ""
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if amount >= 100 or unit == "B" else f"{amount:.1f} {unit}"


def _body(
    node: Node, home: Path, links: Mapping[str, str], result: Result | None, figures: list[Json]
) -> tuple[object, str]:
    """The converted notebook, and what is wrong with it if something is."""
    folder = result.folder if result else node.failed
    if folder is None:
        return "", ""
    cells = items(result.record.get("cells")) if result else []
    try:
        body = convert_notebook(
            folder / "executed.ipynb",
            home / "notebooks" / f"{node.notebook}.ipynb",
            seconds={cell["index"]: float(cell["seconds"]) for cell in cells},
            figures={str(figure["name"]): i for i, figure in enumerate(figures, start=1)},
            pages=links,
            scrub=make_scrub(home),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return "", f"Its executed notebook cannot be read ({type(error).__name__})."
    return body, ""


def _error(error: Json) -> Json:
    """The failure's facts, all of them optional."""
    index, lines, log = error.get("cell"), error.get("lines"), error.get("log")
    memory = size(error.get("peak_memory_bytes") or None)
    return {
        "cell": str(error.get("title") or ""),
        "anchor": index if isinstance(index, int) else None,
        "message": str(error.get("message") or "No message was left."),
        "place": str(error.get("place") or ""),
        "last": "\n".join(map(str, lines)) if isinstance(lines, list) else str(lines or ""),
        "reproduce": str(error.get("reproduce") or ""),
        "more": [f"Peak memory {memory}."] * bool(memory) + [f"Full log: {log}"] * bool(log),
    }


def _facts(result: Result) -> list[str]:
    record = result.record
    facts = {
        "": moment(record.get("started")), "took ": duration(record.get("seconds")),
        "peak memory ": size(record.get("peak_memory_bytes")),
        "on ": record.get("device"), "result ": result.key,
    }  # fmt: skip
    return [f"{name}{value}" for name, value in facts.items() if value]


def _tables(result: Result) -> list[Table]:
    shown = [_table(result, entry) for entry in items(result.record.get("tables"))]
    return [*metric_tables(result.metrics), *shown]


def _table(result: Result, entry: Json) -> Table:
    caption = str(entry.get("caption") or entry.get("name") or "Table")
    path = result.file(entry.get("path"))
    if path is None:
        return Table(caption, (), (), ("The file of this table is missing from the store.",))
    try:
        return data_table(path, caption)
    except (ValueError, OSError) as error:  # pyarrow's errors are one or the other
        return Table(caption, (), (), (f"The file cannot be read ({type(error).__name__}).",))


def _figure(result: Result, entry: Json) -> Json:
    """A picture as base64, with the size at which its 150 dpi were meant to be seen."""
    path = result.file(entry.get("path"))
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
    record, manifest, parts = result.record, result.manifest, result.components()
    git, defaults = mapping(record.get("git")), record.get("defaults") or ()
    state = "changed since that commit" if git.get("dirty") else "as committed"
    files = [(name, size(mapping(entry).get("bytes")), mapping(entry).get("sha256"))
             for name, entry in mapping(manifest.get("files")).items()]  # fmt: skip
    more = f" (the first {MAX_FILES} of {len(files)})" if len(files) > MAX_FILES else ""
    inputs = [(name, " ".join(str(entry.get(k) or "") for k in ("node", "path")), entry.get("hash"))
              for name, entry in mapping(record.get("inputs")).items()]  # fmt: skip
    tables = [
        _plain("Code and machine", ("what", "value"), [
            ("key", manifest.get("key")), ("git commit", git.get("commit")),
            ("working tree", state if git else ""), ("lock file", parts.get("lock")),
            ("device", record.get("device")), ("wall time", duration(record.get("seconds"))),
            ("peak memory", size(record.get("peak_memory_bytes"))),
            ("peak memory, GPU", size(record.get("gpu_peak_memory_bytes") or None)),
            *mapping(record.get("versions")).items(),
        ]),
        _plain("Parameters", ("name", "value", "from"), [
            (name, value, "default" if name in defaults else "set by the profile")
            for name, value in mapping(record.get("parameters")).items()
        ]),
        _plain("Inputs", ("name", "from", "sha256"), inputs),
        _plain(f"Files of this result{more}", ("file", "size", "sha256"), files[:MAX_FILES]),
        _plain("Time per cell", ("cell", "first line", "time"), [
            (cell.get("index"), cell.get("title"), duration(cell.get("seconds")))
            for cell in items(record.get("cells"))
        ]),
        _plain("Parts of the key", ("part", "hash or value"), [
            (name, value) for name, value in parts.items() if not name.startswith("param.")
        ]),
    ]  # fmt: skip
    return [table for table in tables if table.rows]


def _plain(caption: str, heads: Iterable[str], rows: Iterable[tuple[object, ...]]) -> Table:
    lines = []
    for first, *rest in rows:
        cells = [Cell("none", missing=True) if v in (None, "") else Cell(_short(v)) for v in rest]
        lines.append((Cell(_short(first), header=True), *cells))
    return Table(caption, tuple(Cell(head) for head in heads), tuple(lines))


def _short(value: object) -> str:
    """A value as text; a sha256 keeps the 12 digits that people compare."""
    text = str(value)
    is_hash = len(text) == 64 and not set(text) - set("0123456789abcdef")
    return text[:12] if is_hash else cut(text, 400)
