"""A person's own file, whatever it is, as one lazy table: CSV of any kind, JSON lines, parquet.

What was found out (separator, header, encoding) is kept with the table, because the proposal
states it. Nothing is guessed in silence: what cannot be read is an error that says what to do.
"""

import codecs
import gzip
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Literal, cast

import polars as pl

__all__ = ["Table", "collect", "open_table", "open_tables", "split_files"]

SEPARATORS = ("::", "\t", ";", ",", "|", " ")
SUFFIXES = {".csv", ".tsv", ".txt", ".dat", ".data", ".inter", ".item", ".parquet", ".pq", ".jsonl",
            ".json", ".ndjson"}  # fmt: skip
HEAD_BYTES = 1 << 20
NUMBER = re.compile(r"[-+]?[\d.,]*\d[\d.,:/T -]*Z?\Z")  # numbers and dates: no name of a column
RECBOLE = re.compile(r":(token|token_seq|float|float_seq)\Z")
SPLIT_NAMES = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid",
               "dev": "valid", "test": "test"}  # fmt: skip
Kind = Literal["csv", "json", "parquet", "words"]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table as it was understood. ``words``: lines of ids without columns, oldest first."""

    paths: tuple[Path, ...]
    kind: Kind
    frame: pl.LazyFrame
    names: tuple[str, ...]
    n_bytes: int
    separator: str = ""
    has_header: bool = True
    is_plain: bool = True  # UTF-8, one-byte separator: can be used where it stands

    def describe(self) -> str:
        """One line: what the file is."""
        if self.kind == "words":
            return "lines of ids, a user and the items behind it"
        if self.kind != "csv":
            return {"json": "JSON lines", "parquet": "parquet"}[self.kind]
        header = "a header" if self.has_header else "no header"
        return f"a table separated by {self.separator!r}, with {header}"


def split_files(folder: Path) -> dict[str, Path]:
    """The files of a folder that are named after a split, by train, valid and test."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        split = SPLIT_NAMES.get(path.name.split(".")[0].lower())
        if split and path.is_file() and set(path.suffixes) & SUFFIXES:
            if split in found:
                raise ValueError(
                    f"{path.name} and {found[split].name} both offer {split} rows; keep one of them"
                )
            found[split] = path
    return found if "train" in found else {}


def open_tables(path: Path, scratch: Path, *, columns: Sequence[str] = ()) -> dict[str, Table]:
    """The table of a file or a folder of parts, as ``all``; or train, valid and test by name."""
    if not path.exists():
        raise ValueError(f"{path}: not there; name a file, or a folder with parts of one table")
    if path.is_file():
        return {"all": open_table([path], scratch, columns=columns)}
    splits = split_files(path)
    if splits:
        train = open_table([splits["train"]], scratch, columns=columns)
        rest = {split: open_table([file], scratch, columns=columns, like=train)
                for split, file in splits.items() if split != "train"}  # fmt: skip
        return {"train": train, **rest}
    there = [file for file in sorted(path.rglob("*")) if file.is_file()]
    files = [file for file in there if set(file.suffixes) & SUFFIXES]
    files = [file for file in files if not file.name.startswith((".", "_"))]
    if not files:
        raise ValueError(
            f"{path}: no table in this folder; it holds {[file.name for file in there][:8]}. "
            f"Expected files that end in {', '.join(sorted(SUFFIXES))}"
        )
    if len({file.name.removesuffix(".gz").rpartition(".")[2] for file in files}) > 1:
        names = ", ".join(file.name for file in files[:6])
        raise ValueError(
            f"{path}: files of several kinds ({names}); name the one that is meant, or call them "
            "train, valid and test"
        )
    return {"all": open_table(files, scratch, columns=columns)}


