"""What a node's page shows: the error, facts, tables, figures, the notebook, the provenance."""

import base64
import struct
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from lib.report.notebook import convert_notebook
from lib.report.results import Json, Node, Result
from lib.report.tables import Cell, Table, cut, data_table, metric_table
from lib.report.text import make_scrub

__all__ = ["build", "duration", "moment"]

PNG = b"\x89PNG\r\n\x1a\n"
MAX_FILES = 40
BANNERS = {
    "stale": "This result is older than its code, parameters or inputs.",
    "blocked": "This node did not run, because a node it uses has no result.",
    "not run": "This node has not run yet.",
    "corrupt": "Files of this result were changed after they were written; do not trust it.",
    "earlier": "This is the last good result. A newer attempt failed.",
}


def build(node: Node, home: Path, source: Path, links: Mapping[str, str], *, earlier: bool) -> Json:
    """Everything ``node.j2`` needs beyond the node itself; ``earlier``: the last good result."""
    failing = node.state == "failed" and not earlier
    result = None if failing else node.result
    record = result.record if result else {}
    state = "earlier" if earlier else node.state
    figures = [_figure(result, entry) for entry in _dicts(record.get("figures"))] if result else []
    folder = node.failed if failing else (result.folder if result else None)
    numbers = {str(f["name"]): i for i, f in enumerate(figures, start=1)}
    body, trouble = _body(folder, source, home, record, numbers, links)
    waiting = state in ("stale", "not run", "corrupt")
    return {
        "state": "last good result" if earlier else node.state,
        "note": str(record.get("note") or ""),
        "facts": _facts(result) if result else [],
        "error": _error(node.error) if failing else None,
        "banner": " ".join(filter(None, [BANNERS.get(state, ""), trouble])),
        "command": f"run_all.py PROFILE --only {node.name}" if waiting else "",
        "last_good": f"{node.name}.last-good.html" if failing and node.result else "",
        "metrics": metric_table(result.metrics, "Metrics") if result else None,
        "tables": [_table(result, entry) for entry in _dicts(record.get("tables"))]
        if result
        else [],
        "figures": figures,
        "body": body,
        "provenance": _provenance(result) if result else [],
    }


def duration(seconds: object) -> str:
    """
    >>> duration(0.42), duration(185), duration(3720), duration(None)
    ('0.4 s', '3 min 05 s', '1 h 02 min', '')
    """
    if not isinstance(seconds, int | float):
        return ""
    if seconds < 59.95:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def moment(value: object) -> str:
    """A start time to the minute, from ISO text or seconds since 1970.

    >>> moment("2026-11-20T10:15:42+00:00"), moment(0)
    ('2026-11-20 10:15 UTC', '1970-01-01 00:00 UTC')
    """
    try:
        is_number = isinstance(value, int | float)
        when = (
            datetime.fromtimestamp(value, UTC) if is_number else datetime.fromisoformat(str(value))
        )  # type: ignore[arg-type]
    except (ValueError, OverflowError, OSError):
        return cut(str(value or "an unknown time"), 40)
    zone = "" if when.tzinfo is None else " UTC"
    return (when.astimezone(UTC) if zone else when).strftime("%Y-%m-%d %H:%M") + zone


def size(amount: object) -> str:
    """
    >>> size(2_500_000), size(None)
    ('2.5 MB', '')
    """
    if not isinstance(amount, int | float):
        return ""
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


def _body(
    folder: Path | None, source: Path, home: Path, record: Json, numbers: Mapping[str, int],
    links: Mapping[str, str],
) -> tuple[object, str]:  # fmt: skip
    """The converted notebook and what is wrong with it, if something is."""
    path = folder / "executed.ipynb" if folder else None
    if path is None or not path.is_file():
        return "", "" if folder is None else "No executed notebook was left."
    seconds = {int(c["index"]): float(c["seconds"]) for c in _dicts(record.get("cells"))
               if isinstance(c.get("index"), int) and isinstance(c.get("seconds"), int | float)}  # fmt: skip
    try:
        body = convert_notebook(path, source, seconds=seconds, figures=numbers, pages=links,
                                scrub=make_scrub(home))  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return "", f"The executed notebook cannot be read ({type(error).__name__})."
    return body, ""


def _error(error: Json) -> Json:
    """The failure's facts under the names the template uses, all of them optional."""
    index, lines = error.get("cell"), error.get("lines")
    cell = str(error.get("title") or "")
    more = (
        [f"Peak memory {size(error.get('peak_memory_bytes'))}"]
        if error.get("peak_memory_bytes")
        else []
    )
    more += [f"Full log: {error['log']}"] if error.get("log") else []
    return {
        "cell": cell or (f"cell {index}" if isinstance(index, int) else ""),
        "anchor": index if isinstance(index, int) else None,
        "message": str(error.get("message") or "No message was left."),
        "place": str(error.get("place") or ""),
        "last": "\n".join(map(str, lines)) if isinstance(lines, list) else str(lines or ""),
        "reproduce": str(error.get("reproduce") or ""),
        "more": more,
    }


