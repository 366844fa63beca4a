"""Blocks of text to frames of text ids: JSON records, delimited tables, and lines of words.

Each has a fast path for blocks without fault. Where it fails, the block is read again line by line,
so that what is wrong can be counted and its line named.
"""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl

from lib.data.blocks import Block, RowCheck, first_line, read_blocks
from lib.data.interactions import FRAME

__all__ = ["Frames", "json_frames", "nearest", "read_header", "table_frames", "word_frames"]

Frames = Iterator[tuple[pl.DataFrame, RowCheck]]


def nearest(name: str, present: Sequence[str]) -> str:
    """A hint for a missing column: the most similar one that is there."""
    close = difflib.get_close_matches(name, present, n=1, cutoff=0.4)
    return f"nearest is {close[0]!r}" if close else f"there are {', '.join(present[:12])}"


def json_frames(path: Path, roles: Mapping[str, str], check: RowCheck) -> Frames:
    """One JSON object a line; fields without a role are ignored."""
    kinds: dict[str, type[pl.DataType]] = {"rating": pl.Float64, "time": pl.Float64}
    schema = {name: kinds.get(role, pl.String) for role, name in roles.items()}
    for index, block in enumerate(read_blocks(path, check)):
        check.n_rows += block.n_lines
        if not index:
            _require_keys(path, block, roles)
        lines = pl.int_range(block.first_line, block.first_line + block.n_lines, eager=True)
        try:
            frame = pl.read_ndjson(BytesIO(block.data), schema=schema)
        except pl.exceptions.PolarsError:
            frame = pl.DataFrame()
        if len(frame) == block.n_lines:
            frame = frame.with_columns(lines.alias("line"))
        else:  # something in this block is not as it should be: look at each line
            rows = _json_rows(block, schema, check)
            frame = pl.DataFrame(rows, schema={**schema, "line": pl.UInt32}, orient="row")
        yield _with_roles(frame, roles), check


def _json_rows(
    block: Block, schema: Mapping[str, type[pl.DataType]], check: RowCheck
) -> list[list[Any]]:
    rows = []
    for number, line in enumerate(block.data.split(b"\n")[:-1], start=block.first_line):
        if not line.strip():
            check.repair("blank line", number)
            check.n_rows -= 1
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            record = None
        if not isinstance(record, dict):
            check.drop("broken JSON", number)
            continue
        values = [
            _number(record.get(name)) if kind is pl.Float64 else _text(record.get(name))
            for name, kind in schema.items()
        ]
        rows.append([*values, number])
    return rows


def _text(value: object) -> str | None:
    return None if value is None or isinstance(value, dict | list) else str(value)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _require_keys(path: Path, block: Block, roles: Mapping[str, str]) -> None:
    """A column that none of the first hundred records has is missing from the file."""
    present: set[str] = set()
    for line in block.data.split(b"\n", 100)[:100]:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        present |= set(record) if isinstance(record, dict) else set()
    for name in roles.values():
        if present and name not in present:
            raise ValueError(
                f"{path}: no field {name!r} in its records; {nearest(name, sorted(present))}. "
                "Name it in `columns`, or give an empty name if the file has none"
            )


def table_frames(path: Path, roles: Mapping[str, str], check: RowCheck, separator: str) -> Frames:
    """Delimited text with a header; no quotes, because ids need none."""
    header = read_header(path, separator)
    for name in roles.values():
        if name not in header:
            raise ValueError(
                f"{path}: no column {name!r}; {nearest(name, header)}. Name it in `columns`, or "
                "give an empty name if the file has none"
            )
    for block in read_blocks(path, check):
        data = block.data.replace(b"\r\n", b"\n")
        skipped = int(block.first_line == 1)
        data = data.split(b"\n", 1)[1] if skipped else data
        if data:
            frame = _table_rows(data, block.first_line + skipped, header, separator, check)
            yield _with_roles(frame, roles), check