def open_table(
    paths: Sequence[Path], scratch: Path, *, columns: Sequence[str] = (), like: Table | None = None
) -> Table:
    """Parts of one table. ``columns`` names those of a file without a header; ``like`` is a table
    whose columns a file without a header shares.  Plain copies, where needed, go to ``scratch``."""
    first, n_bytes = paths[0], sum(path.stat().st_size for path in paths)
    head = read_head(first)
    if head[:4] == b"PAR1":
        try:
            frame = pl.scan_parquet(list(paths))
            names = tuple(frame.collect_schema().names())
        except (pl.exceptions.PolarsError, OSError) as error:
            raise ValueError(f"{first.name}: not a whole parquet file ({short(error)}); "
                             "fetch it again") from error  # fmt: skip
        return Table(paths=tuple(paths), kind="parquet", frame=frame, names=names, n_bytes=n_bytes)
    encoding = find_encoding(first, head)
    text = head.decode(encoding, errors="ignore").lstrip("\ufeff")
    if not text.strip():
        raise ValueError(f"{first.name} is empty; expected rows")
    if text.lstrip()[0] in "{[":
        return open_json(paths, n_bytes)
    lines = [line for line in text.splitlines()[: 201 if len(head) >= HEAD_BYTES else None]
             if line.strip()][:200]  # fmt: skip
    separator = find_separator(lines)
    if not separator:
        if min(len(line.split()) for line in lines) >= 2:
            return Table(paths=tuple(paths), kind="words", frame=pl.LazyFrame(), names=(),
                         n_bytes=n_bytes, separator=" ", has_header=False,
                         is_plain=encoding == "utf-8")  # fmt: skip
        raise ValueError(
            f"{first.name}: its lines ({lines[0][:60]!r}) are not cells of one table; expected one "
            f"of {SEPARATORS} between as many cells in every line"
        )
    cells = [name_of(cell) for cell in cut(lines[0], separator)]
    has_header = is_header(cells) and (like is None or tuple(cells) == like.names)
    names = name_columns(first, cells, has_header, columns, like)
    quoted = separator != "\t" or any('\t"' in f"\t{line}" for line in lines)
    is_plain = encoding == "utf-8" and separator != "::"
    plain = list(paths) if is_plain else [
        plain_copy(path, scratch, encoding, separator) for path in paths]  # fmt: skip
    one = "\t" if separator == "::" else separator
    frame = pl.scan_csv(
        plain, has_header=False, skip_rows=int(has_header), separator=one,
        schema=dict.fromkeys(names, pl.String), quote_char='"' if quoted else None,
    )  # fmt: skip
    return Table(paths=tuple(paths), kind="csv", frame=frame, names=names, n_bytes=n_bytes,
                 separator=separator, has_header=has_header, is_plain=is_plain)  # fmt: skip


def collect(frame: pl.LazyFrame, name: str) -> pl.DataFrame:
    """Run a query on a person's file; what is wrong with a row is told with the file's name."""
    try:
        return frame.collect(engine="streaming")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ValueError(
            f"{name}: cannot be read as one table: {short(error)}. Expected as many cells in every "
            "row; repair the line or fetch the file again"
        ) from error


