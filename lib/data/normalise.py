"""Any click table to one normalised parquet, in blocks, so that memory does not grow with the file.

A CSV is read a block of whole lines at a time, parsed by Polars while the block before is written;
a gzip is unpacked on the way. What is wrong with a row is an error that names the file.
"""

import gzip
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import BinaryIO, cast

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from lib.data.files import TEMPORARY

__all__ = [
    "ROW",
    "Normalised",
    "columns_of",
    "normalise",
    "read_header",
    "require_columns",
    "unchanged",
]

SEPARATORS = (",", "\t", ";", "|", " ")
BLOCK_BYTES = 8 << 20  # twice this cost no less time and half as much memory again
ROW_GROUP = 65_536
ROW = "row"  # number of a row in its source file, for expressions that need it
Schema = Mapping[str, pl.DataType | type[pl.DataType]]


@dataclass(frozen=True, slots=True)
class Normalised:
    """Rows written, and empty cells by column; columns without any left out."""

    n_rows: int
    empty: dict[str, int]


@contextmanager
def unchanged(path: Path) -> Iterator[None]:
    """Raise if a file is not the same at the end of the block as at its start."""
    before = path.stat()
    yield
    after = path.stat()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise ValueError(
            f"{path.name} changed while it was read ({before.st_size} to {after.st_size} bytes); "
            "wait until its writer is done and prepare it again"
        )


def read_header(path: Path, separator: str) -> list[str]:
    """The first line of a CSV, split; an empty file or a wrong separator is an error here."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            line = file.readline(1 << 20)
        text = line.decode("utf-8-sig").strip()
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path.name}: not a whole gzip file ({error}); fetch it again") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name}: header is not UTF-8 ({error}); convert the file") from error
    if not text:
        raise ValueError(f"{path.name} is empty; expected a header line and rows")
    names = [name.strip('"') for name in text.split(separator)]
    if len(names) == 1:
        better = [sep for sep in SEPARATORS if sep != separator and len(text.split(sep)) > 1]
        hint = f" It seems to be separated by {better[0]!r}." if better else ""
        raise ValueError(
            f"{path.name}: one column {text[:60]!r} when split at {separator!r}.{hint} "
            "Give the right separator"
        )
    return names


def require_columns(path: Path, present: Sequence[str], wanted: Sequence[str]) -> None:
    """Name the first missing column and the nearest present one."""
    twice = sorted({name for name in present if list(present).count(name) > 1})
    if twice:
        raise ValueError(f"{path.name}: column {twice[0]!r} occurs twice; rename one of them")
    for name in wanted:
        if name not in present:
            near = get_close_matches(name, present, n=1, cutoff=0.4) or list(present)[:8]
            raise ValueError(
                f"{path.name}: no column {name!r}; nearest present: {', '.join(near)}. "
                "Expected all of the fields asked for; correct the names or the file"
            )


def columns_of(path: Path, separator: str) -> list[str]:
    """Names of the columns of a CSV or parquet."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; expected a click table")
    if path.suffix == ".parquet":
        return list(pq.read_schema(path).names)
    return read_header(path, separator)


def normalise(
    source: Path,
    target: Path,
    *,
    schema: Schema,
    columns: Sequence[pl.Expr],
    separator: str = ",",
    header: Sequence[str] | None = None,
    max_rows: int | None = None,
) -> Normalised:
    """Read columns of these types, write ``columns`` of them to a parquet, count what came.

    ``columns`` may use ``ROW``. ``header`` names the columns of a CSV that has no header line.
    """
    present = columns_of(source, separator) if header is None else list(header)
    require_columns(source, present, list(schema))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{TEMPORARY}{target.name}")
    try:
        with unchanged(source):
            if source.suffix == ".parquet":
                tables = _parquet_tables(source, schema, columns, max_rows)
            else:
                skip = header is None
                tables = _csv_tables(source, present, schema, columns, separator, skip, max_rows)
            done = _write(temporary, tables)
        if done.n_rows == 0:
            raise ValueError(f"{source.name} has a header but no rows; fetch it again")
        temporary.replace(target)
    except (pl.exceptions.PolarsError, pa.ArrowException, OSError, EOFError, zlib.error) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{source.name}: cannot be read as a click table: {reason}. Expected UTF-8 rows of "
            "the header's width and types; repair the line or fetch the file again"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return done


