"""Blocks of whole lines from a text file, plain or gzip, in bounded memory.

Every block that comes out is valid UTF-8. Lines in another encoding are read as Windows-1252 and
counted; a truncated archive, an empty file, a binary one, and a file that changes while it is read
are errors.
"""

import gzip
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

__all__ = ["Block", "RowCheck", "first_line", "read_blocks"]

BLOCK_BYTES = 32 << 20
GZIP_MAGIC = b"\x1f\x8b"
BOM = b"\xef\xbb\xbf"
EARLY = 10_000  # rows after which too large a share of bad rows stops the reading at once


@dataclass(frozen=True)
class Block:
    """Whole lines, each ending in a line feed, and the number of the first one (from 1)."""

    data: bytes
    first_line: int

    @property
    def n_lines(self) -> int:
        return self.data.count(b"\n")


@dataclass
class RowCheck:
    """Counts what is wrong with a file's rows and stops when too many are.

    A dropped row is left out; a repaired one stays. Both are counted by kind, with the first lines.
    """

    path: Path
    max_bad_share: float
    n_rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)
    lines: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.max_bad_share <= 1:
            raise ValueError(f"max_bad_share is {self.max_bad_share}, expected 0..1")

    def drop(self, kind: str, line: int, count: int = 1) -> None:
        """Note rows that are left out."""
        self.dropped[kind] += count
        self._remember(kind, line)

    def repair(self, kind: str, line: int, count: int = 1) -> None:
        """Note rows that were mended and kept."""
        self.repaired[kind] += count
        self._remember(kind, line)

    def stop_if_too_many(self, *, final: bool = False) -> None:
        """Raise when the dropped rows exceed the allowed share."""
        bad = self.dropped.total()
        if bad <= self.max_bad_share * self.n_rows or (self.n_rows < EARLY and not final):
            return
        raise ValueError(
            f"{self.path}: {bad} of {self.n_rows} rows are bad ({self.describe()}), more than "
            f"max_bad_share={self.max_bad_share}. Repair the file, or raise max_bad_share"
        )

    def describe(self) -> str:
        """Kinds, counts and first lines in one sentence."""
        every = self.dropped + self.repaired
        return "; ".join(
            f"{kind}: {count}, first in line {', '.join(map(str, self.lines[kind]))}"
            for kind, count in every.most_common()
        )

    def _remember(self, kind: str, line: int) -> None:
        seen = self.lines.setdefault(kind, [])
        if len(seen) < 3:
            seen.append(line)


def read_blocks(path: Path, check: RowCheck, *, size: int = BLOCK_BYTES) -> Iterator[Block]:
    """Yield the file as blocks of whole lines, roughly ``size`` bytes each."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected raw data here")
    before, number, rest, total = _fingerprint(path), 1, b"", 0
    with path.open("rb") as raw:
        zipped = raw.read(2) == GZIP_MAGIC
        raw.seek(0)
        stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if zipped else raw
        while True:
            piece = _read(stream, size, path, number + rest.count(b"\n"))
            if not total:
                piece = _checked_start(piece, path)
            total += len(piece)
            rest += piece
            cut = rest.rfind(b"\n") + 1 if piece else len(rest)
            if not cut and piece:
                raise ValueError(
                    f"{path}: no line break in {len(rest)} bytes from line {number} on; expected "
                    "one record a line. Convert the file to lines"
                )
            data, rest = rest[:cut], rest[cut:]
            if data:
                data = data if data.endswith(b"\n") else data + b"\n"
                block = Block(_as_utf8(data, number, check), number)
                number += block.n_lines
                yield block
            if not piece:
                break
    if _fingerprint(path) != before:
        raise ValueError(
            f"{path}: changed while it was read; expected a finished file. "
            "Wait until its download or its writing has ended, then run again"
        )


def first_line(path: Path) -> str:
    """The first line of a file without its line break, for headers and for guessing delimiters."""
    check = RowCheck(path, 1.0)
    block = next(iter(read_blocks(path, check, size=1 << 20)))
    return block.data.split(b"\n", 1)[0].decode().rstrip("\r")


def _read(stream: BinaryIO, size: int, path: Path, line: int) -> bytes:
    try:
        return stream.read(size)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{path}: damaged gzip archive, readable up to about line {line} ({error}). "
            "Expected a whole archive; fetch the file again"
        ) from error


def _checked_start(piece: bytes, path: Path) -> bytes:
    if not piece.strip():
        raise ValueError(f"{path}: the file is empty; expected at least one row. Fetch it again")
    if b"\0" in piece[:4096]:
        raise ValueError(
            f"{path}: holds zero bytes, so it is binary or UTF-16; expected UTF-8 text. Convert it"
        )
    return piece.removeprefix(BOM)


def _fingerprint(path: Path) -> tuple[int, int, int]:
    state = path.stat()
    return state.st_ino, state.st_size, state.st_mtime_ns


def _as_utf8(data: bytes, number: int, check: RowCheck) -> bytes:
    try:
        data.decode()
        return data
    except UnicodeDecodeError:
        lines = data.split(b"\n")
    for index, line in enumerate(lines):
        try:
            line.decode()
        except UnicodeDecodeError:
            text = line.decode("cp1252", errors="replace")
            lines[index] = text.encode()
            check.repair("not UTF-8, read as Windows-1252", number + index)
    return b"\n".join(lines)