def short(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def open_binary(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip.open(path, "rb")) if packed else path.open("rb")


def read_head(path: Path) -> bytes:
    """The first bytes, unpacked; an archive of several files or a cut one is refused."""
    try:
        with open_binary(path) as file:
            head = file.read(HEAD_BYTES)
    except (EOFError, OSError) as error:
        raise ValueError(f"{path.name}: damaged gzip archive ({error}); fetch it again") from error
    if head[:4] == b"PK\x03\x04" or head[:4] == b"\x28\xb5\x2f\xfd" or head[:3] == b"BZh":
        raise ValueError(f"{path.name}: an archive; unpack it and name the file inside")
    return head


def find_encoding(path: Path, head: bytes) -> str:
    """utf-8, utf-16 by its mark, or cp1252, which is what spreadsheets in Europe write."""
    if head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "utf-16"
    control = sum(head.count(bytes([code])) for code in (*range(9), *range(14, 32)))
    if head and control > len(head) // 1000:
        raise ValueError(
            f"{path.name}: not text and not parquet ({control} control bytes in the first "
            f"{len(head):,}); expected CSV, TSV, JSON lines or parquet, plain or gzip"
        )
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with open_binary(path) as file:
            while piece := file.read(8 << 20):
                decoder.decode(piece)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return "cp1252"
    except (EOFError, OSError) as error:
        raise ValueError(f"{path.name}: damaged gzip archive ({error}); fetch it again") from error
    return "utf-8"


def plain_copy(path: Path, scratch: Path, encoding: str, separator: str) -> Path:
    """The same table in UTF-8 with a one-byte separator."""
    scratch.mkdir(parents=True, exist_ok=True)
    target = scratch / f"{path.name}.plain"
    with open_binary(path) as file, target.open("w", encoding="utf-8", newline="") as out:
        reader = codecs.getreader(encoding)(file, "replace")
        for line in reader:
            text = line.lstrip("\ufeff")
            out.write(text.replace("\t", " ").replace("::", "\t") if separator == "::" else text)
    return target


def cut(line: str, separator: str) -> list[str]:
    """The cells of a line; a separator between quotes does not cut."""
    if '"' not in line:
        return line.split(separator)
    parts = re.split(rf'{re.escape(separator)}(?=(?:[^"]*"[^"]*")*[^"]*$)', line)
    return [part.strip('"') for part in parts]


def find_separator(lines: Sequence[str]) -> str:
    """The mark that cuts every line into as many cells, the most of them; empty where none does.

    >>> find_separator(["a;b;c", "1;2,5;x"])
    ';'
    """
    counts: Mapping[str, list[int]] = {
        mark: [len(cut(line, mark)) for line in lines] for mark in SEPARATORS
    }
    fitting = {mark: found[0] for mark, found in counts.items() if found[0] > 1
               and sum(n == found[0] for n in found) >= 0.98 * len(found)}  # fmt: skip
    if "::" in fitting:
        return "::"
    return max(fitting, key=lambda mark: fitting[mark], default="")


def name_of(cell: str) -> str:
    return RECBOLE.sub("", cell.strip().strip('"').strip())


def is_header(cells: Sequence[str]) -> bool:
    """Names are words: a first line with a number among its cells is a row."""
    return not any(NUMBER.match(cell) for cell in cells) and any(cells)


def name_columns(
    path: Path, cells: Sequence[str], has_header: bool, given: Sequence[str], like: Table | None
) -> tuple[str, ...]:
    """The header, else the names given, else column_1, column_2, …"""
    if has_header:
        names = [cell or f"column_{number}" for number, cell in enumerate(cells, 1)]
    elif given or like:
        names = list(given or (like.names if like else ()))
        if len(names) != len(cells):
            raise ValueError(f"{path.name}: {len(names)} names for {len(cells)} columns; name each")
    else:
        names = [f"column_{number}" for number in range(1, len(cells) + 1)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{path.name}: column {twice[0]!r} stands twice in the header; rename one")
    return tuple(names)


def open_json(paths: Sequence[Path], n_bytes: int) -> Table:
    """One JSON object a line, or one array of objects."""
    parts = []
    for path in paths:
        with open_binary(path) as file:
            data = file.read()
        try:
            if data.lstrip()[:1] == b"[":
                parts.append(pl.read_json(BytesIO(data), infer_schema_length=None))
            else:
                parts.append(pl.read_ndjson(BytesIO(data), infer_schema_length=None))
        except pl.exceptions.PolarsError as error:
            raise ValueError(f"{path.name}: not JSON lines ({short(error)}); expected one object a "
                             "line, all with the same kinds of values") from error  # fmt: skip
    frame = pl.concat(parts, how="diagonal_relaxed")
    return Table(paths=tuple(paths), kind="json", frame=frame.lazy(), names=tuple(frame.columns),
                 n_bytes=n_bytes)  # fmt: skip