def _parquet_tables(
    source: Path, schema: Schema, columns: Sequence[pl.Expr], max_rows: int | None
) -> Iterator[pl.DataFrame]:
    casts = [pl.col(name).cast(dtype) for name, dtype in schema.items()]
    first = 0
    with pq.ParquetFile(source, buffer_size=1 << 20, pre_buffer=False) as file:
        for batch in file.iter_batches(batch_size=ROW_GROUP, columns=list(schema)):
            frame = cast(pl.DataFrame, pl.from_arrow(batch)).select(casts)
            frame = frame if max_rows is None else frame.head(max_rows - first)
            yield frame.with_row_index(ROW, first).select(columns)
            first += len(frame)
            if max_rows is not None and first >= max_rows:
                return


def _csv_tables(
    source: Path,
    present: Sequence[str],
    schema: Schema,
    columns: Sequence[pl.Expr],
    separator: str,
    skip_header: bool,
    max_rows: int | None,
) -> Iterator[pl.DataFrame]:
    """Parsed blocks in order; the next one is parsed while the caller works on this one."""
    types = {name: schema.get(name, pl.String) for name in present}
    first = 0

    def parse(block: bytes) -> pl.DataFrame:
        nonlocal first
        table = pl.scan_csv(block, has_header=False, schema=types, separator=separator)
        frame = table.select(list(schema)).collect()
        frame = frame if max_rows is None else frame.head(max_rows - first)
        start, first = first, first + len(frame)
        return frame.with_row_index(ROW, start).select(columns)

    with (
        gzip.open(source, "rb") if source.suffix == ".gz" else source.open("rb") as file,
        ThreadPoolExecutor(1) as pool,
    ):
        if skip_header:
            file.readline()
        blocks = _blocks(cast(BinaryIO, file))
        waiting = [pool.submit(parse, block) for block in _take(blocks)]
        while waiting:
            frame = waiting.pop().result()
            if max_rows is None or first < max_rows:
                waiting = [pool.submit(parse, block) for block in _take(blocks)]
            yield frame


def _take(blocks: Iterator[bytes]) -> list[bytes]:
    """The next block, or none."""
    block = next(blocks, b"")
    return [block] if block else []


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    """Whole lines, about ``BLOCK_BYTES`` at a time; a line break between quotes ends no line."""
    rest = b""
    while piece := file.read(BLOCK_BYTES):
        block = rest + piece
        cut = block.rfind(b"\n")
        while cut >= 0 and block.count(b'"', 0, cut) % 2:
            cut = block.rfind(b"\n", 0, cut)
        rest = block[cut + 1 :]
        if cut >= 0:
            yield block[: cut + 1]
    if rest.strip():
        yield rest


def _write(path: Path, tables: Iterator[pl.DataFrame]) -> Normalised:
    writer: pq.ParquetWriter | None = None
    n_rows, empty = 0, dict[str, int]()
    try:
        for frame in tables:
            table = frame.to_arrow(compat_level=pl.CompatLevel.newest())
            if writer is None:  # whole numbers are written twice as fast without a dictionary
                texts = [name for name, dtype in frame.schema.items() if dtype == pl.String]
                writer = pq.ParquetWriter(
                    path,
                    table.schema,
                    compression="lz4",
                    use_dictionary=texts,
                    write_statistics=False,
                    store_schema=False,
                )
            writer.write_table(table, row_group_size=ROW_GROUP)
            n_rows += len(frame)
            for name, count in frame.null_count().row(0, named=True).items():
                empty[name] = empty.get(name, 0) + count
    finally:
        if writer is not None:
            writer.close()
    return Normalised(n_rows, {name: count for name, count in empty.items() if count})
