"""NPY shards: rows in files of at most ``shard_rows``, each whole or absent, reused when complete.

A shard is ``00003.categorical.npy``, ``00003.label.npy``, … and ``00003.json``, written last, which
holds the recipe it was made with and the size and hash of each file. Writing again with the same
recipe keeps every complete shard and builds only those that are missing or damaged.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from lib.data.files import TEMPORARY, forget_manifest, read_json, sha256_of, write_json

__all__ = ["ROW_ARRAYS", "Arrays", "Batch", "NpyFile", "ShardReport", "map_npy", "write_shards"]

ROW_ARRAYS: Mapping[str, type[np.generic]] = {
    "categorical": np.int32,
    "numeric": np.float32,
    "missing": np.uint8,
    "label": np.int8,
    "fold": np.int16,
    "group": np.int32,
    "split": np.uint8,
}
MATRICES = ("categorical", "numeric", "missing")
Arrays = Mapping[str, npt.NDArray[np.generic]]
Batch = tuple[int, Callable[[], Arrays]]  # number of rows, and the work of encoding them
AHEAD = 2  # batches encoded at a time
HEADER = 128  # bytes kept free for an NPY header whose row count is known only at the end


@dataclass(frozen=True, slots=True)
class ShardReport:
    """How many rows each shard holds, and which shards had to be built this time."""

    rows: tuple[int, ...]
    built: tuple[int, ...]


class NpyFile:
    """An NPY file that grows by appending; it gets its name only when it is whole.

    >>> import tempfile; path = Path(tempfile.mkdtemp()) / "a.npy"
    >>> file = NpyFile(path); file.append(np.arange(3)); file.append(np.arange(2)); file.close()
    >>> np.load(path)
    array([0, 1, 2, 0, 1])
    """

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, 0
        self.temporary = path.with_name(f"{TEMPORARY}{path.name}")
        self.dtype: np.dtype[np.generic] | None = None
        self.tail: tuple[int, ...] = ()
        self.file: BinaryIO = self.temporary.open("wb")
        self.file.write(b" " * HEADER)

    def append(self, array: npt.NDArray[np.generic]) -> None:
        if self.dtype is None:
            self.dtype, self.tail = array.dtype, array.shape[1:]
        if array.dtype.kind == self.dtype.kind == "u" and array.dtype != self.dtype:
            self._widen(np.promote_types(array.dtype, self.dtype))
            array = array.astype(self.dtype)
        if array.dtype != self.dtype or array.shape[1:] != self.tail:
            raise ValueError(
                f"{self.path.name}: part of {array.dtype} {array.shape}, expected {self.dtype} "
                f"(rows, {self.tail}); all parts of one file need one type and width"
            )
        self.file.write(np.ascontiguousarray(array).data if array.size else b"")
        self.rows += len(array)

    def _widen(self, dtype: np.dtype[np.generic]) -> None:
        """Rewrite what is there when a later part needs a wider unsigned type."""
        if dtype == self.dtype:
            return
        self.file.flush()
        wider = self.temporary.with_name(f"{self.temporary.name}-wide")
        with self.temporary.open("rb") as narrow, wider.open("wb") as file:
            file.write(narrow.read(HEADER))
            while piece := narrow.read(1 << 24):
                file.write(np.frombuffer(piece, self.dtype).astype(dtype).data)
        self.file.close()
        wider.replace(self.temporary)
        self.file, self.dtype = self.temporary.open("r+b"), dtype
        self.file.seek(0, os.SEEK_END)

    def close(self) -> None:
        text = repr(
            {
                "descr": np.lib.format.dtype_to_descr(self.dtype or np.dtype(np.uint16)),
                "fortran_order": False,
                "shape": (self.rows, *self.tail),
            }
        )
        body = text.encode().ljust(HEADER - 11) + b"\n"
        self.file.seek(0)
        self.file.write(b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body)
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        self.temporary.replace(self.path)

    def abandon(self) -> None:
        self.file.close()
        self.temporary.unlink(missing_ok=True)


def map_npy(path: Path) -> npt.NDArray[np.generic]:
    """Map an NPY file; a tiny or empty one is read, because nothing of no bytes can be mapped."""
    array = np.load(path, mmap_mode="r" if path.stat().st_size > 4096 else None)
    return cast(npt.NDArray[np.generic], array)


def write_shards(
    folder: Path, batches: Iterable[Batch], *, n_rows: int, shard_rows: int, recipe: str
) -> ShardReport:
    """Write (or keep) the shards of ``n_rows`` rows; a batch none of whose rows are needed is
    never encoded. ``recipe`` is a hash of everything the content depends on."""
    if shard_rows < 1:
        raise ValueError(f"{shard_rows=}, expected at least 1")
    folder.mkdir(parents=True, exist_ok=True)
    sizes = [min(shard_rows, n_rows - start) for start in range(0, n_rows, shard_rows)]
    missing = {i for i, size in enumerate(sizes) if not _is_complete(folder, i, size, recipe)}
    if missing:
        forget_manifest(folder)
    _remove_foreign(folder, len(sizes))
    writer: _Shard | None = None
    done = 0

    def is_needed(start: int, size: int) -> bool:
        return not missing.isdisjoint(_touched(start, size, shard_rows))

    try:
        for size, arrays in _encode_ahead(batches if missing else (), is_needed):
            for shard in _touched(done, size, shard_rows) if arrays is not None else ():
                if shard not in missing:
                    continue
                first = max(shard * shard_rows - done, 0)
                last = min((shard + 1) * shard_rows - done, size)
                writer = writer or _Shard(folder, shard)
                writer.append(cast(Arrays, arrays), first, last, size)
                if writer.rows == sizes[shard]:
                    writer.close(recipe)
                    writer = None
            done += size
    finally:
        if writer is not None:
            writer.abandon()
    if missing and done != n_rows:
        raise ValueError(
            f"{folder}: {done} rows came, {n_rows} were announced; read the source again"
        )
    return ShardReport(tuple(sizes), tuple(sorted(missing)))


def _touched(start: int, size: int, shard_rows: int) -> range:
    """The shards that hold rows ``start`` to ``start + size``."""
    return range(start // shard_rows, -(-(start + size) // shard_rows))


def _encode_ahead(
    batches: Iterable[Batch], is_needed: Callable[[int, int], bool]
) -> Iterator[tuple[int, Arrays | None]]:
    """Batches in order, encoded by two threads while earlier ones are written; None: not needed."""
    waiting: deque[tuple[int, Future[Arrays] | None]] = deque()
    start = 0
    with ThreadPoolExecutor(AHEAD) as pool:
        try:
            for size, encode in batches:
                waiting.append((size, pool.submit(encode) if is_needed(start, size) else None))
                start += size
                if len(waiting) > AHEAD:
                    size, future = waiting.popleft()
                    yield size, None if future is None else future.result()
            while waiting:
                size, future = waiting.popleft()
                yield size, None if future is None else future.result()
        finally:
            for _, future in waiting:
                if future is not None:
                    future.cancel()


@dataclass
class _Shard:
    folder: Path
    number: int
    rows: int = 0
    files: dict[str, NpyFile] = field(default_factory=dict)
    n_tokens: int = 0

    def __post_init__(self) -> None:
        (self.folder / f"{self.number:05d}.json").unlink(missing_ok=True)

    def append(self, arrays: Arrays, first: int, last: int, size: int) -> None:
        for name, dtype in ROW_ARRAYS.items():
            array = arrays[name]
            if len(array) != size or array.ndim != (2 if name in MATRICES else 1):
                raise ValueError(f"{name}: shape {array.shape} in a batch of {size} rows")
            self._file(name).append(array[first:last].astype(dtype, copy=False))
        if "lengths" in arrays:
            lengths = arrays["lengths"].astype(np.int64)
            ends = np.concatenate([[0], np.cumsum(lengths)])
            if self.rows == 0:
                self._file("offsets").append(np.zeros(1, np.int64))
            inside = ends[first + 1 : last + 1] - ends[first]
            self._file("offsets").append(inside + self.n_tokens)
            self._file("tokens").append(arrays["tokens"][ends[first] : ends[last]])
            self.n_tokens += int(ends[last] - ends[first])
        self.rows += last - first

    def _file(self, name: str) -> NpyFile:
        if name not in self.files:
            self.files[name] = NpyFile(self.folder / f"{self.number:05d}.{name}.npy")
        return self.files[name]

    def close(self, recipe: str) -> None:
        for file in self.files.values():
            file.close()
        described = {
            file.path.name: {
                "dtype": str(file.dtype),
                "shape": [file.rows, *file.tail],
                "bytes": file.path.stat().st_size,
                "sha256": sha256_of(file.path),
            }
            for file in self.files.values()
        }
        note = {"recipe": recipe, "rows": self.rows, "files": described}
        write_json(self.folder / f"{self.number:05d}.json", note)

    def abandon(self) -> None:
        for file in self.files.values():
            file.abandon()


def _is_complete(folder: Path, number: int, size: int, recipe: str) -> bool:
    path = folder / f"{number:05d}.json"
    if not path.is_file():
        return False
    try:
        note = cast(dict[str, object], read_json(path))
    except ValueError:
        return False
    if note.get("recipe") != recipe or note.get("rows") != size:
        return False
    files = cast(Mapping[str, Mapping[str, object]], note["files"])
    return all(
        (folder / name).is_file()
        and (folder / name).stat().st_size == entry["bytes"]
        and sha256_of(folder / name) == entry["sha256"]
        for name, entry in files.items()
    )


def _remove_foreign(folder: Path, n_shards: int) -> None:
    """Take away what an interrupted or longer earlier run left behind."""
    for path in folder.iterdir():
        number = path.name.split(".")[0]
        if path.name.startswith(TEMPORARY) or (number.isdigit() and int(number) >= n_shards):
            path.unlink()
