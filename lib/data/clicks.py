"""Click-prediction data: one row per impression, memory-mapped from NPY shards.

Leakage rule: everything fitted (vocabularies, medians, scales) has seen rows of split "train" only.

Ids: field ``f`` owns ``field_offsets[f] .. field_offsets[f] + field_sizes[f]`` of one id space with
``n_ids`` rows. Inside a field, 0 is a missing value, 1 a rare or unseen one, then the values.
Tokens of a sequence: 0 is padding, 1 a token above the range of training, token t is t + 2.
A label of -1 is unknown (a published test set); a fold of -1 is a row outside cross-validation.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from lib.data.files import open_manifest
from lib.data.shards import ROW_ARRAYS, map_npy

__all__ = ["KIND", "SPLITS", "ClickRows", "Clicks", "Layout", "SplitName"]

KIND = "clicks"
SplitName = Literal["train", "valid", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "valid", "test")
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """What the columns of a Clicks dataset mean; plain values, kept in its manifest."""

    fields: tuple[str, ...]
    field_sizes: tuple[int, ...]
    numeric_names: tuple[str, ...] = ()
    missing_names: tuple[str, ...] = ()
    n_tokens: int = 0  # rows of the token table, padding and unseen included; 0 = no sequence

    def __post_init__(self) -> None:
        if len(self.fields) != len(self.field_sizes):
            raise ValueError(
                f"{len(self.fields)} fields but {len(self.field_sizes)} sizes; give one size each"
            )
        for names in (self.fields, self.numeric_names, self.missing_names):
            if len(set(names)) != len(names):
                raise ValueError(
                    f"names occur twice in {sorted(names)}; every column needs its own"
                )
        if self.n_ids >= 2**31:
            raise ValueError(f"{self.n_ids:,} ids do not fit int32; raise min_count or use hashing")

    @property
    def field_offsets(self) -> Ints:
        """Where each field starts in the one id space."""
        return np.cumsum([0, *self.field_sizes[:-1]], dtype=np.int64)[: len(self.fields)]

    @property
    def n_ids(self) -> int:
        return int(sum(self.field_sizes))


@dataclass(frozen=True, kw_only=True, slots=True)
class ClickRows:
    """Some rows of a Clicks dataset as plain arrays, in the order they were asked for."""

    index: Ints  # row numbers in the dataset
    categorical: npt.NDArray[np.int32]
    numeric: npt.NDArray[np.float32]
    missing: npt.NDArray[np.uint8]
    label: npt.NDArray[np.int8]
    fold: npt.NDArray[np.int16]
    group: npt.NDArray[np.int32]
    split: npt.NDArray[np.uint8]
    sequence: tuple[Ints, npt.NDArray[np.unsignedinteger]] | None = None  # offsets [B+1], tokens

    def __len__(self) -> int:
        return len(self.index)

    def padded(self, max_len: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """The newest ``max_len`` tokens, oldest first, 0 behind them -> int32 (B, L), lengths (B,).

        L is the longest kept sequence of these rows (at least 1), so short batches stay small.
        """
        if self.sequence is None:
            raise ValueError(
                "these rows have no sequence; prepare the dataset with a sequence column"
            )
        if max_len < 1:
            raise ValueError(f"{max_len=}, expected at least 1")
        offsets, tokens = self.sequence
        lengths = np.minimum(np.diff(offsets), max_len)
        width = int(max(lengths.max(initial=0), 1))
        column = np.arange(width)
        kept = column < lengths[:, None]
        source = (offsets[1:] - lengths)[:, None] + column
        padded = np.zeros((len(self), width), np.int32)
        padded[kept] = tokens[source[kept]]
        return padded, lengths.astype(np.int32)


@dataclass(frozen=True)
class Clicks:
    """A dataset on disk. Opening reads the manifest; arrays are mapped when first touched."""

    folder: Path
    layout: Layout
    shard_rows: tuple[int, ...]
    made: Mapping[str, object]
    reports: Mapping[str, object]
    parts: Mapping[str, tuple[str, ...]]  # column blocks of an array: numeric = numeric + covisits
    _maps: dict[tuple[int, str], npt.NDArray[np.generic]] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, folder: Path, *, hashes: bool = False) -> "Clicks":
        """Open a finished dataset; a half-written or damaged one is refused."""
        manifest = open_manifest(Path(folder), KIND, hashes=hashes)
        raw = cast(dict[str, list[object]], manifest["layout"])
        layout = Layout(
            fields=tuple(cast(list[str], raw["fields"])),
            field_sizes=tuple(cast(list[int], raw["field_sizes"])),
            numeric_names=tuple(cast(list[str], raw["numeric_names"])),
            missing_names=tuple(cast(list[str], raw["missing_names"])),
            n_tokens=cast(int, raw["n_tokens"]),
        )
        return cls(
            folder=Path(folder),
            layout=layout,
            shard_rows=tuple(cast(list[int], manifest["shard_rows"])),
            made=cast(Mapping[str, object], manifest["made"]),
            reports=cast(Mapping[str, object], manifest["reports"]),
            parts={k: tuple(v) for k, v in cast(dict[str, list[str]], manifest["parts"]).items()},
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Another process opens the folder for itself: no row is sent to it."""
        return Clicks.open, (self.folder,)

    @property
    def fields(self) -> list[str]:
        return list(self.layout.fields)

    @property
    def field_sizes(self) -> Ints:
        return np.array(self.layout.field_sizes, np.int64)

    @property
    def field_offsets(self) -> Ints:
        return self.layout.field_offsets

    @property
    def n_ids(self) -> int:
        return self.layout.n_ids

    @property
    def n_tokens(self) -> int:
        return self.layout.n_tokens

    @property
    def numeric_names(self) -> list[str]:
        return list(self.layout.numeric_names)

    @property
    def missing_names(self) -> list[str]:
        return list(self.layout.missing_names)

    def __len__(self) -> int:
        return sum(self.shard_rows)

    @cached_property
    def label(self) -> npt.NDArray[np.int8]:
        return cast(npt.NDArray[np.int8], self._column("label"))

    @cached_property
    def fold(self) -> npt.NDArray[np.int16]:
        return cast(npt.NDArray[np.int16], self._column("fold"))

    @cached_property
    def group(self) -> npt.NDArray[np.int32]:
        return cast(npt.NDArray[np.int32], self._column("group"))

    @cached_property
    def split(self) -> npt.NDArray[np.uint8]:
        return cast(npt.NDArray[np.uint8], self._column("split"))

    @cached_property
    def categorical(self) -> npt.NDArray[np.int32]:
        return cast(npt.NDArray[np.int32], self._column("categorical"))

    @cached_property
    def numeric(self) -> npt.NDArray[np.float32]:
        return cast(npt.NDArray[np.float32], self._column("numeric"))

    @cached_property
    def missing(self) -> npt.NDArray[np.uint8]:
        return cast(npt.NDArray[np.uint8], self._column("missing"))

    @cached_property
    def sequence(self) -> tuple[Ints, npt.NDArray[np.unsignedinteger]] | None:
        return self.take(np.arange(len(self))).sequence if self.layout.n_tokens else None

    @cached_property
    def row_ids(self) -> npt.NDArray[np.str_] | None:
        """Names of the rows of split "test" as published (``TEST_0000001``), else None."""
        path = self.folder / "row_ids.npy"
        return np.load(path).astype(str) if path.is_file() else None

    def rows(self, split: SplitName | None = None) -> Ints:
        """Row numbers of a split, ascending; of all splits for None."""
        if split is None:
            return np.arange(len(self))
        if split not in SPLITS:
            raise ValueError(f"split {split!r} is not one of {', '.join(SPLITS)}")
        return np.flatnonzero(self.split == SPLITS.index(split))

    def take(self, rows: npt.ArrayLike, *, max_len: int | None = None) -> ClickRows:
        """Gather rows (any order, repeats allowed); ``max_len`` keeps only the newest tokens."""
        index = np.asarray(rows, np.int64).reshape(-1)
        if len(index) and not (index.min() >= 0 and index.max() < len(self)):
            raise IndexError(f"rows {index.min()}..{index.max()} of a dataset of {len(self)} rows")
        blocks = {name: self._gather(name, index) for name in ROW_ARRAYS}
        sequence = self._gather_tokens(index, max_len) if self.layout.n_tokens else None
        return ClickRows(index=index, **blocks, sequence=sequence)  # type: ignore[arg-type]

    def load(self) -> ClickRows:
        """Every row in memory."""
        return self.take(np.arange(len(self)))

    def _map(self, shard: int, name: str) -> npt.NDArray[np.generic]:
        if (shard, name) not in self._maps:
            path = self.folder / f"{shard:05d}.{name}.npy"
            self._maps[shard, name] = map_npy(path)
        return self._maps[shard, name]

    def _column(self, name: str) -> npt.NDArray[np.generic]:
        """One array over all shards: mapped where it is one file, joined in memory otherwise."""
        if len(self.shard_rows) == 1 and len(self.parts.get(name, (name,))) == 1:
            return self._map(0, name)
        return self._gather(name, np.arange(len(self)))

    def _gather(self, name: str, index: Ints) -> npt.NDArray[np.generic]:
        shard, local = self._locate(index)
        blocks = [self._pick(part, shard, local) for part in self.parts.get(name, (name,))]
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)

    def _locate(self, index: Ints) -> tuple[Ints | None, Ints]:
        if len(self.shard_rows) == 1:
            return None, index
        starts = np.cumsum([0, *self.shard_rows])
        shard = np.searchsorted(starts, index, side="right") - 1
        return shard, index - starts[shard]

    def _pick(self, name: str, shard: Ints | None, local: Ints) -> npt.NDArray[np.generic]:
        if shard is None or not len(shard):
            return self._map(0, name)[local]
        if shard.min() == shard.max():
            return self._map(int(shard[0]), name)[local]
        maps = [self._map(number, name) for number in range(len(self.shard_rows))]
        result = np.empty((len(local), *maps[0].shape[1:]), np.result_type(*maps))
        for number, part in enumerate(maps):
            chosen = np.flatnonzero(shard == number)
            result[chosen] = part[local[chosen]]
        return result

    def _gather_tokens(
        self, index: Ints, max_len: int | None
    ) -> tuple[Ints, npt.NDArray[np.unsignedinteger]]:
        shard, local = self._locate(index)
        ends = cast(Ints, self._pick("offsets", shard, local + 1))
        lengths = ends - cast(Ints, self._pick("offsets", shard, local))
        if max_len is not None:
            lengths = np.minimum(lengths, max_len)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        position = np.arange(offsets[-1]) + np.repeat(ends - lengths - offsets[:-1], lengths)
        if shard is not None and len(shard):
            one = shard.min() == shard.max()
            shard = shard[:1] if one else np.repeat(shard, lengths)
        found = self._pick("tokens", shard, position)
        tokens = cast(npt.NDArray[np.unsignedinteger], found)
        tokens[tokens >= self.layout.n_tokens] = 1
        return offsets, tokens