def read_header(path: Path, separator: str) -> list[str]:
    """Column names, without RecBole's types; one that holds no separator names the likely one."""
    line = first_line(path)
    names = [name.strip().strip('"').split(":")[0] for name in line.split(separator)]
    others = {mark: line.count(mark) for mark in "\t,;|" if mark != separator}
    likely = max(others, key=lambda mark: others[mark])
    if len(names) == 1 and others[likely]:
        raise ValueError(
            f"{path}: its header holds no {separator!r} but {others[likely]} times {likely!r}: "
            f"wrong delimiter. Expected {separator!r}; convert the file or choose another source"
        )
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: a column name stands twice in {names}; rename one")
    return names


def _table_rows(
    data: bytes, first: int, header: Sequence[str], separator: str, check: RowCheck
) -> pl.DataFrame:
    n_lines = data.count(b"\n")
    check.n_rows += n_lines
    numbers: Sequence[int] = range(first, first + n_lines)
    if data.count(separator.encode()) != n_lines * (len(header) - 1) or b"\n\n" in b"\n" + data:
        data, numbers = _exact_rows(data, first, header, separator, check)
    schema = dict.fromkeys(header, pl.String)
    if not data:
        return pl.DataFrame(schema={**schema, "line": pl.UInt32})
    # As many separators as whole rows need, and no row with more: then no row has fewer.
    frame = pl.read_csv(
        BytesIO(data), has_header=False, schema=schema, separator=separator, quote_char=None
    )
    return frame.with_columns(pl.Series("line", numbers, dtype=pl.UInt32))


def _exact_rows(
    data: bytes, first: int, header: Sequence[str], separator: str, check: RowCheck
) -> tuple[bytes, list[int]]:
    kept, numbers, wanted = [], [], len(header) - 1
    for number, line in enumerate(data.split(b"\n")[:-1], start=first):
        if not line.strip():
            check.repair("blank line", number)
            check.n_rows -= 1
        elif line.count(separator.encode()) != wanted:
            check.drop("wrong number of fields", number)
        else:
            kept.append(line + b"\n")
            numbers.append(number)
    return b"".join(kept), numbers


def word_frames(path: Path, check: RowCheck, *, pairs: bool) -> Frames:
    """``user item item ...`` or, with ``pairs``, exactly ``user item``; blanks or tabs between."""
    line = first_line(path)
    marks = [mark for mark in ",;|" if mark in line]
    if marks and len(line.split()) < 3:
        raise ValueError(
            f"{path}: line 1 is {line[:60]!r}: wrong delimiter {marks[0]!r}. Expected blanks "
            "or tabs between ids; convert the file or choose another source"
        )
    owners: set[str] = set()
    for block in read_blocks(path, check):
        users, items, lines = [], [], []
        for number, text in enumerate(block.data.decode().split("\n")[:-1], start=block.first_line):
            user, *rest = text.split() or [""]
            if not user:
                check.repair("blank line", number)
            elif pairs and len(rest) != 1:
                check.n_rows += 1
                check.drop("not two ids", number)
            elif not rest:
                check.repair("user without items", number)
            elif not pairs and user in owners:
                raise ValueError(
                    f"{path}: line {number}: user {user!r} has a line already; expected one line a "
                    "user. Join the lines in time order, or use the source 'pairs'"
                )
            else:
                owners.add(user)
                users += [user] * len(rest)
                items += rest
                lines += [number] * len(rest)
        check.n_rows += len(users)
        data = {"user": users, "item": items, "line": lines}
        schema = {"user": pl.String, "item": pl.String, "line": pl.UInt32}
        yield (
            _with_roles(pl.DataFrame(data, schema=schema), {"user": "user", "item": "item"}),
            check,
        )


def _with_roles(frame: pl.DataFrame, roles: Mapping[str, str]) -> pl.DataFrame:
    """The columns that every source hands on; what is no number becomes null."""
    columns = {"line": pl.col("line")} | {role: pl.col(name) for role, name in roles.items()}
    return frame.select(
        columns.get(role, pl.lit(None)).cast(kind, strict=False).alias(role)
        for role, kind in FRAME.items()
    )