def _facts(result: Result) -> list[str]:
    record = result.record
    took, memory = duration(record.get("seconds")), size(record.get("peak_memory_bytes"))
    facts = [moment(record.get("started")) if record.get("started") else "",
             f"took {took}" if took else "", f"peak memory {memory}" if memory else "",
             f"device {record['device']}" if record.get("device") else "", f"result {result.key}"]  # fmt: skip
    return [fact for fact in facts if fact]


def _table(result: Result, entry: Json) -> Table:
    caption = str(entry.get("caption") or entry.get("name") or "Table")
    path = result.file(entry.get("path"))
    if path is None:
        return Table(caption, (), (), ("The file of this table is missing from the store.",))
    try:
        return data_table(path, caption)
    except (ValueError, OSError) as error:  # pyarrow's errors are both
        return Table(caption, (), (), (f"The file cannot be read ({type(error).__name__}).",))


def _figure(result: Result, entry: Json) -> Json:
    """A picture as base64 with the size at which its 150 dpi were meant to be seen."""
    path = result.file(entry.get("path"))
    data = path.read_bytes() if path else b""
    found = {"name": entry.get("name"), "alt": str(entry.get("alt") or "No description was given."),
             "caption": str(entry.get("caption") or ""), "data": "", "width": 0, "height": 0}  # fmt: skip
    if data.startswith(PNG) and len(data) > 24:
        width, height = struct.unpack(">II", data[16:24])
        found |= {"data": base64.b64encode(data).decode(), "width": round(width * 96 / 150),
                  "height": round(height * 96 / 150)}  # fmt: skip
    return found


def _provenance(result: Result) -> list[Table]:
    record, manifest = result.record, result.manifest
    git = record.get("git") if isinstance(record.get("git"), dict) else {}
    lock = result.components().get("lock")
    rows = [
        ("key", manifest.get("key") or result.key),
        ("git commit", git.get("commit") or "not a git checkout"),
        ("working tree", "changed since that commit" if git.get("dirty") else "as committed"),
        ("device", record.get("device")), ("lock file", lock),
        ("wall time", duration(record.get("seconds"))),
        ("peak memory", size(record.get("peak_memory_bytes"))),
    ]  # fmt: skip
    rows += list(_dict(record.get("versions")).items())
    tables = [_pairs("Code and machine", rows), _parameters(record)]
    inputs = [(name, " ".join(str(entry.get(k)) for k in ("node", "path", "key") if entry.get(k)), entry.get("hash"))
              for name, entry in _dict(record.get("inputs")).items() if isinstance(entry, dict)]  # fmt: skip
    files = _dict(manifest.get("files"))
    outputs = [
        (name, size(_dict(e).get("bytes")), _dict(e).get("sha256")) for name, e in files.items()
    ]
    cells = [
        (c.get("index"), c.get("title"), duration(c.get("seconds")))
        for c in _dicts(record.get("cells"))
    ]
    parts = [(k, v) for k, v in result.components().items() if not k.startswith("param.")]
    more = f" (the first {MAX_FILES} of {len(outputs)})" if len(outputs) > MAX_FILES else ""
    tables += [
        _plain("Inputs", ("name", "from", "sha256"), inputs),
        _plain(f"Files of this result{more}", ("file", "size", "sha256"), outputs[:MAX_FILES]),
        _plain("Time per cell", ("cell", "first line", "time"), cells),
        _plain("Parts of the key", ("part", "hash or value"), parts),
    ]
    return [table for table in tables if table.rows]


def _parameters(record: Json) -> Table:
    defaults = record.get("defaults")
    kept = set(map(str, defaults)) if isinstance(defaults, list) else set()
    rows = [(name, value, "default" if name in kept else "set by the profile")
            for name, value in _dict(record.get("parameters")).items()]  # fmt: skip
    return _plain("Parameters", ("name", "value", "from"), rows)


def _pairs(caption: str, rows: list[tuple[str, object]]) -> Table:
    return _plain(caption, ("what", "value"), [row for row in rows if row[1]])


def _plain(caption: str, heads: tuple[str, ...], rows: list[tuple[object, ...]]) -> Table:  # type: ignore[type-arg]
    lines = []
    for first, *rest in rows:
        cells = [Cell("none", missing=True) if v in (None, "") else Cell(_short(v)) for v in rest]
        lines.append((Cell(_short(first), header=True), *cells))
    return Table(caption, tuple(Cell(head) for head in heads), tuple(lines))


def _short(value: object) -> str:
    """A value as text; a sha256 keeps its first 12 digits, which is what people compare."""
    text = str(value)
    is_hash = len(text) == 64 and not set(text) - set("0123456789abcdef")
    return text[:12] if is_hash else cut(text, 400)


def _dict(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def _dicts(value: object) -> list[Json]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
